"""Datasets, manifests and digests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from blake3 import blake3

from tasks.core.dataset import CHUNK_BYTES, DatasetURI, Entry, content_digest, rechunk
from tasks.core.errors import IntegrityError, Invalid
from tasks.core.listing import published_manifest, read_manifest
from tasks.core.manifest import Manifest
from tests.memory_store import MemoryJournal, MemoryStore

URI = DatasetURI("memory", "b", "data")


@pytest.mark.parametrize(
    ("text", "cloud", "bucket", "prefix"),
    [
        ("aws://raw/flights", "aws", "raw", "flights"),
        ("aws://raw/a/b/", "aws", "raw", "a/b"),
        ("google://lake", "google", "lake", ""),
        ("onprem://data/übung/x y", "onprem", "data", "übung/x y"),
    ],
)
def test_a_uri_is_read(text: str, cloud: str, bucket: str, prefix: str) -> None:
    assert DatasetURI.parse(text) == DatasetURI(cloud, bucket, prefix)


@pytest.mark.parametrize("text", ["flights", "aws:/raw", "aws://", "aws:///x", "aws://raw/a//b", "aws://raw/../x", ""])
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        DatasetURI.parse(text)


def test_keys_and_paths_are_inverse() -> None:
    for uri in (DatasetURI("a", "b", "p/q"), DatasetURI("a", "b")):
        assert uri.path(uri.key("x/y.parquet")) == "x/y.parquet"


def test_the_digest_of_a_small_object_is_plain_blake3() -> None:
    assert content_digest([b"abc", b"def"]) == (blake3(b"abcdef").hexdigest(), 6)
    assert content_digest([]) == (blake3(b"").hexdigest(), 0)
    exactly = b"x" * CHUNK_BYTES
    assert content_digest([exactly])[0] == blake3(exactly).hexdigest()


def test_the_digest_of_a_large_object_is_over_its_chunks() -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 256) + b"tail"
    parts = blake3(content[:CHUNK_BYTES]).digest() + blake3(content[CHUNK_BYTES:]).digest()
    assert content_digest(rechunk([content], 1_000_003))[0] == blake3(parts).hexdigest()


def test_the_manifest_digest_does_not_depend_on_order_or_versions() -> None:
    one = Manifest.of([Entry("b", 1, "d1", "v1"), Entry("a", 2, "d2", "v2")])
    two = Manifest.of([Entry("a", 2, "d2", "other"), Entry("b", 1, "d1")])
    assert one.digest == two.digest
    assert Manifest.of([Entry("a", 2, "d2"), Entry("b", 1, "d3")]).digest != one.digest


def test_a_path_cannot_be_listed_twice() -> None:
    with pytest.raises(Invalid, match="twice"):
        Manifest.of([Entry("a", 1, "x"), Entry("a", 2, "y")])


def test_a_published_manifest_comes_back_and_a_damaged_one_does_not() -> None:
    manifest = Manifest.of([Entry("ä/b", 3, "d" * 64, "v")])
    text = b"".join(manifest.to_jsonl())
    assert list(Manifest.from_jsonl([text])) == list(manifest)
    for damaged in (text.replace(b'"size_bytes": 3', b'"size_bytes": 4'), text.partition(b"\n")[0], b"{", b"[]", b""):
        with pytest.raises(IntegrityError):
            Manifest.from_jsonl([damaged])


def test_only_what_is_not_known_is_read() -> None:
    store, journal = MemoryStore(), MemoryJournal()
    for name in ("a", "b"):
        store.write(f"data/{name}", name.encode() * 10)
    first = read_manifest(store, URI, journal)
    read: list[str] = []
    store.before = lambda call, key: read.append(key) if call == "read" else None
    assert read_manifest(store, URI, journal) == first
    assert read == []
    store.write("data/b", b"changed")
    assert read_manifest(store, URI, journal).digest != first.digest
    assert read == ["data/b"]


def test_reread_trusts_nothing() -> None:
    store, journal = MemoryStore(), MemoryJournal()
    store.write("data/a", b"true")
    entry = next(iter(read_manifest(store, URI, journal)))
    journal.record("memory", "b", "data/a", entry.version, entry.size_bytes, "0" * 64)
    assert next(iter(read_manifest(store, URI, journal))).digest == "0" * 64
    assert next(iter(read_manifest(store, URI, journal, reread=True))) == entry


def test_markers_and_lintas_own_objects_are_no_part_of_a_dataset() -> None:
    store = MemoryStore()
    store.write("data/", b"")
    store.write("data/sub/", b"")
    store.write("data/.lintas/manifest.jsonl", b"{")
    store.write("data/sub/x", b"x")
    store.write("database/y", b"y")
    assert [entry.path for entry in read_manifest(store, URI)] == ["sub/x"]


def test_a_dataset_without_a_published_manifest_has_none() -> None:
    assert published_manifest(MemoryStore(), URI) is None


def test_archived_objects_are_named_before_anything_moves_and_only_where_it_matters() -> None:
    store = MemoryStore()
    for name in ("a", "b", "c"):
        store.write(f"data/{name}", b"x")
    for key in ("data/b", "data/c"):
        content, info = store.objects[key]
        store.objects[key] = (content, replace(info, archived=True))

    with pytest.raises(Invalid, match=r"2 objects of .* are archived .*'b'"):
        read_manifest(store, URI, refuse_archived=True)

    assert len(read_manifest(store, URI)) == 3
