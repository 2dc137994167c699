"""Runs the fronts: `python -m deployments.local.knobs --front PORT=DIALECT=URL ...`."""

from __future__ import annotations

import argparse

from deployments.local.knobs.app import Fronts
from deployments.local.knobs.process import Front
from deployments.local.serve import serve


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="knobs", description="Faults on demand for servers that have none.")
    parser.add_argument("--front", action="append", required=True, type=Front.of, help="PORT=DIALECT=URL")
    fronts: list[Front] = parser.parse_args().front
    serve(Fronts(fronts), *(front.port for front in fronts), lifespan="off", server_header=False, date_header=False)


if __name__ == "__main__":
    main()
