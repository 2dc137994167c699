"""How much of a dataset a scan looks at, and what follows from that for what it did not see.

A sample is a simple random sample without replacement of parts: row groups of Parquet, whole objects of other formats.
If none of n sampled parts holds a thing, then with 95% confidence at most the share 1 - 0.05^(1/n) of all parts holds
it: the exact bound of Clopper and Pearson (Biometrika 26, 1934, 404-413) for no success in n trials, about 3/n ("rule
of three"); for parts drawn without replacement it errs on the safe side. It is a bound for parts and not for rows,
since rows of one part may be alike.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95
"""How sure the bound of a sample is."""


class Mode(enum.StrEnum):
    """What of a dataset is read, from the least."""

    SCHEMA = "schema"
    SAMPLE = "sample"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Thoroughness:
    """How thorough a scan is wanted.

    Args:
        mode: Names alone, a sample of parts, or everything.
        parts: How many parts a sample has; 300 leave at most 1% of the parts unnoticed.
        seed: Of the draw, which depends on the dataset's digest too.
    """

    mode: Mode = Mode.FULL
    parts: int = 300
    seed: int = 0

    @property
    def strictness(self) -> tuple[int, int]:
        """The more thorough of two is the greater."""
        return list(Mode).index(self.mode), self.parts if self.mode is Mode.SAMPLE else 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a dataset a scan looked at.

    Args:
        mode: What was asked for.
        read: Parts that were read.
        parts: Parts that there are.
        seed: Of the draw.
    """

    mode: Mode = Mode.FULL
    read: int = 0
    parts: int = 0
    seed: int = 0

    @property
    def missed_at_most(self) -> float:
        """The share of parts that may hold what was not found, with `CONFIDENCE`; 1 when no value was read.

        >>> round(Coverage(Mode.SAMPLE, read=300, parts=1000).missed_at_most, 4)
        0.0099
        """
        if self.mode is Mode.FULL or (self.mode is Mode.SAMPLE and self.read == self.parts):
            return 0.0
        if self.mode is Mode.SCHEMA or not self.read:
            return 1.0
        return 1 - (1 - CONFIDENCE) ** (1 / self.read)

    def satisfies(self, wanted: Thoroughness) -> bool:
        """Whether it is as thorough as wanted."""
        if self.missed_at_most == 0:
            return True
        return (list(Mode).index(self.mode), self.read) >= wanted.strictness

    @property
    def in_words(self) -> str:
        """What a report says of it."""
        if self.mode is Mode.SCHEMA:
            return "names alone were looked at: nothing follows for the values, and shares are taken to be 1"
        if not self.missed_at_most:
            return "everything was read"
        return (
            f"a sample of {self.read} of {self.parts} parts was read (seed {self.seed}): with {CONFIDENCE:.0%} "
            f"confidence at most {self.missed_at_most:.1%} of the parts hold what is not listed"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible, with the bound."""
        return {
            "mode": self.mode.value,
            "read": self.read,
            "parts": self.parts,
            "seed": self.seed,
            "confidence": CONFIDENCE,
            "missed_at_most": round(self.missed_at_most, 6),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Coverage:
        """The inverse of `as_dict`. Raises KeyError, TypeError or ValueError for any other shape."""
        return cls(Mode(data["mode"]), int(data["read"]), int(data["parts"]), int(data["seed"]))
