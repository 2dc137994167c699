"""What is kept with an object beside its content comes back from every store, whichever way it was written or read."""

from __future__ import annotations

import dataclasses
import gzip

import pytest

from tasks.core.attributes import Attributes, Description
from tasks.core.cloud import BucketConfig, CloudConfig
from tasks.core.errors import Invalid, LintasError
from tasks.core.plane.loop import Loop
from tasks.core.plane.wire import Wire
from tasks.core.ports import Answer, Direct, DirectStore, SentPart, SignedRequest, Store, Write
from tests.conformance.stores import MIB, open_store, over_a_network, put, random_bytes, read

KEPT = Attributes(
    content_type="text/csv; charset=utf-8",
    content_encoding="gzip",
    content_language="id, en",
    content_disposition='attachment; filename="flights.csv"',
    cache_control="max-age=3600, private",
    tags={"cost-centre": "research", "stage": "raw 1"},
    tier="cool",
)
LABELS = {"owner_team": "größe", "lintas-digest": "d" * 64}


def kept_by(store: Store) -> Attributes:
    """All that this store keeps; CoreWeave has one storage class."""
    return dataclasses.replace(KEPT, tier="") if store.cloud == "coreweave" else KEPT


def direct_write(store: Store, write: Write, content: bytes) -> str:
    """Write through the direct plane's requests, at once or in two parts."""
    assert isinstance(store, DirectStore)
    direct, body = store.direct, memoryview(content)
    if write.size_bytes <= 8 * MIB:
        request = direct.put(write, proof_of(direct, body))
        return direct.written(write, request, succeeded(request, body))
    direct.prepare(write.key)
    upload_id = direct.begin(write)
    parts: list[SentPart] = []
    for number, at in enumerate(range(0, len(content), 8 * MIB), start=1):
        part = body[at : at + 8 * MIB]
        request = direct.part(write, upload_id, number, proof_of(direct, part))
        tag = direct.part_tag(request, succeeded(request, part))
        parts.append(SentPart(number, len(part), tag, request.proof, ""))
    return direct.finish(write, upload_id, parts)


def proof_of(direct: Direct, body: memoryview) -> str:
    proof = direct.proof()
    proof.update(body)
    return proof.text()


def succeeded(request: SignedRequest, body: memoryview | None = None, into: memoryview | None = None) -> Answer:
    """Send one request over the plane's wire; its answer, which must be a success."""
    loop, answers = Loop(), list[Answer]()
    wire = Wire(loop)

    async def room() -> memoryview:
        assert into is not None
        return into

    async def exchange() -> None:
        answers.append(await wire.exchange(request, body, None if into is None else room))

    loop.spawn(exchange())
    try:
        loop.run()
    finally:
        wire.close()
        loop.close()
    assert answers[0].status < 300, answers[0].body
    return answers[0]


@pytest.mark.parametrize("size_bytes", [10, 8 * MIB + 1], ids=["whole", "in-parts"])
def test_attributes_come_back(store: Store, prefix: str, size_bytes: int) -> None:
    key, kept = f"{prefix}described", kept_by(store)
    written = store.put(key, [b"x" * size_bytes], size_bytes=size_bytes, metadata=LABELS, attributes=kept)

    found = store.head(key)

    assert written.attributes == found.attributes == kept
    assert found.metadata == LABELS
    assert not found.archived


@over_a_network
@pytest.mark.parametrize("size_bytes", [10, 8 * MIB + 1], ids=["whole", "in-parts"])
def test_attributes_come_back_when_the_direct_plane_wrote_them(
    store: Store, config: CloudConfig, prefix: str, size_bytes: int
) -> None:
    write = Write(f"{prefix}direct", size_bytes, LABELS, None, True, kept_by(store))
    version = direct_write(store, write, random_bytes(size_bytes))

    found = store.head(write.key)

    assert (found.version, found.metadata, found.attributes) == (version, LABELS, write.attributes)


@over_a_network
def test_the_answer_to_a_direct_read_describes_the_object_or_says_that_it_does_not(
    store: Store, config: CloudConfig, prefix: str
) -> None:
    tagged = kept_by(store)
    untagged = dataclasses.replace(tagged, tags={})
    for name, attributes in (("untagged", untagged), ("tagged", tagged)):
        key = prefix + name
        version = store.put(key, [b"x"], size_bytes=1, metadata=LABELS, attributes=attributes).version
        assert isinstance(store, DirectStore)
        list(store.list(prefix))
        request = store.direct.get(key, version=version, start=0, length=None)
        answer = succeeded(request, into=memoryview(bytearray(1)))

        described = store.direct.described(key, answer)

        assert described in (None, Description(LABELS, attributes))


@pytest.mark.parametrize("content", [gzip.compress(b"text" * 1000, mtime=0), b"not gzip at all"], ids=["true", "false"])
def test_an_object_that_is_said_to_be_compressed_is_read_as_it_is_stored(
    store: Store, prefix: str, content: bytes
) -> None:
    version = put(store, f"{prefix}packed", content, attributes=KEPT)

    assert read(store, f"{prefix}packed", version=version) == content
    assert read(store, f"{prefix}packed", start=2, length=5) == content[2:7]


def test_an_object_of_which_nothing_is_said_is_plain(store: Store, prefix: str) -> None:
    store.put(f"{prefix}plain", [b"x"], size_bytes=1)

    found = store.head(f"{prefix}plain").attributes

    assert found in (Attributes(), Attributes(tier="hot"))


def test_attributes_that_no_header_carries_are_refused_and_nothing_is_written(
    store: Store, config: CloudConfig, prefix: str
) -> None:
    if config.name == "onprem":
        pytest.skip("a file keeps any text")
    with pytest.raises(Invalid):
        store.put(f"{prefix}x", [b"x"], size_bytes=1, attributes=Attributes(content_disposition="größe\n"))

    assert list(store.list(prefix)) == []


NO_KEYS = {
    "aws": "SeaweedFS answers SSE-KMS with an error of its own",
    "coreweave": "SeaweedFS answers SSE-KMS with an error of its own",
    "google": "the double of Cloud Storage refuses customer-managed keys",
}


@over_a_network
def test_objects_are_encrypted_with_the_customers_key(
    config: CloudConfig, store: Store, prefix: str, request: pytest.FixtureRequest
) -> None:
    """What is asked for is checked in tests/unit/test_store_requests.py. Azurite takes any scope, without effect."""
    if config.name in NO_KEYS:
        request.applymarker(pytest.mark.xfail(strict=True, reason=NO_KEYS[config.name], raises=LintasError))
    keyed = dataclasses.replace(config, buckets={store.bucket: BucketConfig(encryption_key="customers-key")})

    open_store(keyed, store.bucket).put(f"{prefix}x", [b"x"], size_bytes=1)
