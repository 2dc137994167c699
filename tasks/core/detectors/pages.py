"""The pages of a Parquet column chunk, by their headers: what decoding them will cost is known before it is paid.

A footer says how large a column is, and may lie; page headers are what a decoder allocates by. They are structs of
Thrift's compact protocol; fields are numbered as in `PageHeader` of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

_FIRST_READ_BYTES = 1024
_LONGEST_HEADER_BYTES = 1024 * 1024
_MAX_DEPTH = 8
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
PLAIN, PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8
"""Encodings, by their numbers in `Encoding`."""

_DICTIONARY_ENCODINGS = (PLAIN_DICTIONARY, _RLE_DICTIONARY)

# Thrift's types in compact structs.
_STOP, _TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 6, 7, 8, 9, 10, 12


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
            fields = cast("dict[int, Any]", about)
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
    length = _FIRST_READ_BYTES
    while True:
        content = read(at, min(length, end - at))
        try:
            return _struct(content, 0, 0)
        except IndexError as error:
            if len(content) < length or length >= _LONGEST_HEADER_BYTES:
                raise PageError from error
            length *= 16


def _struct(content: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _MAX_DEPTH:
        raise PageError
    fields: dict[int, Any] = {}
    number = 0
    while (byte := content[at]) & 15 != _STOP:  # Whatever its other bits are, as Thrift's own readers have it.
        at += 1
        step, kind = byte >> 4, byte & 15
        if step:
            number += step
        else:
            number, at = _integer(content, at)
        fields[number], at = _value(content, at, kind, depth)
    return fields, at + 1


def _value(content: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _BYTE:
        return content[at], at + 1
    if kind <= _I64:
        return _integer(content, at)
    if kind in (_DOUBLE, _BINARY):
        length = 8
        if kind == _BINARY:
            length, at = _varint(content, at)
        content[at + length - 1]  # Raises IndexError when there is more to be read first.
        return None, at + length
    if kind in (_LIST, _SET):
        count, of = content[at] >> 4, content[at] & 15
        at += 1
        if count == 15:
            count, at = _varint(content, at)
        for _ in range(count):
            _, at = _value(content, at + (of in (_TRUE, _FALSE)), of, depth + 1)
        return None, at
    if kind == _STRUCT:
        return _struct(content, at, depth + 1)
    raise PageError


def _integer(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise PageError
