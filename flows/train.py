"""Train where capacity is: place the job, bring the data, run it, judge the model on held-out data, register it."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from flows.forms import Dataset
from flows.move import move
from flows.moving import Moved
from tasks.core.errors import LintasError, Stockout
from tasks.core.evaluation import Evaluation
from tasks.core.placement import Placement
from tasks.core.planning import require_objects
from tasks.core.training import JobStatus
from tasks.placement import place_training
from tasks.registry import installation, training_spec
from tasks.residency import learned_from
from tasks.steps import flow_run_id
from tasks.storage import manifest_of
from tasks.tracking import ModelVersion, finish_run, open_run
from tasks.training import Attempt, evaluate_model, exhausted, register_model, run_training, training_home


@dataclass(frozen=True)
class Trained:
    """What a training did: where it ran and why there, how the model fares, and what it is called."""

    run_id: str
    status: JobStatus
    placement: Placement
    attempts: tuple[Attempt, ...]
    brought: Moved | None
    evaluation: Evaluation
    version: ModelVersion
    cost_usd: float

    def as_json(self) -> dict[str, Any]:
        """The shape that `lintas train --json` documents."""
        return {
            "run_id": self.run_id,
            "state": self.status.state.value,
            "provider": self.placement.chosen.cloud,
            "job_id": self.status.job_id,
            "attempts": [
                {"provider": tried.offer.cloud, "region": tried.offer.region, "outcome": tried.outcome}
                for tried in self.attempts
            ],
            "cost_usd": self.cost_usd,
            "model": self.version.model,
            "version": self.version.version,
            "digest": self.version.digest,
            "passed": self.evaluation.passed,
            "metrics": dict(self.evaluation.metrics),
        }


@flow(name="train", flow_run_name="train {spec} on {dataset}")
def train(
    dataset: Dataset, spec: str = "examples/flights/training.yaml", policy: str = "", train_on: list[str] = []
) -> Trained:
    """Train a model on the cloud that can run it now at the least total cost, and register it as challenger.

    Args:
        dataset: The dataset, as cloud://bucket/prefix.
        spec: Path of the training spec (YAML).
        policy: The policy that governs where the data may go; empty for gate.policy of lintas.yaml.
        train_on: The only clouds that may train; empty for all.
    """
    here = installation()
    policy = here.policy_name(policy)
    wanted, origin, rules = training_spec(Path(spec)).on(train_on), here.parse(dataset), here.policy(policy)
    manifest = manifest_of(origin)
    require_objects(origin, manifest)

    attempts: tuple[Attempt, ...] = ()
    started = flow_run_id() or uuid.uuid4().hex
    while True:
        placement = place_training(wanted, origin, manifest.size_bytes, rules, exhausted(attempts))
        home = training_home(origin, placement)
        brought = None if home == origin else move.fn(str(origin), str(home), policy, delete=True, delete_limit="100%")
        data = manifest_of(home)
        run_id = open_run(
            wanted,
            placement,
            home,
            data,
            attempt_id=f"{started}/{len(attempts) + 1}",
            source_digest=manifest.digest,
            policy_digest=rules.digest,
        )
        job = wanted.job(data=home, data_digest=data.digest, run_id=run_id, offer=placement.chosen)
        try:
            status = run_training(job)
            break
        except LintasError as error:
            finish_run(run_id, "FAILED", cost_usd=0.0)
            if not isinstance(error, Stockout):
                raise
            attempts = (*attempts, Attempt(placement.chosen, str(error)))
    attempts = (*attempts, Attempt(placement.chosen, status.state.value))

    cost_usd = (placement.chosen.price_usd_per_hour or 0.0) * status.running_s / 3600.0
    version = register_model(wanted, job, status, learned_from(home, data, policy))
    evaluation = evaluate_model(wanted, run_id, home, data, version)
    finish_run(run_id, "FINISHED", cost_usd=cost_usd)
    return Trained(run_id, status, placement, attempts, brought, evaluation, version, cost_usd)
