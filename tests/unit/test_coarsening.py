"""Generalising to reach k: the least coarse levels that do, what is left out counted and capped, measured again."""

from __future__ import annotations

import io
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.anonymity import measure
from tasks.core.coarsening import coarsen
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.hierarchies import Coarsening, least_coarse
from tasks.core.listing import read_manifest
from tasks.core.policy import Policy
from tasks.core.policy_loading import load_policy
from tasks.core.structure import check_anonymity
from tests.memory_store import MemoryStore

URI, INTO = DatasetURI("memory", "b", "d"), DatasetURI("memory", "b", "made")
GENERALISE = {"age": {"steps": [10, 20]}, "zip": {"keep": [2, 0]}, "born": {"dates": ["month", "year", "decade"]}}


def policy(generalise: dict[str, Any] | None = None, *quasi: str, **rule: Any) -> Policy:
    chosen = GENERALISE if generalise is None else generalise
    names = list(quasi or ("age", "zip", "born"))
    anonymity = {"quasi_identifiers": names, "k": 2, "generalise": chosen} | rule
    return load_policy({"version": 1, "name": "p", "residency": {"allowed": ["US"]}, "anonymity": [anonymity]})


def least(rows: dict[str, list[Any]], of: Policy) -> Coarsening | None:
    return least_coarse("t", of.anonymity[0], pl.DataFrame(rows))


def levels(rows: dict[str, list[Any]], of: Policy) -> dict[str, int] | None:
    found = least(rows, of)
    return dict(found.levels) if found else None


def test_the_levels_that_lose_least_are_taken() -> None:
    same = {"age": [31, 31], "zip": ["10115", "10115"], "born": ["1980-02-03", "1980-02-03"]}
    assert levels(same, policy()) == {"age": 0, "zip": 0, "born": 0}
    assert levels(same | {"born": ["1980-02-03", "1980-02-17"]}, policy()) == {"age": 0, "zip": 0, "born": 1}
    assert levels(same | {"age": [31, 39]}, policy()) == {"age": 1, "zip": 0, "born": 0}
    assert levels(same | {"age": [31, 22], "zip": ["10115", "10999"]}, policy()) == {"age": 2, "zip": 1, "born": 0}
    assert levels(same | {"age": [11, 71]}, policy()) is None


def test_rows_are_left_out_up_to_the_limit_and_counted() -> None:
    rows = {"age": [30] * 9 + [71]}
    ages = {"age": {"steps": [5]}}
    assert least(rows, policy(ages, "age")) is None
    found = least(rows, policy(ages, "age", suppress_up_to=0.1))
    assert found is not None
    assert (found.levels, found.suppressed, found.rows) == ({"age": 0}, 1, 10)
    assert found.as_dict()["levels"] == {"age": "as it is"}
    assert "71" not in repr(found) + str(found.as_dict())


def test_diversity_and_closeness_are_sought_too() -> None:
    rows = {"age": [31, 31, 32, 32], "ill": ["a", "a", "b", "b"]}
    ages = {"age": {"steps": [10]}}
    assert levels(rows, policy(ages, "age", sensitive=["ill"], l=2)) == {"age": 1}
    assert levels(rows, policy(ages, "age", sensitive=["ill"], t=0.1)) == {"age": 1}
    assert levels(rows, policy(ages, "age", sensitive=["ill"], entropy_l=2)) == {"age": 1}


tables = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(18, 60)), st.sampled_from(["10115", "10117", "20095", None])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=tables, k=st.integers(2, 4), share=st.sampled_from([0.0, 0.2]), at=st.integers(0, 30))
def test_a_copy_keeps_its_limits_by_the_code_that_checks_any_copy(
    rows: list[tuple[int | None, str | None]], k: int, share: float, at: int
) -> None:
    of = policy({"age": {"steps": [10, 30]}, "zip": {"keep": [2, 0]}}, "age", "zip", k=k, suppress_up_to=share)
    store = MemoryStore()
    parts = {"t/1.parquet": rows[:at], "t/2.parquet": rows[at:]}
    schema = pa.schema({"age": pa.int64(), "zip": pa.string(), "kept": pa.int64()})
    for path, part in parts.items():
        sink = io.BytesIO()
        columns = {"age": [r[0] for r in part], "zip": [r[1] for r in part], "kept": list(range(len(part)))}
        pq.write_table(pa.table(columns, schema=schema), sink)
        store.put(URI.key(path), [sink.getvalue()], size_bytes=len(sink.getvalue()))
    manifest = read_manifest(store, URI)
    made, done = coarsen(of, store, URI, manifest, store, INTO)
    again, _ = coarsen(of, store, URI, manifest, store, INTO)
    assert again.digest == made.digest
    if not done:
        assert check_anonymity(of, store, URI, manifest)
        return
    assert check_anonymity(of, store, INTO, made) == ()
    left = pl.concat(
        pl.read_parquet(io.BytesIO(b"".join(store.get(INTO.key(entry.path))))).select("age", "zip") for entry in made
    )
    assert left.height == len(rows) - done[0].suppressed >= len(rows) * (1 - share)
    assert measure(left, ["age", "zip"]).k >= k


def test_csv_stays_csv_and_a_table_that_no_level_helps_stays_as_it_is() -> None:
    store = MemoryStore()
    for path, text in {"a.csv": "age,x\n31,1\n39,2\n", "b/c.csv": "age,y\n1,1\n99,2\n"}.items():
        store.put(URI.key(path), [text.encode()], size_bytes=len(text))
    of = policy({"age": {"steps": [10]}}, "age")
    made, done = coarsen(of, store, URI, read_manifest(store, URI), store, INTO)
    for path, rows in {"a.csv": [(30, 1), (30, 2)], "b/c.csv": [(1, 1), (99, 2)]}.items():
        assert pl.read_csv(b"".join(store.get(INTO.key(path)))).rows() == rows
    assert [each.path for each in done] == ["a.csv"]
    assert check_anonymity(of, store, INTO, made) == (
        "b/c.csv: k is 1 over age, and at least 2 is wanted (p: anonymity[0])",
    )


def test_other_formats_are_refused_and_not_left_as_they_are() -> None:
    store = MemoryStore()
    text = b'{"age": 31}\n{"age": 39}\n'
    store.put(URI.key("a.jsonl"), [text], size_bytes=len(text))
    with pytest.raises(PolicyViolation, match="only Parquet and CSV"):
        coarsen(policy({"age": {"steps": [10]}}, "age"), store, URI, read_manifest(store, URI), store, INTO)


@pytest.mark.parametrize(
    ("generalise", "said"),
    [
        ({"agee": {"steps": [10]}}, "did you mean 'age'"),
        ({"age": {"steps": [10, 15]}}, "multiple"),
        ({"age": {"steps": [10], "keep": [1]}}, "is not one hierarchy"),
        ({"zip": {"keep": [2, 3]}}, "less and less"),
        ({"born": {"dates": ["year", "month"]}}, "coarser"),
        ({"born": {"dates": ["week"]}}, "one of month"),
        ({"age": {"steps": [2**n for n in range(64)]}, "zip": {"keep": list(range(70, -1, -1))}}, "4096"),
    ],
)
def test_hierarchies_that_mean_nothing_do_not_load(generalise: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        policy(generalise)
