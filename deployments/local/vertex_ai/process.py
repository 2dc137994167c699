"""The double as a process of the twin."""

from __future__ import annotations

import sys
from pathlib import Path

from deployments.local.object_stores import MODULES
from deployments.local.processes import HOST, Process, answers

_QUIET = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def vertex_ai(
    port: int,
    data: Path,
    log: Path,
    *,
    token: Path,
    objects_url: str,
    project: str,
    region: str,
    needs: tuple[str, ...] = (),
) -> Process:
    """The double of Vertex AI and of the logs of its jobs.

    Args:
        port: Where it listens.
        data: Directory of jobs and models; emptied when it starts.
        log: File that takes its output.
        token: File with the only bearer token that is accepted, here and at the object store.
        objects_url: Where Cloud Storage is.
        project: The only project.
        region: The only region.
        needs: Processes that are ready before it starts.
    """
    command = [sys.executable, "-m", "deployments.local.vertex_ai", "--port", str(port), "--data", str(data)]
    place = ["--objects", objects_url, "--project", project, "--location", region]
    return Process(
        name="google-vertex-ai",
        command=[*command, *place, "--token-file", str(token)],
        ready=answers(f"http://{HOST}:{port}/ready", 200),
        log=log,
        environment={**MODULES, **_QUIET},
        without=("PREFECT_", "MLFLOW_", "LINTAS_", "AWS_", "AZURE_", "GOOGLE_"),
        needs=needs,
        port=port,
    )
