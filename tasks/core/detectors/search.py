"""What stands in a column's cells: by the native kernel where there is one, by polars and numpy for all else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from tasks.core.detectors import native, phones
from tasks.core.detectors.candidates import Candidates, Hits, Ints, buffers, strings
from tasks.core.detectors.classify import classified, in_cells
from tasks.core.detectors.detection import EVERYTHING, Detection
from tasks.core.detectors.named import named_hits
from tasks.core.detectors.own import own_hits

ROOM = 64 * 1024
"""How many candidates the kernel may find at a time."""


def hits_in(
    cells: pl.Series, detection: Detection = EVERYTHING, *, plain: bool = False, back: Ints | None = None
) -> Iterator[Hits]:
    """What the cells, none of which is null, may hold; the rows of hits are cells' numbers, in order.

    Args:
        cells: The cells.
        detection: What is looked for beyond the vocabulary.
        plain: Whether the cells are known to hold nothing of the vocabulary; they may hold names.
        back: The cells that the kernel handed back, where it has counted the others (see `tallies`).

    Raises:
        Invalid: Names are looked for, and the extra `nlp` is not installed.
    """
    if not plain:
        found = _candidates_in(cells) if back is None else _handed_back(cells, back)
        yield from phones.checked(found, detection.phone_regions)
    for own in detection.own:
        yield from own_hits(cells, own)
    if detection.names_in_text:
        yield from named_hits(cells)


def _candidates_in(cells: pl.Series) -> Iterator[Hits]:
    kernel = native.kernel() if len(cells) else None
    if kernel is None:
        yield from classified(cells)
        return
    offsets, data = buffers(cells)
    left_over: list[Ints] = []
    at = 0
    while at < len(cells):
        part = kernel.search(offsets, data, at, ROOM)
        at = part.done
        left_over.append(part.back)
        yield from _hits(part)
    yield from _handed_back(cells, np.concatenate(left_over))


def _handed_back(cells: pl.Series, back: Ints) -> Iterator[Hits]:
    if len(back):
        yield from in_cells(classified(cells.gather(back)), back)


def _hits(part: native.Part) -> Iterator[Hits]:
    if not len(part.keys):
        return
    found = Candidates(part.rows, strings(part.ends, part.text))
    order = np.argsort(part.keys, kind="stable")
    keys, which, valid = part.keys[order], part.candidates[order], part.valid[order].view(bool)
    starts: list[int] = np.flatnonzero(np.diff(keys, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(keys)]):
        entity, evidence = native.KEYS[int(keys[start])]
        yield Hits(entity, evidence, found, which[start:end], valid[start:end])
