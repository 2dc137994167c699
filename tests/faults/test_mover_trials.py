"""The campaign: seeded trouble on every pair of clouds, counted. `make fault-trials` runs it and writes the counts.

Every trial ends with an independent client reading the far side: it holds the near side's bytes and nothing else, and
no upload is left unfinished. `build/mover_trials.json` has one line a trial. `LINTAS_FAULT_SEEDS=60-119` runs some of
them and adds their lines; with `LINTAS_TRIALS_TABLE=PATH` the table of all lines goes to PATH.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Denied, IntegrityError, LintasError
from tasks.core.listing import read_manifest
from tasks.core.plane import Plane
from tasks.core.plane.direct import DirectPlane
from tasks.core.plane.routes import plane_for, route_between
from tasks.core.plane.stream import StreamPlane
from tasks.records import Records
from tests.conformance.stores import MIB, keys, pointed_at, unfinished_uploads
from tests.conformance.wire import Wire
from tests.faults.conftest import MakeTrial, Trial, fill, small_disk
from tests.faults.storm import BUSY_BY_CLOUD, Clock, Guard, Storm
from tests.faults.test_mover_killed import start
from tests.memory_store import MemoryJournal
from tests.servers import OBJECT_CLOUDS

FIRST, LAST = map(int, os.environ.get("LINTAS_FAULT_SEEDS", "0-239").split("-"))
PAIRS = list(permutations(OBJECT_CLOUDS, 2))
SIZES_BYTES = (0, 100, 70_000, 9 * MIB)
KILLED_SIZES_BYTES = (0, 5_000, 70_000, 17 * MIB, 25 * MIB + 5)
KILLED_PARTS = 2
"""What a killed process has memory for: with more of them all of the dataset would be under way."""

PART_BYTES = 8 * MIB
COUNTS = Path("build/mover_trials.json")

pytestmark = pytest.mark.campaign

Way = Wire | Guard


class Run:
    """One trial: the move, its records, its draws, and what is counted of it."""

    def __init__(self, move: Trial, folder: Path, draw: random.Random) -> None:
        self.move, self.folder, self.draw = move, folder, draw
        self.records_path = folder / "records.sqlite"
        self.troubles = self.wrong_bytes_accepted = 0
        self.struck_by: Counter[str] = Counter()
        self.until_the_end = ExitStack()
        self._ways: list[tuple[CloudConfig, Way]] = []

    @property
    def on_wires(self) -> list[CloudConfig]:
        return [cloud for cloud in (self.move.near, self.move.far) if cloud.name != "onprem"]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.move.content.values()))

    @property
    def arrived_bytes(self) -> int:
        """What the far side was sent, all heads of requests included; for a directory, what the near side gave."""
        if self.move.far.name == "onprem":
            return sum(way.received_bytes for cloud, way in self._ways if cloud is self.move.near)
        return sum(way.sent_bytes for cloud, way in self._ways if cloud is self.move.far)

    @property
    def route(self) -> str:
        route = route_between(*self.move.stores())
        # A copy inside one service passes no wire of ours.
        return route if route in ("direct", "stream") else "direct"

    def plane(self, records: Records, *, attempts: int | None = None, silence_s: float | None = None) -> Plane:
        """The plane of the route, as moves have it; a less patient one if told."""
        place: dict[str, Any] = {"uploads": records.uploads, "key_prefix": "out/"}
        told = {name: value for name, value in (("attempts", attempts), ("silence_s", silence_s)) if value is not None}
        if not told:
            return plane_for(self.route, **place, say=lambda _: None)
        if self.route == "direct":
            return DirectPlane(**place, **told)
        told.pop("silence_s", None)
        return StreamPlane(**place, **told)

    @contextmanager
    def through(self, make: Callable[[CloudConfig], Way] | None = None) -> Iterator[dict[str, CloudConfig]]:
        """The clouds as they are reached through something that counts, and does what harm it does."""
        with ExitStack() as stack:
            found: dict[str, CloudConfig] = {}
            for cloud in self.on_wires:
                way = stack.enter_context(make(cloud) if make else Wire(cloud.endpoint("objects")))
                self._ways.append((cloud, way))
                found["near" if cloud is self.move.near else "far"] = pointed_at(cloud, way.port)
            yield found

    def again(self, records: Records) -> None:
        """Run it where nothing is in the way any more."""
        with self.through() as ways:
            self.move.move(self.plane(records), **ways)


def storm(run: Run) -> None:
    """A share of all requests is refused, in each cloud's own words."""
    share, draw = run.draw.uniform(0.1, 0.4), run.draw
    words = {cloud.name: draw.choice(BUSY_BY_CLOUD[cloud.name]) for cloud in run.on_wires}
    guards: list[tuple[str, Storm]] = []

    def make(cloud: CloudConfig) -> Storm:
        made = Storm(cloud.endpoint("objects"), share=share, seed=draw.randrange(10**6), words=words[cloud.name])
        guards.append((f"{cloud.name} {words[cloud.name]}", made))
        return made

    with Records(run.records_path) as records, run.through(make) as ways:
        run.move.move_until_done(lambda: run.plane(records), **ways)
    run.struck_by.update({name: guard.refused for name, guard in guards})


def cut(run: Run) -> None:
    """Connections are closed in the middle of answers and of requests."""
    wires: list[Wire] = []

    def make(cloud: CloudConfig) -> Wire:
        near = cloud is run.move.near
        after_bytes = run.draw.randrange(9 * MIB, 12 * MIB) if near else run.draw.randrange(1000, 6 * MIB)
        wires.append(
            Wire(cloud.endpoint("objects"), **{"cut_after_bytes" if near else "cut_once_after_sent_bytes": after_bytes})
        )
        return wires[-1]

    with Records(run.records_path) as records, run.through(make) as ways:
        run.move.move_until_done(lambda: run.plane(records), **ways)
    run.troubles = sum(wire.cuts for wire in wires)


def stall(run: Run) -> None:
    """Some connections neither give nor take a byte any more, after a while."""
    wires: list[Wire] = []

    def make(cloud: CloudConfig) -> Wire:
        side = "stall_after_bytes" if cloud is run.move.near else "stall_after_sent_bytes"
        after = {side: run.draw.randrange(1000, 6 * MIB)}
        wires.append(Wire(cloud.endpoint("objects"), **after, most_stalls=run.draw.randrange(1, 4)))
        return wires[-1]

    with Records(run.records_path) as records, run.through(make) as ways:
        soon = {"request_timeout_s": "2"}
        impatient = {side: dataclasses.replace(way, options={**way.options, **soon}) for side, way in ways.items()}
        run.move.move_until_done(lambda: run.plane(records, silence_s=2), **impatient)
    run.troubles = sum(wire.stalls for wire in wires)


def truncated(run: Run) -> None:
    """One side's answers end early, every time, until the line is mended."""
    struck = run.move.near if run.move.near.name != "onprem" else run.move.far
    # An upload's answers are short.
    after_bytes = run.draw.randrange(1, 60_000 if struck is run.move.near else 100)
    wires: list[Wire] = []

    def make(cloud: CloudConfig) -> Wire:
        wires.append(Wire(cloud.endpoint("objects"), cut_after_bytes=after_bytes if cloud is struck else None))
        return wires[-1]

    with Records(run.records_path) as records:
        with run.through(make) as ways, pytest.raises(LintasError):
            run.move.move(run.plane(records, attempts=3), **ways)
        run.troubles, run.move.failed_runs = sum(wire.cuts for wire in wires), 1
        run.again(records)


def wrong_bytes(run: Run) -> None:
    """A bit flips on the way."""
    struck = run.draw.choice(run.on_wires)
    path, content = next(item for item in run.move.content.items() if len(item[1]) == 9 * MIB)
    at = run.draw.randrange(len(content) - 16)
    right = content[at : at + 12]
    wrong = bytes([right[0] ^ 1 << run.draw.randrange(8)]) + right[1:]
    damage: dict[str, Any] = {"damage_sent" if struck is run.move.far else "damage_received": (right, wrong)}
    wires: list[Wire] = []

    def make(cloud: CloudConfig) -> Wire:
        wires.append(Wire(cloud.endpoint("objects"), **(damage if cloud is struck else {})))
        return wires[-1]

    with Records(run.records_path) as records:
        with run.through(make) as ways, pytest.raises(IntegrityError):
            run.move.move(run.plane(records), **ways)
        run.troubles, run.move.failed_runs = sum(wire.damaged for wire in wires), 1
        _, destination = run.move.stores()
        run.wrong_bytes_accepted = int(run.move.target.key(path) in keys(destination, "out/"))
        run.again(records)


def at_rest(run: Run) -> None:
    """A byte of an object that has arrived changes there, its size and its labels do not."""
    with Records(run.records_path) as records:
        run.again(records)
        _, destination = run.move.stores()
        path = run.draw.choice([path for path, content in run.move.content.items() if content])
        info, content = destination.head(run.move.target.key(path)), bytearray(run.move.content[path])
        content[run.draw.randrange(len(content))] ^= 1
        destination.put(info.key, [bytes(content)], size_bytes=len(content), metadata=info.metadata)
        seen = read_manifest(destination, run.move.target, MemoryJournal(), reread=True)
        wanted = read_manifest(run.move.stores()[0], run.move.source, MemoryJournal())
        differing = [there.path for here, there in zip(wanted, seen, strict=True) if here.digest != there.digest]
        run.troubles, run.wrong_bytes_accepted = 1, int(differing != [path])
        destination.delete(info.key)
        run.move.journal = MemoryJournal()
        run.again(records)


def killed(run: Run) -> None:
    """A process is killed once or more, at moments of any kind, and begun again with the same records."""
    kills = run.draw.choice((1, 1, 2, 3))
    with run.through(lambda cloud: Wire(cloud.endpoint("objects"), bytes_per_s=40 * MIB)) as ways:
        for _ in range(kills):
            process = start(run.move, run.records_path, parts=KILLED_PARTS, **ways)
            at_bytes = run.arrived_bytes + run.draw.random() * 1.02 * max(0, run.size_bytes - run.arrived_bytes)
            deadline = time.monotonic() + 60
            while run.arrived_bytes < at_bytes and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(run.draw.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
            run.troubles += process.returncode == -signal.SIGKILL
        process = start(run.move, run.records_path, parts=KILLED_PARTS, **ways)
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
    run.move.failed_runs = run.troubles
    if run.route == "direct":
        # What had arrived and was on its way into the journal is in no memory any more.
        assert run.arrived_bytes - run.size_bytes < run.troubles * (KILLED_PARTS + 2) * PART_BYTES + MIB


def skewed(run: Run) -> None:
    """This machine's clock is wrong, or becomes wrong in the middle, until somebody sets it."""
    ahead_s = run.draw.choice((-2 * 86_400, -1200, 1200, 2 * 86_400))
    after_requests = run.draw.choice((0, 0, 3, 8))
    clocks: list[Clock] = []

    def make(cloud: CloudConfig) -> Clock:
        clocks.append(Clock(cloud.endpoint("objects"), ahead_s=ahead_s, after_requests=after_requests))
        return clocks[-1]

    with Records(run.records_path) as records:
        with run.through(make) as ways:
            try:
                run.move.move(run.plane(records), **ways)
            except Denied as error:
                run.move.failed_runs = 1
                assert "clock is " in str(error)  # noqa: PT017  (it may as well succeed)
        run.troubles = sum(clock.refused for clock in clocks)
        run.again(records)


def full(run: Run) -> None:
    """The disk is full: that of the directory the data goes to, or else that of the state."""
    disk = run.until_the_end.enter_context(small_disk(run.folder / "disk", 32 * MIB))
    if run.move.far.name == "onprem":
        _full_destination(run, disk)
    else:
        _full_state(run, disk)


def _full_destination(run: Run, disk: Path) -> None:
    run.move.far = dataclasses.replace(run.move.far, options={"root": str(disk)})
    run.move.stores()[1].create_bucket()
    ballast = fill(disk, leave_bytes=run.draw.randrange(run.size_bytes))
    with Records(run.records_path) as records:
        with run.through() as ways, pytest.raises(LintasError, match=r"the disk of .* is full"):
            run.move.move(run.plane(records), **ways)
        run.troubles = run.move.failed_runs = 1
        for path, digest in run.move.digests_by_rclone(run.move.far, "out").items():
            run.wrong_bytes_accepted += digest != run.move.digest(path)
        assert unfinished_uploads(run.move.far, run.move.bucket, "") == []
        ballast.unlink()
        run.again(records)


def _full_state(run: Run, disk: Path) -> None:
    run.records_path = disk / "records.sqlite"
    with Records(run.records_path) as records:
        run.move.journal = records.journal
        ballast = fill(disk, leave_bytes=run.draw.choice((0, 0, 8192, 40_960, 131_072)))
        with run.through() as ways:
            try:
                run.move.move(run.plane(records), **ways)
            except LintasError as error:
                run.troubles = run.move.failed_runs = 1
                assert "the disk is full" in str(error)  # noqa: PT017  (it may as well succeed)
        ballast.unlink()
        run.again(records)


KINDS: Mapping[str, Callable[[Run], None]] = {
    "requests refused (429, 500, 503)": storm,
    "connections cut": cut,
    "connections silent": stall,
    "bodies truncated": truncated,
    "wrong bytes on the way": wrong_bytes,
    "wrong bytes at rest": at_rest,
    "killed": killed,
    "a wrong clock": skewed,
    "a full disk": full,
}
_SUMS = ("troubles", "failed_runs", "wrong_bytes_accepted", "differing_objects", "uploads_left", "unexpected")


_COLUMNS = (
    *("trouble", "trials", "pairs", "times it struck", "runs that failed", "parts beyond the dataset: most, mean"),
    *("wrong bytes accepted", "objects that differ", "uploads left", "ended otherwise"),
)
_WORDS = ("cloud and refusal", "times")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The counts by kind of trouble, as Markdown."""
    kinds = {kind: [line for line in lines if line["kind"] == kind] for kind in KINDS}
    rows = [_row(kind, found) for kind, found in {**kinds, "all": lines}.items() if found]
    struck: Counter[str] = Counter()
    for line in lines:
        struck.update(line["struck_by"])
    words = [(name, times) for name, times in sorted(struck.items()) if times]
    kills = [line for line in kinds["killed"] if "onprem" not in line["pair"] and line["troubles"]]
    lost = max((line["parts_beyond"] / line["troubles"] for line in kills), default=0.0)
    most = f"Between object stores a kill cost at most {lost:.1f} parts."
    return f"{_HEAD}\n{_markdown(_COLUMNS, rows)}\n{most}\n\n{_TAIL}\n{_markdown(_WORDS, words)}"


def _row(kind: str, lines: Sequence[dict[str, Any]]) -> list[Any]:
    beyond = [line["parts_beyond"] for line in lines]
    struck, failed, *rest = (sum(line[name] for line in lines) for name in _SUMS)
    most = f"{max(beyond):.1f}, {sum(beyond) / len(lines):.1f}"
    return [kind, len(lines), len({line["pair"] for line in lines}), struck, failed, most, *rest]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


_HEAD = f"""# Moves in trouble

Written by `make fault-trials` (`SEEDS=60-119` for some of them); build/mover_trials.json has one line a trial. A trial
is a seed: the pair of clouds (all twenty), the kind of trouble and when it strikes follow from it. Runs that failed
ended with an error of Lintas, or were killed, and were simply run again. What differs and what is left is the word of
an independent client (rclone, the bare SDK) in the end; "ended otherwise" are trials in which anything was not as it
must be. A seed that was run again stands here as it ended last.

Parts beyond the dataset are what the far side was sent in all runs together (for a directory: what the near side gave)
less the dataset, in parts of {PART_BYTES // MIB} MiB. A killed process has memory for {KILLED_PARTS} parts here, and
may lose those and what is on its way into the journal; from or to a directory the objects under way are sent again.
Wrong bytes give up the object's upload, so that it is sent anew. Damage at rest is found by reading the far side again;
the object is then removed, and sent anew.

A wrong clock is 20 minutes or two days ahead or behind. S3 and Azure refuse what it signs, and the run ends with a
sentence that says so; Google's tokens do not depend on it, and Azure takes a signature of a clock that is a little
behind: such runs succeed. A full disk is that of the directory at the far side, or else that of the state directory.
"""
_TAIL = "Requests were refused in each cloud's own words:\n"


def lines_of(text: str) -> list[dict[str, Any]]:
    """The last line of each seed, in order of seeds."""
    found = {line["seed"]: line for line in map(json.loads, text.splitlines())}
    return [found[seed] for seed in sorted(found)]


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    COUNTS.parent.mkdir(exist_ok=True)
    yield
    if os.environ.get("LINTAS_TRIALS_TABLE"):
        Path(os.environ["LINTAS_TRIALS_TABLE"]).write_text(table(lines_of(COUNTS.read_text())))


@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
def test_in_the_end_the_far_side_is_the_near_side(trial: MakeTrial, tmp_path: Path, seed: int) -> None:
    at, turn = seed % len(PAIRS), seed // len(PAIRS)
    (near, far), kind = PAIRS[at], list(KINDS)[(at + turn) % len(KINDS)]
    run = Run(trial(near, far, KILLED_SIZES_BYTES if kind == "killed" else SIZES_BYTES), tmp_path, random.Random(seed))
    outcome = dict.fromkeys(_SUMS, 0)
    began = time.monotonic()
    try:
        outcome["unexpected"] = 1
        KINDS[kind](run)
        with Records(run.records_path) as records:
            outcome["uploads_left"] = len(records.uploads.open(far, run.move.bucket, ""))
        outcome["uploads_left"] += len(unfinished_uploads(run.move.far, run.move.bucket, ""))
        outcome["differing_objects"] = len(run.move.differing())
        run.move.require_clean()
        outcome["unexpected"] = 0
    finally:
        run.until_the_end.close()
        outcome |= {"troubles": run.troubles + sum(run.struck_by.values()), "failed_runs": run.move.failed_runs}
        outcome["wrong_bytes_accepted"] = run.wrong_bytes_accepted
        facts = {"seed": seed, "kind": kind, "pair": f"{near} -> {far}", "struck_by": run.struck_by}
        beyond = (run.arrived_bytes - run.size_bytes) / PART_BYTES
        with COUNTS.open("a") as counts:
            line = {**facts, **outcome, "parts_beyond": round(beyond, 3), "took_s": round(time.monotonic() - began, 1)}
            counts.write(json.dumps(line) + "\n")
    assert not any(outcome[name] for name in ("differing_objects", "uploads_left", "wrong_bytes_accepted"))
