"""IBANs as people write them: in groups of any size, with blanks, dots or dashes between them.

A country's IBANs have one length, so that where one ends is known where it begins. Right ones are taken out of a cell
before anything else is looked for in it: neither a word behind one nor the digits in it are taken for something else.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tasks.core.detectors import codes, patterns
from tasks.core.detectors.candidates import (
    IBAN_DIGITS,
    Bytes,
    Candidates,
    Evidence,
    Hits,
    Ints,
    Mask,
    buffers,
    cut,
    different,
    strings,
    within,
)

ENTITY = "IBAN_CODE"

_WIDTHS = np.zeros(1 << 16, np.int64)
for _country, _width in codes.IBAN_WIDTHS.items():
    _WIDTHS[ord(_country[0]) << 8 | ord(_country[1])] = _width
_WIDEST = max(codes.IBAN_WIDTHS.values())


_DIGIT, _UPPER, _LETTER, _WORD, _SEPARATOR = (1 << at for at in range(5))
_ALPHANUMERIC = _DIGIT | _LETTER


def _kind(byte: int) -> int:
    text = chr(byte) if byte < 128 else ""
    kind = _DIGIT * text.isdigit() | _UPPER * text.isupper() | _LETTER * text.isalpha()
    return kind | _WORD * (text.isalnum() or text == "_") | _SEPARATOR * (text in tuple(" .-"))


_KINDS = bytes(map(_kind, range(256)))
"""What each byte may be in an IBAN or beside it, as bits."""


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
    found = Candidates(rows[of], cut(cells.gather(rows[of]), starts - offsets[of], ends - starts))
    hits = Hits(ENTITY, Evidence.SHAPED, found, np.arange(len(starts)), valid)
    return hits, _without(whole, found.rows[valid], (starts - offsets[of])[valid], (ends - starts)[valid])


def _without(cells: Candidates, rows: Ints, starts: Ints, sizes: Ints) -> Candidates:
    """The cells without pieces of them, in order; a line end stands for each, which nothing reaches across."""
    taken = np.bincount(rows, sizes, len(cells)).astype(np.int64)
    others, partly = taken == 0, (taken > 0) & (taken < cells.lengths)
    if not partly.any():
        return cells.where(others)
    number = np.cumsum(partly) - 1
    offsets, data = buffers(cells.text.filter(pl.Series(partly)))
    of_partly = partly[rows]
    begins = offsets[number[rows[of_partly]]] + starts[of_partly]
    kept = np.ones(len(data), bool)
    kept[within(begins + 1, begins + sizes[of_partly])] = False
    data = data.copy()
    data[begins] = ord("\n")
    left = strings((np.append(0, np.cumsum(kept))[offsets])[1:], data[kept])
    joined = np.concatenate([np.flatnonzero(others), np.flatnonzero(partly)])
    text = pl.concat([cells.text.filter(pl.Series(others)), left.alias(cells.text.name)])
    order = np.argsort(joined, kind="stable")
    return Candidates(joined[order], text.gather(order))


def _parsed(offsets: Ints, data: Bytes) -> tuple[Ints, Ints, Mask]:
    """Where in the bytes of cells IBANs begin and end, right ones and those of digits alone, and which are right."""
    data = np.concatenate([data[: offsets[-1]], np.zeros(2 * _WIDEST + 2, np.uint8)])
    kinds = np.frombuffer(data.tobytes().translate(_KINDS), np.uint8)
    letter = kinds & _LETTER > 0
    first = np.flatnonzero(letter[:-1] & letter[1:])
    code = (data[first].astype(np.int64) & 0xDF) << 8 | data[first + 1] & 0xDF
    blank = (data[first + 2] == ord(" ")) & (kinds[first] & kinds[first + 1] & _UPPER > 0)
    behind = first + 2 + blank
    begin = np.flatnonzero((_WIDTHS[code] > 0) & (kinds[behind] & kinds[behind + 1] & _DIGIT > 0))
    first, blank, widths = first[begin], blank[begin], _WIDTHS[code[begin]]
    cell = np.searchsorted(offsets, first, side="right") - 1
    edge = (first == offsets[cell]) | (kinds[first - 1] & _WORD == 0)
    first, blank, widths, last = first[edge], blank[edge], widths[edge], offsets[cell[edge] + 1]
    ends, valid, told = first.copy(), np.zeros(len(first), bool), np.zeros(len(first), bool)
    for width in different(widths):
        which = np.flatnonzero(widths == width)
        at = np.empty((width, len(which)), np.int64)
        at[0], at[1] = first[which], first[which] + 1
        at[2] = at[1] + 1 + blank[which]
        at[3] = at[2] + 1
        for place in range(4, width):
            behind = at[place - 1] + 1
            at[place] = behind + (kinds[behind] & _SEPARATOR > 0)
        end = at[-1] + 1
        kind = kinds[at]
        digits = (kind & _DIGIT).sum(axis=0)
        fits = (kind & _ALPHANUMERIC > 0).all(axis=0) & (end <= last[which]) & (digits >= IBAN_DIGITS)
        fits &= (end == last[which]) | (kinds[end] & _WORD == 0)
        ends[which] = end
        if not fits.all():
            which, digits, at = which[fits], digits[fits], at[:, fits]
        byte = data[at]
        valid[which] = codes.iban(np.where(byte >= ord("a"), byte - 32, byte).T)
        told[which] = valid[which] | (digits == width - 2)
    return first[told], ends[told], valid[told]
