"""Structural privacy: how well the rows of a table hide in each other, whatever single cells say.

Rows with the same quasi-identifiers (columns by which somebody could be recognised together, such as age, sex and
postcode) form an equivalence class. k-anonymity asks how large the smallest class is, l-diversity how many sensitive
values there are in each, t-closeness how far the sensitive values of a class are from those of the whole table.

A null is a value like any other: rows whose quasi-identifier is missing form a class of their own. Leaving them out
would hide the row that stands alone. NaN is a null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.core.arrow import compute as pc
from tasks.core.arrow import pa
from tasks.core.errors import Invalid

_MOST_CODES = 2**60
_ENCODED = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.String, pl.Boolean)
_FEW_CODES = 2**16
"""So many codes are counted in a table of all of them, however few rows there are."""

_Ints: TypeAlias = npt.NDArray[np.int64]
_Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Diversity:
    """What the equivalence classes show of one sensitive column.

    Args:
        column: Its name.
        distinct: The fewest different values in a class: distinct l-diversity.
        entropy: The least effective number of values in a class: entropy l-diversity.
        closeness: The greatest distance of a class from the whole table, from 0 to 1: t-closeness.
    """

    column: str
    distinct: int
    entropy: float
    closeness: float


@dataclass(frozen=True, slots=True)
class Anonymity:
    """What was measured of a table: the rows of its smallest class (0 without rows), and each sensitive column."""

    rows: int
    k: int
    sensitive: tuple[Diversity, ...] = ()


def measure(table: pl.DataFrame, quasi_identifiers: Sequence[str], sensitive: Sequence[str] = ()) -> Anonymity:
    """Everything at once; see the functions below for what each figure is.

    Raises:
        Invalid: A column is missing, or no quasi-identifier is named.
    """
    classes = _Classes.of(table, quasi_identifiers, sensitive)
    found = [
        Diversity(name, _distinct(counts), _entropy(counts), _closeness(counts, table[name].dtype.is_numeric()))
        for name in sensitive
        for counts in [classes.counts(name)]
    ]
    return Anonymity(table.height, classes.smallest, tuple(found))


def k_anonymity(table: pl.DataFrame, quasi_identifiers: Sequence[str]) -> int:
    """The size of the smallest equivalence class: no row can be told from fewer than k - 1 others.

    Source: P. Samarati and L. Sweeney, "Protecting Privacy when Disclosing Information", SRI-CSL-98-04, 1998.

    >>> k_anonymity(pl.DataFrame({"age": [30, 30, None, None, None]}), ["age"])
    2
    """
    return _Classes.of(table, quasi_identifiers).smallest


def distinct_l_diversity(table: pl.DataFrame, quasi_identifiers: Sequence[str], sensitive: str) -> int:
    """The fewest different sensitive values in an equivalence class; a null is one of them.

    Source: A. Machanavajjhala et al., "l-Diversity: Privacy Beyond k-Anonymity", ACM TKDD 1(1), 2007, section 4.
    """
    return _distinct(_Classes.of(table, quasi_identifiers, [sensitive]).counts(sensitive))


def entropy_l_diversity(table: pl.DataFrame, quasi_identifiers: Sequence[str], sensitive: str) -> float:
    """The least of exp(-sum p ln p) over the equivalence classes, p the shares of the sensitive values in a class.

    That is the number of equally frequent values with the same entropy, so it never exceeds the distinct figure.

    Source: Machanavajjhala et al., 2007, definition 4.1 (entropy l-diversity: the entropy is at least ln l).
    """
    return _entropy(_Classes.of(table, quasi_identifiers, [sensitive]).counts(sensitive))


def t_closeness(table: pl.DataFrame, quasi_identifiers: Sequence[str], sensitive: str) -> float:
    """The greatest earth mover's distance between the sensitive values of a class and those of the whole table.

    Categories are all equally far apart: half the sum of |q - p|. Of numbers the m different values that occur are
    one step apart in their order, a null before all of them: the sum of |cumulated (q - p)| over m - 1.

    Source: N. Li, T. Li and S. Venkatasubramanian, "t-Closeness: Privacy Beyond k-Anonymity and l-Diversity", ICDE
    2007, section 4 (equal distance, ordered distance).
    """
    counts = _Classes.of(table, quasi_identifiers, [sensitive]).counts(sensitive)
    return _closeness(counts, table[sensitive].dtype.is_numeric())


@dataclass(frozen=True, slots=True)
class _Codes:
    """Values as whole numbers below `different`: equal values have equal ones, and a null has one of its own."""

    of_row: _Ints
    different: int

    @classmethod
    def of(cls, values: pl.Series, *, in_order: bool = False) -> _Codes:
        """The codes of a column; `in_order` those of numbers in the order of the numbers, a null before all."""
        if values.dtype.is_float():
            values = values.fill_nan(None)
        elif not isinstance(values.dtype, _ENCODED):
            plain = pl.Float64 if values.dtype.is_numeric() else pl.String
            values = values.to_physical() if values.dtype.is_temporal() else values.cast(plain)
        untyped: Any = values
        encoded = pc.dictionary_encode(untyped.to_arrow(compat_level=pl.CompatLevel.oldest()), null_encoding="encode")
        codes, different = _indices(encoded)
        if in_order:
            order = np.frombuffer(
                pc.array_sort_indices(encoded.dictionary, null_placement="at_start").buffers()[1], np.uint64, different
            )
            rank = np.empty(different, np.int64)
            rank[order] = np.arange(different)
            codes = rank[codes]
        return cls(codes, different)

    def with_others(self, others: _Codes) -> _Codes:
        """One code for both; codes of the pairs that do not occur are left free while there is room for them."""
        codes, different = self.of_row, self.different
        if different * others.different > _MOST_CODES:
            codes, different = _indices(pc.dictionary_encode(pa.array(codes)))
        return _Codes(codes * others.different + others.of_row, different * others.different)


def _indices(encoded: Any) -> tuple[_Ints, int]:
    """The indices of a dictionary array and the length of its dictionary."""
    indices = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(encoded.indices))
    return indices.astype(np.int64), len(encoded.dictionary)


def _counted(codes: _Codes) -> tuple[_Ints, _Ints]:
    """The codes that occur, in order, and how often each does."""
    if codes.different <= max(_FEW_CODES, 4 * len(codes.of_row)):
        counts = np.bincount(codes.of_row, minlength=codes.different)
        there = np.flatnonzero(counts)
        return there, counts[there]
    found, counts = np.unique(codes.of_row, return_counts=True)
    return found, counts


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of each class and each sensitive value in it, ordered by both, what it counts.

    Args:
        of_class: The number of the class.
        value: The code of the value, below `different`.
        share, whole: The value's share of the class, and of all rows.
    """

    of_class: _Ints
    value: _Ints
    share: _Floats
    whole: _Floats
    different: int

    def sums(self, weights: _Floats) -> _Floats:
        """The sum of the weights in each class."""
        return np.bincount(self.of_class, weights=weights).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Classes:
    """The class of each row."""

    codes: _Codes
    table: pl.DataFrame

    @classmethod
    def of(cls, table: pl.DataFrame, quasi_identifiers: Sequence[str], sensitive: Iterable[str] = ()) -> _Classes:
        if not quasi_identifiers:
            raise Invalid("no quasi-identifier is named", "name the columns by which a row could be recognised")
        missing = sorted({*quasi_identifiers, *sensitive} - set(table.columns))
        if missing:
            raise Invalid(f"the table has no column {', '.join(missing)}", "correct the names")
        codes = _Codes.of(table[quasi_identifiers[0]])
        for name in quasi_identifiers[1:]:
            codes = codes.with_others(_Codes.of(table[name]))
        return cls(codes, table)

    @property
    def smallest(self) -> int:
        """The size of the smallest class."""
        return int(_counted(self.codes)[1].min(initial=self.table.height))

    def counts(self, sensitive: str) -> _Counts:
        """What the classes show of a column."""
        column = self.table[sensitive]
        values = _Codes.of(column, in_order=column.dtype.is_numeric())
        pairs, counts = _counted(self.codes.with_others(values))
        of_class, value = pairs // max(values.different, 1), pairs % max(values.different, 1)
        # Numbered anew from 0: the codes of classes have gaps.
        of_class = np.cumsum(np.diff(of_class, prepend=of_class[:1]) != 0)
        sizes = np.bincount(of_class, weights=counts)
        whole = np.bincount(values.of_row, minlength=values.different) / max(self.table.height, 1)
        return _Counts(of_class, value, counts / sizes[of_class], whole, values.different)


def _distinct(counts: _Counts) -> int:
    return int(np.bincount(counts.of_class).min(initial=counts.different)) if len(counts.of_class) else 0


def _entropy(counts: _Counts) -> float:
    entropies = counts.sums(-counts.share * np.log(counts.share))
    return math.exp(float(entropies.min())) if len(entropies) else 0.0


def _closeness(counts: _Counts, ordered: bool) -> float:
    if not len(counts.of_class):
        return 0.0
    if ordered:
        return _ordered_distance(counts)
    whole = counts.whole[counts.value]
    # A value that is not in the class is as far away as its share of the whole.
    distances = 0.5 * (counts.sums(np.abs(counts.share - whole)) + 1 - counts.sums(whole))
    return min(1.0, max(0.0, float(distances.max())))


def _ordered_distance(counts: _Counts) -> float:
    """The greatest ordered distance, without a table of every class by every value.

    From one value that a class has to the next its cumulated share Q stays, while that of the whole, P, only grows:
    the sum of |Q - P| over the ranks between them follows from the sums of P up to each rank.
    """
    steps = counts.different - 1
    if not steps:
        return 0.0
    below = np.cumsum(counts.whole)
    sums: _Floats = np.concatenate([[0.0], np.cumsum(below)])
    first = np.flatnonzero(np.diff(counts.of_class, prepend=-1))
    running = np.cumsum(counts.share)
    own = running - (running[first] - counts.share[first])[counts.of_class]
    start = counts.value
    end = np.append(start[1:], counts.different)
    end[np.append(first[1:], len(start)) - 1] = counts.different
    turn = np.clip(np.searchsorted(below, own, side="right"), start, end)
    apart = own * (2.0 * turn - start - end) + sums[end] + sums[start] - 2.0 * sums[turn]
    return float(np.max(counts.sums(apart) + sums[start[first]])) / steps
