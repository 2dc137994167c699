"""The verbs about models: offers, place, train, promote, releases, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tasks.core.training import TrainingSpec

from deployments.cli.app import AsJson, app, print_json
from deployments.cli.verbs_data import PolicyName

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The training spec (YAML).")]
Data = Annotated[
    str | None, typer.Option("--data", help="The dataset (cloud://bucket/prefix), if not the one the spec names.")
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the registered model.")]


@app.command()
def offers(as_json: AsJson = False) -> None:
    """What every configured cloud could run, with prices, their dates and their sources."""
    from tasks.registry import installation

    found = installation().offers()
    if as_json:
        print_json({"offers": [offer.as_json() for offer in found]})
        return
    from deployments.cli import show

    show.table(
        f"{len(found)} offers",
        ["cloud", "region", "sku", "accelerator", "count", "spot", "USD an hour", "as of", "trains"],
        [
            (
                offer.cloud,
                offer.region,
                offer.sku,
                offer.accelerator,
                offer.count or "",
                offer.spot,
                "unknown" if offer.price_usd_per_hour is None else offer.price_usd_per_hour,
                offer.as_of or "",
                offer.has_trainer,
            )
            for offer in found
        ],
    )


@app.command()
def place(spec: Spec, data: Data = None, policy: PolicyName = "", as_json: AsJson = False) -> None:
    """Which offer a training would run on, by total cost, and why every other one would not. Exit 5: none."""
    from tasks.placement import place_training
    from tasks.registry import installation, training_spec
    from tasks.storage import manifest_of

    here = installation()
    wanted = training_spec(spec)
    origin, rules = here.parse(_dataset(wanted, data)), here.policy(here.policy_name(policy))
    placement = place_training(wanted, origin, manifest_of(origin).size_bytes, rules, {})
    if as_json:
        print_json(placement.as_json())
        return
    from deployments.cli import show

    shape = placement.as_json()
    show.table(
        f"{wanted.name}: {placement.chosen}, {placement.total_usd:.4f} USD in all",
        ["cloud", "sku", "USD an hour", "reason"],
        [
            (offer["provider"], offer["sku"], offer["price_usd_per_hour"] or 0.0, offer.get("reason", "chosen"))
            for offer in [shape["chosen"], *shape["rejected"]]
        ],
    )


@app.command()
def train(
    spec: Spec,
    data: Data = None,
    policy: PolicyName = "",
    on: Annotated[str, typer.Option("--on", help="The only clouds that may train, with commas between.")] = "",
    as_json: AsJson = False,
) -> None:
    """Train where it costs least, evaluate against the champion, and register the model as challenger."""
    from flows.train import train as flow
    from tasks.registry import training_spec

    _finish("Trained", flow.fn(_dataset(training_spec(spec), data), str(spec), policy, _names(on)).as_json(), as_json)


@app.command()
def promote(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Its version in the registry.")],
    to: Annotated[str, typer.Option("--to", help="Clouds that serve it, with commas between.")],
    mirror: Annotated[
        int | None,
        typer.Option(
            "--mirror",
            metavar="PERCENT",
            help="Only copy so many percent of the live release's requests to "
            "it, whose answers nobody gets; 0 ends that.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Release a model version to several clouds; it becomes champion when every endpoint is healthy."""
    from flows.promote import mirror as mirror_flow
    from flows.promote import mirrored_json, release_json
    from flows.promote import promote as flow

    if mirror is not None:
        _finish("Mirrored", mirrored_json(mirror_flow.fn(model, version, _names(to), mirror)), as_json)
        return
    _finish("Promoted", release_json(flow.fn(model, version, _names(to))), as_json)


@app.command()
def rollback(model: Model, as_json: AsJson = False) -> None:
    """Make what was live before the present release of a model live again."""
    from flows.promote import release_json, roll_back

    _finish("Rolled back", release_json(roll_back.fn(model)), as_json)


@app.command()
def releases(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only releases of this model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every release with its state and what was last observed of its endpoints, newest first."""
    from flows.promote import release_json
    from tasks.registry import installation

    found = installation().records.releases.list(model)
    if as_json:
        print_json({"releases": [release_json(release) for release in found]})
        return
    from deployments.cli import show

    show.table(
        f"{len(found)} releases",
        ["release", "model", "version", "state", "endpoints", "reason"],
        [
            (
                release.release_id,
                release.model,
                release.version,
                release.state.value,
                ", ".join(f"{end.cloud} {end.weight}%{'' if end.healthy else ' (down)'}" for end in release.endpoints),
                release.reason,
            )
            for release in found
        ],
    )


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _dataset(spec: TrainingSpec, given: str | None) -> str:
    from tasks.core.errors import Invalid

    if not (given or spec.data):
        raise Invalid(f"the training spec of '{spec.name}' names no dataset", "add data.uri to it or pass --data")
    return given or spec.data


def _finish(title: str, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    from deployments.cli import show

    simple = [(name, value) for name, value in facts.items() if not isinstance(value, list | dict)]
    show.table(title, ["what", "value"], simple)
    for name, rows in facts.items():
        if isinstance(rows, list) and rows:
            show.table(name, list(rows[0]), [tuple(row.values()) for row in rows])
