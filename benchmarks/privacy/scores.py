"""How well cells were labelled: recall and precision by entity, with Wilson's interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Found = Mapping[str, Sequence[Iterable[str]]]
"""By column, for each row the entities that were found or that are there."""


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The interval that holds a share with 95% confidence (E. B. Wilson, 1927).

    >>> tuple(round(end, 3) for end in wilson(98, 100))
    (0.93, 0.994)
    """
    if not of:
        return 0.0, 1.0
    share = hits / of
    middle = share + z * z / (2 * of)
    margin = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (middle - margin) / (1 + z * z / of)), min(1.0, (middle + margin) / (1 + z * z / of))


@dataclass
class Score:
    """What was found of one entity: true, false and missed cells."""

    true: int = 0
    false: int = 0
    missed: int = 0

    @property
    def recall(self) -> float | None:
        """The share of the entity's cells that were found; None when there are none."""
        there = self.true + self.missed
        return self.true / there if there else None

    @property
    def precision(self) -> float | None:
        """The share of the cells found that hold the entity; None when nothing was found."""
        found = self.true + self.false
        return self.true / found if found else None

    def as_dict(self) -> dict[str, object]:
        """With the intervals, for JSON."""
        return {
            "true": self.true,
            "false": self.false,
            "missed": self.missed,
            "recall": self.recall,
            "recall_95": wilson(self.true, self.true + self.missed),
            "precision": self.precision,
            "precision_95": wilson(self.true, self.true + self.false),
        }


def scores(found: Found, labels: Found, entities: Iterable[str]) -> dict[str, Score]:
    """The score of each entity over all cells."""
    result = {entity: Score() for entity in entities}
    for column, cells in labels.items():
        for there, seen in zip(cells, found[column], strict=True):
            for entity in {*there, *seen} & result.keys():
                score = result[entity]
                score.true += entity in there and entity in seen
                score.false += entity not in there
                score.missed += entity not in seen
    return result
