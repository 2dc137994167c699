"""Several destinations from one read between real servers: each gets everything or fails alone, by rclone's word."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.cloud import CloudConfig, Secret
from tasks.core.errors import Denied, IntegrityError, LintasError, PreconditionFailed
from tests.conformance.stores import MIB, open_store, pointed_at, put
from tests.conformance.wire import Wire
from tests.faults.conftest import MakeTrial, Trial
from tests.faults.fanout_process import fan_out
from tests.faults.mover_process import facts_of
from tests.servers import ObjectClouds

ROOT = Path(__file__).parents[2]
PARTS_IN_FLIGHT = 8
"""Six in memory, and two on their way into the journal."""
SIZES = (0, 1, 300_000, 8 * MIB, 20 * MIB + 1)


@pytest.fixture
def trials(trial: MakeTrial, object_clouds: ObjectClouds):
    """Makes one dataset that shall be on several clouds; a trial for each."""

    def make(near: str, far: tuple[str, ...], sizes_bytes: tuple[int, ...] = SIZES) -> list[Trial]:
        first = trial(near, far[0], sizes_bytes)
        others = [Trial(first.near, object_clouds[each], first.bucket, first.content) for each in far[1:]]
        for other in others:
            open_store(other.far, other.bucket).create_bucket()
        return [first, *others]

    return make


def size_of(moves: list[Trial]) -> int:
    return sum(map(len, moves[0].content.values()))


def require_done(*moves: Trial) -> None:
    for move in moves:
        move.require_identical()
        move.require_clean()


@pytest.mark.parametrize(
    ("near", "far"),
    [("aws", ("azure", "google")), ("google", ("aws", "azure", "coreweave")), ("azure", ("google", "coreweave"))],
)
def test_all_get_everything_from_one_read(trials, tmp_path: Path, near: str, far: tuple[str, ...]) -> None:
    moves = trials(near, far)
    first = moves[0]
    with Wire(first.near.endpoint("objects")) as wire:
        way = pointed_at(first.near, wire.port)
        routes = fan_out(first.near, [move.far for move in moves], first.bucket, tmp_path / "records", near_way=way)

    assert routes == [frozenset({"direct"})] * len(far)
    require_done(*moves)
    assert size_of(moves) <= wire.received_bytes < size_of(moves) + MIB


def test_what_a_destination_has_is_not_sent_to_it_again(trials, tmp_path: Path) -> None:
    moves = trials("aws", ("azure", "google"))
    first, second = moves
    fan_out(first.near, [first.far], first.bucket, tmp_path / "records")
    with Wire(first.far.endpoint("objects")) as wire:
        ways = [pointed_at(first.far, wire.port), second.far]
        fan_out(first.near, [first.far, second.far], first.bucket, tmp_path / "records", far_ways=ways)

    require_done(*moves)
    assert wire.sent_bytes < MIB


def without_rights(config: CloudConfig) -> CloudConfig:
    secrets = {**config.credentials, "secret_access_key": Secret("test:wrong", lambda _: "wrong")}
    return replace(config, credentials=secrets)


def test_a_destination_that_refuses_is_left_out_and_the_others_finish(trials, tmp_path: Path) -> None:
    refusing, *others = moves = trials("google", ("aws", "azure", "coreweave"))
    ways = [without_rights(refusing.far), *(move.far for move in others)]
    far = [move.far for move in moves]
    refused, *routes = fan_out(refusing.near, far, refusing.bucket, tmp_path / "records", far_ways=ways)

    assert isinstance(refused, Denied)
    assert routes == [frozenset({"direct"})] * 2
    require_done(*others)
    assert list(open_store(refusing.far, refusing.bucket).list("")) == []

    again = fan_out(refusing.near, far, refusing.bucket, tmp_path / "records")
    assert not any(isinstance(outcome, LintasError) for outcome in again)
    require_done(*moves)


@pytest.mark.parametrize("size_bytes", [10, 20 * MIB], ids=["whole", "in-parts"])
def test_what_somebody_else_wrote_at_one_destination_stays_and_the_others_get_theirs(
    trials, tmp_path: Path, size_bytes: int
) -> None:
    meddled, other = trials("azure", ("google", "aws"), (size_bytes,))
    (path,) = meddled.content
    there = open_store(meddled.far, meddled.bucket)
    failure, routes = fan_out(
        meddled.near,
        [meddled.far, other.far],
        meddled.bucket,
        tmp_path / "records",
        when_planned=lambda: put(there, meddled.target.key(path), b"somebody else's") and None,
    )

    assert isinstance(failure, PreconditionFailed)
    assert routes == frozenset({"direct"})
    require_done(other)
    assert b"".join(there.get(meddled.target.key(path))) == b"somebody else's"
    meddled.require_clean()


@pytest.mark.parametrize("size_bytes", [1000, 20 * MIB], ids=["whole", "in-parts"])
def test_wrong_bytes_from_the_source_become_visible_nowhere(trials, tmp_path: Path, size_bytes: int) -> None:
    moves = trials("aws", ("azure", "google"), (size_bytes,))
    first = moves[0]
    (content,) = first.content.values()
    with Wire(first.near.endpoint("objects"), damage_received=(content[:24], content[:24][::-1])) as wire:
        way = pointed_at(first.near, wire.port)
        far = [move.far for move in moves]
        failures = fan_out(first.near, far, first.bucket, tmp_path / "records", near_way=way)

    assert wire.damaged
    assert [type(failure) for failure in failures] == [IntegrityError] * 2
    for move in moves:
        assert list(open_store(move.far, move.bucket).list("out/")) == []
        move.require_clean()


@pytest.mark.parametrize("size_bytes", [1000, 20 * MIB], ids=["whole", "in-parts"])
def test_bytes_that_change_on_the_way_to_one_destination_are_refused_there_alone(
    trials, tmp_path: Path, size_bytes: int
) -> None:
    struck, other = trials("google", ("aws", "azure"), (size_bytes,))
    (content,) = struck.content.values()
    with Wire(struck.far.endpoint("objects"), damage_sent=(content[:24], content[:24][::-1])) as wire:
        ways = [pointed_at(struck.far, wire.port), other.far]
        far = [struck.far, other.far]
        failure, routes = fan_out(struck.near, far, struck.bucket, tmp_path / "records", far_ways=ways)
        assert wire.damaged

    assert isinstance(failure, LintasError)
    assert routes == frozenset({"direct"})
    require_done(other)
    assert list(open_store(struck.far, struck.bucket).list("out/")) == []


@pytest.mark.slow
@pytest.mark.parametrize("first_run", [1, 2], ids=["killed-with-one-destination", "killed-with-both"])
def test_a_killed_fan_out_goes_on_where_each_destination_was(trials, tmp_path: Path, first_run: int) -> None:
    moves = trials("google", ("aws", "azure"), (5_000, 40 * MIB + 5, 60 * MIB))
    size_bytes = size_of(moves)

    def started(moves: list[Trial], wires: list[Wire]) -> subprocess.Popen[str]:
        ways = [pointed_at(move.far, wire.port) for move, wire in zip(moves, wires, strict=True)]
        work = {
            "near": facts_of(moves[0].near),
            "far": [facts_of(move.far) for move in moves],
            "far_ways": [facts_of(way) for way in ways],
            "bucket": moves[0].bucket,
            "records": str(tmp_path / "records"),
        }
        command = [sys.executable, "-m", "tests.faults.fanout_process"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(work))
        process.stdin.close()
        process.stdin = None
        return process

    with (
        Wire(moves[0].far.endpoint("objects"), bytes_per_s=40 * MIB) as slow,
        Wire(moves[1].far.endpoint("objects")) as quick,
    ):
        wires = [slow, quick]
        process = started(moves[:first_run], wires[:first_run])
        deadline = time.monotonic() + 60
        while slow.sent_bytes < size_bytes // 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        before = [wire.sent_bytes for wire in wires]

        process = started(moves, wires)
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint

    require_done(*moves)
    for wire, had in zip(wires, before, strict=True):
        assert wire.sent_bytes - had < size_bytes - had + PARTS_IN_FLIGHT * 8 * MIB + MIB
