"""The whole way of a dataset: across the clouds, into a model, and in front of users."""

import time
from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.forms import Clouds, Dataset
from flows.move import move
from flows.moving import Moved
from flows.promote import promote, release_json
from flows.train import Trained, train
from tasks.core.errors import PolicyViolation
from tasks.core.release import Release
from tasks.report import publish_report


@dataclass(frozen=True)
class Lifecycle:
    """What a lifecycle did, part by part."""

    moved: Moved
    trained: Trained
    release: Release
    elapsed_s: float

    def as_json(self) -> dict[str, Any]:
        """The facts of the report, JSON-compatible."""
        return {
            "moved": [leg.as_json() for leg in (self.moved, self.trained.brought) if leg is not None],
            "findings": self.moved.findings_json(),
            "placement": self.trained.placement.as_json(),
            "trained": self.trained.as_json(),
            "champion_metrics": dict(self.trained.evaluation.champion_metrics or {}),
            "release": release_json(self.release),
            "elapsed_s": self.elapsed_s,
        }


@flow(name="lifecycle", flow_run_name="lifecycle of {source}")
def lifecycle(
    source: Dataset = "aws://raw/flights",
    destination: Dataset = "google://lake/flights",
    policy: str = "flights",
    training: str = "examples/flights/training.yaml",
    serve_on: Clouds = ["onprem", "edge"],
    delete: bool = False,
    train_on: list[str] = [],
) -> Lifecycle:
    """Move a dataset after the gate has cleared it, train where capacity is, and promote the model if it is better.

    Args:
        source: Where the dataset is, as cloud://bucket/prefix with a cloud of lintas.yaml.
        destination: Where it should be, in the same form. A missing bucket is created.
        policy: Name of a policy under policies_dir, or the path of a YAML file.
        training: Path of the training spec (YAML): what to run, on which kind of machine, and how good it must be.
        serve_on: Clouds that serve the model, with equal shares of the traffic.
        train_on: The only clouds that may train; empty for all, and the cheapest wins.
        delete: Remove objects that only the destination has. Without it their presence refuses the move.
    """
    started = time.monotonic()
    moved = move.fn(source, destination, policy, delete)
    trained = train.fn(destination, training, policy, train_on)
    if not trained.evaluation.passed:
        raise PolicyViolation(
            f"version {trained.version.version} of '{trained.version.model}' is not promoted: it did not pass",
            "read the reasons, mend the data or the script, or change the thresholds of the training spec",
            reasons=trained.evaluation.reasons,
        )
    release = promote.fn(trained.version.model, trained.version.version, serve_on)
    done = Lifecycle(moved, trained, release, time.monotonic() - started)
    publish_report(release.release_id, done.as_json())
    return done
