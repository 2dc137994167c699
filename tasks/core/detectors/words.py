"""Words as evidence: in the names of columns and paths, and beside a candidate inside a text."""

from __future__ import annotations

import functools
import re

from tasks.core.detectors.entities import ENTITIES

LANGUAGES = ("en", "id")
"""The languages whose words count as evidence; English ones always do."""

_IN_INDONESIAN: dict[str, tuple[str, ...]] = {
    "EMAIL_ADDRESS": ("surel",),
    "PHONE_NUMBER": ("telepon", "telp", "hp", "handphone", "ponsel", "nomor hp", "no hp"),
    "CREDIT_CARD": ("kartu", "kartu kredit", "nomor kartu"),
    "IBAN_CODE": ("rekening", "norek"),
    "IP_ADDRESS": ("alamat ip",),
    "URL": ("tautan",),
    "DATE_OF_BIRTH": ("tanggal lahir", "tgl lahir", "lahir"),
    "PERSON": ("nama", "nama lengkap", "penumpang", "pasien", "karyawan", "pelanggan", "pemegang"),
    "LOCATION": ("alamat", "jalan", "domisili"),
    "COORDINATES": ("lintang", "bujur", "koordinat"),
    "ID_NIK": ("no ktp", "nomor ktp", "identitas", "kependudukan"),
    "ID_NPWP": ("pajak",),
}

_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_MIN_INSIDE = 5
"""Words of at least so many letters count inside a longer one too ("contactemail")."""

_OTHER_IDS = frozenset(
    """
    order invoice sku tracking transaction txn reference ref serial product item batch lot isbn ean upc barcode gtin
    shipment parcel ticket flight tail version build commit sequence seq event request trace span session timestamp
    epoch pesanan faktur resi
    """.split()  # noqa: SIM905
)
"""Words of columns with long numbers that are nobody's."""

_NO_PERSON = frozenset(
    """
    file host user column table field brand model product city country state province company organisation organization
    airline airport carrier station street event school domain display app application service job queue topic branch
    repo package class function method font color colour category region currency dataset bucket cluster node
    """.split()  # noqa: SIM905
)
"""Words that make "name" the name of a thing."""

_NO_ADDRESS = frozenset("email mail ip mac web url memory wallet host".split())  # noqa: SIM905


def words_of(name: str) -> tuple[str, ...]:
    """The words of a column's name in lower case.

    >>> words_of("customer.contactEmail_1")
    ('customer', 'contact', 'email')
    """
    return tuple(part.lower() for part in _PARTS.findall(name))


def headers_of(entity: str, languages: tuple[str, ...]) -> tuple[str, ...]:
    """The words that speak for an entity in these languages, and in English."""
    return ENTITIES[entity].headers + (_IN_INDONESIAN.get(entity, ()) if "id" in languages else ())


@functools.cache
def speaks_for(entity: str, name: str, languages: tuple[str, ...] = LANGUAGES) -> str:
    """The header word of an entity that a column's name or path holds, or nothing.

    >>> speaks_for("EMAIL_ADDRESS", "contact_email"), speaks_for("PERSON", "airport_name")
    ('email', '')
    """
    words = words_of(name)
    if entity == "PERSON" and _NO_PERSON.intersection(words):
        return ""
    if entity == "LOCATION" and _NO_ADDRESS.intersection(words):
        return ""
    return spoken(headers_of(entity, languages), name)


@functools.cache
def spoken(headers: tuple[str, ...], name: str) -> str:
    """The longest of some words that a column's name or path holds, or nothing."""
    joined = f" {' '.join(words_of(name))} "
    whole = [header for header in headers if f" {header} " in joined or f" {header}s " in joined]
    inside = [header for header in headers if len(header) >= _MIN_INSIDE and header in joined]
    return max(whole or inside, key=len, default="")


@functools.cache
def speaks_against(name: str) -> str:
    """A word of a column's name that tells of numbers that are nobody's, or nothing."""
    return next((word for word in words_of(name) if word in _OTHER_IDS), "")


@functools.cache
def context_pattern(words: tuple[str, ...]) -> str:
    """A regular expression for an entity's words anywhere in a text, as whole words."""
    headers = "|".join(re.escape(word).replace(r"\ ", "[ _-]?") for word in words)
    return rf"(?i)(?:^|[^a-z])(?:{headers})(?:[^a-z]|$)"
