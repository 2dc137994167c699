"""The whole local twin for tests: Prefect, MLflow, a worker, the bridge, every store; started once a session."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.demo import deploy
from deployments.local.ports import free_ports
from deployments.local.processes import Process
from deployments.local.stack import status
from tasks.registry import Installation
from tasks.settings import load_settings


@dataclass(frozen=True)
class WholeStack:
    """The running twin, its installation, and the API of its Prefect server."""

    installation: Installation
    state: Path

    @property
    def config(self) -> Path:
        return self.state / "lintas.yaml"

    @property
    def prefect_api_url(self) -> str:
        return self.installation.settings.services.prefect_api_url

    @property
    def prefect_ui_url(self) -> str:
        return self.installation.settings.services.prefect_ui_url

    @property
    def mlflow_url(self) -> str:
        return self.installation.settings.services.mlflow_url

    def ask_prefect(self, method: str, path: str, body: Any = None) -> Any:
        """What the Prefect API answers. It says 503 while others write into its SQLite database, and is asked again."""
        deadline = time.monotonic() + 120
        while (
            answer := httpx.request(method, f"{self.prefect_api_url}{path}", json=body, timeout=60)
        ).status_code == 503:
            assert time.monotonic() < deadline, f"{method} {path}: 503 for two minutes"
            time.sleep(0.2)
        content = answer.raise_for_status().content
        return json.loads(content) if content else None

    @property
    def environment(self) -> dict[str, str]:
        """What a `lintas` command needs to reach this twin."""
        return {**os.environ, "LINTAS_CONFIG": str(self.config)}


@pytest.fixture(scope="session")
def whole_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeStack]:
    """The twin under a supervisor, as `lintas up` leaves it, but gone with these tests."""
    state = tmp_path_factory.mktemp("twin").resolve()
    ports = dict(zip(("prefect", "mlflow"), free_ports(2), strict=True))
    command = [sys.executable, "-m", "deployments.local.stack", "--state", str(state)]
    command += [f"--port={name}={port}" for name, port in ports.items()]
    supervisor = Process(
        "twin", command, lambda: status(state).state == "ready", state / "logs" / "supervisor.log", start_timeout_s=420
    )
    try:
        supervisor.start().wait_ready()
        installation = Installation(load_settings(state / "lintas.yaml"))
        deploy(installation.settings.services.prefect_api_url)
        yield WholeStack(installation, state)
    finally:
        supervisor.stop(timeout_s=30)
