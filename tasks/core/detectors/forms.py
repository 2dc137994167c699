"""Where the candidates of a column's cells are, found out once for all cells that differ in their digits alone.

A cell's form is itself with zeros for its digits. Columns of numbers and codes have few forms, and but for some
alternatives (`patterns.DECIDED_BY_DIGITS`) digits do not decide where a candidate begins and ends. Cells of many forms
are often one address each; whether they are is asked of the whole cell, which takes a tenth of looking for its parts.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tasks.core.arrow import pa
from tasks.core.detectors import patterns
from tasks.core.detectors.candidates import (
    Alike,
    Candidates,
    Hits,
    Ints,
    Mask,
    all_valid,
    buffers,
    cut,
    strings,
    within,
)

MANY = 1024
"""So many cells are worth a look at the first of them."""

FIRST = 256
"""How many these are."""

FEW = 0.25
"""The largest share of different forms among the first cells at which it pays to go by forms."""

OFTEN = 0.05
"""The least share of addresses among the first cells at which it pays to ask all for addresses."""

_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_BEGIN, _END = 1, 2
_MARKED = f"{chr(_BEGIN)}$0{chr(_END)}"
_MARKS = f"[{chr(_BEGIN)}{chr(_END)}]"


def addresses(cells: pl.Series) -> tuple[list[Hits], Ints]:
    """Cells, none of which is null, that are one address as a whole, and which cells are left."""
    found: list[Hits] = []
    left, rest = np.arange(len(cells)), cells
    for entity, pattern in patterns.ADDRESSES:
        if len(rest) < MANY or _share(rest.head(FIRST), pattern) < OFTEN:
            continue
        whole = rest.str.contains(pattern)
        if entity == "EMAIL_ADDRESS":
            whole &= ~rest.str.contains(patterns.NO_ADDRESS)
        mask: Mask = whole.to_numpy()
        found += all_valid(entity, Candidates(left[mask], rest.filter(whole)), mask[mask])
        left, rest = left[~mask], rest.filter(~whole)
    return found, left


def _share(cells: pl.Series, pattern: str) -> float:
    return float(np.mean(cells.str.contains(pattern).to_numpy()))


def alike(cells: pl.Series) -> tuple[Candidates | None, Ints]:
    """The candidates in cells, none of which is null, whose form says where they are; and which cells are left.

    The others hold nothing else, nor an IBAN (see `ibans`). No candidates are answered where forms are many.
    """
    every = np.arange(len(cells))
    if len(cells) < MANY or len(_forms(cells.head(FIRST))[0]) > FEW * FIRST:
        return None, every
    forms, form_of = _forms(cells)
    decided = forms.str.contains(f"{patterns.DECIDED_BY_DIGITS}|{patterns.PERHAPS_IBAN}|{_MARKS}").to_numpy()
    marked, data = buffers(pl.Series(np.where(decided, "", forms)).str.replace_all(patterns.ALL, _MARKED))
    begins, ends = np.flatnonzero(data == _BEGIN), np.flatnonzero(data == _END)
    of = np.searchsorted(marked, begins, side="right") - 1
    pieces = Candidates(of, strings(np.cumsum(ends - begins - 1), data[within(begins + 1, ends)]))
    counts = np.bincount(of, minlength=len(forms))
    firsts = np.cumsum(counts) - counts
    starts = begins - marked[of] - 2 * (np.arange(len(of)) - firsts[of])

    several = counts[form_of]
    rows = np.repeat(np.arange(len(cells)), several)
    which = np.arange(len(rows)) + np.repeat(firsts[form_of] - np.cumsum(several) + several, several)
    text = cells if (counts == 1).all() else cells.gather(rows)
    text = cut(text, starts[which], pieces.lengths[which])
    return Candidates(rows, text, Alike(which, pieces)), np.flatnonzero(decided[form_of])


def _forms(cells: pl.Series) -> tuple[pl.Series, Ints]:
    """The different forms of cells, and the number of each cell's."""
    offsets, data = buffers(cells)
    zeros = data[offsets[0] : offsets[-1]].tobytes().translate(_ZEROS)
    array = pa.LargeStringArray.from_buffers(len(cells), pa.py_buffer(offsets - offsets[0]), pa.py_buffer(zeros))
    encoded = array.dictionary_encode()
    return pl.Series(encoded.dictionary), encoded.indices.to_numpy().astype(np.int64)
