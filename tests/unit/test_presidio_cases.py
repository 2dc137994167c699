"""Tables of somebody else's tests, read as syntax alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.privacy import presidio_cases
from benchmarks.privacy.presidio_cases import Case, by_hits, by_spans, read
from tasks.core.detectors.detection import EVERYTHING

TABLE = """
import nothing_of_this_is_imported

LONG = "4" + "0" * 15
WEAK = 0.2

@pytest.fixture(scope="module")
def entities():
    return ["CREDIT_CARD"]

@pytest.mark.parametrize("text, expected_len, expected_positions, expected_score_ranges", [
    # ("4000 0000 0000 0002 in a comment", 1, ((0, 19),), ((0.9, 0.9),)),
    ("paid by 4000 0000 0000 0002", 1, ((8, 27),), ((0.5, "max"),)),
    (f"{LONG} or", 1, [(0, len(LONG))], [(0.1, 0.3)] * 1),
    ("4000 0000 0000 0003", 0, (), ()),
    (made_by(1), 0, (), ()),
])
def test_cards(text, expected_len, expected_positions, expected_score_ranges):
    assert len(analyze(text)) == expected_len

@pytest.mark.parametrize("text, expected_positions", [("4000 0000 0000 0002", ((0, 19),))])
def test_guesses(text, expected_positions):
    assert_result(analyze(text)[0], entities[0], 0, 19, WEAK)

@pytest.mark.parametrize("number", ["4000", "5000"])
def test_nothing(number):
    assert analyze(number) == []

@pytest.mark.parametrize("number", ["6000"])
def test_something_else(number):
    assert analyze(number)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one table."""
    tests = tmp_path / "presidio-analyzer" / "tests"
    tests.mkdir(parents=True)
    (tests / "test_credit_card_recognizer.py").write_text(TABLE)
    return tmp_path


def test_rows_become_cases_and_those_that_say_no_place_are_counted(checkout: Path) -> None:
    cases, unread = read(checkout)
    assert cases == [
        Case("CREDIT_CARD", "paid by 4000 0000 0000 0002", 1, ((8, 27),), 1.0),
        Case("CREDIT_CARD", "4000000000000000 or", 1, ((0, 16),), 0.3),
        Case("CREDIT_CARD", "4000 0000 0000 0003", 0, (), 0.0),
        Case("CREDIT_CARD", "4000 0000 0000 0002", 1, ((0, 19),), 0.2),
        Case("CREDIT_CARD", "4000", 0, (), 0.0),
        Case("CREDIT_CARD", "5000", 0, (), 0.0),
    ]
    assert unread == 2, "a call, and a test that does not say where"
    assert [case.group for case in cases].count("CREDIT_CARD, below 0.5") == 2


def test_a_directory_without_such_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="checkout of Presidio"):
        read(tmp_path)


def test_a_case_is_found_where_its_table_says_and_false_where_it_says_nothing() -> None:
    right = Case("CREDIT_CARD", "paid by 4000 0000 0000 0002", 1, ((8, 27),), 1.0)
    elsewhere = Case("CREDIT_CARD", "paid by 4000 0000 0000 0002", 1, ((0, 4),), 1.0)
    nothing = Case("CREDIT_CARD", "paid by 4000 0000 0000 0002", 0, (), 1.0)
    cases = [right, elsewhere, nothing]
    for answers in (by_hits(cases, EVERYTHING), by_spans(cases)):
        assert [(answer.found, answer.false) for answer in answers] == [(True, False), (False, True), (False, True)]


def test_names_of_presidio_stand_for_entities_that_are_known() -> None:
    known = presidio_cases.ENTITIES
    assert all(name in known for names in presidio_cases.OTHER_NAMES.values() for name in names)
