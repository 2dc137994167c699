"""Telephone numbers against libphonenumber itself, which the vectorised plans must agree with."""

from __future__ import annotations

import phonenumbers
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from tasks.core.detectors.candidates import Evidence
from tasks.core.detectors.detection import PHONE_REGIONS, Detection
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


def test_numbers_of_other_countries_are_found_when_they_are_asked_for() -> None:
    assert not found("612 345 671", "US")
    assert found("612 345 671", "US", "ES")
