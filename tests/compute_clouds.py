"""Clouds that train and serve, for the tests: each with its object store and its double, started when first asked for.

A cloud joins by a function in `_OPENERS`; the conformance suites then run on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from deployments.local import credentials
from deployments.local.azure_ml.process import azure_ml, workspace_id
from deployments.local.configuration import AZURE_WORKSPACE
from deployments.local.kubernetes_api.process import kubernetes_api
from deployments.local.ports import free_ports
from deployments.local.processes import HOST
from deployments.local.sagemaker.process import sagemaker
from deployments.local.vertex_ai.process import vertex_ai
from tasks.core.cloud import CloudConfig
from tests.accounts import ACCOUNTS, ComputeAccount, account
from tests.servers import ObjectClouds, Vault

WORK_BUCKET = "lintas-work"


@dataclass(frozen=True)
class ComputeCloud:
    """A cloud whose training and serving run.

    Args:
        config: How it is reached.
        wrong: The same with credentials that it refuses.
        refusal: What the error then says.
        disks: Directory with everything that its jobs have on their machines; a job's paths contain its id.
        pid: The double's process, whose descendants are the jobs and the scoring processes.
        headers: The headers with which any HTTP client may POST this body to this URL.
    """

    config: CloudConfig
    wrong: CloudConfig
    refusal: str
    disks: Path
    pid: int
    headers: Callable[[str, bytes], Mapping[str, str]]


class ComputeClouds(dict[str, ComputeCloud]):
    """Clouds by name; what is behind one starts when it is first asked for."""

    def __init__(self, directory: Path, object_clouds: ObjectClouds, running: ExitStack) -> None:
        super().__init__()
        self._directory, self._object_clouds, self._running = directory, object_clouds, running

    def __missing__(self, name: str) -> ComputeCloud:
        if ACCOUNTS:
            self[name] = cast("ComputeCloud", ComputeAccount(account(name)))
        else:
            self[name] = _OPENERS[name](self._object_clouds[name], self._directory / name, self._running)
        return self[name]


def _aws(cloud: CloudConfig, directory: Path, running: ExitStack) -> ComputeCloud:
    files, (port,) = credentials.SecretFiles(directory / "secrets"), free_ports(1)
    key, secret = (cloud.credentials[name].reveal() for name in ("access_key_id", "secret_access_key"))
    process = sagemaker(
        port,
        directory / "sagemaker",
        directory / "sagemaker.log",
        s3_port=urlsplit(cloud.endpoint("objects")).port or 0,
        region=cloud.region,
        secrets={"access-key-id": files.write("key", key), "secret-access-key": files.write("secret", secret)},
        needs=(),
    )
    running.callback(process.stop)
    process.start().wait_ready()
    assert process.pid is not None
    url = f"http://{HOST}:{port}"
    config = replace(
        cloud,
        endpoints={**cloud.endpoints, "training": url, "serving": url, "identity": url},
        options={
            **cloud.options,
            "bucket": WORK_BUCKET,
            "role_arn": "arn:aws:iam::123456789012:role/lintas",
            "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1",
            "serving_image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/serving:1",
            "grace_s": "1",
        },
    )
    wrong = {**config.credentials, "secret_access_key": Vault().secret("aws-wrong", "wrong")}

    def signed(url: str, body: bytes) -> Mapping[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest("POST", url, headers={"content-type": "application/json"}, data=body)
        SigV4Auth(Credentials(key, secret), "sagemaker", cloud.region).add_auth(request)
        return dict(request.headers.items())

    refused = replace(config, credentials=wrong)
    return ComputeCloud(config, refused, "refused its credentials", directory / "sagemaker", process.pid, signed)


def _coreweave(cloud: CloudConfig, directory: Path, running: ExitStack) -> ComputeCloud:
    files, vault, (port,) = credentials.SecretFiles(directory / "secrets"), Vault(), free_ports(1)
    token = files.path("token", credentials.token)
    process = kubernetes_api(port, directory / "kubernetes", directory / "kubernetes.log", token)
    running.callback(process.stop)
    process.start().wait_ready()
    assert process.pid is not None
    url = f"http://{HOST}:{port}"
    config = replace(
        cloud,
        endpoints={**cloud.endpoints, "training": url, "serving": url},
        credentials={**cloud.credentials, "token": vault.secret("coreweave-token", token.read_text())},
        options={
            **cloud.options,
            "addressing": "path",
            "bucket": WORK_BUCKET,
            "image": "python:3.11",
            "serving_image": "ghcr.io/mlflow/mlflow:v3.17.2",
            "spot_node_label": "lintas/spot=true",
            "grace_s": "1",
            "drain_s": "0",
        },
    )
    wrong = replace(config, credentials={**config.credentials, "token": vault.secret("coreweave-wrong", "wrong")})
    bearer = {"authorization": f"Bearer {token.read_text()}", "content-type": "application/json"}
    disks = directory / "kubernetes"
    return ComputeCloud(config, wrong, "refuses the token", disks, process.pid, lambda _url, _body: bearer)


def _azure(cloud: CloudConfig, directory: Path, running: ExitStack) -> ComputeCloud:
    files, (port,) = credentials.SecretFiles(directory / "secrets"), free_ports(1)
    token = files.path("token", credentials.token)
    options = {
        **cloud.options,
        **AZURE_WORKSPACE,
        "bucket": WORK_BUCKET,
        "training_environment": "lintas-training:1",
        "serving_image": "lintas.azurecr.io/mlflow-pyfunc:1",
        "serving_sku": "Standard_D2s_v5",
        "grace_s": "1",
    }
    process = azure_ml(
        port,
        directory / "azure-ml",
        directory / "azure-ml.log",
        workspace=workspace_id(options),
        region=cloud.region,
        account=cloud.option("account"),
        blob_url=cloud.endpoint("objects"),
        secrets={"token": token, "account-key": files.write("key", cloud.credentials["account_key"].reveal())},
    )
    running.callback(process.stop)
    process.start().wait_ready()
    assert process.pid is not None
    url, vault = f"http://{HOST}:{port}", Vault()
    config = replace(
        cloud,
        endpoints={**cloud.endpoints, "training": url, "serving": url},
        credentials={**cloud.credentials, "token": vault.secret("azure-token", token.read_text())},
        options=options,
    )
    wrong = replace(config, credentials={**config.credentials, "token": vault.secret("azure-wrong", "wrong")})
    headers = {"authorization": f"Bearer {token.read_text()}", "content-type": "application/json"}
    disks = directory / "azure-ml"
    return ComputeCloud(config, wrong, "refuses the token", disks, process.pid, lambda *_: headers)


def _google(cloud: CloudConfig, directory: Path, running: ExitStack) -> ComputeCloud:
    files, (port,) = credentials.SecretFiles(directory / "secrets"), free_ports(1)
    token = cloud.credentials["token"].reveal()
    process = vertex_ai(
        port,
        directory / "vertex-ai",
        directory / "vertex-ai.log",
        token=files.write("token", token),
        objects_url=cloud.endpoint("objects"),
        project=cloud.option("project"),
        region=cloud.region,
        needs=(),
    )
    running.callback(process.stop)
    process.start().wait_ready()
    assert process.pid is not None
    url = f"http://{HOST}:{port}"
    config = replace(
        cloud,
        endpoints={**cloud.endpoints, "training": url, "serving": url, "logs": url, "identity": url},
        options={
            **cloud.options,
            "bucket": WORK_BUCKET,
            "image": "europe-docker.pkg.dev/lintas-test/lintas/training:1",
            "serving_image": "europe-docker.pkg.dev/lintas-test/lintas/mlflow-pyfunc:1",
            "grace_s": "1",
        },
    )
    wrong = replace(config, credentials={"token": Vault().secret("google-wrong", "wrong")})
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    return ComputeCloud(config, wrong, "refuses the token", directory / "vertex-ai", process.pid, lambda *_: headers)


Opener = Callable[[CloudConfig, Path, ExitStack], ComputeCloud]
"""Given a cloud whose object store runs, a directory and what ends with the session, starts the rest."""

_OPENERS: Mapping[str, Opener] = {"aws": _aws, "azure": _azure, "coreweave": _coreweave, "google": _google}
TRAINING_CLOUDS: tuple[str, ...] = ("aws", "azure", "coreweave", "google")
SERVING_CLOUDS: tuple[str, ...] = ("aws", "azure", "coreweave", "google")


@pytest.fixture(scope="session")
def compute_clouds(object_clouds: ObjectClouds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeClouds]:
    """`compute_clouds["aws"]` is a cloud whose training and serving run; see `TRAINING_CLOUDS`, `SERVING_CLOUDS`."""
    with ExitStack() as running:
        yield ComputeClouds(tmp_path_factory.mktemp("compute"), object_clouds, running)
