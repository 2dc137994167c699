"""Training steps: open the MLflow run, run the job where it was placed, collect its model, evaluate and register it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tasks import tracking
from tasks.artifacts import show_table
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Stockout, Terminal
from tasks.core.evaluation import Evaluation
from tasks.core.learned import Learned
from tasks.core.manifest import Manifest
from tasks.core.placement import Offer, OfferKey, Placement
from tasks.core.training import JobSpec, JobStatus, RunState, TrainingSpec, run_job
from tasks.registry import installation
from tasks.residency import LEARNED_TAG
from tasks.steps import say, step
from tasks.storage import fetch_dataset

TRAINING_BUCKET = "training"
"""Bucket for training data on a cloud that does not hold the dataset already."""


@dataclass(frozen=True)
class Attempt:
    """One try at running a job: on which offer, and what came of it."""

    offer: Offer
    outcome: str


def exhausted(attempts: tuple[Attempt, ...]) -> dict[OfferKey, str]:
    """The offers that were tried, with what came of them, as placement wants to know it."""
    return {attempt.offer.key: attempt.outcome for attempt in attempts}


def training_home(data: DatasetURI, placement: Placement) -> DatasetURI:
    """Where the dataset must be for the job: where it is, if that is the chosen cloud, or its training bucket."""
    cloud = placement.chosen.cloud
    if cloud == data.cloud:
        return data
    bucket = installation().cloud(cloud).options.get("training_bucket", TRAINING_BUCKET)
    return DatasetURI(cloud, bucket, data.prefix or data.bucket)


@step(name="run job", run_name="train {job.name} on {job.data.cloud}")
def run_training(job: JobSpec) -> JobStatus:
    """Run a job to its end and show its log; see `tasks.core.training.run_job`.

    Raises:
        Stockout: The offer has no capacity, at once or after waiting in the queue.
        Terminal: The job failed or was stopped.
    """
    trainer = installation().trainer(job.data.cloud)
    status = run_job(trainer, job, poll_s=0.5, on_log=say)
    installation().records.audit.append(
        "run",
        job.run_id,
        {"job": status.job_id, "cloud": job.data.cloud, "state": status.state.value, "data": job.data_digest},
    )
    if status.state is RunState.STOCKOUT:
        raise Stockout(f"'{job.data.cloud}' has no capacity: {status.detail}", "the next offer is tried")
    if status.state is not RunState.SUCCEEDED:
        raise Terminal(
            f"the training job {status.job_id} {status.state.value}: {status.detail or 'no reason given'}",
            "read its log in the run, mend the script and train again",
        )
    return status


@step(name="register", retries=2, run_name="register {spec.name}")
def register_model(spec: TrainingSpec, job: JobSpec, status: JobStatus, learned: Learned) -> tracking.ModelVersion:
    """Bring the job's model home, log it with its run, and register it as a version: the challenger.

    What it learned from is noted with the version, since residency asks for it before the model is served.
    """
    here = installation()
    with tempfile.TemporaryDirectory(dir=here.scratch()) as folder:
        output = Path(folder)
        here.trainer(job.data.cloud).fetch_output(status.job_id, output)
        version = tracking.register_model(job.run_id, spec.name, output / "model", {LEARNED_TAG: learned.as_json()})
    tracking.set_alias(version.model, version.version, tracking.CHALLENGER)
    say(f"{version.model} version {version.version} is the challenger, digest {version.digest[:16]}")
    return version


@step(name="evaluate", retries=2, run_name="evaluate {version.model} {version.version}")
def evaluate_model(
    spec: TrainingSpec, run_id: str, data: DatasetURI, manifest: Manifest, version: tracking.ModelVersion
) -> Evaluation:
    """Score the challenger and the champion on the held-out rows, judge, and note it with the version and its run."""
    here = installation()
    with tempfile.TemporaryDirectory(dir=here.scratch()) as folder:
        rows = fetch_dataset(data, manifest, Path(folder) / "rows", under=f"{spec.holdout_path}/")
        evaluation = tracking.evaluate(spec, rows / spec.holdout_path, version, Path(folder) / "models")
    tracking.record_evaluation(run_id, version, evaluation)
    here.records.audit.append(
        "evaluation",
        f"{version.model} {version.version}",
        {"passed": evaluation.passed, "metrics": dict(evaluation.metrics), "reasons": list(evaluation.reasons)},
    )
    champion = evaluation.champion_metrics or {}
    show_table(
        "evaluation",
        [
            {"metric": name, "challenger": value, "champion": champion.get(name)}
            for name, value in evaluation.metrics.items()
        ],
        f"{version.model} {version.version} {'passed' if evaluation.passed else 'did not pass'}: "
        f"{'; '.join(evaluation.reasons) or 'every threshold holds'}",
    )
    say(f"{version.model} {version.version}: {'passed' if evaluation.passed else 'not passed'}")
    return evaluation
