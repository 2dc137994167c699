"""Virtual-hosted addressing, as CoreWeave's object storage demands it: `BUCKET.cwobject.com`, `BUCKET.cwlota.com`.

Names that no server knows here are reached by giving the clients the server itself as their proxy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.local import credentials
from deployments.local.object_stores import SEAWEEDFS_PORTS, seaweedfs
from deployments.local.ports import free_ports
from deployments.local.processes import HOST
from tasks.core.cloud import CloudConfig
from tasks.providers._dialects import lintas_courier
from tasks.providers.coreweave.store import open_store
from tests.servers import Vault


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudConfig]:
    files, vault = credentials.SecretFiles(tmp_path / "secrets"), Vault()
    key, secret = credentials.access_key_id(), credentials.token()
    ports = dict(zip(SEAWEEDFS_PORTS, free_ports(len(SEAWEEDFS_PORTS)), strict=True))
    identities = files.s3_identities("coreweave", key, secret)
    process = seaweedfs("coreweave", ports, tmp_path / "data", tmp_path / "log", identities)
    process.command = [*process.command, "-s3.domainName=cwobject.com,cwlota.com"]
    process.start().wait_ready()
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://{HOST}:{ports['s3']}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield CloudConfig(
        "coreweave",
        "coreweave",
        region="US-EAST-04A",
        endpoints={"objects": "http://cwobject.com"},
        credentials={
            "access_key_id": vault.secret("key", key),
            "secret_access_key": vault.secret("secret", secret),
        },
    )
    process.stop()


def test_the_store_and_the_courier_find_a_bucket_by_its_host_name(cloud: CloudConfig, tmp_path: Path) -> None:
    store = open_store(cloud, "by-host")
    store.create_bucket()
    store.put("rows/a b~ü.txt", [b"hello"], size_bytes=5)
    assert [info.key for info in store.list("rows/")] == ["rows/a b~ü.txt"]
    inside = open_store(replace(cloud, endpoints={"objects": "http://cwlota.com"}), "by-host")
    assert b"".join(inside.get("rows/a b~ü.txt")) == b"hello"

    environment = {
        **os.environ,
        "LINTAS_S3_ENDPOINT": "http://cwlota.com",
        "LINTAS_S3_REGION": cloud.region,
        "LINTAS_S3_ACCESS_KEY_ID": cloud.credentials["access_key_id"].reveal(),
        "LINTAS_S3_SECRET_ACCESS_KEY": cloud.credentials["secret_access_key"].reveal(),
    }
    command = [sys.executable, lintas_courier.__file__, "fetch", "by-host", "rows/", str(tmp_path / "here")]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert (tmp_path / "here" / "a b~ü.txt").read_text() == "hello"


def test_the_courier_carries_large_files_in_parts_and_says_what_it_cannot_do(
    cloud: CloudConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(cloud, "parts")
    store.create_bucket()
    monkeypatch.setattr(lintas_courier, "_PART_BYTES", 5 * 1024 * 1024)
    monkeypatch.setenv("LINTAS_S3_ENDPOINT", "http://cwlota.com")
    monkeypatch.setenv("LINTAS_S3_ACCESS_KEY_ID", cloud.credentials["access_key_id"].reveal())
    monkeypatch.setenv("LINTAS_S3_SECRET_ACCESS_KEY", cloud.credentials["secret_access_key"].reveal())
    content = os.urandom(11 * 1024 * 1024)
    (tmp_path / "large").write_bytes(content)
    lintas_courier.S3().upload(tmp_path / "large", "parts", "x/large")
    assert b"".join(store.get("x/large")) == content
    assert lintas_courier.main(["unpack", "parts", "x/large", "0" * 64, str(tmp_path / "out")]) == 75
    monkeypatch.setenv("LINTAS_S3_SECRET_ACCESS_KEY", "wrong")
    assert lintas_courier.main(["fetch", "parts", "x/", str(tmp_path / "out")]) == 75
