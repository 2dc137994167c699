"""What the detectors take for which entity: examples of every kind, wrong check digits included."""

from __future__ import annotations

import datetime
import importlib
import random

import numpy as np
import polars as pl
import pytest

from tasks.core.detectors import checks
from tasks.core.detectors.columns import ColumnState, judge
from tasks.core.detectors.entities import ENTITIES
from tasks.core.detectors.search import hits_in
from tasks.core.detectors.sketch import Sketch
from tasks.core.detectors.words import speaks_for, words_of

VALID = [
    ("EMAIL_ADDRESS", "www.x@example.org"),
    ("EMAIL_ADDRESS", "write to jane.o'neil+news@mail.example.co.uk today"),
    ("EMAIL_ADDRESS", "jürgen@exämple.de"),
    ("EMAIL_ADDRESS", "https://example.org/?to=jane@example.org"),
    ("PHONE_NUMBER", "+62 812-3456-7890"),
    ("PHONE_NUMBER", "+6281234567890"),
    ("PHONE_NUMBER", "081234567890"),
    ("PHONE_NUMBER", "(415) 555-2671"),
    ("PHONE_NUMBER", "415.555.2671"),
    ("PHONE_NUMBER", "001-415-555-2671x123"),
    ("PHONE_NUMBER", "+44 20 7946 0958"),
    ("PHONE_NUMBER", "020 7946 0958"),
    ("PHONE_NUMBER", "07400 123456"),
    ("PHONE_NUMBER", "6123 4567"),
    ("PHONE_NUMBER", "022 12345"),
    ("PHONE_NUMBER", "6281234567890"),
    ("CREDIT_CARD", "4111111111111111"),
    ("CREDIT_CARD", "paid with 4111 1111 1111 1111."),
    ("CREDIT_CARD", "qty 5 4111111111111111"),
    ("CREDIT_CARD", "5555-5555-5555-4444"),
    ("CREDIT_CARD", "3782 822463 10005"),
    ("CREDIT_CARD", "6011111111111117"),
    ("CREDIT_CARD", "3530111333300000"),
    ("CREDIT_CARD", "2223003122003222"),
    ("CREDIT_CARD", "https://pay.example.org/?card=4111111111111111"),
    ("IBAN_CODE", "DE89370400440532013000"),
    ("IBAN_CODE", "to GB29 NWBK 6016 1331 9268 19 please"),
    ("IBAN_CODE", "gb29nwbk60161331926819"),
    ("IBAN_CODE", "NO9386011117947"),
    ("IBAN_CODE", "NO 93 8601 11 17947"),
    ("IBAN_CODE", "NO93.8601.11.17947 and 12 more"),
    ("IBAN_CODE", "ES72 2013-0692-81-0201150993"),
    ("IBAN_CODE", "DE89 3704 0044 0532 0130 00, FR76 3000 6000 0112 3456 7890 189"),
    ("CRYPTO", "0x52908400098527886E0F7030069857D2E4169EE7"),
    ("CRYPTO", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
    ("CRYPTO", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
    ("IP_ADDRESS", "from 192.168.10.254 blocked"),
    ("IP_ADDRESS", "connected (192.168.10.254 again)"),
    ("IP_ADDRESS", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
    ("IP_ADDRESS", "fe80::1ff:fe23:4567:890a"),
    ("MAC_ADDRESS", "00:1A:2b:3c:4D:5e"),
    ("MAC_ADDRESS", "00-11-22-33-44-55"),
    ("MAC_ADDRESS", "port ab12.3456.789C is down"),
    ("MAC_ADDRESS", "0a1b.2c3d.4e5f"),
    ("MAC_ADDRESS", "0012.3456.789a"),
    ("MAC_ADDRESS", "a0bb.ccdd.eeff"),
    ("URL", "see https://example.org/a?b=1"),
    ("URL", "www.example.org/page"),
    ("URL_CREDENTIALS", "postgresql://app:pass@db.example.org:5432/x"),
    ("COORDINATES", "-6.200000, 106.816666"),
    ("US_SSN", "536-90-4399"),
    ("US_SSN", "536 90 4399"),
    ("US_SSN", "ssn 536.90.4399"),
    ("US_ITIN", "912-70-1234"),
    ("US_ITIN", "912 70 1234"),
    ("UK_NHS", "943 476 5919"),
    ("UK_NHS", "9434765919"),
    ("UK_NINO", "AB 12 34 56 C"),
    ("ID_NIK", "3273014507900001"),
    ("ID_NIK", "NIK3273014507900001"),
    ("ID_NPWP", "01.234.567.8-901.000"),
    ("IN_AADHAAR", "2345 6789 0124"),
    ("IN_PAN", "ABCPE1234F"),
    ("SG_NRIC_FIN", "S1234567D"),
    ("SG_NRIC_FIN", "F1234567N"),
    ("AU_TFN", "123 456 782"),
    ("AU_ABN", "51 824 753 556"),
    ("AU_MEDICARE", "2123 45670 1"),
    ("ES_NIF", "12345678Z"),
    ("ES_NIF", "2345678T"),
    ("ES_NIF", "2345678-T"),
    ("ES_NIF", "X1234567L"),
    ("IT_FISCAL_CODE", "RSSMRA85T10A562S"),
    ("PL_PESEL", "44051401359"),
    ("BR_CPF", "529.982.247-25"),
    ("IBAN_CODE", "paid to DE89 3704 0044 0532 0130 00 and then was late again"),
    ("IBAN_CODE", "DE89370400440532013000 upgrade was late"),
    ("BR_CNPJ", "11.222.333/0001-81"),
    ("DE_TAX_ID", "36 574 261 809"),
    ("DE_TAX_ID", "36574261809"),
    ("DE_TAX_ID", "74771356829"),
    ("FR_NIR", "2 95 10 99 126 111 93"),
    ("FR_NIR", "2951099126111 93"),
    ("FR_NIR", "379067511604234"),
    ("FR_NIR", "779067511604228"),
    ("FR_NIR", "279062A03301737"),
    ("FR_NIR", "184112b03301746"),
    ("NL_BSN", "111222333"),
    ("BE_NATIONAL_NUMBER", "85.07.30-033.28"),
    ("PT_NIF", "501964843"),
    ("SE_PERSONNUMMER", "880320-0016"),
    ("SE_PERSONNUMMER", "19750812-0420"),
    ("SE_PERSONNUMMER", "197508120420"),
    ("SE_PERSONNUMMER", "pnr 200311307177."),
    ("DK_CPR", "211062-5629"),
    ("DK_CPR", "1405732005"),
    ("AT_SVNR", "1237 010180"),
    ("CH_AHV", "756.9217.0769.85"),
    ("FI_HETU", "131052-308T"),
    ("FI_HETU", "240687-3170"),
    ("FI_HETU", "310889X417V"),
    ("FI_HETU", "310889u417v"),
    ("IE_PPSN", "6433435F"),
    ("IE_PPSN", "6433435OA"),
    ("DRIVER_LICENSE", "WIDJA905146RT9XK"),
    ("DRIVER_LICENSE", "no. lee99751298a98bc was issued"),
    ("DRIVER_LICENSE", "NG999654300QZ5MM"),
    ("API_TOKEN", "use glpat-" + "a1B2c3" * 4),
    ("API_TOKEN", "sk_live_" + "a1B2c3" * 4),
    ("API_TOKEN", "rk_test_" + "a1B2c3" * 4),
    ("CREDENTIAL", 'password = "hunter2!x"'),
    ("CREDENTIAL", "api_key: 9f8e7d6c5b4a"),
    ("CREDENTIAL", "AWS_SECRET_ACCESS_KEY=" + "aB3/" * 10),
    ("CREDENTIAL", '"SecretAccessKey": "' + "aB3+" * 10 + '"'),
    ("CREDENTIAL", "secret-key: 9f8e7d6c5b4a"),
    ("AWS_ACCESS_KEY", "key AKIAIOSFODNN7EXAMPLE end"),
    ("AWS_ACCESS_KEY", "ABIA" + "A2B3" * 4),
    ("AWS_ACCESS_KEY", "ACCA" + "A2B3" * 4),
    ("GITHUB_TOKEN", "ghp_" + "a1B2" * 9),
    ("GOOGLE_API_KEY", "AIza" + "Sy0_-" * 7),
    ("SLACK_TOKEN", "xoxb-123456789012-abcdefGHIJ"),
    ("SLACK_TOKEN", "xapp-1-A0123456789-abcdefGHIJ"),
    ("SLACK_TOKEN", "xwfp-123456789012-abcdefGHIJ"),
    ("JWT", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
    ("PRIVATE_KEY", "-----BEGIN RSA PRIVATE KEY-----"),
    ("CONNECTION_STRING", "AccountName=x;AccountKey=" + "Zm9vYmFy" * 6 + "=="),
]

INVALID = [
    ("EMAIL_ADDRESS", "jane@home and @handle"),
    ("CREDIT_CARD", "4111111111111112"),
    ("CREDIT_CARD", "4111 1111 1111 1112"),
    ("CREDIT_CARD", "9111111111111111"),
    ("IBAN_CODE", "DE89370400440532013001"),
    ("IBAN_CODE", "NO 93 8601 11 17948"),
    ("IBAN_CODE", "NO 93 8601 11 179470"),
    ("IBAN_CODE", "no 93 8601 11 17947"),
    ("IBAN_CODE", "DE8937040044053201300"),
    ("IP_ADDRESS", "192.168.10.256"),
    ("IP_ADDRESS", "192.(168.10.20"),
    ("IP_ADDRESS", "10:30:45"),
    ("MAC_ADDRESS", "00:1A:2b:3c:4D"),
    ("MAC_ADDRESS", "0012.3456.7890"),
    ("MAC_ADDRESS", "face.feed.beef"),
    ("MAC_ADDRESS", "0012.3456.789ab"),
    ("US_SSN", "666-12-3456"),
    ("US_SSN", "000-12-3456"),
    ("US_SSN", "536-00-4399"),
    ("US_SSN", "536-90-0000"),
    ("US_SSN", "536 90 0000"),
    ("US_SSN", "536/90/4399"),
    ("US_ITIN", "912-93-1234"),
    ("UK_NHS", "943 476 5918"),
    ("UK_NINO", "DA123456C"),
    ("ID_NIK", "9973014507900001"),
    ("ID_NIK", "3273013213900001"),
    ("ID_NIK", "3273013002900001"),
    ("ID_NIK", "3273014507900000"),
    ("IN_AADHAAR", "2345 6789 0123"),
    ("IN_AADHAAR", "1345 6789 0124"),
    ("IN_PAN", "ABCZE1234F"),
    ("SG_NRIC_FIN", "S1234567A"),
    ("AU_TFN", "123 456 789"),
    ("AU_ABN", "51 824 753 557"),
    ("AU_MEDICARE", "2123 45671 1"),
    ("ES_NIF", "12345678A"),
    ("ES_NIF", "2345678A"),
    ("IT_FISCAL_CODE", "RSSMRA85T10A562T"),
    ("PL_PESEL", "44051401358"),
    ("BR_CPF", "529.982.247-26"),
    ("BR_CPF", "111.111.111-11"),
    ("IBAN_CODE", "paid to DE89 3704 0044 0532 0130 01 and then was late again"),
    ("BR_CNPJ", "11.222.333/0001-82"),
    ("DE_TAX_ID", "36 574 261 808"),
    ("DE_TAX_ID", "47771356822"),
    ("FR_NIR", "2 95 10 99 126 111 94"),
    ("FR_NIR", "579067511604237"),
    ("FR_NIR", "279062B03301737"),
    ("FR_NIR", "579062A03301737"),
    ("NL_BSN", "111222334"),
    ("BE_NATIONAL_NUMBER", "85.07.30-033.29"),
    ("PT_NIF", "501964842"),
    ("SE_PERSONNUMMER", "880320-0018"),
    ("SE_PERSONNUMMER", "17750812-0420"),
    ("SE_PERSONNUMMER", "197508120421"),
    ("DK_CPR", "321062-5629"),
    ("DK_CPR", "1405732006"),
    ("AT_SVNR", "2237 010180"),
    ("CH_AHV", "756.9217.0769.84"),
    ("FI_HETU", "131052-308U"),
    ("FI_HETU", "240687-3171"),
    ("FI_HETU", "310689-4178"),
    ("FI_HETU", "310689Y4178"),
    ("FI_HETU", "310889T417V"),
    ("IE_PPSN", "6433435E"),
    ("DRIVER_LICENSE", "WIDJA913146RT9XK"),
    ("DRIVER_LICENSE", "WIDJA905006RT9XK"),
    ("DRIVER_LICENSE", "WI9JA905146RT9XK"),
    ("DRIVER_LICENSE", "LEE98751298A98BC"),
    ("CREDENTIAL", "the secret: nobody knows"),
    ("CREDENTIAL", "the secret access key: ask somebody"),
    ("API_TOKEN", "pk_test_" + "a1B2c3" * 4),
    ("PHONE_NUMBER", "+999 1234 5678"),
    ("PHONE_NUMBER", "115-055-2671"),
    ("PHONE_NUMBER", "2013-01-01 10:00:00"),
    ("PHONE_NUMBER", "+62 123"),
    ("PHONE_NUMBER", "+1 415 555 26711"),
    ("PHONE_NUMBER", "0099990000"),
    ("PHONE_NUMBER", "0.9.599.6499"),
    ("PHONE_NUMBER", "1.2.3456.7890"),
    ("PHONE_NUMBER", "v3.0.12-12345678"),
    ("IP_ADDRESS", "1.2.3.4.5"),
    ("PHONE_NUMBER", "2013 2014 2015 2016"),
    ("COORDINATES", "1.5, 2.5"),
    ("AWS_ACCESS_KEY", "AKIA1234"),
    ("JWT", "eyJhbGciOiJIUzI1NiJ9"),
    ("URL_CREDENTIALS", "https://example.org/a:b@c"),
]


def entities_in(text: str) -> set[str]:
    return {each.entity for each in hits_in(pl.Series([text])) if each.valid.any()}


@pytest.mark.parametrize(("entity", "text"), VALID)
def test_a_valid_example_is_found(entity: str, text: str) -> None:
    assert entity in entities_in(text)


@pytest.mark.parametrize(("entity", "text"), INVALID)
def test_an_example_with_a_wrong_check_digit_or_shape_is_not_found(entity: str, text: str) -> None:
    assert entity not in entities_in(text)


def test_every_entity_of_the_vocabulary_can_be_found() -> None:
    by_header = {
        "PERSON",
        "LOCATION",
        "DATE_OF_BIRTH",
        "UNREADABLE",
        "BIC",
        "PASSPORT",
        "ORGANIZATION",
    }
    assert {entity for entity, _ in VALID} | by_header == set(ENTITIES)


@pytest.mark.parametrize(
    "text",
    [
        "550e8400-e29b-41d4-a716-446655440000",
        "1Z999AA10123456784",
        "3.14159265358979",
        "tok_mfrggzdfmztwq2lkmfrggzdfmz",
    ],
)
def test_ids_fractions_and_our_own_tokens_are_nobody_s(text: str) -> None:
    assert entities_in(text) == set()


ORACLES = {
    "nl_bsn": ("nl.bsn", 9), "pt_nif": ("pt.nif", 9), "de_tax_id": ("de.idnr", 11), "at_svnr": ("at.vnr", 10),
    "br_cnpj": ("br.cnpj", 14), "br_cpf": ("br.cpf", 11), "pl_pesel": ("pl.pesel", 11), "au_abn": ("au.abn", 11),
    "au_tfn": ("au.tfn", 9), "uk_nhs": ("gb.nhs", 10), "aadhaar": ("in_.aadhaar", 12),
}  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
def test_checks_agree_with_python_stdnum(name: str) -> None:
    module, width = ORACLES[name]
    oracle = importlib.import_module(f"stdnum.{module}")
    rows = np.random.default_rng(5).integers(0, 10, (20_000, width)).astype(np.uint8)
    valid = getattr(checks, name)(rows)
    texts = ["".join(map(str, row)) for row in rows]
    assert valid.sum() > 3
    agreed = np.array([oracle.is_valid(text) for text in texts])
    # Where one asks for more, such as a birth date that can be, it must be a part of the other.
    assert not ((valid & ~agreed).any() and (agreed & ~valid).any())
    assert (valid & agreed).sum() >= 0.25 * (valid | agreed).sum()


def test_what_stands_beside_an_iban_is_found_too() -> None:
    text = "NO 93 8601 11 17947, 415-555-2671; DE89 3704 0044 0532 0130 00 a@example.org"
    assert {"IBAN_CODE", "PHONE_NUMBER", "EMAIL_ADDRESS"} <= entities_in(text)


def test_a_number_may_be_several_things_at_once() -> None:
    assert {"UK_NHS", "PHONE_NUMBER"} <= entities_in("943 476 5919")


# Columns


def judged(name: str, values: list[object], *, least: float = 0.5) -> dict[str, float]:
    state = ColumnState(name)
    series = pl.Series(name, values)
    state.add(series)
    return {each.entity: each.confidence for each in judge(state, "t.csv", len(values)) if each.confidence >= least}


def random_numbers(digits: int, count: int = 3000, seed: int = 7) -> list[str]:
    matrix = np.random.default_rng(seed).integers(0, 10, (count, digits))
    matrix[:, 0] = np.maximum(matrix[:, 0], 1)
    return ["".join(map(str, row)) for row in matrix]


def with_luhn(numbers: list[str]) -> list[str]:
    done: list[str] = []
    for text in numbers:
        doubled = [int(d) * 2 if at % 2 == 0 else int(d) for at, d in enumerate(text[::-1])]
        total = sum(value - 9 if value > 9 else value for value in doubled)
        done.append(text + str(-total % 10))
    return done


@pytest.mark.parametrize("digits", [9, 10, 11, 12, 15, 16])
@pytest.mark.parametrize("name", ["order_no", "code", "id"])
@pytest.mark.parametrize("seed", range(4))
def test_random_numbers_are_nobody_s(name: str, digits: int, seed: int) -> None:
    assert judged(name, [*random_numbers(digits, 1000, seed)]) == {}
    assert judged(name, [int(text) for text in random_numbers(digits, 1000, seed)]) == {}


@pytest.mark.parametrize("form", ["%y%m%d%H%M", "%Y%m%d%H%M", "%d%m%y%H%M", "%Y%m%d-%H%M"])
def test_times_written_as_digits_are_nobody_s(form: str) -> None:
    start, draw = datetime.datetime(2019, 1, 1), random.Random(6)
    times = [start + datetime.timedelta(minutes=draw.randrange(3_000_000)) for _ in range(2000)]
    found = judged("logged", [time.strftime(form) for time in times])
    assert not found.keys() & {"SE_PERSONNUMMER", "DK_CPR", "FI_HETU"}


def test_account_like_order_numbers_of_one_country_are_no_ibans() -> None:
    draw = random.Random(8)
    column = [
        f"NO {draw.randrange(10**4):04} {draw.randrange(10**4):04} {draw.randrange(10**5):05}" for _ in range(3000)
    ]
    assert "IBAN_CODE" not in judged("code", [*column])


@pytest.mark.parametrize("form", ["{}.{}.{}.{}", "0.{}.{}.1{}{}"])
def test_versions_are_no_telephone_numbers(form: str) -> None:
    draw = random.Random(9)
    numbers = [
        (draw.randrange(10), draw.randrange(10), draw.randrange(10**4), draw.randrange(10**4)) for _ in range(900)
    ]
    assert judged("version", [form.format(*each) for each in numbers]) == {}


def test_licences_of_one_country_do_not_hide_those_of_others() -> None:
    state = ColumnState("driving_licence")
    state.add(pl.Series(["D1234567", "E7654321", "WIDJA905146RT9XK"]))
    (found,) = (each for each in judge(state, "t.csv", 3) if each.entity == "DRIVER_LICENSE")
    assert found.count == 3


@pytest.mark.parametrize("text", ["536 90 4399", "536.90.4399"])
def test_groups_of_a_social_security_number_without_dashes_count_with_a_word_beside_them(text: str) -> None:
    assert judged("note", [text, f"rows {text}"]) == {}
    assert judged("note", [f"her SSN is {text}"])["US_SSN"] > 0.5
    column = [text.replace("4399", f"{serial}") for serial in range(4399, 4499)]
    assert "US_SSN" in judged("ssn", [*column])
    assert "US_SSN" not in judged("code", [*column])


def test_a_column_of_cards_is_found_whatever_it_is_called() -> None:
    cards = with_luhn(["4" + text for text in random_numbers(14)])
    for name in ("payment_card", "code", "order_no"):
        assert "CREDIT_CARD" in judged(name, [*cards])
        assert "CREDIT_CARD" in judged(name, [int(card) for card in cards])
        assert "CREDIT_CARD" in judged(name, [float(card) for card in cards])


def test_cards_among_order_numbers_are_found() -> None:
    mixed = with_luhn(["4" + text for text in random_numbers(14, 900)]) + random_numbers(16, 2100)
    assert set(judged("number", [*mixed])) == {"CREDIT_CARD"}


def test_a_column_of_niks_is_not_taken_for_cards() -> None:
    niks = [f"32730{at % 9 + 1}{at % 28 + 1:02d}{at % 12 + 1:02d}90{at:04d}" for at in range(1, 2000)]
    found = judged("nomor", [*niks])
    assert "ID_NIK" in found
    assert "CREDIT_CARD" not in found


def test_one_bare_number_counts_unless_the_header_speaks_against_it() -> None:
    for number in ("3273014507900001", "4111111111111111"):
        assert judged("note", [number]) != {}
        assert judged("order_ref", [number]) == {}
    assert judged("note", ["3273014507900001"])["ID_NIK"] < 0.6
    assert judged("note", ["NIK: 3273014507900001 sudah diverifikasi"])["ID_NIK"] > 0.9
    assert judged("national_ids", ["3273014507900001"])["ID_NIK"] > 0.9


def test_prefixed_order_numbers_are_no_phones() -> None:
    assert judged("order", [f"ORD-{text}" for text in random_numbers(10)]) == {}


@pytest.mark.parametrize(
    ("name", "values", "entity"),
    [
        ("lead_passenger", ["Siti Nurhaliza", "John Smith", "Ayu Lestari"], "PERSON"),
        ("nama lengkap", ["Budi Santoso", "Dewi Anggraini"], "PERSON"),
        ("name", ["Mary Jones", "Agus Salim", "Ann Lee"], "PERSON"),
        ("home_address", ["12 Main Street, Springfield", "Jl. Sudirman No. 5, Jakarta"], "LOCATION"),
        ("date_of_birth", ["1980-02-03", "1991-12-31"], "DATE_OF_BIRTH"),
        ("tanggal_lahir", ["03/02/1980", "31-12-1991"], "DATE_OF_BIRTH"),
        ("dob", [19800203, 19911231], "DATE_OF_BIRTH"),
        ("latitude", [-6.200001, 3.595196], "COORDINATES"),
        ("swift_code", ["DEUTDEFF", "CHASUS33XXX"], "BIC"),
        ("passport_no", ["C01X00T47", "X1234567"], "PASSPORT"),
        ("driving_licence", ["D1234567", "MORGA657054SM9IJ"], "DRIVER_LICENSE"),
        ("employer", ["Acme Ltd", "Nusantara Abadi"], "ORGANIZATION"),
    ],
)
def test_a_header_speaks_when_the_values_look_the_part(name: str, values: list[object], entity: str) -> None:
    assert entity in judged(name, values)
    assert judged("x9", values[:1]) == {}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("airport_name", ["John F Kennedy Intl", "La Guardia"]),
        ("name", ["United Air Lines Inc.", "Delta Air Lines Inc."]),
        ("email_address", ["<EMAIL_ADDRESS>", "<EMAIL_ADDRESS>"]),
        ("lead_passenger", ["<PERSON>", "tok_mfrggzdfmztwq2lkmfrggzdfmz"]),
        ("lead_passenger", ["********rhaliza", "***** mith"]),
        ("date_of_birth", ["1980-02", "1991"]),
        ("latitude", [-6.2, 3.6]),
        ("dep_time", [517, 533, 542]),
    ],
)
def test_a_header_alone_is_no_finding(name: str, values: list[object]) -> None:
    assert judged(name, values) == {}


def test_people_are_found_in_a_column_without_a_telling_name() -> None:
    names = [
        f"{a} {b}" for a in ("Mary", "John", "Siti", "Budi", "Ann") for b in ("Smith", "Wijaya", "Lee", "Hall", "Ono")
    ]
    assert "PERSON" in judged("f3", [*names])


def test_a_finding_says_why_and_never_what() -> None:
    state = ColumnState("payment_card")
    state.add(pl.Series(["4111111111111111", "5555555555554444"]))
    finding = next(iter(judge(state, "t.csv", 2)))
    assert (finding.entity, finding.count, finding.share, finding.whole) == ("CREDIT_CARD", 2, 1.0, 1.0)
    assert "the column's name says 'payment card'" in finding.why
    assert "4111" not in repr(finding)


def test_hits_inside_longer_text_are_told_from_hits_that_fill_their_cell() -> None:
    state = ColumnState("notes")
    state.add(pl.Series(["please write to jane@example.org about the refund", "nothing here"]))
    (finding,) = judge(state, "t.csv", 2)
    assert (finding.count, finding.share, finding.whole) == (1, 0.5, 0.0)


# Words and sketches


def test_words_of_a_header_are_told_apart() -> None:
    assert words_of("customerEmail_Address2") == ("customer", "email", "address")
    assert speaks_for("PHONE_NUMBER", "no_hp") == "no hp"
    assert speaks_for("EMAIL_ADDRESS", "contactemail")
    assert speaks_for("LOCATION", "email_address") == ""
    assert speaks_for("PERSON", "file_name") == ""
    assert speaks_for("COORDINATES", "platform") == ""


def test_words_of_a_language_count_when_it_is_asked_for() -> None:
    assert speaks_for("PERSON", "nama_penumpang", ("en",)) == ""
    assert speaks_for("PERSON", "nama_penumpang", ("id",)) == "penumpang"
    assert speaks_for("ID_NIK", "ktp", ("en",)) == "ktp"


def test_a_sketch_samples_different_values_in_any_order() -> None:
    values = np.random.default_rng(1).integers(0, 2**64, 20_000, dtype=np.uint64)
    marks = (values % 10 == 0).astype(np.uint8)
    forwards, in_pieces = Sketch(512), Sketch(512)
    forwards.add(values, marks)
    for piece in np.array_split(np.random.default_rng(2).permutation(len(values)), 7):
        in_pieces.add(values[piece], marks[piece])
        in_pieces.add(values[piece], marks[piece])
    assert (forwards.hashes == in_pieces.hashes).all()
    assert (forwards.marks == in_pieces.marks).all()
    assert 0.05 < forwards.share(1) < 0.15
    assert 14_000 < forwards.distinct < 28_000
