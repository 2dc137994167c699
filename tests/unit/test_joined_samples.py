"""Objects of a table that is known by then gather no samples of their own, and the table's are the same."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors import native, objects
from tasks.core.detectors import scan as scanning
from tasks.core.detectors.columns import ColumnState
from tasks.core.detectors.detection import EVERYTHING
from tasks.core.detectors.objects import Known, ObjectScan, TableKey, scan_objects
from tasks.core.detectors.scan import read_tables, scan
from tasks.core.detectors.tables import Batch, Leaf
from tasks.core.listing import read_manifest
from tests.memory_store import MemoryStore

URI = DatasetURI("memory", "b", "t")
ROWS = 4_000


def stored(count: int) -> MemoryStore:
    draw = np.random.default_rng(5)
    store = MemoryStore()
    for at in range(count):
        numbers = draw.integers(10**15, 10**16, ROWS)
        rows = {
            "email": [f"person{number}@example.org" for number in numbers],
            "number": numbers.astype(str),
            "note": [f"call +1 212 555 {number % 10_000:04}" if number % 3 else "é" for number in numbers],
            "amount": draw.random(ROWS),
        }
        sink = io.BytesIO()
        pq.write_table(pa.table(rows), sink)
        store.put(URI.key(f"part-{at}.parquet"), [sink.getvalue()], size_bytes=sink.tell())
    return store


def samples(columns: dict[str, ColumnState]) -> dict[str, object]:
    return {
        name: (
            state.cells.hashes.tolist(), state.cells.marks.tolist(), state.filled,
            {key: (tally.cells, tally.whole, tally.candidates.hashes.tolist(), tally.candidates.marks.tolist())
             for key, tally in state.tallies.items() if len(tally.candidates)},
        )
        for name, state in columns.items()
    }  # fmt: skip


@pytest.mark.parametrize("by_kernel", [True, False])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_table_of_many_objects_has_the_samples_that_it_would_have_if_each_gathered_all(
    by_kernel: bool, in_flight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_kernel:
        monkeypatch.setattr(native, "kernel", lambda: None)
    store = stored(5)
    manifest = read_manifest(store, URI)
    joined: list[str] = []
    merge = scanning._merge

    def watched(table: scanning.Table, seen: ObjectScan) -> None:
        joined.extend([seen.path] if seen.joins else [])
        merge(table, seen)

    monkeypatch.setattr(scanning, "_merge", watched)
    parts = [(entry, None) for entry in manifest]
    tables, _ = read_tables(store, URI, parts, detection=EVERYTHING, in_flight=in_flight)
    report = scan(store, URI, manifest, in_flight=in_flight)
    assert joined or in_flight > 1
    monkeypatch.setattr(objects, "_join_later", lambda *_: None)
    expected, _ = read_tables(store, URI, parts, detection=EVERYTHING, in_flight=in_flight)
    ((key, table),), ((other, alone),) = tables.items(), expected.items()
    assert key == other
    assert samples(table.columns) == samples(alone.columns)
    again = scan(store, URI, manifest, in_flight=in_flight)
    assert (report.findings, report.profile, report.rows) == (again.findings, again.profile, again.rows)


def test_an_object_of_a_known_table_gathers_less() -> None:
    store = stored(4)
    *others, last = read_manifest(store, URI)
    first, *more = scan_objects(store, URI, [(entry, None) for entry in others], detection=EVERYTHING)
    for seen in more:
        first.columns["email"].merge(seen.columns["email"])
    known: Known = {first.key: {name: state.bounds for name, state in first.columns.items()}}
    (alone,) = scan_objects(store, URI, [(last, None)], detection=EVERYTHING)
    (joins,) = scan_objects(store, URI, [(last, None)], detection=EVERYTHING, known=known)
    assert joins.joins == first.key
    assert len(joins.columns["email"].cells) < len(alone.columns["email"].cells) / 2


def test_an_object_that_turns_out_to_be_of_another_table_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series([f"person{at}@example.org" for at in range(100)])

    def read(*_: object, **__: object) -> Iterator[Batch]:
        yield Batch(0, 0, (Leaf("a", texts.clear()),), is_header=True)
        yield Batch(100, 0, (Leaf("a", texts), Leaf("b", texts)))

    monkeypatch.setattr(objects, "read", read)
    store = stored(1)
    (entry,) = read_manifest(store, URI)
    known: Known = {TableKey("", "parquet", ("a",)): {"a": (0, {})}}
    (seen,) = scan_objects(store, URI, [(entry, None)], detection=EVERYTHING, known=known)
    assert (seen.joins, len(seen.columns["a"].cells)) == (None, 100)
