"""`python -m benchmarks.privacy.objects`: what the gate takes for many small objects, before anything moves.

Prints a table in Markdown and writes build/bench-gate-objects.json. A stub store in the dialect of S3 stands near, or
50 ms away; the digests of all objects are found out, as for a first move, and the gate looks at each. Objects are what
nobody can read a record of, so that the time is that of asking, reading and opening them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.mover.__main__ import BUILD
from benchmarks.mover.ours import cpu_s, opened
from benchmarks.mover.stubs import Content, compiled, stub
from tasks.core.dataset import DatasetURI
from tasks.core.detectors.scan import scan
from tasks.core.listing import read_manifest

OBJECT_BYTES = 16 * 1024
DELAYS_MS = (0, 50)


def once(delay_ms: int, objects: int) -> dict[str, float]:
    """Seconds and CPU-seconds of both steps."""
    content = Content(objects, OBJECT_BYTES)
    with ExitStack() as open_until, tempfile.TemporaryDirectory() as scratch:
        config = open_until.enter_context(
            stub(compiled(BUILD, tls=False), "s3", content, Path(scratch, "log"), delay_ms)
        )
        store, uri = opened(config, "src"), DatasetURI(config.name, "src", "o")
        began, used = time.monotonic(), cpu_s()
        manifest = read_manifest(store, uri)
        listed, listed_cpu = time.monotonic(), cpu_s()
        scan(store, uri, manifest)
        return {
            "digests_s": listed - began,
            "digests_cpu_s": listed_cpu - used,
            "scan_s": time.monotonic() - listed,
            "scan_cpu_s": cpu_s() - listed_cpu,
        }


def main() -> None:
    """Run it by turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    once(0, 10)
    runs = {delay_ms: [] for delay_ms in DELAYS_MS}
    for _ in range(asked.rounds):
        for delay_ms, found in runs.items():
            found.append(once(delay_ms, asked.objects))
    print(f"{asked.objects:,} objects of {OBJECT_BYTES // 1024} KiB, medians of {asked.rounds}\n")
    print("| away ms | digests objects/s | scan objects/s | CPU-ms an object, both |\n| --- | --- | --- | --- |")
    results = []
    for delay_ms, found in runs.items():
        median = {name: statistics.median(run[name] for run in found) for name in found[0]}
        results.append({"delay_ms": delay_ms, "objects": asked.objects, **median})
        cpu_ms = (median["digests_cpu_s"] + median["scan_cpu_s"]) / asked.objects * 1000
        rates = (f"{asked.objects / median[name]:,.0f}" for name in ("digests_s", "scan_s"))
        print(f"| {delay_ms} | {' | '.join(rates)} | {cpu_ms:.2f} |")
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-gate-objects.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
