"""The verbs about policies: check one, and explain which line of which file decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.app import AsJson, app, print_json

if TYPE_CHECKING:
    from tasks.core.policy import Decision, Place, Policy

policies = typer.Typer(no_args_is_help=True, help="Check a policy, or explain which line of it decides.")
app.add_typer(policies, name="policy")

Name = Annotated[str, typer.Argument(metavar="POLICY", help="A policy under policies_dir, or the path of a YAML file.")]


@policies.command()
def check(policy: Name, as_json: AsJson = False) -> None:
    """Load a policy with all that it extends; exit 2 names the first thing in it that means nothing."""
    rules = _read(policy)
    if rules.quality:
        from tasks.expectations import require_known

        require_known(rules)
    layers = [{"name": layer.name, "file": layer.origin, "rules": len(layer.rules)} for layer in rules.layers]
    if as_json:
        print_json({"name": rules.name, "digest": rules.digest, "layers": layers, "quality": len(rules.quality)})
        return
    from deployments.cli import show

    show.table(
        f"{rules.name} {rules.digest[:16]}",
        ["policy", "file", "rules"],
        [tuple(layer.values()) for layer in layers],
    )


@policies.command()
def explain(
    policy: Name,
    to: Annotated[
        str | None, typer.Option("--to", help="A cloud of lintas.yaml, or a URI; every cloud unless given.")
    ] = None,
    finding: Annotated[
        str | None, typer.Option("--finding", help="An entity, such as EMAIL_ADDRESS; all unless given.")
    ] = None,
    column: Annotated[str, typer.Option("--column", help="The column it would be in.")] = "",
    path: Annotated[str, typer.Option("--path", help="The object it would be in.")] = "",
    source: Annotated[str, typer.Option("--from", help="The dataset, for rules about some datasets.")] = "",
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="Share of rows that hold it.")] = 1.0,
    confidence: Annotated[float, typer.Option("--confidence", min=0, max=1, help="How sure the gate is.")] = 1.0,
    purpose: Annotated[str, typer.Option("--purpose", help="storage, training or serving.")] = "storage",
    as_json: AsJson = False,
) -> None:
    """What would happen to a finding, and which line of which file says so; the strictest decides."""
    from tasks.core.detectors.entities import ENTITIES
    from tasks.core.errors import Invalid
    from tasks.core.findings import Finding
    from tasks.core.policy import PURPOSES
    from tasks.registry import installation

    rules, here = _read(policy), installation()
    if finding is not None and not rules.knows(finding):
        raise Invalid(f"'{finding}' is not an entity", "use one of docs/policy.md, such as EMAIL_ADDRESS")
    if purpose not in PURPOSES:
        raise Invalid(f"'{purpose}' is not a purpose", f"use one of {', '.join(PURPOSES)}")
    clouds = [here.parse(to).cloud if "://" in to else to] if to else list(here.settings.clouds)
    about = [finding] if finding else [*ENTITIES, *(own.name for own in rules.own)]
    rows: list[dict[str, Any]] = []
    for cloud in clouds:
        place = here.place(cloud, purpose, source)
        for entity in about:
            asked = Finding(entity, path, column, 1, share, confidence, "asked")
            rows.append(_row(rules, asked, place, whole=bool(finding)))
    if as_json:
        print_json({"policy": rules.name, "digest": rules.digest, "decisions": rows})
        return
    from deployments.cli import show

    show.table(
        f"{rules.name} {rules.digest[:16]}",
        ["to", "entity", "action", "decided by", "at"],
        [(row["to"], row["entity"], row["action"], row["rule"], row["at"]) for row in rows],
    )
    for row in rows:
        for other in row.get("others", ()):
            show.out.print(f"  {row['to']}: also {other['rule']} ({other['at']}): {other['action']}, which is milder")


def _row(rules: Policy, asked: Any, place: Place, *, whole: bool) -> dict[str, Any]:
    strictest, *others = rules.explain(asked, place)
    refusals = rules.residency_refusals([asked] if strictest.action.leaves_the_value else [], place)
    row: dict[str, Any] = {"to": place.cloud, "entity": asked.entity, **_said(strictest)}
    if refusals:
        row |= {"action": "refuse", "rule": f"residency: {refusals[0]}", "at": rules.origin}
    if whole:
        row["others"] = [_said(other) for other in ([strictest, *others] if refusals else others)]
    return row


def _said(decision: Decision) -> dict[str, str]:
    return {"action": decision.action.value, "rule": decision.rule, "at": decision.origin}


def _read(name: str) -> Policy:
    """A policy by its path even where nothing is configured yet, as in a pull request's check."""
    from pathlib import Path

    from tasks.policies import find_policy, read_policy
    from tasks.registry import installation

    path = Path(name)
    return read_policy(path) if path.is_file() else read_policy(find_policy(name, installation().settings.policies_dir))
