"""Every fault of every double, through the provider's own client: what comes out is a class that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.local.faults import KINDS
from tests.compute_clouds import TRAINING_CLOUDS, ComputeClouds
from tests.conformance.test_trainer import cloud_site
from tests.faults import training_trials
from tests.faults.outcomes import FaultOutcomes
from tests.faults.training_trials import Training, first_job

CLOUDS = TRAINING_CLOUDS


@pytest.fixture(scope="module")
def outcomes() -> Iterator[FaultOutcomes]:
    seen = FaultOutcomes(CLOUDS)
    yield seen
    seen.write()


@pytest.fixture(scope="module")
def done_jobs() -> dict[str, str]:
    return {}


@pytest.fixture(params=CLOUDS)
def training(
    request: pytest.FixtureRequest, compute_clouds: ComputeClouds, done_jobs: dict[str, str], tmp_path: Path
) -> Iterator[Training]:
    site = cloud_site(compute_clouds[request.param], tmp_path)
    if request.param not in done_jobs:
        done_jobs[request.param] = first_job(site)
    under_faults = Training(site, done_jobs[request.param])
    yield under_faults
    under_faults.calm()
    for job_id in site.submitted:
        site.trainer.cancel(job_id)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in training_trials.TRIALS])
def test_training_under_a_fault(training: Training, outcomes: FaultOutcomes, kind: str) -> None:
    cloud, seen = training.site.cloud.name, set[str]()
    try:
        for outcome in training_trials.TRIALS[kind](training):
            seen.add(outcome)
            assert outcome in training_trials.PROMISED[kind]
    except BaseException:
        seen.add("FAILED")
        raise
    finally:
        outcomes.record("Trainer", kind, cloud, seen)
    assert seen, "nothing was seen of the fault"
