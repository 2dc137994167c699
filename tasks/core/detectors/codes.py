"""Check characters of codes made of letters and digits, over matrices of bytes: one code a line, capitals only.

Sources: ISO 13616 (IBAN; lengths of the SWIFT registry), and the issuing bodies' rules as collected by python-stdnum.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tasks.core.detectors import checks

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 "
    "EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 "
    "KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 "
    "PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 "
    "UA29 VA22 VG24 XK20 YE30"
)
IBAN_WIDTHS = {item[:2]: int(item[2:]) for item in _IBAN_LENGTHS.split()}
"""The length of each country's IBANs."""

_COUNTRIES_BY_WIDTH: dict[int, Ints] = {
    width: np.array([ord(c[0]) * 256 + ord(c[1]) for c, of in IBAN_WIDTHS.items() if of == width], np.int64)
    for width in set(IBAN_WIDTHS.values())
}


def _is_digit(codes: Codes) -> npt.NDArray[np.bool_]:
    return (codes >= 48) & (codes <= 57)


def iban(codes: Codes) -> Mask:
    """The length is the country's and the number is 1 modulo 97."""
    width = codes.shape[1]
    country = codes[:, 0].astype(np.int64) * 256 + codes[:, 1]
    known = np.isin(country, _COUNTRIES_BY_WIDTH.get(width, np.zeros(0, np.int64)))
    rest = np.zeros(len(codes), np.int64)
    for number, at in enumerate((*range(4, width), 0, 1, 2, 3), 1):
        byte = codes[:, at]
        letter = byte > ord("9")
        rest = rest * np.where(letter, 100, 10) + (byte - np.where(letter, 55, 48))
        if number % 8 == 0 or number == width:  # Before it may be too large.
            rest %= 97
    return known & (rest == 1)


def _values(codes: Codes, start: int, end: int) -> Ints:
    return codes[:, start:end].astype(np.int64) - 48


def _letters(text: str) -> Codes:
    return np.frombuffer(text.encode(), np.uint8)


def sg_nric_fin(codes: Codes) -> Mask:
    """The check letter of an NRIC or FIN, modulus 11 with its own letters for S/T, F/G and M."""
    if codes.shape[1] != 9:
        return np.zeros(len(codes), bool)
    total = _values(codes, 1, 8) @ np.array([2, 7, 6, 5, 4, 3, 2])
    first = codes[:, 0]
    total = total + np.select([(first == ord("T")) | (first == ord("G")), first == ord("M")], [4, 3], 0)
    rest = total % 11
    expected = np.select(
        [(first == ord("S")) | (first == ord("T")), (first == ord("F")) | (first == ord("G"))],
        [_letters("JZIHGFEDCBA")[rest], _letters("XWUTRQPNMLK")[rest]],
        _letters("XWUTRQPNJLK")[rest],
    )
    return codes[:, 8] == expected


def es_nif(codes: Codes) -> Mask:
    """The check letter of a NIF or NIE, modulus 23; a NIF of seven digits has lost a zero before them."""
    if codes.shape[1] == 8:
        codes = np.insert(codes, 0, ord("0"), axis=1)
    first = np.where(_is_digit(codes[:, 0]), codes[:, 0].astype(np.int64) - 48, codes[:, 0].astype(np.int64) - 88)
    number = first * 10**7 + _values(codes, 1, 8) @ (10 ** np.arange(7, dtype=np.int64)[::-1])
    return _letters("TRWAGMYFPDXBNJZSQVHLCKE")[number % 23] == codes[:, 8]


_ODD = np.array(
    [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23], np.int64
)


def it_fiscal_code(codes: Codes) -> Mask:
    """The check letter of an Italian fiscal code, modulus 26 with weights by position (D.M. 23/12/1976)."""
    if codes.shape[1] != 16:
        return np.zeros(len(codes), bool)
    value = np.where(_is_digit(codes), codes.astype(np.int64) - 48, codes.astype(np.int64) - 65)
    total = _ODD[value[:, 0:15:2]].sum(axis=1) + value[:, 1:15:2].sum(axis=1)
    return total % 26 == codes[:, 15].astype(np.int64) - 65


def in_pan(codes: Codes) -> Mask:
    """The fourth letter of an Indian PAN is one of the kinds of holder."""
    return np.isin(codes[:, 3], _letters("ABCFGHJLPT"))


def uk_nino(codes: Codes) -> Mask:
    """The two letters before a UK national insurance number are among those in use (HMRC NIM39110)."""
    first, second = codes[:, 0], codes[:, 1]
    allowed = ~np.isin(first, _letters("DFIQUV")) & ~np.isin(second, _letters("DFIOQUV"))
    pair = first.astype(np.int64) * 256 + second
    unused = [ord(a) * 256 + ord(b) for a, b in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")]
    return allowed & ~np.isin(pair, unused)


def fi_hetu(codes: Codes) -> Mask:
    """The check character of a Finnish HETU, modulus 31; six digits, a century's mark or none, three digits, check."""
    value = np.zeros(len(codes), np.int64)
    for at in (*range(6), *range(codes.shape[1] - 4, codes.shape[1] - 1)):
        value = value * 10 + codes[:, at].astype(np.int64) - 48
    day, month = _values(codes, 0, 2) @ np.array([10, 1]), _values(codes, 2, 4) @ np.array([10, 1])
    return checks.dated(day, month) & (_letters("0123456789ABCDEFHJKLMNPRSTUVWXY")[value % 31] == codes[:, -1])


def ie_ppsn(codes: Codes) -> Mask:
    """The check letter of an Irish PPSN, modulus 23; a second letter counts nine times."""
    total = _values(codes, 0, 7) @ np.arange(8, 1, -1)
    if codes.shape[1] == 9:
        second = codes[:, 8].astype(np.int64) - 64
        total = total + 9 * np.where(second == 23, 0, second)
    return _letters("WABCDEFGHIJKLMNOPQRSTUV")[total % 23] == codes[:, 7]


def fr_nir(codes: Codes) -> Mask:
    """A French NIR of somebody born in Corsica: the department's 2A counts as 19, 2B as 18."""
    digits = codes - 48
    digits[:, 5:7] = np.where((codes[:, 6] == ord("A"))[:, None], [1, 9], [1, 8])
    return checks.fr_nir(digits)


def uk_driving_licence(codes: Codes) -> Mask:
    """The date of birth in a driver number of Great Britain: decade, month (women's + 50), day, year."""
    month, day = (_values(codes, at, at + 2) @ np.array([10, 1]) for at in (6, 8))
    month = np.where(month > 50, month - 50, month)
    return checks.dated(day, month)


CHECKS = {
    "IBAN_CODE": iban,
    "SG_NRIC_FIN": sg_nric_fin,
    "ES_NIF": es_nif,
    "IT_FISCAL_CODE": it_fiscal_code,
    "IN_PAN": in_pan,
    "UK_NINO": uk_nino,
    "FI_HETU": fi_hetu,
    "IE_PPSN": ie_ppsn,
    "FR_NIR": fr_nir,
    "DRIVER_LICENSE": uk_driving_licence,
}
"""The check of each kind of `patterns.CODE_KINDS`."""
