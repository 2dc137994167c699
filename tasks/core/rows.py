"""Rows beyond memory: Arrow record batches in order of their path, on disk when there are many.

A dataset of a million objects is planned in the memory of a few thousand: whatever goes over all objects (sorting a
listing, comparing two manifests, writing one) takes one batch of each side at a time. Paths compare by their UTF-8
bytes, which is the order of Unicode code points and that of the object stores' own listings.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tasks.core.arrow import compute, ipc, pa
from tasks.core.scratch import room

Batch: TypeAlias = Any
"""A `pyarrow.RecordBatch`, which comes without type information."""

BATCH_ROWS = 8192
_IN_MEMORY_ROWS = 4 * BATCH_ROWS
_SORTED_AT_ONCE_ROWS = 16 * BATCH_ROWS


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """Where a batch is in the file."""

    start: int
    length: int


class Rows:
    """Record batches of one schema: appended once, read any number of times and from several threads.

    The first ones stay in memory. The rest goes to a file without a name below TMPDIR, which is gone with its process.

    Args:
        schema: What all batches have in common.
        in_memory_rows: How many rows stay in memory.
    """

    def __init__(self, schema: Any, in_memory_rows: int = _IN_MEMORY_ROWS) -> None:
        self.schema = schema
        self._in_memory_rows = in_memory_rows
        self._batches: list[Batch | _OnDisk] = []
        self._file: Any = None
        self._end = 0
        self._rows = 0

    def append(self, batch: Batch) -> None:
        """Add rows at the end. Raises `Terminal` when the disk is full."""
        for start in range(0, len(batch), BATCH_ROWS):
            piece = batch.slice(start, BATCH_ROWS)
            self._batches.append(piece if self._rows < self._in_memory_rows else self._written(piece))
            self._rows += len(piece)

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self._batches)):
            yield self._batch(number)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.schema, list(self))

    def _batch(self, number: int) -> Batch:
        held = self._batches[number]
        if isinstance(held, _OnDisk):
            data = os.pread(self._file.fileno(), held.length, held.start)
            return ipc.read_record_batch(pa.py_buffer(data), self.schema)
        return held

    def _written(self, piece: Batch) -> _OnDisk:
        data = memoryview(piece.serialize())
        start = self._end
        with room():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="lintas-")  # noqa: SIM115  (lives as long as the rows)
            while data:
                written = os.pwrite(self._file.fileno(), data, self._end)
                self._end, data = self._end + written, data[written:]
        return _OnDisk(start, self._end - start)


def _again(schema: Any, batches: list[Batch]) -> Rows:
    rows = Rows(schema)
    for batch in batches:
        rows.append(batch)
    return rows


def batch_of(schema: Any, columns: Sequence[Sequence[Any]]) -> Batch:
    """A batch from one sequence of values a column."""
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def batches_of(schema: Any, rows: Iterable[tuple[Any, ...]]) -> Iterator[Batch]:
    """The rows, regrouped into batches."""
    held: list[tuple[Any, ...]] = []
    for row in rows:
        held.append(row)
        if len(held) == BATCH_ROWS:
            yield batch_of(schema, list(zip(*held, strict=True)))
            held.clear()
    if held:
        yield batch_of(schema, list(zip(*held, strict=True)))


def in_order(batches: Iterable[Batch], schema: Any) -> Rows:
    """The same rows in order of their path.

    What comes in order already, as the listings of object stores do, is only passed on. The rest is sorted in runs
    that are merged afterwards.
    """
    runs: list[Rows] = []
    last = ""
    for batch in _sortable(batches):
        paths = batch.column("path")
        if not runs or paths[0].as_py() < last:
            # Later runs keep nothing in memory: there may be many.
            runs.append(Rows(schema, 0 if runs else _IN_MEMORY_ROWS))
        runs[-1].append(batch)
        last = paths[-1].as_py()
    if len(runs) < 2:
        return runs[0] if runs else Rows(schema)
    merged = Rows(schema)
    for parts in aligned(*runs):
        merged.append(pa.concat_batches([part for part in parts if part is not None]).sort_by("path"))
    return merged


def aligned(*streams: Iterable[Batch]) -> Iterator[list[Batch | None]]:
    """Walk streams of ordered batches side by side.

    Each step yields one part of every stream, such that all rows of one path come in the same step; None where a
    stream has no row there. Within a stream, equal paths stand beside each other.
    """
    sources = [_filled(stream) for stream in streams]
    held: list[Batch | None] = [next(source, None) for source in sources]
    while any(batch is not None for batch in held):
        cut = min(batch.column("path")[-1].as_py() for batch in held if batch is not None)
        parts: list[Batch | None] = [None] * len(held)
        for at, batch in enumerate(held):
            count = 0 if batch is None else _rows_up_to(batch, cut)
            if batch is not None and count:
                parts[at] = batch.slice(0, count)
                held[at] = batch.slice(count) if count < len(batch) else next(sources[at], None)
        yield parts


def _rows_up_to(batch: Batch, path: str) -> int:
    paths = batch.column("path")
    return bisect_right(range(len(batch)), path, key=lambda at: paths[at].as_py())


def _filled(batches: Iterable[Batch]) -> Iterator[Batch]:
    return (batch for batch in batches if len(batch))


def _sortable(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The rows in ordered batches: those that come in order as they are, others joined until they are worth sorting."""
    held: list[Batch] = []
    rows = 0
    for batch in _filled(batches):
        if not held and _is_ordered(batch.column("path")):
            yield batch
            continue
        held.append(batch)
        rows += len(batch)
        if rows >= _SORTED_AT_ONCE_ROWS:
            yield pa.concat_batches(held).sort_by("path")
            held, rows = [], 0
    if held:
        yield pa.concat_batches(held).sort_by("path")


def _is_ordered(paths: Any) -> bool:
    return len(paths) < 2 or compute.all(compute.less_equal(paths[:-1], paths[1:])).as_py()
