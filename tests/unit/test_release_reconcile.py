"""Reconciling: whatever happens on the way, the clouds, the record and the alias come to agree."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.core.errors import Denied, Invalid, NotFound, PreconditionFailed, Retryable, Stockout
from tasks.core.reconcile import reconcile, reconcile_until
from tasks.core.release import (
    Endpoint,
    EndpointSpec,
    Release,
    ReleaseState,
    governing,
    request_release,
    roll_back,
)

START = datetime(2026, 11, 5, 10, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process dies: nothing catches it, nothing after it happens."""


@dataclass
class World:
    """All that outlives a crash: the book, the clouds, the alias. Every call to it is a possible crash point."""

    clouds: tuple[str, ...] = ("here", "there", "old")
    releases: dict[str, Release] = field(default_factory=dict)
    serving: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    alias: str = ""
    time: datetime = START
    calls: int = 0
    crash_at: frozenset[int] = frozenset()
    looks_until_healthy: int = 2
    deploys: int = 0
    broken_digest: str = ""

    def point(self) -> None:
        self.calls += 1
        if self.calls in self.crash_at:
            raise Crash

    def servers(self) -> dict[str, Cloud]:
        return {cloud: Cloud(self, cloud) for cloud in self.clouds}

    def project(self, release: Release) -> None:
        self.point()
        self.alias = release.version
        self.point()

    def fetch(self, release: Release) -> Path:
        self.point()
        return Path("/models") / release.version

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def run(self, release: Release, deadline_s: float = 30) -> Release:
        return reconcile_until(
            release,
            self.servers(),
            Book(self),
            fetch=self.fetch,
            project=self.project,
            clock=lambda: self.time,
            sleep=self.sleep,
            deadline_s=deadline_s,
            poll_s=1,
        )

    def request(self, version: str, weights: tuple[tuple[str, int], ...]) -> Release:
        return request_release(Book(self), "flights", version, f"digest-{version}", weights, now=self.time)

    def served(self) -> dict[str, str]:
        return {cloud: digest for cloud, (digest, _, _) in self.serving.items()}

    def states(self) -> list[str]:
        return [str(release.state) for _, release in sorted(self.releases.items())]


@dataclass
class Book:
    world: World

    def read(self, release_id: str) -> Release:
        self.world.point()
        return self.world.releases[release_id]

    def latest(self, model: str) -> Release | None:
        found = self.list(model)
        return max(found, key=lambda release: release.release_id) if found else None

    def list(self, model: str | None = None) -> list[Release]:
        self.world.point()
        return [release for release in self.world.releases.values() if release.model == (model or release.model)]

    def write(self, release: Release, *, read_generation: int) -> Release:
        self.world.point()
        there = self.world.releases.get(release.release_id)
        if (there.generation if there else 0) != read_generation:
            raise PreconditionFailed("another writer came first")
        written = replace(release, generation=read_generation + 1)
        self.world.releases[release.release_id] = written
        self.world.point()
        return written


@dataclass
class Cloud:
    world: World
    name: str

    def deploy(self, spec: EndpointSpec) -> Endpoint:
        self.world.point()
        if self.name in self.world.errors:
            raise self.world.errors[self.name]
        if self.world.serving.get(self.name, ("", "", 0))[:2] != (spec.digest, spec.version):
            self.world.serving[self.name] = (spec.digest, spec.version, 0)
            self.world.deploys += 1
        self.world.point()
        return self._seen()

    def describe(self, name: str) -> Endpoint | None:
        self.world.point()
        error = self.world.errors.get(self.name)
        if isinstance(error, Retryable):
            raise error
        if self.name not in self.world.serving:
            return None
        digest, version, looks = self.world.serving[self.name]
        self.world.serving[self.name] = (digest, version, looks + 1)
        return self._seen()

    def _seen(self) -> Endpoint:
        digest, version, looks = self.world.serving[self.name]
        healthy = looks >= self.world.looks_until_healthy and digest != self.world.broken_digest
        return Endpoint(
            self.name, "flights", f"http://{self.name}", 0, digest, version, healthy, "" if healthy else "no"
        )

    def predict(self, name: str, payload: bytes) -> bytes:
        raise AssertionError("reconciling asks for no prediction")

    def delete(self, name: str) -> None:
        self.world.point()
        self.world.serving.pop(self.name, None)
        self.world.point()


BOTH = (("here", 60), ("there", 40))


def live_world(version: str = "1", weights: tuple[tuple[str, int], ...] = (("old", 50), ("here", 50))) -> World:
    world = World()
    assert world.run(world.request(version, weights)).state is ReleaseState.LIVE
    world.calls = 0
    world.deploys = 0
    world.time += timedelta(hours=1)
    return world


def test_a_release_goes_live_everywhere_and_the_alias_follows():
    world = World()
    done = world.run(world.request("1", BOTH))
    assert done.state is ReleaseState.LIVE
    assert [(e.cloud, e.weight, e.digest, e.healthy) for e in done.endpoints] == [
        ("here", 60, "digest-1", True),
        ("there", 40, "digest-1", True),
    ]
    assert (world.served(), world.alias) == ({"here": "digest-1", "there": "digest-1"}, "1")


def test_the_next_release_replaces_it_and_removes_what_only_the_old_one_used():
    world = live_world()
    done = world.run(world.request("2", BOTH))
    assert world.served() == {"here": "digest-2", "there": "digest-2"}
    assert world.states() == ["superseded", "live"]
    assert (world.alias, done.reason) == ("2", "")


def test_wanting_again_what_is_live_changes_nothing():
    world = live_world(weights=BOTH)
    again = world.request("1", BOTH)
    assert world.run(again).state is ReleaseState.LIVE
    assert (len(world.releases), world.deploys) == (1, 0)


def test_an_alias_that_somebody_removed_is_written_again():
    world = live_world(weights=BOTH)
    world.alias = ""
    world.run(next(iter(world.releases.values())))
    assert world.alias == "1"


def test_drift_of_a_live_release_is_repaired():
    world = live_world(weights=BOTH)
    world.serving["here"] = ("digest-of-somebody-else", "9", 5)
    del world.serving["there"]
    world.run(next(iter(world.releases.values())))
    assert world.served() == {"here": "digest-1", "there": "digest-1"}


def crash_points() -> int:
    world = live_world()
    world.run(world.request("2", BOTH))
    return world.calls


@pytest.mark.parametrize("second", [0, 1, 5, 11])
def test_killed_at_any_call_and_run_again_it_converges(second):
    total = crash_points()
    assert total > 30
    for first in range(1, total + 1):
        world = live_world()
        world.crash_at = frozenset({first, first + second})
        for _ in range(3):
            try:
                release = world.run(world.request("2", BOTH))
            except Crash:
                continue
            break
        assert release.state is ReleaseState.LIVE
        assert world.served() == {"here": "digest-2", "there": "digest-2"}, first
        assert world.states() == ["superseded", "live"], first
        assert world.alias == "2"
        assert world.deploys == 2, first


def test_a_release_that_never_becomes_healthy_fails_and_the_one_before_is_restored():
    world = live_world()
    world.broken_digest = "digest-2"
    done = world.run(world.request("2", BOTH))
    assert done.state is ReleaseState.FAILED
    assert "here: no" in done.reason
    assert world.served() == {"old": "digest-1", "here": "digest-1"}
    assert (world.states(), world.alias) == (["live", "failed"], "1")


def test_a_first_release_that_fails_leaves_nothing_behind():
    world = World(broken_digest="digest-1")
    assert world.run(world.request("1", BOTH)).state is ReleaseState.FAILED
    assert (world.served(), world.alias) == ({}, "")


def test_no_capacity_is_waited_for_until_the_deadline():
    world = World(errors={"there": Stockout("there has no machine left")})
    done = world.run(world.request("1", BOTH))
    assert done.state is ReleaseState.FAILED
    assert "there" in done.reason
    assert world.time >= START + timedelta(seconds=30)


def test_an_error_that_waiting_cannot_mend_fails_the_release_at_once():
    world = World(errors={"there": Denied("there refuses the token", "renew it")})
    done = world.run(world.request("1", BOTH))
    assert (done.state, done.reason) == (ReleaseState.FAILED, "there: there refuses the token; renew it.")
    assert world.time < START + timedelta(seconds=5)


def test_a_cloud_that_is_away_for_a_while_only_delays():
    world = World(errors={"there": Retryable("there is away")})
    release = world.request("1", BOTH)
    now = reconcile(
        release, world.servers(), Book(world), fetch=world.fetch, project=world.project, now=world.time, deadline_s=30
    )
    assert (now.state, now.reason) == (ReleaseState.ROLLING_OUT, "here: does not serve it yet, there: there is away")
    world.errors.clear()
    assert world.run(release).state is ReleaseState.LIVE


def test_a_lost_cloud_that_is_no_target_does_not_hold_a_release_up():
    world = live_world()
    world.errors["old"] = Retryable("old is gone")
    before = world.time
    assert world.run(world.request("2", BOTH)).state is ReleaseState.LIVE
    assert world.time - before < timedelta(seconds=10)
    assert world.alias == "2"


def test_a_newer_release_overtakes_one_that_is_on_its_way():
    world = World()
    first = world.request("1", BOTH)
    world.time += timedelta(seconds=1)
    second = world.request("2", BOTH)
    assert world.run(first).state is ReleaseState.SUPERSEDED
    assert world.run(second).state is ReleaseState.LIVE
    assert world.run(first).state is ReleaseState.SUPERSEDED
    assert (world.served()["here"], world.alias) == ("digest-2", "2")


def test_a_target_without_a_server_is_refused_before_anything_is_done():
    world = World()
    with pytest.raises(Invalid, match="'moon' has no server"):
        world.run(world.request("1", (("here", 50), ("moon", 50))))
    assert world.served() == {}


def test_rolling_back_brings_back_what_was_live_with_its_weights():
    world = live_world(weights=(("old", 50), ("here", 50)))
    world.run(world.request("2", BOTH))
    world.time += timedelta(minutes=1)
    back = roll_back(Book(world), "flights", now=world.time)
    done = world.run(back)
    assert (done.state, done.version, done.weights) == (ReleaseState.LIVE, "1", (("old", 50), ("here", 50)))
    assert world.served() == {"old": "digest-1", "here": "digest-1"}
    assert world.states() == ["superseded", "rolled_back", "live"]
    assert world.alias == "1"
    assert world.releases[back.previous].version == "2"


def test_rolling_back_again_goes_further_back_and_never_forth():
    world = live_world(weights=BOTH)
    for version in ("2", "3"):
        world.time += timedelta(minutes=1)
        world.run(world.request(version, BOTH))
    versions = []
    for _ in range(2):
        world.time += timedelta(minutes=1)
        versions.append(world.run(roll_back(Book(world), "flights", now=world.time)).version)
    assert versions == ["2", "1"]
    with pytest.raises(NotFound, match="no earlier release that was live"):
        roll_back(Book(world), "flights", now=world.time)


def test_a_release_that_never_was_live_is_not_rolled_back_to():
    world = live_world(weights=BOTH)
    world.broken_digest = "digest-2"
    world.run(world.request("2", BOTH))
    world.broken_digest = ""
    world.time += timedelta(minutes=1)
    world.run(world.request("3", BOTH))
    world.time += timedelta(minutes=1)
    assert roll_back(Book(world), "flights", now=world.time).version == "1"


def test_rolling_back_a_model_that_was_never_released_says_so():
    with pytest.raises(NotFound, match="was never released"):
        roll_back(Book(World()), "flights", now=START)


def test_an_alias_that_cannot_be_written_leaves_the_release_live_and_is_written_next_time():
    world = World()
    release = world.request("1", BOTH)

    def denied(_: Release) -> None:
        raise Denied("the registry refuses the alias")

    with pytest.raises(Denied):
        reconcile_until(
            release,
            world.servers(),
            Book(world),
            fetch=world.fetch,
            project=denied,
            clock=lambda: world.time,
            sleep=world.sleep,
        )
    ruling = governing(Book(world), "flights")
    assert ruling is not None
    assert (ruling.state, world.alias) == (ReleaseState.LIVE, "")
    world.run(release)
    assert world.alias == "1"
