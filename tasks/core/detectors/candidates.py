"""Candidates of a column, and what their bytes say: counted in numpy over the Arrow buffer, never one by one."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.core.arrow import pa
from tasks.core.detectors import patterns

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]

DIGIT, LETTER, SPACE, DASH, DOT, PAREN, COLON = range(1, 8)
_CLASSES = np.zeros(256, np.uint8)
for _bytes, _class in (
    (b"0123456789", DIGIT),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", LETTER),
    (b" \t", SPACE),
    (b"-", DASH),
    (b".", DOT),
    (b"()", PAREN),
    (b":", COLON),
):
    _CLASSES[np.frombuffer(_bytes, np.uint8)] = _class

# How many letters and digits each kind of code has.
CODE_COUNTS: dict[str, tuple[tuple[int, int], ...]] = {
    "SG_NRIC_FIN": ((2, 7),),
    "IN_PAN": ((6, 4),),
    "UK_NINO": ((3, 6),),
    "IT_FISCAL_CODE": ((9, 7),),
    "ES_NIF": ((1, 8), (2, 7), (1, 7)),
    "FI_HETU": ((1, 9), (2, 9), (1, 10)),
    "IE_PPSN": ((1, 7), (2, 7)),
    "FR_NIR": ((1, 14),),
    "DRIVER_LICENSE": ((9, 7), (8, 8), (7, 9), (6, 10), (5, 11), (4, 12)),
}
LEAST_IBAN = 15
"""How many letters and digits an IBAN has at least."""

IBAN_DIGITS = 8
"""How many of them are digits at least, where the grouping does not speak for it."""


def buffers(text: pl.Series) -> tuple[Ints, Bytes]:
    """Offsets (one more than there are strings) and bytes of a string series without nulls."""
    array = cast("Any", text).to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    first = array.offset
    starts = np.frombuffer(offsets, np.int64)[first : first + len(array) + 1]
    return starts, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_POWER = 0xFF51AFD7ED558CCD


_MANY = 512
"""From how many strings on numpy takes a word of each at a time."""


def hashed(offsets: Ints, data: Bytes) -> Hashes:
    """A hash of each string, the same on every machine: it draws samples, and need not resist anybody.

    Its words of eight bytes are each multiplied by a power of an odd number and added up, and the sum and the length
    are finished as MurmurHash3 finishes, so that numpy can work on a word of all strings at once. Where few strings
    are so long, it works on all that is left of them.

    Args:
        offsets, data: As `buffers` answers them.
    """
    sizes = np.diff(offsets)
    padded = np.concatenate([data[offsets[0] : offsets[-1]], np.zeros(8, np.uint8)])
    words = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    result = sizes.astype(np.uint64)
    left: Ints | slice = np.flatnonzero(sizes) if len(sizes) and sizes.min() == 0 else slice(None)
    places, rest = (offsets[:-1] - offsets[0])[left], sizes[left]
    power = _POWER
    while len(rest) >= _MANY:
        result[left] += _mixed(words[places] & _FIRST_BYTES[np.minimum(rest, 8)], np.uint64(power))
        power = power * _POWER & (1 << 64) - 1
        if rest.min() > 8:
            places, rest = places + 8, rest - 8
            continue
        more = np.flatnonzero(rest > 8)
        left = more if isinstance(left, slice) else left[more]
        places, rest = places[more] + 8, rest[more] - 8
    if len(rest):
        counts = (rest + 7) // 8
        firsts = np.cumsum(counts) - counts
        at = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
        parts = words[np.repeat(places, counts) + 8 * at]
        parts &= _FIRST_BYTES[np.minimum(np.repeat(rest, counts) - 8 * at, 8)]
        powers = np.multiply.accumulate(np.array([power, *[_POWER] * (int(counts.max()) - 1)], np.uint64))
        result[left] += np.add.reduceat(_mixed(parts, powers[at]), firsts)
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        result = (result ^ result >> np.uint64(shift)) * np.uint64(factor)
    return result ^ result >> np.uint64(33)


def _mixed(words: Hashes, powers: Hashes | np.uint64) -> Hashes:
    return (words ^ words >> np.uint64(29)) * powers


def strings(ends: Ints, data: Bytes) -> pl.Series:
    """The inverse of `buffers`: a string series by where each string ends in their joined bytes."""
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    array = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    return pl.Series("", array)


def within(starts: Ints, ends: Ints) -> Ints:
    """The numbers from each start to before its end."""
    sizes = ends - starts
    behind = np.cumsum(sizes)
    return np.arange(int(behind[-1]) if len(behind) else 0) + np.repeat(starts - behind + sizes, sizes)


def cut(texts: pl.Series, starts: Ints, sizes: Ints) -> pl.Series:
    """A piece of each text, by where it starts and how many bytes it has."""
    if (texts.str.len_bytes().to_numpy() == sizes).all():
        return texts
    placed = pl.DataFrame({"text": texts.cast(pl.Binary), "start": starts, "size": sizes})
    return placed.select(pl.col("text").bin.slice("start", "size").cast(pl.String)).to_series()


@dataclass(frozen=True)
class Alike:
    """What candidates are but for their digits.

    Args:
        which: For each candidate the number of its form.
        forms: The forms, with zeros for digits.
    """

    which: Ints
    forms: Candidates


@dataclass(frozen=True)
class Candidates:
    """Pieces of a column's cells that may be something.

    Args:
        rows: For each candidate the index of its cell.
        text: The candidates.
        alike: Their forms, where these are few: what digits do not decide is worked out once a form.
    """

    rows: Ints
    text: pl.Series
    alike: Alike | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def found(cls, cells: pl.Series, pattern: str) -> Candidates:
        """All matches of an alternation in the cells."""
        hit = cells.str.contains(pattern).fill_null(False).arg_true()
        if not len(hit):
            return cls(np.zeros(0, np.int64), pl.Series([], dtype=pl.String))
        matches = pl.DataFrame({"row": hit.cast(pl.Int64), "text": cells.gather(hit).str.extract_all(pattern)})
        flat = matches.explode("text")
        return cls(flat["row"].to_numpy(), flat["text"])

    def where(self, mask: Mask) -> Candidates:
        """Those that the mask selects."""
        if mask.all():
            return self
        alike = self.alike and Alike(self.alike.which[mask], self.alike.forms)
        return Candidates(self.rows[mask], self.text.filter(pl.Series(mask)), alike)

    def in_cells(self, cells: Ints) -> Candidates:
        """The same with the rows counted in other cells: row n is there `cells[n]`."""
        return Candidates(cells[self.rows], self.text, self.alike)

    @cached_property
    def _buffers(self) -> tuple[Ints, Bytes]:
        return buffers(self.text)

    def contains(self, pattern: str) -> Mask:
        """Which of them a regular expression matches."""
        if self.alike and pattern in patterns.WHATEVER_DIGITS:
            return self.alike.forms.contains(pattern)[self.alike.which]
        return self.text.str.contains(pattern).to_numpy()

    def contains_where(self, mask: Mask, pattern: str) -> Mask:
        """Which of the candidates of a mask a regular expression matches; the others are not looked at."""
        if self.alike and pattern in patterns.WHATEVER_DIGITS:
            return mask & self.contains(pattern) if mask.any() else mask
        which = np.flatnonzero(mask)
        result = np.zeros(len(self), bool)
        if len(which):
            result[which] = self.text.gather(which).str.contains(pattern).to_numpy()
        return result

    @cached_property
    def hashes(self) -> Hashes:
        """A hash of each, equal for equal ones."""
        return hashed(*self._buffers)

    @cached_property
    def _prefixes(self) -> tuple[list[str], Ints]:
        """The different letters that candidates begin with, in lower case, and which of them each begins with."""
        if self.alike:
            different, codes = self.alike.forms._prefixes
            return different, codes[self.alike.which]
        prefixes: Any = self.text.str.extract("^([A-Za-z]*)", 1).str.to_lowercase()
        encoded = prefixes.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)

    def begin_with(self, which: Ints, words: tuple[str, ...]) -> Mask:
        """Which of the candidates numbered in `which` have one of the words as the letters that they begin with."""
        different, codes = self._prefixes
        wanted = np.array([prefix in words for prefix in different], bool)
        return wanted[codes[which]]

    @cached_property
    def lengths(self) -> Ints:
        """Length of each in bytes."""
        return np.diff(self._buffers[0])

    @cached_property
    def _classes(self) -> Bytes:
        offsets, data = self._buffers
        return _CLASSES[data[offsets[0] : offsets[-1]]]

    @cached_property
    def _counts(self) -> dict[int, Ints]:
        return {}

    def count(self, byte_class: int) -> Ints:
        """How many bytes of a class (`DIGIT`, `LETTER` ...) each has."""
        if byte_class not in self._counts:
            self._counts[byte_class] = self._counted(byte_class)
        return self._counts[byte_class]

    def _counted(self, byte_class: int) -> Ints:
        if self.alike:
            return self.alike.forms.count(byte_class)[self.alike.which]
        if not len(self):
            return np.zeros(0, np.int64)
        offsets, _ = self._buffers
        of_class = (self._classes == byte_class).view(np.uint8)
        return np.add.reduceat(of_class, offsets[:-1] - offsets[0], dtype=np.int64)  # No match is empty.

    @cached_property
    def first_byte(self) -> Bytes:
        """The first byte of each; matches are never empty."""
        offsets, data = self._buffers
        return data[offsets[:-1]]

    @cached_property
    def _digit_places(self) -> Ints:
        """For each candidate, one a line, where in it its digits are, and zeros behind."""
        counts = self.count(DIGIT)
        places = np.zeros((len(self), int(counts.max(initial=0))), np.int64)
        offsets, _ = self._buffers
        within = np.flatnonzero(self._classes == DIGIT) - np.repeat(offsets[:-1] - offsets[0], counts)
        places[np.arange(places.shape[1]) < counts[:, None]] = within
        return places

    @cached_property
    def _digits(self) -> tuple[Ints, Bytes]:
        offsets, data = self._buffers
        used = data[offsets[0] : offsets[-1]]
        starts = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.count(DIGIT), out=starts[1:])
        return starts, used[self._classes == DIGIT] - np.uint8(48)

    def digits(self, which: Ints, width: int) -> Bytes:
        """The digits of the candidates numbered in `which`, each of which has exactly `width`: one a line.

        A column of them lies together in memory, for checks go from digit to digit.
        """
        result = np.empty((width, len(which)), np.uint8)
        if self.alike:
            offsets, data = self._buffers
            starts, form = offsets[which], self.alike.which[which]
            for at, places in enumerate(self.alike.forms._digit_places.T[:width]):
                result[at] = data[starts + places[form]]
            result -= np.uint8(48)
        else:
            begins, flat = self._digits
            starts = begins[which]
            for at in range(width):
                result[at] = flat[starts + at]
        return result.T

    def has_bytes_at(self, which: Ints, places: tuple[int, ...], allowed: bytes) -> Mask:
        """Whether candidates, each long enough, have one of the allowed bytes, which no digit is, at the places."""
        if self.alike:
            forms = self.alike.forms
            have = np.zeros(len(forms), bool)
            long = np.flatnonzero(forms.lengths > max(places))
            have[long] = forms.has_bytes_at(long, places, allowed)
            return have[self.alike.which[which]]
        offsets, data = self._buffers
        at = data[offsets[which][:, None] + np.array(places, np.int64)]
        return cast("Mask", np.isin(at, np.frombuffer(allowed, np.uint8)).all(axis=1))


def different(numbers: Ints) -> list[int]:
    """The different ones of some numbers, none of them negative and most of them small, in order."""
    if numbers.max(initial=0) > 4096:
        return np.unique(numbers).tolist()
    return np.flatnonzero(np.bincount(numbers)).tolist()


class Evidence(enum.StrEnum):
    """What speaks for a candidate besides its check digits."""

    SHAPED = "its written form"
    CONTEXT = "words beside it"
    BARE = "its digits alone"
    CODED = "digits behind a prefix"
    NAMED = "a language model that knows names"


@dataclass(frozen=True)
class Hits:
    """Candidates of one entity and one kind of evidence, and which of them pass the entity's checks.

    Args:
        entity: The entity.
        evidence: What speaks for them.
        found: The candidates they are among.
        which: The numbers of those that have the entity's shape.
        valid: Which of these pass its checks.
    """

    entity: str
    evidence: Evidence
    found: Candidates
    which: Ints
    valid: Mask


def all_valid(entity: str, found: Candidates, mask: Mask, evidence: Evidence = Evidence.SHAPED) -> Iterator[Hits]:
    """Hits of candidates whose shape leaves nothing to check; none when the mask selects none."""
    which = np.flatnonzero(mask)
    if len(which):
        yield Hits(entity, evidence, found, which, np.ones(len(which), bool))
