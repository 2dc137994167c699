"""`python -m benchmarks.mover.listing`: what listing an object costs each store, over the stubs. Prints a table.

Processor time is the figure to look at: the stub answers at once, and the wall time bends with other work.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.mover.__main__ import BUILD
from benchmarks.mover.stubs import Content, compiled, stub
from tasks.registry import providers

OBJECTS = 5000
ROUNDS = 3


def main() -> None:
    """Measure each dialect, least of several rounds, and print."""
    program = compiled(BUILD, tls=False)
    print("| store | objects | CPU us an object | wall us an object | load |\n| --- | --- | --- | --- | --- |")
    for dialect in ("s3", "azure", "gcs"):
        with (
            tempfile.TemporaryDirectory() as logs,
            stub(program, dialect, Content(OBJECTS, 16 * 1024), Path(logs) / "stub.log", 0) as cloud,
        ):
            store = providers()[cloud.provider].open_store(cloud, "src")
            costs: list[tuple[float, float]] = []
            for _ in range(ROUNDS):
                cpu_s, wall_s = time.process_time(), time.perf_counter()
                found = sum(1 for _ in store.list("o/"))
                costs.append((time.process_time() - cpu_s, time.perf_counter() - wall_s))
                if found != OBJECTS:
                    raise SystemExit(f"{dialect} listed {found} objects instead of {OBJECTS}; read the stub's log")
        cpu_s, wall_s = min(costs)
        each = 1e6 / OBJECTS
        print(
            f"| {dialect} | {OBJECTS:,} | {cpu_s * each:.0f} | {wall_s * each:.0f} | {os.getloadavg()[0]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
