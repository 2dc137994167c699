"""Two moves to one destination: one goes on, the other waits or is refused, and a dead one's lease lapses."""

from __future__ import annotations

import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.errors import LintasError, PreconditionFailed, Retryable
from tasks.core.lease import LEASE, Terms, Watch, acquire, leased
from tasks.core.listing import read_manifest
from tests.memory_store import MemoryStore

URI = DatasetURI("far", "c", "lake")


class Clock:
    def __init__(self, time_s: float = 1000.0) -> None:
        self.time = time_s

    def __call__(self) -> float:
        return self.time

    def passes(self, seconds: float) -> None:
        self.time += seconds


def setting() -> tuple[MemoryStore, Clock, Terms]:
    clock = Clock()
    return MemoryStore("far", "c"), clock, Terms(term_s=60, grace_s=15, now=clock)


def test_the_second_is_refused_while_the_first_works() -> None:
    store, clock, terms = setting()
    first, other = acquire(Watch(store, URI, terms), "one"), Watch(store, URI, terms)
    for _ in range(5):
        clock.passes(50)
        first.require()
        with pytest.raises(Retryable, match="one is moving a dataset to far://c/lake") as refused:
            acquire(other, "two")
        assert refused.value.retry_after_s == 75
    first.give_back()
    acquire(Watch(store, URI, terms), "two").require()


def test_a_dead_owner_s_lease_lapses_and_it_notices_when_it_wakes_up() -> None:
    store, clock, terms = setting()
    first = acquire(Watch(store, URI, terms), "one")
    other = Watch(store, URI, terms)
    other.look()
    clock.passes(74)
    with pytest.raises(Retryable):
        acquire(other, "two")
    clock.passes(2)
    second = acquire(other, "two")
    with pytest.raises(PreconditionFailed, match="took far://c/lake over"):
        first.require()
    with pytest.raises(PreconditionFailed):
        first.require()
    first.give_back()
    second.require()


def test_a_lease_whose_owner_is_known_to_be_dead_is_taken_over_at_once() -> None:
    store, _, terms = setting()
    acquire(Watch(store, URI, terms), "one")
    acquire(Watch(store, URI, terms), "two", lambda owner: owner == "one").require()


def test_of_two_that_take_a_lapsed_lease_exactly_one_gets_it() -> None:
    store, clock, terms = setting()
    acquire(Watch(store, URI, terms), "dead")
    watches = [Watch(store, URI, terms) for _ in range(2)]
    for watch in watches:
        watch.look()
    clock.passes(100)
    rival: list[object] = []

    def overtake(call: str, _key: str) -> None:
        if call == "put" and not rival:
            rival.append(None)
            rival.append(acquire(watches[0], "rival"))

    store.before = overtake
    with pytest.raises(Retryable):
        acquire(watches[1], "slow")
    assert len(rival) == 2


def test_a_store_that_is_away_costs_the_lease_only_when_its_term_is_over() -> None:
    store, clock, terms = setting()
    lease = acquire(Watch(store, URI, terms), "one")

    def away(call: str, _key: str) -> None:
        raise Retryable("the store is away", "wait")

    store.before = away
    clock.passes(59)
    lease.require()
    clock.passes(2)
    with pytest.raises(Retryable):
        lease.require()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"until": "never"}'])
def test_a_lease_that_cannot_be_read_keeps_nobody_out(content: bytes) -> None:
    store, _, terms = setting()
    store.write(URI.key(LEASE), content)
    acquire(Watch(store, URI, terms), "one").require()


def test_the_lease_is_no_part_of_the_dataset_and_is_gone_at_the_end() -> None:
    store, _, terms = setting()
    with leased(store, URI, "one", terms):
        assert len(read_manifest(store, URI)) == 0
        with pytest.raises(LintasError), leased(store, URI, "two", terms, wait_s=0):
            pass
    assert store.objects == {}


def test_no_clock_however_wrong_takes_over_a_live_lease() -> None:
    store, clock, terms = setting()
    first = acquire(Watch(store, URI, terms), "one")
    for ahead_s in (-1e9, -3600.0, 3600.0, 1e9):
        theirs = Clock(clock.time + ahead_s)
        other = Watch(store, URI, Terms(term_s=60, grace_s=15, now=theirs))
        for _ in range(5):
            with pytest.raises(Retryable):
                acquire(other, "two")
            theirs.passes(50)
            first.require()


def test_work_that_was_given_away_ends_with_its_move() -> None:
    store, clock, terms = setting()
    first, watch = acquire(Watch(store, URI, terms), "one"), Watch(store, URI, terms)
    watch.require("one")
    clock.passes(74)
    watch.require("one")
    clock.passes(2)
    with pytest.raises(PreconditionFailed, match="far://c/lake"):
        watch.require("one")
    first.require()
    watch.require("one")
    with pytest.raises(PreconditionFailed):
        watch.require("two")
    first.give_back()
    with pytest.raises(PreconditionFailed):
        watch.require("one")
