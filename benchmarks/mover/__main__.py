"""`python -m benchmarks.mover`: the mover and rclone against stub stores, plain and behind TLS.

Prints a table in Markdown and writes build/bench-mover.json.

Both engines list the source and copy every object to a bucket where nothing is. What counts is the time from the
listing to the last object; the start of the process does not. rclone runs in several tunings, and the best counts.
The stub verifies nothing, so that both send their checksums in vain; ours also computes BLAKE3 of every byte.

What rclone copies in parts between stores without a common hash it has not verified. With `--verified` it is asked
afterwards to read both sides and compare (`rclone check --download`), and that counts too: the way its users get what
a move of Lintas has done already.

The stores run on the same cores as the engines, so that no engine can be quicker than they are. Their own processor
time is told for each engine's runs, and `at most` is the ratio to rclone that an engine would reach which took no
processor time at all, sent the requests of Lintas, and left the stores all cores without a pause: rclone's time over
the stores' processor time a core. No engine reaches an aim beyond it on this machine. Waits (`--rtt-ms`) would lower it
further, and it means nothing where other work runs beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import children, peak_bytes
from benchmarks.mover.stubs import Content, Program, compiled, stub
from benchmarks.processor import cpu_s
from tasks.core.cloud import CloudConfig
from tests.servers import rclone_environment

ROOT = Path(__file__).parents[2]
CORES = len(os.sched_getaffinity(0))
BUILD = ROOT / "build"
MIB = 1024 * 1024
PAIRS = [("s3", "azure"), ("s3", "gcs"), ("gcs", "s3"), ("azure", "s3"), ("s3", "s3")]
_SERIAL = itertools.count(1)
_LOOK_S = 0.02
_LOG = ["--use-json-log", "-v", "--stats", "1h"]
_RCLONE = [
    *_LOG, "--no-traverse", "--no-check-dest", "--retries", "1",
    "--s3-no-head", "--s3-no-check-bucket", "--s3-disable-checksum", "--s3-upload-concurrency", "8",
    # Else it asks S3 for a class that is called as the source calls its own.
    "--s3-storage-class", "STANDARD",
    "--azureblob-no-check-container", "--azureblob-upload-concurrency", "8", "--gcs-no-check-bucket",
]  # fmt: skip
_CHUNKS = ["--s3-chunk-size", "16Mi", "--azureblob-chunk-size", "16Mi"]
LARGE_TUNINGS = [
    [*_CHUNKS, "--multi-thread-streams", "0"],
    [*_CHUNKS, "--multi-thread-streams", "4", "--multi-thread-cutoff", "32Mi", "--buffer-size", "0"],
]
SMALL_TUNINGS: list[list[str]] = [["--buffer-size", "0"]]


@dataclass(frozen=True, slots=True)
class Task:
    """What is carried: so many objects at a time by rclone, by so many requests at a time on either side by Lintas."""

    name: str
    content: Content
    transfers: int
    in_flight: int
    tunings: list[list[str]]


def facts_of(cloud: CloudConfig) -> dict[str, dict[str, str]]:
    """A cloud for the process that is measured."""
    return {
        "plain": {"name": cloud.name, "provider": cloud.provider, "region": cloud.region},
        "endpoints": dict(cloud.endpoints),
        "secrets": {name: secret.reveal() for name, secret in cloud.credentials.items()},
        "options": dict(cloud.options),
    }


def fresh() -> str:
    """The name of a bucket that was not written to yet; a stub has every bucket."""
    return f"dst{next(_SERIAL)}"


def run_ours(
    near: CloudConfig, far: CloudConfig, to: str, task: Task, budget_bytes: int, program: Program | None = None
) -> dict[str, float]:
    """One run of the direct plane."""
    work = {
        "near": facts_of(near),
        "far": facts_of(far),
        "from": "src",
        "to": to,
        "digest": task.content.digest(),
        "in_flight": task.in_flight,
        "budget_bytes": budget_bytes,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mover.ours"],
        input=json.dumps(work), capture_output=True, text=True, check=False, cwd=ROOT, timeout=600,
        env=os.environ | _trusting(program),
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the direct plane failed:\n{done.stderr}")
    return json.loads(done.stdout)


def run_rclone(
    near: CloudConfig, far: CloudConfig, to: str, task: Task, tuning: list[str], program: Program | None = None,
    read_back: str | None = None,
) -> dict[str, float]:  # fmt: skip
    """One run of rclone; and a second one that compares the source with this bucket of `far`, byte by byte."""
    environment = {
        **rclone_environment(dataclasses.replace(near, name="near")),
        **rclone_environment(dataclasses.replace(far, name="far")),
    }
    at_a_time = ["--transfers", str(task.transfers), "--checkers", str(task.transfers)]
    if program and program.certificate:
        # Unlike --ca-cert it counts for Cloud Storage too.
        environment["SSL_CERT_FILE"] = str(program.certificate)
    copied = _rclone(["copy", "near:src/o", f"far:{to}/o", *_RCLONE, *at_a_time, *tuning], environment)
    if read_back is None:
        return copied
    checking = ["check", "--download", "near:src/o", f"far:{read_back}/o", *_LOG, *at_a_time, *tuning]
    checked = _rclone(checking, environment)
    return copied | {
        "elapsed_s": copied["elapsed_s"] + checked["elapsed_s"],
        "cpu_s": copied["cpu_s"] + checked["cpu_s"],
        "peak_bytes": max(copied["peak_bytes"], checked["peak_bytes"]),
    }


def _rclone(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    command = [str(Path(sys.executable).with_name("rclone")), *arguments]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stderr=log, stdout=subprocess.DEVNULL)
        most_bytes = 0
        while (done := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            most_bytes = max(most_bytes, peak_bytes(process.pid))
            time.sleep(_LOOK_S)
        _, status, usage = done
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        lines = log.read().splitlines()
    if process.returncode:
        raise SystemExit("rclone failed:\n" + "\n".join(lines[-5:]))
    stats: dict[str, Any] = [entry for line in lines if (entry := json.loads(line).get("stats"))][-1]
    return {
        "elapsed_s": stats["elapsedTime"],
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": most_bytes,
        "objects": stats["transfers"],
        "bytes": stats["bytes"],
    }


def _trusting(program: Program | None) -> dict[str, str]:
    if program is None or program.certificate is None:
        return {}
    return dict.fromkeys(("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), str(program.certificate))


def compared(
    near: CloudConfig, far: CloudConfig, task: Task, rounds: int, budget_bytes: int,
    bucket: Callable[[], str] = fresh, program: Program | None = None, read_back: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Interleaved rounds between two stores; medians of each engine and their ratio.

    Args:
        near, far: The stores, which are all that this process has started so far; the objects lie in the bucket `src`
            of the first, below `o/`.
        task: What lies there.
        rounds: How often each engine runs.
        budget_bytes: The direct plane's memory for what is under way.
        bucket: Names a bucket of `far` in which nothing is, for one run.
        program: The stub that both are, if they are.
        read_back: The bucket of `far` that rclone reads afterwards, and compares with the source; None for none.
    """
    total_bytes = task.content.count * task.content.size_bytes
    stores = children(os.getpid())
    runs: dict[str, list[dict[str, float]]] = {}

    def run(engine: str, once: Callable[[str], dict[str, float]]) -> None:
        to = bucket()
        before_s = cpu_s(stores)
        result = once(to)
        runs.setdefault(engine, []).append(result | {"stores_cpu_s": cpu_s(stores) - before_s})

    for _ in range(rounds):
        run("ours", lambda to: run_ours(near, far, to, task, budget_bytes, program))
        for number, tuning in enumerate(task.tunings):
            run(
                f"rclone-{number}",
                lambda to, tuning=tuning: run_rclone(near, far, to, task, tuning, program, read_back),
            )
    figures: dict[str, dict[str, float]] = {}
    for engine, results in runs.items():
        if any((r["objects"], r["bytes"]) != (task.content.count, total_bytes) for r in results):
            raise SystemExit(f"{engine} did not carry everything from {near.name} to {far.name}: {results[-1]}")
        elapsed_s = statistics.median(r["elapsed_s"] for r in results)
        figures[engine] = {
            "elapsed_s": elapsed_s,
            "mb_per_s": total_bytes / 1e6 / elapsed_s,
            "objects_per_s": task.content.count / elapsed_s,
            "cpu_s_per_gib": statistics.median(r["cpu_s"] for r in results) / (total_bytes / 1024**3),
            "stores_cpu_s_per_gib": statistics.median(r["stores_cpu_s"] for r in results) / (total_bytes / 1024**3),
            "peak_mb": max(r["peak_bytes"] for r in results) / 1e6,
        }
    best = max((name for name in figures if name != "ours"), key=lambda name: figures[name]["objects_per_s"])
    stores_s = figures["ours"]["stores_cpu_s_per_gib"] * (total_bytes / 1024**3) / CORES
    return {
        "task": task.name, "rounds": rounds,
        "at_most": figures[best]["elapsed_s"] / stores_s if stores_s else None,
        "ratio": figures["ours"]["objects_per_s"] / figures[best]["objects_per_s"],
        "ours": figures["ours"], "rclone": figures[best], "rclone_tuning": " ".join(task.tunings[int(best[-1])]),
        "load_average": os.getloadavg()[0],
    }  # fmt: skip


def measure(
    pair: tuple[str, str], task: Task, rounds: int, budget_bytes: int, program: Program, delay_ms: int,
    verified: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """One pair of stubs; see `compared`."""
    with (
        tempfile.TemporaryDirectory() as logs,
        stub(program, pair[0], task.content, Path(logs) / "near.log", delay_ms) as near,
        stub(program, pair[1], task.content, Path(logs) / "far.log", delay_ms) as far,
    ):
        # Stubs forget what they are given, but the far one has the same objects in a bucket of its own.
        read_back = "src" if verified else None
        result = compared(near, far, task, rounds, budget_bytes, program=program, read_back=read_back)
    return {"pair": f"{pair[0]} -> {pair[1]}", "over": program.scheme, "rtt_ms": delay_ms, **result}


_COLUMNS = (
    *("pair", "over", "RTT ms", "task", "Lintas", "rclone", "ratio", "at most", "CPU-s a GiB, both"),
    *("stores' CPU-s a GiB, both", "peak MB, both", "load"),
)
HEADER = f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}"


def row(result: dict[str, Any]) -> str:
    """A line of the table."""
    unit, figure = ("MB/s", "mb_per_s") if result["task"] == "large" else ("objects/s", "objects_per_s")
    ours, rclone = result["ours"], result["rclone"]
    cells = [
        result["pair"],
        result["over"],
        str(result["rtt_ms"]),
        result["task"],
        f"{ours[figure]:,.0f} {unit}",
        f"{rclone[figure]:,.0f} {unit}",
        f"{result['ratio']:.2f}",
        "-" if result["at_most"] is None else f"{result['at_most']:.2f}",
        f"{ours['cpu_s_per_gib']:.2f} / {rclone['cpu_s_per_gib']:.2f}",
        f"{ours['stores_cpu_s_per_gib']:.2f} / {rclone['stores_cpu_s_per_gib']:.2f}",
        f"{ours['peak_mb']:.0f} / {rclone['peak_mb']:.0f}",
        f"{result['load_average']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def keep(name: str, results: list[dict[str, Any]]) -> None:
    """Write build/NAME.json."""
    BUILD.mkdir(exist_ok=True)
    written = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "results": results}
    (BUILD / f"{name}.json").write_text(json.dumps(written, indent=2) + "\n")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--task", choices=["large", "small"], action="append")
    parser.add_argument("--over", choices=["http", "https"], action="append", help="http unless told")
    parser.add_argument("--pair", action="append", help="for example s3:azure")
    parser.add_argument("--rtt-ms", type=int, default=0, help="what every request waits at the stub")
    parser.add_argument("--budget-mib", type=int, default=48)
    parser.add_argument("--verified", action="store_true", help="rclone reads both sides again and compares")
    arguments = parser.parse_args()
    tasks = {
        # rclone carries eight objects at a time, each by up to eight requests.
        "large": Task("large", Content(8, 128 * MIB), 8, 64, LARGE_TUNINGS),
        "small": Task("small", Content(5000, 16 * 1024), 64, 64, SMALL_TUNINGS),
    }
    pairs = [(pair.split(":")[0], pair.split(":")[1]) for pair in arguments.pair or []] or PAIRS
    programs = [compiled(BUILD, tls=over == "https") for over in arguments.over or ["http"]]
    results: list[dict[str, Any]] = []
    print(HEADER, flush=True)
    for name, program, pair in itertools.product(arguments.task or list(tasks), programs, pairs):
        result = measure(
            pair, tasks[name], arguments.rounds, arguments.budget_mib * MIB, program, arguments.rtt_ms,
            arguments.verified,
        )  # fmt: skip
        results.append(result)
        print(row(result), flush=True)
    keep("bench-mover", results)


if __name__ == "__main__":
    main()
