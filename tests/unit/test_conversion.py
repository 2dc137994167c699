"""Converted copies: what goes in comes out again, the same bytes every time; what cannot be converted is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.attributes import Attributes
from tasks.core.conversion import Conversion
from tasks.core.converters import convert
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, PreconditionFailed
from tasks.core.listing import read_manifest
from tests.memory_store import MemoryStore

SOURCE, COPY = DatasetURI("memory", "b", "in"), DatasetURI("memory", "b", "out")
PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"PAR1")
ZSTD, PARQUET, BOTH = Conversion("zstd"), Conversion("", "parquet"), Conversion("zstd", "parquet")


def converted(objects: dict[str, bytes], conversion: Conversion, into: MemoryStore | None = None) -> dict[str, bytes]:
    store, far = MemoryStore(), into or MemoryStore()
    for path, content in objects.items():
        store.put(SOURCE.key(path), [content], size_bytes=len(content), attributes=Attributes("text/csv"))
    made = convert(store, SOURCE, read_manifest(store, SOURCE), conversion, far, COPY)
    assert made.digest == read_manifest(far, COPY).digest
    return {COPY.path(key): content for key, content in far.contents().items()}


def table(content: bytes) -> Any:
    return pq.read_table(io.BytesIO(content))


def unzstd(content: bytes) -> bytes:
    return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()


def test_what_is_not_compressed_yet_is_compressed_and_named_so() -> None:
    plain, packed = b"a,b\n1,2\n" * 100, b"\x28\xb5\x2f\xfd rest"
    made = converted({"d/x.csv": plain, "y.zst": packed, "z.jpg": plain, "empty": b""}, ZSTD)

    assert sorted(made) == ["d/x.csv.zst", "empty", "y.zst", "z.jpg"]
    assert unzstd(made["d/x.csv.zst"]) == plain
    assert made["empty"] == b""
    assert len(made["d/x.csv.zst"]) < len(plain) / 4
    assert (made["y.zst"], made["z.jpg"]) == (packed, plain)


@given(st.binary(max_size=200_000))
def test_compressed_content_is_the_content(content: bytes) -> None:
    made = converted({"x.bin": content}, ZSTD)
    (name,) = made
    assert name == ("x.bin.zst" if content and not content.startswith(PACKED) else "x.bin")
    assert (unzstd(made[name]) if name.endswith(".zst") else made[name]) == content


CSV = b"""id,zip,price,rounded,day,ok,note,none
1,0123,1.5,1.50,2026-01-31,true,plain,
-20,9999,0.25,2.00,2026-02-01,false,"quoted, with
a line",
,,,,,,,
"""


def test_csv_becomes_parquet_with_types_only_where_every_cell_is_spelt_by_them() -> None:
    made = converted({"t.csv": CSV, "readme.md": b"# text"}, PARQUET)

    assert sorted(made) == ["readme.md", "t.parquet"]
    found = table(made["t.parquet"])
    assert {field.name: str(field.type) for field in found.schema} == {
        "id": "int64",
        "zip": "string",
        "price": "double",
        "rounded": "string",
        "day": "date32[day]",
        "ok": "bool",
        "note": "string",
        "none": "string",
    }
    assert found.column("zip").to_pylist() == ["0123", "9999", None]
    assert found.column("note").to_pylist() == ["plain", "quoted, with\na line", None]
    assert found.column("id").to_pylist() == [1, -20, None]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-(10**20), 10**20).map(str),
            st.floats(allow_nan=False).map(repr),
            st.sampled_from(["007", "1e5", "1.", "-0", "+1", "true", "True", "2026-02-30", "x"]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_every_cell_of_a_converted_csv_can_be_written_again_as_it_was_spelt(cells: list[str]) -> None:
    content = ("c,d\n" + "".join(f"{cell},y\n" for cell in cells)).encode()
    try:
        column = table(converted({"t.csv": content}, PARQUET)["t.parquet"]).column("c")
    except Invalid:
        # A day that the calendar does not have.
        assert any(cell == "2026-02-30" for cell in cells)
        return
    again = ["true" if value is True else "false" if value is False else str(value) for value in column.to_pylist()]
    assert again == cells


def test_json_lines_become_parquet_with_one_schema_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": n, "when": "2026-01-01T00:00:00Z", "nested": {"x": [n]}} for n in range(2000)]
    rows += [{"id": None, "late": "only here"}]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    monkeypatch.setattr("tasks.core.detectors.readers.BLOCK_BYTES", 10_000)

    found = table(converted({"t.jsonl": content}, PARQUET)["t.parquet"])

    assert found.num_rows == 2001
    assert found.column("when").to_pylist()[0] == "2026-01-01T00:00:00Z"
    assert found.column("nested").to_pylist()[7] == {"x": [7]}
    assert found.column("late").to_pylist()[-1] == "only here"
    assert found.column("id").to_pylist()[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    "objects",
    [
        {"t.jsonl": b'{"a": 1}\n{"a": "text"}\n'},
        {"t.jsonl": b"not json\n"},
        {"t.csv": b"a,b\n1,2\n3\n"},
        {"t.csv": b"a,b\n\xff\xfe,2\n"},
    ],
)
def test_what_cannot_become_parquet_is_refused_by_name_and_without_its_content(objects: dict[str, bytes]) -> None:
    with pytest.raises(Invalid, match=r"cannot become Parquet") as refused:
        converted(objects, PARQUET)
    assert next(iter(objects)) in str(refused.value)
    assert "text" not in str(refused.value).replace("text that", "")


def test_two_objects_of_one_new_name_are_refused() -> None:
    with pytest.raises(Invalid, match="listed twice"):
        converted({"t.csv": b"a\n1\n", "t.jsonl": b'{"a":1}\n'}, PARQUET)


def test_the_copy_has_the_same_bytes_when_it_is_made_again_and_is_not_written_twice() -> None:
    objects = {"t.csv": CSV, "u.jsonl": b'{"a":1}\n', "v.txt": b"text\n" * 50}
    far = MemoryStore()
    first = converted(objects, BOTH, far)
    sent = len(far.sent)

    assert converted(objects, BOTH, far) == first == converted(objects, BOTH)
    assert len(far.sent) == sent


def test_a_source_that_changed_is_noticed() -> None:
    store = MemoryStore()
    store.write(SOURCE.key("t.csv"), b"a\n1\n")
    manifest = read_manifest(store, SOURCE)
    store.write(SOURCE.key("t.csv"), b"a\n2\n")

    with pytest.raises(PreconditionFailed):
        convert(store, SOURCE, manifest, PARQUET, MemoryStore(), COPY)


@pytest.mark.parametrize(("compress", "form"), [("gzip", ""), ("", "orc")])
def test_what_no_move_makes_is_refused(compress: str, form: str) -> None:
    with pytest.raises(Invalid, match="no"):
        Conversion.of(compress, form)
