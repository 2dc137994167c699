"""The upper floor of the local twin: Prefect, MLflow, the event bridge, the scoring hosts. One function a process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.local.object_stores import MODULES, console_script
from deployments.local.processes import HOST, Process, answers, log_says

WORK_POOL = "lintas"
_REPOSITORY = Path(__file__).parents[2]
# What the user's shell says about other installations must not reach this one.
_OTHERS = ("PREFECT_", "MLFLOW_", "LINTAS_", "AWS_", "AZURE_", "GOOGLE_")
_QUIET = {"DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def prefect_environment(home: Path, port: int) -> dict[str, str]:
    """The variables with which a process is a client of this Prefect server and touches no other."""
    return {
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_UI_URL": f"http://{HOST}:{port}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **_QUIET,
    }


def prefect_server(port: int, home: Path, log: Path) -> Process:
    """Prefect's server with its UI, on SQLite in `home`."""
    url = f"http://{HOST}:{port}"
    return Process(
        name="prefect",
        command=[console_script("prefect"), "server", "start", "--host", HOST, "--port", str(port)],
        ready=answers(f"{url}/api/health", 200),
        log=log,
        environment={
            **prefect_environment(home, port),
            "PREFECT_SERVER_UI_API_URL": f"{url}/api",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            # Batches halve the time in which SQLite takes task runs and events.
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
        },
        without=_OTHERS,
        port=port,
    )


def prefect_worker(home: Path, log: Path, *, prefect_port: int, configuration: Path, limit: int) -> Process:
    """A process worker of the pool `lintas`, whose flow runs read the configuration given.

    Args:
        home: Prefect's home directory.
        log: File that takes its output.
        prefect_port: Where the server is, or will be.
        configuration: The `lintas.yaml` of the flow runs.
        limit: Flow runs at a time.
    """
    return Process(
        name="worker",
        command=[
            *(sys.executable, "-m", "deployments.local.prefect_worker"),
            *("--pool", WORK_POOL, "--limit", str(limit)),
        ],
        ready=log_says(log, "started!"),
        log=log,
        environment={
            **MODULES,
            **prefect_environment(home, prefect_port),
            "PYTHONUNBUFFERED": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "LINTAS_CONFIG": str(configuration.resolve()),
        },
        # Entry points of deployments are relative to the repository.
        working_directory=_REPOSITORY,
        without=_OTHERS,
    )


def mlflow_server(port: int, data: Path, log: Path, webhook_key: str) -> Process:
    """MLflow's tracking server and registry, on SQLite, artifacts beside it.

    Args:
        port: Where it listens.
        data: Directory for the database and the artifacts.
        log: File that takes its output.
        webhook_key: Fernet key that the registry's webhook secrets are encrypted with.
    """
    return Process(
        name="mlflow",
        command=[sys.executable, "-m", "deployments.local.mlflow_server", "--port", str(port), "--data", str(data)],
        ready=answers(f"http://{HOST}:{port}/health", 200),
        log=log,
        environment={
            **MODULES,
            **_QUIET,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # The registry's webhooks lead to this machine.
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            # Seconds for which it does not notice a new webhook; a minute unless told.
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": webhook_key,
        },
        without=_OTHERS,
        port=port,
    )


def event_bridge(log: Path, *, configuration: Path, prefect: Mapping[str, str], needs: tuple[str, ...]) -> Process:
    """The event bridge: from the clouds' queues to Prefect.

    Args:
        log: File that takes its output.
        configuration: The `lintas.yaml` that names the queues.
        prefect: `prefect_environment`'s variables.
        needs: The queues' processes, and MLflow.
    """
    return Process(
        name="event-bridge",
        command=[sys.executable, "-m", "deployments.event_bridge"],
        ready=log_says(log, "watching"),
        log=log,
        environment={**MODULES, **prefect, "PYTHONUNBUFFERED": "1", "LINTAS_CONFIG": str(configuration.resolve())},
        without=_OTHERS,
        needs=needs,
    )


def scoring_host(cloud: str, port: int, root: Path, log: Path, token: Path) -> Process:
    """The scoring host of an on-premises site.

    Args:
        cloud: Name of the cloud it belongs to.
        port: Where it listens.
        root: Directory for its models; they are served again after a restart.
        log: File that takes its output.
        token: File with the token that it asks for.
    """
    command = [sys.executable, "-m", "tasks.providers.onprem.scoring_host", "--port", str(port)]
    return Process(
        name=f"{cloud}-serving",
        command=[*command, "--root", str(root), "--token-file", str(token)],
        ready=answers(f"http://{HOST}:{port}/ping", 200),
        log=log,
        environment={**MODULES, **_QUIET},
        without=_OTHERS,
        # It answers early and then imports for seconds: not while the servers that all wait for are starting.
        needs=("prefect", "mlflow"),
        port=port,
    )
