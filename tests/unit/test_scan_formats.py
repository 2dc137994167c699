"""Avro, ORC and zip archives are read within bounds; what is broken, encrypted or a bomb does not pass."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from pyarrow import orc

from tasks.core.detectors.scan import scan
from tasks.core.errors import PolicyViolation
from tasks.core.findings import Finding
from tasks.core.transform import apply_treatment
from tests.unit.test_privacy_bombs import KEYS, STAGED, URI, scanned, stored, treatment

PEOPLE = [{"id": at, "contact": {"email": [f"p{at}@example.org"]}, "day": None} for at in range(50)]
SCHEMA = {
    "type": "record", "name": "Person", "fields": [
        {"name": "id", "type": "long"},
        {"name": "contact", "type": {"type": "record", "name": "Contact", "fields": [
            {"name": "email", "type": {"type": "array", "items": "string"}}]}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
    ],
}  # fmt: skip


def avro_bytes(codec: str = "null", schema: Any = SCHEMA, records: list[Any] = PEOPLE) -> bytes:
    sink = io.BytesIO()
    fastavro.writer(sink, schema, records, codec=codec, metadata={"owner": "jane@example.org"})
    return sink.getvalue()


def orc_bytes() -> bytes:
    sink = io.BytesIO()
    orc.write_table(pa.Table.from_pylist([{"id": 1, "email": f"p{at}@example.org"} for at in range(50)]), sink)
    return sink.getvalue()


def zip_bytes(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return sink.getvalue()


def found(path: str, content: bytes) -> dict[tuple[str, str], Finding]:
    return {(each.entity, each.column): each for each in scanned({path: content}).findings if each.confidence >= 0.5}


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_avro_is_read_at_its_paths_and_so_are_its_notes(codec: str) -> None:
    seen = found("t.avro", avro_bytes(codec))
    assert seen["EMAIL_ADDRESS", "contact.email[]"].count == 50
    assert ("EMAIL_ADDRESS", "(metadata)") in seen
    assert not any(entity == "UNREADABLE" for entity, _ in seen)


def test_orc_is_read() -> None:
    assert found("t.orc", orc_bytes())["EMAIL_ADDRESS", "email"].count == 50


def test_text_inside_zip_archives_is_read_and_so_are_the_names_of_members() -> None:
    seen = found(
        "t.zip",
        zip_bytes(
            people__csv=b"email\njane@example.org\n", notes__txt=b"call +62 812-3456-7890\n",
            rows__jsonl=b'{"iban": "DE89370400440532013000"}\n', **{"dir/bob@example__org__json": b"{}"},
        ),
    )  # fmt: skip
    assert {("EMAIL_ADDRESS", "email"), ("PHONE_NUMBER", "(text)"), ("IBAN_CODE", "iban")} <= seen.keys()
    assert ("EMAIL_ADDRESS", "(metadata)") in seen


RECURSIVE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
NOTHING = {"type": "record", "name": "R", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]}


def encrypted() -> bytes:
    content = bytearray(zip_bytes(a__txt=b"hello"))
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("path", "make", "why"),
    [
        ("t.avro", lambda: avro_bytes()[:-30], "cut short"),
        ("t.avro", lambda: avro_bytes()[:-1] + b"x", "does not end where it says"),
        ("t.avro", lambda: b"Obj\x01" + b"\xff" * 40, "Avro"),
        ("t.avro", lambda: avro_bytes(schema=RECURSIVE, records=[{"next": None}]), "refers to itself"),
        ("t.avro", lambda: avro_bytes(schema=NOTHING, records=[{"x": [None] * 1000}]), "needs no bytes"),
        ("t.avro", lambda: avro_bytes("deflate", "string", ["x" * 70_000_000]), "more than 64 MiB"),
        ("t.orc", lambda: orc_bytes()[:-40], "ORC"),
        ("t.orc", lambda: b"ORC" + bytes(100), "ORC"),
        ("t.zip", lambda: zip_bytes(a__txt=b"hello")[:-30], "broken"),
        ("t.zip", lambda: zip_bytes(zipfile.ZIP_STORED, a__txt=b"hello").replace(b"hello", b"hallo"), "broken"),
        ("t.zip", encrypted, "encrypted"),
        ("t.zip", lambda: zip_bytes(b__zip=zip_bytes(a__txt=b"hello")), "zip inside a zip archive"),
        ("t.zip", lambda: zip_bytes(a__bin=b"\0\1\2"), "binary format inside a zip archive"),
        ("t.zip", lambda: zip_bytes(a__txt=b"0" * 270_000_000), "expands to more than"),
        ("t.zip.gz", lambda: __import__("gzip").compress(zip_bytes(a__txt=b"hello")), "zip inside gzip"),
    ],
)  # fmt: skip
def test_what_is_broken_or_a_bomb_does_not_pass(path: str, make: Callable[[], bytes], why: str) -> None:
    reasons = [each.why for each in scanned({path: make()}).findings if each.entity == "UNREADABLE"]
    assert any(why in reason for reason in reasons), reasons


@pytest.mark.parametrize(("path", "content"), [("t.avro", avro_bytes()), ("t.orc", orc_bytes())])
def test_what_a_treatment_cannot_write_is_refused_with_a_sentence(path: str, content: bytes) -> None:
    store, manifest = stored({path: content})
    column = scan(store, URI, manifest).findings[-1].column
    with pytest.raises(PolicyViolation, match="read and not written"):
        apply_treatment(store, URI, manifest, treatment(column), KEYS, store, STAGED)
