"""The double as a process of the twin."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.local.object_stores import MODULES
from deployments.local.processes import HOST, Process, answers, port_ready

# What the user's shell says about other installations must not reach this one.
_OTHERS = ("PREFECT_", "MLFLOW_", "LINTAS_", "AWS_", "AZURE_", "GOOGLE_")


def workspace_id(options: Mapping[str, str]) -> str:
    """The id in Resource Manager of the workspace that a cloud's options name."""
    group = f"/subscriptions/{options['subscription']}/resourceGroups/{options['resource_group']}"
    return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{options['workspace']}"


def azure_ml(
    port: int,
    data: Path,
    log: Path,
    *,
    workspace: str,
    region: str,
    account: str,
    blob_url: str,
    secrets: Mapping[str, Path],
    needs: tuple[str, ...] = (),
    certificate: Path | None = None,
) -> Process:
    """The double of an Azure ML workspace; see `deployments.local.azure_ml`.

    Args:
        port: Where it listens, for Resource Manager, run history and endpoints alike.
        data: Directory for jobs and models; emptied when it starts.
        log: File that takes its output.
        workspace: The workspace's id in Resource Manager.
        region: Where it is.
        account: Its storage account.
        blob_url: URL of the account's blob service.
        secrets: Files `token` (the bearer token that it asks for) and `account-key`.
        needs: The process that serves the account.
        certificate: File with a certificate and its key, to speak TLS as some clients demand; None: plain HTTP.
    """
    files = [argument for name, path in secrets.items() for argument in (f"--{name}-file", str(path))]
    command = [sys.executable, "-m", "deployments.local.azure_ml", "--port", str(port), "--data", str(data)]
    where = ["--workspace", workspace, "--region", region, "--account", account, "--blob-url", blob_url]
    tls = ["--certificate", str(certificate)] if certificate else []
    return Process(
        name="azure-ml",
        command=[*command, *where, *files, *tls],
        ready=port_ready(port) if certificate else answers(f"http://{HOST}:{port}{workspace}", 401),
        log=log,
        environment={**MODULES, "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
        without=_OTHERS,
        needs=needs,
        port=port,
    )
