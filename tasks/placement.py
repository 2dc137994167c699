"""Placement steps: which offer runs a training, by total cost, where the policy lets the data go."""

from __future__ import annotations

from tasks.artifacts import show_table
from tasks.core.dataset import DatasetURI
from tasks.core.placement import Placement, Situation, place
from tasks.core.policy import Policy
from tasks.core.training import TrainingSpec
from tasks.registry import installation
from tasks.steps import say, step


@step(name="place", run_name="place {spec.name}")
def place_training(
    spec: TrainingSpec,
    data: DatasetURI,
    data_size_bytes: int,
    policy: Policy,
    exhausted: dict[tuple[str, str, str, bool], str],
) -> Placement:
    """Choose the offer of least total cost; see `tasks.core.placement.place`.

    Args:
        spec: What should run.
        data: Where its data is.
        data_size_bytes: How much of it there is.
        policy: Governs where it may go.
        exhausted: Offers that had no capacity, with what came of them.

    Raises:
        Stockout: No offer remains; the history has every reason.
    """
    here = installation()
    clouds = {name: here.cloud(name) for name in here.settings.clouds}
    allowed = {
        cloud.jurisdiction
        for name, cloud in clouds.items()
        if not policy.residency_refusals((), here.place(name, "training", data))
    }
    situation = Situation(
        data_size_bytes=data_size_bytes,
        data_cloud=data.cloud,
        prices={name: here.prices(name) for name in clouds},
        allowed_jurisdictions=allowed,
        exhausted=exhausted,
    )
    placement = place(spec.requirements, here.offers(), situation)
    here.records.audit.append(
        "placement",
        spec.name,
        {"offer": str(placement.chosen), "total_usd": placement.total_usd, "rejected": len(placement.rejected)},
    )
    say(f"{spec.name} runs on {placement.chosen} for {placement.total_usd:.4f} USD")
    shape = placement.as_json()
    show_table(
        "placement",
        [shape["chosen"] | {"reason": "chosen: least total cost"}, *shape["rejected"]],
        f"Placement of {spec.name}: {placement.chosen}, {placement.total_usd:.4f} USD in all",
    )
    return placement
