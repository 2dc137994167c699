"""What every object store says and does when something is missing, forbidden, out of reach or damaged on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.local.ports import free_ports
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.errors import Denied, IntegrityError, Invalid, NotFound, Retryable
from tasks.core.ports import Store
from tests.conformance.stores import (
    MIB,
    keys,
    open_store,
    over_a_network,
    pointed_at,
    put,
    random_bytes,
    read,
    unfinished_uploads,
)
from tests.conformance.wire import Wire

# What is not there, and who may not


def test_deleting_twice_is_silent(store: Store, prefix: str) -> None:
    key = f"{prefix}gone"
    put(store, key, b"x")

    store.delete(key)
    store.delete(key)

    with pytest.raises(NotFound, match="gone"):
        store.head(key)


def test_creating_the_bucket_again_is_silent(store: Store, prefix: str) -> None:
    put(store, f"{prefix}kept", b"kept")

    store.create_bucket()

    assert read(store, f"{prefix}kept") == b"kept"


def test_a_missing_object_is_not_found_and_named(store: Store, prefix: str) -> None:
    key = f"{prefix}nothing-here"
    for look in (lambda: store.head(key), lambda: read(store, key)):
        with pytest.raises(NotFound) as caught:
            look()
        assert "nothing-here" in str(caught.value)
        assert store.bucket in str(caught.value)


def test_a_missing_bucket_is_not_found_and_named(config: CloudConfig) -> None:
    nowhere = open_store(config, "no-such-bucket")
    for call in (
        lambda: list(nowhere.list("")),
        lambda: nowhere.head("x"),
        lambda: read(nowhere, "x"),
        lambda: put(nowhere, "x", b"x"),
        lambda: put(nowhere, "x", b"x" * (8 * MIB + 1)),
        lambda: nowhere.delete("x"),
    ):
        with pytest.raises(NotFound, match="bucket 'no-such-bucket' does not exist"):
            call()


@pytest.mark.parametrize("bucket", ["../elsewhere", "Not A Bucket!"])
def test_a_bucket_name_that_cannot_be_is_a_clear_error(config: CloudConfig, bucket: str) -> None:
    with pytest.raises((Invalid, NotFound, Denied)):
        list(open_store(config, bucket).list(""))


@over_a_network
def test_wrong_credentials_are_denied_and_never_shown(config: CloudConfig, store: Store) -> None:
    wrong = {
        name: Secret(f"test:wrong-{name}", lambda _: "d3Jvbmcta2V5LW9mLXRoaXMtdGVzdA==") for name in config.credentials
    }
    stranger = open_store(dataclasses.replace(config, credentials=wrong), store.bucket)
    for call in (
        lambda: list(stranger.list("")),
        lambda: stranger.head("x"),
        lambda: read(stranger, "x"),
        lambda: put(stranger, "x", b"x"),
        lambda: stranger.delete("x"),
    ):
        with pytest.raises(Denied, match=config.name) as caught:
            call()
        assert "d3Jvbmcta2V5" not in str(caught.value)


@over_a_network
def test_a_stopped_server_is_unreachable_and_named(config: CloudConfig) -> None:
    (port,) = free_ports(1)
    stopped = open_store(pointed_at(config, port), "raw")
    calls = (lambda: list(stopped.list("")), lambda: put(stopped, "x", b"x"), lambda: read(stopped, "x"))
    # All at once: each is tried again for seconds.
    with ThreadPoolExecutor(len(calls)) as pool:
        for called in [pool.submit(call) for call in calls]:
            with pytest.raises(Retryable, match=rf"{config.name} \(127\.0\.0\.1:{port}\) is unreachable"):
                called.result()


# What happens on the way


@over_a_network
def test_a_head_that_is_cut_between_two_lines_is_not_taken_for_a_whole_one(
    config: CloudConfig, store: Store, prefix: str
) -> None:
    """Python's HTTP client ends a head where the connection ends: what was kept with the object would be lost."""
    key = f"{prefix}labelled"
    put(store, key, b"content", metadata={"team": "blue"})
    label = {"azure": b"x-ms-meta-", "google": b"content-length:"}.get(config.name, b"x-amz-meta-")
    with Wire(config.endpoints["objects"], cut_once_before=label) as wire:
        cut = open_store(pointed_at(config, wire.port), store.bucket)
        try:
            found = cut.head(key).metadata
        except Retryable:
            found = cut.head(key).metadata
    assert (found, wire.cuts) == ({"team": "blue"}, 1)


@over_a_network
def test_a_body_that_is_cut_is_retryable_never_short(config: CloudConfig, store: Store, prefix: str) -> None:
    key = f"{prefix}cut"
    put(store, key, b"x" * 6 * MIB)
    with Wire(config.endpoint("objects"), cut_after_bytes=3 * MIB) as wire:
        far = open_store(pointed_at(config, wire.port), store.bucket)

        with pytest.raises(Retryable):
            read(far, key)


@over_a_network
@pytest.mark.parametrize("size_bytes", [4 * MIB, 20 * MIB], ids=["whole", "in-parts"])
def test_an_upload_whose_connection_is_cut_once_arrives_whole(
    config: CloudConfig, store: Store, prefix: str, rclone: Callable[..., bytes], size_bytes: int
) -> None:
    key, content = f"{prefix}resumed", random_bytes(size_bytes)
    with Wire(config.endpoint("objects"), cut_once_after_sent_bytes=size_bytes // 2 + 1000) as wire:
        far = open_store(pointed_at(config, wire.port), store.bucket)

        put(far, key, content, if_absent=True)

    assert wire.cuts == 1
    assert rclone("cat", key) == content
    assert unfinished_uploads(config, store.bucket, prefix) == []


@over_a_network
@pytest.mark.parametrize("size_bytes", [1000, 9 * MIB], ids=["whole", "in-parts"])
def test_bytes_damaged_on_the_way_in_are_refused_by_the_far_end(
    config: CloudConfig, store: Store, prefix: str, size_bytes: int
) -> None:
    content = b"x" * (size_bytes - 20) + b"damage-this-sentence"
    with Wire(config.endpoint("objects"), damage_sent=(b"damage-this", b"damage-thus")) as wire:
        far = open_store(pointed_at(config, wire.port), store.bucket)

        with pytest.raises(IntegrityError):
            put(far, f"{prefix}damaged", content)

    assert wire.damaged
    assert keys(store, prefix) == []
    assert unfinished_uploads(config, store.bucket, prefix) == []


@over_a_network
def test_bytes_damaged_on_the_way_out_are_noticed(
    config: CloudConfig, store: Store, prefix: str, request: pytest.FixtureRequest
) -> None:
    if config.name == "azure":
        reason = "Blob Storage gives no checksum with a body; the manifest's digest is what notices"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    put(store, f"{prefix}damaged", b"x" * 1000 + b"damage-this-sentence")
    with Wire(config.endpoint("objects"), damage_received=(b"damage-this", b"damage-thus")) as wire:
        far = open_store(pointed_at(config, wire.port), store.bucket)

        with pytest.raises(IntegrityError):
            read(far, f"{prefix}damaged")
