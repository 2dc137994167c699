"""Real servers for the tests, started when a test first asks for them and gone with the session.

`object_clouds` is what most tests want: the configuration of a cloud by name, its object store running behind it.
`rclone_environment` gives an independent client for looking at the far side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.local import credentials
from deployments.local.object_stores import (
    AZURITE_PORTS,
    SEAWEEDFS_PORTS,
    azurite,
    cloud_storage,
    seaweedfs,
)
from deployments.local.ports import free_ports
from deployments.local.processes import HOST, Process
from deployments.local.queues import pubsub, sqs
from deployments.local.services import mlflow_server
from tasks.core.cloud import CloudConfig, Secret
from tests.accounts import ACCOUNTS, account

OBJECT_CLOUDS = ("aws", "google", "azure", "coreweave", "onprem")


class Vault:
    """Secrets in memory, referenced like those of a configuration file."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def secret(self, name: str, value: str) -> Secret:
        """A secret that resolves to `value`."""
        self._values[f"test:{name}"] = value
        return Secret(f"test:{name}", self._values.__getitem__)


class ObjectClouds(dict[str, CloudConfig]):
    """Clouds by name; the server behind one starts when the cloud is first asked for."""

    def __init__(self, directory: Path, running: ExitStack) -> None:
        super().__init__()
        self._directory = directory
        self._running = running
        self._vault = Vault()
        self._openers: dict[str, Callable[[], CloudConfig]] = {
            "aws": lambda: self._s3("aws", region="us-east-1", jurisdiction="US"),
            "google": self._google,
            "azure": self._azure,
            "coreweave": lambda: self._s3("coreweave", region="US-EAST-04A", jurisdiction="US"),
            "onprem": self._onprem,
        }

    def __missing__(self, name: str) -> CloudConfig:
        self[name] = self._openers[name]()
        return self[name]

    def _run(self, process: Process) -> None:
        self._running.callback(process.stop)
        process.start().wait_ready()

    def _s3(self, name: str, *, region: str, jurisdiction: str) -> CloudConfig:
        files = credentials.SecretFiles(self._directory / "secrets")
        access_key, secret_key = credentials.access_key_id(), credentials.token()
        ports = dict(zip(SEAWEEDFS_PORTS, free_ports(len(SEAWEEDFS_PORTS)), strict=True))
        self._run(
            seaweedfs(
                f"{name}-objects",
                ports,
                self._directory / name,
                self._directory / f"{name}.log",
                files.s3_identities(name, access_key, secret_key),
            )
        )
        return CloudConfig(
            name,
            name,
            region=region,
            jurisdiction=jurisdiction,
            endpoints={"objects": f"http://{HOST}:{ports['s3']}"},
            credentials={
                "access_key_id": self._vault.secret(f"{name}-access-key-id", access_key),
                "secret_access_key": self._vault.secret(f"{name}-secret-access-key", secret_key),
            },
        )

    def _google(self) -> CloudConfig:
        files = credentials.SecretFiles(self._directory / "secrets")
        token = files.path("google_token", credentials.token)
        port, events_port = free_ports(2)
        self._run(pubsub(events_port, self._directory / "google-events.log", token, []))
        self._run(
            cloud_storage(
                port, self._directory / "google", self._directory / "google.log", token, pubsub_port=events_port
            )
        )
        return CloudConfig(
            "google",
            "google",
            region="europe-west4",
            jurisdiction="EU",
            endpoints={"objects": f"http://{HOST}:{port}", "events": f"http://{HOST}:{events_port}"},
            credentials={"token": self._vault.secret("google-token", token.read_text())},
            options={"project": "lintas-test"},
        )

    def _azure(self) -> CloudConfig:
        account, key = credentials.account_name(), credentials.account_key()
        ports = dict(zip(AZURITE_PORTS, free_ports(len(AZURITE_PORTS)), strict=True))
        self._run(azurite(ports, self._directory / "azure", self._directory / "azure.log", account, key))
        return CloudConfig(
            "azure",
            "azure",
            region="southeastasia",
            jurisdiction="SG",
            endpoints={
                "objects": f"http://{HOST}:{ports['blob']}/{account}",
                "events": f"http://{HOST}:{ports['queue']}/{account}",
            },
            credentials={"account_key": self._vault.secret("azure-account-key", key)},
            options={"account": account},
        )

    def _onprem(self) -> CloudConfig:
        root = self._directory / "onprem"
        root.mkdir()
        return CloudConfig("onprem", "onprem", region="jakarta", jurisdiction="ID", options={"root": str(root)})


class Accounts(ObjectClouds):
    """Accounts of one's own in the place of the servers."""

    def __missing__(self, name: str) -> CloudConfig:
        self[name] = account(name)
        return self[name]


@pytest.fixture(scope="session")
def object_clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectClouds]:
    """`object_clouds["aws"]` is the configuration of a cloud whose object store runs; see `OBJECT_CLOUDS`."""
    if ACCOUNTS:
        yield Accounts(tmp_path_factory.mktemp("clouds"), ExitStack())
        return
    with ExitStack() as running:
        yield ObjectClouds(tmp_path_factory.mktemp("clouds"), running)


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where MLflow's tracking server listens."""
    directory, (port,) = tmp_path_factory.mktemp("mlflow"), free_ports(1)
    process = mlflow_server(port, directory / "data", directory / "mlflow.log", credentials.fernet_key()).start()
    try:
        process.wait_ready()
        yield f"http://{HOST}:{port}"
    finally:
        process.stop()


@dataclass(frozen=True, slots=True)
class SqsServer:
    """An SQS server; any key opens it."""

    url: str
    region: str = "us-east-1"
    access_key_id: str = "testing"
    secret_access_key: str = "testing"


@pytest.fixture(scope="session")
def sqs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqsServer]:
    """moto's SQS."""
    (port,) = free_ports(1)
    process = sqs(port, tmp_path_factory.mktemp("sqs") / "sqs.log").start()
    try:
        process.wait_ready()
        yield SqsServer(f"http://{HOST}:{port}")
    finally:
        process.stop()


def rclone_environment(cloud: CloudConfig) -> Mapping[str, str]:
    """The environment in which rclone knows the cloud as a remote of the same name (`rclone lsf aws:bucket/prefix`).

    For `onprem` the remote is an alias of its root directory.
    """
    secrets = {name: secret.reveal() for name, secret in cloud.credentials.items()}
    endpoint = "" if cloud.provider == "onprem" else cloud.endpoint_or_public("objects") or ""
    settings: Mapping[str, str]
    if cloud.provider in ("aws", "coreweave"):
        by_path = "false" if cloud.options.get("addressing") == "virtual" else "true"
        names = ("access_key_id", "secret_access_key", "session_token")
        keys = {name: secrets[name] for name in names if name in secrets} or {"env_auth": "true"}
        kind = {"type": "s3", "provider": "Other" if endpoint else "AWS", "force_path_style": by_path}
        settings = {**kind, "region": cloud.region, "endpoint": endpoint, **keys}
    elif cloud.provider == "azure":
        account_url = {"endpoint": endpoint, "use_emulator": "false"} if endpoint else {}
        known = {"key": secrets["account_key"]} if "account_key" in secrets else {"env_auth": "true"}
        settings = {"type": "azureblob", "account": cloud.option("account"), **known, **account_url}
    elif cloud.provider == "google":
        by_url = {"endpoint": f"{endpoint}/storage/v1/"} if endpoint else {}
        known = {"access_token": secrets["token"]} if "token" in secrets else {"env_auth": "true"}
        settings = {"type": "gcs", **known, **by_url, "bucket_policy_only": "true"}
        settings = {**settings, "project_number": cloud.option("project")}
    else:
        settings = {"type": "alias", "remote": cloud.option("root")}
    remote = {f"RCLONE_CONFIG_{cloud.name}_{key}".upper(): value for key, value in settings.items()}
    # A CA bundle for other hosts makes rclone's S3 refuse plain HTTP endpoints.
    inherited = {key: value for key, value in os.environ.items() if key != "AWS_CA_BUNDLE"}
    return {**inherited, **remote, "RCLONE_CONFIG": os.devnull}
