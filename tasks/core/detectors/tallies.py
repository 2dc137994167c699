"""A column's hits, counted by entity and kind of evidence: by the kernel while it searches, by numpy for all else."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from tasks.core.detectors import native, phones
from tasks.core.detectors.candidates import Evidence, Hashes, Hits, Ints, Mask
from tasks.core.detectors.cells import Cells
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.search import ROOM, hits_in
from tasks.core.detectors.sketch import LARGEST, Sketch
from tasks.core.detectors.words import context_pattern

Key = tuple[str, Evidence]

_SAMPLE = 512
_WHOLE, _WHOLE_OF = 4, 5
"""A hit of so many fifths of its cell fills it."""


@dataclass
class Tally:
    """Hits of one entity and one kind of evidence in a column: in how many rows valid ones stand, in how many of
    these they fill most of the cell, and a sample of the different candidates with whether they pass the checks.
    """

    cells: int = 0
    whole: int = 0
    candidates: Sketch = field(default_factory=lambda: Sketch(_SAMPLE))

    @classmethod
    def below(cls, ceiling: int) -> Tally:
        """One that samples no candidates with hashes above a ceiling."""
        return cls(candidates=Sketch(_SAMPLE, ceiling))

    @property
    def pass_rate(self) -> float:
        """The share of different candidates that pass the checks."""
        return self.candidates.share(1)


def count(
    tallies: dict[Key, Tally],
    cells: Cells,
    detection: Detection,
    parents: Ints | None = None,
    weights: Ints | None = None,
    *,
    plain: bool = False,
) -> None:
    """Count what the cells hold.

    Args:
        tallies: What was counted so far, which is added to.
        cells: The cells.
        detection: What is looked for.
        parents: For each cell the row it belongs to, in order; None when every cell is a row of its own.
        weights: How many rows each cell stands for; None for one.
        plain: As for `hits_in`.
    """
    kernel = None if plain else cells.kernel
    back = _counted(kernel, tallies, cells, detection, parents, weights) if kernel else None
    if back is not None and not len(back) and not detection.own and not detection.names_in_text:
        return
    text = cells.text
    lengths = np.diff(cells.laid[0])
    rows: dict[Key, list[tuple[Ints, Ints]]] = {}
    for each in with_context(hits_in(text, detection, plain=plain, back=back), text, lengths, detection):
        key = each.entity, each.evidence
        hit, sizes = each.found.rows[each.which], each.found.lengths[each.which]
        whole = (sizes == lengths[hit]).all()  # A candidate as long as its cell is its cell.
        hashes = cells.hashes[hit] if whole else each.found.hashes[each.which]
        tallies.setdefault(key, Tally()).candidates.add(hashes, each.valid.astype(np.uint8))
        hit, sizes = hit[each.valid], sizes[each.valid]
        rows.setdefault(key, []).append((hit, hit[_WHOLE_OF * sizes >= _WHOLE * lengths[hit]]))
    for key, parts in rows.items():
        hit, whole = (_different(np.concatenate(each)) for each in zip(*parts, strict=True))
        tallies[key].cells += _rows(hit, parents, weights)
        tallies[key].whole += _rows(whole, parents, weights)


def _different(cells: Ints) -> Ints:
    in_order = np.sort(cells, kind="stable")
    return in_order[np.diff(in_order, prepend=-1) > 0]


def _rows(cells: Ints, parents: Ints | None, weights: Ints | None) -> int:
    """How many rows some different cells stand for."""
    if parents is not None:
        return len(np.unique(parents[cells]))
    return len(cells) if weights is None else int(weights[cells].sum())


def _counted(
    kernel: native.Kernel,
    tallies: dict[Key, Tally],
    cells: Cells,
    detection: Detection,
    parents: Ints | None,
    weights: Ints | None,
) -> Ints:
    """Let the kernel count what it can. Answers the cells that it handed back."""
    ask = _asked(detection.languages, detection.phone_regions)
    counted = kernel.tally(*cells.laid, cells.hashes, ROOM, ask, parents, weights, _bounds(tallies), _SAMPLE)
    for number in np.flatnonzero(counted.cells).tolist():
        tally = tallies.setdefault(native.KEYS[number], Tally())
        tally.cells += int(counted.cells[number])
        tally.whole += int(counted.whole[number])
    for number, (hashes, valid) in counted.sampled.items():
        tallies.setdefault(native.KEYS[number], Tally()).candidates.add(hashes, valid)
    return counted.back


def _bounds(tallies: dict[Key, Tally]) -> Hashes:
    """By the kernel's key, above which hash a candidate is not among the sample."""
    bounds = np.full(len(native.KEYS), LARGEST, np.uint64)
    for key, tally in tallies.items():
        number = native.NUMBERS.get(key)
        if number is not None:
            bounds[number] = tally.candidates.bound
    return bounds


@functools.lru_cache(maxsize=8)
def _asked(languages: tuple[str, ...], regions: tuple[str, ...]) -> native.Ask:
    detection = Detection(languages, regions)
    words = {entity: detection.words(entity) for entity in native.ENTITIES}
    return native.Ask(phones.at_home(regions), phones.abroad(), words)


def with_context(found: Iterator[Hits], cells: pl.Series, lengths: Ints, detection: Detection) -> Iterator[Hits]:
    """Hits with those set apart that have a word of their entity in the same cell or as their prefix.

    Args:
        found: The hits.
        cells: The cells they were found in.
        lengths: The cells' lengths in bytes.
        detection: Whose words count.
    """
    for each in found:
        words = detection.words(each.entity)
        if each.evidence in (Evidence.SHAPED, Evidence.NAMED) or not words:
            yield each
            continue
        rows = each.found.rows[each.which]
        beside: Mask = np.zeros(len(rows), bool)
        longer = np.flatnonzero(lengths[rows] > each.found.lengths[each.which] + 1)
        if len(longer):
            beside[longer] = cells.gather(rows[longer]).str.contains(context_pattern(words)).to_numpy()
        if each.evidence is Evidence.CODED:
            beside |= each.found.begin_with(each.which, words)
        if beside.any():
            yield Hits(each.entity, Evidence.CONTEXT, each.found, each.which[beside], each.valid[beside])
        if not beside.all():
            yield Hits(each.entity, each.evidence, each.found, each.which[~beside], each.valid[~beside])
