"""Expectations about tables of counts, in Great Expectations' words, and the answers that need nothing but arithmetic.

A verdict waits for these answers, and Great Expectations takes seconds to load; so what a table of a few lines of
counts can be asked plainly is answered here, as Great Expectations 1.24 does (nulls are left out, bounds are inclusive
unless strict, `mostly` is a share), and everything else is left to it. Tests hold both answers equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tasks.core.policy import Action

FINDINGS_ALLOWED = "expect_findings_to_be_allowed"
"""Lintas' own expectation: what a rule decides is allowed as it stands."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation: its type and arguments, what it says in words, and the rule whose findings it is about."""

    kind: str
    kwargs: Mapping[str, Any]
    words: str
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class CountTable:
    """A table of counts with what is expected of it. It holds no value of any dataset."""

    name: str
    columns: tuple[str, ...]
    lines: tuple[tuple[Any, ...], ...]
    expectations: tuple[Expectation, ...]

    def values(self, column: str) -> list[Any]:
        """A column's values; nulls are None."""
        at = self.columns.index(column)
        return [line[at] for line in self.lines]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether an expectation is met, and how many values are not as expected where it is about single values."""

    success: bool
    unexpected: int = 0


def failure(expectation: Expectation, unexpected: int = 0) -> str:
    """A failed expectation in words."""
    return f"expectation failed: {expectation.words}" + (f", but not {unexpected} of them" if unexpected else "")


def answer(expectation: Expectation, table: CountTable) -> Answer | None:
    """Whether the table meets the expectation; None when that must be asked of Great Expectations."""
    kwargs = dict(expectation.kwargs)
    if expectation.kind == FINDINGS_ALLOWED:
        decided = zip(table.values("rule"), table.values("action"), strict=True)
        others = sum(rule == expectation.rule and action != Action.ALLOW.value for rule, action in decided)
        return Answer(others == 0, others)
    if expectation.kind == "expect_table_row_count_to_be_between":
        return Answer(_between(len(table.lines), kwargs)) if _are_bounds(kwargs) else None
    column = kwargs.pop("column", None)
    if column not in table.columns:
        return None
    values = table.values(column)
    present = [value for value in values if value is not None]
    if expectation.kind in _OF_COLUMNS:
        plain = present and _are_numbers(present) and _are_bounds(kwargs)
        return Answer(_between(_OF_COLUMNS[expectation.kind](present), kwargs)) if plain else None
    if expectation.kind not in _OF_VALUES:
        return None
    mostly = kwargs.pop("mostly", 1.0)
    fits, wrong, of_nulls_too = _OF_VALUES[expectation.kind]
    if not fits(kwargs) or not _are_numbers([mostly]) or (fits is _are_bounds and not _are_numbers(present)):
        return None
    looked_at = values if of_nulls_too else present
    unexpected = sum(wrong(value, kwargs) for value in looked_at)
    share = (len(looked_at) - unexpected) / len(looked_at) if looked_at else 1.0
    return Answer(share >= mostly, unexpected)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _are_bounds(kwargs: Mapping[str, Any]) -> bool:
    """Whether the arguments are bounds in order, of which there is one at least, and nothing else."""
    bounds = [kwargs[name] for name in ("min_value", "max_value") if kwargs.get(name) is not None]
    flags = [kwargs.get(name, False) for name in ("strict_min", "strict_max")]
    known = kwargs.keys() <= {"min_value", "max_value", "strict_min", "strict_max"}
    in_order = bool(bounds) and _are_numbers(bounds) and bounds == sorted(bounds)
    return known and in_order and all(isinstance(flag, bool) for flag in flags)


def _is_set(kwargs: Mapping[str, Any]) -> bool:
    """Whether the only argument is a set of texts or of numbers that is not empty."""
    if len(kwargs) != 1 or not isinstance(kwargs.get("value_set"), list):
        return False
    wanted = cast("list[Any]", kwargs["value_set"])
    return bool(wanted) and (_are_numbers(wanted) or all(isinstance(value, str) for value in wanted))


def _is_nothing(kwargs: Mapping[str, Any]) -> bool:
    return not kwargs


def _between(value: float, kwargs: Mapping[str, Any]) -> bool:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    above = low is None or (value > low if kwargs.get("strict_min") else value >= low)
    return above and (high is None or (value < high if kwargs.get("strict_max") else value <= high))


_OF_COLUMNS: dict[str, Callable[[Sequence[float]], float]] = {
    "expect_column_max_to_be_between": max,
    "expect_column_min_to_be_between": min,
    "expect_column_sum_to_be_between": math.fsum,
    "expect_column_mean_to_be_between": lambda values: math.fsum(values) / len(values),
}
Kwargs = Mapping[str, Any]
_OF_VALUES: dict[str, tuple[Callable[[Kwargs], bool], Callable[[Any, Kwargs], bool], bool]] = {
    "expect_column_values_to_be_between": (_are_bounds, lambda value, kwargs: not _between(value, kwargs), False),
    "expect_column_values_to_be_in_set": (_is_set, lambda value, kwargs: value not in kwargs["value_set"], False),
    "expect_column_values_to_not_be_in_set": (_is_set, lambda value, kwargs: value in kwargs["value_set"], False),
    "expect_column_values_to_be_null": (_is_nothing, lambda value, _: value is not None, True),
    "expect_column_values_to_not_be_null": (_is_nothing, lambda value, _: value is None, True),
}
"""By kind: what arguments it must have, which values are not as expected, and whether nulls are values to it."""
