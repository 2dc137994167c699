"""Texts of a Parquet column chunk, changed where they lie: each entry of a dictionary once, references as they were.

A page is whether values are there, in runs, and then the values: texts one after the other, each behind its length in
four bytes, or references into the dictionary, in runs
(https://github.com/apache/parquet-format/blob/master/Encodings.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.core import thrift
from tasks.core.arrow import pa
from tasks.core.detectors import native
from tasks.core.detectors.candidates import Bytes, Ints
from tasks.core.detectors.pages import PLAIN, PLAIN_DICTIONARY, Page
from tasks.core.thrift import I32, STRUCT

Texts = tuple[Ints, Bytes]
"""Where texts begin in their bytes, one more than there are, and the bytes."""

Change = Callable[[Sequence[Texts]], Sequence[Texts]]
"""Changes texts in several parts, each text by itself."""

RLE, RLE_DICTIONARY = 3, 8
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_LENGTH_BYTES = 4
_MOST_BITS, _LONGEST_HEAD = 32, 28
_MOST_SPELT = 2
_NOTHING: Bytes = np.zeros(0, np.uint8)
_WORTH_A_DICTIONARY = 0.9
"""From this share of different values on they are written one by one."""


class OddPage(Exception):
    """A page is not written as nearly all are, or not as it says."""


@dataclass(frozen=True)
class Body:
    """A page to be written: its content before compression, how many values it has, and how they are written."""

    content: Bytes
    values: int
    encoding: int
    is_dictionary: bool = False

    def header(self, stored_bytes: int) -> bytes:
        """What stands before the content, which takes so many bytes as it is stored; nothing about values is in it."""
        about: thrift.Struct = {1: (I32, self.values), 2: (I32, self.encoding)}
        kind, place = (_DICTIONARY_PAGE, 7) if self.is_dictionary else (_DATA_PAGE, 5)
        if not self.is_dictionary:
            about |= {3: (I32, RLE), 4: (I32, RLE)}
        return thrift.written(
            {1: (I32, kind), 2: (I32, len(self.content)), 3: (I32, stored_bytes), place: (STRUCT, about)}
        )


@dataclass(frozen=True)
class _DataPage:
    """A data page: how many values it has, which are there, as runs, and these as texts and as they are written."""

    values: int
    levels: Bytes
    texts: Texts | None
    written: Bytes

    def there(self) -> int:
        """How many of its values are there."""
        return int(runs(self.levels[_LENGTH_BYTES:], 1, self.values).sum()) if len(self.levels) else self.values

    def indices(self, entries: int) -> Ints:
        """The entries, of so many, that it refers to."""
        there = self.there()
        if there and not len(self.written):
            raise OddPage
        found = runs(self.written[1:], int(self.written[0]), there) if there else np.zeros(0, np.int64)
        if there and int(found.max()) >= entries:
            raise OddPage
        return found


@dataclass(frozen=True)
class TextChunk:
    """The texts of a column chunk as its pages hold them."""

    dictionary: Texts | None
    pages: tuple[_DataPage, ...]

    @classmethod
    def read(
        cls, pages: Sequence[Page], content: Callable[[Page], Bytes | None], rows: int, *, optional: bool
    ) -> TextChunk:
        """The chunk with these pages.

        Args:
            pages: In order.
            content: Gives a page's bytes, decompressed; None when it cannot.
            rows: How many values there must be.
            optional: Whether values may be missing.

        Raises:
            OddPage: Arrow must read it.
        """
        dictionary: Texts | None = None
        found: list[_DataPage] = []
        for page in pages:
            data = content(page)
            if data is None:
                raise OddPage
            if page.is_dictionary:
                if page is not pages[0] or page.encoding not in (PLAIN, PLAIN_DICTIONARY):
                    raise OddPage
                dictionary = _texts(data, page.values)
                continue
            if not page.first_version or (page.encoding != PLAIN and (not page.refers or dictionary is None)):
                raise OddPage
            end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES].tobytes(), "little") if optional else 0
            if end > len(data):
                raise OddPage
            held = _DataPage(page.values, data[:end], None, data[end:])
            found.append(held if page.refers else replace(held, texts=_texts(data[end:], held.there())))
        if sum(page.values for page in found) != rows:
            raise OddPage
        return cls(dictionary, tuple(found))

    def changed(self, change: Change) -> list[Body]:
        """Its pages with every text changed; those of a dictionary in which hardly one comes again are spelt out."""
        own = [page.texts for page in self.pages if page.texts is not None]
        made = iter(change(own if self.dictionary is None else [self.dictionary, *own]))
        dictionary = None if self.dictionary is None else next(made)
        spelt = dictionary and self._spelt(dictionary)
        bodies: list[Body] = []
        if dictionary and spelt is None:
            bodies.append(Body(plain(*dictionary), len(dictionary[0]) - 1, PLAIN, is_dictionary=True))
        for page in self.pages:
            if page.texts is not None:
                bodies.append(Body(plain(*next(made), before=page.levels), page.values, PLAIN))
            elif dictionary and spelt is not None:
                bodies.append(Body(plain(*dictionary, spelt.pop(0), page.levels), page.values, PLAIN))
            else:
                bodies.append(Body(np.concatenate([page.levels, page.written]), page.values, RLE_DICTIONARY))
        return bodies

    def _spelt(self, dictionary: Texts) -> list[Ints] | None:
        """Of each page of references the entries, where nearly every one is another; None where they come again."""
        pages = [page for page in self.pages if page.texts is None]
        offsets, _ = dictionary
        entries = len(offsets) - 1
        if entries <= _WORTH_A_DICTIONARY * sum(page.values for page in pages):
            return None
        which = [page.indices(entries) for page in pages]
        sizes = np.diff(offsets)
        spelt_bytes = sum(int(sizes[each].sum()) for each in which)
        # Otherwise a few long entries could stand for more than fits into memory.
        return which if spelt_bytes <= _MOST_SPELT * int(sizes.sum()) else None

    def all_as(self, text: bytes) -> list[Body]:
        """Its pages with the same text wherever there is one."""
        entry = np.frombuffer(text, np.uint8)
        bodies = [Body(plain(np.array([0, len(entry)]), entry), 1, PLAIN, is_dictionary=True)]
        for page in self.pages:
            there = page.there()
            references = b"\x01" + (thrift.varint(there << 1) + b"\0" if there else b"")
            content = np.concatenate([page.levels, np.frombuffer(references, np.uint8)])
            bodies.append(Body(content, page.values, RLE_DICTIONARY))
        return bodies


def _texts(content: Bytes, count: int) -> Texts:
    """So many texts one after the other, which fill the content. Raises `OddPage`."""
    offsets, data = _cut(content, count)
    try:
        pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid as error:
        raise OddPage from error
    return offsets, data


def _cut(content: Bytes, count: int) -> Texts:
    kernel = native.kernel()
    if kernel is not None:
        laid = kernel.texts(content, count, optional=False)
        if laid is None or len(laid[0]) != count + 1:
            raise OddPage
        return laid
    data = content.tobytes()
    ends, pieces, at = [0], list[bytes](), 0
    for _ in range(count):
        length = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        pieces.append(data[at : at + length])
        ends.append(ends[-1] + length)
        at += length
        if at > len(data):
            raise OddPage
    if at != len(data):
        raise OddPage
    return np.array(ends, np.int64), np.frombuffer(b"".join(pieces), np.uint8)


def plain(offsets: Ints, data: Bytes, which: Ints | None = None, before: Bytes = _NOTHING) -> Bytes:
    r"""Texts one after the other, each behind its length.

    Args:
        offsets, data: The texts.
        which: The numbers of those that are wanted, in order; None for all.
        before: What stands before them.

    >>> plain(np.array([0, 2, 3]), np.frombuffer(b"abc", np.uint8)).tobytes()
    b'\x02\x00\x00\x00ab\x01\x00\x00\x00c'
    """
    kernel = native.kernel()
    if kernel is not None:
        return kernel.laid(offsets, data, which, before)
    text = data.tobytes()
    ends: list[int] = offsets.tolist()
    numbers: Iterable[int] = range(len(ends) - 1) if which is None else which.tolist()
    texts = (text[ends[at] : ends[at + 1]] for at in numbers)
    laid = b"".join(len(each).to_bytes(_LENGTH_BYTES, "little") + each for each in texts)
    return np.concatenate([before, np.frombuffer(laid, np.uint8)])


def runs(content: Bytes, width: int, count: int) -> Ints:
    r"""So many numbers of `width` bits, written in runs of equal ones and of packed bits. Raises `OddPage`.

    >>> runs(np.frombuffer(b"\x08\x01\x03\x05", np.uint8), 1, 6).tolist()
    [1, 1, 1, 1, 1, 0]
    """
    if width > _MOST_BITS:
        raise OddPage
    kernel = native.kernel()
    if kernel is not None:
        found = kernel.numbers(content, width, count)
        if found is None:
            raise OddPage
        return found
    numbers = np.empty(count, np.int64)
    at = done = 0
    size = -(-width // 8)
    while done < count:
        head = shift = 0
        while True:
            if at >= len(content) or shift > _LONGEST_HEAD:
                raise OddPage
            byte = int(content[at])
            at += 1
            head |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        some = min(count - done, (head >> 1) * (8 if head & 1 else 1))
        length = (head >> 1) * width if head & 1 else size
        if not some or at + length > len(content):
            raise OddPage
        if head & 1 and width:
            numbers[done : done + some] = _packed(content[at : at + length], width)[:some]
        else:
            numbers[done : done + some] = int.from_bytes(content[at : at + size].tobytes(), "little")
        at += length
        done += some
    return numbers


def _packed(content: Bytes, width: int) -> Ints:
    bits = np.unpackbits(content, bitorder="little").reshape(-1, width)
    return bits @ (1 << np.arange(width, dtype=np.int64))
