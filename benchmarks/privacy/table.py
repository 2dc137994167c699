"""A table with planted personal data, made for Lintas from a seed, and what is where in it.

Eleven columns hold one entity each in the forms that people write it, one holds free text with entities here and
there, five look alike and hold nothing personal, three are numbers and times. All values are invented: numbers carry
right check digits and belong to nobody, telephone numbers are drawn at random from the ranges in use.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

_FIRST = (  # noqa: SIM905
    "Mary James Linda Robert Siti Budi Dewi Agus Emma Oliver Sarah David Putri Joko Anna Peter Grace Thomas Rina Hadi "
    "Laura Michael Wati Eko"
).split()
_LAST = (  # noqa: SIM905
    "Smith Johnson Brown Taylor Wijaya Santoso Nugroho Lestari Miller Wilson Moore Clark Susanto Pratama Hall Young "
    "King Wright Hidayat Kusuma Baker Adams"
).split()
_WORDS = (  # noqa: SIM905
    "the order was late again and nobody called back please check gate seat window meal upgrade delayed refund issued "
    "after review customer asked about baggage policy thank you for waiting see previous message no further action"
).split()
_DOMAINS = ("example.org", "example.com", "mail.example.net", "corp.example.co.id", "example.co.uk")
_US_AREAS = (201, 202, 212, 213, 303, 305, 312, 404, 415, 503, 512, 602, 617, 702, 713, 808, 917)
_SSN_AREAS = (*range(1, 666), *range(667, 900))
_ID_PREFIXES = (811, 812, 813, 821, 822, 852, 853, 855, 856, 857, 858, 859, 877, 878, 895, 896, 897, 898)
_PROVINCES = (11, 12, 13, 14, 18, 31, 32, 33, 34, 35, 36, 51, 52, 61, 64, 71, 73, 81, 91)
_CARDS = ((("4",), 16), (("51", "52", "53", "54", "55"), 16), (("34", "37"), 15), (("6011", "65"), 16), (("3528",), 16))
_BANKS: tuple[tuple[str, int, str], ...] = (
    ("DE", 18, ""), ("FR", 23, ""), ("ES", 20, ""), ("GB", 14, "ABCD"), ("NL", 10, "ABNA"), ("BE", 12, ""),
)  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """A table, and for its text columns what is in each row.

    Args:
        table: The rows.
        labels: By column, for each row the entities in its cell.
    """

    table: pa.Table
    labels: dict[str, list[frozenset[str]]]


def _luhn(digits: str) -> str:
    total = 0
    for at, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 - at % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def _digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.digits, k=count))


def _grouped(text: str, sizes: tuple[int, ...], mark: str) -> str:
    parts: list[str] = []
    at = 0
    while at < len(text):
        size = sizes[min(len(parts), len(sizes) - 1)]
        parts.append(text[at : at + size])
        at += size
    return mark.join(parts)


def email(draw: random.Random) -> str:
    """An e-mail address."""
    first, last = draw.choice(_FIRST).lower(), draw.choice(_LAST).lower()
    return f"{first}{draw.choice(['.', '_', ''])}{last}{draw.randrange(10_000)}@{draw.choice(_DOMAINS)}"


def us_phone(draw: random.Random) -> str:
    """A telephone number of the United States in one of six forms."""
    area, exchange, line = draw.choice(_US_AREAS), draw.randrange(220, 990), _digits(draw, 4)
    forms = "({0}) {1}-{2}", "{0}-{1}-{2}", "{0}.{1}.{2}", "+1 {0} {1} {2}", "+1-{0}-{1}-{2}", "{0}{1}{2}"
    return draw.choice(forms).format(area, exchange, line)


def id_phone(draw: random.Random) -> str:
    """A mobile number of Indonesia in one of four forms."""
    prefix, rest = draw.choice(_ID_PREFIXES), _digits(draw, draw.choice((7, 8)))
    forms = "+62{0}{1}{2}", "+62 {0}-{1}-{2}", "0{0}{1}{2}", "0{0}-{1}-{2}"
    return draw.choice(forms).format(prefix, rest[:4], rest[4:])


def card(draw: random.Random) -> str:
    """A payment card number of one of five networks, bare or in groups."""
    heads, width = draw.choice(_CARDS)
    number = draw.choice(heads)
    number += _digits(draw, width - 1 - len(number))
    number += _luhn(number)
    sizes = (4, 6, 5) if width == 15 else (4,)
    return _grouped(number, sizes, draw.choice(" -")) if draw.random() < 0.4 else number


def iban(draw: random.Random) -> str:
    """An IBAN with right check digits (ISO 13616), bare or in groups of four."""
    country, width, bank = draw.choice(_BANKS)
    account = bank + _digits(draw, width)
    number = int("".join(str(int(mark, 36)) for mark in f"{account}{country}00"))
    whole = f"{country}{98 - number % 97:02d}{account}"
    return _grouped(whole, (4,), " ") if draw.random() < 0.3 else whole


def ssn(draw: random.Random) -> str:
    """A social security number of the United States."""
    area = draw.choice(_SSN_AREAS)
    return f"{area:03d}-{draw.randrange(1, 100):02d}-{draw.randrange(1, 10_000):04d}"


def nik(draw: random.Random) -> str:
    """An Indonesian identity number."""
    day = draw.randrange(1, 29) + draw.choice((0, 40))
    place = f"{draw.choice(_PROVINCES)}{draw.randrange(1, 80):02d}{draw.randrange(1, 50):02d}"
    return f"{place}{day:02d}{draw.randrange(1, 13):02d}{draw.randrange(100):02d}{draw.randrange(1, 10_000):04d}"


def npwp(draw: random.Random) -> str:
    """An Indonesian tax number in its written form."""
    head = f"0{draw.randrange(1, 10_000_000):07d}"
    whole = head + _luhn(head) + f"{draw.randrange(1, 1000):03d}" + "000"
    return f"{whole[:2]}.{whole[2:5]}.{whole[5:8]}.{whole[8]}-{whole[9:12]}.{whole[12:]}"


def ip(draw: random.Random) -> str:
    """An address of IP version 4, or now and then 6."""
    if draw.random() < 0.85:
        return ".".join(str(draw.randrange(1, 255)) for _ in range(4))
    return ":".join(f"{draw.randrange(65_536):x}" for _ in range(8))


def mac(draw: random.Random) -> str:
    """A hardware address."""
    return draw.choice(":-").join(f"{draw.randrange(256):02x}" for _ in range(6))


def person(draw: random.Random) -> str:
    """A full name."""
    return f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"


def _note(draw: random.Random) -> tuple[str, frozenset[str]]:
    words = draw.choices(_WORDS, k=draw.randrange(6, 16))
    if draw.random() >= 0.15:
        return " ".join(words), frozenset()
    entity, make = draw.choice(_IN_NOTES)
    words.insert(draw.randrange(len(words)), make(draw))
    return " ".join(words), frozenset({entity})


_IN_NOTES: tuple[tuple[str, Callable[[random.Random], str]], ...] = (
    ("EMAIL_ADDRESS", email), ("CREDIT_CARD", card), ("IBAN_CODE", iban), ("IP_ADDRESS", ip),
    ("PHONE_NUMBER", lambda draw: f"phone +1 {draw.choice(_US_AREAS)} {draw.randrange(220, 990)} {_digits(draw, 4)}"),
)  # fmt: skip

ENTITY_COLUMNS: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "contact_email": ("EMAIL_ADDRESS", email),
    "home_phone": ("PHONE_NUMBER", us_phone),
    "mobile": ("PHONE_NUMBER", id_phone),
    "payment_card": ("CREDIT_CARD", card),
    "iban": ("IBAN_CODE", iban),
    "ssn": ("US_SSN", ssn),
    "nik": ("ID_NIK", nik),
    "npwp": ("ID_NPWP", npwp),
    "client_ip": ("IP_ADDRESS", ip),
    "device_mac": ("MAC_ADDRESS", mac),
    "customer_name": ("PERSON", person),
}

LOOK_ALIKES: dict[str, Callable[[random.Random], str]] = {
    "order_number": lambda draw: f"ORD-{_digits(draw, 10)}",
    "sku": lambda draw: f"{''.join(draw.choices(string.ascii_uppercase, k=2))}{_digits(draw, 6)}",
    "tracking_code": lambda draw: _digits(draw, 16),
    "version": lambda draw: f"v{draw.randrange(9)}.{draw.randrange(40)}.{draw.randrange(100)}-{_digits(draw, 8)}",
    "status": lambda draw: draw.choice(("open", "closed", "waiting", "cancelled")),
}
"""Columns that look like something and are not."""


def make_table(rows: int, seed: int) -> Labelled:
    """The table of so many rows and twenty columns.

    >>> make_table(3, seed=1).table.num_columns
    20
    """
    draw = random.Random(seed)  # noqa: S311 - invented values, to be the same again for the same seed
    columns: dict[str, Any] = {"id": list(range(1, rows + 1))}
    labels: dict[str, list[frozenset[str]]] = {}
    for name, (entity, make) in ENTITY_COLUMNS.items():
        columns[name] = [make(draw) for _ in range(rows)]
        labels[name] = [frozenset({entity})] * rows
    for name, make in LOOK_ALIKES.items():
        columns[name] = [make(draw) for _ in range(rows)]
        labels[name] = [frozenset()] * rows
    notes = [_note(draw) for _ in range(rows)]
    columns["notes"] = [text for text, _ in notes]
    labels["notes"] = [entities for _, entities in notes]
    columns["amount"] = [round(draw.random() * 1000, 2) for _ in range(rows)]
    start = datetime(2026, 1, 1)
    columns["created"] = [start + timedelta(seconds=draw.randrange(25_000_000)) for _ in range(rows)]
    return Labelled(pa.table(columns), labels)
