"""Texts of a Parquet column chunk for those who count them: each different one once where the file says so itself.

Most columns of texts are written as a dictionary and references into it. Arrow spells every reference out; who counts
needs each entry once and how often it is referred to. So the kernel reads such pages, and those that hold their texts
themselves, right where they were decompressed. It is strict: whatever is not written as nearly all files are is left
to Arrow, which alone decides what a broken file is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.arrow import pa
from tasks.core.detectors.candidates import Bytes, Ints
from tasks.core.detectors.native import Kernel
from tasks.core.detectors.pages import PLAIN, PLAIN_DICTIONARY, Page

_LARGE = 8192
"""How many texts are worth a search of their own."""


@dataclass(frozen=True)
class Texts:
    """Texts of one column, none of which is null.

    Args:
        column: The column's name.
        array: They as Arrow holds them.
        weights: How many rows each stands for; None for one each.
        unshown: Whether they are entries of a dictionary that nothing refers to.
    """

    column: str
    array: Any
    weights: Ints | None
    unshown: bool = False

    @property
    def longest_bytes(self) -> int:
        """The length of the longest."""
        _, offsets, _ = self.array.buffers()
        return int(np.diff(np.frombuffer(offsets, np.int64)).max(initial=0))


def texts(
    kernel: Kernel, column: str, pages: Sequence[Page], content: Callable[[Page], Bytes | None], *, optional: bool
) -> list[Texts] | None:
    """The texts of a column chunk; None when Arrow must be asked.

    Args:
        kernel: What reads them.
        column: The column's name.
        pages: The chunk's pages, in order.
        content: Gives a page's bytes, decompressed; None when it cannot.
        optional: Whether values may be missing.
    """
    entries: Bytes | None = None
    counts: Ints = np.zeros(0, np.int64)
    found: list[Texts] = []
    for page in pages:
        data = content(page) if _known(page, first=page is pages[0]) else None
        if data is None:
            return None
        if page.is_dictionary:
            entries, counts = data, np.zeros(page.values, np.int64)
        elif page.refers:
            if entries is None or not kernel.referred(data, page.values, counts, optional=optional):
                return None
        else:
            laid = kernel.texts(data, page.values, optional=optional)
            if laid is None:
                return None
            found.append(Texts(column, _array(*laid), None))
    if entries is None:
        return found
    unshown = counts == 0
    if unshown.any():
        laid = kernel.entries(entries, unshown.astype(np.int64))
        if laid is None:
            return None
        found.append(Texts(column, _array(*laid), None, unshown=True))
    laid = kernel.entries(entries, counts)
    return None if laid is None else [Texts(column, _array(*laid), counts[: len(laid[0]) - 1]), *found]


def most_spelt(
    kernel: Kernel, pages: Sequence[Page], content: Callable[[Page], Bytes | None], *, optional: bool
) -> int | None:
    """How many bytes a column chunk's references can be at most once they are spelt out, whatever its dictionary holds.

    That is as if all of it were the entry that is referred to most. None when it is not known.

    Args:
        kernel, pages, content, optional: As for `texts`.
    """
    size_bytes = 0
    counts: Ints = np.zeros(0, np.int64)
    for page in pages:
        if not _known(page, first=page is pages[0]):
            return None
        if page.is_dictionary:
            size_bytes, counts = page.size_bytes, np.zeros(page.values, np.int64)
        elif page.refers:
            data = content(page)
            if data is None or not kernel.referred(data, page.values, counts, optional=optional):
                return None
    return size_bytes * int(counts.max(initial=0))


def joined(parts: list[Texts]) -> list[Texts]:
    """The same in one part where there are many small ones."""
    if (
        len(parts) < 2
        or any(part.unshown for part in parts)
        or sum(len(part.array) for part in parts) >= _LARGE * len(parts)
    ):
        return parts
    weights: Ints | None = None
    if any(part.weights is not None for part in parts):
        ones = [np.ones(len(part.array), np.int64) if part.weights is None else part.weights for part in parts]
        weights = np.concatenate(ones)
    return [Texts(parts[0].column, pa.concat_arrays([part.array for part in parts]), weights)]


def _known(page: Page, *, first: bool) -> bool:
    """Whether it is of a kind that the kernel reads, and may hold what it says."""
    if page.is_dictionary:
        return first and page.encoding in (PLAIN, PLAIN_DICTIONARY) and 4 * page.values <= page.size_bytes
    return page.first_version and (page.refers or page.encoding == PLAIN)


def _array(offsets: Ints, text: Bytes) -> Any:
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))
