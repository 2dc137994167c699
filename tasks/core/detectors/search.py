"""What stands in a column's cells: by the native kernel where there is one, by polars and numpy for all else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from tasks.core.arrow import pa
from tasks.core.detectors import native, phones
from tasks.core.detectors.candidates import Bytes, Candidates, Hits, Ints, buffers
from tasks.core.detectors.classify import classify
from tasks.core.detectors.patterns import ALL

_ROOM = 64 * 1024
_LEAST_CELLS = 16


def hits_in(cells: pl.Series, phone_regions: tuple[str, ...] = phones.REGIONS) -> Iterator[Hits]:
    """What the cells, none of which is null, may hold; the rows of hits are cells' numbers, in order.

    Args:
        cells: The cells.
        phone_regions: The countries whose telephone numbers may stand without a country's code.
    """
    return phones.checked(_candidates_in(cells), phone_regions)


def _candidates_in(cells: pl.Series) -> Iterator[Hits]:
    kernel = native.kernel() if len(cells) >= _LEAST_CELLS else None
    if kernel is None:
        yield from classify(Candidates.found(cells, ALL))
        return
    offsets, data = buffers(cells)
    left_over: list[Ints] = []
    at = 0
    while at < len(cells):
        part = kernel.search(offsets, data, at, _ROOM)
        at = part.done
        left_over.append(part.back)
        yield from _hits(part)
    rest = np.concatenate(left_over)
    if len(rest):
        for each in classify(Candidates.found(cells.gather(rest), ALL)):
            yield Hits(each.entity, each.evidence, each.found.in_cells(rest), each.which, each.valid)


def _hits(part: native.Part) -> Iterator[Hits]:
    if not len(part.keys):
        return
    found = Candidates(part.rows, _strings(part.ends, part.text))
    order = np.argsort(part.keys, kind="stable")
    keys, which, valid = part.keys[order], part.candidates[order], part.valid[order].view(bool)
    starts: list[int] = np.flatnonzero(np.diff(keys, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(keys)]):
        entity, evidence = divmod(int(keys[start]), 4)
        yield Hits(native.ENTITIES[entity], native.EVIDENCE[evidence], found, which[start:end], valid[start:end])


def _strings(ends: Ints, text: Bytes) -> pl.Series:
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    array = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))
    return pl.Series("", array)
