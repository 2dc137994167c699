"""Prefect's process worker: `python -m deployments.local.prefect_worker --pool NAME --limit N`.

`prefect worker start` gives up when there is no server yet. This one does its imports, which take seconds, while the
server starts, then waits for the server that `PREFECT_API_URL` names, and works as the command does. It is the pool's
only worker: runs that an earlier one left behind when it died are ended first, or they would hold their slots for ever.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time

from deployments.automations import crash_abandoned_runs
from deployments.local.processes import answers


def main() -> None:
    """Work until a signal ends it."""
    parser = argparse.ArgumentParser(prog="prefect_worker", description="A process worker that waits for its server.")
    parser.add_argument("--pool", required=True, help="work pool; created when there is none of this name")
    parser.add_argument("--limit", type=int, required=True, help="flow runs at a time")
    parser.add_argument("--wait-s", type=float, default=300.0, help="seconds to wait for the server")
    chosen = parser.parse_args()

    from prefect.client.orchestration import get_client
    from prefect.utilities.processutils import setup_signal_handlers_worker
    from prefect.workers.process import ProcessWorker

    api = os.environ["PREFECT_API_URL"]
    ready, deadline = answers(f"{api}/health", 200), time.monotonic() + chosen.wait_s
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"no Prefect server answered at {api} in {chosen.wait_s:.0f} s")
        time.sleep(0.1)
    with get_client(sync_client=True) as client:
        crash_abandoned_runs(client, chosen.pool)
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    worker = ProcessWorker(work_pool_name=chosen.pool, limit=chosen.limit, create_pool_if_not_found=True)
    asyncio.run(worker.start(printer=print))


if __name__ == "__main__":
    main()
