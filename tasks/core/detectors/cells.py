"""A column's cells as each of those who look at them wants them: the kernel, numpy, Arrow and polars.

Readers hand over Arrow's arrays, and the kernel reads the very bytes. What polars is needed for is rare, so its own
layout of the texts is made only when something asks for it.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tasks.core.arrow import pa
from tasks.core.detectors import native
from tasks.core.detectors.candidates import Bytes, Hashes, Ints, hashed
from tasks.core.detectors.patterns import PLAIN

_HEAD = 2000
_PLAIN_HEAD = 512


class Cells:
    """Texts, none of which is null.

    Args:
        array: They as Arrow holds them: a string array with offsets of 32 or 64 bits.
    """

    def __init__(self, array: Any) -> None:
        self.array = array

    @classmethod
    def of(cls, text: pl.Series) -> Cells:
        """Those of a string series without nulls."""
        untyped: Any = text
        made = cls(untyped.to_arrow(compat_level=pl.CompatLevel.oldest()))
        made.text = text
        return made

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def text(self) -> pl.Series:
        """They as polars holds them."""
        return pl.Series(self.array)

    @cached_property
    def laid(self) -> tuple[Ints, Bytes]:
        """Where they begin in their bytes, one more than there are, and the bytes."""
        _, offsets, data = self.array.buffers()
        wide = pa.types.is_large_string(self.array.type)
        first = self.array.offset
        if offsets is None or not len(self):
            return np.zeros(1, np.int64), np.zeros(0, np.uint8)
        starts = np.frombuffer(offsets, np.int64 if wide else np.int32)[first : first + len(self) + 1]
        return starts.astype(np.int64), np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)

    @property
    def kernel(self) -> native.Kernel | None:
        """The kernel, where there is one and anything to be read."""
        return native.kernel() if len(self) else None

    @cached_property
    def hashes(self) -> Hashes:
        """The hash of each."""
        return self._hashes_of(len(self))

    def _hashes_of(self, first: int) -> Hashes:
        offsets, data = self.laid
        kernel = self.kernel
        return kernel.hashes(offsets[: first + 1], data) if kernel else hashed(offsets[: first + 1], data)

    @property
    def repeat(self) -> bool:
        """Whether the first of them come again so often that it pays to look at each different one once."""
        if len(self) < _HEAD:
            return False
        first = np.sort(self._hashes_of(_HEAD))
        return int(np.count_nonzero(first[1:] != first[:-1])) + 1 < _HEAD // 2

    def different(self) -> tuple[Cells, Ints]:
        """Each of them once, and how often it is there."""
        counted = self.array.value_counts()
        return Cells(counted.field("values")), counted.field("counts").to_numpy()

    @cached_property
    def plain(self) -> bool:
        """Whether all of them are of forms that no entity has (`patterns.PLAIN`)."""
        kernel = self.kernel
        if kernel is not None:
            return kernel.plain(*self.laid)
        if not len(self) or not re.match(PLAIN, self.array[0].as_py()):
            return False
        return bool(self.text.head(_PLAIN_HEAD).str.contains(PLAIN).all() and self.text.str.contains(PLAIN).all())
