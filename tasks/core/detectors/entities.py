"""The vocabulary of findings: Microsoft Presidio's entity names, with `ID_` for Indonesia and names of our own
where Presidio has none (https://microsoft.github.io/presidio/supported_entities/).

A policy names entities or their groups; a policy that names anything else does not load.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Group(enum.StrEnum):
    """Classes of personal data, for rules and residency that speak of more than one entity."""

    CONTACT = "contact"
    FINANCIAL = "financial"
    GOVERNMENT_ID = "government_id"
    PERSON = "person"
    LOCATION = "location"
    NETWORK = "network"
    SECRET = "secret"
    OWN = "own"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class Entity:
    """One kind of finding.

    Args:
        name: As findings and policies write it.
        group: Its class.
        what: What it is, for people.
        headers: English words of a column's name or a path that speak for it, and names of the thing itself, in lower
            case; `words` has those of other languages.
        chance: An upper bound of the rate at which values of its shape pass its checks by chance; 0 for shapes that
            hardly occur by chance. Hits at this rate are no finding.
        prior: Odds that a column with a bare candidate holds this entity when its name says nothing.
    """

    name: str
    group: Group
    what: str
    headers: tuple[str, ...] = ()
    chance: float = 0.0
    prior: float = 1.0


UNREADABLE = "UNREADABLE"
"""The finding for what could not be read. It does not pass unless a policy says so."""

_PERSON_HEADERS = (
    "name", "full name", "fullname", "first name", "firstname", "last name", "lastname", "surname", "given name",
    "family name", "middle name", "passenger", "customer name", "contact name", "patient", "employee name",
    "cardholder", "holder name", "guest", "traveller", "traveler",     )  # fmt: skip

_ALL = (
    Entity(
        "EMAIL_ADDRESS",
        Group.CONTACT,
        "an e-mail address",
        (
            "email",
            "e mail",
            "mail",
        ),
    ),
    Entity(
        "PHONE_NUMBER",
        Group.CONTACT,
        "a telephone number",
        (
            "phone",
            "telephone",
            "tel",
            "mobile",
            "cell",
            "msisdn",
            "fax",
            "whatsapp",
            "wa",
        ),
        chance=0.75,
        prior=0.1,
    ),
    Entity(
        "CREDIT_CARD",
        Group.FINANCIAL,
        "a payment card number",
        (
            "card",
            "credit card",
            "creditcard",
            "debit card",
            "cc",
            "ccn",
            "pan",
            "card number",
            "payment card",
        ),
        chance=0.15,
        prior=0.3,
    ),
    Entity(
        "IBAN_CODE",
        Group.FINANCIAL,
        "an IBAN",
        (
            "iban",
            "account",
            "bank account",
        ),
        chance=0.02,
    ),
    Entity(
        "CRYPTO", Group.FINANCIAL, "a cryptocurrency address", ("wallet", "bitcoin", "btc", "crypto", "ethereum", "eth")
    ),
    Entity(
        "IP_ADDRESS",
        Group.NETWORK,
        "an IP address",
        (
            "ip",
            "ip address",
            "ipaddress",
            "ipv4",
            "ipv6",
        ),
        prior=4,
    ),
    Entity("MAC_ADDRESS", Group.NETWORK, "a MAC address", ("mac", "mac address", "bssid")),
    Entity(
        "URL",
        Group.NETWORK,
        "a web address",
        (
            "url",
            "link",
            "website",
            "homepage",
        ),
    ),
    Entity("URL_CREDENTIALS", Group.SECRET, "a web address with a password in it", ("url", "dsn", "connection")),
    Entity(
        "DATE_OF_BIRTH",
        Group.PERSON,
        "a date of birth",
        (
            "dob",
            "birth",
            "birthday",
            "birthdate",
            "date of birth",
            "birth date",
            "born",
        ),
    ),
    Entity("PERSON", Group.PERSON, "a person's name", _PERSON_HEADERS),
    Entity(
        "LOCATION",
        Group.LOCATION,
        "a postal address",
        (
            "address",
            "street",
            "addr",
            "home address",
            "residence",
        ),
    ),
    Entity(
        "COORDINATES",
        Group.LOCATION,
        "geographic coordinates",
        (
            "lat",
            "latitude",
            "lon",
            "lng",
            "long",
            "longitude",
            "latlon",
            "latlng",
            "coordinates",
            "gps",
            "geo",
        ),
    ),
    Entity(
        "US_SSN",
        Group.GOVERNMENT_ID,
        "a US social security number",
        ("ssn", "social security", "social security number"),
        chance=0.9,
        prior=0.02,
    ),
    Entity("US_ITIN", Group.GOVERNMENT_ID, "a US taxpayer number", ("itin", "tin", "taxpayer"), chance=0.6, prior=0.02),
    Entity("UK_NHS", Group.GOVERNMENT_ID, "a UK NHS number", ("nhs", "nhs number"), chance=0.12, prior=0.05),
    Entity(
        "UK_NINO",
        Group.GOVERNMENT_ID,
        "a UK national insurance number",
        ("nino", "national insurance", "ni number"),
        prior=4,
    ),
    Entity(
        "ID_NIK",
        Group.GOVERNMENT_ID,
        "an Indonesian identity number (NIK)",
        (
            "nik",
            "ktp",
            "national id",
            "nationalid",
            "identity",
        ),
        chance=0.12,
        prior=0.25,
    ),
    Entity(
        "ID_NPWP",
        Group.GOVERNMENT_ID,
        "an Indonesian tax number (NPWP)",
        ("npwp", "tax id", "taxid"),
        chance=0.12,
        prior=0.1,
    ),
    Entity(
        "IN_AADHAAR",
        Group.GOVERNMENT_ID,
        "an Indian Aadhaar number",
        ("aadhaar", "aadhar", "uidai"),
        chance=0.12,
        prior=0.1,
    ),
    Entity("IN_PAN", Group.GOVERNMENT_ID, "an Indian tax number (PAN)", ("pan", "pan number"), prior=2),
    Entity("SG_NRIC_FIN", Group.GOVERNMENT_ID, "a Singaporean NRIC or FIN", ("nric", "fin"), chance=0.05),
    Entity(
        "AU_TFN",
        Group.GOVERNMENT_ID,
        "an Australian tax file number",
        ("tfn", "tax file number"),
        chance=0.12,
        prior=0.05,
    ),
    Entity("AU_ABN", Group.GOVERNMENT_ID, "an Australian business number", ("abn",), chance=0.03, prior=0.1),
    Entity("AU_MEDICARE", Group.GOVERNMENT_ID, "an Australian Medicare number", ("medicare",), chance=0.12, prior=0.05),
    Entity("ES_NIF", Group.GOVERNMENT_ID, "a Spanish NIF or NIE", ("nif", "nie", "dni"), chance=0.06),
    Entity(
        "IT_FISCAL_CODE",
        Group.GOVERNMENT_ID,
        "an Italian fiscal code",
        ("codice fiscale", "fiscal code", "cf"),
        chance=0.06,
    ),
    Entity("PL_PESEL", Group.GOVERNMENT_ID, "a Polish PESEL", ("pesel",), chance=0.06, prior=0.1),
    Entity("BR_CPF", Group.GOVERNMENT_ID, "a Brazilian CPF", ("cpf",), chance=0.02, prior=0.1),
    Entity("BR_CNPJ", Group.GOVERNMENT_ID, "a Brazilian CNPJ", ("cnpj",), chance=0.02, prior=0.1),
    Entity(
        "DE_TAX_ID",
        Group.GOVERNMENT_ID,
        "a German tax id",
        ("steuer id", "steueridentifikationsnummer", "tax id"),
        chance=0.05,
        prior=0.1,
    ),
    Entity("FR_NIR", Group.GOVERNMENT_ID, "a French social security number", ("nir", "securite sociale"), chance=0.02),
    Entity("NL_BSN", Group.GOVERNMENT_ID, "a Dutch BSN", ("bsn", "burgerservicenummer"), chance=0.12, prior=0.05),
    Entity(
        "BE_NATIONAL_NUMBER",
        Group.GOVERNMENT_ID,
        "a Belgian national number",
        ("rijksregisternummer", "registre national", "national number"),
        chance=0.03,
        prior=0.1,
    ),
    Entity("PT_NIF", Group.GOVERNMENT_ID, "a Portuguese NIF", ("nif", "contribuinte"), chance=0.12, prior=0.05),
    Entity(
        "SE_PERSONNUMMER", Group.GOVERNMENT_ID, "a Swedish personal number", ("personnummer",), chance=0.12, prior=0.1
    ),
    Entity("DK_CPR", Group.GOVERNMENT_ID, "a Danish CPR number", ("cpr", "cpr nummer"), chance=0.12, prior=0.05),
    Entity(
        "AT_SVNR",
        Group.GOVERNMENT_ID,
        "an Austrian social security number",
        ("svnr", "sozialversicherungsnummer"),
        chance=0.06,
        prior=0.1,
    ),
    Entity("CH_AHV", Group.GOVERNMENT_ID, "a Swiss AHV number", ("ahv", "avs"), chance=0.01),
    Entity("FI_HETU", Group.GOVERNMENT_ID, "a Finnish personal id", ("hetu", "henkilotunnus"), chance=0.04),
    Entity("IE_PPSN", Group.GOVERNMENT_ID, "an Irish PPSN", ("pps", "ppsn"), chance=0.06),
    Entity(
        "PASSPORT", Group.GOVERNMENT_ID, "a passport number", ("passport", "passport number", "passport no", "paspor")
    ),
    Entity(
        "DRIVER_LICENSE",
        Group.GOVERNMENT_ID,
        "a driving licence number",
        ("driver license", "drivers license", "driver licence", "driving licence", "driving license"),
        chance=0.08,
    ),
    Entity("BIC", Group.FINANCIAL, "a bank's BIC (ISO 9362)", ("bic", "swift", "swift code", "bic code")),
    Entity(
        "ORGANIZATION",
        Group.PERSON,
        "an organisation",
        ("organization", "organisation", "employer", "company", "company name", "perusahaan"),
    ),
    Entity("API_TOKEN", Group.SECRET, "a token of a well-known service", ("token", "api token", "secret key")),
    Entity("CREDENTIAL", Group.SECRET, "a password or key beside its name", ("password", "credential")),
    Entity("AWS_ACCESS_KEY", Group.SECRET, "an AWS access key id", ("aws", "access key")),
    Entity("GITHUB_TOKEN", Group.SECRET, "a GitHub token", ("github", "token")),
    Entity("GOOGLE_API_KEY", Group.SECRET, "a Google API key", ("google", "api key")),
    Entity("SLACK_TOKEN", Group.SECRET, "a Slack token", ("slack", "token")),
    Entity("JWT", Group.SECRET, "a JSON web token", ("jwt", "token", "bearer")),
    Entity("PRIVATE_KEY", Group.SECRET, "a private key", ("private key", "pem")),
    Entity("CONNECTION_STRING", Group.SECRET, "a connection string with its key", ("connection string", "dsn")),
    Entity(UNREADABLE, Group.UNREAD, "something that could not be read"),
)

ENTITIES: dict[str, Entity] = {entity.name: entity for entity in _ALL}
"""Every entity by name."""


def entity_of(name: str) -> Entity:
    """The entity of a finding; one that a policy brings along is known by its name alone."""
    return ENTITIES.get(name) or Entity(name, Group.OWN, f"{name} of the policy")
