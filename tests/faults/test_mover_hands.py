"""A move that further processes carry: the same bytes arrive, the first judges failures, and nobody outlives it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.memory import children
from tasks.core.attributes import Attributes
from tasks.core.errors import PreconditionFailed
from tasks.core.plane import direct
from tasks.core.plane.direct import DirectPlane
from tasks.core.plane.pump import Pump
from tests.conformance.stores import MIB, pointed_at, put
from tests.conformance.wire import Wire
from tests.faults.conftest import MakeTrial
from tests.faults.test_mover_killed import start

LARGE = 24 * MIB + 5
PATIENCE_S = 60.0


@pytest.fixture
def hand_came_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set when an object has arrived that only a further process can have carried: the first one waits for that."""
    came = threading.Event()
    arrived = direct.FarSide.arrived

    class Late(Pump):
        def run(self) -> None:
            came.wait(PATIENCE_S)
            super().run()

    def note(side: direct.FarSide, *what: object) -> None:
        came.set()
        arrived(side, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(direct, "Pump", Late)
    monkeypatch.setattr(direct.FarSide, "arrived", note)
    yield came
    assert came.is_set()


@pytest.mark.parametrize(("near", "far"), [("aws", "azure"), ("google", "aws"), ("azure", "google")])
def test_what_another_process_carries_arrives_byte_for_byte(
    trial: MakeTrial, hand_came_first: threading.Event, near: str, far: str
) -> None:
    del hand_came_first
    move = trial(near, far, (0, 1, 300_000, 8 * MIB, LARGE, *range(1000, 1080)))

    receipt = move.move(DirectPlane(processes=2))

    assert receipt.route == "direct"
    move.require_identical()
    move.require_clean()


def test_a_move_has_all_its_requests_in_flight_before_another_process_joins(
    trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, hand_came_first: threading.Event
) -> None:
    del hand_came_first
    said: list[tuple[int, int]] = []
    leave_room = direct.Pump.leave_room

    def noted(pump: Pump, in_flight: int) -> None:
        said.append((pump._pace.most, in_flight))
        leave_room(pump, in_flight)

    monkeypatch.setattr(direct.Pump, "leave_room", noted)

    trial("aws", "coreweave", range(900, 930)).move(DirectPlane(processes=2, in_flight=10))

    assert said == [(10, 5)]


def test_what_is_kept_with_objects_arrives_through_another_process(
    trial: MakeTrial, hand_came_first: threading.Event
) -> None:
    del hand_came_first
    move = trial("aws", "coreweave", [900, 901, 902])
    source, destination = move.stores()
    for path, content in move.content.items():
        # Tags are what no answer to a read tells: the first process is asked for them.
        kept = Attributes(content_type="text/csv", tags={"team": "blue"})
        put(source, move.source.key(path), content, attributes=kept)

    move.move(DirectPlane(processes=2))

    for path in move.content:
        assert destination.head(move.target.key(path)).attributes.tags == {"team": "blue"}


def test_an_object_that_somebody_else_wrote_is_judged_by_the_process_that_knows_the_stores(
    trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = trial("aws", "coreweave", [2000 + number for number in range(40)])
    _, destination = move.stores()
    taken = move.target.key(sorted(move.content)[7])
    write = direct.DirectPlane.carry

    def somebody_comes_first(plane: DirectPlane, *what: object) -> None:
        put(destination, taken, b"somebody else's")
        write(plane, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(direct.DirectPlane, "carry", somebody_comes_first)
    with pytest.raises(PreconditionFailed):
        move.move(DirectPlane(processes=2))

    assert b"".join(destination.get(taken)) == b"somebody else's"


def test_what_a_process_had_when_it_was_killed_is_carried_by_the_others(
    trial: MakeTrial, hand_came_first: threading.Event
) -> None:
    move = trial("google", "aws", (*range(3000, 3200), LARGE))

    def kill() -> None:
        hand_came_first.wait(PATIENCE_S)
        for pid in children(os.getpid()):
            if "tasks.core.plane.hand" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    move.move(DirectPlane(processes=2))
    killer.join()

    move.require_identical()
    move.require_clean()


def test_no_process_outlives_a_move_that_is_killed(trial: MakeTrial, tmp_path: Path) -> None:
    move = trial("google", "aws", (40 * MIB,))
    with Wire(move.far.endpoint("objects"), bytes_per_s=4 * MIB) as wire:
        process = start(move, tmp_path / "records.sqlite", processes=2, far=pointed_at(move.far, wire.port))
        deadline = time.monotonic() + PATIENCE_S
        while not (hands := children(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        while any(Path(f"/proc/{hand}").exists() for hand in hands) and time.monotonic() < deadline:
            time.sleep(0.02)

    assert hands
    assert not any(Path(f"/proc/{hand}").exists() for hand in hands)
