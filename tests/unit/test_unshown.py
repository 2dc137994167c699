"""What a Parquet file's dictionaries hold and no row shows: it leaves with the file, so it is looked at."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors import native, row_groups
from tasks.core.detectors.scan import scan
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tasks.core.policy import Action
from tasks.core.treatments import ObjectTreatment
from tests.memory_store import MemoryStore
from tests.parquet_files import written
from tests.unit.test_chunkwise import KEYS, LAYOUTS, how, table, treated

URI = DatasetURI("memory", "b", "d")
ROWS, HIDDEN = 60, 40
CANARY = "hidden.number{}@secret-example.org"

pytestmark = pytest.mark.parametrize("kernel", [True, False], ids=["native", "pure"])


@pytest.fixture(autouse=True)
def _kernel(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    if not kernel:
        monkeypatch.setattr(native, "kernel", lambda: None)


def filtered(entries: pa.Array) -> pa.DictionaryArray:
    """Categories after a filter: every row shows the first entry, and the others are still there."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), entries)


def hidden(kind: Any = None) -> pa.Array:
    return pa.array(["nobody", *(CANARY.format(at) for at in range(HIDDEN))], kind or pa.string())


def scanned(of: pa.Table, **options: Any) -> ScanReport:
    content = written(of, **options)
    store = MemoryStore()
    store.put(URI.key("t.parquet"), [content], size_bytes=len(content))
    return scan(store, URI, read_manifest(store, URI))


SHAPES = {
    "categories": pa.table({"who": filtered(hidden()), "other": ["x"] * ROWS}),
    "the last column": pa.table({"at": range(ROWS), "who": filtered(hidden())}),
    "bytes": pa.table({"who": filtered(hidden(pa.binary()))}),
    "inside structs": pa.table({"a": pa.StructArray.from_arrays([filtered(hidden())], ["who"])}),
}


@pytest.mark.parametrize("store_schema", [True, False], ids=["told by Arrow's schema", "not told"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_filtered_away_is_found(shape: str, store_schema: bool) -> None:
    report = scanned(SHAPES[shape], store_schema=store_schema)
    (found,) = report.findings
    assert (found.entity, found.count, found.column.split(".")[-1]) == ("EMAIL_ADDRESS", HIDDEN, "who")
    assert f"{HIDDEN} values of the column lie in dictionaries and no row shows them" in found.why
    assert "secret-example" not in str(report.as_dict())
    assert [each.nulls for each in report.profile if each.column == found.column] == [0]


def test_an_entry_that_another_row_group_shows_is_counted_where_it_is_hidden() -> None:
    parts = [filtered(hidden()), pa.DictionaryArray.from_arrays(pa.array(range(HIDDEN + 1), pa.int32()), hidden())]
    report = scanned(pa.table({"who": pa.chunked_array(parts)}), row_group_size=ROWS)
    (found,) = report.findings
    assert found.count == 2 * HIDDEN


def test_hidden_bytes_that_are_no_text_are_unreadable() -> None:
    report = scanned(pa.table({"who": filtered(pa.array([b"nobody", b"\xff\xfe"]))}))
    assert [(each.entity, each.count) for each in report.findings] == [("UNREADABLE", 1)]
    assert "no row shows" in report.findings[0].why


def test_what_a_large_dictionary_hides_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "_HIDING_BYTES", 64)
    report = scanned(pa.table({"who": filtered(hidden())}))
    assert [each.entity for each in report.findings] == ["UNREADABLE"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_hidden_in_files_as_they_are_written(layout: str) -> None:
    report = scanned(table(), **LAYOUTS[layout])
    assert report.findings
    assert not [each for each in report.findings if "no row shows" in each.why]


def test_the_same_is_found_whether_a_row_shows_it_or_not() -> None:
    shown = pa.table({"who": pa.DictionaryArray.from_arrays(pa.array(range(HIDDEN + 1), pa.int32()), hidden())})
    (by_rows,), (unshown,) = scanned(shown).findings, scanned(pa.table({"who": filtered(hidden())})).findings
    assert replace(unshown, why="", share=0) == replace(by_rows, why="", share=0)


@pytest.mark.parametrize("in_text", [True, False])
@pytest.mark.parametrize("action", [Action.TOKENISE, Action.MASK, Action.REPLACE])
@pytest.mark.parametrize("store_schema", [True, False])
def test_a_treated_copy_hides_nothing(action: Action, in_text: bool, store_schema: bool) -> None:
    content = written(SHAPES["categories"], store_schema=store_schema)
    made = treated(content, ObjectTreatment({"who": how("who", action, in_text=in_text)}, KEYS, "far"))
    file = pq.ParquetFile(io.BytesIO(made), read_dictionary=["who"])
    entries = file.read().column("who").chunk(0).dictionary.to_pylist()
    assert entries
    assert "secret-example" not in str(entries)
