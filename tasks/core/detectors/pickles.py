"""Pickles and joblib files: their texts and numbers, read from the instructions without following any of them.

`pickletools.genops` takes a pickle apart; nothing in it is imported, called or built. Arrays lie in a pickle as bytes
behind their type, and in a joblib file (https://github.com/joblib/joblib/blob/main/joblib/numpy_pickle.py) behind the
pickled description of the array, whose shape and type are read for that.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import polars as pl

from tasks.core.detectors.tables import Batch, Leaf, Source, Unread

TEXTS, NUMBERS = "(texts)", "(numbers)"
"""The columns of what stands in a model: its texts, and the numbers of its arrays."""

_TYPE = re.compile(r"[<>|=]?([fiubcSUVOmM])([0-9]+)")
_RUNS = re.compile(rb"[\x20-\x7e]{6,}")
_MAX_ITEM_BYTES = 256 * 1024 * 1024
_BATCH_ITEMS = 65_536
_BATCH_BYTES = 32 * 1024 * 1024
_BUILT_WITH = "numpy_array_alignment_bytes"


class _Bounded:
    """A file that gives no more than is bearable at once, for `pickletools`."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_ITEM_BYTES:
            raise ValueError("too large an item")
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(_MAX_ITEM_BYTES)
        if len(line) == _MAX_ITEM_BYTES:
            raise ValueError("too large an item")
        return line


def pickled(source: Source) -> Iterator[Batch | Unread]:
    """The texts and numbers of a pickle or of a joblib file."""
    file = source.buffered()
    found = Found()
    try:
        while file.peek(1):
            for _ in _Walk(_Bounded(file), found).steps():
                if found.is_full:
                    yield found.batch()
        yield found.batch()
    except (ValueError, OverflowError, IndexError, EOFError, RecursionError, MemoryError) as error:
        yield found.batch()
        yield Unread(f"a pickle that cannot be taken apart ({type(error).__name__})")


class Found:
    """What a model holds, until there is enough of it for a batch."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._numbers: list[np.ndarray[Any, Any]] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether a batch should be made."""
        return len(self._texts) >= _BATCH_ITEMS or self._bytes >= _BATCH_BYTES

    def text(self, text: str) -> None:
        """Add a text."""
        if text:
            self._texts.append(text.encode(errors="replace").decode())
            self._bytes += len(text)

    def data(self, data: bytes, kind: str) -> None:
        """Add an array's bytes of a type as numpy names it; of bytes of no known type the runs of text in them."""
        self._bytes += len(data)
        known = _TYPE.fullmatch(kind)
        letter, width = (known[1], int(known[2])) if known else ("", 0)
        size = width * (4 if letter == "U" else 1)
        if letter in ("f", "i", "u") and size in (1, 2, 4, 8) and (letter, size) != ("f", 1) and len(data) % size == 0:
            values = np.frombuffer(data, f"{'>' if kind.startswith('>') else '<'}{letter}{size}")
            self._numbers.append(values.astype(np.float64 if letter == "f" else values.dtype.newbyteorder("=")))
        elif letter in ("U", "S") and size and len(data) % size == 0:
            order = ">" if kind.startswith(">") else "<"
            for value in np.frombuffer(data, f"{order}U{width}" if letter == "U" else f"S{width}").tolist():
                self.text(value if isinstance(value, str) else value.decode(errors="replace"))
        else:
            try:
                self.text(data.decode())
            except UnicodeDecodeError:
                for run in _RUNS.findall(data):
                    self.text(run.decode())

    def batch(self) -> Batch:
        """What there is, as a batch; then there is nothing."""
        leaves: list[Leaf] = []
        if self._texts:
            leaves.append(Leaf(TEXTS, pl.Series(TEXTS, self._texts, dtype=pl.String)))
        whole = [each.astype(np.int64) for each in self._numbers if each.dtype.kind == "i"]
        whole += [each.astype(np.uint64) for each in self._numbers if each.dtype.kind == "u"]
        broken = [each for each in self._numbers if each.dtype.kind == "f"]
        leaves += [Leaf(NUMBERS, pl.Series(NUMBERS, each)) for each in (*whole, *broken)]
        rows = max((len(leaf) for leaf in leaves), default=0)
        self._texts, self._numbers, self._bytes = [], [], 0
        return Batch(rows, 0, tuple(leaves))


class _Walk:
    """One pass over the instructions of a pickle."""

    def __init__(self, file: _Bounded, found: Found) -> None:
        self._file, self._found = file, found
        self._memo: dict[int, tuple[str, str]] = {}
        self._last = self._kind = self._key = ""
        self._types: list[str] = []
        self._shape: list[int] = []
        self._alignment: int | None = None

    def steps(self) -> Iterator[None]:
        """Take the pickle apart, one instruction a step. Raises ValueError for bytes that are none."""
        step: Any
        argument: Any
        for step, argument, _ in pickletools.genops(cast("Any", self._file)):
            name = step.name
            if isinstance(argument, str) and name not in ("GLOBAL", "INST", "PERSID"):
                self._text(argument)
            elif isinstance(argument, (bytes, bytearray)):
                self._found.data(bytes(argument), self._kind)
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                self._last, kind = self._memo.get(int(argument), ("", self._kind))
                self._kind = self._kind if self._last else kind
                self._note(self._last)
            elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
                at = len(self._memo) if name == "MEMOIZE" else int(argument)
                self._memo[at] = (self._last, self._kind)
            elif isinstance(argument, int) and not isinstance(argument, bool):
                self._number(argument)
            elif name == "BUILD" and self._alignment is not None:
                yield from self._array(self._alignment)
                self._alignment = None
            elif name == "BUILD" and self._types:
                self._kind = self._types.pop()  # The type of a record is finished after those of its fields.
            if name not in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "FRAME") and not isinstance(argument, str):
                self._last = "" if name not in ("BINGET", "LONG_BINGET", "GET") else self._last
            yield

    def _text(self, text: str) -> None:
        self._last = text
        if _TYPE.fullmatch(text):
            self._kind = text
            self._types.append(text)
        else:
            self._found.text(text)
        if self._types and text == ">":
            self._types[-1] = text + self._types[-1]
        self._note(text)

    def _note(self, text: str) -> None:
        """Remember which part of an array's description comes next."""
        if text == "shape":
            self._shape = []
        if text in ("shape", "order", _BUILT_WITH):
            self._key = text

    def _number(self, number: int) -> None:
        if self._key == "shape":
            self._shape.append(number)
        elif self._key == _BUILT_WITH:
            self._alignment, self._key = number, ""
        elif abs(number) >= 1e8:
            self._found.text(str(number))

    def _array(self, alignment: int) -> Iterator[None]:
        """The elements that lie behind an array's description in a joblib file."""
        known = _TYPE.fullmatch(self._kind)
        if known is None:
            raise ValueError("an array of unknown type")
        if known[1] == "O":
            yield from _Walk(self._file, self._found).steps()
            return
        if alignment:
            self._file.read(self._file.read(1)[0])
        size = int(known[2]) * (4 if known[1] == "U" else 1)
        left = math.prod(self._shape) * size
        step = max(size, _BATCH_BYTES // max(size, 1) * size)
        while left > 0:
            data = self._file.read(min(left, step))
            if not data:
                raise EOFError
            self._found.data(data, self._kind)
            left -= len(data)
            yield
