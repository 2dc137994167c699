"""What a scan recalls of another one: counts of the very same values, so that it answers as if it had counted them."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.detection import EVERYTHING, Detection
from tasks.core.detectors.recall import FIRST, Recall
from tasks.core.detectors.scan import scan
from tasks.core.detectors.tables import BATCH_ROWS, Leaf
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tasks.core.policy import Place
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Treatment, actions_for, may_change
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.transform import apply_treatment
from tasks.staging import recall_of_move, staged_copies
from tests.memory_store import MemoryStore

SOURCE = DatasetURI("memory", "b", "raw")
COPY = DatasetURI("memory", "b", "copy")


def table(rows: int = 400) -> pa.Table:
    return pa.table(
        {
            "contact": [f"person{at}@example.org" for at in range(rows)],
            "note": [None if at % 7 == 0 else f"row {at} of many" for at in range(rows)],
            "amount": [None if at % 5 == 0 else at / 4 for at in range(rows)],
            "order": [1_000_000_000 + at * 37 for at in range(rows)],
            "day": [date(1990, 1, 1) + timedelta(days=at % 900) for at in range(rows)],
            "flag": [at % 2 == 0 for at in range(rows)],
            "tags": [[f"t{at}", f"user{at}@example.com"][: at % 3] for at in range(rows)],
        }
    )


def put(store: MemoryStore, uri: DatasetURI, of: pa.Table, **options: Any) -> None:
    sink = io.BytesIO()
    pq.write_table(of, sink, **options)
    store.put(uri.key("t.parquet"), [sink.getvalue()], size_bytes=sink.tell())


def scanned(
    store: MemoryStore, uri: DatasetURI, recall: Recall | None, detection: Detection = EVERYTHING
) -> ScanReport:
    report = scan(store, uri, read_manifest(store, uri), detection=detection, recall=recall)
    return replace(report, uri=SOURCE, manifest_digest="", size_bytes=0, elapsed_s=0)


def both(first: pa.Table, second: pa.Table, **options: Any) -> tuple[ScanReport, ScanReport, int]:
    """What is found in the second table by a scan of its own, what with the first one's recall, and what it used."""
    store, recall = MemoryStore(), Recall()
    put(store, SOURCE, first)
    put(store, COPY, second, **options)
    scanned(store, SOURCE, recall)
    before = recall.recalled
    return scanned(store, COPY, None), scanned(store, COPY, recall), recall.recalled - before


@pytest.mark.parametrize(("rows", "group", "times"), [(400, 300, 1), (BATCH_ROWS + 500, BATCH_ROWS, 2)])
def test_the_same_chunks_are_recalled_and_found_again(rows: int, group: int, times: int) -> None:
    store, recall = MemoryStore(), Recall()
    put(store, SOURCE, table(rows), row_group_size=group)
    alone = scanned(store, SOURCE, None)
    assert alone.findings
    assert alone.rows == rows
    assert [scanned(store, SOURCE, recall) for _ in range(2)] == [alone] * 2
    assert recall.recalled == 7 * times


def test_what_follows_other_chunks_is_counted_anew() -> None:
    store, recall = MemoryStore(), Recall()
    rows = table(BATCH_ROWS + 500)
    put(store, SOURCE, rows, row_group_size=BATCH_ROWS)
    other = rows.set_column(1, "note", pa.array(["jane@example.net", *rows["note"].to_pylist()[1:]]))
    put(store, COPY, other, row_group_size=BATCH_ROWS)
    longer = pa.concat_tables([rows.slice(0, BATCH_ROWS), table(700)])
    put(store, DatasetURI("memory", "b", "longer"), longer, row_group_size=BATCH_ROWS)
    scanned(store, SOURCE, recall)
    assert scanned(store, COPY, recall) == scanned(store, COPY, None)
    assert recall.recalled == 6 * 2
    uri = DatasetURI("memory", "b", "longer")
    assert scanned(store, uri, recall) == scanned(store, uri, None)
    assert recall.recalled == 6 * 2 + 7


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"use_dictionary": False}, {"row_group_size": 399}])
def test_the_same_values_stored_otherwise_are_counted_and_found_again(options: dict[str, Any]) -> None:
    alone, with_evidence, recalled = both(table(), table(), **options)
    assert alone == with_evidence
    assert alone.findings
    assert recalled == ("use_dictionary" in options)  # Flags are stored alike.


@pytest.mark.parametrize("other", ["type", "nulls", "unit"])
def test_the_same_bytes_of_another_kind_are_counted(other: str) -> None:
    days = pa.table({"day": pa.array(range(4000, 4400), pa.int32()), "id": list(range(400))})
    kinds = {"type": pa.date32(), "nulls": pa.int32(), "unit": pa.time32("s")}
    field = pa.field("day", kinds[other], nullable=other != "nulls")
    again = days.cast(pa.schema([field, days.schema.field("id")]))
    alone, with_evidence, recalled = both(days, again, store_schema=False)
    assert alone == with_evidence
    assert recalled == 1


def test_what_could_not_be_counted_is_not_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    store, recall = MemoryStore(), Recall()
    put(store, SOURCE, table())

    def stumble(_state: object, _leaf: object) -> None:
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr("tasks.core.detectors.columns.ColumnState.add_leaf", stumble)
        assert [each for each in scanned(store, SOURCE, recall).findings if each.entity == "UNREADABLE"]
    assert scanned(store, SOURCE, recall) == scanned(store, SOURCE, None)
    assert not recall.recalled


def test_names_that_are_not_clear_are_counted() -> None:
    odd = pa.table([["x"], [["jane@example.org"]], ["y"], ["z"]], names=["a[]", "a", "b.c", "d"])
    for of in (odd, odd.rename_columns(["a", "a", "b", "c"]), odd.rename_columns(["", "a", "b", "c"])):
        alone, with_evidence, recalled = both(of, of)
        assert alone == with_evidence
        assert not recalled


def test_a_scan_that_keeps_nothing_recalls_and_gathers_less() -> None:
    store, recall = MemoryStore(), Recall()
    for name in range(6):
        sink = io.BytesIO()
        pq.write_table(table(3000).slice(0, 3000 - name), sink)
        store.put(SOURCE.key(f"{name}.parquet"), [sink.getvalue()], size_bytes=sink.tell())
    manifest = read_manifest(store, SOURCE)
    alone = replace(scan(store, SOURCE, manifest), elapsed_s=0)
    assert replace(scan(store, SOURCE, manifest, recall=recall, keeps=False), elapsed_s=0) == alone
    assert replace(scan(store, SOURCE, manifest, recall=recall), elapsed_s=0) == alone
    assert recall.recalled == 0
    assert replace(scan(store, SOURCE, manifest, recall=recall, keeps=False), elapsed_s=0) == alone
    assert recall.recalled == 6 * 7


@pytest.mark.parametrize("rows", [300, BATCH_ROWS + 500])
@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("hidden", ["jane@example.net", None])
def test_one_other_value_anywhere_is_counted_anew(rows: int, at: int, hidden: str | None) -> None:
    harmless = pa.table({"note": [f"row {n} of many" for n in range(rows)], "id": list(range(rows))})
    notes = harmless.column("note").to_pylist()
    notes[at] = hidden
    other = harmless.set_column(0, "note", pa.array(notes))
    alone, with_evidence, _ = both(harmless, other)
    assert alone == with_evidence
    assert any(each.entity == "EMAIL_ADDRESS" for each in with_evidence.findings) == (hidden is not None)


def test_values_go_on_being_counted_where_a_file_goes_on_otherwise() -> None:
    rows = BATCH_ROWS + 500
    first = pa.table({"note": [f"row {n} of many" for n in range(rows)]})
    longer = pa.concat_tables([first.slice(0, BATCH_ROWS), pa.table({"note": ["jane@example.net"] * 300})])
    alone, with_evidence, recalled = both(first, longer, row_group_size=BATCH_ROWS)
    assert recalled == 0
    assert alone == with_evidence
    assert with_evidence.findings
    again, as_before, _ = both(longer, first)
    assert again == as_before
    assert not as_before.findings


def test_what_was_recalled_is_not_changed_by_what_comes_after() -> None:
    store, recall = MemoryStore(), Recall()
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        sink = io.BytesIO()
        pq.write_table(table(), sink)
        store.put(SOURCE.key(name), [sink.getvalue()], size_bytes=sink.tell())
    alone = scanned(store, SOURCE, None)
    assert [scanned(store, SOURCE, recall) for _ in range(3)] == [alone] * 3
    assert recall.recalled


def test_another_name_or_another_detection_recalls_nothing() -> None:
    renamed = table().rename_columns([f"{name}_too" for name in table().column_names])
    assert both(table(), renamed)[2] == 0
    store, recall = MemoryStore(), Recall()
    put(store, SOURCE, table())
    scanned(store, SOURCE, recall)
    scanned(store, SOURCE, recall, Detection(phone_regions=("US",)))
    assert recall.recalled == 0


def test_without_room_everything_is_counted() -> None:
    store, recall = MemoryStore(), Recall(most_bytes=0)
    put(store, SOURCE, table())
    assert scanned(store, SOURCE, recall) == scanned(store, SOURCE, recall) == scanned(store, SOURCE, None)
    assert recall.recalled == 0


def leaf(array: Any, rows: Any = None) -> Leaf:
    return Leaf("x", pl.Series("x", array), rows, array)


def test_a_digest_tells_values_apart_and_not_where_they_lie() -> None:
    recall = Recall()
    arrays = [
        pa.array(["ab", "c"]), pa.array(["a", "bc"]), pa.array(["ab", None]), pa.array(["ab", ""]),
        pa.array(["ab", "c"], pa.large_string()), pa.array(["ab", "c", "c"]), pa.array([None, "ab"]),
        pa.array([1, 2]), pa.array([1, 2], pa.int32()), pa.array([1, 2], pa.uint64()), pa.array([1, None]),
        pa.array([1.0, 2.0]), pa.array([1, 2], pa.timestamp("s")), pa.array([1, 2], pa.timestamp("ms")),
        pa.array([0, 1], pa.int32()), pa.array([0, 1], pa.date32()),
    ]  # fmt: skip
    digests = [recall.digest(FIRST, leaf(array)) for array in arrays]
    assert all(digests)
    assert len(set(digests)) == len(arrays)
    for array, digest in zip(arrays, digests, strict=True):
        moved = pa.concat_arrays([array.slice(0, 1)] * 3 + [array]).slice(3)
        if not array.null_count:
            assert recall.digest(FIRST, leaf(moved)) == digest
        assert recall.digest(digest, leaf(array)) != digest
        assert Recall().digest(FIRST, leaf(array)) != digest
    parents = np.array([0, 0]), np.array([0, 1])
    nested = [recall.digest(FIRST, leaf(arrays[0], rows)) for rows in parents]
    assert len({digests[0], *nested}) == 3


def test_what_has_no_digest_is_counted_and_what_follows_it_too() -> None:
    recall = Recall()
    assert recall.digest(FIRST, leaf(pa.array([True, False]))) == b""
    assert recall.digest(FIRST, Leaf("x", pl.Series(["a"]))) == b""
    assert recall.digest(b"", leaf(pa.array(["a"]))) == b""
    assert recall.of("x", EVERYTHING, b"") is None


def test_treated_columns_are_counted_again_and_only_those() -> None:
    policy = load_policy(
        {
            "version": 1,
            "name": "p",
            "residency": {"allowed": ["EU"]},
            "defaults": {"finding": "allow"},
            "rules": [{"name": "t", "entities": ["EMAIL_ADDRESS"], "action": "tokenise"}],
        }
    )
    assert may_change(policy)
    assert not may_change(replace(policy, rules=()))
    assert may_change(replace(policy, rules=(), bases=(policy,)))
    store, recall = MemoryStore(), Recall()
    put(store, SOURCE, table())
    manifest = read_manifest(store, SOURCE)
    report = scan(store, SOURCE, manifest, recall=recall)
    treatment = actions_for(policy, report, destination=DatasetURI("far", "b", "x"), place=Place("far", "EU"))
    assert isinstance(treatment, Treatment)
    assert {column.column for column in treatment.columns} == {"contact", "tags[]"}
    apply_treatment(store, SOURCE, manifest, treatment, PseudonymKey("k", b"k" * 32), store, COPY)
    again = scanned(store, COPY, recall)
    assert again == scanned(store, COPY, None)
    assert recall.recalled == 5
    assert not [each for each in again.findings if each.entity == "EMAIL_ADDRESS"]


def test_evidence_lives_as_long_as_a_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.staging._remove_forgotten", lambda: None)
    assert recall_of_move() is None
    with staged_copies() as first:
        assert recall_of_move() is first.recall
    with staged_copies() as second:
        assert second.recall is not first.recall
    assert recall_of_move() is None
