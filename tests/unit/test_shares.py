"""A large Parquet file is looked at in shares, each by a thread: what is found is what is found by one."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors import sampling
from tasks.core.detectors.recall import Recall
from tasks.core.detectors.sampling import shares
from tasks.core.detectors.scan import scan
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tests.memory_store import MemoryStore
from tests.parquet_files import opened, written
from tests.unit.test_chunkwise import LAYOUTS, table

URI = DatasetURI("memory", "b", "d")
MIXED = pa.table(
    {
        "text": [f"person{at}@example.org" if at % 3 else f"row {at}" for at in range(900)],
        "bytes": [b"\xff" if at % 100 == 0 else b"x" for at in range(900)],
        "card": pa.array([4111111111111111 + at for at in range(900)]),
        "jane@example.org": [1.5] * 900,
    }
).replace_schema_metadata({"owner": "joe.doe@example.org"})


def stored(content: bytes) -> MemoryStore:
    store = MemoryStore()
    store.put(URI.key("t.parquet"), [content], size_bytes=len(content))
    return store


def scanned(content: bytes, threads: int, recall: Recall | None = None) -> ScanReport:
    store = stored(content)
    return replace(scan(store, URI, read_manifest(store, URI), in_flight=threads, recall=recall), elapsed_s=0)


def cut(content: bytes, most: int) -> list[Any]:
    return shares(opened(content), most)


@pytest.fixture(autouse=True)
def _all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(sampling, "LARGE_BYTES", 1)


def test_shares_are_of_about_as_many_rows() -> None:
    content = written(table(), row_group_size=100)
    assert [sorted(share) for share in cut(content, 3)] == [[*range(10)], [*range(10, 20)], [*range(20, 30)]]
    assert cut(content, 1) == cut(written(table()), 4) == [None]


def test_what_is_no_large_parquet_is_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut(b"a,b\n1,2\n", 4) == [None]
    assert cut(written(table(), row_group_size=100)[:-20], 4) == [None]
    assert cut(written(pa.table({"a": pa.array([], pa.string())})), 4) == [None]
    monkeypatch.setattr(sampling, "LARGE_BYTES", 10**9)
    assert cut(written(table(), row_group_size=100), 4) == [None]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shares_are_found_to_hold_what_the_whole_holds(layout: str) -> None:
    content = written(table(), **LAYOUTS[layout] | {"row_group_size": 400})
    whole = scanned(content, 1)
    assert whole.findings
    assert scanned(content, 3) == whole


def test_notes_names_and_what_cannot_be_read_are_told_once() -> None:
    content = written(MIXED, row_group_size=90)
    whole, shared = scanned(content, 1), scanned(content, 4)
    assert {each.column for each in whole.findings} >= {"(metadata)", "text", "#4"}
    assert sum(each.count for each in shared.findings if each.entity == "UNREADABLE") == 9
    assert (shared.rows, shared.profile) == (whole.rows, whole.profile)
    read = [[each for each in report.findings if each.entity != "UNREADABLE"] for report in (whole, shared)]
    assert read[0] == read[1]


def test_what_one_scan_counted_of_shares_another_recalls() -> None:
    content, recall = written(table(), row_group_size=400), Recall()
    first = scanned(content, 3, recall)
    assert recall.recalled == 0
    assert scanned(content, 3, recall) == first
    assert recall.recalled > 0


def test_a_share_that_is_broken_is_unreadable_and_the_rest_is_counted() -> None:
    content = bytearray(written(table(), row_group_size=300, compression="none"))
    last = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(9).column(0)
    content[last.dictionary_page_offset : last.dictionary_page_offset + 40] = b"\xff" * 40
    report = scanned(bytes(content), 2)
    assert any(each.entity == "UNREADABLE" for each in report.findings)
    assert 1500 <= report.rows < 3000
