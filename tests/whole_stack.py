"""The whole local twin for tests: Prefect, MLflow, a worker, the bridge, every store; started once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.demo import deploy
from deployments.local.ports import free_ports
from deployments.local.stack import Stack, running_stack
from deployments.local.twin import Wanted
from tasks.registry import Installation
from tasks.settings import load_settings


@dataclass(frozen=True)
class WholeStack:
    """The running twin, its installation, and the API of its Prefect server."""

    stack: Stack
    installation: Installation
    state: Path

    @property
    def prefect_api_url(self) -> str:
        return self.installation.settings.services.prefect_api_url

    @property
    def prefect_ui_url(self) -> str:
        return self.installation.settings.services.prefect_ui_url

    @property
    def mlflow_url(self) -> str:
        return self.installation.settings.services.mlflow_url

    @property
    def environment(self) -> dict[str, str]:
        """What a `lintas` command needs to reach this twin."""
        return {**os.environ, "LINTAS_CONFIG": str(self.stack.twin.config)}


@pytest.fixture(scope="session")
def whole_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeStack]:
    state = tmp_path_factory.mktemp("twin")
    prefect, mlflow = free_ports(2)
    with running_stack(state, Wanted(ports={"prefect": prefect, "mlflow": mlflow})) as stack:
        installation = Installation(load_settings(stack.twin.config))
        deploy(installation.settings.services.prefect_api_url)
        yield WholeStack(stack, installation, state)
