"""Parquet treated chunk by chunk: the same rows as batch by batch, and nothing of the source about what was treated."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core import rewriters
from tasks.core.chunkwise import Described, NotByChunks
from tasks.core.dataset import DatasetURI
from tasks.core.detectors import native
from tasks.core.detectors.row_groups import BoundedParquet
from tasks.core.errors import PolicyViolation
from tasks.core.policy import Action, ActionOptions
from tasks.core.privacy import ColumnTreatment
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.text_pages import OddPage, plain, runs
from tasks.core.treatments import ObjectTreatment
from tests.parquet_files import opened, written

URI = DatasetURI("memory", "b", "raw")
KEYS = PseudonymKey("p1", bytes(range(32)))
ROWS = 3000
LAYOUTS: dict[str, dict[str, Any]] = {
    "as Arrow writes it": {},
    "without dictionaries": {"use_dictionary": False},
    "zstd": {"compression": "zstd"},
    "gzip": {"compression": "gzip"},
    "uncompressed": {"compression": "none"},
    "small pages": {"data_page_size": 512, "write_batch_size": 64},
    "dictionaries that overflow": {"dictionary_pagesize_limit": 2000, "data_page_size": 1024, "write_batch_size": 50},
    "small row groups": {"row_group_size": 700},
    "with indices and checksums": {"write_page_index": True, "write_page_checksum": True},
    "large texts": {"store_schema": True},
    "second version of pages": {"data_page_version": "2.0"},
}


def table(rows: int = ROWS) -> pa.Table:
    return pa.table(
        {
            "id": list(range(rows)),
            "email": [None if at % 11 == 3 else f"person{at}@example.org" for at in range(rows)],
            "again": [f"person{at % 50}@example.org" for at in range(rows)],
            "name": [None if at % 5 == 0 else ("Jane Roe", "John Poe")[at % 2] for at in range(rows)],
            "note": [
                f"row {at}: write to person{at % 900}@example.org" if at % 3 else "nothing" * (at % 4)
                for at in range(rows)
            ],
            "born": [f"19{50 + at % 40}-0{1 + at % 9}-11" for at in range(rows)],
            "number": [10_000_000_000 + at for at in range(rows)],
            "price": [Decimal(at) / 4 for at in range(rows)],
            "seen": [datetime(2026, 1, 1) + timedelta(minutes=at) for at in range(rows)],
            "who": [{"email": f"n{at}@example.org", "age": at % 80} for at in range(rows)],
            "tags": [[f"t{at % 7}"] * (at % 3) for at in range(rows)],
            "code": pa.array([f"c{at % 9}" for at in range(rows)]).dictionary_encode(),
            "gone": [f"secret {at}" for at in range(rows)],
        }
    )


def how(column: str, action: Action, *, in_text: bool = False, **options: Any) -> ColumnTreatment:
    return ColumnTreatment(
        "t.parquet", column, action, ("EMAIL_ADDRESS",), "r", ActionOptions(**options), "EMAIL_ADDRESS", in_text
    )


TREATED = {
    each.column: each
    for each in (
        how("email", Action.TOKENISE),
        how("again", Action.HASH),
        how("name", Action.REPLACE),
        how("note", Action.TOKENISE, in_text=True),
        how("born", Action.GENERALISE),
        how("number", Action.TOKENISE),
        how("who.email", Action.MASK, keep_last=2),
        how("gone", Action.DROP),
    )
}
NEEDED = ObjectTreatment(TREATED, KEYS, "far")


def treated(content: bytes, needed: ObjectTreatment = NEEDED) -> bytes:
    sink = io.BytesIO()
    assert rewriters.parquet(opened(content), needed, sink)
    return sink.getvalue()


def by_batches(content: bytes, monkeypatch: pytest.MonkeyPatch, needed: ObjectTreatment = NEEDED) -> bytes:
    def refuse(_file: object) -> Described:
        raise NotByChunks

    with monkeypatch.context() as patch:
        patch.setattr(Described, "of", refuse)
        return treated(content, needed)


def read(content: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(content))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunks_and_batches_give_the_same_rows(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(table(), **LAYOUTS[layout])
    expected, made = read(by_batches(content, monkeypatch)), read(treated(content))
    made.validate(full=True)
    assert made.schema == expected.schema
    assert made.equals(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bytes_are_the_same_with_and_without_the_kernel(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(table(), **LAYOUTS[layout])
    made = treated(content)
    assert treated(content) == made
    monkeypatch.setattr(native, "kernel", lambda: None)
    assert treated(content) == made


def test_what_is_not_treated_is_carried_as_it_is_stored_with_its_statistics() -> None:
    content = written(table(), row_group_size=1000)
    before, after = (pq.ParquetFile(io.BytesIO(each)).metadata for each in (content, treated(content)))
    assert after.num_row_groups == before.num_row_groups == 3
    names = [before.schema.column(at).path for at in range(before.num_columns)]
    for group in range(3):
        for at in range(after.num_columns):
            new = after.row_group(group).column(at)
            old = before.row_group(group).column(names.index(new.path_in_schema))
            if new.path_in_schema in ("id", "price", "seen", "code"):
                start, begun = (each.dictionary_page_offset or each.data_page_offset for each in (new, old))
                size = new.total_compressed_size
                assert treated(content)[start : start + size] == content[begun : begun + size]
                assert size == old.total_compressed_size
                assert (new.statistics.min, new.statistics.max) == (old.statistics.min, old.statistics.max)


def test_nothing_of_the_source_is_said_about_treated_columns() -> None:
    noted = table().replace_schema_metadata({"owner": "person1@example.org"})
    content = written(noted, write_page_index=True, compression="none", sorting_columns=[pq.SortingColumn(0)])
    made = treated(content)
    metadata = pq.ParquetFile(io.BytesIO(made)).metadata
    assert set(metadata.metadata) == {b"ARROW:schema"}
    for at in range(metadata.num_columns):
        column = metadata.row_group(0).column(at)
        assert not column.has_offset_index
        assert not column.has_column_index
        if column.path_in_schema in TREATED:
            assert column.statistics is None
    assert not metadata.row_group(0).sorting_columns
    assert b"@example.org" not in made
    assert b"secret" not in made


def test_an_entry_that_nothing_refers_to_is_treated_too() -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0]), pa.array(["a@example.org", "b@example.org"]))
    content = written(pa.table({"email": coded}), store_schema=False, compression="none")
    assert b"b@example.org" in content
    made = treated(content)
    assert b"@example.org" not in made
    assert len(read(made)["email"].unique()) == 1


def test_a_few_long_entries_are_not_spelt_out() -> None:
    texts = ["x" * 1_000_000, *(f"t{at}" for at in range(1000))]
    which = [*range(1001), *[0] * 60]
    coded = pa.DictionaryArray.from_arrays(pa.array(which), pa.array(texts))
    content = written(pa.table({"note": coded}), store_schema=False, dictionary_pagesize_limit=2**30)
    made = treated(content)
    assert pq.ParquetFile(io.BytesIO(made)).metadata.row_group(0).column(0).has_dictionary_page
    assert read(made)["note"].to_pylist() == [texts[at] for at in which]


@pytest.mark.parametrize("limit", ["GROUP_BYTES", "MOST_ROWS"])
def test_what_is_too_large_at_once_goes_batch_by_batch(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(table(), row_group_size=1500)
    expected = read(treated(content))
    monkeypatch.setattr(f"tasks.core.chunkwise.{limit}", 1000)
    made = treated(content)
    assert read(made).equals(expected)
    assert pq.ParquetFile(io.BytesIO(made)).metadata.row_group(0).column(0).compression == "ZSTD"  # Not carried.


def test_texts_are_treated_a_number_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(table())
    made = treated(content)
    monkeypatch.setattr("tasks.core.treatments.AT_ONCE", 100)
    assert treated(content) == made


def test_a_file_of_which_nothing_is_left_is_left_out() -> None:
    needed = ObjectTreatment({"who.email": how("who.email", Action.DROP)}, KEYS, "far")
    rows = pa.table({"who": [{"email": "a@example.org"}]})
    assert not rewriters.parquet(opened(written(rows)), needed, io.BytesIO())


@pytest.mark.parametrize("names", [["a", "a"], ["a.b", "c"]])
def test_names_that_are_not_clear_go_batch_by_batch(names: list[str]) -> None:
    content = written(pa.table([["x"], ["y"]], names=names))
    with pytest.raises(NotByChunks):
        Described.of(BoundedParquet(opened(content)))


def test_dates_move_with_their_subjects_and_the_rest_is_carried() -> None:
    rows = pa.table({"who": ["a", "b"] * 50, "born": ["1980-03-04", "1990-05-06"] * 50, "n": list(range(100))})
    needed = ObjectTreatment({"born": how("born", Action.SHIFT_DATES, by="who", max_days=30)}, KEYS, "far")
    made = read(treated(written(rows), needed))
    assert made.select(["who", "n"]).equals(rows.select(["who", "n"]))
    assert made["born"].to_pylist() != rows["born"].to_pylist()
    assert len(made["born"].unique()) == 2


def test_bytes_that_are_wrong_are_treated_as_by_batches_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(table(300).select(["id", "email", "name", "note"]), compression="none")
    draw = np.random.default_rng(5)
    same = 0
    for at in draw.integers(4, len(content) - 8, 150).tolist():
        broken = content[:at] + bytes([content[at] ^ int(draw.integers(1, 255))]) + content[at + 1 :]
        try:
            made = read(treated(broken)).drop_columns(["id"])
        except (PolicyViolation, pa.ArrowException, OSError, UnicodeDecodeError):
            continue
        try:
            expected = read(by_batches(broken, monkeypatch)).drop_columns(["id"])
        except (PolicyViolation, pa.ArrowException, OSError, UnicodeDecodeError):
            continue
        assert made.equals(expected)
        same += 1
    assert same > 50


@pytest.mark.parametrize("width", [0, 1, 3, 8, 15, 20, 32])
def test_runs_are_read_alike_by_both(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(width)
    packed = draw.integers(0, 256, 3 * width, dtype=np.uint8).tobytes()
    content = np.frombuffer(b"\x07" + packed + b"\x0a" + b"\0" * (-(-width // 8)), np.uint8)
    found = runs(content, width, 27)
    assert len(found) == 27
    assert not found[24:].any()
    with pytest.raises(OddPage):
        runs(content, width, 30)
    monkeypatch.setattr(native, "kernel", lambda: None)
    assert runs(content, width, 27).tolist() == found.tolist()
    with pytest.raises(OddPage):
        runs(content, width, 30)


def test_texts_are_laid_alike_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets, data = np.array([0, 2, 2, 7]), np.frombuffer(b"abcdefg", np.uint8)
    cases = [(None, b""), (np.array([2, 0, 2]), b"12"), (np.zeros(0, np.int64), b"")]
    made = [plain(offsets, data, which, np.frombuffer(before, np.uint8)).tobytes() for which, before in cases]
    assert made[1] == b"12\x05\0\0\0cdefg\x02\0\0\0ab\x05\0\0\0cdefg"
    monkeypatch.setattr(native, "kernel", lambda: None)
    again = [plain(offsets, data, which, np.frombuffer(before, np.uint8)).tobytes() for which, before in cases]
    assert again == made
