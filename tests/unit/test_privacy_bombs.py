"""Objects that would become far larger than they are: read within bounds, or refused by name, never believed."""

from __future__ import annotations

import bz2
import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors import native, objects, ranged, row_groups, tables, unpacking, values
from tasks.core.detectors.pages import PageError, pages
from tasks.core.detectors.scan import scan
from tasks.core.errors import PolicyViolation
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.policy import Action, ActionOptions
from tasks.core.privacy import ColumnTreatment, Treatment
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.transform import apply_treatment
from tests.memory_store import MemoryStore

URI = DatasetURI("memory", "b", "d")
STAGED = DatasetURI("memory", "b", "treated")
KEYS = PseudonymKey("p1", bytes(range(32)))
GIANT = "write to a@example.org " + "x" * 3_000_000


def stored(objects: dict[str, bytes]) -> tuple[MemoryStore, Manifest]:
    store = MemoryStore()
    for path, content in objects.items():
        store.put(URI.key(path), [content], size_bytes=len(content))
    return store, read_manifest(store, URI)


def scanned(objects: dict[str, bytes]) -> ScanReport:
    store, manifest = stored(objects)
    return scan(store, URI, manifest)


def parquet_bytes(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def repeated(value: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def in_lists(values: pa.Array, *ends: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), values)


BOMBS: list[tuple[str, Callable[[], bytes], str]] = [
    (
        "one_value_in_a_dictionary.parquet",
        lambda: parquet_bytes(pa.table({"a": repeated(GIANT, 200_000)}), store_schema=False),
        "expands to more than",
    ),
    (
        "categories.parquet",
        lambda: parquet_bytes(pa.table({"a": repeated(GIANT, 200_000)})),
        "expands to more than",
    ),
    (
        "dictionary_in_a_list.parquet",
        lambda: parquet_bytes(pa.table({"a": in_lists(repeated(GIANT, 100_000), 100_000)}), store_schema=False),
        "expands to more than",
    ),
    (
        "dictionaries_in_many_columns.parquet",
        lambda: parquet_bytes(pa.table({f"a{at}": repeated("x" * 20_000, 500) for at in range(100)})),
        "expands to more than",
    ),
    (
        "pages_of_nothing.parquet",
        lambda: parquet_bytes(pa.table({"a": pa.array([b"\0" * 1_000_000] * 40)}), use_dictionary=False),
        "expands to more than",
    ),
    (
        "list_of_equal_items.parquet",
        lambda: parquet_bytes(pa.table({"a": in_lists(pa.array(np.ones(20_000_000, np.int8)), 20_000_000)})),
        "lists of more items",
    ),
    ("rows.csv.gz", lambda: gzip.compress(b"a,b\n" + b"0,0\n" * 10_000_000), "expands to more than"),
    ("lines.txt.bz2", lambda: bz2.compress(b"0" * 40_000_000), "expands to more than"),
    ("fields.jsonl", lambda: b"".join(b'{"k%d":1}\n' % at for at in range(8_000)), "more than 300 columns"),
    ("fields.json", lambda: b"{" + b",".join(b'"k%d":1' % at for at in range(8_000)) + b"}", "more than 300"),
    ("fields.csv", lambda: b",".join(b"k%d" % at for at in range(8_000)) + b"\n", "a header of more than"),
]


@pytest.mark.parametrize(("path", "content", "why"), BOMBS, ids=[path for path, _, _ in BOMBS])
def test_a_bomb_is_not_set_off_and_does_not_pass(
    path: str, content: Callable[[], bytes], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_FREE_BYTES", 16 * 1024**2)
    monkeypatch.setattr(values, "MAX_COLUMNS", 300)
    monkeypatch.setattr(objects, "MAX_COLUMNS", 300)
    report = scanned({path: content()})
    assert any(each.entity == "UNREADABLE" and why in each.why for each in report.findings)


ENOUGH_KIB = 512 * 1024  # Interpreter and libraries included.


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells a process's own peak")
def test_a_bomb_needs_little_memory(tmp_path: Path) -> None:
    bomb = parquet_bytes(pa.table({"a": repeated(GIANT, 2_000_000)}), store_schema=False)
    (tmp_path / "bomb.parquet").write_bytes(bomb)
    assert len(bomb) < 10_000
    assert peak_kib(_SCAN, tmp_path) < ENOUGH_KIB
    assert peak_kib("b'x' * (600 * 1024**2)", tmp_path) > ENOUGH_KIB


def peak_kib(script: str, directory: Path) -> int:
    """The most memory that a process of its own ever held; `ru_maxrss` would count what its parent held at the fork."""
    report = "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    done = subprocess.run(
        [sys.executable, "-c", script + report, directory], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


_SCAN = """
import pathlib, sys
from tests.unit.test_privacy_bombs import scanned
assert scanned({"t.parquet": (pathlib.Path(sys.argv[1]) / "bomb.parquet").read_bytes()}).findings
"""


def test_long_values_that_repeat_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "BATCH_BYTES", 1024**2)
    texts = [f"person{at}@example.org " + "word " * 4_000 for at in range(3)]
    flat = pa.array([*texts, None] * 50)
    nested = in_lists(pa.array(texts * 100), *range(2, 301, 2), *[300] * 50)
    report = scanned({"t.parquet": parquet_bytes(pa.table({"flat": flat, "nested": nested}), store_schema=False)})
    assert {(each.entity, each.column, each.count) for each in report.findings} == {
        ("EMAIL_ADDRESS", "flat", 150),
        ("EMAIL_ADDRESS", "nested[]", 150),
    }
    assert report.rows == 200


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
def test_the_kernel_and_arrow_find_the_same_longest_value(compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "BATCH_BYTES", 1_700_000)
    texts = [f"{at % 500} {'é' * (at % 97)}" for at in range(20_000)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": texts}), sink, compression=compression, row_group_size=9_000)
    store, manifest = stored({"t.parquet": sink.getvalue()})

    def longest() -> list[int]:
        file = row_groups.BoundedParquet(tables.Source.open(store, URI, next(iter(manifest))))
        return [batch.num_rows for batch in file.batches()]

    by_kernel = longest()
    assert sum(by_kernel) == len(texts)
    monkeypatch.setattr(native, "kernel", lambda: None)
    assert longest() == by_kernel
    assert len(by_kernel) > 3


def test_bytes_that_are_no_dictionary_have_no_longest_value() -> None:
    kernel = native.kernel()
    assert kernel is not None
    page = b"\x01\0\0\0a\0\0\0\0\x03\0\0\0abc"
    told = {
        (cut, more): kernel.longest(np.frombuffer(page[:cut], np.uint8), 3 + more)
        for cut in (16, 15, 5)
        for more in (0, 1)
    }
    assert told == {(16, 0): 3, (16, 1): None, (15, 0): None, (15, 1): None, (5, 0): None, (5, 1): None}
    assert kernel.longest(np.frombuffer(page, np.uint8), 2) is None
    assert kernel.longest(np.frombuffer(b"\xff\xff\xff\xffa", np.uint8), 1) is None


def test_small_row_groups_are_read_together_and_large_objects_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 40_000
    noise = pa.array([f"{at * 2654435761 % 2**64:x}{at * 40503 % 65521:x}" * 20 for at in range(rows)])
    content = parquet_bytes(pa.table({"noise": noise, "mail": ["a@example.org"] * rows}), row_group_size=2_000)
    fetched: list[tuple[int, int | None]] = []

    class Counting(MemoryStore):
        def get(self, key: str, *, version: str | None = None, start: int = 0, length: int | None = None):  # type: ignore[no-untyped-def]
            fetched.append((start, length))
            return super().get(key, version=version, start=start, length=length)

    store = Counting()
    store.put(URI.key("t.parquet"), [content], size_bytes=len(content))
    monkeypatch.setattr(ranged, "_WHOLE_BYTES", 1024)
    manifest = read_manifest(store, URI)
    fetched.clear()
    report = scan(store, URI, manifest)
    assert [(each.entity, each.count) for each in report.findings] == [("EMAIL_ADDRESS", rows)]
    assert len(fetched) == 3  # The first bytes, the footer, and all pages in one go.


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", "gzip"), (".zst", "zstd"), (".bz2", "bz2")])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"id;email\n" + b"1;a@example.org\n" * 30_000),
        ("t.tsv", b"id\temail\n" + b"1\ta@example.org\n" * 30_000),
        ("t.jsonl", b'{"email": "a@example.org"}\n' * 30_000),
        ("t.json", b"[" + b",".join([b'{"email": "a@example.org"}'] * 30_000) + b"]"),
    ],
)
def test_compressed_objects_are_looked_into(name: str, content: bytes, suffix: str, pack: str) -> None:
    half = content.index(b"\n", len(content) // 2) + 1 if b"\n" in content else len(content)
    parts = [content[:half], content[half:]] if content[half:] else [content]
    packed = b"".join(pa.compress(part, pack, asbytes=True) if pack != "bz2" else bz2.compress(part) for part in parts)
    (finding,) = scanned({name + suffix: packed}).findings
    assert (finding.entity, finding.column, finding.count) == ("EMAIL_ADDRESS", "email", 30_000)


def treatment(column: str) -> Treatment:
    return Treatment(
        DatasetURI("google", "lake", "x"),
        "0" * 64,
        (ColumnTreatment("*", column, Action.TOKENISE, ("EMAIL_ADDRESS",), "r", ActionOptions(), "d"),),
    )


def test_a_compressed_object_is_treated_and_compressed_again_with_the_same_bytes() -> None:
    content = b"id,email\n" + b"1,a@example.org\n" * 1000
    store, manifest = stored({"t.csv.gz": gzip.compress(content)})
    made = [
        apply_treatment(store, URI, manifest, treatment("email"), KEYS, store, STAGED),
        apply_treatment(store, URI, manifest, treatment("email"), KEYS, MemoryStore(), STAGED),
    ]
    assert made[0].digest == made[1].digest
    text = gzip.decompress(store.objects[STAGED.key("t.csv.gz")][0]).decode()
    assert text.startswith('id,email\n"1","tok_')
    assert text.count("\n") == 1001
    assert "example.org" not in text


def test_a_bomb_that_must_be_treated_and_spelt_out_is_refused() -> None:
    nested = pa.StructArray.from_arrays([repeated(GIANT, 200_000)], ["email"])
    bomb = parquet_bytes(pa.table({"who": nested}), store_schema=False)
    store, manifest = stored({"t.parquet": bomb})
    with pytest.raises(PolicyViolation, match="expands to more than"):
        apply_treatment(store, URI, manifest, treatment("who.email"), KEYS, store, STAGED)


def test_one_giant_value_is_treated_where_it_lies() -> None:
    bomb = parquet_bytes(pa.table({"email": repeated(GIANT, 200_000)}), store_schema=False)
    store, manifest = stored({"t.parquet": bomb})
    apply_treatment(store, URI, manifest, treatment("email"), KEYS, store, STAGED)
    made = pq.read_table(io.BytesIO(store.objects[STAGED.key("t.parquet")][0]))["email"].unique().to_pylist()
    assert [len(each) for each in made] == [len("tok_") + 26]


def test_a_type_of_zero_ends_a_header_whatever_its_other_bits_are() -> None:
    header = bytes([0x15, 0, 0x15, 20, 0x15, 20, 0x2C, 0x15, 8, 0x15, 0, 0x15, 6, 0x15, 6])
    for end in (0x00, 0x40, 0xF0):
        content = header + bytes([end, 0]) + bytes(10)
        (page,) = pages(lambda at, size, content=content: content[at : at + size], 0, len(content), 4)
        assert (page.at, page.values, page.first_version) == (len(header) + 2, 4, True)


def test_page_headers_of_nonsense_are_an_error() -> None:
    for content in (b"\x00" * 40, b"\x15\x00" * 20, b"\xff" * 4000, b""):
        with pytest.raises(PageError):
            list(pages(lambda at, size, content=content: content[at : at + size], 0, 4000, 10))
