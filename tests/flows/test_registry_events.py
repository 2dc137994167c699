"""Somebody approves a version in MLflow, and Prefect promotes it: through MLflow's own webhook and the bridge."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.flows.conftest import Landed
from tests.whole_stack import WholeStack

pytestmark = pytest.mark.timeout(300)


def promotions(stack: WholeStack, since: datetime) -> list[dict[str, Any]]:
    wanted = {
        "deployments": {"name": {"any_": ["promote"]}},
        "flow_runs": {"start_time": {"after_": since.isoformat()}},
    }
    return stack.ask_prefect("POST", "/flow_runs/filter", wanted)


def test_an_approved_version_is_promoted(landed: Landed) -> None:
    since, client = datetime.now(UTC), MlflowClient(landed.stack.mlflow_url)
    ours = [hook for hook in client.list_webhooks() if hook.name == "lintas-event-bridge"]
    assert len(ours) == 1
    model, version = landed.report["trained"]["model"], landed.report["trained"]["version"]
    client.set_registered_model_alias(model, "approved", version)
    deadline = time.monotonic() + 240
    while not (runs := promotions(landed.stack, since)) or not runs[0]["end_time"]:
        assert time.monotonic() < deadline, "no promotion ended"
        time.sleep(0.5)
    (run,) = runs
    assert (run["state"]["type"], run["parameters"]["model"], run["parameters"]["version"]) == (
        "COMPLETED",
        model,
        version,
    )
    client.delete_registered_model_alias(model, "approved")
