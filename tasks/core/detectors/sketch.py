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


LARGEST = 2**64 - 1
"""The largest hash."""


def smallest(hashes: Hashes, size: int) -> npt.NDArray[np.int64]:
    """Where the `size` smallest different hashes first stand, in order of the hashes.

    >>> smallest(np.array([9, 3, 7, 3], np.uint64), 2).tolist()
    [1, 2]
    """
    if len(hashes) > 8 * size:
        # Most hashes are large: a part is enough, unless it repeats itself.
        bound = np.partition(hashes, 4 * size)[4 * size]
        few = np.flatnonzero(hashes <= bound)
        first = few[np.unique(hashes[few], return_index=True)[1]]
        if len(first) >= size:
            return first[:size]
    return np.unique(hashes, return_index=True)[1][:size]


class Sketch:
    """The sample of at most `size` different values that were added.

    Args:
        size: How many.
        ceiling: Above which hash nothing needs to be kept, because it would be of no use to the sketch that this one
            is to be joined to.
    """

    def __init__(self, size: int = 1024, ceiling: int = LARGEST) -> None:
        self.size = size
        self.ceiling = ceiling
        self._hashes: Hashes = np.zeros(0, np.uint64)
        self._marks: Marks = np.zeros(0, np.uint8)
        self._added: list[tuple[Hashes, Marks]] = []
        self._waiting = 0

    def __len__(self) -> int:
        return len(self.hashes)

    def copy(self) -> Sketch:
        """A sketch of the same sample, which goes its own way."""
        made = Sketch(self.size, self.ceiling)
        made._hashes, made._marks = self.hashes, self.marks  # Neither array is ever changed in place.
        return made

    @property
    def hashes(self) -> Hashes:
        """The hashes of the sample, in order."""
        self._settle()
        return self._hashes

    @property
    def marks(self) -> Marks:
        """For each hash the marks of its value."""
        self._settle()
        return self._marks

    @property
    def bound(self) -> int:
        """The largest hash that may still enter."""
        if len(self._hashes) + self._waiting < self.size:
            return self.ceiling
        return self.ceiling if len(self) < self.size else min(self.ceiling, int(self.hashes[-1]))

    def admits(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which of the hashes may enter; marks need to be worked out for these only."""
        return hashes <= np.uint64(self.bound)

    def add(self, hashes: Hashes, marks: Marks) -> None:
        """Add values by their hashes. A value that comes again carries the marks of all its times."""
        if len(hashes) > 8 * self.size:
            new = np.flatnonzero(self.admits(hashes))
            if len(new) > 8 * self.size:
                bound = hashes[new[smallest(hashes[new], self.size)[-1]]]
                new = new[hashes[new] <= bound]
            hashes, marks = hashes[new], marks[new]
        self._added.append((hashes, marks))
        self._waiting += len(hashes)
        if self._waiting > 8 * self.size:
            self._settle()

    def _settle(self) -> None:
        """Sort what was added into the sample: not each time, since few values are added at a time."""
        if not self._waiting:
            return
        joined = np.concatenate([self._hashes, *(hashes for hashes, _ in self._added)])
        both = np.concatenate([self._marks, *(marks for _, marks in self._added)])
        order = np.argsort(joined)
        first = np.flatnonzero(np.diff(joined[order], prepend=~joined[order[:1]]))
        self._hashes = joined[order[first]][: self.size]
        self._marks = np.bitwise_or.reduceat(both[order], first)[: self.size]
        self._added, self._waiting = [], 0

    def share(self, mark: int) -> float:
        """The share of different values that carry a mark."""
        return float(np.mean((self.marks & mark) > 0)) if len(self) else 0.0

    @property
    def distinct(self) -> int:
        """An estimate of how many different values were added; exact up to `size`."""
        if len(self) < self.size:
            return len(self)
        return round((self.size - 1) / (float(self.hashes[-1]) / 2**64))
