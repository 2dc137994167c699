"""The campaign: seeded trouble on every pair of clouds, counted. `make fault-trials` runs it and writes the counts.

Every trial ends with an independent client reading the far side: it holds the near side's bytes and nothing else, and
no upload is left unfinished. `build/mover_trials.json` has one line a trial; with
`LINTAS_TRIALS_TABLE=PATH` the table goes to PATH: `make fault-trials` keeps docs/faults_mover.md so.
"""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tasks.core.cloud import CloudConfig
from tasks.core.errors import IntegrityError, LintasError
from tasks.core.listing import read_manifest
from tasks.core.plane import Plane
from tasks.core.plane.routes import plane_for, route_between
from tasks.records import Records
from tests.conformance.stores import MIB, keys, pointed_at
from tests.conformance.wire import Wire
from tests.faults.conftest import MakeTrial, Trial
from tests.faults.storm import Storm
from tests.memory_store import MemoryJournal
from tests.servers import OBJECT_CLOUDS

TRIALS = int(os.environ.get("LINTAS_FAULT_TRIALS", "240"))
PAIRS = list(permutations(OBJECT_CLOUDS, 2))
SIZES_BYTES = (0, 100, 70_000, 9 * MIB)
COUNTS = Path("build/mover_trials.json")

pytestmark = pytest.mark.campaign


class Run:
    """One trial: the move, its records, its draws, and what is counted of it."""

    def __init__(self, move: Trial, records: Records, draw: random.Random) -> None:
        self.move, self.records, self.draw = move, records, draw
        self.counts: dict[str, Any] = {"troubles": 0, "wrong_bytes_accepted": 0}

    @property
    def on_wires(self) -> list[CloudConfig]:
        return [cloud for cloud in (self.move.near, self.move.far) if cloud.name != "onprem"]

    def plane(self) -> Plane:
        source, destination = self.move.stores()
        # A copy inside one service passes no wire of ours.
        route = route_between(source, destination)
        route = route if route in ("direct", "stream") else "direct"
        return plane_for(route, uploads=self.records.uploads, key_prefix="out/", say=lambda _: None)

    def through(self, cloud: CloudConfig, port: int) -> dict[str, CloudConfig]:
        return {"near" if cloud is self.move.near else "far": pointed_at(cloud, port)}


def storm(run: Run) -> None:
    """A share of all requests is answered by 503."""
    share, seed = run.draw.uniform(0.1, 0.5), run.draw.randrange(10**6)
    guards = {
        cloud.name: Storm(cloud.endpoint("objects"), share=share, seed=seed + at)
        for at, cloud in enumerate(run.on_wires)
    }
    with _all(guards.values()):
        ways = {k: v for cloud in run.on_wires for k, v in run.through(cloud, guards[cloud.name].port).items()}
        run.move.move_until_done(run.plane, **ways)
        run.counts["troubles"] = sum(guard.refused for guard in guards.values())


def cut(run: Run) -> None:
    """Connections are closed in the middle of answers and of requests."""
    wires = {
        cloud.name: Wire(
            cloud.endpoint("objects"),
            cut_after_bytes=run.draw.randrange(9 * MIB, 12 * MIB) if cloud is run.move.near else None,
            cut_once_after_sent_bytes=run.draw.randrange(1000, 6 * MIB) if cloud is run.move.far else None,
        )
        for cloud in run.on_wires
    }
    with _all(wires.values()):
        ways = {k: v for cloud in run.on_wires for k, v in run.through(cloud, wires[cloud.name].port).items()}
        run.move.move_until_done(run.plane, **ways)
        run.counts["troubles"] = sum(wire.cuts for wire in wires.values())


def truncated(run: Run) -> None:
    """One side's answers end early, every time, until the line is mended."""
    cloud = run.move.near if run.move.near.name != "onprem" else run.move.far
    # An upload's answers are short.
    after_bytes = run.draw.randrange(1, 60_000 if cloud is run.move.near else 100)
    with Wire(cloud.endpoint("objects"), cut_after_bytes=after_bytes) as wire:
        with pytest.raises(LintasError):
            run.move.move(run.plane(), **run.through(cloud, wire.port))
        run.counts["troubles"], run.move.failed_runs = wire.cuts, 1
    run.move.move(run.plane())


def wrong_bytes(run: Run) -> None:
    """A bit flips on the way."""
    cloud = run.draw.choice(run.on_wires)
    path, content = next(item for item in run.move.content.items() if len(item[1]) == 9 * MIB)
    at = run.draw.randrange(len(content) - 16)
    right = content[at : at + 12]
    wrong = bytes([right[0] ^ 1]) + right[1:]
    damage = {"damage_sent" if cloud is run.move.far else "damage_received": (right, wrong)}
    with Wire(cloud.endpoint("objects"), **damage) as wire:  # pyright: ignore[reportArgumentType]
        with pytest.raises(IntegrityError):
            run.move.move(run.plane(), **run.through(cloud, wire.port))
        run.counts["troubles"], run.move.failed_runs = int(wire.damaged), 1
    _, destination = run.move.stores()
    run.counts["wrong_bytes_accepted"] = int(run.move.target.key(path) in keys(destination, "out/"))
    run.move.move(run.plane())


def at_rest(run: Run) -> None:
    """A byte of an object that has arrived changes there, its size and its labels do not."""
    run.move.move(run.plane())
    _, destination = run.move.stores()
    path = run.draw.choice([path for path, content in run.move.content.items() if content])
    info, content = destination.head(run.move.target.key(path)), bytearray(run.move.content[path])
    content[run.draw.randrange(len(content))] ^= 1
    destination.put(info.key, [bytes(content)], size_bytes=len(content), metadata=info.metadata)
    seen = read_manifest(destination, run.move.target, MemoryJournal(), reread=True)
    wanted = read_manifest(run.move.stores()[0], run.move.source, MemoryJournal())
    differing = [there.path for here, there in zip(wanted, seen, strict=True) if here.digest != there.digest]
    run.counts |= {"troubles": 1, "wrong_bytes_accepted": int(differing != [path])}
    destination.delete(info.key)
    run.move.journal = MemoryJournal()
    run.move.move(run.plane())


KINDS: dict[str, Callable[[Run], None]] = {
    "503 storm": storm,
    "connections cut": cut,
    "bodies truncated": truncated,
    "wrong bytes on the way": wrong_bytes,
    "wrong bytes at rest": at_rest,
}


def _all(contexts: Any) -> AbstractContextManager[Any]:
    stack = ExitStack()
    for context in contexts:
        stack.enter_context(context)
    return stack


@pytest.fixture(scope="module")
def counted() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    COUNTS.parent.mkdir(exist_ok=True)
    COUNTS.write_text("".join(json.dumps(line) + "\n" for line in found))
    if os.environ.get("LINTAS_TRIALS_TABLE"):
        Path(os.environ["LINTAS_TRIALS_TABLE"]).write_text(table(found))


def table(found: list[dict[str, Any]]) -> str:
    """The counts by kind of trouble, as Markdown."""
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in found:
        by_kind[line["kind"]].append(line)
    rows = [
        f"| {kind} | {len(lines)} | {len({line['pair'] for line in lines})} | "
        + " | ".join(
            str(sum(line[name] for line in lines))
            for name in ("troubles", "failed_runs", "wrong_bytes_accepted", "differing_objects", "uploads_left")
        )
        + " |"
        for kind, lines in by_kind.items()
    ]
    columns = ("trouble", "trials", "pairs", "times it struck", "runs that failed", "wrong bytes accepted")
    columns = (*columns, "objects that differ", "uploads left")
    head = (
        "# Moves in trouble\n\nWritten by `make fault-trials`; build/mover_trials.json has one line a trial. Runs\n"
        "that failed ended with an error of Lintas and were simply run again. The last two columns are what an\n"
        "independent client (rclone, the bare SDK) found at the far side in the end.\n\n"
        f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"
    )
    return head + "\n".join(rows) + "\n"


@pytest.mark.parametrize("seed", range(TRIALS))
def test_in_the_end_the_far_side_is_the_near_side(
    trial: MakeTrial, tmp_path: Path, counted: list[dict[str, Any]], seed: int
) -> None:
    near, far = PAIRS[seed % len(PAIRS)]
    kind = list(KINDS)[seed // len(PAIRS) % len(KINDS)]
    with Records(tmp_path / "records.sqlite") as records:
        run = Run(trial(near, far, SIZES_BYTES), records, random.Random(seed))
        KINDS[kind](run)
        left = records.uploads.open(far, run.move.bucket, "")
    outcome = {"failed_runs": run.move.failed_runs, "differing_objects": 0, "uploads_left": len(left)}
    try:
        run.move.require_identical()
    except AssertionError:
        outcome["differing_objects"] = 1
        raise
    finally:
        counted.append({"seed": seed, "kind": kind, "pair": f"{near} -> {far}", **run.counts, **outcome})
    run.move.require_clean()
    assert left == []
    assert run.counts["wrong_bytes_accepted"] == 0
