"""A Parquet file written again with some of its columns treated, and the others as they are stored.

A file's columns lie in chunks, one a row group and column. Chunks that need no treatment are carried: the bytes of
their pages go over as they are. A chunk of texts is treated where it lies (`text_pages`). What is neither is decoded,
treated and written by Arrow, and its chunks are taken over from there. Around it all goes a new footer
(https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift), which takes over nothing about
treated columns: no least or greatest values, no index, no filter, no note.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from tasks.core import thrift
from tasks.core.arrow import pa
from tasks.core.arrow import parquet as arrow_parquet
from tasks.core.detectors.row_groups import BoundedParquet, Stored
from tasks.core.detectors.tables import Unread
from tasks.core.text_pages import RLE, Change, OddPage, TextChunk
from tasks.core.thrift import I16, I32, I64, LIST, STRUCT, Field, Struct, ThriftError

GROUP_BYTES = 64 * 1024 * 1024
"""Treated columns of a row group that need more are left to those who work batch by batch."""

MOST_ROWS = 2**21
"""So are row groups of more rows: what stands in the place of a short value may be much longer."""

_MAGIC = b"PAR1"
_ZSTD, _ZSTD_LEVEL, _BYTE_ARRAY = 6, 1, 6

# Fields of FileMetaData.
_SCHEMA, _ROWS, _GROUPS, _ORDERS = 2, 3, 4, 7
# Of SchemaElement.
_CHILDREN, _CONVERTED, _LOGICAL = 5, 6, 10
_IS_TEXT: tuple[tuple[int, Field], ...] = ((_CONVERTED, (I32, 0)), (_LOGICAL, (STRUCT, {1: (STRUCT, Struct())})))
# Of RowGroup, ColumnChunk and ColumnMetaData.
_COLUMNS, _META = 1, 3
_TYPE, _ENCODINGS, _PATH, _CODEC, _VALUES, _SIZE, _STORED = 1, 2, 3, 4, 5, 6, 7
_DATA_AT, _DICTIONARY_AT, _STATISTICS, _ENCODED = 9, 11, 12, 13
_CARRIED = (_TYPE, _ENCODINGS, _PATH, _CODEC, _VALUES, _ENCODED)
_STATISTICS_KEPT = (3, 4, 5, 6, 7, 8)
"""All but the two that are no longer used, which some writers got wrong."""


class NotByChunks(Exception):
    """The file is not written as nearly all are, or too much of it would have to be treated at once."""


@dataclass(frozen=True)
class Texts:
    """A column of texts that are treated each by itself.

    Args:
        change: What makes of texts what they become.
        constant: What all of them become; None where they differ.
    """

    change: Change
    constant: bytes | None = None


@dataclass(frozen=True)
class Plan:
    """What becomes of the columns that change.

    Args:
        texts: Those of texts.
        rows: Those that Arrow reads and writes, if they are there.
        read: What Arrow reads to treat these.
        dropped: Those that are left out.
        treat: Treats batches of what Arrow reads; answers of `rows` what is left.
    """

    texts: Mapping[str, Texts]
    rows: frozenset[str]
    read: frozenset[str]
    dropped: frozenset[str]
    treat: Callable[[Any], Any]


@dataclass(frozen=True)
class _Column:
    """A column of the file with all that is nested in it: how the schema describes it, and which leaves it has."""

    name: str
    elements: list[Struct]
    leaves: range


@dataclass(frozen=True)
class _Chunk:
    """A column chunk to be written: what the footer says of it but for its place, and its pages."""

    about: Struct
    pieces: Iterable[bytes]
    dictionary_bytes: int


@dataclass
class _ByArrow:
    """What Arrow wrote of a row group."""

    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    elements: dict[str, list[Struct]] = field(default_factory=dict[str, "list[Struct]"])
    chunks: dict[str, list[_Chunk]] = field(default_factory=dict[str, "list[_Chunk]"])


@dataclass(frozen=True)
class Described:
    """A file, with its footer as it stands there.

    Args:
        file: The file.
        footer: Where every column chunk is described.
        columns: Its columns, in order.
    """

    file: BoundedParquet
    footer: Struct
    columns: list[_Column]

    @classmethod
    def of(cls, file: BoundedParquet) -> Described:
        """Read the footer. Raises `NotByChunks`."""
        footer = _footer_of(file)
        return cls(file, footer, _columns(footer, file))

    @property
    def texts(self) -> frozenset[str]:
        """The columns whose texts can be treated where they lie."""
        flat = [column for column in self.columns if column.leaves.start in self.file.flat_texts]
        return frozenset(column.name for column in flat if any(each in column.elements[0].items() for each in _IS_TEXT))


def write(described: Described, plan: Plan, sink: IO[bytes]) -> bool | Unread:
    """Write the file with its columns treated.

    Returns:
        Whether anything is left of it, or what cannot be read.

    Raises:
        NotByChunks: The sink holds anything then.
    """
    file, footer = described.file, described.footer
    stays = [column for column in described.columns if column.name not in plan.dropped]
    out = _Out(sink)
    groups: list[Struct] = []
    by_arrow = _ByArrow()
    for part in file.stored():
        if isinstance(part, Unread):
            return part
        group, chunks = part
        about = [each[_META][1] for each in _items(_items(footer, _GROUPS)[group], _COLUMNS)]
        if plan.rows:
            made = _by_arrow(file, group, chunks, plan)
            if isinstance(made, Unread):
                return made
            if groups and made.elements != by_arrow.elements:
                raise NotByChunks
            by_arrow = made
        written: list[Struct] = []
        for column in stays:
            if column.name in plan.rows:
                ready = by_arrow.chunks.get(column.name, [])
            elif column.name in plan.texts:
                ready = [_changed(file, chunks[at], about[at], plan.texts[column.name]) for at in column.leaves]
            else:
                ready = [_carried(file, chunks[at], about[at], _ORDERS in footer) for at in column.leaves]
            written += [out.chunk(chunk) for chunk in ready]
        groups.append(_row_group(written, chunks[0].rows, len(groups)))
    kept = [column for column in stays if column.name not in plan.rows or column.name in by_arrow.elements]
    if kept:
        out.footer(_new_footer(footer, file, kept, plan, by_arrow, groups))
    return bool(kept)


def _footer_of(file: BoundedParquet) -> Struct:
    """The footer, in which every column chunk is described."""
    size_bytes: int = file.metadata.serialized_size
    end = file.size_bytes - len(_MAGIC) - 4
    try:
        footer, _ = thrift.read_struct(file.at(end - size_bytes, size_bytes))
        for group in _items(footer, _GROUPS):
            # What lies in another file, or is encrypted, has no or other fields.
            if any(set(each) - {2, _META, 4, 5, 6, 7} or _META not in each for each in _items(group, _COLUMNS)):
                raise NotByChunks
    except (ThriftError, KeyError, TypeError) as error:
        raise NotByChunks from error
    return footer


def _items(struct: Struct, number: int) -> list[Any]:
    return struct[number][1][1]


def _columns(footer: Struct, file: BoundedParquet) -> list[_Column]:
    if not file.has_clear_names:
        raise NotByChunks
    elements: list[Struct] = _items(footer, _SCHEMA)
    found = list(_top_level(elements))
    if [column.name for column in found] != file.schema.names:
        raise NotByChunks
    return found


def _top_level(elements: list[Struct]) -> Iterator[_Column]:
    at, leaf = 1, 0
    while at < len(elements):
        start, first, open_elements = at, leaf, 1
        while open_elements and at < len(elements):
            children = _children(elements[at])
            leaf += not children
            open_elements += children - 1
            at += 1
        yield _Column(elements[start][4][1].decode(), elements[start:at], range(first, leaf))


def _children(element: Struct) -> int:
    return element.get(_CHILDREN, (I32, 0))[1]


def _carried(file: BoundedParquet, chunk: Stored, about: Struct, keep_statistics: bool) -> _Chunk:
    """A chunk as it is stored."""
    if not chunk.pages or any(page.is_dictionary for page in chunk.pages[1:]):
        raise NotByChunks
    kept: Struct = {number: about[number] for number in _CARRIED if number in about}
    if keep_statistics and _STATISTICS in about:
        statistics: Struct = about[_STATISTICS][1]
        kept[_STATISTICS] = STRUCT, {at: statistics[at] for at in _STATISTICS_KEPT if at in statistics}
    stored_bytes = chunk.end - chunk.start
    kept[_SIZE] = I64, stored_bytes + sum(page.size_bytes - page.stored_bytes for page in chunk.pages)
    kept[_STORED] = I64, stored_bytes
    first = chunk.pages[0]
    return _Chunk(
        kept,
        file.pieces(chunk.start, chunk.end),
        first.at + first.stored_bytes - chunk.start if first.is_dictionary else 0,
    )


def _changed(file: BoundedParquet, chunk: Stored, about: Struct, texts: Texts) -> _Chunk:
    """A chunk of texts with each of them changed."""
    if chunk.size_bytes > GROUP_BYTES or chunk.rows > MOST_ROWS:
        raise NotByChunks
    optional = file.flat_texts[chunk.column.index]
    try:
        held = TextChunk.read(chunk.pages, lambda page: file.content(chunk, page), chunk.rows, optional=optional)
        bodies = held.changed(texts.change) if texts.constant is None else held.all_as(texts.constant)
    except OddPage as error:
        raise NotByChunks from error
    pieces: list[bytes] = []
    size_bytes = dictionary_bytes = 0
    codec = pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
    for body in bodies:
        packed: bytes = codec.compress(body.content, asbytes=True)
        head = body.header(len(packed))
        pieces += [head, packed]
        size_bytes += len(head) + len(body.content)
        if body.is_dictionary:
            dictionary_bytes = len(head) + len(packed)
    kept: Struct = {
        _TYPE: (I32, _BYTE_ARRAY),
        _ENCODINGS: (LIST, (I32, sorted({RLE, *(body.encoding for body in bodies)}))),
        _PATH: about[_PATH],
        _CODEC: (I32, _ZSTD),
        _VALUES: (I64, chunk.rows),
        _SIZE: (I64, size_bytes),
        _STORED: (I64, sum(map(len, pieces))),
    }
    return _Chunk(kept, pieces, dictionary_bytes)


def _by_arrow(file: BoundedParquet, group: int, chunks: list[Stored], plan: Plan) -> _ByArrow | Unread:
    """The columns of a row group that Arrow treats and writes."""
    read = [chunk for chunk in chunks if chunk.column.path.split(".")[0] in plan.read]
    if sum(chunk.size_bytes for chunk in read) > GROUP_BYTES or chunks[0].rows > MOST_ROWS:
        raise NotByChunks
    batches: list[Any] = []
    for batch in file.decoded(group, read, chunks[0].rows):
        if isinstance(batch, Unread):
            return batch
        batches.append(plan.treat(batch))
    made = _ByArrow()
    if not batches or not batches[0].num_columns:
        return made
    sink = io.BytesIO()
    table = pa.Table.from_batches(batches)
    arrow_parquet.write_table(
        table, sink, compression="zstd", row_group_size=max(1, table.num_rows), write_statistics=False
    )
    content = sink.getvalue()
    footer = _footer_in(content)
    (about,) = _items(footer, _GROUPS)
    described = [each[_META][1] for each in _items(about, _COLUMNS)]
    for column in _top_level(_items(footer, _SCHEMA)):
        made.fields[column.name] = table.schema.field(column.name)
        made.elements[column.name] = column.elements
        made.chunks[column.name] = [_within(content, described[at]) for at in column.leaves]
    return made


def _footer_in(content: bytes) -> Struct:
    size_bytes = int.from_bytes(content[-8:-4], "little")
    return thrift.read_struct(content[-8 - size_bytes : -8])[0]


def _within(content: bytes, about: Struct) -> _Chunk:
    """A chunk of a file that Arrow has just written."""
    data_at: int = about[_DATA_AT][1]
    start: int = about.get(_DICTIONARY_AT, (I64, data_at))[1]
    kept: Struct = {number: about[number] for number in (*_CARRIED, _SIZE, _STORED) if number in about}
    return _Chunk(kept, [content[start : start + about[_STORED][1]]], data_at - start)


class _Out:
    """A file that is being written."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self._at = sink, 0
        self._write(_MAGIC)

    def _write(self, piece: bytes) -> None:
        self._sink.write(piece)
        self._at += len(piece)

    def chunk(self, chunk: _Chunk) -> Struct:
        """Write a chunk. Answers what the footer says of it."""
        start = self._at
        for piece in chunk.pieces:
            self._write(piece)
        about = chunk.about | {_DATA_AT: (I64, start + chunk.dictionary_bytes)}
        if chunk.dictionary_bytes:
            about[_DICTIONARY_AT] = I64, start
        return {2: (I64, 0), _META: (STRUCT, about)}

    def footer(self, footer: Struct) -> None:
        """Write what ends the file."""
        content = thrift.written(footer)
        self._write(content + len(content).to_bytes(4, "little") + _MAGIC)


def _row_group(columns: list[Struct], rows: int, number: int) -> Struct:
    metas: list[Struct] = [each[_META][1] for each in columns]
    group: Struct = {
        _COLUMNS: (LIST, (STRUCT, columns)),
        2: (I64, sum(meta[_SIZE][1] for meta in metas)),
        3: (I64, rows),
        6: (I64, sum(meta[_STORED][1] for meta in metas)),
    }
    return group | ({7: (I16, number)} if number < 2**15 else {})


def _new_footer(
    footer: Struct, file: BoundedParquet, columns: list[_Column], plan: Plan, by_arrow: _ByArrow, groups: list[Struct]
) -> Struct:
    """What is said of the new file: the columns as they were described, and Arrow's note of what it makes of them."""
    elements: list[Struct] = []
    fields: list[Any] = []
    for column in columns:
        elements += by_arrow.elements.get(column.name, column.elements)
        known = pa.field(column.name, pa.string()) if column.name in plan.texts else file.schema.field(column.name)
        fields.append(by_arrow.fields.get(column.name, known))
    sink = io.BytesIO()
    arrow_parquet.ParquetWriter(sink, pa.schema(fields)).close()
    made = _footer_in(sink.getvalue())
    root: Struct = _items(made, _SCHEMA)[0]
    made[_SCHEMA] = LIST, (STRUCT, [root | {_CHILDREN: (I32, len(columns))}, *elements])
    made[_ROWS] = I64, sum(group[3][1] for group in groups)
    made[_GROUPS] = LIST, (STRUCT, groups)
    made.pop(_ORDERS, None)
    if _ORDERS in footer:
        leaves = sum(not _children(element) for element in elements)
        made[_ORDERS] = LIST, (STRUCT, [{1: (STRUCT, {})}] * leaves)
    return made
