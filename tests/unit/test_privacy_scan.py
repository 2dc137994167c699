"""Scanning objects of every format: what is found, where, and what becomes of bytes that cannot be read."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.scan import scan
from tasks.core.detectors.spans import spans
from tasks.core.errors import Invalid, PreconditionFailed
from tasks.core.findings import Finding, ScanReport
from tasks.core.listing import read_manifest
from tests.memory_store import MemoryStore

URI = DatasetURI("memory", "b", "d")
CARD = "4111111111111111"
CANARY = "canary.jane.q@secret-example.org"


def table(rows: int = 50) -> pa.Table:
    return pa.table(
        {
            "contact_email": [f"person{at}@example.org" for at in range(rows)],
            "payment_card": [CARD] * rows,
            "dep_delay": [float(at) if at % 5 else None for at in range(rows)],
            "carrier": ["UA", "AA"] * (rows // 2),
        }
    )


def parquet_bytes(of: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(of, sink, **options)
    return sink.getvalue()


def csv_bytes(of: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa_csv.write_csv(of, sink)
    return sink.getvalue()


def jsonl_bytes(of: pa.Table) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in of.to_pylist()).encode()


def scanned(**objects: bytes) -> ScanReport:
    return scanned_objects({name.replace("__", "."): content for name, content in objects.items()})


def scanned_objects(objects: dict[str, bytes]) -> ScanReport:
    store = MemoryStore()
    for path, content in objects.items():
        store.put(URI.key(path), [content], size_bytes=len(content))
    return scan(store, URI, read_manifest(store, URI))


def found(report: ScanReport, *, least: float = 0.5) -> dict[tuple[str, str], Finding]:
    return {(each.column, each.entity): each for each in report.findings if each.confidence >= least}


@pytest.mark.parametrize(
    ("name", "write"), [("t.parquet", parquet_bytes), ("t.csv", csv_bytes), ("t.jsonl", jsonl_bytes)]
)
def test_the_same_table_gives_the_same_findings_in_every_format(name: str, write: Callable[[pa.Table], bytes]) -> None:
    report = scanned_objects({name: write(table())})
    assert set(found(report)) == {("contact_email", "EMAIL_ADDRESS"), ("payment_card", "CREDIT_CARD")}
    assert found(report)["contact_email", "EMAIL_ADDRESS"].count == 50
    assert (report.rows, report.objects) == (50, 1)


def test_the_profile_counts_without_showing_text() -> None:
    (profile,) = [each for each in scanned(t__parquet=parquet_bytes(table())).profile if each.column == "dep_delay"]
    assert (profile.kind, profile.rows, profile.nulls, profile.distinct) == ("number", 50, 10, 40)
    assert (profile.minimum, profile.maximum) == (1.0, 49.0)


def test_numbers_of_a_personal_column_do_not_show_in_the_profile() -> None:
    report = scanned(t__parquet=parquet_bytes(pa.table({"card": [int(CARD), 5555555555554444]})))
    (profile,) = report.profile
    assert (profile.minimum, profile.maximum) == (None, None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int16(), pa.int64(), pa.uint64(), pa.float16(), pa.float64()]
)
def test_numbers_of_every_width_are_looked_at(kind: pa.DataType) -> None:
    values = pa.array(np.array([1, 7, 100], kind.to_pandas_dtype()), kind)
    report = scanned(a__parquet=parquet_bytes(pa.table({"figure": values})))
    assert (report.rows, report.findings) == (3, ())


def test_nested_values_are_found_at_their_path() -> None:
    rows = [{"customer": {"name": "Mary Jones", "contacts": [{"email": "a@example.org"}, {"email": "b@example.org"}]}}]
    nested = found(scanned(t__jsonl="".join(json.dumps(row) + "\n" for row in rows * 3).encode()))
    assert ("customer.contacts[].email", "EMAIL_ADDRESS") in nested
    assert nested["customer.contacts[].email", "EMAIL_ADDRESS"].count == 3
    assert ("customer.name", "PERSON") in nested
    as_parquet = found(scanned(t__parquet=parquet_bytes(pa.Table.from_pylist(rows * 3))))
    assert set(as_parquet) == set(nested)


def test_maps_dictionaries_and_binary_text_are_looked_into() -> None:
    of = pa.table(
        {
            "tags": pa.array([[("mail", "a@example.org")]], pa.map_(pa.string(), pa.string())),
            "coded": pa.array(["b@example.org"]).dictionary_encode(),
            "raw": pa.array([b"c@example.org"], pa.binary()),
        }
    )
    assert {column for column, _ in found(scanned(t__parquet=parquet_bytes(of)))} == {"tags.value[]", "coded", "raw"}


def test_plain_text_and_documents_are_searched() -> None:
    report = scanned(
        log__txt=f"job started\nmail to {CANARY} failed\n".encode(), doc__json=json.dumps({"to": [CANARY]}).encode()
    )
    assert set(found(report)) == {("(text)", "EMAIL_ADDRESS"), ("to[]", "EMAIL_ADDRESS")}


def test_notes_that_a_file_carries_beside_its_rows_are_searched() -> None:
    of = pa.table({"x": [1]}).replace_schema_metadata({"owner": CANARY})
    assert ("(metadata)", "EMAIL_ADDRESS") in found(scanned(t__parquet=parquet_bytes(of)))


def test_a_csv_without_a_header_does_not_show_its_first_row() -> None:
    report = scanned(t__csv=f"Mary Jones,{CANARY},{CARD}\nJohn Smith,b@example.org,5555555555554444\n".encode())
    assert {"PERSON", "EMAIL_ADDRESS", "CREDIT_CARD"} <= {each.entity for each in report.findings}
    assert "canary" not in repr(report)
    assert CARD not in repr(report)
    assert "Mary" not in repr(report)
    assert {each.column for each in report.findings} == {"#1", "#2", "#3"}


def test_beside_a_value_no_name_in_the_first_line_of_a_csv_is_shown() -> None:
    report = scanned(t__csv=f"7,{CANARY},canary-of-nobody\n8,b@example.org,y\n".encode())
    assert "canary" not in repr(report)
    assert {each.column for each in report.profile} == {"#1", "#2", "#3"}


def test_the_name_of_an_object_is_searched_and_not_shown() -> None:
    report = scanned_objects({f"users/{CANARY}/x.txt": b"nothing\n"})
    assert ("(name)", "EMAIL_ADDRESS") in found(report)
    assert "canary" not in repr(report)


def test_semicolons_and_tabs_separate_too() -> None:
    report = scanned_objects({"a.csv": b"id;email\n1;a@example.org\n", "b.tsv": b"id\temail\n1\ta@example.org\n"})
    assert [(each.column, each.count) for each in report.findings] == [("email", 2)]


def big_parquet() -> bytes:
    return parquet_bytes(table(2000))


UNREADABLE: list[tuple[str, bytes, str]] = [
    ("cut.parquet", big_parquet()[:-200], "Parquet"),
    (
        "flipped.parquet",
        big_parquet()[:400] + bytes(b ^ 255 for b in big_parquet()[400:2000]) + big_parquet()[2000:],
        "",
    ),
    ("fake.parquet", b"PAR1" + b"\x07" * 500 + b"PAR1", "Parquet"),
    ("ragged.csv", b"a,b\n1,2\n1,2,3\n4\n", "another number of fields"),
    ("latin.csv", "name\nJos\xe9\n".encode("latin-1"), "not UTF-8"),
    ("utf16.csv", "name\nx\n".encode("utf-16"), "UTF-16"),
    ("open_quote.csv", b'a,b\n"1,2\n' + b"x,y\n" * 10, ""),
    ("latin.txt", "Jos\xe9\n".encode("latin-1"), "not UTF-8"),
    ("image.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
    ("cut.csv.gz", gzip.compress(b"a,b\n1,2\n" * 50_000)[:-20], "gzip that is broken"),
    ("flipped.csv.gz", gzip.compress(b"a,b\n1,2\n")[:-8] + b"12345678", "gzip that is broken"),
    ("twice.csv.gz", gzip.compress(gzip.compress(b"a,b\n")), "inside another archive"),
    ("t.parquet.gz", gzip.compress(big_parquet()), "parquet inside gzip"),
    ("model.pkl", b"\x80\x04\x95\0\0\0", "a pickle"),
    ("bad.jsonl", b'{"a": 1}\n{"a": \n', "not JSON"),
    ("twice.jsonl", b'{"a": "x", "a": "y"}\n', "same key twice"),
    ("deep.jsonl", b"[" * 100_000 + b"]" * 100_000 + b"\n", "nested"),
    ("deep_object.jsonl", b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n", "nested"),
    ("deep.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    ("long.txt", b"x" * (9 * 1024 * 1024) + b"\nshort\n", "longer than"),
    ("long.csv", b"a,b\n1," + b"x" * (20 * 1024 * 1024) + b"\n", "CSV"),
    ("bytes.parquet", parquet_bytes(pa.table({"blob": pa.array([b"\xff\xfe\x00"], pa.binary())})), "not UTF-8"),
]


@pytest.mark.parametrize(("path", "content", "why"), UNREADABLE, ids=[path for path, _, _ in UNREADABLE])
def test_what_cannot_be_read_is_a_finding(path: str, content: bytes, why: str) -> None:
    report = scanned_objects({path: content})
    unread = [each for each in report.findings if each.entity == "UNREADABLE"]
    assert unread
    assert {each.confidence for each in unread} == {1.0}
    assert why in unread[0].why
    assert report.objects == 1


def test_a_ragged_row_that_is_no_utf_8_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    report = scanned(t__csv=b"a,b\n1,2\nJos\xe9\n")
    assert [each.why for each in report.findings] == ["CSV that cannot be parsed after 0 rows (ArrowInvalid)"]
    assert told == []


def test_what_follows_something_unreadable_is_still_searched() -> None:
    report = scanned_objects({"a.jsonl": b"not json\n" + json.dumps({"mail": CANARY}).encode() + b"\n"})
    assert {each.entity for each in report.findings} == {"UNREADABLE", "EMAIL_ADDRESS"}


@pytest.mark.parametrize(
    "rows", [b'{"v": 1}\n{"v": "a@example.org"}\n', b'{"v": {"w": "a@example.org"}}\n{"v": [1]}\n"x"\n']
)
def test_mixed_types_in_one_field_are_read(rows: bytes) -> None:
    report = scanned(t__jsonl=rows)
    assert {each.entity for each in report.findings} == {"EMAIL_ADDRESS"}


def test_fields_that_first_come_late_in_a_file_are_seen() -> None:
    lines = b"".join(b'{"x": %d, "pad": "%s"}\n' % (at, b"p" * 900) for at in range(20_000))
    report = scanned(t__jsonl=lines + json.dumps({"late": CANARY}).encode() + b"\n")
    assert ("late", "EMAIL_ADDRESS") in found(report)


def test_many_unreadable_objects_are_summed_up() -> None:
    report = scanned_objects({f"{at}.png": b"\x89PNG\0" for at in range(120)})
    assert len(report.findings) == 51
    assert sum(each.count for each in report.findings) == 120


def test_empty_objects_hold_nothing() -> None:
    assert scanned(a__csv=b"", b__parquet=b"", _SUCCESS=b"").findings == ()


def test_odd_numbers_do_not_stop_the_scan() -> None:
    of = pa.table(
        {
            "f": [float("nan"), float("inf"), -0.0],
            "u": pa.array([2**64 - 1, 0, 1], pa.uint64()),
            "i": pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
            "n": pa.nulls(3),
            "t": pa.array([0, 1, 2], pa.time64("us")),
            "d": pa.array([1, 2, 3], pa.decimal128(38, 2)),
        }
    )
    report = scanned(t__parquet=parquet_bytes(of))
    assert report.findings == ()
    assert report.rows == 3


def test_an_object_that_changes_while_it_is_scanned_stops_the_scan() -> None:
    store = MemoryStore()
    store.put(URI.key("a.txt"), [b"x"], size_bytes=1)
    manifest = read_manifest(store, URI)
    store.put(URI.key("a.txt"), [b"y"], size_bytes=1)
    with pytest.raises(PreconditionFailed):
        scan(store, URI, manifest)


def test_an_unknown_language_is_refused() -> None:
    store = MemoryStore()
    with pytest.raises(Invalid, match="'xx'"):
        scan(store, URI, read_manifest(store, URI), detection=Detection(languages=("xx",)))


def test_large_objects_are_read_in_ranges() -> None:
    rows = 700_000
    columns = {f"noise{at}": np.random.default_rng(at).random(rows) for at in range(6)}
    content = parquet_bytes(pa.table(columns | {"mail": ["a@example.org"] * rows}), row_group_size=50_000)
    assert len(content) > 33 * 1024 * 1024
    report = scanned(t__parquet=content)
    assert found(report)["mail", "EMAIL_ADDRESS"].count == rows


def test_canaries_are_found_nowhere_in_a_report() -> None:
    of = pa.table({"mail": [CANARY], "card": [CARD], "name": ["Canaria Canary"], "note": [f"call {CANARY}"]})
    report = scanned(t__parquet=parquet_bytes(of), t__csv=csv_bytes(of), t__jsonl=jsonl_bytes(of))
    for text in (repr(report), json.dumps(report.as_dict()), str(report.profile)):
        assert "canary" not in text.lower()
        assert CARD not in text


def test_spans_say_where_and_never_what() -> None:
    store = MemoryStore()
    text = f"Zażółć {CANARY}, again {CANARY}; card 4111 1111 1111 1111."
    objects = {
        "t.jsonl": json.dumps({"note": "none"}).encode() + b"\n" + json.dumps({"note": text}).encode() + b"\n",
        "p.csv": b"lead_passenger,n\nMary Jones,1\n,2\nJohn Smith,3\n",
    }
    for path, content in objects.items():
        store.put(URI.key(path), [content], size_bytes=len(content))
    found_spans = list(spans(store, URI, read_manifest(store, URI)))
    assert "canary" not in repr(found_spans)
    cut = {
        (each["path"], each["row"], each["entity"], text[each["start"] : each["end"]])
        for each in found_spans
        if each["path"] == "t.jsonl"
    }
    assert cut == {("t.jsonl", 1, "EMAIL_ADDRESS", CANARY), ("t.jsonl", 1, "CREDIT_CARD", "4111 1111 1111 1111")}
    starts = [each["start"] for each in found_spans if each["entity"] == "EMAIL_ADDRESS"]
    assert starts == [text.index(CANARY), text.rindex(CANARY)]
    assert [(each["row"], each["end"]) for each in found_spans if each["entity"] == "PERSON"] == [(0, 10), (2, 10)]


def test_a_licence_told_by_its_form_does_not_speak_for_its_column() -> None:
    store = MemoryStore()
    content = b"x9,driving_licence\nWIDJA905146RT9XK,WIDJA905146RT9XK\nA1234567,A1234567\n"
    store.put(URI.key("t.csv"), [content], size_bytes=len(content))
    found = {(each["column"], each["row"]) for each in spans(store, URI, read_manifest(store, URI))}
    assert found == {("x9", 0), ("driving_licence", 0), ("driving_licence", 1)}
