"""Telephone numbers by the numbering plans of the world, as libphonenumber knows them.

The plans (https://github.com/google/libphonenumber, by way of the package `phonenumbers`) are regular expressions over
a number's digits. Those of the countries asked for become automata (see `plans`), which numpy walks for a whole column
at once and the kernel for each number; no number is looked at in Python. They clear what
`phonenumbers.is_valid_number` clears, except that a number must also be written as people of the country write it: with
the trunk prefix where they never leave it out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tasks.core.detectors.candidates import DIGIT, Evidence, Hits, Mask, different
from tasks.core.detectors.plans import Automaton, accepted, automaton

_KINDS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
    "voicemail",
)  # fmt: skip
_ABROAD = "(?:00|011)?"
_NO_REGION = "001"
SHORT = 8
"""So few digits are a number with its trunk prefix in few countries."""

_TOGETHER = 12
"""How many countries' plans become one automaton."""


def known_regions() -> frozenset[str]:
    """Every country whose numbering plan is known."""
    import phonenumbers

    return frozenset(phonenumbers.SUPPORTED_REGIONS)


def checked(found: Iterator[Hits], regions: tuple[str, ...]) -> Iterator[Hits]:
    """Hits with telephone numbers held against the numbering plans; other hits as they are.

    Written with a plus sign a number must be as long as its country's numbers are. Bare digits must be in a plan, and
    what begins with brackets or is as short as eight digits from a zero on may be. Behind a prefix digits count for so
    little that they are not looked up.

    Args:
        found: The hits.
        regions: The countries whose numbers may stand without a country's code.
    """
    for each in found:
        if each.entity != "PHONE_NUMBER" or each.evidence is Evidence.CODED:
            yield each
            continue
        first = each.found.first_byte[each.which]
        if each.evidence is Evidence.SHAPED:
            plus, bracket = first == ord("+"), first == ord("(")
            short = (first == ord("0")) & (each.found.count(DIGIT)[each.which] == SHORT)
            valid = each.valid & (~plus | _accepted(each, plus & each.valid, (abroad(),)))
            valid |= _accepted(each, (bracket | short) & ~each.valid, at_home(regions))
        else:
            valid = _accepted(each, each.valid, at_home(regions))
        yield Hits(each.entity, each.evidence, each.found, each.which, valid)


def _accepted(hits: Hits, mask: Mask, plans: tuple[Automaton, ...]) -> Mask:
    """Which of the hits that the mask selects have digits that one of the plans takes."""
    result = np.zeros(len(mask), bool)
    asked = np.flatnonzero(mask)
    widths = hits.found.count(DIGIT)[hits.which[asked]]
    for width in different(widths):
        these = asked[widths == width]
        digits = hits.found.digits(hits.which[these], width)
        result[these] = np.logical_or.reduce([accepted(plan, digits) for plan in plans])
    return result


@functools.cache
def abroad() -> Automaton:
    """Digits after a plus sign: an assigned country's code and as many digits as numbers there have."""
    import phonenumbers

    codes: list[str] = []
    for code, regions in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()):
        lengths = {length for region in regions for length in _plan(region, code).general_desc.possible_length}
        codes += [f"{code}[0-9]{{{length}}}" for length in sorted(lengths)]
    return automaton("|".join(codes))


@functools.cache
def at_home(regions: tuple[str, ...]) -> tuple[Automaton, ...]:
    """Digits as they are dialled in one of the countries, or with a country's code of theirs before them.

    Making an automaton takes a time that grows faster than its countries, so that many are several.
    """
    return tuple(
        automaton("|".join(_dialled(_plan(region)) for region in regions[at : at + _TOGETHER]))
        for at in range(0, len(regions), _TOGETHER)
    )


def _dialled(plan: Any) -> str:
    """How a country's numbers are written there."""
    kinds = [kind for name in _KINDS if (kind := getattr(plan, name)) and kind.national_number_pattern]
    forms = dict.fromkeys(f"{_trunk(plan, kind)}(?:{kind.national_number_pattern})" for kind in kinds)
    abroad = "|".join(dict.fromkeys(kind.national_number_pattern for kind in kinds))
    return "|".join((*forms, f"{_ABROAD}{plan.country_code}(?:{abroad})")).replace(r"\d", "[0-9]")


def _trunk(plan: Any, kind: Any) -> str:
    """The trunk prefix before a kind's numbers, which may be left out or not."""
    if not plan.national_prefix:
        return ""
    return f"(?:{plan.national_prefix}){'' if _is_always_written(plan, kind) else '?'}"


def _is_always_written(plan: Any, kind: Any) -> bool:
    """Whether people there never leave the trunk prefix out of such numbers: whether it is in the form of the kind's
    example, or in any form where no example is known.
    """
    example = kind.example_number or ""
    forms = [form for form in plan.number_format if example and _is_of(form, example)][:1] or plan.number_format
    return any(
        plan.national_prefix in (form.national_prefix_formatting_rule or "").partition(r"\1")[0]
        and not form.national_prefix_optional_when_formatting
        for form in forms
    )


def _is_of(form: Any, number: str) -> bool:
    leading = form.leading_digits_pattern
    return (not leading or re.match(leading[-1], number) is not None) and re.fullmatch(form.pattern, number) is not None


def _plan(region: str, code: int = 0) -> Any:
    from phonenumbers import PhoneMetadata

    if region == _NO_REGION:
        return PhoneMetadata.metadata_for_nongeo_region(code)
    return PhoneMetadata.metadata_for_region(region)
