"""The conformance suites against accounts of one's own: `make conformance ACCOUNTS=lintas.yaml`.

`LINTAS_ACCOUNTS` names a `lintas.yaml`; of every provider its first cloud is tried in place of the twin's, under the
provider's name, which is what the suites know clouds by. Buckets are made under names of their own and purged
afterwards by rclone. What needs a fault of the twin, or a look behind it, is skipped and says so.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.local.object_stores import console_script
from tasks.core.cloud import CloudConfig
from tasks.settings import load_settings

ACCOUNTS = os.environ.get("LINTAS_ACCOUNTS", "")
PATIENCE = 15 if ACCOUNTS else 1
"""How many times longer a real service may take than the twin: a machine is started for each job."""

_ONLY_THE_TWIN = {
    "test_store_trouble": "needs a server that fails on demand",
    "test_store_pulls": "needs the twin's Put Block From URL",
    "test_store_transfers": "needs the twin's Storage Transfer Service",
    "test_events": "needs a queue of its own, which only the twin makes",
    "test_mirroring": "needs to count the requests that the twin's endpoints saw",
    "test_directory_store": "is about a directory of this machine",
    "test_a_job_that_loses_its_machine_in_mid_training_goes_on_from_its_checkpoint": "needs faults on demand",
    "test_mlflow_has_the_metrics_of_a_job_that_still_runs": "needs MLflow where the cloud's machines reach it",
    "test_a_service_that_is_down_is_retryable_and_named": "needs the service on this machine",
}


def pytest_report_header() -> list[str]:
    """What will be used, and what that may cost, before anything is."""
    if not ACCOUNTS:
        return []
    names = ", ".join(f"{cloud.name} ({cloud.provider})" for cloud in _named().values())
    return [
        f"accounts of {ACCOUNTS}: {names}",
        "cost: test_store* write some 100 MB into new buckets and remove them (cents); test_trainer and test_server",
        "start the configured machines some dozens of times (tens of USD): choose with ARGS",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if ACCOUNTS else ():
        for name in (item.path.stem, getattr(item, "originalname", "")):
            if name in _ONLY_THE_TWIN:
                item.add_marker(pytest.mark.skip(reason=_ONLY_THE_TWIN[name]))


def account(provider: str) -> CloudConfig:
    """The configured cloud of a provider, under the provider's name; the test is skipped when there is none."""
    found = _named().get(provider)
    if found is None:
        pytest.skip(f"{ACCOUNTS} names no cloud of the provider '{provider}'")
    return replace(found, name=provider)


def own_name(name: str) -> str:
    """The name for something that a suite makes: in an account one that nothing there has already."""
    return f"lintas-{name}-{uuid.uuid4().hex[:10]}" if ACCOUNTS else name


def purge(config: CloudConfig, bucket: str, environment: Callable[[CloudConfig], Mapping[str, str]]) -> None:
    """Remove a bucket of an account with all that is in it, by rclone; the twin's are gone with the twin.

    Raises:
        CalledProcessError: Something is left; rclone's words say what.
    """
    if ACCOUNTS:
        command = [console_script("rclone"), "purge", f"{config.name}:{bucket}"]
        subprocess.run(command, env=dict(environment(config)), check=True, timeout=600)


class ComputeAccount:
    """A real cloud in the place of a `ComputeCloud`: nobody can look behind it.

    Args:
        config: How it is reached.
    """

    def __init__(self, config: CloudConfig) -> None:
        self.config = config

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"needs the twin's own '{name}'")


def _named() -> dict[str, CloudConfig]:
    settings = load_settings(Path(ACCOUNTS))
    found: dict[str, CloudConfig] = {}
    for name in settings.clouds:
        cloud = settings.cloud(name)
        found.setdefault(cloud.provider, cloud)
    return found
