"""Parquet in bounded memory, whatever the file says of itself.

A few bytes of Parquet can stand for terabytes: pages of zeros that compress to nothing, one giant value in a dictionary
that a million rows refer to, lists of a billion equal items. So the headers of all pages are read before any page is
(`pages`); batches are as long as memory allows; columns whose dictionary holds long values are read as references,
measured, and cut into pieces before they are spelt out. What expands beyond all measure is not read, and said so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrow import compute as pc
from tasks.core.arrow import pa
from tasks.core.arrow import parquet as arrow_parquet
from tasks.core.detectors import native
from tasks.core.detectors.candidates import Bytes
from tasks.core.detectors.chunks import Texts, joined, most_spelt, texts
from tasks.core.detectors.leaves import Rows, decode, leaves, parents_of
from tasks.core.detectors.pages import Page, PageError, pages
from tasks.core.detectors.ranged import RangedFile
from tasks.core.detectors.tables import BATCH_ROWS, MAX_COLUMNS, Leaf, Source, Unread
from tasks.core.detectors.unpacking import Expansion

if TYPE_CHECKING:
    from tasks.core.detectors.recall import Ledger

BATCH_BYTES = 256 * 1024 * 1024
"""What the values of one batch may need once they are spelt out."""

_OPEN_PAGES_BYTES = 1024**3
_LEAST_ROWS = 8192
"""For fewer rows than these a batch is not made shorter; long dictionary values are read as references instead."""

_PIECE_BYTES = 8 * 1024 * 1024
_TEXTS_BYTES = 64 * 1024 * 1024
"""Columns of row groups that are larger are read by Arrow, batch by batch."""

_HIDING_BYTES = 256 * 1024 * 1024
"""Larger dictionaries are not looked into for values that no row shows."""

_SPELT_BYTES = 8 * 1024 * 1024
"""Of columns that are at most so large once they are spelt out the dictionary is not looked into."""

_SHORT_BYTES = 64
_FIXED_BYTES = 16
_FREE_VALUES = 16 * 1024**2
_VALUES_A_BYTE = 64
_SCATTER = 2
_UNPACKED = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD")
"""Compressions of which Arrow unpacks a single page as its reader does."""


@dataclass
class _Column:
    """A column's part of some row groups: its pages and what its dictionary may do."""

    index: int
    path: str
    values: int
    size_bytes: int
    pages: list[Page]
    repeated: bool
    compressions: set[str] = field(default_factory=set[str])
    chunks: list[tuple[Page, ...]] = field(default_factory=list[tuple[Page, ...]])
    """The pages of each row group."""
    longest_bytes: int = 0
    """The longest value of its dictionaries; 0 where `spelt_bytes` says enough."""
    spelt_bytes: int = 0
    """What all references into its dictionaries are at most once they are spelt out, where that is little."""

    def dense(self, rows: int) -> int:
        """The most bytes of pages that so many values in a row can touch."""
        plain = [page for page in self.pages if not page.is_dictionary]
        if not plain:
            return 0
        ends = np.cumsum([page.values for page in plain])
        sizes = np.concatenate([[0], np.cumsum([page.size_bytes for page in plain])])
        last = np.minimum(np.searchsorted(ends, ends - 1 + rows), len(plain) - 1)
        return int((sizes[last + 1] - sizes[:-1]).max())

    @property
    def largest_page_bytes(self) -> int:
        return max((page.size_bytes for page in self.pages), default=0)


@dataclass(frozen=True)
class Stored:
    """A column chunk as it lies in its file.

    Args:
        column: The column in the chunk's row group.
        start: Where its first page begins.
        pages: Its pages, in order.
        rows: How many rows its row group has.
    """

    column: _Column
    start: int
    pages: tuple[Page, ...]
    rows: int

    @property
    def end(self) -> int:
        """Where its last page ends."""
        return self.pages[-1].at + self.pages[-1].stored_bytes if self.pages else self.start

    @property
    def size_bytes(self) -> int:
        """What its pages need after decompression."""
        return sum(page.size_bytes for page in self.pages)


class BoundedParquet:
    """A Parquet file whose batches fit into memory.

    Args:
        source: The object.

    Raises:
        ArrowException, OSError, ValueError: It is no Parquet file. Reading batches raises the same.
    """

    def __init__(self, source: Source) -> None:
        self._ranged: RangedFile = source.ranged()
        whole = self._ranged.whole()
        self._content: Any = self._ranged if whole is None else pa.BufferReader(whole)
        self._expansion = Expansion(source.entry.size_bytes)
        self._wanted = source.groups
        self._file = self._open(None)
        self.metadata: Any = self._file.metadata
        self.schema: Any = self._file.schema_arrow

    def _open(self, references: list[str] | None) -> Any:
        return arrow_parquet.ParquetFile(
            self._content,
            buffer_size=1024 * 1024,
            pre_buffer=False,
            read_dictionary=references,
            metadata=self.metadata if references is not None else None,
        )

    @cached_property
    def _by_dictionary(self) -> Any:
        """The file with every column of texts or bytes read as references into its dictionary."""
        columns = [self._file.schema.column(at) for at in range(self.metadata.num_columns)]
        return self._open([column.path for column in columns if column.physical_type == "BYTE_ARRAY"])

    @property
    def paths(self) -> list[str]:
        """Its leaf columns as Parquet names them, with dots into nested ones."""
        return [self._file.schema.column(at).path for at in range(self.metadata.num_columns)]

    def batches(self, most_rows: int = BATCH_ROWS) -> Iterator[Any]:
        """Record batches of the file's schema, each of at most so many rows; an `Unread` after which nothing comes."""
        for part in self._described(most_rows):
            if isinstance(part, Unread):
                yield part
                return
            yield from self._read(*part, most_rows)

    def counted(self, most_rows: int = BATCH_ROWS, ledger: Ledger | None = None) -> Iterator[Any]:
        """The same for those who count: `Texts` of columns that the kernel reads, before batches of all others.

        `Texts` to which nothing refers come too: whoever filters a table of categories may leave in the file what was
        filtered away.

        Args:
            most_rows: How many rows a batch has at most.
            ledger: What is known of column chunks already: they are not decoded. Where nothing is left for a batch, the
                number of rows comes in its place; otherwise at least one column is in the batches.
        """
        for part in self._described(most_rows):
            if isinstance(part, Unread):
                yield part
                return
            groups, columns = part
            taken = self._taken(groups, columns, ledger)
            columns = [column for column in columns if column.path.split(".")[0] not in taken]
            left = [column for column in columns if column.index not in self.flat_texts]
            for at, column in enumerate(columns):
                if column.index in self.flat_texts:
                    last = not left and not taken and at == len(columns) - 1
                    found = None if last else self._texts(groups, column)
                    if found is None:
                        left.append(column)
                    yield from found or ()
            left.sort(key=lambda column: column.index)
            for column in left:
                yield from self._unshown(groups, column)
            rows = 0
            for batch in self._read(groups, left, most_rows) if left else ():
                rows += 0 if isinstance(batch, Unread) else batch.num_rows
                yield batch
            if ledger is not None:
                if not left:
                    rows = ledger.rows or 0
                    yield rows
                ledger.close(rows)

    def _taken(self, groups: list[int], columns: list[_Column], ledger: Ledger | None) -> set[str]:
        """The columns, with all that is nested in them, whose chunks in some row groups were counted before."""
        if ledger is None or not self.has_clear_names or any(not name or "[" in name for name in self.schema.names):
            return set()
        inside: dict[str, list[_Column]] = {}
        for column in columns:
            inside.setdefault(column.path.split(".")[0], []).append(column)
        return {
            name
            for name, parts in inside.items()
            if ledger.takes_over(name, self._about(groups, name, parts), self._stored_bytes(groups, parts))
        }

    def _about(self, groups: list[int], name: str, columns: list[_Column]) -> str:
        """Everything that says how the chunks of a column, with all that is nested in it, are decoded."""
        field = self.schema.field(name)
        said = [f"{field.type} {field.nullable}"]
        for column in columns:
            known = self._file.schema.column(column.index)
            said.append(
                f"{column.path} {known.physical_type} {known.logical_type} {known.converted_type} {known.length} "
                f"{known.precision} {known.scale} {known.max_definition_level} {known.max_repetition_level}"
            )
            for group, chunk in zip(groups, column.chunks, strict=True):
                about = self.metadata.row_group(group)
                stored = about.column(column.index)
                said.append(f"{about.num_rows} {stored.num_values} {stored.compression} {_extent(stored, chunk)[1]}")
        return "\n".join(said)

    def _stored_bytes(self, groups: list[int], columns: list[_Column]) -> Iterator[bytes]:
        for column in columns:
            for group, chunk in zip(groups, column.chunks, strict=True):
                start, length = _extent(self.metadata.row_group(group).column(column.index), chunk)
                yield from self.pieces(start, start + length)

    def _described(self, most_rows: int) -> Iterator[tuple[list[int], list[_Column]] | Unread]:
        """Row groups that are read together, with their columns; an `Unread` after which nothing comes."""
        if self.metadata.num_columns > MAX_COLUMNS:
            yield Unread(f"more than {MAX_COLUMNS} columns")
            return
        for groups in self._windows(most_rows):
            try:
                columns = self._columns(groups)
            except PageError:
                yield Unread("Parquet whose page headers cannot be read")
                return
            problem = columns if isinstance(columns, str) else self._problem(columns)
            if isinstance(columns, str) or problem:
                yield Unread(problem or "")
                return
            yield groups, columns

    def _read(self, groups: list[int], columns: list[_Column], most_rows: int) -> Iterator[Any]:
        """Record batches of some columns; an `Unread` after which nothing comes."""
        rows, references = self._plan(groups, columns, most_rows)
        file = self._open([column.path for column in references]) if references else self._file
        some = None if len(columns) == self.metadata.num_columns else [column.path for column in columns]
        for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=some, use_threads=False):
            for piece in self._pieces(batch) if references or self._has_dictionaries else [batch]:
                yield piece
                if isinstance(piece, Unread):
                    return

    def stored(self) -> Iterator[tuple[int, list[Stored]] | Unread]:
        """Row groups that have rows, each with its columns as they lie there; an `Unread` after which nothing comes."""
        for part in self._described(1):
            if isinstance(part, Unread):
                yield part
                return
            groups, columns = part
            for at, group in enumerate(groups):
                about = self.metadata.row_group(group)
                chunks = [
                    Stored(column, _place(about.column(column.index))[0], column.chunks[at], about.num_rows)
                    for column in columns
                ]
                if about.num_rows:
                    yield group, chunks

    def decoded(self, group: int, chunks: list[Stored], most_rows: int) -> Iterator[Any]:
        """Record batches of some columns of a row group; an `Unread` after which nothing comes."""
        return self._read([group], [chunk.column for chunk in chunks], most_rows)

    def content(self, chunk: Stored, page: Page) -> Bytes | None:
        """A page's bytes, decompressed; None when they cannot be or are not as many as it says."""
        return self._content_of(page, chunk.column.compressions)

    @property
    def size_bytes(self) -> int:
        """How large the file is."""
        return self._ranged.size_bytes

    def at(self, offset: int, size: int) -> bytes:
        """The file's bytes from an offset on, as they lie there."""
        return self._ranged.at(offset, size)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The same in pieces, up to an end."""
        for at in range(start, end, _PIECE_BYTES):
            yield self.at(at, min(_PIECE_BYTES, end - at))

    @property
    def has_clear_names(self) -> bool:
        """Whether a path tells which column it is in: no name comes again, and none has a dot."""
        names: list[str] = self.schema.names
        return len(set(names)) == len(names) and not any("." in name for name in names)

    @cached_property
    def flat_texts(self) -> dict[int, bool]:
        """Which columns are texts, one a row, with whether they may be missing; none where names are ambiguous."""
        if not self.has_clear_names:
            return {}
        kinds = dict(zip(self.schema.names, self.schema.types, strict=True))
        found: dict[int, bool] = {}
        for at in range(self.metadata.num_columns):
            column = self._file.schema.column(at)
            kind = kinds.get(column.path)
            text = kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
            levels = column.max_repetition_level, column.max_definition_level
            if text and column.physical_type == "BYTE_ARRAY" and levels in ((0, 0), (0, 1)):
                found[at] = levels == (0, 1)
        return found

    def _texts(self, groups: list[int], column: _Column) -> list[Texts] | None:
        """A column's texts in some row groups, by the kernel; None when Arrow must read them."""
        kernel = native.kernel()
        if kernel is None or sum(page.size_bytes for page in column.pages) > _TEXTS_BYTES:
            return None
        found: list[Texts] = []
        for group, chunk in zip(groups, column.chunks, strict=True):
            values = sum(page.values for page in chunk if not page.is_dictionary)
            if values != self.metadata.row_group(group).num_rows:
                return None
            content = partial(self._content_of, compressions=column.compressions)
            part = texts(kernel, column.path, chunk, content, optional=self.flat_texts[column.index])
            if part is None or any(each.longest_bytes * _LEAST_ROWS > BATCH_BYTES for each in part):
                return None
            found += part
        return joined(found)

    def _unshown(self, groups: list[int], column: _Column) -> Iterator[Texts | Unread]:
        """What the dictionaries of a column that Arrow reads hold and no row of their group shows."""
        physical = self._file.schema.column(column.index).physical_type
        for group, chunk in zip(groups, column.chunks, strict=True):
            if physical != "BYTE_ARRAY" or not any(page.is_dictionary for page in chunk):
                continue
            seen: list[tuple[Any, npt.NDArray[np.bool_]]] = []
            for batch in self._by_dictionary.iter_batches(row_groups=[group], columns=[column.path], use_threads=False):
                for array, _ in _dictionaries(batch):
                    if not seen or not seen[-1][0].equals(array.dictionary):
                        seen.append((array.dictionary, np.zeros(len(array.dictionary), bool)))
                    which = array.indices.drop_null().to_numpy()
                    if which.min(initial=0) < 0 or which.max(initial=-1) >= len(array.dictionary):
                        raise pa.ArrowInvalid("a reference to an entry that is not there")
                    seen[-1][1][which] = True
            if all(shown.all() for _, shown in seen):
                continue
            if sum(entries.nbytes for entries, _ in seen) > _HIDING_BYTES:
                yield Unread(f"a dictionary of more than {_HIDING_BYTES // 1024**2} MiB with values that no row shows")
                continue
            hidden = pa.concat_arrays([entries.filter(pa.array(~shown)) for entries, shown in seen])
            elsewhere = pa.concat_arrays([entries.filter(pa.array(shown)) for entries, shown in seen])
            hidden = hidden.filter(pc.invert(pc.is_in(hidden, value_set=elsewhere)))
            text, broken = decode(hidden.cast(pa.large_binary()))
            name = self._leaf_names.get(column.index, column.path)
            if broken:
                yield Unread("bytes that are not UTF-8 text, which no row shows", name, broken)
            if len(text):
                yield Texts(name, text, None, unshown=True)

    @cached_property
    def _leaf_names(self) -> dict[int, str]:
        """What each leaf column is called by those who count; none where it cannot be told."""
        names = [
            leaf.name for leaf in leaves(pa.RecordBatch.from_pylist([], schema=self.schema)) if isinstance(leaf, Leaf)
        ]
        return dict(enumerate(names)) if len(names) == self.metadata.num_columns else {}

    @property
    def _has_dictionaries(self) -> bool:
        return any("dictionary<" in str(kind) for kind in self.schema.types)

    def _windows(self, most_rows: int) -> Iterator[list[int]]:
        """Row groups that are read together: one, or several small ones that make a batch."""
        window: list[int] = []
        rows = 0
        for group in range(self.metadata.num_row_groups):
            if self._wanted is not None and group not in self._wanted:
                continue
            here = self.metadata.row_group(group).num_rows
            if window and rows + here > most_rows:
                yield window
                window, rows = [], 0
            window.append(group)
            rows += here
        if window:
            yield window

    def _columns(self, groups: list[int]) -> list[_Column] | str:
        """Every column's pages in some row groups, or why the groups are not read."""
        columns: list[_Column] = []
        for index in range(self.metadata.num_columns):
            described = self._file.schema.column(index)
            repeated = described.max_repetition_level > 0
            columns.append(_Column(index, described.path, 0, 0, [], repeated))
        chunks = [
            (column, self.metadata.row_group(group).column(column.index)) for group in groups for column in columns
        ]
        places = [_place(chunk) for _, chunk in chunks]
        start = min((start for start, _ in places), default=0)
        end = max((start + length for start, length in places), default=0)
        if end - start > _SCATTER * sum(length for _, length in places) + BATCH_BYTES:
            return "Parquet whose row groups are scattered over the file"
        self._ranged.hold(start, end - start)
        for (column, chunk), (at, length) in zip(chunks, places, strict=True):
            column.chunks.append(tuple(pages(self._ranged.at, at, length, chunk.num_values)))
            column.pages += column.chunks[-1]
            column.values += chunk.num_values
            column.size_bytes += length
            column.compressions.add(chunk.compression)
        return columns

    def _problem(self, columns: list[_Column]) -> str:
        """Why nothing of these columns may be decoded; nothing when they may."""
        if sum(column.largest_page_bytes for column in columns) > _OPEN_PAGES_BYTES:
            return f"Parquet whose pages need more than {_OPEN_PAGES_BYTES // 1024**3} GiB at once"
        for column in columns:
            claimed = sum(page.values for page in column.pages if not page.is_dictionary)
            if column.repeated and max(claimed, column.values) > _FREE_VALUES + _VALUES_A_BYTE * column.size_bytes:
                return "lists of more items than their bytes can tell"
        return self._expansion.add(sum(page.size_bytes for column in columns for page in column.pages))

    def _plan(self, groups: list[int], columns: list[_Column], most_rows: int) -> tuple[int, list[_Column]]:
        """How many rows a batch may have, and which columns are read as references into their dictionary."""
        total_rows = max(1, sum(self.metadata.row_group(group).num_rows for group in groups))
        short: list[_Column] = []
        references: list[_Column] = []
        room = BATCH_BYTES // 2
        for column in columns:
            column.longest_bytes = self._longest_value(groups, column, room)
            room -= column.spelt_bytes
            fits = column.longest_bytes * (column.values if column.repeated else _LEAST_ROWS) <= BATCH_BYTES
            (short if fits else references).append(column)
        short.sort(key=lambda column: column.longest_bytes)
        while sum(column.longest_bytes for column in short) * _LEAST_ROWS > BATCH_BYTES:
            references.append(short.pop())
        a_row = sum(_FIXED_BYTES * _times(column, total_rows) for column in columns)
        a_row += sum(column.longest_bytes * _times(column, total_rows) for column in short)

        def needed(rows: int) -> int:
            dense = sum(column.dense(rows * _times(column, total_rows)) for column in columns)
            return dense + rows * a_row + sum(column.spelt_bytes for column in columns)

        rows = most_rows
        least = max(BATCH_BYTES, needed(1))
        while rows > 1 and needed(rows) > least:
            rows //= 2
        return max(1, rows), references

    def _longest_value(self, groups: list[int], column: _Column, room: int) -> int:
        """The longest value in a column's dictionaries, or more; 0 where values are of a fixed size, or all of them
        fit into the room together.
        """
        dictionaries = [page for page in column.pages if page.is_dictionary]
        longest = max((page.size_bytes - 4 * (page.values - 1) for page in dictionaries), default=0)
        physical = self._file.schema.column(column.index).physical_type
        if physical == "FIXED_LEN_BYTE_ARRAY":
            return max((page.size_bytes // max(1, page.values) for page in dictionaries), default=0)
        if physical != "BYTE_ARRAY" or longest <= _SHORT_BYTES:
            return longest if physical == "BYTE_ARRAY" else 0
        spelt = self._most_spelt(column)
        if spelt is not None and spelt <= min(_SPELT_BYTES, room):
            column.spelt_bytes = spelt
            return 0
        walked = [self._longest_of(page, column.compressions) for page in dictionaries]
        if all(found is not None for found in walked):
            return max(found or 0 for found in walked)
        file = self._by_dictionary
        read = longest_read = 0
        for group in groups:
            batch = next(file.iter_batches(batch_size=1, row_groups=[group], columns=[column.path]), None)
            if batch is None:
                continue
            for array, _ in _dictionaries(batch):
                read += len(array.dictionary)
                longest_read = max(longest_read, pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
        # A dictionary that the first row does not bring along whole is known by its size alone.
        return longest_read if read >= sum(page.values for page in dictionaries) else longest

    def _most_spelt(self, column: _Column) -> int | None:
        """What a column's references are at most once they are spelt out; None when it is not known."""
        kernel = native.kernel()
        if kernel is None or column.index not in self.flat_texts:
            return None
        content = partial(self._content_of, compressions=column.compressions)
        optional = self.flat_texts[column.index]
        most = [most_spelt(kernel, chunk, content, optional=optional) for chunk in column.chunks]
        known = [each for each in most if each is not None]
        return sum(known) if len(known) == len(most) else None

    def _longest_of(self, page: Page, compressions: set[str]) -> int | None:
        """The longest value of a dictionary's page, by the kernel; None when it cannot tell."""
        kernel = native.kernel()
        data = None if kernel is None else self._content_of(page, compressions)
        return None if kernel is None or data is None else kernel.longest(data, page.values)

    def _content_of(self, page: Page, compressions: set[str]) -> Bytes | None:
        """A page's bytes, decompressed; None when they cannot be or are not as many as it says."""
        compression, *others = compressions
        if others or compression not in _UNPACKED:
            return None
        content = self._ranged.at(page.at, page.stored_bytes)
        try:
            if compression != "UNCOMPRESSED":
                content = pa.Codec(compression.lower()).decompress(content, decompressed_size=page.size_bytes)
        except (pa.ArrowException, OSError, ValueError):
            return None
        data = np.frombuffer(content, np.uint8)
        return data if len(data) == page.size_bytes else None

    def _pieces(self, batch: Any) -> Iterator[Any]:
        """The batch with references spelt out, in pieces that fit."""
        size_of_row = np.zeros(batch.num_rows, np.int64)
        for array, rows in _dictionaries(batch):
            if pa.types.is_primitive(array.type.value_type):
                continue
            lengths = pc.binary_length(array.dictionary).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            which = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            sizes = np.append(lengths, 0)[which]
            size_of_row += sizes if rows is None else np.bincount(rows, sizes, batch.num_rows).astype(np.int64)
        problem = self._expansion.add(int(size_of_row.sum()))
        if not problem and len(size_of_row) and int(size_of_row.max()) > BATCH_BYTES:
            problem = f"a row of more than {BATCH_BYTES // 1024**2} MiB"
        if problem:
            yield Unread(problem, count=batch.num_rows)
            return
        number = np.cumsum(size_of_row) // BATCH_BYTES
        names = batch.schema.names
        cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), batch.num_rows]
        for start, end in pairwise(cuts):
            yield batch.slice(start, end - start).cast(pa.schema([self.schema.field(name) for name in names]))


def _times(column: _Column, rows: int) -> int:
    """How many values of a column a row has, with a margin for columns in which rows differ."""
    return 1 if not column.repeated else max(1, -(-4 * column.values // rows))


def _place(chunk: Any) -> tuple[int, int]:
    """Where a column chunk lies, as Arrow's reader works it out."""
    start: int = chunk.data_page_offset
    dictionary = chunk.dictionary_page_offset
    if chunk.has_dictionary_page and dictionary and 0 < dictionary < start:
        start = dictionary
    if start < 0 or chunk.total_compressed_size < 0:
        raise PageError
    return start, chunk.total_compressed_size


def _extent(chunk: Any, held: tuple[Page, ...]) -> tuple[int, int]:
    """Where a column chunk's pages begin, and how many bytes they take."""
    start, _ = _place(chunk)
    return start, held[-1].at + held[-1].stored_bytes - start if held else 0


def _dictionaries(batch: Any) -> Iterator[tuple[Any, Rows | None]]:
    """Every dictionary-coded array of a batch, with the row of each of its elements (None: its own)."""
    waiting: list[tuple[Any, Rows | None]] = [(array, None) for array in batch.columns]
    while waiting:
        array, rows = waiting.pop()
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            waiting.append((array.storage, rows))
        elif pa.types.is_dictionary(kind):
            yield array, rows
        elif pa.types.is_struct(kind):
            waiting += [(child, rows) for child in array.flatten()]
        elif pa.types.is_map(kind):
            as_list = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
            waiting.append((pc.list_flatten(as_list), parents_of(as_list, rows)))
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            waiting.append((pc.list_flatten(array), parents_of(array, rows)))
