"""Models and arrays in formats of their own: the texts and numbers of ONNX and .npy files, without running anything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from tasks.core.detectors.pickles import Found
from tasks.core.detectors.tables import Batch, Source, Unread
from tasks.core.thrift import ThriftError, varint_at

_MAX_MODEL_BYTES = 512 * 1024 * 1024
_STEP_BYTES = 8 * 1024 * 1024
_MAX_DEPTH = 64

_TEXT, _DATA, _NUMBERS = "text", "data", "numbers"
# Fields by number, of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; what is not here are plain numbers.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {2: _TEXT, 3: _TEXT, 4: _TEXT, 6: _TEXT, 7: "Graph", 8: "Operators", 14: "Entry", 20: "Training",
              25: "Function"},
    "Operators": {1: _TEXT},
    "Entry": {1: _TEXT, 2: _TEXT},
    "Training": {1: "Graph", 2: "Graph", 3: "Entry", 4: "Entry"},
    "Function": {1: _TEXT, 4: _TEXT, 5: _TEXT, 6: _TEXT, 7: "Node", 8: _TEXT, 9: "Operators", 10: _TEXT,
                 11: "Attribute", 12: "Value", 13: _TEXT, 14: "Entry"},
    "Graph": {1: "Node", 2: _TEXT, 5: "Tensor", 10: _TEXT, 11: "Value", 12: "Value", 13: "Value", 14: "Annotation",
              15: "Sparse", 16: "Entry"},
    "Node": {1: _TEXT, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: "Attribute", 6: _TEXT, 7: _TEXT, 8: _TEXT, 9: "Entry"},
    "Attribute": {1: _TEXT, 4: _TEXT, 5: "Tensor", 6: "Graph", 7: _NUMBERS, 8: _NUMBERS, 9: _TEXT, 10: "Tensor",
                  11: "Graph", 13: _TEXT, 14: "Type", 15: "Type", 21: _TEXT, 22: "Sparse", 23: "Sparse"},
    "Tensor": {1: _NUMBERS, 4: "f4", 5: _NUMBERS, 6: _TEXT, 7: _NUMBERS, 8: _TEXT, 9: _DATA, 10: "f8", 11: _NUMBERS,
               12: _TEXT, 13: "Entry", 16: "Entry"},
    "Sparse": {1: "Tensor", 2: "Tensor", 3: _NUMBERS},
    "Annotation": {1: _TEXT, 2: "Entry"},
    "Value": {1: _TEXT, 2: "Type", 3: _TEXT, 4: "Entry"},
    "Type": {1: "TensorType", 4: "OneType", 5: "MapType", 6: _TEXT, 7: "OpaqueType", 8: "TensorType", 9: "OneType"},
    "TensorType": {2: "Shape"},
    "Shape": {1: "Dimension"},
    "Dimension": {2: _TEXT, 3: _TEXT},
    "OneType": {1: "Type"},
    "MapType": {2: "Type"},
    "OpaqueType": {1: _TEXT, 2: _TEXT},
}  # fmt: skip
_ELEMENTS = {
    1: "f4",
    2: "u1",
    3: "i1",
    4: "u2",
    5: "i2",
    6: "i4",
    7: "i8",
    9: "u1",
    10: "f2",
    11: "f8",
    12: "u4",
    13: "u8",
}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class _OnnxError(Exception):
    """Bytes that are no ONNX model."""


def onnx(source: Source) -> Iterator[Batch | Unread]:
    """The texts and numbers of an ONNX model, by the numbers of its protocol buffers' fields."""
    content = bytearray()
    for piece in source.pieces():
        content += piece
        if len(content) > _MAX_MODEL_BYTES:
            yield Unread(f"an ONNX model of more than {_MAX_MODEL_BYTES // 1024**2} MiB")
            return
    found = Found()
    try:
        for _ in _message(memoryview(content), "Model", found, 0):
            if found.is_full:
                yield found.batch()
        yield found.batch()
    except (_OnnxError, ThriftError, IndexError):
        yield found.batch()
        yield Unread("an ONNX model that cannot be taken apart")


def _message(content: memoryview, name: str, found: Found, depth: int) -> Iterator[None]:
    if depth > _MAX_DEPTH:
        raise _OnnxError
    fields = _MESSAGES[name]
    element = ""
    raw: list[memoryview] = []
    for number, kind, value in _fields(content):
        meaning = fields.get(number)
        if kind != _LENGTH:
            if name == "Tensor" and number == 2:
                element = _ELEMENTS.get(cast("int", value), "")
            continue
        piece = cast("memoryview", value)
        if meaning is None:
            raise _OnnxError
        if meaning in _MESSAGES:
            yield from _message(piece, meaning, found, depth + 1)
        elif meaning == _TEXT:
            found.data(bytes(piece), "")
        elif meaning == _DATA:
            raw.append(piece)
        elif meaning != _NUMBERS:
            found.data(bytes(piece), meaning)
        else:
            for packed in _packed(piece):
                found.text(str(packed))
        yield
    for piece in raw:  # The type may stand behind the data.
        found.data(bytes(piece), element)


def _packed(content: memoryview) -> Iterator[int]:
    """Whole numbers that are long enough to be somebody's."""
    at = 0
    while at < len(content):
        value, at = varint_at(content, at)
        if value >= 1e8:
            yield value


def _fields(content: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    at = 0
    while at < len(content):
        tag, at = varint_at(content, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = varint_at(content, at)
            yield number, kind, value
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            yield number, kind, 0
        elif kind == _LENGTH:
            length, at = varint_at(content, at)
            if at + length > len(content):
                raise _OnnxError
            yield number, kind, content[at : at + length]
            at += length
        else:
            raise _OnnxError
    if at != len(content):
        raise _OnnxError


def npy(source: Source) -> Iterator[Batch | Unread]:
    """The elements of an array file; of one that holds objects nothing is read."""
    formats: Any = np.lib.format
    file = source.buffered()
    found = Found()
    try:
        version = formats.read_magic(file)
        shape, _, kind = (formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0)(file)
        if kind.hasobject:
            yield Unread("an array of objects, which is not looked into")
            return
        left = math.prod(shape) * kind.itemsize
        step = max(1, _STEP_BYTES // max(1, kind.itemsize)) * kind.itemsize
        while left > 0:
            data = file.read(min(left, step))
            if not data:
                raise EOFError
            left -= len(data)
            found.data(data, kind.str)
            yield found.batch()
    except (ValueError, EOFError, OverflowError, TypeError) as error:
        yield Unread(f"an array that cannot be read ({type(error).__name__})")
