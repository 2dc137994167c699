"""Limits on anonymity: which policies load, and what becomes of tables that do not keep them."""

from __future__ import annotations

import gzip
import itertools
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import Invalid
from tasks.core.listing import read_manifest
from tasks.core.policy import Policy
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Cleared, Refused
from tasks.core.structure import check_anonymity
from tests.memory_store import MemoryStore
from tests.unit.test_privacy import judge, policy
from tests.unit.test_privacy_scan import URI, csv_bytes, jsonl_bytes, parquet_bytes

LIMITS: dict[str, Any] = {"quasi_identifiers": ["age", "sex"], "k": 3, "sensitive": ["illness"], "l": 2, "t": 0.5}
PEOPLE = pa.table(
    {
        "age": [30, 30, 30, None, None, None],
        "sex": ["F"] * 3 + ["M"] * 3,
        "illness": ["canary-flu", "canary-gout", None] * 2,
    }
)
ALONE = pa.concat_tables([PEOPLE, PEOPLE.slice(0, 1).set_column(1, "sex", [["X"]])])


def wanting(*limits: dict[str, Any], name: str = "test", bases: tuple[Policy, ...] = ()) -> Policy:
    data = {"version": 1, "name": name, "residency": {"allowed": ["US"]}, "anonymity": list(limits)}
    return load_policy(data, "test.yaml", bases=bases)


def check(of: Policy, objects: dict[str, bytes]) -> tuple[str, ...]:
    store = MemoryStore()
    for path, content in objects.items():
        store.put(URI.key(path), [content], size_bytes=len(content))
    return check_anonymity(of, store, URI, read_manifest(store, URI))


FORMATS = {
    "t.parquet": parquet_bytes,
    "t.csv": csv_bytes,
    "t.jsonl": jsonl_bytes,
    "t.csv.gz": lambda of: gzip.compress(csv_bytes(of)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_limit_that_is_not_kept_is_a_reason_in_every_format(name: str) -> None:
    assert check(wanting(LIMITS), {name: FORMATS[name](PEOPLE)}) == ()
    reasons = check(wanting(LIMITS), {name: FORMATS[name](ALONE)})
    assert reasons == (
        f"{name}: k is 1 over age, sex, and at least 3 is wanted (test: anonymity[0])",
        f"{name}: l is 1 of illness over age, sex, and at least 2 is wanted (test: anonymity[0])",
        f"{name}: t is 0.571 of illness over age, sex, and at most 0.5 is wanted (test: anonymity[0])",
    )
    assert "canary" not in repr(reasons)


def test_diversity_by_entropy_has_a_limit_of_its_own() -> None:
    of = {"quasi_identifiers": ["sex"], "sensitive": ["illness"], "entropy_l": 3}
    assert check(wanting(of), {"t.csv": csv_bytes(PEOPLE)}) == ()
    (reason,) = check(wanting(of), {"t.csv": csv_bytes(ALONE)})
    assert "l by entropy is 1.000 of illness over sex, and at least 3 is wanted" in reason


def test_numbers_written_as_text_are_as_far_apart_as_numbers() -> None:
    table = pa.table({"q": [1, 1, 1, 2, 2, 2, 3, 3, 3], "salary": [3, 4, 5, 6, 8, 11, 7, 9, 10]})
    of = wanting({"quasi_identifiers": ["q"], "sensitive": ["salary"], "t": 0.3})
    for name in ("t.csv", "t.parquet"):
        assert "t is 0.375 of salary over q" in check(of, {name: FORMATS[name](table)})[0]


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ({"t.csv": csv_bytes(PEOPLE.drop_columns(["sex"]))}, "t.csv: anonymity cannot be measured: no column sex"),
        ({"t.parquet": parquet_bytes(PEOPLE)[:-9]}, "Parquet that cannot be decoded"),
        ({"t.csv": csv_bytes(PEOPLE) + b"1,2\n"}, "rows with another number of fields than the first"),
        ({"t.txt": csv_bytes(PEOPLE)}, "no column age, sex, illness"),
        ({"t.jsonl": b'{"age": [1], "sex": "F", "illness": "a"}\n' * 9}, "no column age"),
        ({"t.json": b'[{"age": 1, "sex": true, "illness": "a"}]'}, "no column sex"),
        ({"t.jsonl": b'{"age": 1, "sex": "F", "illness": "a"}\n{"age": "x", "sex": true}\n'}, "cannot be measured"),
        ({}, "no object matches *"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(objects: dict[str, bytes], why: str) -> None:
    reasons = check(wanting(LIMITS), objects)
    assert any(why in reason for reason in reasons), reasons


def test_only_objects_under_the_globs_are_asked() -> None:
    of = wanting(LIMITS | {"paths": ["people/*"]})
    assert check(of, {"people/t.csv": csv_bytes(PEOPLE), "notes.txt": b"free text"}) == ()
    assert check(of, {"notes.txt": b"free text"}) == ("no object matches people/* (test: anonymity[0])",)


def test_two_tables_do_not_hide_each_other_s_rows() -> None:
    halves = {f"{name}/t.csv": csv_bytes(PEOPLE.slice(at, 2)) for name, at in (("a", 0), ("b", 1))}
    assert len(check(wanting({"quasi_identifiers": ["age"], "k": 3}), halves)) == 2


@settings(max_examples=20)
@given(st.lists(st.integers(1, 6), max_size=4), st.sampled_from(sorted(FORMATS)))
def test_splitting_a_table_changes_nothing(cuts: list[int], name: str) -> None:
    bounds = sorted({0, ALONE.num_rows, *cuts})
    parts = {
        f"part-{at}.{name.partition('.')[2]}": FORMATS[name](ALONE.slice(start, end - start))
        for at, (start, end) in enumerate(itertools.pairwise(bounds))
    }
    whole, split = (check(wanting(LIMITS), objects) for objects in ({name: FORMATS[name](ALONE)}, parts))
    assert [each.partition(": ")[2] for each in split] == [each.partition(": ")[2] for each in whole]


def test_the_limits_of_every_layer_add_up() -> None:
    company = wanting({"quasi_identifiers": ["sex"], "k": 4}, name="company")
    team = wanting({"quasi_identifiers": ["sex"], "k": 2}, name="team", bases=(company,))
    (reason,) = check(team, {"t.csv": csv_bytes(PEOPLE)})
    assert "k is 3 over sex, and at least 4 is wanted (company: anonymity[0])" in reason


def test_nothing_is_cleared_while_the_limits_are_not_checked_or_not_kept() -> None:
    of = policy(anonymity=[LIMITS])
    unchecked = judge(of)
    assert isinstance(unchecked, Refused)
    assert unchecked.reasons == ("the policy has limits on anonymity that were not checked",)
    assert isinstance(judge(of, anonymity=("k is 1",)), Refused)
    assert isinstance(judge(of, anonymity=()), Cleared)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"k": 1}, r"anonymity\[0\]\.k' is not a whole number from 2"),
        ({"k": 2.5}, r"k' is not a whole number"),
        ({"k": True}, r"k' is not a whole number"),
        ({"l": 0}, r"l' is not a whole number from 2"),
        ({"entropy_l": 0.5}, r"entropy_l' is not a number from 1"),
        ({"entropy_l": float("nan")}, r"entropy_l' is not a number from 1"),
        ({"t": 2}, r"t' is not a number from 0 to 1"),
        ({"m": 3}, r"anonymity\[0\]\.m' is not a key"),
        ({"quasi_identifiers": []}, "is empty"),
        ({"quasi_identifiers": ["age", "age"]}, "names one twice"),
        ({"quasi_identifiers": None}, "is missing"),
        ({"sensitive": ["age"]}, "names 'age', a quasi-identifier"),
        ({"paths": []}, "is empty"),
    ],
)
def test_limits_that_mean_nothing_do_not_load(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        wanting(LIMITS | limits)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"quasi_identifiers": ["age"]}, "asks for nothing"),
        ({"quasi_identifiers": ["age"], "l": 2}, "does not go with the limits"),
        ({"quasi_identifiers": ["age"], "k": 2, "sensitive": ["illness"]}, "does not go with the limits"),
    ],
)
def test_limits_that_do_not_go_together_do_not_load(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        wanting(limits)
