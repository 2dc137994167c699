"""The pages of a Parquet column chunk, by their headers: what decoding them will cost is known before it is paid.

A footer says how large a column is, and may lie; page headers are what a decoder allocates by. They are structs of
Thrift's compact protocol; fields are numbered as in `PageHeader` of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from tasks.core.thrift import EndsTooSoon, Struct, ThriftError, read_struct

_FIRST_READ_BYTES = 1024
_LONGEST_HEADER_BYTES = 1024 * 1024
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
PLAIN, PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8
"""Encodings, by their numbers in `Encoding`."""

_DICTIONARY_ENCODINGS = (PLAIN_DICTIONARY, _RLE_DICTIONARY)


class PageError(Exception):
    """Bytes that are no page header."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Args:
        size_bytes: What it needs after decompression.
        values: How many values it says it has, nulls included; of a dictionary the entries.
        is_dictionary: Whether it holds the values that other pages refer to.
        refers: Whether its values are references into the dictionary.
        at, stored_bytes: Where its content lies in the file, as it is stored.
        encoding: How its values are written.
        first_version: Whether it is a data page of the first version, with levels as runs.
    """

    size_bytes: int
    values: int
    is_dictionary: bool
    refers: bool
    at: int
    stored_bytes: int
    encoding: int | None = None
    first_version: bool = False


def pages(read: Callable[[int, int], bytes], start: int, length: int, values: int) -> Iterator[Page]:
    """The pages of a column chunk, in order.

    Args:
        read: Gives bytes of the file from an offset on, up to a number of them.
        start, length: Where the chunk lies, in bytes.
        values: How many values the chunk has; what follows them is padding.

    Raises:
        PageError: A header cannot be read, so that nothing is known about the rest of the chunk.
    """
    at, end, seen = start, start + length, 0
    while at < end and seen < values:
        header, size = _header(read, at, end)
        compressed, uncompressed = header.get(3), header.get(2)
        if not isinstance(compressed, int) or not isinstance(uncompressed, int) or compressed < 0 or uncompressed < 0:
            raise PageError
        is_dictionary = header.get(1) == _DICTIONARY_PAGE
        about = header.get(7) if is_dictionary else header.get(5) or header.get(8)
        if isinstance(about, dict):
            fields = _values(cast("Struct", about))
            count = fields.get(1)
            encoding = fields.get(2) if is_dictionary or header.get(5) else fields.get(4)
            if not isinstance(count, int) or count < 0:
                raise PageError
            refers = not is_dictionary and encoding in _DICTIONARY_ENCODINGS
            first = header.get(1) == _DATA_PAGE and about is header.get(5) and fields.get(3) == _RLE
            written = encoding if isinstance(encoding, int) else None
            yield Page(uncompressed, count, is_dictionary, refers, at + size, compressed, written, first)
            seen += 0 if is_dictionary else count
        at += size + compressed


def _header(read: Callable[[int, int], bytes], at: int, end: int) -> tuple[dict[int, Any], int]:
    """The values of a header's fields, and how many bytes it has."""
    length = _FIRST_READ_BYTES
    while True:
        content = read(at, min(length, end - at))
        try:
            struct, size = read_struct(content)
            return _values(struct), size
        except EndsTooSoon as error:
            if len(content) < length or length >= _LONGEST_HEADER_BYTES:
                raise PageError from error
            length *= 16
        except ThriftError as error:
            raise PageError from error


def _values(struct: Struct) -> dict[int, Any]:
    return {number: value for number, (_, value) in struct.items()}
