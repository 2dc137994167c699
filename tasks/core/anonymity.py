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

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.core.errors import Invalid

_CLASS, _VALUE, _COUNT, _SHARE, _WHOLE = "class", "value", "count", "share", "whole"


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
class _Classes:
    """The number of each row's class beside the sensitive columns, and the size of the smallest class."""

    numbered: pl.DataFrame
    smallest: int

    @classmethod
    def of(cls, table: pl.DataFrame, quasi_identifiers: Sequence[str], sensitive: Iterable[str] = ()) -> _Classes:
        sensitive = tuple(sensitive)
        if not quasi_identifiers:
            raise Invalid("no quasi-identifier is named", "name the columns by which a row could be recognised")
        missing = sorted({*quasi_identifiers, *sensitive} - set(table.columns))
        if missing:
            raise Invalid(f"the table has no column {', '.join(missing)}", "correct the names")
        keys = [f"q{at}" for at in range(len(quasi_identifiers))]
        # Positions for names: a column may be a quasi-identifier and sensitive, and may be called like ours.
        columns = [table[name].alias(key) for name, key in zip(quasi_identifiers, keys, strict=True)]
        columns += [table[name].alias(f"s {name}") for name in dict.fromkeys(sensitive)]
        frame = pl.DataFrame(columns).with_columns(pl.selectors.float().fill_nan(None))
        sizes = frame.group_by(keys).len(_COUNT).with_row_index(_CLASS)
        smallest = sizes[_COUNT].to_numpy().min(initial=table.height)
        if not sensitive:
            return cls(sizes, int(smallest))
        return cls(frame.join(sizes, on=keys, nulls_equal=True).drop(keys), int(smallest))

    def counts(self, sensitive: str) -> pl.DataFrame:
        """For each class and each sensitive value in it: how many rows, their share of the class, of all rows."""
        counts = self.numbered.group_by(_CLASS, pl.col(f"s {sensitive}").alias(_VALUE)).len(_COUNT)
        whole = counts.group_by(_VALUE).agg((pl.col(_COUNT).sum() / counts[_COUNT].sum()).alias(_WHOLE))
        return counts.with_columns((pl.col(_COUNT) / pl.col(_COUNT).sum().over(_CLASS)).alias(_SHARE)).join(
            whole, on=_VALUE, nulls_equal=True
        )


def _distinct(counts: pl.DataFrame) -> int:
    sizes = counts.group_by(_CLASS).len(_COUNT)[_COUNT].to_numpy()
    return int(sizes.min()) if len(sizes) else 0


def _entropy(counts: pl.DataFrame) -> float:
    share = pl.col(_SHARE)
    entropies = counts.group_by(_CLASS).agg(-(share * share.log()).sum())[_SHARE].to_numpy()
    return math.exp(float(entropies.min())) if len(entropies) else 0.0


def _closeness(counts: pl.DataFrame, ordered: bool) -> float:
    if not counts.height:
        return 0.0
    if ordered:
        return _ordered_distance(counts)
    apart = (pl.col(_SHARE) - pl.col(_WHOLE)).abs().sum()
    # A value that is not in the class is as far away as its share of the whole.
    absent = 1 - pl.col(_WHOLE).sum()
    distances = counts.group_by(_CLASS).agg((0.5 * (apart + absent)).alias(_SHARE))[_SHARE].to_numpy()
    return min(1.0, max(0.0, float(distances.max())))


def _ordered_distance(counts: pl.DataFrame) -> float:
    """The greatest ordered distance, without a table of every class by every value.

    From one value that a class has to the next its cumulated share Q stays, while that of the whole, P, only grows:
    the sum of |Q - P| over the ranks between them follows from the sums of P up to each rank.
    """
    whole = counts.select(_VALUE, _WHOLE).unique().sort(_VALUE, nulls_last=False)
    steps = whole.height - 1
    if not steps:
        return 0.0
    ranked = counts.join(whole.select(_VALUE).with_row_index("rank"), on=_VALUE, nulls_equal=True)
    ranked = ranked.sort(_CLASS, "rank").with_columns(
        pl.col(_SHARE).cum_sum().over(_CLASS),
        pl.col("rank").shift(-1, fill_value=whole.height).over(_CLASS).alias("to"),
    )
    below = whole[_WHOLE].cum_sum().to_numpy()
    sums: npt.NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(below)])
    start, end, own = ranked["rank"].to_numpy(), ranked["to"].to_numpy(), ranked[_SHARE].to_numpy()
    turn = np.clip(np.searchsorted(below, own, side="right"), start, end)
    apart = own * (2.0 * turn - start - end) + sums[end] + sums[start] - 2.0 * sums[turn]
    distances = (
        ranked.select(_CLASS, "rank", pl.Series("apart", apart))
        .group_by(_CLASS)
        .agg(pl.col("apart").sum(), pl.col("rank").min())
    )
    before_the_first = sums[distances["rank"].to_numpy()]
    return float(np.max(distances["apart"].to_numpy() + before_the_first)) / steps
