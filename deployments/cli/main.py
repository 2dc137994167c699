"""The entry point: the frame with all its verbs, and the end of every error."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from deployments.cli import (  # noqa: F401  (they add their verbs to `app`)
    verbs_data,
    verbs_local,
    verbs_models,
    verbs_policy,
    verbs_quarantine,
    verbs_reidentify,
    verbs_twin,
)
from deployments.cli.app import app, report_error
from tasks.core.errors import LintasError


def main() -> None:
    """Run the command. Every error a user can cause is one sentence and an exit code (docs/command.md)."""
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
