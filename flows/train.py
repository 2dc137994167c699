"""Train where capacity is: place the job, bring the data, run it, judge the model on held-out data, register it."""

from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from tasks.tracking import ModelVersion
from tasks.training import Attempt, collect_model, evaluate_model, open_run, run_training, training_home

from flows.move import Moved, move
from tasks.core.errors import Stockout
from tasks.core.evaluation import Evaluation
from tasks.core.placement import Placement
from tasks.core.training import JobStatus
from tasks.placement import place_training
from tasks.registry import installation, training_spec
from tasks.storage import manifest_of


@dataclass(frozen=True)
class Trained:
    """What a training did: where it ran and why there, how the model fares, and what it is called."""

    run_id: str
    status: JobStatus
    placement: Placement
    attempts: tuple[Attempt, ...]
    brought: Moved | None
    evaluation: Evaluation
    model: ModelVersion
    cost_usd: float


@flow(name="train", flow_run_name="train {spec} on {dataset}")
def train(dataset: str, spec: str = "examples/flights/training.yaml", policy: str = "flights") -> Trained:
    """Train a model on the cloud that can run it now at the least total cost, and register it as challenger.

    Args:
        dataset: The dataset, as cloud://bucket/prefix.
        spec: Path of the training spec (YAML).
        policy: The policy that governs where the data may go.
    """
    here = installation()
    wanted = training_spec(Path(spec))
    origin, rules = here.parse(dataset), here.policy(policy)
    manifest = manifest_of(origin)

    attempts: tuple[Attempt, ...] = ()
    while True:
        placement = place_training(wanted, origin, manifest, rules, attempts)
        home = training_home(origin, placement)
        brought = None if home == origin else move.fn(str(origin), str(home), policy, delete=True)
        data = manifest_of(home)
        run = open_run(wanted, placement, home, data, policy=rules.digest, source_digest=manifest.digest)
        try:
            status = run_training(wanted, placement, home, data, run)
        except Stockout as error:
            attempts = (*attempts, Attempt(placement.chosen.cloud, placement.chosen.region, str(error)))
            continue
        break
    attempts = (*attempts, Attempt(placement.chosen.cloud, placement.chosen.region, status.state.value))

    model = collect_model(wanted, placement, status, run)
    evaluation = evaluate_model(wanted, home, data, model)
    return Trained(run, status, placement, attempts, brought, evaluation, model, placement.total_usd)
