"""Objects as tables: Parquet, CSV, JSON lines and plain text as batches of flat columns, in bounded memory.

What cannot be read is an `Unread` with the reason, never a crash and never left out silently. Reasons carry no text
of a parser's message, which may quote the data.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, cast

import polars as pl

from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors.ranged import RangedFile, StreamedFile
from tasks.core.detectors.unpacking import UnpackError, packing_of, unpacked, unpacked_head
from tasks.core.plane.reading import Beginning

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tasks.core.ports import Store

Format = Literal["parquet", "csv", "jsonl", "json", "text", "avro", "orc", "zip", "pickle", "npy", "onnx", "unknown"]
_BUFFER_BYTES = 1024 * 1024
TEXT = "(text)"
"""The column of plain text: one line a row."""

METADATA = "(metadata)"
"""The column of notes that a file carries beside its rows."""

BATCH_ROWS = 65_536

MAX_COLUMNS = 8192
"""Different columns (of nested values: paths) that an object may have."""

SNIFF_BYTES = 64 * 1024
"""How many of its first bytes tell an object's format."""


@dataclass(frozen=True)
class Leaf:
    """One flat column of a batch.

    Args:
        name: With dots into nested values and `[]` for the items of a list.
        held: The leaf values; None for texts that only `array` holds.
        rows: For each value the row of the batch it belongs to; None when it is simply the row.
        array: The Arrow array that the values were taken from as they are; None when there is none.
        weights: For each value how many rows it stands for; None for one.
        unshown: Whether no row shows the values: they lie in a dictionary, and leave with the file.
    """

    name: str
    held: pl.Series | None
    rows: npt.NDArray[np.int64] | None = None
    array: Any = None
    weights: npt.NDArray[np.int64] | None = None
    unshown: bool = False

    @cached_property
    def values(self) -> pl.Series:
        """The leaf values."""
        return pl.Series(self.name, self.array) if self.held is None else self.held

    def __len__(self) -> int:
        return len(self.array) if self.held is None else len(self.held)


@dataclass(frozen=True)
class Batch:
    """Some rows of an object: how many, the number of the first one, and its columns.

    A header has no rows and all columns that are to come.
    """

    rows: int
    first_row: int
    leaves: tuple[Leaf, ...]
    is_header: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that could not be read: of which column (empty: of the object), how many rows of it, and why."""

    why: str
    column: str = ""
    count: int = 1


@dataclass(frozen=True)
class Source:
    """One object to be read.

    Args:
        store: The store that holds it.
        uri: The dataset.
        entry: The object.
        head: Its first bytes, or those of its content when it is compressed as a whole.
        packing: How it is compressed; nothing when it is not.
        broken: Why it cannot be unpacked.
        groups: The row groups that are read of a Parquet file; None for all.
    """

    store: Store
    uri: DatasetURI
    entry: Entry
    head: bytes = field(default=b"", repr=False)
    packing: str = ""
    broken: str = ""
    groups: frozenset[int] | None = None

    @classmethod
    def open(cls, store: Store, uri: DatasetURI, entry: Entry) -> Source:
        """Look at the object's first bytes. Raises what `Store.get` raises."""
        length = min(SNIFF_BYTES, entry.size_bytes)
        head = b"".join(store.get(uri.key(entry.path), version=entry.version or None, length=length)) if length else b""
        return cls.of(store, uri, entry, head)

    @classmethod
    def of(cls, store: Store, uri: DatasetURI, entry: Entry, head: bytes) -> Source:
        """The same of who has read its first `SNIFF_BYTES` already."""
        packing = packing_of(head)
        if not packing:
            return cls(store, uri, entry, head)
        try:
            inside = unpacked_head(head, packing, SNIFF_BYTES, whole=entry.size_bytes <= SNIFF_BYTES)
        except UnpackError as error:
            return cls(store, uri, entry, b"", packing, str(error))
        return cls(store, uri, entry, inside, packing)

    @property
    def suffix(self) -> str:
        """What the name says of the format, in lower case; of the content when it is compressed (`t.csv.gz`)."""
        name = PurePosixPath(self.entry.path.lower())
        return (name.with_suffix("") if self.packing and name.suffix in _PACKED_SUFFIXES else name).suffix

    def ranged(self) -> RangedFile:
        """The object as a seekable file."""
        return RangedFile(self.store, self.uri.key(self.entry.path), self.entry.version or None, self.entry.size_bytes)

    def pieces(self) -> Iterator[bytes]:
        """The object from its beginning, unpacked. Raises `UnpackError` when it cannot or may not be."""
        if self.packing:
            stored = self.store.get(self.uri.key(self.entry.path), version=self.entry.version or None)
            return unpacked(stored, self.packing, self.entry.size_bytes)
        if self.entry.size_bytes <= len(self.head):
            return iter([self.head])
        return self.store.get(self.uri.key(self.entry.path), version=self.entry.version or None)

    def streamed(self) -> StreamedFile:
        """The object as a file that is read once."""
        return StreamedFile(self.pieces())

    def buffered(self) -> io.BufferedReader:
        """The same for readers of few bytes at a time."""
        return io.BufferedReader(cast("Any", self.streamed()), _BUFFER_BYTES)


def beginning_of(uri: DatasetURI, entry: Entry) -> Beginning:
    """What is to be read of an object for `Source.of`."""
    return Beginning(uri.key(entry.path), entry.version, min(SNIFF_BYTES, entry.size_bytes), entry.size_bytes)


_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}

_BINARY_FORMATS: tuple[tuple[bytes, Format], ...] = (
    (b"PAR1", "parquet"),
    (b"Obj\x01", "avro"),
    (b"ORC", "orc"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x93NUMPY", "npy"),
    *((bytes((0x80, protocol)), "pickle") for protocol in range(2, 6)),
)
_SEEKING = ("parquet", "orc", "zip")
"""Formats that are read back and forth, so that what is compressed as a whole is not looked into."""

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
_PACKED_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2")

_KNOWN_BINARY = (
    (b"\x1f\x8b", "gzip inside another archive, which is not looked into"),
    (b"\x28\xb5\x2f\xfd", "zstd inside another archive, which is not looked into"),
    (b"BZh", "bzip2 inside another archive, which is not looked into"),
    (b"\xff\xfe", "UTF-16 text; re-encode it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; re-encode it as UTF-8"),
)


def format_of(source: Source) -> tuple[Format, str]:
    """What an object holds by its first bytes and its name; for `unknown` also the reason."""
    if source.broken:
        return "unknown", source.broken
    if source.suffix == ".onnx":
        return "onnx", ""
    for magic, kind in _BINARY_FORMATS:
        if source.head.startswith(magic):
            inside = f"{kind} inside {source.packing}, which is not looked into"
            return ("unknown", inside) if source.packing and kind in _SEEKING else (kind, "")
    for magic, why in _KNOWN_BINARY:
        if source.head.startswith(magic):
            return "unknown", why
    if source.suffix in _PICKLE_SUFFIXES:
        return "pickle", ""  # Its first protocols have no mark.
    if b"\0" in source.head:
        return "unknown", "an unknown binary format"
    return _FORMATS.get(source.suffix, "text"), ""
