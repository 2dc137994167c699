"""`python -m benchmarks.mover.emulators`: the mover and rclone between the object stores of the twin.

SeaweedFS, Azurite and the double of Cloud Storage take most of the time here, and they check what they are sent: this
shows that both engines do the whole work, not how fast an engine is; see `benchmarks.mover` for that.
Prints a table in Markdown and writes build/bench-mover-emulators.json.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.mover.__main__ import HEADER, LARGE_TUNINGS, MIB, SMALL_TUNINGS, Task, compared, fresh, keep, row
from benchmarks.mover.stubs import Content
from tasks.core.cloud import CloudConfig
from tasks.registry import providers
from tests.servers import ObjectClouds, rclone_environment

PAIRS = [("aws", "azure"), ("aws", "google"), ("google", "aws"), ("azure", "aws"), ("aws", "coreweave")]


def fill(cloud: CloudConfig, content: Content) -> None:
    """Put the objects there, by rclone."""
    providers()[cloud.provider].open_store(cloud, "src").create_bucket()
    with tempfile.TemporaryDirectory() as directory:
        for number in range(content.count):
            with (Path(directory) / f"{number:05}").open("wb") as file:
                file.writelines(content.pieces())
        subprocess.run(
            [Path(sys.executable).with_name("rclone"), "sync", directory, f"{cloud.name}:src/o", "--transfers", "16"],
            env=rclone_environment(cloud), check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def made(cloud: CloudConfig) -> Callable[[], str]:
    """Makes a new bucket of a cloud, and names it."""

    def make() -> str:
        bucket = fresh()
        providers()[cloud.provider].open_store(cloud, bucket).create_bucket()
        return bucket

    return make


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mover.emulators", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    tasks = (
        Task("large", Content(4, 64 * MIB), 8, 64, LARGE_TUNINGS),
        Task("small", Content(1000, 16 * 1024), 64, 64, SMALL_TUNINGS),
    )
    results: list[dict[str, Any]] = []
    print(HEADER, flush=True)
    for task, (near, far) in itertools.product(tasks, PAIRS):
        # Servers of their own for each, so that none is slower for what the one before has left.
        with tempfile.TemporaryDirectory() as directory, ExitStack() as running:
            clouds = ObjectClouds(Path(directory), running)
            fill(clouds[near], task.content)
            found = compared(clouds[near], clouds[far], task, arguments.rounds, 48 * MIB, made(clouds[far]))
        results.append({"pair": f"{near} -> {far}", "over": "http", "rtt_ms": 0, **found})
        print(row(results[-1]), flush=True)
    keep("bench-mover-emulators", results)


if __name__ == "__main__":
    main()
