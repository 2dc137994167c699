"""The command's frame: options that every verb has, and errors that end in one sentence and an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
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


def main() -> None:
    """Run the command. Every error a user can cause is one sentence and an exit code (docs/command.md)."""
    from deployments.cli import verbs_data, verbs_local, verbs_models  # noqa: F401  (they add their verbs to `app`)

    try:
        app()
    except LintasError as error:
        sys.exit(report_error(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        # A full or unwritable disk, mostly: the system's own words, without a traceback.
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"lintas: {error.strerror or type(error).__name__}{where}; free or mend it and run again.", file=sys.stderr
        )
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LINTAS_DEBUG"):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        print(
            f"lintas: {type(error).__name__} at {place}, which nobody foresaw; LINTAS_DEBUG=1 shows more.",
            file=sys.stderr,
        )
        sys.exit(1)


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
