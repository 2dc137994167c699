"""The double as a process of the twin."""

from __future__ import annotations

import sys
from pathlib import Path

from deployments.local.object_stores import MODULES
from deployments.local.processes import HOST, Process, answers


def kubernetes_api(port: int, data: Path, log: Path, token: Path, *, needs: tuple[str, ...] = ()) -> Process:
    """The Kubernetes API of CoreWeave and the pods behind it; see `deployments.local.kubernetes_api`.

    Args:
        port: Where it listens.
        data: Directory for what is wanted, volumes and logs.
        log: File that takes its output.
        token: File with the only bearer token that is accepted.
        needs: Names of the processes that must be ready before it starts.
    """
    command = [sys.executable, "-m", "deployments.local.kubernetes_api", "--port", str(port), "--data", str(data)]
    return Process(
        name="coreweave-kubernetes",
        command=[*command, "--token-file", str(token)],
        ready=answers(f"http://{HOST}:{port}/readyz", 200),
        log=log,
        environment=MODULES,
        # Nothing of the user's shell is the double's business.
        without=("AWS_", "PREFECT_", "MLFLOW_", "LINTAS_"),
        needs=needs,
        port=port,
    )
