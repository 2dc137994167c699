"""The verbs about this machine: up, down, status, demo, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.app import AsJson, app, print_json

STATE = Path(".lintas/local")
State = Annotated[Path, typer.Option("--state", help="Directory of the twin: its data, logs and secrets.")]


@app.command()
def up(
    state: State = STATE,
    prefect_port: Annotated[int | None, typer.Option(help="Port of Prefect; 4200 or a free one unless given.")] = None,
    mlflow_port: Annotated[int | None, typer.Option(help="Port of MLflow; 5000 or a free one unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start the local twin of the clouds with Prefect, MLflow and a worker, and keep it running."""
    from deployments.cli.watching import Services
    from deployments.demo import deploy
    from deployments.local.stack import up as start
    from deployments.local.twin import Wanted
    from tasks.settings import load_settings

    chosen = {"prefect": prefect_port, "mlflow": mlflow_port}
    wanted = Wanted(ports={name: port for name, port in chosen.items() if port is not None})
    with Services("Starting the local twin") as shown:
        now = start(state, wanted, shown.update)
        shown.update(now)
    services = load_settings(Path(now.config)).services
    deploy(services.prefect_api_url)
    if as_json:
        print_json(_as_json(state))
        return
    from deployments.cli import show

    show.out.print(f"Ready in {now.elapsed_s:.1f} s, {now.rss_mb:.0f} MB. Configuration: {now.config}")
    show.out.print(f"  Prefect  {services.prefect_ui_url}\n  MLflow   {services.mlflow_url}\n'lintas down' ends it.")


@app.command()
def down(state: State = STATE, as_json: AsJson = False) -> None:
    """Stop the local twin; its data stay for the next 'lintas up'."""
    from deployments.local.stack import down as stop

    ran = stop(state)
    if as_json:
        print_json({"stopped": ran})
    else:
        print("stopped" if ran else "it was not running")


@app.command()
def status(state: State = STATE, as_json: AsJson = False) -> None:
    """What of the local twin runs, on which port and in how much memory. Exit 1 when it is not whole."""
    from deployments.local.stack import status as look

    now = look(state)
    if as_json:
        print_json(_as_json(state))
    else:
        from deployments.cli import show

        show.table(
            f"The local twin is {now.state}, {now.rss_mb:.0f} MB",
            ["service", "alive", "ready", "url", "MB", "start s"],
            [
                (each.name, each.alive, each.ready, each.url, round(each.rss_mb), each.started_s or 0.0)
                for each in now.services
            ],
        )
    if now.state != "ready" or not all(each.alive and each.ready for each in now.services):
        raise typer.Exit(1)


@app.command()
def demo(
    state: Annotated[Path, typer.Option("--state", help="Directory of the demo.")] = Path(".lintas/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier demos left behind.")] = False,
    hold: Annotated[
        bool | None, typer.Option("--hold/--no-hold", help="Keep the pages open until Enter; by default on a terminal.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The main job, whole: a dataset lands, crosses, trains a model, is served and answers."""
    from deployments.cli.demo import run

    run(state, fresh=fresh, hold=hold, as_json=as_json)


@app.command()
def doctor(
    cloud: Annotated[
        str | None, typer.Option("--cloud", help="Look at this account alone: each permission it needs, by name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the configuration, the secrets, the services and the reach of every cloud; changes nothing."""
    from deployments.doctor import examine, examine_cloud

    checks = []
    for check in examine_cloud(cloud) if cloud else examine():
        checks.append(check)
        if not as_json:
            from deployments.cli import show

            good = "[green]ok  [/green]" if check.seen else "[yellow]?   [/yellow]"
            mark = good if check.ok else "[red]FAIL[/red]"
            show.out.print(f"{mark} {check.what}: {check.detail}", soft_wrap=True)
    if as_json:
        print_json(
            {
                "checks": [
                    {"what": each.what, "ok": each.ok, "seen": each.seen, "detail": each.detail} for each in checks
                ]
            }
        )
    if not all(check.ok for check in checks):
        raise typer.Exit(6 if cloud or checks[0].ok else 2)


def _as_json(state: Path) -> dict[str, object]:
    from deployments.local.stack import status as look

    now = look(state)
    return {
        "state": now.state,
        "state_dir": str(state),
        "config": now.config,
        "elapsed_s": now.elapsed_s,
        "services": [
            {
                "name": each.name,
                "alive": each.alive,
                "ready": each.ready,
                "url": each.url,
                "port": each.port,
                "rss_mb": each.rss_mb,
                "started_s": each.started_s,
            }
            for each in now.services
        ],
    }
