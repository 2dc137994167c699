"""Numbers: which entities a string of digits may be by its length, and how grouping speaks for one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tasks.core.detectors import checks, patterns
from tasks.core.detectors.candidates import DASH, DIGIT, DOT, PAREN, SPACE, Candidates, Evidence, Hits, Mask, different

Check = Callable[[checks.Digits], Mask]


def _any_but_zero(digits: checks.Digits) -> Mask:
    return digits.max(axis=1) > 0


def _dialled(digits: checks.Digits) -> Mask:
    """Digits that may be a telephone number's; which are is for `phones` to say."""
    return (digits != digits[:, :1]).any(axis=1)


BY_WIDTH: dict[str, tuple[tuple[int, ...], Check]] = {
    "US_SSN": ((9,), checks.us_ssn),
    "US_ITIN": ((9,), checks.us_itin),
    "AU_TFN": ((9,), checks.au_tfn),
    "UK_NHS": ((10,), checks.uk_nhs),
    "AU_MEDICARE": ((10,), checks.au_medicare),
    "AU_ABN": ((11,), checks.au_abn),
    "PL_PESEL": ((11,), checks.pl_pesel),
    "BR_CPF": ((11,), checks.br_cpf),
    "DE_TAX_ID": ((11,), checks.de_tax_id),
    "BE_NATIONAL_NUMBER": ((11,), checks.be_nn),
    "NL_BSN": ((9,), checks.nl_bsn),
    "PT_NIF": ((9,), checks.pt_nif),
    "SE_PERSONNUMMER": ((10, 12), checks.se_personnummer),
    "DK_CPR": ((10,), checks.dk_cpr_checked),
    "AT_SVNR": ((10,), checks.at_svnr),
    "IN_AADHAAR": ((12,), checks.aadhaar),
    "CH_AHV": ((13,), checks.ch_ahv),
    "BR_CNPJ": ((14,), checks.br_cnpj),
    "FR_NIR": ((15,), checks.fr_nir),
    "ID_NPWP": ((15,), checks.npwp),
    "ID_NIK": ((16,), checks.nik),
    "PHONE_NUMBER": ((9, 10, 11, 12, 13), _dialled),
}

# Positions of separators and how many digits: the written form that speaks for an entity.
Form = tuple[str, int, tuple[int, ...], bytes, Check]
FORMS: tuple[Form, ...] = (
    ("CREDIT_CARD", 16, (4, 9, 14), b" -", checks.luhn),
    ("CREDIT_CARD", 15, (4, 11), b" -", checks.luhn),
    ("US_SSN", 9, (3, 6), b"-", checks.us_ssn),
    ("US_ITIN", 9, (3, 6), b"-", checks.us_itin),
    ("ID_NPWP", 15, (2, 6, 10, 12, 16), b".-", _any_but_zero),
    ("BR_CPF", 11, (3, 7, 11), b".-", checks.br_cpf),
    ("BR_CNPJ", 14, (2, 6, 10, 15), b"./-", checks.br_cnpj),
    ("DE_TAX_ID", 11, (2, 6, 10), b" ", checks.de_tax_id),
    ("BE_NATIONAL_NUMBER", 11, (2, 5, 8, 12), b".-", checks.be_nn),
    ("SE_PERSONNUMMER", 10, (6,), b"-", checks.se_personnummer),
    ("SE_PERSONNUMMER", 12, (8,), b"-", checks.se_personnummer),
    ("FI_HETU", 10, (6,), b"-", checks.fi_hetu_digits),
    ("DK_CPR", 10, (6,), b"-", checks.dk_cpr),
    ("AT_SVNR", 10, (4,), b" ", checks.at_svnr),
    ("CH_AHV", 13, (3, 8, 13), b".", checks.ch_ahv),
    ("FR_NIR", 15, (1, 4, 7, 10, 14, 18), b" ", checks.fr_nir),
    ("FR_NIR", 15, (13,), b" ", checks.fr_nir),
    ("IN_AADHAAR", 12, (4, 9), b" -", checks.aadhaar),
    ("UK_NHS", 10, (3, 7), b" -", checks.uk_nhs),
    ("AU_TFN", 9, (3, 7), b" ", checks.au_tfn),
    ("AU_ABN", 11, (2, 6, 10), b" ", checks.au_abn),
    ("AU_MEDICARE", 10, (4, 10), b" ", checks.au_medicare),
    ("PHONE_NUMBER", 10, (3, 7), b" -.", checks.north_american_phone),
    ("PHONE_NUMBER", 10, (3,), b" -", checks.north_american_phone),
    ("PHONE_NUMBER", 11, (1, 5, 9), b" -.", checks.north_american_phone),
)


_MORE = 64
"""More than any form has digits or separators."""

LOOSE_FORMS: tuple[Form, ...] = (
    ("US_SSN", 9, (3, 6), b" .", checks.us_ssn),
    ("US_ITIN", 9, (3, 6), b" .", checks.us_itin),
)
"""Forms that other things have too, so that they speak for an entity no more than digits alone."""

WIDEST_PHONE = 13
"""How many digits a telephone number without a plus sign has at most."""


def digit_strings(found: Candidates, mask: Mask, evidence: Evidence) -> Iterator[Hits]:
    """What the digits of the selected candidates may be, whatever stands between them."""
    widths = np.where(mask, found.count(DIGIT), 0)
    present = [width for width in different(widths) if width >= 9]
    for width in present:
        which = np.flatnonzero(widths == width)
        digits = found.digits(which, width)
        if 12 <= width <= 19:
            card = checks.card_network(digits)
            if card.any():
                yield Hits("CREDIT_CARD", evidence, found, which[card], checks.luhn(digits[card]))
        for entity, (entity_widths, check) in BY_WIDTH.items():
            if width in entity_widths:
                yield Hits(entity, evidence, found, which, check(digits))


def phrases(found: Candidates, mask: Mask) -> Iterator[Hits]:
    """What the selected candidates, made of digits and of what may stand between digits, may be."""
    digits = found.count(DIGIT)
    separators = found.lengths - digits
    plus = found.first_byte == ord("+")
    yield from digit_strings(found, mask & (separators == 0), Evidence.BARE)
    spaced = mask & (separators > 0)
    if not spaced.any():
        return
    taken, phone = np.zeros(len(found), bool), np.zeros(len(found), bool)
    most = _MORE - 1
    counts = np.where(spaced & ~plus, _MORE * np.minimum(digits, most) + np.minimum(separators, most), 0)
    present = set(different(counts))
    for at, (entity, width, places, allowed, check) in enumerate((*FORMS, *LOOSE_FORMS)):
        wanted = _MORE * width + len(places)
        if wanted not in present:
            continue
        which = np.flatnonzero(counts == wanted)
        which = which[found.has_bytes_at(which, places, allowed)]
        if len(which):
            valid = check(found.digits(which, width))
            yield Hits(entity, Evidence.SHAPED if at < len(FORMS) else Evidence.BARE, found, which, valid)
            taken[which[valid]] |= at < len(FORMS)
            phone[which[valid]] |= entity == "PHONE_NUMBER"
    long = spaced & ~taken & ~plus & (digits >= 13) & (digits <= 19)
    for each in digit_strings(found, long, Evidence.BARE):
        if each.entity == "CREDIT_CARD":
            yield each
    yield from _phones(found, spaced & ~phone, taken, plus)


def _phones(found: Candidates, mask: Mask, taken: Mask, plus: Mask) -> Iterator[Hits]:
    """Telephone numbers by a plus sign, by brackets, by a leading zero and grouping, or by grouping alone.

    What is something else by its written form (`taken`) may be one all the same when it has the ten digits of most
    numbers, but its form does not speak for it.
    """
    digits = found.count(DIGIT)
    bracketed = found.count(PAREN) == 2
    grouped = (found.count(SPACE) + found.count(DASH) + found.count(DOT)) > 0
    zero = found.first_byte == ord("0")
    bracketed &= ~plus & ~taken
    dotted = mask & ~plus & (found.count(DOT) > 0)
    mask = mask & ~found.contains_where(dotted, patterns.VERSION)
    short = digits <= WIDEST_PHONE
    shaped = grouped & zero & ~plus & ~bracketed & ~taken
    forms: tuple[tuple[Mask, Check, Evidence], ...] = (
        (plus, checks.international_phone, Evidence.SHAPED),
        (bracketed, _in_brackets, Evidence.SHAPED),
        (shaped, _after_zero, Evidence.SHAPED),
        (grouped & ~plus & ~bracketed & ~shaped & short & (~taken | (digits == 10)), _dialled, Evidence.BARE),
    )
    for form, check, evidence in forms:
        widths = np.where(mask & form, digits, 0)
        for width in different(widths):
            if 8 <= width <= 16:
                which = np.flatnonzero(widths == width)
                yield Hits("PHONE_NUMBER", evidence, found, which, check(found.digits(which, width)))


def _in_brackets(digits: checks.Digits) -> Mask:
    if digits.shape[1] == 10:
        return checks.north_american_phone(digits) | checks.national_phone(digits)
    return np.full(len(digits), 9 <= digits.shape[1] <= 13)


def _after_zero(digits: checks.Digits) -> Mask:
    abroad = (digits[:, 1] == 0) & checks.international_phone(digits[:, 2:])
    return checks.national_phone(digits) | abroad
