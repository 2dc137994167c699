"""The verbs about the twin's troubles: `lintas twin faults show|set|clear CLOUD`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer

from deployments.cli.app import AsJson, app, print_json
from tasks.core.errors import Invalid, Retryable

twin = typer.Typer(no_args_is_help=True, help="The local twin's troubles, for trying what Lintas does about them.")
faults = typer.Typer(no_args_is_help=True, help="Faults that a cloud's double brings about on demand.")
app.add_typer(twin, name="twin")
twin.add_typer(faults, name="faults")

Cloud = Annotated[str, typer.Argument(metavar="CLOUD", help="A cloud of lintas.yaml whose double should misbehave.")]
Role = Annotated[
    str,
    typer.Option("--role", help="Which of its services: training, serving, objects, events, or all: the whole cloud."),
]
_EVERY_ROLE = "all"


@faults.command()
def show(cloud: Cloud, role: Role = "training", as_json: AsJson = False) -> None:
    """The faults that are set, with how often each came about."""
    _tell({name: _ask(cloud, url, "GET") for name, url in _services(cloud, role).items()}, as_json)


@faults.command(name="set")
def set_fault(
    cloud: Cloud,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Such as stockout, quota, throttle, crash, lost.")],
    role: Role = "training",
    operation: Annotated[str, typer.Option(help="Pattern of the operations that it befalls.")] = "*",
    target: Annotated[str, typer.Option(help="Pattern of the names that it befalls.")] = "*",
    probability: Annotated[float, typer.Option(min=0, max=1, help="How likely it is.")] = 1.0,
    times: Annotated[int | None, typer.Option(min=1, help="How often; always unless given.")] = None,
    delay_s: Annotated[float, typer.Option(min=0, help="Seconds, for the kinds that take some.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Add one fault to those that are set: `set aws lost --role all` takes the whole cloud away."""
    wanted = {
        "kind": kind,
        "operation": operation,
        "target": target,
        "probability": probability,
        "times": times,
        "delay_s": delay_s,
    }
    services = _services(cloud, role)
    set_before = {name: _ask(cloud, url, "GET") for name, url in services.items()}
    told: dict[str, dict[str, Any]] = {}
    for name, url in services.items():
        kept = [{key: value for key, value in each.items() if key != "met"} for each in set_before[name]["faults"]]
        told[name] = _ask(cloud, url, "PUT", {"seed": seed, "faults": [*kept, wanted]})
    _tell(told, as_json)


@faults.command()
def clear(cloud: Cloud, role: Role = "training", as_json: AsJson = False) -> None:
    """Forget all faults: the cloud is well again."""
    _tell({name: _ask(cloud, url, "DELETE") for name, url in _services(cloud, role).items()}, as_json)


def _services(cloud: str, role: str) -> dict[str, str]:
    """The addresses without paths behind a role, by its name; those that share one are named once."""
    from tasks.registry import installation

    config = installation().cloud(cloud)
    wanted = config.endpoints if role == _EVERY_ROLE else {role: config.endpoint(role)}
    by_address: dict[str, list[str]] = {}
    for name, url in wanted.items():
        if url:
            by_address.setdefault("/".join(url.split("/", 3)[:3]), []).append(name)
    if not by_address:
        raise Invalid(f"'{cloud}' has no service of the twin that could misbehave", "name a cloud of the local twin")
    return {", ".join(names): address for address, names in by_address.items()}


def _ask(cloud: str, address: str, method: str, table: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the double's admin API; its answer is the table as it is now."""
    import ssl

    from deployments.local.faults import ADMIN_PATH
    from tasks.registry import installation

    url = f"{address}{ADMIN_PATH}"
    authority = installation().cloud(cloud).options.get("ca_file")
    context = ssl.create_default_context(cafile=authority) if url.startswith("https") else None
    body = None if table is None else json.dumps(table).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        why = json.loads(said).get("error", said) if said.startswith("{") else f"it answered {error.code}"
        raise Invalid(
            f"'{cloud}' does not take this fault: {why}", "correct the fault, or use the local twin"
        ) from error
    except OSError as error:
        raise Retryable(f"'{cloud}' at {url} does not answer", "start the twin: 'lintas up'") from error


def _tell(tables: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(next(iter(tables.values())) if len(tables) == 1 else tables)
        return
    from deployments.cli import show as shown

    for name, table in tables.items():
        shown.table(
            f"{name}: {len(table['faults'])} faults, seed {table['seed']}",
            ["kind", "operation", "target", "probability", "times", "delay s", "met"],
            [
                (
                    each["kind"], each["operation"], each["target"], each["probability"], each["times"] or "always",
                    each["delay_s"], each["met"],
                )
                for each in table["faults"]
            ],
        )  # fmt: skip
