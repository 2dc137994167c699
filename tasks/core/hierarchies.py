"""Coarser and coarser forms of a column, and the least coarse ones under which a table is anonymous enough.

Full-domain generalisation: a whole column has one level, so that equal values stay equal. All combinations of levels
form a lattice; the one that loses least is found by trying them in the order of their loss, on the table's different
rows and their counts. Rows whose class is too small or not diverse may be left out up to a limit.

Source: P. Samarati, "Protecting Respondents' Identities in Microdata Release", IEEE TKDE 13(6), 2001 (generalisation
with suppression); the loss of a level is its share of the hierarchy's height, as in L. Sweeney, "Achieving k-Anonymity
Privacy Protection Using Generalization and Suppression", IJUFKS 10(5), 2002 (precision).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from tasks.core.anonymity import measure
from tasks.core.policy import AnonymityRule, Hierarchy

_ROUNDING = 1e-9
_DATE = r"^([0-9]{4})[-/.]?([0-9]{2})?"


@dataclass(frozen=True)
class Coarsening:
    """What is done to one table.

    Args:
        path: The table, as findings name it.
        rule: The rule of the policy's `anonymity`.
        levels: How coarse each column becomes; 0 leaves it as it is.
        rows: Rows of the table before.
        suppressed: Rows that are left out.
        left_out: The classes whose rows those are, by the quasi-identifiers as they become.
    """

    path: str
    rule: AnonymityRule
    levels: Mapping[str, int]
    rows: int
    suppressed: int
    left_out: pl.DataFrame = field(repr=False, compare=False)

    def apply(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """The quasi-identifiers of some rows as they become, and which of the rows stay."""
        columns = list(self.rule.quasi_identifiers)
        coarse = _at_levels(rows.select(columns), self.rule, self.levels)
        if not self.left_out.height:
            return coarse, pl.repeat(True, rows.height, eager=True)
        texts = _as_texts(coarse)
        gone = self.left_out.with_columns(pl.lit(True).alias("(gone)"))
        stays = texts.join(gone, on=columns, how="left", nulls_equal=True, maintain_order="left")["(gone)"].is_null()
        return coarse, stays

    def as_dict(self) -> dict[str, object]:
        """JSON-compatible: figures and the policy's own words, never a value."""
        return {
            "path": self.path,
            "rule": self.rule.name,
            "levels": {name: self.describe(name) for name in self.levels},
            "rows": self.rows,
            "rows_suppressed": self.suppressed,
        }

    def describe(self, column: str) -> str:
        """The level of a column in the policy's words."""
        level = self.levels[column]
        return self.rule.hierarchies[column].words(level)


def coarse(values: pl.Series, hierarchy: Hierarchy, level: int) -> pl.Series:
    """A column at a level of its hierarchy; nulls, and texts that are no such numbers or dates, stay as they are."""
    if not level:
        return values
    if hierarchy.steps:
        return _stepped(values, hierarchy.steps[level - 1])
    if hierarchy.keep:
        kept = hierarchy.keep[level - 1]
        return values.cast(pl.String).str.slice(0, kept) + "*"
    return _dated(values, hierarchy.dates[level - 1])


def _stepped(values: pl.Series, step: float) -> pl.Series:
    if values.dtype == pl.String:
        numbers = values.cast(pl.Float64, strict=False)
        stepped = ((numbers / step).floor() * step).round(9)
        whole = step == int(step)
        return (stepped.cast(pl.Int64) if whole else stepped).cast(pl.String).fill_null(values)
    if values.dtype.is_integer() and step == int(step):
        return values // int(step) * int(step)
    return ((values.cast(pl.Float64) / step).floor() * step).round(9)


def _dated(values: pl.Series, precision: str) -> pl.Series:
    parts = values.cast(pl.String)
    year, month = parts.str.extract(_DATE, 1), parts.str.extract(_DATE, 2)
    made = {"month": year + "-" + month, "year": year, "decade": year.str.slice(0, 3) + "0s"}[precision]
    return made.fill_null(parts)


def least_coarse(path: str, rule: AnonymityRule, table: pl.DataFrame) -> Coarsening | None:
    """The levels under which a table keeps a rule's limits at the least loss; None when none do.

    Args:
        path: What findings call the table.
        rule: Its limits, its hierarchies and how many rows may be left out.
        table: Its quasi-identifiers and sensitive columns.
    """
    columns = list(rule.quasi_identifiers)
    different = table.group_by([*columns, *rule.sensitive], maintain_order=True).len("(rows)")
    for levels in _by_loss(rule):
        found = _at_levels(different.select(columns), rule, levels)
        at = found.with_columns(different["(rows)"], *(different[name] for name in rule.sensitive))
        gone = _too_small(at, rule)
        suppressed = int(gone["(rows)"].sum())
        if suppressed > rule.suppress_up_to * table.height or (suppressed == table.height and table.height):
            continue
        left = at.join(gone, on=columns, how="anti", nulls_equal=True) if gone.height else at
        if rule.t >= 1 or _is_close(left, rule):
            return Coarsening(path, rule, levels, table.height, suppressed, _as_texts(gone.select(columns)))
    return None


def _by_loss(rule: AnonymityRule) -> Iterator[dict[str, int]]:
    """All combinations of levels, the one that loses least first; of equals the one that spares earlier columns."""
    heights = {name: rule.hierarchies[name].height for name in rule.quasi_identifiers if name in rule.hierarchies}
    ranges = [range(height + 1) for height in heights.values()]
    combinations = list(itertools.product(*ranges))
    combinations.sort(key=lambda at: (sum(n / h for n, h in zip(at, heights.values(), strict=True)), at))
    yield from (dict(zip(heights, at, strict=True)) for at in combinations)


def _at_levels(rows: pl.DataFrame, rule: AnonymityRule, levels: Mapping[str, int]) -> pl.DataFrame:
    return rows.with_columns(
        [coarse(rows[name], rule.hierarchies[name], level).alias(name) for name, level in levels.items() if level]
    )


def _as_texts(rows: pl.DataFrame) -> pl.DataFrame:
    """As texts, so that pieces of one table whose files have different types meet."""
    return rows.with_columns(pl.all().cast(pl.String))


def _too_small(at: pl.DataFrame, rule: AnonymityRule) -> pl.DataFrame:
    """The classes that are too small or not diverse enough, with their rows."""
    columns, rows = list(rule.quasi_identifiers), pl.col("(rows)")
    enough = [rows.sum() >= rule.k]
    for name in rule.sensitive:
        shares = rows.sum().over([*columns, name]) / rows.sum().over(columns)
        at = at.with_columns((-(shares.log()) * rows / rows.sum().over(columns)).alias(f"(entropy) {name}"))
        enough.append(pl.col(name).n_unique() >= rule.distinct_l)
        enough.append(pl.col(f"(entropy) {name}").sum().exp() >= rule.entropy_l - _ROUNDING)
    classes = at.group_by(columns, maintain_order=True).agg(rows.sum(), pl.all_horizontal(enough).alias("(enough)"))
    return classes.filter(~pl.col("(enough)")).drop("(enough)")


def _is_close(left: pl.DataFrame, rule: AnonymityRule) -> bool:
    whole = left.select(pl.all().repeat_by("(rows)").explode()).drop("(rows)")
    found = measure(whole, rule.quasi_identifiers, rule.sensitive)
    return all(each.closeness <= rule.t + _ROUNDING for each in found.sensitive)
