"""The stores that the conformance suites run on: each test once a provider, against its running server."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from deployments.local.object_stores import console_script
from tasks.core.cloud import CloudConfig
from tasks.core.ports import Store
from tests.accounts import purge
from tests.conformance.stores import open_store
from tests.servers import OBJECT_CLOUDS, ObjectClouds, rclone_environment


def bucket_of(config: CloudConfig, purpose: str) -> Iterator[Store]:
    """A new bucket for as long as a fixture lives."""
    store = open_store(config, f"lintas-{purpose}-{uuid.uuid4().hex[:10]}")
    store.create_bucket()
    yield store
    purge(config, store.bucket, rclone_environment)


@pytest.fixture(scope="module", params=OBJECT_CLOUDS)
def config(request: pytest.FixtureRequest, object_clouds: ObjectClouds) -> CloudConfig:
    return object_clouds[request.param]


@pytest.fixture(scope="module")
def store(config: CloudConfig) -> Iterator[Store]:
    yield from bucket_of(config, "conformance")


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex[:12]}/"


@pytest.fixture(scope="module")
def rclone(config: CloudConfig, store: Store) -> Callable[..., bytes]:
    """Runs rclone on a path of the store's bucket: an independent client at the far side."""
    # Keys as they are: rclone has spellings of its own for what some clouds cannot keep.
    environment = {**rclone_environment(config), f"RCLONE_CONFIG_{config.name.upper()}_ENCODING": "None"}

    def run(verb: str, path: str) -> bytes:
        target = f"{config.name}:{store.bucket}/{path}"
        command = [console_script("rclone"), verb, target]
        return subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60).stdout

    return run
