"""The verbs about quarantine: list what the gate holds back, and release it for a reason."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.app import AsJson, app, print_json

held = typer.Typer(no_args_is_help=True, help="What the privacy gate holds back: list it, or release it.")
app.add_typer(held, name="quarantine")


@held.command("list")
def list_held(
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Only of this dataset: cloud://bucket/prefix.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Only on the way to this destination.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also what was released.")] = False,
    as_json: AsJson = False,
) -> None:
    """The objects that stay at the source, with the reasons; places and counts, never values."""
    from tasks.quarantine import listed

    found = [item for item in listed(dataset, to) if every or not item.released]
    if as_json:
        print_json({"objects": [item.as_dict() for item in found]})
        return
    from deployments.cli import show

    show.table(
        f"{sum(not item.released for item in found)} objects are held",
        ["dataset", "object", "to", "policy", "since", "why", "released"],
        [
            (
                item.held.dataset,
                item.held.path,
                item.held.destination,
                item.held.policy_name,
                f"{item.since:%Y-%m-%d %H:%M}",
                "; ".join(map(str, item.held.reasons)),
                f"by {item.by}: {item.reason}" if item.released else "",
            )
            for item in found
        ],
    )


@held.command()
def release(
    dataset: Annotated[str, typer.Argument(metavar="SRC", help="The dataset: cloud://bucket/prefix.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Where the objects may go.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; the audit log keeps it. Name nobody in it.")],
    path: Annotated[
        list[str] | None, typer.Option("--path", help="Only objects with this path; * for any text. All unless given.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who releases them; the user of this session.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let held objects leave with the next move; for their bytes and the policy as they are now, and no others."""
    from tasks.quarantine import release_held

    released = release_held(dataset, destination, reason, by or _user(), path or ())
    if as_json:
        print_json({"released": [item.held.as_dict() for item in released]})
        return
    from deployments.cli import show

    show.table(
        f"Released for {destination}", ["object", "digest"], [(i.held.path, i.held.digest[:16]) for i in released]
    )


def _user() -> str:
    """The login name; the user's number where the system has no name for it."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
