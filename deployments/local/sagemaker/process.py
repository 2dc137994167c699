"""The double as a process of the twin."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.local.object_stores import MODULES
from deployments.local.processes import HOST, Process, answers


def sagemaker(
    port: int, root: Path, log: Path, *, s3_port: int, region: str, secrets: Mapping[str, Path], needs: tuple[str, ...]
) -> Process:
    """SageMaker, its runtime and its logs on one port; see `deployments.local.sagemaker`.

    Args:
        port: Where it listens.
        root: Directory for what jobs and endpoints keep.
        log: File that takes its output.
        s3_port: Where the account's S3 is.
        region: The account's region.
        secrets: Files `access-key-id` and `secret-access-key`, of the only key that it takes and of S3.
        needs: Names of the processes that must be ready before it starts.
    """
    files = [argument for name, path in secrets.items() for argument in (f"--{name}-file", str(path))]
    command = [sys.executable, "-m", "deployments.local.sagemaker", "--port", str(port), "--root", str(root)]
    return Process(
        name="aws-sagemaker",
        command=[*command, "--s3", f"http://{HOST}:{s3_port}", "--region", region, *files],
        ready=answers(f"http://{HOST}:{port}/ping", 200),
        log=log,
        environment=MODULES,
        # Nothing of the user's shell is the double's business, least of all another account.
        without=("AWS_", "PREFECT_", "MLFLOW_", "LINTAS_"),
        needs=needs,
        port=port,
    )
