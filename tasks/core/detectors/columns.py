"""What is remembered of a column over all of a table, and the verdict on what the column holds.

One hit of sixteen digits proves little: a tenth of all numbers pass the Luhn check by chance. So a column is judged
as a whole. For each entity and kind of evidence the different candidates are sampled (`sketch`), and the rate at which
they pass the checks is weighed against chance: `likelihood_ratio` compares "they pass at some rate above chance" with
"they pass by chance". The odds before that come from the written form and from the words in the column's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.core.detectors import named
from tasks.core.detectors.candidates import Evidence, Ints
from tasks.core.detectors.cells import Cells
from tasks.core.detectors.detection import EVERYTHING, Detection
from tasks.core.detectors.marks import (
    ADDRESS,
    BANK,
    COORDINATE,
    DATE,
    DOCUMENT,
    FULL_NAME,
    GIVEN,
    NAME,
    note_texts,
    number_marks,
)
from tasks.core.detectors.sketch import Sketch, smallest
from tasks.core.detectors.tables import Leaf
from tasks.core.detectors.tallies import Tally, count
from tasks.core.detectors.words import speaks_against
from tasks.core.findings import ColumnKind, Finding, Number

LEAST_CONFIDENCE = 0.2
"""Weaker findings are not listed."""

_STATE_BYTES = 2048
_LEAST_ID = 1e8


Bounds = tuple[int, dict[tuple[str, Evidence], int]]
"""Of a column's different cells, and of its candidates by entity and kind of evidence."""


class ColumnState:
    """Everything that is remembered of one column while a table is read: counts and hashes, never values."""

    def __init__(self, name: str, detection: Detection = EVERYTHING) -> None:
        self.name = name
        self.detection = detection
        self.kinds: set[ColumnKind] = set()
        self.filled = 0
        self.unshown = 0
        self.cells = Sketch()
        self.minimum: Number | None = None
        self.maximum: Number | None = None
        self.tallies: dict[tuple[str, Evidence], Tally] = {}

    def copy(self) -> ColumnState:
        """The same counts, which go their own way."""
        made = ColumnState(self.name, self.detection)
        made.kinds, made.filled, made.cells = set(self.kinds), self.filled, self.cells.copy()
        made.unshown = self.unshown
        made.minimum, made.maximum = self.minimum, self.maximum
        made.tallies = {
            key: Tally(tally.cells, tally.whole, tally.candidates.copy()) for key, tally in self.tallies.items()
        }
        return made

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        hashes = len(self.cells) + sum(len(tally.candidates) for tally in self.tallies.values())
        return _STATE_BYTES + 9 * hashes

    @property
    def bounds(self) -> Bounds:
        """Above which hashes nothing of the same column would enter its samples."""
        return self.cells.bound, {key: tally.candidates.bound for key, tally in self.tallies.items()}

    def join_later(self, bounds: Bounds) -> None:
        """Leave out of the samples, before anything is added, what will be of no use when it is merged.

        Args:
            bounds: Those of the state that this one will be merged into.
        """
        of_cells, of_candidates = bounds
        self.cells = Sketch(ceiling=of_cells)
        self.tallies = {key: Tally.below(bound) for key, bound in of_candidates.items()}

    def merge(self, other: ColumnState) -> None:
        """Add what another state saw of the same column, as if this one had seen it."""
        self.kinds |= other.kinds
        self.filled += other.filled
        self.unshown += other.unshown
        self.cells.add(other.cells.hashes, other.cells.marks)
        self.minimum = min((v for v in (self.minimum, other.minimum) if v is not None), default=None)
        self.maximum = max((v for v in (self.maximum, other.maximum) if v is not None), default=None)
        for key, theirs in other.tallies.items():
            ours = self.tallies.setdefault(key, Tally())
            ours.cells += theirs.cells
            ours.whole += theirs.whole
            ours.candidates.add(theirs.candidates.hashes, theirs.candidates.marks)

    @property
    def kind(self) -> ColumnKind:
        """What the column holds; `other` when objects of one table disagree."""
        kinds = self.kinds - {"other"} or self.kinds
        return next(iter(kinds)) if len(kinds) == 1 else "other"

    def add(self, values: pl.Series, parents: Ints | None = None) -> None:
        """Count one batch of the column's leaves.

        Args:
            values: The values.
            parents: For each value the row it belongs to; None when every value is a row of its own.
        """
        present = values.drop_nulls() if values.null_count() else values
        if parents is not None and len(present) < len(values):
            parents = parents[values.is_not_null().to_numpy()]
        self.filled += len(present) if parents is None else len(np.unique(parents))
        if present.dtype == pl.String:
            self._add_text(Cells.of(present), parents)
        elif present.dtype.is_numeric():
            self._add_numbers(present, parents)
        elif present.dtype == pl.Boolean:
            self._note("flag", present, np.zeros(len(present), np.uint8))
        elif present.dtype.is_temporal():
            marks = np.zeros(len(present), np.uint8)
            if isinstance(present.dtype, (pl.Date, pl.Datetime)):
                marks[:] = DATE
            self._note("date", present, marks)
        elif len(present):
            self._note("other", present, np.zeros(len(present), np.uint8))

    def add_leaf(self, leaf: Leaf) -> None:
        """Count one batch of the column as it was read; what no row shows counts as a row each."""
        if leaf.unshown:
            self.unshown += len(leaf)
        if leaf.held is not None:
            self.add(leaf.held, leaf.rows)
            return
        array, parents = leaf.array, leaf.rows
        if leaf.weights is not None:
            self.filled += int(leaf.weights.sum())
            self._add_text(Cells(array), None, leaf.weights)
            return
        if array.null_count:
            present = array.is_valid()
            array = array.filter(present)
            parents = None if parents is None else parents[present.to_numpy(zero_copy_only=False)]
        self.filled += len(array) if parents is None else len(np.unique(parents))
        self._add_text(Cells(array), parents)

    def _note(self, kind: ColumnKind, values: pl.Series, marks: npt.NDArray[np.uint8]) -> None:
        self.kinds.add(kind)
        if len(values):
            self.cells.add(values.hash().to_numpy(), marks)

    def _add_text(self, cells: Cells, parents: Ints | None, weights: Ints | None = None) -> None:
        self.kinds.add("text")
        if not len(cells):
            return
        if parents is None and weights is None and cells.repeat:
            cells, weights = cells.different()
        note_texts(self.cells, cells)
        plain = cells.plain
        if plain and not self.detection.own and not self.detection.names_in_text:
            return
        count(self.tallies, cells, self.detection, parents, weights, plain=plain)

    def _add_numbers(self, values: pl.Series, parents: Ints | None) -> None:
        self.kinds.add("number")
        if values.dtype.is_float():
            finite = values.is_finite()
            values, parents = values.filter(finite), _filtered(parents, finite)
        if not len(values):
            return
        low, high = values.min(), values.max()
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            self.minimum = low if self.minimum is None else min(low, self.minimum)
            self.maximum = high if self.maximum is None else max(high, self.maximum)
        hashes = values.hash().to_numpy()
        admitted = np.flatnonzero(self.cells.admits(hashes))
        if len(admitted):
            new = admitted[smallest(hashes[admitted], self.cells.size)]
            self.cells.add(hashes[new], number_marks(values.gather(new)))
        # Numbers of nine digits and more may be ids; floats hold them where a table has gaps.
        if isinstance(high, (int, float)) and high < _LEAST_ID and not self.detection.own:
            return
        # As doubles, since the bounds are beyond what small types hold.
        numbers = values.cast(pl.Float64).to_numpy()
        id_like = (numbers >= _LEAST_ID) & (numbers < 1e19)
        if values.dtype.is_float():
            id_like &= numbers == np.floor(numbers)
        if id_like.any():
            long = values.filter(pl.Series(id_like))
            self._tally(_spelt(long), None if parents is None else parents[id_like], None)
        if self.detection.own and not id_like.all():
            short = values.filter(pl.Series(~id_like))
            self._tally(_spelt(short), None if parents is None else parents[~id_like], None, plain=True)

    def _tally(self, cells: pl.Series, parents: Ints | None, weights: Ints | None, *, plain: bool = False) -> None:
        count(self.tallies, Cells.of(cells), self.detection, parents, weights, plain=plain)


def _spelt(numbers: pl.Series) -> pl.Series:
    """Numbers as people write them: whole floats, which hold ids where a table has gaps, without a fraction."""
    if numbers.dtype.is_float() and ((numbers == numbers.floor()) & (numbers.abs() < 2**63)).all():
        return numbers.cast(pl.UInt64 if (numbers >= 0).all() else pl.Int64).cast(pl.String)
    return numbers.cast(pl.String)


def _filtered(parents: Ints | None, keep: pl.Series) -> Ints | None:
    return None if parents is None else parents[keep.to_numpy()]


def likelihood_ratio(candidates: int, valid: float, chance: float) -> float:
    """How much better "they pass at some rate above chance" explains the passes than "they pass by chance".

    The first is an even mixture of all rates from `chance` to 1, the second the best rate up to `chance`.
    """
    chance = max(chance, 1e-3)
    rates = np.linspace(chance, 1 - 1e-6, 400)
    failed = candidates - valid
    above = valid * np.log(rates) + failed * np.log1p(-rates)
    null_rate = min(max(valid / candidates, 1e-9), chance)
    by_chance = valid * math.log(null_rate) + failed * math.log1p(-null_rate)
    peak = float(above.max())
    log_ratio = peak + math.log(float(np.mean(np.exp(above - peak)))) - by_chance
    return math.exp(min(max(log_ratio, -50.0), 50.0))


_PRIOR_SHAPED = 4.0
_PRIOR_CONTEXT = 20.0
_HEADER_FACTOR = 30.0
_PATH_FACTOR = 3.0
_AGAINST_FACTOR = 0.05
_CODED_FACTOR = 0.05
_NO_CHECK = 0.5
"""From this chance on the checks say so little that they may not outweigh the other evidence."""
_SHAPED_CHANCE = 0.3


_LOOKS = {
    "LOCATION": (ADDRESS, 0.3, "addresses"),
    "DATE_OF_BIRTH": (DATE, 0.5, "dates to the day"),
    "COORDINATES": (COORDINATE, 0.5, "coordinates to a kilometre or less"),
    "BIC": (BANK, 0.5, "codes of banks"),
    "PASSPORT": (DOCUMENT, 0.5, "numbers of documents"),
    "DRIVER_LICENSE": (DOCUMENT, 0.5, "numbers of documents"),
    "ORGANIZATION": (NAME, 0.5, "names"),
}
"""Of entities that a column's name tells of: the mark of values that look the part, their least share, and what these
look like."""


def judge(state: ColumnState, path: str, rows: int) -> Iterator[Finding]:
    """The findings of a column of a table with so many rows, after all of it was read."""
    by_entity: dict[str, list[tuple[Evidence, Tally, float]]] = {}
    for (entity, evidence), tally in state.tallies.items():
        if tally.cells:
            by_entity.setdefault(entity, []).append(
                (evidence, tally, _confidence(state, path, entity, evidence, tally))
            )
    listed: set[str] = set()
    for entity, parts in sorted(by_entity.items()):
        strong = [part for part in parts if part[2] >= LEAST_CONFIDENCE]
        cells = min(sum(tally.cells for _, tally, _ in strong), state.filled)
        if strong and cells >= _looking(state, entity):
            listed.add(entity)
            whole = sum(tally.whole for _, tally, _ in strong) / sum(tally.cells for _, tally, _ in strong)
            best = max(strong, key=lambda part: (part[2], part[0]))
            why = _why(state, entity, best[0], best[1])
            yield _finding(state, entity, path, cells, rows, best[2], why, whole)
    yield from _by_header(state, path, rows, listed)


def confidences(state: ColumnState, path: str) -> dict[tuple[str, Evidence], float]:
    """How sure it is, for each entity and kind of evidence with a valid hit, that the hits are what they look like."""
    return {
        (entity, evidence): _confidence(state, path, entity, evidence, tally)
        for (entity, evidence), tally in state.tallies.items()
        if tally.cells
    }


def _confidence(state: ColumnState, path: str, entity: str, evidence: Evidence, tally: Tally) -> float:
    if evidence is Evidence.NAMED:
        return named.CONFIDENCE[entity]
    known = state.detection.entity(entity)
    header = bool(state.detection.speaks_for(entity, state.name))
    chance = known.chance
    if evidence is Evidence.SHAPED:
        chance = min(chance, _SHAPED_CHANCE)
    n = len(tally.candidates)
    ratio = likelihood_ratio(n, tally.pass_rate * n, chance)
    if known.chance >= _NO_CHECK and evidence in (Evidence.BARE, Evidence.CODED):
        ratio = min(ratio, 5.0)
    if header and tally.pass_rate >= 0.2:
        ratio = max(ratio, 1.0)
    odds = {
        Evidence.SHAPED: max(_PRIOR_SHAPED, known.prior),
        Evidence.CONTEXT: _PRIOR_CONTEXT,
        Evidence.BARE: known.prior,
        Evidence.CODED: known.prior * _CODED_FACTOR,
    }[evidence]
    if entity == "DATE_OF_BIRTH" and evidence is Evidence.BARE:
        return 0.0  # Any date is a date; `_by_header` judges those that are of birth.
    in_path = bool(state.detection.speaks_for(entity, path))
    odds *= ratio * (_HEADER_FACTOR if header else _PATH_FACTOR if in_path else 1.0)
    if not header and known.chance > 0 and speaks_against(state.name):
        odds *= _AGAINST_FACTOR
    return odds / (1 + odds)


def _why(state: ColumnState, entity: str, evidence: Evidence, tally: Tally) -> str:
    known = state.detection.entity(entity)
    parts = [str(evidence)]
    if known.chance:
        n = len(tally.candidates)
        parts.append(
            f"{round(tally.pass_rate * n)} of {n} different candidates pass the checks "
            f"(by chance at most {known.chance:.0%})"
        )
    header = state.detection.speaks_for(entity, state.name)
    if header:
        parts.append(f"the column's name says '{header}'")
    return ", ".join(parts)


def _by_header(state: ColumnState, path: str, rows: int, found: set[str]) -> Iterator[Finding]:
    """Entities without check digits: the column's name speaks, and the values must look the part."""
    if "PERSON" not in found and len(state.cells):
        yield from _names(state, path, rows)
    for entity, (mark, _, looks) in _LOOKS.items():
        count = _looking(state, entity)
        if count and entity not in found:
            header, share = state.detection.speaks_for(entity, state.name), state.cells.share(mark)
            why = f"the column's name says '{header}', and {share:.0%} of the values look like {looks}"
            yield _finding(state, entity, path, count, rows, 0.9, why)


def _looking(state: ColumnState, entity: str) -> int:
    """In how many rows an entity stands by the column's name and the look of the values."""
    if entity not in _LOOKS or not len(state.cells) or not state.detection.speaks_for(entity, state.name):
        return 0
    mark, least, _ = _LOOKS[entity]
    share = state.cells.share(mark)
    return round(share * state.filled) if share >= least else 0


def _names(state: ColumnState, path: str, rows: int) -> Iterator[Finding]:
    cells, person = state.cells, state.detection.speaks_for("PERSON", state.name)
    names, given, full = cells.share(NAME), cells.share(GIVEN), cells.share(FULL_NAME)
    if person and names >= 0.5:
        confidence = 0.95 if person not in ("name", "nama") or given >= 0.05 else 0.4
        why = f"the column's name says '{person}', and {names:.0%} of the values look like names"
        yield _finding(state, "PERSON", path, round(names * state.filled), rows, confidence, why)
    elif full >= 0.8 and given >= 0.2 and len(cells) >= 20:
        why = f"{full:.0%} of the values look like full names, {given:.0%} begin with a common given name"
        yield _finding(state, "PERSON", path, round(full * state.filled), rows, 0.8, why)


def _finding(
    state: ColumnState, entity: str, path: str, count: int, rows: int, confidence: float, why: str, whole: float = 1.0
) -> Finding:
    share = min(1.0, count / rows) if rows else 1.0
    if state.unshown:
        why += f"; {state.unshown:,} values of the column lie in dictionaries and no row shows them"
    return Finding(entity, path, state.name, count, round(share, 6), round(confidence, 4), why, round(whole, 4))
