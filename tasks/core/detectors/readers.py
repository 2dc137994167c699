"""One reader a format. Each yields batches and, for what its format does not allow, `Unread`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.core.arrow import csv as arrow_csv
from tasks.core.arrow import json as arrow_json
from tasks.core.arrow import pa
from tasks.core.dataset import rechunk
from tasks.core.detectors.archives import members
from tasks.core.detectors.avro import avro
from tasks.core.detectors.chunks import Texts
from tasks.core.detectors.leaves import leaves
from tasks.core.detectors.models import npy, onnx
from tasks.core.detectors.orc import orc
from tasks.core.detectors.pickles import pickled
from tasks.core.detectors.row_groups import BoundedParquet
from tasks.core.detectors.tables import (
    BATCH_ROWS,
    METADATA,
    SNIFF_BYTES,
    TEXT,
    Batch,
    Leaf,
    Source,
    Unread,
    format_of,
)
from tasks.core.detectors.unpacking import UnpackError
from tasks.core.detectors.values import flattened

if TYPE_CHECKING:
    from tasks.core.detectors.recall import Ledger

BLOCK_BYTES = 8 * 1024 * 1024
"""How much text is parsed at a time; a line that is longer is not read."""

_MAX_COLUMNS = 4096
_MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
_MAX_NESTING = 200
_PIECE_BYTES = 32 * 1024
ARROW_ERRORS: Any = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def parquet(source: Source, *, counted: bool = False, ledger: Ledger | None = None) -> Iterator[Batch | Unread]:
    """A Parquet file, column chunk by column chunk, and its own metadata as text; arguments as for `read`."""
    row = 0
    named = not counted
    try:
        file = BoundedParquet(source)
        metadata: dict[bytes, bytes] = file.schema.metadata or {}
        if metadata:
            notes = [f"{_text(key)}: {_text(value)}" for key, value in sorted(metadata.items())]
            yield Batch(0, 0, (Leaf(METADATA, pl.Series(METADATA, notes)),))
        for batch in file.counted(ledger=ledger) if counted else file.batches():
            if isinstance(batch, Unread):
                yield batch
                return
            if not named:
                yield _columns_of(file.schema)
                named = True
            if isinstance(batch, Texts):
                yield Batch(0, row, (Leaf(batch.column, None, None, batch.array, batch.weights, batch.unshown),))
                continue
            if isinstance(batch, int):
                yield Batch(batch, row, ())
                row += batch
                continue
            found = list(leaves(batch))
            yield from (each for each in found if isinstance(each, Unread))
            yield Batch(batch.num_rows, row, tuple(each for each in found if isinstance(each, Leaf)))
            row += batch.num_rows
    except ARROW_ERRORS as error:
        yield Unread(f"Parquet that cannot be decoded after {row} rows ({_kind(error)})")


def _columns_of(schema: Any) -> Batch:
    """All columns, in their order, without any row."""
    found = leaves(pa.RecordBatch.from_pylist([], schema=schema))
    return Batch(0, 0, tuple(each for each in found if isinstance(each, Leaf)), is_header=True)


def csv(source: Source) -> Iterator[Batch | Unread]:
    """Separated values with a header, everything as text."""
    row = 0
    for header, batch in csv_batches(source):
        if isinstance(batch, Unread):
            yield batch
            continue
        found = list(leaves(pa.RecordBatch.from_arrays(batch.columns, names=header)))
        yield from (each for each in found if isinstance(each, Unread))
        yield Batch(batch.num_rows, row, tuple(each for each in found if isinstance(each, Leaf)))
        row += batch.num_rows


def csv_batches(source: Source) -> Iterator[tuple[list[str], Any]]:
    """The header with each batch of rows, cells as bytes (empty ones are null), or with an `Unread`."""
    ragged = 0
    delimiter = delimiter_of(source)
    first_line = source.head.split(b"\n", 1)[0]
    if first_line.count(delimiter.encode()) >= _MAX_COLUMNS or len(first_line) >= SNIFF_BYTES:
        yield [], Unread(f"a header of more than {_MAX_COLUMNS} columns or {SNIFF_BYTES // 1024} KiB")
        return

    def skip(_row: Any) -> str:
        nonlocal ragged
        ragged += 1
        return "skip"

    _leave_to_arrow(skip)
    row = 0
    header: list[str] = []
    try:
        columns = _most_columns(source.head, delimiter)
        reader = _opened(source, delimiter, skip, columns)
        if len(reader.schema) > columns:
            # A type would be guessed for those beyond.
            ragged = 0
            reader = _opened(source, delimiter, skip, len(reader.schema))
        for arrived in reader:
            batch = arrived
            if not header:
                header = [_text(column[0].as_py()) for column in batch.columns]
                batch = batch.slice(1)
            yield header, batch
            row += batch.num_rows
    except ARROW_ERRORS as error:
        yield header, Unread(f"CSV that cannot be parsed after {row} rows ({_kind(error)})")
    if ragged:
        yield header, Unread("rows with another number of fields than the first", count=ragged)


def _opened(source: Source, delimiter: str, skip: Callable[[Any], str], columns: int) -> Any:
    return arrow_csv.open_csv(
        source.streamed(),
        read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, autogenerate_column_names=True),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
        convert_options=_all_bytes(columns),
    )


def _most_columns(head: bytes, delimiter: str) -> int:
    """How many columns the first row has at most, and some more: few kinds of options serve all files.

    Of a cell with line breaks the rest is not counted.
    """
    first_line = head.lstrip(b"\r\n").split(b"\n", 1)[0]
    return min(_MAX_COLUMNS, 1 << first_line.count(delimiter.encode()).bit_length())


@lru_cache(16)
def _all_bytes(columns: int) -> Any:
    """Every cell as bytes, empty ones null."""
    types = {f"f{at}": pa.binary() for at in range(columns)}
    return arrow_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)


def _leave_to_arrow(handler: Callable[[Any], str]) -> None:
    """Keep the traceback of a ragged row that is no UTF-8 off the screen.

    Arrow cannot show such a row to the handler, tells Python's hook for errors that nobody can catch, and gives up the
    file: that is what `csv_batches` reports.
    """
    others = sys.unraisablehook

    def told(error: sys.UnraisableHookArgs) -> None:
        if getattr(error.object, "__code__", None) is not handler.__code__:
            others(error)

    if getattr(others, "__code__", None) is not told.__code__:
        sys.unraisablehook = told


def delimiter_of(source: Source) -> str:
    """The separator: a tab for .tsv, otherwise the most frequent of comma, semicolon, tab and bar in the header."""
    if source.suffix == ".tsv":
        return "\t"
    header = source.head.split(b"\n", 1)[0]
    return max(",;\t|", key=lambda mark: (header.count(mark.encode()), mark == ","))


def lines(source: Source) -> Iterator[bytes | Unread]:
    """Blocks of whole lines; a line longer than a block is left out and said so."""
    left = b""
    too_long = 0
    skipping = False
    for arrived in rechunk(source.pieces(), BLOCK_BYTES):
        piece = arrived
        if skipping:
            end = piece.find(b"\n") + 1
            if not end:
                continue
            piece, skipping = piece[end:], False
        left += piece
        end = left.rfind(b"\n") + 1
        if end:
            yield left[:end]
            left = left[end:]
        if len(left) >= BLOCK_BYTES:
            left, skipping = b"", True
            too_long += 1
    if left:
        yield left
    if too_long:
        yield Unread(f"lines longer than {BLOCK_BYTES // 1024**2} MiB", count=too_long)


def text(source: Source) -> Iterator[Batch | Unread]:
    """Plain text, a line a row."""
    row = 0
    broken = 0
    for block in lines(source):
        if isinstance(block, Unread):
            yield block
            continue
        content, wrong = _decoded(block)
        broken += wrong
        cells = pl.Series(TEXT, [content.removesuffix("\n")]).str.split("\n").explode()
        yield Batch(len(cells), row, (Leaf(TEXT, cells),))
        row += len(cells)
    if broken:
        yield Unread("text that is not UTF-8", TEXT, broken)


def _decoded(block: bytes) -> tuple[str, int]:
    try:
        return block.decode("utf-8-sig"), 0
    except UnicodeDecodeError:
        return block.decode(errors="replace"), 1


def json_lines(source: Source) -> Iterator[Batch | Unread]:
    """JSON values, one a line; objects are flattened. Arrow's parser goes first, Python's takes what it refuses."""
    row = 0
    unread: dict[str, int] = {}
    for block in lines(source):
        if isinstance(block, Unread):
            yield block
            continue
        for part in [block] if _may_be_deep(block) else _parsed(block):
            if not isinstance(part, bytes):
                found = list(leaves(part))
                yield from (each for each in found if isinstance(each, Unread))
                yield Batch(part.num_rows, row, tuple(each for each in found if isinstance(each, Leaf)))
                row += part.num_rows
                continue
            values: list[Any] = []
            for line in part.splitlines():
                if line.strip():
                    value, why = parse(line)
                    values.append(value)
                    if why:
                        unread[why] = unread.get(why, 0) + 1
            yield from flattened(values, row)
            row += len(values)
    for why, count in unread.items():
        yield Unread(why, count=count)


def json_document(source: Source) -> Iterator[Batch | Unread]:
    """One JSON value; the items of a list are rows. What is none is tried as JSON lines."""
    value, why = document(source)
    if why == NOT_JSON:
        yield from json_lines(source)
    elif why:
        yield Unread(why)
    else:
        rows = cast("list[Any]", value) if isinstance(value, list) else [value]
        for start in range(0, len(rows), BATCH_ROWS):
            yield from flattened(rows[start : start + BATCH_ROWS], start)


NOT_JSON = "text that is not JSON"
"""The reason that `parse` gives for what another reader may understand."""


def document(source: Source) -> tuple[Any, str]:
    """The object as one JSON value, or the reason why it is none; what is too long is taken for lines of JSON."""
    content = bytearray()
    for piece in source.pieces():
        content += piece
        if len(content) > _MAX_DOCUMENT_BYTES:
            return None, NOT_JSON
    return parse(bytes(content))


def _may_be_deep(block: bytes) -> bool:
    """Whether a line may nest deeper than a parser's stack is safe with; brackets inside strings count too."""
    data = np.frombuffer(block, np.uint8)
    opening = np.flatnonzero((data == ord("{")) | (data == ord("[")))
    line_of = np.searchsorted(np.flatnonzero(data == ord("\n")), opening)
    return bool(len(line_of)) and int(np.bincount(line_of).max()) > _MAX_NESTING and _is_deep(data)


def _is_deep(data: npt.NDArray[np.uint8]) -> bool:
    opened = ((data == ord("{")) | (data == ord("["))).astype(np.int32)
    closed = ((data == ord("}")) | (data == ord("]"))).astype(np.int32)
    depth = np.cumsum(opened - closed)
    at_line_start = np.maximum.accumulate(np.where(data == ord("\n"), depth, np.iinfo(np.int32).min))
    return bool((depth - np.maximum(at_line_start, 0)).max() > _MAX_NESTING)


def _parsed(block: bytes) -> Iterator[Any]:
    """Record batches of the lines, and as bytes the lines that Arrow's parser refuses.

    Arrow makes a cell of every row and every field that any row has, so it is given so few lines at a time that rows
    without a common field cannot fill the memory; pieces with the same fields are joined again.
    """
    tables: list[Any] = []
    at = 0
    while at < len(block):
        end = block.rfind(b"\n", at, at + _PIECE_BYTES) + 1 or block.find(b"\n", at) + 1 or len(block)
        table = _parse(block[at:end]) if end - at <= _PIECE_BYTES else None
        if tables and (table is None or table.schema != tables[0].schema):
            yield from pa.concat_tables(tables).combine_chunks().to_batches()
            tables = []
        if table is None:
            yield block[at:end]
        else:
            tables.append(table)
        at = end
    if tables:
        yield from pa.concat_tables(tables).combine_chunks().to_batches()


def _parse(lines_of: bytes) -> Any:
    try:
        return arrow_json.read_json(
            pa.BufferReader(lines_of),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines_of) + 1),
        )
    except ARROW_ERRORS:
        return None


def parse(content: bytes) -> tuple[Any, str]:
    """A JSON value, or the reason why it cannot be had."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise _RepeatedKeyError
        return made

    try:
        return json.loads(content, object_pairs_hook=once), ""
    except _RepeatedKeyError:
        return None, "JSON with the same key twice in one object"
    except RecursionError:
        return None, "JSON that is nested too deep"
    except ValueError:
        return None, NOT_JSON


class _RepeatedKeyError(Exception):
    """An object names a key twice, so that a reader would see only one of the values."""


def _text(value: Any) -> str:
    return "" if value is None else bytes(value).decode(errors="replace").strip()


def _kind(error: BaseException) -> str:
    return type(error).__name__


def zip_archive(source: Source) -> Iterator[Batch | Unread]:
    """The members of a zip archive one after the other, and their names as text."""
    for member in members(source):
        if not isinstance(member, Source):
            yield member
            continue
        for part in _READERS[format_of(member)[0]](member):
            if source.suffix == ".skops" and isinstance(part, Batch):
                yield Batch(part.rows, part.first_row, tuple(map(_without_addresses, part.leaves)))
            else:
                yield part


def _without_addresses(leaf: Leaf) -> Leaf:
    """A leaf of a skops file, which names objects and arrays by where they lay in memory: nobody's numbers."""
    if not leaf.name.endswith(("__id__", ".file")):
        return leaf
    other = ~leaf.values.str.contains(r"^[0-9]+(?:\.npy)?$")
    return Leaf(leaf.name, leaf.values.filter(other), None if leaf.rows is None else leaf.rows[other.to_numpy()])


_READERS: dict[str, Callable[[Source], Iterator[Batch | Unread]]] = {
    "parquet": parquet,
    "csv": csv,
    "jsonl": json_lines,
    "json": json_document,
    "text": text,
    "avro": avro,
    "orc": orc,
    "zip": zip_archive,
    "pickle": pickled,
    "npy": npy,
    "onnx": onnx,
}


def names_of(source: Source) -> Iterator[Batch | Unread]:
    """The columns of an object, without its values: Parquet's by the footer, others' by their first rows."""
    if format_of(source)[0] == "parquet":
        try:
            schema = BoundedParquet(source).schema
        except ARROW_ERRORS as error:
            yield Unread(f"Parquet whose footer cannot be read ({_kind(error)})")
            return
        yield _columns_of(schema)
        return
    for part in read(source):
        if isinstance(part, Unread):
            yield part
        else:
            yield Batch(0, 0, tuple(Leaf(leaf.name, leaf.values.clear()) for leaf in part.leaves))
            return


def read(source: Source, *, counted: bool = False, ledger: Ledger | None = None) -> Iterator[Batch | Unread]:
    """All of an object, batch by batch. Raises what `Store.get` raises, and nothing for what the bytes hold.

    Args:
        source: The object.
        counted: Whether values will only be counted: texts may then come in any order, each different one once with
            how many rows it stands for, in batches without rows of their own.
        ledger: What is known of column chunks of Parquet that are only counted: these are not decoded.
    """
    if source.entry.size_bytes == 0:
        return
    kind, why = format_of(source)
    if kind == "unknown":
        yield Unread(why)
        return
    try:
        yield from (
            parquet(source, counted=True, ledger=ledger) if counted and kind == "parquet" else _READERS[kind](source)
        )
    except UnpackError as error:
        yield Unread(str(error))
