"""The command's frame: options that every verb has, and errors that end in one sentence and an exit code."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

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
    if "--json" in sys.argv:
        print(json.dumps(error_json(error)))
    print(f"lintas: {error}", file=sys.stderr)
    for line in _details(error):
        print(f"  - {line}", file=sys.stderr)
    return error.exit_code


def error_json(error: LintasError) -> dict[str, Any]:
    """An error in the shape that `--json` prints."""
    return {"error": {"kind": type(error).__name__, "message": str(error), "details": list(_details(error))}}


def _details(error: LintasError) -> tuple[str, ...]:
    if isinstance(error, PolicyViolation):
        return error.reasons
    return error.history if isinstance(error, Stockout) else ()


def print_json(value: object) -> None:
    """The one JSON object of a verb, on standard output."""
    print(json.dumps(value, default=str))
