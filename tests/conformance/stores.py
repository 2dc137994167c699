"""What the tests of object stores do with a store, and what they know of the servers behind it."""

from __future__ import annotations

import dataclasses
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tasks.core.cloud import CloudConfig
from tasks.core.ports import Store
from tasks.registry import providers
from tests.servers import OBJECT_CLOUDS

MIB = 1024 * 1024
NETWORKED = [cloud for cloud in OBJECT_CLOUDS if cloud != "onprem"]
# A directory has neither credentials nor a connection.
over_a_network = pytest.mark.parametrize("config", NETWORKED, indirect=True)
whole_and_in_parts = pytest.mark.parametrize("size_bytes", [10, 8 * MIB + 1], ids=["whole", "in-parts"])

SEAWEEDFS = ("aws", "coreweave")
SEAWEEDFS_PATHS = "SeaweedFS keeps objects in a file tree: it reads '\\' as '/' and drops empty parts of a key"
SEAWEEDFS_RACE = "SeaweedFS checks the conditions of CompleteMultipartUpload before, not while, it makes the object"


def open_store(config: CloudConfig, bucket: str) -> Store:
    """The store of a bucket, by whichever provider the configuration names."""
    return providers()[config.provider].open_store(config, bucket)


def random_bytes(size_bytes: int) -> bytes:
    return os.urandom(size_bytes)


def pieces_of(content: bytes, size_bytes: int = 3_000_000) -> Iterator[bytes]:
    for start in range(0, len(content), size_bytes):
        yield content[start : start + size_bytes]


def put(store: Store, key: str, content: bytes, **conditions: Any) -> str:
    return store.put(key, pieces_of(content), size_bytes=len(content), **conditions).version


def read(store: Store, key: str, **arguments: Any) -> bytes:
    return b"".join(store.get(key, **arguments))


def keys(store: Store, prefix: str) -> list[str]:
    return sorted(info.key for info in store.list(prefix))


def pointed_at(config: CloudConfig, port: int) -> CloudConfig:
    """The same cloud, reached through another port of this machine."""
    scheme, _, rest = config.endpoint("objects").partition("://")
    _, slash, path = rest.partition("/")
    return dataclasses.replace(config, endpoints={"objects": f"{scheme}://127.0.0.1:{port}{slash}{path}"})


def unfinished_uploads(config: CloudConfig, bucket: str, prefix: str) -> list[str]:
    """The uploads that were begun and neither finished nor given up, by the bare SDK.

    Azure has no way to give up uncommitted blocks (the service drops them after a week), and Cloud Storage lists
    uploads in parts, by whatever name they have, but not its sessions.
    """
    if config.name == "google" and "token" in config.credentials:
        where = f"{config.endpoint_or_public('objects') or 'https://storage.googleapis.com'}/{bucket}"
        bearer = {"Authorization": f"Bearer {config.credentials['token'].reveal().strip()}"}
        listed = requests.get(where, params={"uploads": ""}, headers=bearer, timeout=60)
        listed.raise_for_status()
        found = ET.fromstring(listed.content).iterfind("{*}Upload/{*}Key")
        return [str(name.text) for name in found if str(name.text).startswith(prefix)]
    if config.name == "onprem":
        partials = Path(config.option("root")) / bucket / ".lintas-partial"
        return [path.name for path in partials.iterdir() if path.name != "lock"]
    if config.name not in ("aws", "coreweave"):
        return []
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=config.endpoint("objects"),
        region_name=config.region,
        aws_access_key_id=config.credentials["access_key_id"].reveal(),
        aws_secret_access_key=config.credentials["secret_access_key"].reveal(),
    )
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])
    return [str(upload.get("Key")) for upload in uploads]
