"""Thrift's compact protocol: structs of any kind as numbered fields, read and written again.

The footers and page headers of Parquet are such structs
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md). Nothing here knows what a field
means.
"""

from __future__ import annotations

from typing import Any, cast

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
"""Kinds of fields."""

_INTEGERS = (I16, I32, I64)
_DOUBLE_BYTES = 8
_LONG_LIST = 15
_MAX_DEPTH = 16
_MOST_BITS = 63

Field = tuple[int, Any]
"""The kind of a value, and the value: of a list the kind of its items and these."""

Struct = dict[int, Field]


class ThriftError(ValueError):
    """Bytes that are no struct."""


class EndsTooSoon(ThriftError):
    """Bytes that end before the struct does."""


def read_struct(content: bytes | memoryview, at: int = 0, depth: int = 0) -> tuple[Struct, int]:
    r"""The struct that begins somewhere in the content, and where it ends.

    Raises:
        EndsTooSoon: There must be more of it.
        ThriftError: It is none.


    >>> read_struct(b"\x15\x02\x00")
    ({1: (5, 1)}, 3)
    """
    if depth > _MAX_DEPTH:
        raise ThriftError("nested too deeply")
    fields: Struct = {}
    number = 0
    try:
        while (byte := content[at]) & 15:  # Of a field that ends a struct the other bits may be any.
            at += 1
            step, kind = byte >> 4, byte & 15
            if step:
                number += step
            else:
                number, at = _integer(content, at)
            if kind in (TRUE, FALSE):
                fields[number] = kind, kind == TRUE
            else:
                value, at = _value(content, at, kind, depth)
                fields[number] = kind, value
    except IndexError as error:
        raise EndsTooSoon from error
    return fields, at + 1


def _value(content: bytes | memoryview, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _integer(content, at)
    if kind in (TRUE, FALSE, BYTE):
        return content[at], at + 1
    if kind in (DOUBLE, BINARY):
        length = _DOUBLE_BYTES
        if kind == BINARY:
            length, at = varint_at(content, at)
        if length > len(content) - at:
            raise EndsTooSoon
        return bytes(content[at : at + length]), at + length
    if kind in (LIST, SET):
        count, of = content[at] >> 4, content[at] & 15
        at += 1
        if count == _LONG_LIST:
            count, at = varint_at(content, at)
        items: list[Any] = []
        for _ in range(count):
            item, at = _value(content, at, of, depth + 1)
            items.append(item)
        return (of, items), at
    if kind == STRUCT:
        return read_struct(content, at, depth + 1)
    raise ThriftError("a field of an unknown kind")


def _integer(content: bytes | memoryview, at: int) -> tuple[int, int]:
    value, at = varint_at(content, at)
    return (value >> 1) ^ -(value & 1), at


def varint_at(content: bytes | memoryview, at: int) -> tuple[int, int]:
    """A number as `varint` writes it, and where it ends. Raises `ThriftError`, or `IndexError` where it is cut off."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > _MOST_BITS:
            raise ThriftError("a number that is too long")


def written(struct: Struct) -> bytes:
    r"""The bytes of a struct.

    >>> written({1: (5, 1)})
    b'\x15\x02\x00'
    """
    out = bytearray()
    _write(out, STRUCT, struct)
    return bytes(out)


def _write(out: bytearray, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        out += varint(value << 1 ^ value >> _MOST_BITS)
    elif kind in (TRUE, FALSE, BYTE):
        out.append(value)
    elif kind == DOUBLE:
        out += value
    elif kind == BINARY:
        out += varint(len(value))
        out += value
    elif kind in (LIST, SET):
        of, items = cast("tuple[int, list[Any]]", value)
        out.append(min(len(items), _LONG_LIST) << 4 | of)
        if len(items) >= _LONG_LIST:
            out += varint(len(items))
        for item in items:
            _write(out, of, item)
    else:
        before = 0
        for number, (each, held) in sorted(cast("Struct", value).items()):
            step = number - before
            out.append((step if 0 < step < 16 else 0) << 4 | each)
            if not 0 < step < 16:
                out += varint(number << 1)
            if each not in (TRUE, FALSE):
                _write(out, each, held)
            before = number
        out.append(0)


def varint(value: int) -> bytes:
    """A whole number from 0 on, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
