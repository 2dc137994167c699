"""A move that is killed at any moment and run again sends nothing finished twice and leaves nothing unfinished."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import pytest

from tasks.core.cloud import CloudConfig
from tests.conformance.stores import MIB, NETWORKED, pointed_at
from tests.conformance.wire import Wire
from tests.faults.conftest import MakeTrial, Trial
from tests.faults.mover_process import facts_of

PARTS_IN_MEMORY = 6
PARTS_IN_FLIGHT = PARTS_IN_MEMORY + 2
"""Those that have arrived and are on their way into the journal are in no memory any more."""
ROOT = Path(__file__).parents[2]
SOME = [("google", "aws", 1), ("google", "aws", 2), ("aws", "google", 3), ("aws", "google", 4), ("aws", "azure", 5)]
ALL = [
    pytest.param(near, far, seed, marks=pytest.mark.campaign)
    for seed, (near, far) in enumerate(2 * list(permutations(NETWORKED, 2)), start=10)
]


def start(
    trial: Trial, records: Path, *, processes: int = 1, parts: int = PARTS_IN_MEMORY, **ways: CloudConfig
) -> subprocess.Popen[str]:
    """A process that moves, with memory for so many parts, through other ways to the same clouds."""
    work = {
        "near": facts_of(trial.near),
        "near_way": facts_of(ways.get("near", trial.near)),
        "far": facts_of(ways.get("far", trial.far)),
        "bucket": trial.bucket,
        "records": str(records),
        "processes": processes,
        "parts": parts,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.mover_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(work))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("near", "far", "seed"), [*SOME, *ALL])
def test_a_killed_move_goes_on_where_it_was(trial: MakeTrial, tmp_path: Path, near: str, far: str, seed: int) -> None:
    move = trial(near, far, (5_000, 40_000, 40 * MIB + 5, 60 * MIB))
    draw = random.Random(seed)
    size_bytes = sum(map(len, move.content.values()))
    with Wire(move.far.endpoint("objects"), bytes_per_s=40 * MIB) as wire:
        process = start(move, tmp_path / "records.sqlite", processes=1 + seed % 2, far=pointed_at(move.far, wire.port))
        kill_at_bytes = draw.randrange(size_bytes // 4, size_bytes * 3 // 4)
        deadline = time.monotonic() + 60
        while wire.sent_bytes < kill_at_bytes and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        before = wire.sent_bytes

        process = start(move, tmp_path / "records.sqlite", processes=1 + seed % 2, far=pointed_at(move.far, wire.port))
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
        again = wire.sent_bytes - before

    move.require_identical()
    move.require_clean()
    # Beyond the bodies: heads of requests, listings, the manifest.
    assert before + again <= size_bytes + PARTS_IN_FLIGHT * 8 * MIB + MIB
    assert again < size_bytes - before + PARTS_IN_FLIGHT * 8 * MIB + MIB
