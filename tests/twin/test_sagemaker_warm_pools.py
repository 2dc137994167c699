"""Warm pools of SageMaker: the machine that a job leaves is the next matching one's, without waiting for capacity."""

from __future__ import annotations

import time
from dataclasses import replace

from tasks.core.training import RunState
from tests.twin.test_sagemaker import (
    aws,  # noqa: F401 - a fixture
    code_of,
    ended,
    faults,  # noqa: F401 - a fixture
    job_of,
    outcome,
    sagemaker,  # noqa: F401 - a fixture
    trainer,  # noqa: F401 - a fixture
    training,
)

RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5}


def test_a_machine_that_was_kept_needs_no_capacity(trainer, sagemaker, faults, tmp_path):  # noqa: F811
    first = replace(job_of(tmp_path, run_id="warm-1"), keep_warm_s=600)
    assert outcome(trainer, first).state is RunState.SUCCEEDED
    told = sagemaker.describe_training_job(TrainingJobName=first.job_name)
    assert told["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert told["WarmPoolStatus"] == {"Status": "Available"}

    faults({"kind": "stockout"})
    second = replace(first, run_id="warm-2", keep_warm_s=0)
    assert outcome(trainer, second).state is RunState.SUCCEEDED
    left = sagemaker.describe_training_job(TrainingJobName=first.job_name)["WarmPoolStatus"]
    assert (left["Status"], left["ReusedByJob"]) == ("Reused", second.job_name)
    assert left["ResourceRetainedBillableTimeInSeconds"] >= 1
    assert outcome(trainer, replace(first, run_id="warm-3")).state is RunState.STOCKOUT


def test_a_wish_for_a_warm_machine_makes_no_other_job_and_is_none_of_a_spot_job(trainer, sagemaker, tmp_path):  # noqa: F811
    job = job_of(tmp_path, run_id="warm-4")
    assert replace(job, keep_warm_s=5).digest == job.digest
    spot = replace(job, spot=True, keep_warm_s=600)
    assert outcome(trainer, spot).state is RunState.SUCCEEDED
    assert (
        "KeepAlivePeriodInSeconds"
        not in sagemaker.describe_training_job(TrainingJobName=spot.job_name)["ResourceConfig"]
    )


def test_a_machine_that_nobody_takes_or_that_does_not_match_is_given_back(sagemaker, faults):  # noqa: F811
    sagemaker.create_training_job(**training("pool-1", ResourceConfig={**RESOURCES, "KeepAlivePeriodInSeconds": 1}))
    ended(sagemaker, "pool-1")
    faults({"kind": "stockout"})
    sagemaker.create_training_job(**training("pool-2", ResourceConfig={**RESOURCES, "VolumeSizeInGB": 6}))
    ended(sagemaker, "pool-2")
    assert sagemaker.describe_training_job(TrainingJobName="pool-2")["TrainingJobStatus"] == "Failed"
    deadline = time.monotonic() + 30
    while sagemaker.describe_training_job(TrainingJobName="pool-1")["WarmPoolStatus"]["Status"] != "Terminated":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_spot_machines_are_not_kept(sagemaker):  # noqa: F811
    refused = training(
        "pool-3",
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1},
        ResourceConfig={**RESOURCES, "KeepAlivePeriodInSeconds": 60},
    )
    code, message = code_of(lambda: sagemaker.create_training_job(**refused))
    assert (code, "KeepAlivePeriodInSeconds" in message) == ("ValidationException", True)
