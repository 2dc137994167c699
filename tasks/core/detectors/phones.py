"""Telephone numbers by the numbering plans of the world, as libphonenumber knows them.

The plans (https://github.com/google/libphonenumber, by way of the package `phonenumbers`) are regular expressions over
a number's digits. Those of the countries asked for become one alternation, so that a whole column is checked at once
and no number is looked at in Python. It clears what `phonenumbers.is_valid_number` clears, except that a number must
also be written as people of the country write it: with the trunk prefix where they never leave it out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tasks.core.detectors.candidates import DIGIT, Evidence, Hits, Mask

_KINDS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
    "voicemail",
)  # fmt: skip
_ABROAD = "(?:00|011)?"
_NO_REGION = "001"


def known_regions() -> frozenset[str]:
    """Every country whose numbering plan is known."""
    import phonenumbers

    return frozenset(phonenumbers.SUPPORTED_REGIONS)


def checked(found: Iterator[Hits], regions: tuple[str, ...]) -> Iterator[Hits]:
    """Hits with telephone numbers held against the numbering plans; other hits as they are.

    Written with a plus sign a number must be as long as its country's numbers are. Bare digits must be in a plan, and
    what stands in brackets may be. Behind a prefix digits count for so little that they are not looked up.

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
            valid = each.valid & (~plus | _matches(each, plus & each.valid, _possible_abroad()))
            valid |= _matches(each, bracket & ~each.valid, _valid_at_home(regions))
        else:
            valid = _matches(each, each.valid, _valid_at_home(regions))
        yield Hits(each.entity, each.evidence, each.found, each.which, valid)


def _matches(hits: Hits, mask: Mask, pattern: str) -> Mask:
    """Which of the hits that the mask selects have digits that the pattern takes."""
    result = np.zeros(len(mask), bool)
    asked = np.flatnonzero(mask)
    if len(asked):
        digits = hits.found.text.gather(hits.which[asked])
        if (hits.found.lengths > hits.found.count(DIGIT))[hits.which[asked]].any():
            digits = digits.str.replace_all("[^0-9]", "")
        result[asked] = digits.str.contains(pattern).to_numpy()
    return result


@functools.cache
def _possible_abroad() -> str:
    """Digits after a plus sign: an assigned country's code and as many digits as numbers there have."""
    import phonenumbers

    codes: list[str] = []
    for code, regions in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()):
        lengths = {length for region in regions for length in _plan(region, code).general_desc.possible_length}
        codes += [f"{code}[0-9]{{{length}}}" for length in sorted(lengths)]
    return f"^(?:{'|'.join(codes)})$"


@functools.cache
def _valid_at_home(regions: tuple[str, ...]) -> str:
    """Digits as they are dialled in one of the countries, or with a country's code of theirs before them."""
    plans: list[str] = []
    for region in regions:
        plan = _plan(region)
        kinds = [getattr(plan, kind) for kind in _KINDS]
        patterns = dict.fromkeys(
            kind.national_number_pattern for kind in kinds if kind and kind.national_number_pattern
        )
        national = "|".join(patterns).replace(r"\d", "[0-9]")
        trunk = plan.national_prefix or ""
        optional = "" if _is_always_written(plan) else "?"
        plans.append(f"(?:{f'(?:{trunk}){optional}|' if trunk else '|'}{_ABROAD}{plan.country_code})(?:{national})")
    return f"^(?:{'|'.join(plans)})$"


def _is_always_written(plan: Any) -> bool:
    """Whether people there never leave the trunk prefix out."""
    return any(
        each.national_prefix_formatting_rule and not each.national_prefix_optional_when_formatting
        for each in plan.number_format
    )


def _plan(region: str, code: int = 0) -> Any:
    from phonenumbers import PhoneMetadata

    if region == _NO_REGION:
        return PhoneMetadata.metadata_for_nongeo_region(code)
    return PhoneMetadata.metadata_for_region(region)
