"""The deployment `distribute`: one dataset on several clouds, each for itself."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.local.object_stores import console_script
from tests.flows.conftest import Landed
from tests.servers import rclone_environment
from tests.whole_stack import WholeStack

pytestmark = pytest.mark.timeout(300)


def ended_run(stack: WholeStack, deployment: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A run of a deployment as its form starts it, when it has ended."""
    found = stack.ask_prefect("GET", f"/deployments/name/{deployment}/{deployment}")
    run = stack.ask_prefect("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
    deadline = time.monotonic() + 240
    while not run["end_time"]:
        assert time.monotonic() < deadline, run["state"]
        time.sleep(0.5)
        run = stack.ask_prefect("GET", f"/flow_runs/{run['id']}")
    return run


def test_every_destination_gets_the_dataset_and_a_refused_one_fails_alone(landed: Landed) -> None:
    destinations = ["onprem://lake/everywhere", "nowhere://lake/everywhere", "edge://lake/everywhere"]
    run = ended_run(
        landed.stack,
        "distribute",
        {"source": "google://lake/flights", "destinations": destinations},
    )
    assert run["state"]["type"] == "FAILED"
    assert "'nowhere' is not a cloud" in run["state"]["message"]
    google = landed.stack.installation.cloud("google")
    for cloud in ("onprem", "edge"):
        there = Path(landed.stack.installation.cloud(cloud).option("root")) / "lake" / "everywhere"
        rclone = [console_script("rclone"), "check", "--download", "--exclude", ".lintas/**"]
        environment = dict(rclone_environment(google))
        subprocess.run([*rclone, "google:lake/flights", there], env=environment, check=True, timeout=120)
