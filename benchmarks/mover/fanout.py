"""`python -m benchmarks.mover.fanout`: two destinations by one read, direct or through the SDKs, or a move to each.

Between stub stores, each way in a process of its own, interleaved; prints processor seconds, seconds and bytes read, as
medians, and writes build/bench-fanout.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.mover.__main__ import BUILD, MIB, ROOT, facts_of, fresh
from benchmarks.mover.ours import Counted, cloud_of, cpu_s, loads_of, opened
from benchmarks.mover.stubs import Content, compiled, stub
from tasks.core.dataset import DatasetURI
from tasks.core.fanout import carry_to_all, stream_to_all
from tasks.core.listing import listed_rows
from tasks.core.plane import Recipient
from tasks.core.plane.direct import DirectPlane

TASKS = {"large": Content(6, 64 * MIB), "small": Content(1_500, 16 * 1024)}
FAR = ("azure", "gcs")
WAYS = ("one read by streams", "one direct read", "direct moves")


def carried(work: dict[str, Any]) -> dict[str, float]:
    """One run, in this process."""
    source = opened(cloud_of(work["near"]), "src")
    far = [opened(cloud_of(facts), work["to"]) for facts in work["far"]]
    uri = DatasetURI(source.cloud, "src", "o")
    loads = list(loads_of(listed_rows(source, uri), uri, work["digest"]))
    arrived = Counted()
    before, started = cpu_s(), time.monotonic()
    if work["way"] in WAYS[:2]:
        recipients = [Recipient(store, loads, arrived.add) for store in far]
        (stream_to_all if work["way"] == WAYS[0] else carry_to_all)(source, recipients)
        for recipient in recipients:
            if recipient.failure is not None:
                raise recipient.failure
    else:
        for store in far:
            DirectPlane().carry(loads, source, store, arrived.add)
    elapsed_s = time.monotonic() - started
    return {"cpu_s": cpu_s() - before, "elapsed_s": elapsed_s, "objects": arrived.objects, "bytes": arrived.size_bytes}


def run(work: dict[str, Any]) -> dict[str, float]:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.mover.fanout", "--work"]
    done = subprocess.run(command, input=json.dumps(work), capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{work['way']} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    """Measure every way for every task."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(carried(json.load(sys.stdin))))
        return
    program = compiled(BUILD, tls=False)
    results: list[dict[str, Any]] = []
    for name, content in TASKS.items():
        total_bytes = content.count * content.size_bytes
        with tempfile.TemporaryDirectory() as logs, ExitStack() as running:
            near = running.enter_context(stub(program, "s3", content, Path(logs) / "near.log"))
            far = [running.enter_context(stub(program, each, content, Path(logs) / f"{each}.log")) for each in FAR]
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(arguments.rounds):
                for way in WAYS:
                    work = {"way": way, "near": facts_of(near), "far": [facts_of(each) for each in far]}
                    runs[way].append(run(work | {"to": fresh(), "digest": content.digest()}))
        for way, ours in runs.items():
            if any((one["objects"], one["bytes"]) != (2 * content.count, 2 * total_bytes) for one in ours):
                raise SystemExit(f"{way} did not carry everything: {ours[-1]}")
            result = {"task": name, "way": way, "read_bytes": total_bytes * (1 if way in WAYS[:2] else len(FAR))}
            for figure in ("cpu_s", "elapsed_s"):
                result[figure] = statistics.median(one[figure] for one in ours)
            results.append(result)
            print(
                f"{name:6} {way:19} {result['cpu_s']:6.2f} CPU-s {result['elapsed_s']:6.2f} s"
                f" {result['read_bytes'] / MIB:6.0f} MiB read"
            )
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-fanout.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
