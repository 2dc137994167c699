"""A sketch of a set of values: the smallest of their hashes, with a few marks each.

The k smallest hashes are a fair sample of the *different* values, whatever their order and however often they come,
so that two sketches can be joined and a verdict depends neither on the order of rows nor on how a table was split
into files (Bar-Yossef et al. 2002, "Counting distinct elements in a data stream"). It holds hashes, never values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Marks = npt.NDArray[np.uint8]


class Sketch:
    """The sample of at most `size` different values that were added."""

    def __init__(self, size: int = 1024) -> None:
        self.size = size
        self.hashes: Hashes = np.zeros(0, np.uint64)
        self.marks: Marks = np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self.hashes)

    def admits(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which of the hashes may enter; marks need to be worked out for these only."""
        if len(self) < self.size:
            return np.ones(len(hashes), bool)
        return hashes < self.hashes[-1]

    def add(self, hashes: Hashes, marks: Marks) -> None:
        """Add values by their hashes. A value's marks must be the same whenever it comes."""
        if len(self) == self.size:
            new = self.admits(hashes)
            hashes, marks = hashes[new], marks[new]
        joined = np.concatenate([self.hashes, hashes])
        self.hashes, first = np.unique(joined, return_index=True)
        self.marks = np.concatenate([self.marks, marks])[first]
        self.hashes, self.marks = self.hashes[: self.size], self.marks[: self.size]

    def share(self, mark: int) -> float:
        """The share of different values that carry a mark."""
        return float(np.mean((self.marks & mark) > 0)) if len(self) else 0.0

    @property
    def distinct(self) -> int:
        """An estimate of how many different values were added; exact up to `size`."""
        if len(self) < self.size:
            return len(self)
        return round((self.size - 1) / (float(self.hashes[-1]) / 2**64))
