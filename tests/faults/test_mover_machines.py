"""A move in shards on several machines, one of which is lost in mid-shard: it ends right and leaves nothing behind."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from deployments.local.object_stores import console_script
from tests.conformance.stores import MIB, open_store, pointed_at
from tests.conformance.wire import Wire
from tests.faults.conftest import MakeTrial
from tests.machines import awaited, dask_machines

SIZES = tuple(17 * MIB + 1 if number % 51 == 25 else 2_000 + number for number in range(204))


def uploads_with_parts(records: Path) -> int:
    """How many uploads of which a part has arrived a machine's journal knows."""
    if not records.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{records}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(DISTINCT upload_id) FROM upload_parts").fetchone()[0])
    except sqlite3.OperationalError:  # it is being made
        return 0


@pytest.mark.campaign
def test_a_lost_machine_costs_a_move_nothing_but_time(trial: MakeTrial, tmp_path: Path) -> None:
    move = trial("google", "aws", SIZES)
    with Wire(move.far.endpoint("objects"), bytes_per_s=20 * MIB) as wire:
        clouds = (move.near, pointed_at(move.far, wire.port))
        with dask_machines(tmp_path, clouds, {"at_once": 2, "objects": 51}) as machines:
            process = subprocess.Popen(
                [console_script("lintas"), "move", str(move.source), str(move.target), "--policy", "open", "--json"],
                env=machines.environment("home"),
                cwd=tmp_path / "home",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                lost = machines.records("two")
                awaited(
                    lambda: uploads_with_parts(lost) > 0 or process.poll() is not None, "machine two never sent a part"
                )
                assert process.poll() is None, process.communicate()
                machines.workers["two"].kill()
                said, complaint = process.communicate(timeout=240)
            finally:
                process.kill()
                process.wait()
        assert process.returncode == 0, complaint
    moved = json.loads(said)
    assert (moved["objects"], moved["objects_sent"], moved["route"]) == (204, 204, "direct")
    assert uploads_with_parts(lost) > 0, "the lost machine had ended its uploads before"
    move.require_identical()
    move.require_clean()
    begun = open_store(move.far, move.bucket).list(move.target.key(".lintas/begun/"))
    assert [info.key for info in begun] == []
