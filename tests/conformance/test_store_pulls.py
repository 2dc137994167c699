"""What a store promises that pulls objects from another provider by itself, given a link that the source has signed."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Iterator

import pytest

from deployments.local.object_stores import azure_pulls
from deployments.local.ports import free_ports
from tasks.core.attributes import Attributes
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import Entry, content_digest
from tasks.core.errors import IntegrityError, LintasError, PreconditionFailed
from tasks.core.plane import CopiedObject, Load
from tasks.core.plane.routes import plane_for, route_between
from tasks.core.plane.server_side import ServerSidePlane
from tasks.core.ports import DirectStore, Link, ServerSideStore, Store, Write
from tasks.providers.azure.copy import AzureCopy
from tests.conformance.stores import MIB, keys, open_store, put, random_bytes, read
from tests.servers import ObjectClouds

SOURCES = ("aws", "coreweave", "azure-elsewhere")
KEPT = Attributes("text/csv", cache_control="no-cache", tags={"stage": "raw"})


@pytest.fixture(scope="module")
def pulling(object_clouds: ObjectClouds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudConfig]:
    """Azure with Put Block From URL."""
    azure = object_clouds["azure"]
    (port,) = free_ports(1)
    account, azurite = azure.option("account"), azure.endpoint("objects").rpartition("/")[0]
    directory = tmp_path_factory.mktemp("pulls")
    key = directory / "key"
    key.write_text(azure.credentials["account_key"].reveal())
    process = azure_pulls(port, directory / "pulls.log", azurite, account, key).start()
    try:
        process.wait_ready()
        yield dataclasses.replace(
            azure,
            endpoints={"objects": f"http://127.0.0.1:{port}/{account}"},
            options={**azure.options, "pulls": "true"},
        )
    finally:
        process.stop()


@pytest.fixture(scope="module")
def far(pulling: CloudConfig) -> Store:
    store = open_store(pulling, f"pulled-{uuid.uuid4().hex[:8]}")
    store.create_bucket()
    return store


@pytest.fixture(scope="module", params=SOURCES)
def near(request: pytest.FixtureRequest, object_clouds: ObjectClouds) -> Store:
    name = str(request.param).partition("-")[0]
    store = open_store(object_clouds[name], f"pulled-from-{uuid.uuid4().hex[:8]}")
    store.create_bucket()
    return store


@pytest.fixture
def pulls(far: Store, monkeypatch: pytest.MonkeyPatch) -> AzureCopy:
    assert isinstance(far, ServerSideStore)
    copies = far.server_side
    assert isinstance(copies, AzureCopy)
    monkeypatch.setattr(copies, "block_bytes", 5 * MIB)
    return copies


def load(store: Store, prefix: str, content: bytes, *, labelled: bool = True) -> Load:
    digest, size_bytes = content_digest([content])
    metadata = {"team": "blue"} if labelled else {}
    version = put(store, f"{prefix}from größe+%", content, metadata=metadata, attributes=KEPT)
    return Load(Entry("from", size_bytes, digest, version), f"{prefix}from größe+%", f"{prefix}to", None)


@pytest.mark.parametrize("size_bytes", [0, 1, 12 * MIB + 1])
def test_a_pulled_object_has_the_content_and_what_is_kept_with_it(
    near: Store, far: Store, pulls: AzureCopy, prefix: str, size_bytes: int
) -> None:
    content = random_bytes(size_bytes)
    work = load(near, prefix, content)
    done: list[CopiedObject] = []

    assert route_between(near, far) == "pull"
    ServerSidePlane().carry([work], near, far, lambda _load, item: done.append(item))

    assert read(far, f"{prefix}to", version=done[0].version) == content
    assert done[0].route == "pull"
    # S3 keeps a CRC64 of the whole, which those of the blocks must make together; Azure keeps none.
    stated = "blake3, read back" if near.cloud == "azure" else ("crc64nvme" if near.cloud == "aws" else "blake3")
    assert done[0].verified_by.startswith(stated)
    found = far.head(f"{prefix}to")
    assert found.metadata == {"team": "blue"}
    assert dataclasses.replace(found.attributes, tier="") == KEPT


def test_a_small_blob_of_another_account_is_one_request(
    object_clouds: ObjectClouds, far: Store, pulls: AzureCopy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = open_store(object_clouds["azure"], f"pulled-from-{uuid.uuid4().hex[:8]}")
    near.create_bucket()
    labelled, done = load(near, prefix, b"content"), list[CopiedObject]()
    monkeypatch.setattr(pulls, "_pull", lambda *_: pytest.fail("it took blocks"))

    ServerSidePlane().carry([labelled], near, far, lambda _load, item: done.append(item))

    assert read(far, f"{prefix}to", version=done[0].version) == b"content"
    found = far.head(f"{prefix}to")
    assert (found.metadata, dataclasses.replace(found.attributes, tier="")) == ({"team": "blue"}, KEPT)
    put(near, labelled.source_key, b"changed", metadata={"team": "blue"})
    with pytest.raises(PreconditionFailed):
        pulls.copy(near, labelled.source_key, labelled.entry.version, Write(f"{prefix}x", 7, {"a": "b"}, None, True))
    assert keys(far, f"{prefix}x") == []


def test_what_stays_behind_is_not_shown_for_a_while(
    object_clouds: ObjectClouds, far: Store, pulls: AzureCopy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = open_store(object_clouds["azure"], f"pulled-from-{uuid.uuid4().hex[:8]}")
    near.create_bucket()
    private = dataclasses.replace(load(near, prefix, b"content"), keeps_labels=False)
    monkeypatch.setattr(pulls, "_copied", lambda *_, **__: pytest.fail("it brought the source's metadata along"))

    ServerSidePlane().carry([private], near, far, lambda _load, _item: None)

    assert far.head(f"{prefix}to").metadata == {}


def test_a_source_that_changes_while_it_is_pulled_is_not_committed(
    near: Store, far: Store, pulls: AzureCopy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = load(near, prefix, random_bytes(6 * MIB), labelled=False)
    real = pulls._pull_block

    def changing(blob, link, block_id, start, length):
        if start:
            put(near, work.source_key, b"other content", attributes=KEPT)
        return real(blob, link, block_id, start, length)

    monkeypatch.setattr(pulls, "_pull_block", changing)

    with pytest.raises((PreconditionFailed, LintasError)):
        ServerSidePlane(attempts=1).carry([work], near, far, lambda _load, _item: None)

    assert keys(far, prefix) == []


def test_a_pull_over_another_version_is_refused(near: Store, far: Store, pulls: AzureCopy, prefix: str) -> None:
    work = load(near, prefix, b"content")
    put(far, f"{prefix}to", b"theirs")

    for write in (
        Write(f"{prefix}to", 7, {}, None, True),
        Write(f"{prefix}to", 7, {}, "0x0", False),
    ):
        with pytest.raises(PreconditionFailed):
            pulls.copy(near, work.source_key, work.entry.version, write)
    assert read(far, f"{prefix}to") == b"theirs"


def test_blocks_whose_checksums_do_not_make_the_sources_are_refused_and_removed(
    object_clouds: ObjectClouds, far: Store, pulls: AzureCopy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = open_store(object_clouds["aws"], f"pulled-from-{uuid.uuid4().hex[:8]}")
    near.create_bucket()
    work = load(near, prefix, b"1" * 6 * MIB)
    put(near, f"{prefix}wrong", b"2" * 6 * MIB)
    assert isinstance(near, DirectStore)
    wrong = near.direct.link(f"{prefix}wrong", valid_s=60)
    monkeypatch.setattr(near.direct, "link", lambda _key, *, valid_s: wrong)

    with pytest.raises(IntegrityError):
        ServerSidePlane().carry([work], near, far, lambda _load, _item: None)

    assert keys(far, f"{prefix}to") == []


def test_a_link_that_the_service_cannot_read_streams_instead_and_is_told_to_nobody(
    near: Store,
    far: Store,
    pulls: AzureCopy,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    work, said = load(near, prefix, b"content", labelled=False), list[str]()
    assert isinstance(near, DirectStore)
    real, links = near.direct.link, list[Link]()

    def broken(key: str, *, valid_s: int) -> Link:
        links.append(Link(real(key, valid_s=valid_s).url.replace("ignature=", "ignature=0").replace("sig=", "sig=0")))
        return links[-1]

    monkeypatch.setattr(near.direct, "link", broken)
    done: list[CopiedObject] = []

    with caplog.at_level(logging.INFO):
        plane_for("pull", say=said.append).carry([work], near, far, lambda _load, item: done.append(item))

    assert read(far, f"{prefix}to") == b"content"
    assert done[0].route == "direct"
    assert said
    secret = links[0].url.partition("?")[2]
    assert secret
    assert secret not in caplog.text
    assert not any(secret in sentence for sentence in said)
    assert secret not in repr(links)


def test_without_leave_nothing_is_pulled(object_clouds: ObjectClouds, near: Store) -> None:
    closed = open_store(object_clouds["azure"], "any")

    assert route_between(near, closed) in ("direct", "server-side")


def test_the_double_knows_who_asks(pulling: CloudConfig, near: Store, far: Store, prefix: str) -> None:
    import requests

    work = load(near, prefix, b"content")
    assert isinstance(near, DirectStore)
    link = near.direct.link(work.source_key, valid_s=60).url
    url = f"{pulling.endpoint('objects')}/{far.bucket}/x?comp=block&blockid=YQ=="

    answer = requests.put(url, headers={"x-ms-copy-source": link, "x-ms-version": "2021-08-06"}, timeout=60)

    assert answer.status_code == 403
