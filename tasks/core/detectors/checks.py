"""Check digits and structure of numbers, over matrices of digits: one number a line, one digit a column.

Each function answers a mask. Sources: ISO/IEC 7812 (Luhn), the issuing bodies' published rules as collected by
python-stdnum (https://arthurdejong.org/python-stdnum/) for national numbers, and the ITU's country codes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Digits = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def luhn(digits: Digits) -> Mask:
    """The Luhn check digit at the end is right."""
    total = digits.astype(np.int64)
    doubled = total[:, -2::-2] * 2
    total[:, -2::-2] = np.where(doubled > 9, doubled - 9, doubled)
    return total.sum(axis=1) % 10 == 0


def weighted(digits: Digits, weights: tuple[int, ...]) -> Ints:
    """The sum of the first digits, each times its weight."""
    return digits[:, : len(weights)].astype(np.int64) @ np.array(weights, np.int64)


def number(digits: Digits, start: int, end: int) -> Ints:
    """The digits from `start` to before `end`, read as a number."""
    return digits[:, start:end].astype(np.int64) @ (10 ** np.arange(end - start, dtype=np.int64)[::-1])


# First six digits (from, to) and lengths of the payment networks, ISO/IEC 7812 and the networks' own BIN tables.
NETWORKS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (60000, 69999, (12,)),
    (122000, 122099, (15,)),
    (180000, 180099, (15,)),
    (213100, 213199, (15,)),
    (220000, 220499, (16, 17, 18, 19)),
    (222100, 272099, (16,)),
    (300000, 305999, (14, 16, 17, 18, 19)),
    (309500, 309599, (14, 16, 17, 18, 19)),
    (340000, 349999, (15,)),
    (352800, 358999, (16, 17, 18, 19)),
    (360000, 369999, (14, 16, 17, 18, 19)),
    (370000, 379999, (15,)),
    (380000, 399999, (14, 16, 17, 18, 19)),
    (400000, 499999, (13, 16, 18, 19)),
    (500000, 509999, (12, 13, 14, 15, 16, 17, 18, 19)),
    (510000, 559999, (16,)),
    (560000, 589999, (12, 13, 14, 15, 16, 17, 18, 19)),
    (601100, 601199, (16, 17, 18, 19)),
    (606282, 606282, (16,)),
    (620000, 629999, (16, 17, 18, 19)),
    (630400, 630499, (12, 13, 14, 15, 16, 17, 18, 19)),
    (637095, 637612, (16,)),
    (639000, 639099, (16,)),
    (644000, 659999, (16, 17, 18, 19)),
    (675900, 676399, (12, 13, 14, 15, 16, 17, 18, 19)),
    (677189, 677189, (16,)),
    (810000, 817199, (16, 17, 18, 19)),
    (979200, 979299, (16,)),
)


def card_network(digits: Digits) -> Mask:
    """The number begins with the digits of a payment network that issues cards of its length."""
    width = digits.shape[1]
    if width < 6:
        return np.zeros(len(digits), bool)
    ranges = [(low, high) for low, high, widths in NETWORKS if width in widths]
    if not ranges:
        return np.zeros(len(digits), bool)
    lows, highs = np.array(ranges, np.int64).T
    head = number(digits, 0, 6)
    at = np.searchsorted(lows, head, side="right") - 1
    return (at >= 0) & (head <= highs[np.maximum(at, 0)])


PROVINCES = np.zeros(100, bool)
PROVINCES[[*range(11, 22), *range(31, 37), 51, 52, 53, *range(61, 66), *range(71, 77), 81, 82, *range(91, 98)]] = True


LONGEST = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
"""How many days a month has at most."""


def dated(day: Ints, month: Ints) -> Mask:
    """There is such a day in such a month of some year."""
    return (day >= 1) & (month <= 12) & (day <= LONGEST[np.where(month <= 12, month, 0)])


def nik(digits: Digits) -> Mask:
    """Sixteen digits of an Indonesian NIK: province, regency, district, birth date (day + 40 for women), serial."""
    day = number(digits, 6, 8)
    day = np.where(day > 40, day - 40, day)
    return (
        PROVINCES[number(digits, 0, 2)]
        & (number(digits, 2, 4) > 0)
        & (number(digits, 4, 6) > 0)
        & dated(day, number(digits, 8, 10))
        & (number(digits, 12, 16) > 0)
    )


def npwp(digits: Digits) -> Mask:
    """Fifteen digits of an Indonesian tax number: the ninth is the Luhn check digit of the eight before it."""
    return luhn(digits[:, :9]) & (number(digits, 0, 9) > 0)


def us_ssn(digits: Digits) -> Mask:
    """Nine digits that may be a US social security number: no area 000, 666 or 9xx, no group 00, no serial 0000."""
    area = number(digits, 0, 3)
    known_false = np.isin(number(digits, 0, 9), [78051120, 123456789, 219099999, 457555462])
    in_range = (area > 0) & (area != 666) & (area < 900)
    return in_range & (number(digits, 3, 5) > 0) & (number(digits, 5, 9) > 0) & ~known_false


def us_itin(digits: Digits) -> Mask:
    """Nine digits of a US taxpayer number: 9xx and a group of 50-65, 70-88, 90-92 or 94-99."""
    group = number(digits, 3, 5)
    groups = ((group >= 50) & (group <= 65)) | ((group >= 70) & (group <= 88)) | ((group >= 90) & (group != 93))
    return (digits[:, 0] == 9) & groups


def uk_nhs(digits: Digits) -> Mask:
    """Ten digits of an NHS number, modulus 11."""
    check = (11 - weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11) % 11
    return (check == digits[:, 9]) & (number(digits, 0, 10) > 0)


VERHOEFF_D = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
        [3, 4, 0, 1, 2, 8, 9, 5, 6, 7], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
        [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3], [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ]
)  # fmt: skip
VERHOEFF_P = [np.arange(10)]
for _ in range(7):
    VERHOEFF_P.append(np.array([1, 5, 7, 6, 2, 8, 3, 0, 9, 4])[VERHOEFF_P[-1]])


def verhoeff(digits: Digits) -> Mask:
    """The Verhoeff check digit at the end is right (J. Verhoeff, 1969)."""
    state = np.zeros(len(digits), np.int64)
    for at in range(digits.shape[1]):
        state = VERHOEFF_D[state, VERHOEFF_P[at % 8][digits[:, -1 - at]]]
    return state == 0


def aadhaar(digits: Digits) -> Mask:
    """Twelve digits of an Aadhaar number: no leading 0 or 1, no palindrome, Verhoeff."""
    return (digits[:, 0] >= 2) & verhoeff(digits) & ~(digits == digits[:, ::-1]).all(axis=1)


def au_tfn(digits: Digits) -> Mask:
    """Nine digits of an Australian tax file number, modulus 11."""
    return (weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0) & (number(digits, 0, 9) > 0)


def au_abn(digits: Digits) -> Mask:
    """Eleven digits of an Australian business number, modulus 89 after taking 1 from the first."""
    return (weighted(digits, (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) - 10) % 89 == 0


def au_medicare(digits: Digits) -> Mask:
    """Ten digits of an Australian Medicare number: 2 to 6 first, check digit ninth, modulus 10."""
    check = weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9)) % 10
    return (digits[:, 0] >= 2) & (digits[:, 0] <= 6) & (check == digits[:, 8])


def pl_pesel(digits: Digits) -> Mask:
    """Eleven digits of a Polish PESEL: a birth date with the century in the month, modulus 10."""
    month = number(digits, 2, 4) % 20
    day = number(digits, 4, 6)
    check = (10 - weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10) % 10
    return (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (check == digits[:, 10])


def br_cpf(digits: Digits) -> Mask:
    """Eleven digits of a Brazilian CPF: two check digits, modulus 11, not all the same digit."""
    first = weighted(digits, tuple(range(10, 1, -1))) * 10 % 11 % 10
    second = weighted(digits, tuple(range(11, 1, -1))) * 10 % 11 % 10
    same = (digits == digits[:, :1]).all(axis=1)
    return (first == digits[:, 9]) & (second == digits[:, 10]) & ~same


def br_cnpj(digits: Digits) -> Mask:
    """Fourteen digits of a Brazilian CNPJ: two check digits, modulus 11, not all the same digit."""
    first = weighted(digits, (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)) * 10 % 11 % 10
    second = weighted(digits, (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)) * 10 % 11 % 10
    same = (digits == digits[:, :1]).all(axis=1)
    return (first == digits[:, 12]) & (second == digits[:, 13]) & ~same


def de_tax_id(digits: Digits) -> Mask:
    """Eleven digits of a German tax id: ISO 7064 mod 11, 10.

    One digit comes two or three times in the first ten, but not three times on end.
    """
    times = (digits[:, :10, None] == np.arange(10, dtype=np.uint8)).sum(axis=1)
    repeated = ((times > 1).sum(axis=1) == 1) & (times.max(axis=1) <= 3)
    same = digits[:, :9] == digits[:, 1:10]
    on_end = (same[:, :-1] & same[:, 1:]).any(axis=1)
    product = np.full(len(digits), 10, np.int64)
    for at in range(10):
        total = (digits[:, at] + product) % 10
        product = np.where(total == 0, 10, total) * 2 % 11
    return (digits[:, 0] > 0) & repeated & ~on_end & ((11 - product) % 10 == digits[:, 10])


def fr_nir(digits: Digits) -> Mask:
    """Fifteen digits of a French NIR (Corsica's letters as 19 and 18): sex, month, and 97 minus the rest modulo 97.

    People who are being registered have 3 and 4 for their sex, or 7 and 8 for the time being.
    """
    month = number(digits, 3, 5)
    known = ((month >= 1) & (month <= 12)) | (month >= 20)
    return (
        np.isin(digits[:, 0], (1, 2, 3, 4, 7, 8)) & known & (97 - number(digits, 0, 13) % 97 == number(digits, 13, 15))
    )


def nl_bsn(digits: Digits) -> Mask:
    """Nine digits of a Dutch BSN, the test of eleven."""
    return (weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0) & (number(digits, 0, 9) > 0)


def be_nn(digits: Digits) -> Mask:
    """Eleven digits of a Belgian national number: a birth date, modulus 97 (born after 2000: with a 2 before)."""
    month, day = number(digits, 2, 4) % 20, number(digits, 4, 6)
    head, check = number(digits, 0, 9), 97 - number(digits, 9, 11)
    right = (head % 97 == check) | ((2 * 10**9 + head) % 97 == check)
    return (month <= 12) & (day <= 31) & right & (head > 0)


def pt_nif(digits: Digits) -> Mask:
    """Nine digits of a Portuguese NIF, modulus 11."""
    check = (11 - weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2)) % 11) % 11 % 10
    return (digits[:, 0] > 0) & (check == digits[:, 8])


def se_personnummer(digits: Digits) -> Mask:
    """Ten digits of a Swedish personal number: a date (the day + 60 for coordination numbers), Luhn.

    Or twelve, with the century before them.
    """
    century = np.ones(len(digits), bool)
    if digits.shape[1] == 12:
        century, digits = np.isin(number(digits, 0, 2), (18, 19, 20)), digits[:, 2:]
    month, day = number(digits, 2, 4), number(digits, 4, 6)
    day = np.where(day > 60, day - 60, day)
    return century & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & luhn(digits)


def dk_cpr(digits: Digits) -> Mask:
    """Ten digits of a Danish CPR number: a date; its check digit is no longer kept to since 2007."""
    day, month = number(digits, 0, 2), number(digits, 2, 4)
    return (day >= 1) & (day <= 31) & (month >= 1) & (month <= 12) & (number(digits, 6, 10) > 0)


def dk_cpr_checked(digits: Digits) -> Mask:
    """The same with its check digit, modulus 11, as all but some born on a few days have it."""
    return dk_cpr(digits) & (weighted(digits, (4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0)


def fi_hetu_digits(digits: Digits) -> Mask:
    """Ten digits of a Finnish HETU whose check character is a digit, as that of one in three is: a date, modulus 31."""
    day, month = number(digits, 0, 2), number(digits, 2, 4)
    return dated(day, month) & (number(digits, 0, 9) % 31 == digits[:, 9])


def at_svnr(digits: Digits) -> Mask:
    """Ten digits of an Austrian social security number: a date behind the check digit, modulus 11."""
    day = number(digits, 4, 6)
    check = weighted(digits, (3, 7, 9, 0, 5, 8, 4, 2, 1, 6)) % 11
    return (digits[:, 0] > 0) & (day >= 1) & (day <= 31) & (check == digits[:, 3])


def ch_ahv(digits: Digits) -> Mask:
    """Thirteen digits of a Swiss AHV number: 756, and the check digit of EAN-13."""
    check = (10 - weighted(digits, (1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3)) % 10) % 10
    return (number(digits, 0, 3) == 756) & (check == digits[:, 12])


# Country calling codes by their length (ITU-T E.164, list of assigned codes).
CALLING_1 = (1, 7)
CALLING_2 = (
    20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62,
    63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
)  # fmt: skip
CALLING_3 = (
    *range(211, 214), 216, 218, *range(220, 270), 290, 291, 297, 298, 299, *range(350, 360), *range(370, 380),
    *range(380, 384), 385, 386, 387, 389, 420, 421, 423, *range(500, 510), *range(590, 600), *range(670, 693), 800, 808,
    850, 852, 853, 855, 856, 870, 878, 880, 881, 882, 883, 886, *range(960, 969), *range(970, 980), *range(992, 997),
    998,
)  # fmt: skip


def international_phone(digits: Digits) -> Mask:
    """Digits after a plus sign: an assigned calling code and a number of plausible length (E.164: at most 15)."""
    width = digits.shape[1]
    if not 8 <= width <= 15:
        return np.zeros(len(digits), bool)
    one = np.isin(digits[:, 0], CALLING_1) & (width == 11)
    two = np.isin(number(digits, 0, 2), CALLING_2)
    three = np.isin(number(digits, 0, 3), CALLING_3)
    return (one | two | three) & (digits[:, 1:] != digits[:, 1:2]).any(axis=1)


def north_american_phone(digits: Digits) -> Mask:
    """Ten digits NXX-NXX-XXXX, or eleven with a 1 before them (North American Numbering Plan)."""
    width = digits.shape[1]
    if width == 11:
        return (digits[:, 0] == 1) & north_american_phone(digits[:, 1:])
    if width != 10:
        return np.zeros(len(digits), bool)
    area, exchange = digits[:, 0:3], digits[:, 3:6]
    service = (area[:, 1] == 1) & (area[:, 2] == 1)
    varied = (digits != digits[:, :1]).any(axis=1)
    return (area[:, 0] >= 2) & (exchange[:, 0] >= 2) & ~service & varied


def national_phone(digits: Digits) -> Mask:
    """Nine to twelve digits with one trunk 0 before them, as most countries write numbers at home."""
    width = digits.shape[1]
    if not 9 <= width <= 13:
        return np.zeros(len(digits), bool)
    return (digits[:, 0] == 0) & (digits[:, 1] != 0) & (digits[:, 2:] != digits[:, 2:3]).any(axis=1)
