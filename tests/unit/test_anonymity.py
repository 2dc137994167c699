"""Structural privacy: the figures of published files, of tables small enough to count by hand, and the laws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.anonymity import (
    distinct_l_diversity,
    entropy_l_diversity,
    k_anonymity,
    measure,
    t_closeness,
)
from tasks.core.errors import Invalid

SHARED = next((up / "shared" for up in Path(__file__).parents if (up / "shared/data/kanonymity").is_dir()), None)
QUASI = ["age", "education", "occupation", "relationship", "sex", "native-country"]


@pytest.mark.skipif(SHARED is None, reason="the anonymised Adult files are not beside the checkout")
@pytest.mark.parametrize(("k", "t"), [(3, 0.713564), (10, 0.634945), (20, 0.668451)])
def test_the_anonymised_adult_files_have_the_figures_that_pycanon_gives(k: int, t: float) -> None:
    assert SHARED is not None
    found = measure(pl.read_csv(SHARED / f"data/kanonymity/adult_anon_{k}.csv"), QUASI, ["salary-class"])
    salary = found.sensitive[0]
    assert (found.k, salary.distinct, int(salary.entropy)) == (k, 1, 1)
    assert salary.closeness == pytest.approx(t, abs=5e-7)


# By hand


def test_rows_without_a_quasi_identifier_are_a_class_of_their_own() -> None:
    table = pl.DataFrame({"age": [30, 30, 30, None], "sex": ["F", "F", "F", "F"]})
    assert k_anonymity(table, ["age", "sex"]) == 1
    assert k_anonymity(table, ["sex"]) == 4
    assert k_anonymity(pl.DataFrame({"age": [1.0, 1.0, None, float("nan")]}), ["age"]) == 2


def test_diversity_is_that_of_the_poorest_class() -> None:
    table = pl.DataFrame({"q": [1, 1, 1, 1, 2, 2, 2, 2], "s": ["a", "b", "c", None, "a", "a", "a", "b"]})
    assert distinct_l_diversity(table, ["q"], "s") == 2
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert entropy_l_diversity(table, ["q"], "s") == pytest.approx(math.exp(entropy))


def test_numbers_are_as_far_apart_as_in_the_paper_on_t_closeness() -> None:
    """Li et al., ICDE 2007, section 4: the classes {3, 4, 5}k and {6, 8, 11}k out of 3k to 11k."""
    table = pl.DataFrame({"q": [1, 1, 1, 2, 2, 2, 3, 3, 3], "salary": [3, 4, 5, 6, 8, 11, 7, 9, 10]})
    assert t_closeness(table, ["q"], "salary") == pytest.approx(0.375)
    others = table.with_columns(q=pl.col("q") == 2)
    assert t_closeness(others, ["q"], "salary") == pytest.approx(0.167, abs=5e-4)


def test_categories_are_all_equally_far_apart_and_a_null_is_one_of_them() -> None:
    table = pl.DataFrame({"q": [1, 1, 2, 2], "s": ["a", "a", "b", None]})
    assert t_closeness(table, ["q"], "s") == pytest.approx(0.5)
    assert t_closeness(table.with_columns(s=pl.lit("a")), ["q"], "s") == 0


def test_a_table_without_rows_has_no_class() -> None:
    empty = pl.DataFrame({"q": [], "s": []}, schema={"q": pl.Int64, "s": pl.String})
    found = measure(empty, ["q"], ["s"])
    assert (found.rows, found.k, found.sensitive[0].distinct, found.sensitive[0].closeness) == (0, 0, 0, 0)


@pytest.mark.parametrize(("quasi", "sensitive"), [([], []), (["other"], []), (["q"], ["other"])])
def test_columns_that_are_not_there_are_named(quasi: list[str], sensitive: list[str]) -> None:
    with pytest.raises(Invalid, match=r"other|quasi-identifier"):
        measure(pl.DataFrame({"q": [1]}), quasi, sensitive)


# Laws

cells = st.one_of(st.none(), st.integers(0, 3))
rows = st.lists(st.tuples(cells, cells, cells, st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=30)


def frame(of: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {"p": pl.Int64, "q": pl.Int64, "number": pl.Int64, "word": pl.String}
    return pl.DataFrame(of, schema=schema, orient="row")


def figures(of: list[tuple[Any, ...]]) -> list[float]:
    found = measure(frame(of), ["p", "q"], ["number", "word"])
    return [found.k, *(x for each in found.sensitive for x in (each.distinct, each.entropy, each.closeness))]


@given(rows.flatmap(lambda of: st.tuples(st.just(of), st.permutations(of))))
def test_the_order_of_rows_does_not_matter(both: tuple[list[Any], list[Any]]) -> None:
    assert figures(both[0]) == pytest.approx(figures(both[1]))


@given(rows)
def test_a_coarser_quasi_identifier_never_lowers_k_or_l(of: list[Any]) -> None:
    table = frame(of)
    coarse = table.with_columns(pl.col("q") // 2)
    assert k_anonymity(coarse, ["p", "q"]) >= k_anonymity(table, ["p", "q"])
    assert k_anonymity(table, ["p"]) >= k_anonymity(table, ["p", "q"])
    assert distinct_l_diversity(coarse, ["p", "q"], "word") >= distinct_l_diversity(table, ["p", "q"], "word")


@given(rows)
def test_both_distances_are_what_their_definitions_say(of: list[Any]) -> None:
    table = frame(of)
    for column in ("number", "word"):
        assert t_closeness(table, ["p", "q"], column) == pytest.approx(by_definition(of, 2 + (column == "word")))


def by_definition(of: list[tuple[Any, ...]], at: int) -> float:
    """The distance with every class by every value, in the words of the paper."""
    values = sorted({row[at] for row in of}, key=lambda value: (value is not None, value if value is not None else 0))
    worst = 0.0
    for group in {row[:2] for row in of}:
        inside = [row[at] for row in of if row[:2] == group]
        apart = [inside.count(v) / len(inside) - [row[at] for row in of].count(v) / len(of) for v in values]
        if at == 3:
            worst = max(worst, sum(map(abs, apart)) / 2)
        elif len(values) > 1:
            worst = max(worst, sum(abs(sum(apart[: i + 1])) for i in range(len(values))) / (len(values) - 1))
    return worst
