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

from tests.conformance.stores import MIB, NETWORKED, pointed_at
from tests.faults.conftest import MakeTrial, Trial
from tests.faults.counting import CountingWire
from tests.faults.mover_process import facts_of

PARTS_IN_FLIGHT = 8
ROOT = Path(__file__).parents[2]
SOME = [("google", "aws", 1), ("google", "aws", 2), ("aws", "google", 3), ("aws", "google", 4), ("aws", "azure", 5)]
ALL = [
    pytest.param(near, far, seed, marks=pytest.mark.campaign)
    for seed, (near, far) in enumerate(2 * list(permutations(NETWORKED, 2)), start=10)
]


def start(trial: Trial, wire: CountingWire, records: Path, *, processes: int = 1) -> subprocess.Popen[str]:
    work = {
        "near": facts_of(trial.near),
        "far": facts_of(pointed_at(trial.far, wire.port)),
        "bucket": trial.bucket,
        "records": str(records),
        "processes": processes,
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
    with CountingWire(move.far.endpoint("objects"), bytes_per_s=40 * MIB) as wire:
        process = start(move, wire, tmp_path / "records.sqlite", processes=1 + seed % 2)
        kill_at_bytes = draw.randrange(size_bytes // 4, size_bytes * 3 // 4)
        deadline = time.monotonic() + 60
        while wire.sent_bytes < kill_at_bytes and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        before = wire.sent_bytes

        process = start(move, wire, tmp_path / "records.sqlite", processes=1 + seed % 2)
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
        again = wire.sent_bytes - before

    move.require_identical()
    move.require_clean()
    # Beyond the bodies: heads of requests, listings, the manifest.
    assert before + again <= size_bytes + PARTS_IN_FLIGHT * 8 * MIB + MIB
    assert again < size_bytes - before + PARTS_IN_FLIGHT * 8 * MIB + MIB
