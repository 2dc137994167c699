"""A cloud that is partly on this machine: no public service is asked in the name of what is missing."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.local.configuration import CLOUDS, write_config
from deployments.local.credentials import SecretFiles
from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid
from tasks.registry import Installation, providers
from tasks.settings import load_settings

OBJECT_PORTS = {"aws-s3": 1, "aws-events": 2, "google-objects": 3, "azure-blob": 4, "coreweave-s3": 5}
COMPUTE_PORTS = {"aws-sagemaker": 6, "google-vertex-ai": 7, "azure-ml": 8, "coreweave-kubernetes": 9}
REAL_CLOUDS = ("aws", "google", "azure", "coreweave")


def twin(state: Path, ports: Mapping[str, int]) -> Installation:
    return Installation(load_settings(write_config(state, ports, SecretFiles(state / "secrets"), CLOUDS)))


@pytest.fixture(scope="module")
def objects_only(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """What `lintas up` configures when only object stores run."""
    return twin(tmp_path_factory.mktemp("objects"), OBJECT_PORTS)


@pytest.fixture(scope="module")
def trainable(objects_only: Installation) -> set[str]:
    return {offer.cloud for offer in objects_only.offers() if offer.has_trainer}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The same when everything runs."""
    return twin(tmp_path_factory.mktemp("whole"), OBJECT_PORTS | COMPUTE_PORTS)


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is asked of the network is seen and refused."""
    asked = list[object]()

    def refuse(_socket: socket.socket, address: object) -> None:
        asked.append(address)
        raise ConnectionRefusedError(address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert asked == []


@pytest.mark.parametrize("cloud", REAL_CLOUDS)
def test_a_twin_of_object_stores_neither_trains_nor_serves(
    objects_only: Installation, trainable: set[str], cloud: str
) -> None:
    assert cloud not in trainable
    for opener in (objects_only.trainer, objects_only.server):
        with pytest.raises(Invalid, match=rf"clouds\.{cloud}\."):
            opener(cloud)


@pytest.mark.parametrize("cloud", REAL_CLOUDS)
def test_a_training_service_that_a_stand_in_does_not_name_is_asked_nothing(whole: Installation, cloud: str) -> None:
    complete = whole.cloud(cloud)
    kept = {role: url for role, url in complete.endpoints.items() if role in ("objects", "events")}
    config = replace(complete, endpoints=kept)
    provider = providers()[cloud]
    assert provider.open_trainer
    assert provider.open_server
    assert provider.probes
    for role, opener in (("training", provider.open_trainer), ("serving", provider.open_server)):
        with pytest.raises(Invalid, match=rf"clouds\.{cloud}\.endpoints\.{role} is missing"):
            opener(config)
    needed = [
        probe
        for probe in provider.probes(config, trains=True)
        if probe.needed_for in ("everything", "training", "serving")
    ]
    assert needed
    for probe in needed:
        with pytest.raises(Invalid, match=rf"clouds\.{cloud}\.endpoints\.(identity|training|serving) is missing"):
            probe.look()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.3.2.1", "[::1]"])
def test_a_role_without_a_url_is_refused_beside_one_on_this_machine(host: str) -> None:
    cloud = CloudConfig("there", "aws", endpoints={"objects": f"http://{host}:9000/x"})
    with pytest.raises(Invalid, match=r"clouds.there.endpoints.training is missing, and its objects are on this"):
        cloud.endpoint_or_public("training")


def test_a_role_without_a_url_is_public_elsewhere() -> None:
    for endpoints in ({}, {"objects": "https://objects.example"}, {"objects": "https://localhost.example:127"}):
        assert CloudConfig("there", "aws", endpoints=endpoints).endpoint_or_public("training") is None
    named = CloudConfig("there", "aws", endpoints={"objects": "http://127.0.0.1:1", "training": "https://public"})
    assert named.endpoint_or_public("training") == "https://public"
