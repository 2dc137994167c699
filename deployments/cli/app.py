"""The command's frame: options that every verb has, and errors that end in one sentence and an exit code."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tasks.core.errors import LintasError, PolicyViolation, Stockout

app = typer.Typer(
    name="lintas",
    help="Datasets and models across clouds: moved after a privacy gate, trained where capacity is, released as one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output and nothing else there.")]


@app.callback()
def options(
    config: Annotated[Path | None, typer.Option(help="The lintas.yaml to use.", envvar="LINTAS_CONFIG")] = None,
) -> None:
    """Options before the verb."""
    if config is not None:
        os.environ["LINTAS_CONFIG"] = str(config)


def report_error(error: LintasError) -> int:
    """Say what happened on standard error, as JSON on standard output when `--json` was asked for; the exit code."""
    details: tuple[str, ...] = ()
    if isinstance(error, PolicyViolation):
        details = error.reasons
    elif isinstance(error, Stockout):
        details = error.history
    if "--json" in sys.argv:
        kind = type(error).__name__
        print(json.dumps({"error": {"kind": kind, "message": str(error), "details": list(details)}}))
    print(f"lintas: {error}", file=sys.stderr)
    for line in details:
        print(f"  - {line}", file=sys.stderr)
    return error.exit_code


def print_json(value: object) -> None:
    """The one JSON object of a verb, on standard output."""
    print(json.dumps(value, default=str))
