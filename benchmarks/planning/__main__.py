"""`python -m benchmarks.planning`: plans of 10 to 1,000,000 objects; writes build/bench-plan.json.

Two plans each: the first one (nothing at the destination) and one a day later (the destination's published manifest
knows all objects, 1 in 1,000 of which has changed since). The digests of the source are in the journal: what a first
reading of the bytes takes is the privacy gate's and the network's matter. Every plan is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
SIZES = (10, 1_000, 100_000, 1_000_000)
_TITLES = {"first": "nothing at the destination", "again": "1 in 1,000 changed"}


def run(what: str, objects: int, directory: Path) -> dict[str, float]:
    """One process."""
    command = [sys.executable, "-m", "benchmarks.planning.one", what, str(objects), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=900)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning")
    parser.add_argument("--objects", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    print("| objects | at the destination | seconds | CPU-seconds | peak MB | published MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for objects in options.objects:
        with tempfile.TemporaryDirectory(prefix="bench-plan-") as directory:
            run("prepare", objects, Path(directory))
            for what, title in _TITLES.items():
                rounds = [run(what, objects, Path(directory)) for _ in range(options.rounds)]
                row = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
                rows.append({"plan": title, **row})
                print(
                    f"| {objects:,} | {title} | {row['all_s']:.2f} | {row['cpu_s']:.2f} | {row['peak_mb']:.0f} |"
                    f" {row['published_mb']:.1f} |",
                    flush=True,
                )
    BUILD.mkdir(exist_ok=True)
    facts = {"rounds": options.rounds, "load_average": os.getloadavg(), "plans": rows}
    (BUILD / "bench-plan.json").write_text(json.dumps(facts, indent=1))
    print(f"load average {os.getloadavg()[0]:.1f}; written to build/bench-plan.json")


if __name__ == "__main__":
    main()
