"""Which processes the local twin is made of, where each keeps its data, and how they find each other.

| under the state directory | |
| --- | --- |
| `lintas.yaml` | the configuration that points at the twin |
| `secrets/` | one file a secret, mode 0600 |
| `data/NAME/` | what a server keeps; survives `down` |
| `onprem/`, `edge/` | the buckets of the two sites |
| `logs/NAME.log` | what a process printed since it was last started |
| `ports.json` | the ports of the last start |
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployments.local import credentials, object_stores, queues, services
from deployments.local.azure_ml.process import azure_ml, workspace_id
from deployments.local.configuration import (
    AWS_REGION,
    AZURE_REGION,
    AZURE_WORKSPACE,
    CLOUDS,
    FRONT,
    GOOGLE_PROJECT,
    GOOGLE_REGION,
    QUEUE,
    SUBSCRIPTION,
    write_config,
)
from deployments.local.credentials import SecretFiles
from deployments.local.knobs.process import Front, knobs
from deployments.local.kubernetes_api.process import kubernetes_api
from deployments.local.object_stores import AZURITE_PORTS, SEAWEEDFS_PORTS
from deployments.local.ports import choose_ports
from deployments.local.processes import HOST, Process
from deployments.local.s3_events import notification_settings
from deployments.local.sagemaker.process import sagemaker
from deployments.local.vertex_ai.process import vertex_ai
from tasks.core.errors import Invalid, Terminal

LEVELS = ("objects", "all")
_PREFERRED_PORTS = {"prefect": 4200, "mlflow": 5000}
_SITES = ("onprem", "edge")
_DIALECTS = {
    "aws-s3": "s3",
    "aws-events": "sqs",
    "google-objects": "cloud-storage",
    "google-events": "google-api",
    "azure-blob": "azure-storage",
    "azure-queue": "azure-storage",
    "coreweave-s3": "s3",
}
"""The servers that know no faults, and how the services that they stand in for refuse."""
_SMALLEST_FREE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the twin is to run.

    Args:
        level: `objects` for object stores and queues, `all` with Prefect, MLflow, the worker, the event bridge and
            the scoring hosts.
        clouds: Whose servers run and stand in `lintas.yaml`.
        ports: Ports that the user insists on, by name: `prefect`, `mlflow`, ...
        worker_limit: Flow runs at a time.
    """

    level: str = "all"
    clouds: Sequence[str] = CLOUDS
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    worker_limit: int = 4


@dataclass(frozen=True, slots=True)
class Twin:
    """The processes to start, in no order, and what they are reached by.

    Args:
        processes: Each names what it needs.
        config: The `lintas.yaml`.
        ports: Port by name.
    """

    processes: tuple[Process, ...]
    config: Path
    ports: Mapping[str, int]


def prepare(state: Path, wanted: Wanted) -> Twin:
    """Choose ports, make secrets and directories, write the configuration; starts nothing.

    Raises:
        Invalid: A level, a cloud or a port's name is none, a demanded port is in use, or a server is not installed.
        Terminal: The disk is nearly full.
    """
    state = state.resolve()
    _check(wanted)
    try:
        state.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(state).free
        if free < _SMALLEST_FREE_BYTES:
            raise Terminal(f"the disk of {state} has {free // 1024**2} MiB left", "free some space and start again")
        return _prepare(state, wanted)
    except OSError as error:
        raise Terminal(f"{state} cannot be written ({error.strerror})", "free some space or mend its rights") from error


def _check(wanted: Wanted) -> None:
    if wanted.level not in LEVELS:
        raise Invalid(f"'{wanted.level}' is no level of the twin", f"use one of {', '.join(LEVELS)}")
    for cloud in wanted.clouds:
        if cloud not in CLOUDS:
            raise Invalid(f"'{cloud}' is no cloud of the twin", f"use one of {', '.join(CLOUDS)}")
    names = _port_names(wanted)
    for name in wanted.ports:
        if name not in names:
            raise Invalid(f"'{name}' is no port of the twin", f"use one of {', '.join(names)}")


def _port_names(wanted: Wanted) -> list[str]:
    def compute(name: str) -> list[str]:
        """Training and serving belong to the whole twin, not to its object stores."""
        return [name] if wanted.level == "all" else []

    of_cloud: dict[str, list[str]] = {
        "aws": [*_seaweedfs_names("aws"), "aws-events", "aws-notifications", *compute("aws-sagemaker")],
        "coreweave": [*_seaweedfs_names("coreweave"), *compute("coreweave-kubernetes")],
        "google": ["google-objects", "google-events", *compute("google-vertex-ai")],
        "azure": [*(f"azure-{port}" for port in AZURITE_PORTS), *compute("azure-ml")],
    }
    names = [name for cloud in wanted.clouds for name in of_cloud.get(cloud, [])]
    if wanted.level == "all":
        names += [f"{name}{FRONT}" for name in _DIALECTS if name in names]
        names += ["prefect", "mlflow", "registry-webhook"]
        names += [f"{site}-serving" for site in _SITES if site in wanted.clouds]
    return names


def _seaweedfs_names(cloud: str) -> list[str]:
    return [f"{cloud}-{port}" for port in SEAWEEDFS_PORTS]


def _prepare(state: Path, wanted: Wanted) -> Twin:
    ports = choose_ports(state / "ports.json", _port_names(wanted), preferred=_PREFERRED_PORTS, demanded=wanted.ports)
    secrets = SecretFiles(state / "secrets")
    config = write_config(state, ports, secrets, wanted.clouds)
    builders = {"aws": _aws, "coreweave": _coreweave, "google": _google, "azure": _azure}
    processes: list[Process] = []
    for cloud in wanted.clouds:
        if cloud in builders:
            processes += builders[cloud](state, ports, secrets)
        else:
            (state / cloud).mkdir(exist_ok=True)
    if wanted.level == "all":
        processes += _upper_floor(state, ports, secrets, config, wanted)
    return Twin(tuple(processes), config, ports)


def _aws(state: Path, ports: Mapping[str, int], secrets: SecretFiles) -> list[Process]:
    token = secrets.path("aws-notification-token", credentials.token)
    # The filer looks for this file in its working directory.
    settings = SecretFiles(state / "data" / "aws-settings")
    webhook = f"http://{HOST}:{ports['aws-notifications']}/changes"
    settings.write("notification.toml", notification_settings(webhook, token.read_text()))
    keys = {
        "access-key-id": secrets.path("aws-access-key-id", credentials.access_key_id),
        "secret-access-key": secrets.path("aws-secret-access-key", credentials.token),
    }
    compute = (
        [
            sagemaker(
                ports["aws-sagemaker"],
                state / "data" / "aws-sagemaker",
                state / "logs" / "aws-sagemaker.log",
                s3_port=ports["aws-s3"],
                region=AWS_REGION,
                secrets=keys,
                # After the servers that all wait for.
                needs=("aws-objects", "prefect", "mlflow"),
            )
        ]
        if "aws-sagemaker" in ports
        else []
    )
    return [
        *compute,
        _seaweedfs("aws", state, ports, secrets, settings.directory),
        queues.sqs(ports["aws-events"], state / "logs" / "aws-events.log"),
        queues.s3_events(
            ports["aws-notifications"],
            state / "logs" / "aws-notifications.log",
            sqs_port=ports["aws-events"],
            queue=QUEUE,
            region=AWS_REGION,
            secrets={**keys, "token": token},
        ),
    ]


def _coreweave(state: Path, ports: Mapping[str, int], secrets: SecretFiles) -> list[Process]:
    stores = [_seaweedfs("coreweave", state, ports, secrets, None)]
    if "coreweave-kubernetes" not in ports:
        return stores
    cluster = kubernetes_api(
        ports["coreweave-kubernetes"],
        state / "data" / "coreweave-kubernetes",
        state / "logs" / "coreweave-kubernetes.log",
        secrets.path("coreweave-token", credentials.token),
        # After the servers that all wait for.
        needs=("coreweave-objects", "prefect", "mlflow"),
    )
    return [*stores, cluster]


def _seaweedfs(
    cloud: str, state: Path, ports: Mapping[str, int], secrets: SecretFiles, settings: Path | None
) -> Process:
    access_key = secrets.text(f"{cloud}-access-key-id", credentials.access_key_id)
    secret_key = secrets.text(f"{cloud}-secret-access-key", credentials.token)
    return object_stores.seaweedfs(
        f"{cloud}-objects",
        {port: ports[f"{cloud}-{port}"] for port in SEAWEEDFS_PORTS},
        state / "data" / f"{cloud}-objects",
        state / "logs" / f"{cloud}-objects.log",
        secrets.s3_identities(cloud, access_key, secret_key),
        configuration=settings,
    )


def _google(state: Path, ports: Mapping[str, int], secrets: SecretFiles) -> list[Process]:
    token = secrets.path("google-token", credentials.token)
    objects = object_stores.cloud_storage(
        ports["google-objects"],
        state / "data" / "google-objects",
        state / "logs" / "google-objects.log",
        token,
        pubsub_port=ports["google-events"],
        notify=SUBSCRIPTION.replace("/subscriptions/", "/topics/"),
    )
    events = queues.pubsub(ports["google-events"], state / "logs" / "google-events.log", token, [SUBSCRIPTION])
    if "google-vertex-ai" not in ports:
        return [objects, events]
    compute = vertex_ai(
        ports["google-vertex-ai"],
        state / "data" / "google-vertex-ai",
        state / "logs" / "google-vertex-ai.log",
        token=token,
        objects_url=f"http://{HOST}:{ports['google-objects']}",
        project=GOOGLE_PROJECT,
        region=GOOGLE_REGION,
        # After the servers that all wait for.
        needs=("google-objects", "prefect", "mlflow"),
    )
    return [objects, events, compute]


def _azure(state: Path, ports: Mapping[str, int], secrets: SecretFiles) -> list[Process]:
    account = secrets.text("azure-account-name", credentials.account_name)
    key = secrets.path("azure-account-key", credentials.account_key)
    objects = object_stores.azurite(
        {port: ports[f"azure-{port}"] for port in AZURITE_PORTS},
        state / "data" / "azure-objects",
        state / "logs" / "azure-objects.log",
        account,
        key.read_text(),
    )
    blob_url = f"http://{HOST}:{ports['azure-blob']}/{account}"
    events = queues.event_grid(
        state / "logs" / "azure-events.log",
        blob_url=blob_url,
        queue_url=f"http://{HOST}:{ports['azure-queue']}/{account}",
        account=account,
        key=key,
        queue=QUEUE,
    )
    if "azure-ml" not in ports:
        return [objects, events]
    workspace = azure_ml(
        ports["azure-ml"],
        state / "data" / "azure-ml",
        state / "logs" / "azure-ml.log",
        workspace=workspace_id(AZURE_WORKSPACE),
        region=AZURE_REGION,
        account=account,
        blob_url=blob_url,
        secrets={"token": secrets.path("azure-token", credentials.token), "account-key": key},
        # After the servers that all wait for.
        needs=("azure-objects", "prefect", "mlflow"),
    )
    return [objects, events, workspace]


def _upper_floor(
    state: Path, ports: Mapping[str, int], secrets: SecretFiles, config: Path, wanted: Wanted
) -> list[Process]:
    logs, home = state / "logs", state / "data" / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    told_by = {"aws": "aws-notifications", "google": "google-events", "azure": "azure-events"}
    fronts = [
        Front(ports[f"{name}{FRONT}"], dialect, f"http://{HOST}:{ports[name]}")
        for name, dialect in _DIALECTS.items()
        if name in ports
    ]
    return [
        *([knobs(logs / "knobs.log", fronts)] if fronts else []),
        services.prefect_server(ports["prefect"], home, logs / "prefect.log"),
        services.mlflow_server(
            ports["mlflow"],
            state / "data" / "mlflow",
            logs / "mlflow.log",
            secrets.text("mlflow-webhook-key", credentials.fernet_key),
        ),
        services.prefect_worker(
            home,
            logs / "worker.log",
            prefect_port=ports["prefect"],
            configuration=config,
            limit=wanted.worker_limit,
        ),
        services.event_bridge(
            logs / "event-bridge.log",
            configuration=config,
            prefect=services.prefect_environment(home, ports["prefect"]),
            needs=("mlflow", *(process for cloud, process in told_by.items() if cloud in wanted.clouds)),
        ),
        *(
            services.scoring_host(
                site,
                ports[f"{site}-serving"],
                state / "data" / f"{site}-serving",
                logs / f"{site}-serving.log",
                secrets.path(f"{site}-serving-token", credentials.token),
            )
            for site in _SITES
            if site in wanted.clouds
        ),
    ]
