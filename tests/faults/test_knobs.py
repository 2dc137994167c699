"""Every fault of every double, through the provider's own client: what comes out is a class that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.local.faults import KINDS
from tasks.providers.google.quirks import quirks
from tests.compute_clouds import SERVING_CLOUDS, TRAINING_CLOUDS, ComputeClouds
from tests.conformance import test_server, test_trainer
from tests.conformance.test_server import models  # noqa: F401 - a fixture
from tests.faults import serving_trials, training_trials
from tests.faults.outcomes import FaultOutcomes
from tests.faults.serving_trials import Serving
from tests.faults.training_trials import Training, first_job

QUICK = {"Trainer": ("stockout", "quota", "cut"), "Server": ()}
"""What runs by default; the rest belongs to the campaign of `make faults`."""


def kinds(port: str, trials: Mapping[str, object]) -> list[Any]:
    assert set(trials) <= set(KINDS)
    return [kind if kind in QUICK[port] else pytest.param(kind, marks=pytest.mark.campaign) for kind in trials]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[FaultOutcomes]:
    seen = FaultOutcomes(TRAINING_CLOUDS)
    yield seen
    seen.write()


@pytest.fixture(scope="module")
def done_jobs() -> dict[str, str]:
    return {}


@pytest.fixture(params=TRAINING_CLOUDS)
def training(
    request: pytest.FixtureRequest, compute_clouds: ComputeClouds, done_jobs: dict[str, str], tmp_path: Path
) -> Iterator[Training]:
    site = test_trainer.cloud_site(compute_clouds[request.param], tmp_path)
    if request.param not in done_jobs:
        done_jobs[request.param] = first_job(site)
    under_faults = Training(site, done_jobs[request.param])
    yield under_faults
    under_faults.calm()
    for job_id in site.submitted:
        site.trainer.cancel(job_id)


@pytest.fixture(params=SERVING_CLOUDS)
def serving(
    request: pytest.FixtureRequest,
    compute_clouds: ComputeClouds,
    models: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Serving]:
    # For a minute Vertex AI is not bothered with a version that has just failed.
    monkeypatch.setitem(quirks(), "retry_deploy_s", 0.0)
    site = test_server.cloud_site(compute_clouds[request.param], models)
    under_faults = Serving(site)
    under_faults.calm()
    yield under_faults
    under_faults.calm()
    for name in site.deployed:
        site.delete(name)


@pytest.mark.parametrize("kind", kinds("Trainer", training_trials.TRIALS))
def test_training_under_a_fault(training: Training, outcomes: FaultOutcomes, kind: str) -> None:
    observed = training_trials.TRIALS[kind](training)
    with outcomes.cell("Trainer", kind, training.site.cloud.name) as cell:
        cell.require(observed, training_trials.PROMISED[kind])


@pytest.mark.parametrize("kind", kinds("Server", serving_trials.TRIALS))
def test_serving_under_a_fault(serving: Serving, outcomes: FaultOutcomes, kind: str) -> None:
    observed = serving_trials.TRIALS[kind](serving)
    with outcomes.cell("Server", kind, serving.site.cloud.name) as cell:
        cell.require(observed, serving_trials.PROMISED[kind])


def test_no_kind_of_fault_is_left_out() -> None:
    assert set(training_trials.TRIALS) | set(serving_trials.TRIALS) == set(KINDS)
