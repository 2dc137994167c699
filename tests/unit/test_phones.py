"""Telephone numbers against libphonenumber itself, which the vectorised plans must agree with."""

from __future__ import annotations

import random
import re

import numpy as np
import phonenumbers
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneMetadata, PhoneNumberFormat, PhoneNumberType

from tasks.core.detectors.candidates import Evidence
from tasks.core.detectors.detection import PHONE_REGIONS, Detection
from tasks.core.detectors.plans import accepted, automaton
from tasks.core.detectors.search import hits_in

digits = st.text("0123456789", min_size=9, max_size=13)


def evidence(text: str, *regions: str) -> set[Evidence]:
    hits = hits_in(pl.Series([text]), Detection(phone_regions=regions or PHONE_REGIONS))
    return {each.evidence for each in hits if each.entity == "PHONE_NUMBER" and each.valid.any()}


def found(text: str, *regions: str) -> bool:
    return bool(evidence(text, *regions))


@pytest.mark.parametrize("region", PHONE_REGIONS)
@pytest.mark.parametrize("form", [PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL])
@pytest.mark.parametrize("kind", [PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE])
def test_the_example_numbers_of_a_known_country_are_found_as_they_are_written(
    region: str, form: int, kind: int
) -> None:
    number = phonenumbers.example_number_for_type(region, kind)
    assert number is not None
    assert found(phonenumbers.format_number(number, form))


@settings(max_examples=150, deadline=None)
@given(digits, st.sampled_from(PHONE_REGIONS))
def test_bare_digits_that_are_found_are_valid_for_libphonenumber(text: str, region: str) -> None:
    if found(text, region):
        bare = text.removeprefix("00").removeprefix("011")
        readings = [(text, region), (f"+{text}", None), (f"+{bare}", None)]
        assert any(is_valid(*reading) for reading in readings)


def is_valid(text: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


@settings(max_examples=150, deadline=None)
@given(st.text("123456789", min_size=7, max_size=16))
def test_a_number_with_a_plus_sign_is_as_long_as_its_country_s_numbers(text: str) -> None:
    if Evidence.SHAPED in evidence(f"+{text}"):
        assert phonenumbers.is_possible_number(phonenumbers.parse(f"+{text}", None))


@pytest.mark.parametrize("kind", [PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE, PhoneNumberType.TOLL_FREE])
def test_the_digits_of_any_country_s_numbers_are_found_as_they_are_written_there(kind: int) -> None:
    missed: set[str] = set()
    for region in phonenumbers.SUPPORTED_REGIONS:
        number = phonenumbers.example_number_for_type(region, kind)
        written = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL) if number else ""
        digits = re.sub("[^0-9]", "", written)
        if 9 <= len(digits) <= 13 and not found(digits, region):
            missed.add(region)
    assert missed <= {"AR", "BY"}, "these write more before a number than the prefix of their plan"


def test_the_trunk_prefix_is_missed_where_people_never_leave_it_out() -> None:
    assert found("11987654321", "BR")
    assert found("13912345678", "CN")
    assert found("1800654321", "AU")
    assert not found("7400123456", "GB")
    assert not found("412345678", "AU")


def test_numbers_of_other_countries_are_found_when_they_are_asked_for() -> None:
    assert not found("612 345 671", "US")
    assert found("612 345 671", "US", "ES")


def test_the_automata_take_what_the_expressions_of_the_plans_take() -> None:
    draw = random.Random(5)
    for region in PHONE_REGIONS:
        plan = PhoneMetadata.metadata_for_region(region)
        expression = plan.mobile.national_number_pattern
        example = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
        begin = str(example.national_number)
        near = [begin[: draw.randrange(len(begin))] + str(draw.randrange(10**9)) for _ in range(400)]
        numbers = [*near, begin, begin[:-1], f"{begin}1", "0", ""]
        made = automaton(expression.replace(r"\d", "[0-9]"))
        for text in numbers:
            taken = accepted(made, np.array([[int(digit) for digit in text]], np.uint8).reshape(1, -1))[0]
            assert taken == bool(re.fullmatch(expression, text)), text
