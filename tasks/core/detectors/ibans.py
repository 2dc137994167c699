"""IBANs as people write them: in groups of any size, with blanks, dots or dashes between them.

A country's IBANs have one length, so that where one ends is known where it begins. Right ones are taken out of a cell
before anything else is looked for in it: neither a word behind one nor the digits in it are taken for something else.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tasks.core.detectors import codes, patterns
from tasks.core.detectors.candidates import IBAN_DIGITS, Bytes, Candidates, Evidence, Hits, Ints, Mask, buffers, strings

ENTITY = "IBAN_CODE"

_WIDTHS = np.zeros(1 << 16, np.int64)
for _country, _width in codes.IBAN_WIDTHS.items():
    _WIDTHS[ord(_country[0]) << 8 | ord(_country[1])] = _width
_WIDEST = max(codes.IBAN_WIDTHS.values())


def _flags(bytes_of: bytes) -> Mask:
    flags = np.zeros(256, bool)
    flags[np.frombuffer(bytes_of, np.uint8)] = True
    return flags


_DIGIT = _flags(b"0123456789")
_UPPER = _flags(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LETTER = _UPPER | _flags(b"abcdefghijklmnopqrstuvwxyz")
_WORD = _LETTER | _DIGIT | _flags(b"_")
_SEPARATOR = _flags(b" .-")


def written(cells: pl.Series) -> tuple[Hits | None, Candidates]:
    """The IBANs in cells, and what is left of the cells without the right ones.

    Wrong ones are told of when they are digits behind the country's code, as order numbers may be: how many of a
    column's are wrong tells the one from the other. They stay in their cells.

    Args:
        cells: The cells, none of which is null.
    """
    rows = cells.str.contains(patterns.PERHAPS_IBAN).arg_true().cast(pl.Int64).to_numpy()
    whole = Candidates(np.arange(len(cells)), cells)
    if not len(rows):
        return None, whole
    offsets, data = buffers(cells.gather(rows))
    starts, ends, valid = _parsed(offsets, data)
    free = np.maximum.accumulate(np.append(0, np.where(valid, ends, 0)))[:-1] <= starts
    starts, ends, valid = starts[free], ends[free], valid[free]  # None begins inside a right one.
    if not len(starts):
        return None, whole
    of = np.searchsorted(offsets, starts, side="right") - 1
    sizes = ends - starts
    ends_joined = np.cumsum(sizes)
    places = np.arange(int(ends_joined[-1])) + np.repeat(starts - ends_joined + sizes, sizes)
    found = Candidates(rows[of], strings(ends_joined, data[places]))
    hits = Hits(ENTITY, Evidence.SHAPED, found, np.arange(len(starts)), valid)
    begins = offsets[of]
    return hits, _without(whole, rows[of[valid]], (starts - begins)[valid], sizes[valid])


def _without(cells: Candidates, rows: Ints, starts: Ints, sizes: Ints) -> Candidates:
    """The cells without pieces of them, in order; a line end stands for each, which nothing reaches across."""
    keep = np.ones(len(cells), bool)
    keep[rows] = False
    others = cells.where(keep)
    more = sizes < cells.lengths[rows]
    rest: dict[int, list[bytes]] = {}
    for row, start, size in zip(rows[more].tolist(), starts[more].tolist(), sizes[more].tolist(), strict=True):
        parts = rest.setdefault(row, [cells.text[row].encode()])
        done = cells.lengths[row] - len(parts[-1])
        parts[-1:] = [parts[-1][: start - done], parts[-1][start + size - done :]]
    if not rest:
        return others
    joined = np.concatenate([others.rows, np.array(list(rest), np.int64)])
    order = np.argsort(joined, kind="stable")
    left = [b"\n".join(parts).decode() for parts in rest.values()]
    return Candidates(joined[order], pl.concat([others.text, pl.Series(others.text.name, left)]).gather(order))


def _parsed(offsets: Ints, data: Bytes) -> tuple[Ints, Ints, Mask]:
    """Where in the bytes of cells IBANs begin and end, right ones and those of digits alone, and which are right."""
    data = np.concatenate([data[: offsets[-1]], np.zeros(_WIDEST, np.uint8)])
    word, letter, digit = _WORD[data], _LETTER[data], _DIGIT[data]
    first = np.flatnonzero(letter[:-1] & letter[1:])
    cell = np.searchsorted(offsets, first, side="right") - 1
    edge = (first == offsets[cell]) | ~word[first - 1]
    code = (data[first].astype(np.int64) & 0xDF) << 8 | data[first + 1] & 0xDF
    blank = (data[first + 2] == ord(" ")) & _UPPER[data[first]] & _UPPER[data[first + 1]]
    behind = first + 2 + blank
    begin = np.flatnonzero(edge & (_WIDTHS[code] > 0) & digit[behind] & digit[behind + 1])
    first, blank, last, widths = first[begin], blank[begin], offsets[cell[begin] + 1], _WIDTHS[code[begin]]
    place = np.append(np.flatnonzero(letter | digit), np.full(_WIDEST, len(data) - 2))
    number = np.searchsorted(place, first)
    ends, valid, told = first.copy(), np.zeros(len(first), bool), np.zeros(len(first), bool)
    for width in np.unique(widths):
        which = np.flatnonzero(widths == width)
        at = place[number[which][:, None] + np.arange(width)]
        gaps = np.diff(at)
        near = (gaps == 1) | ((gaps == 2) & _SEPARATOR[data[at[:, 1:] - 1]])
        near[:, :3] = gaps[:, :3] == 1
        near[:, 1] = gaps[:, 1] == 1 + blank[which]
        end = at[:, -1] + 1
        digits = digit[at].sum(axis=1)
        fits = near.all(axis=1) & (end <= last[which]) & ((end == last[which]) | ~word[end]) & (digits >= IBAN_DIGITS)
        ends[which] = end
        which, at, digits = which[fits], at[fits], digits[fits]
        byte = data[at]
        valid[which] = codes.iban(np.where(byte >= ord("a"), byte - 32, byte))
        told[which] = valid[which] | (digits == width - 2)
    return first[told], ends[told], valid[told]
