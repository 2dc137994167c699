"""Texts that the kernel takes from the pages of Parquet are those that Arrow reads, however the file is written."""

from __future__ import annotations

import io
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.chunks import Texts, joined
from tasks.core.detectors.pages import PageError
from tasks.core.detectors.readers import ARROW_ERRORS
from tasks.core.detectors.row_groups import BoundedParquet
from tasks.core.detectors.scan import scan
from tasks.core.detectors.tables import Unread
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tests.memory_store import MemoryStore
from tests.parquet_files import opened, written

URI = DatasetURI("memory", "b", "t")
COMPILERS = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
needs_kernel = pytest.mark.skipif(not COMPILERS, reason="there is no compiler")
FAILURES = (*ARROW_ERRORS, PageError)

cell = st.one_of(
    st.none(), st.sampled_from(["", "a@example.org", "4111 1111 1111 1111", "x" * 40, "é"]), st.text(max_size=20)
)
column = st.one_of(
    st.lists(cell, min_size=1, max_size=60),
    st.builds(lambda some, times: (some * times)[:3_000], st.lists(cell, min_size=1, max_size=9), st.integers(1, 900)),
    st.builds(
        lambda count, gap: [None if gap and at % gap == 0 else f"v{at}" for at in range(count)],
        st.integers(1, 2_000), st.integers(0, 5),
    ),
)  # fmt: skip
options = st.fixed_dictionaries({
    "compression": st.sampled_from(["none", "snappy", "gzip", "zstd"]),
    "use_dictionary": st.booleans(),
    "dictionary_pagesize_limit": st.sampled_from([64, 1024, 1024**2]),
    "data_page_size": st.sampled_from([64, 1024, 1024**2]),
    "write_batch_size": st.sampled_from([7, 100, 1024]),
    "row_group_size": st.sampled_from([50, 700, 10_000]),
    "data_page_version": st.sampled_from(["1.0", "1.0", "2.0"]),
})  # fmt: skip


def scanned(content: bytes) -> ScanReport:
    store = MemoryStore()
    store.put(URI.key("t.parquet"), [content], size_bytes=len(content))
    return scan(store, URI, read_manifest(store, URI))


def values_of(parts: Iterable[Any]) -> dict[str, Counter[Any]]:
    """By column how often rows show each value, nulls aside."""
    found: dict[str, Counter[Any]] = {}
    for part in parts:
        assert not isinstance(part, Unread)
        if isinstance(part, Texts):
            if part.unshown:
                continue
            counts = [1] * len(part.array) if part.weights is None else part.weights.tolist()
            assert all(count > 0 for count in counts)
            seen = found.setdefault(part.column, Counter())
            for value, count in zip(part.array.cast(pa.large_binary()).to_pylist(), counts, strict=True):
                seen[value] += count
            continue
        for name, array in zip(part.schema.names, part.columns, strict=True):
            bare = array.cast(pa.binary()) if pa.types.is_string(array.type) else array
            found.setdefault(name, Counter()).update(bare.drop_null().to_pylist())
    return {name: seen for name, seen in found.items() if seen}


def outcome(parts: Iterator[Any]) -> dict[str, Counter[Any]] | None:
    """The same; None for what cannot be read."""
    try:
        found = [part for part in parts if not (isinstance(part, Unread) and "no row shows" in part.why)]
    except FAILURES:
        return None
    return None if any(isinstance(part, Unread) for part in found) else values_of(found)


def table_of(texts: list[str | None], *, required: bool) -> pa.Table:
    if required:
        texts = [text or "" for text in texts]
    fields = [pa.field("text", pa.string(), not required), pa.field("at", pa.int32())]
    return pa.table([texts, list(range(len(texts)))], schema=pa.schema(fields))


@needs_kernel
@settings(max_examples=150, deadline=None)
@given(column, st.booleans(), options)
def test_the_kernel_reads_the_texts_that_arrow_reads(texts: list[str | None], required: bool, how: Any) -> None:
    content = written(table_of(texts, required=required), **how)
    parts = list(BoundedParquet(opened(content)).counted())
    assert values_of(parts) == values_of(BoundedParquet(opened(content)).batches())
    by_kernel = {part.column for part in parts if isinstance(part, Texts)}
    assert by_kernel == ({"text"} if how["data_page_version"] == "1.0" else set())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoundedParquet, "_texts", lambda *_: None)
        expected = scanned(content)
    found = scanned(content)
    assert (found.findings, found.profile, found.rows) == (expected.findings, expected.profile, expected.rows)


@needs_kernel
@pytest.mark.parametrize("dictionary", [True, False])
def test_of_files_with_wrong_bytes_the_kernel_reads_what_arrow_reads_or_neither(dictionary: bool) -> None:
    draw = random.Random(7)
    texts = [None if draw.random() < 0.2 else f"person{draw.randrange(60)}@example.org" for _ in range(400)]
    content = written(
        table_of(texts, required=False), compression="none", use_dictionary=dictionary, data_page_size=512,
        write_batch_size=50, store_schema=False,
    )  # fmt: skip
    chunk = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    read = 0
    for _ in range(1_200):
        broken = bytearray(content)
        for _ in range(draw.choice([1, 1, 2, 8])):
            broken[start + draw.randrange(chunk.total_compressed_size)] = draw.choice([0, 1, 2, 3, 127, 255, 64])
        by_kernel = outcome(BoundedParquet(opened(bytes(broken))).counted())
        by_arrow = outcome(BoundedParquet(opened(bytes(broken))).batches())
        assert by_kernel == by_arrow
        read += by_kernel is not None
    assert 100 < read < 1_100


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(column, st.booleans(), options)
def test_references_never_become_more_than_is_foretold(texts: list[str | None], required: bool, how: Any) -> None:
    file = BoundedParquet(opened(written(table_of(texts, required=required), **how)))
    for group in range(file.metadata.num_row_groups):
        columns = file._columns([group])
        assert not isinstance(columns, str)
        most = file._most_spelt(columns[0])
        if how["data_page_version"] == "2.0":
            assert most is None
        elif all(page.refers or page.is_dictionary for page in columns[0].pages):
            (batch,) = file._file.iter_batches(batch_size=10_000, row_groups=[group], columns=["text"])
            assert most is not None
            assert most >= sum(len((text or "").encode()) for text in batch.column(0).to_pylist())


@needs_kernel
def test_a_dictionary_is_looked_into_where_its_references_could_be_much(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    walk = BoundedParquet._longest_of
    monkeypatch.setattr(BoundedParquet, "_longest_of", lambda *given: looked.append("") or walk(*given))
    different = written(pa.table({"text": [f"person{at}@example.org" for at in range(20_000)], "at": range(20_000)}))
    assert sum(batch.num_rows for batch in BoundedParquet(opened(different)).batches()) == 20_000
    assert not looked
    repeated = ["x" * 10_000 if at % 2 else f"person{at % 5_000}" for at in range(20_000)]
    often = written(pa.table({"text": repeated, "at": range(20_000)}))
    assert sum(batch.num_rows for batch in BoundedParquet(opened(often)).batches()) == 20_000
    assert looked


def test_small_parts_are_joined_and_large_ones_are_left() -> None:
    once = Texts("c", pa.array(["a", "b"], pa.large_string()), None)
    often = Texts("c", pa.array(["c"], pa.large_string()), np.array([3]))
    (both,) = joined([once, often])
    assert (both.array.to_pylist(), both.weights is not None and both.weights.tolist()) == (["a", "b", "c"], [1, 1, 3])
    (plain,) = joined([once, once])
    assert (plain.array.to_pylist(), plain.weights) == (["a", "b", "a", "b"], None)
    large = Texts("c", pa.array(["a"] * 20_000, pa.large_string()), None)
    assert joined([large, once]) == [large, once]


@needs_kernel
def test_columns_keep_their_order_and_nested_or_ambiguous_ones_are_left_to_arrow() -> None:
    rows = 30
    table = pa.table({
        "first": pa.array(range(rows)), "second": ["a"] * rows, "third": [["x", "y"]] * rows,
        "fourth": [{"second": "b"}] * rows, "fifth": ["c"] * rows,
    })  # fmt: skip
    parts = list(BoundedParquet(opened(written(table))).counted())
    assert {part.column for part in parts if isinstance(part, Texts)} == {"second", "fifth"}
    names = [each.column for each in scanned(written(table)).profile]
    assert sorted(names) == ["fifth", "first", "fourth.second", "second", "third[]"]
    dotted = pa.table({"a.b": ["x"] * rows, "a": [{"b": "y"}] * rows})
    assert not [part for part in BoundedParquet(opened(written(dotted))).counted() if isinstance(part, Texts)]
    only = pa.table({"one": ["x"] * rows, "two": ["y"] * rows})
    assert scanned(written(only)).rows == rows
    assert {part.column for part in BoundedParquet(opened(written(only))).counted() if isinstance(part, Texts)} == {
        "one"
    }
