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
Role = Annotated[str, typer.Option("--role", help="Which of its services: training or serving.")]


@faults.command()
def show(cloud: Cloud, role: Role = "training", as_json: AsJson = False) -> None:
    """The faults that are set, with how often each came about."""
    _tell(_ask(cloud, role, "GET"), as_json)


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
    """Add one fault to those that are set."""
    table = _ask(cloud, role, "GET")
    kept = [{key: value for key, value in fault.items() if key != "met"} for fault in table["faults"]]
    wanted = {
        "kind": kind,
        "operation": operation,
        "target": target,
        "probability": probability,
        "times": times,
        "delay_s": delay_s,
    }
    _tell(_ask(cloud, role, "PUT", {"seed": seed, "faults": [*kept, wanted]}), as_json)


@faults.command()
def clear(cloud: Cloud, role: Role = "training", as_json: AsJson = False) -> None:
    """Forget all faults: the cloud is well again."""
    _tell(_ask(cloud, role, "DELETE"), as_json)


def _ask(cloud: str, role: str, method: str, table: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the double's admin API; its answer is the table as it is now."""
    import ssl

    from deployments.local.faults import ADMIN_PATH
    from tasks.registry import installation

    config = installation().cloud(cloud)
    parts = config.endpoint(role).split("/", 3)
    url = f"{parts[0]}//{parts[2]}{ADMIN_PATH}"
    authority = config.options.get("ca_file")
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


def _tell(table: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(table)
        return
    from deployments.cli import show as shown

    shown.table(
        f"{len(table['faults'])} faults, seed {table['seed']}",
        ["kind", "operation", "target", "probability", "times", "delay s", "met"],
        [
            (f["kind"], f["operation"], f["target"], f["probability"], f["times"] or "always", f["delay_s"], f["met"])
            for f in table["faults"]
        ],
    )
