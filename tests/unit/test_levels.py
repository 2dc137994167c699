"""Side by side or plainly, a listing holds every object once."""

from __future__ import annotations

import threading
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core import levels
from tasks.core.errors import Retryable
from tasks.core.levels import listed
from tasks.core.ports import Level
from tests.memory_store import MemoryStore


class Levelled(MemoryStore):
    """A store in memory that tells what lies directly below a prefix."""

    def level(self, prefix: str, most: int) -> Level | None:
        self.before("level", prefix)
        objects = [info for info in self.list(prefix) if "/" not in info.key[len(prefix) :]]
        rest = {info.key[len(prefix) :].split("/", 1)[0] for info in self.list(prefix) if info not in objects}
        level = Level(objects, sorted(f"{prefix}{part}/" for part in rest))
        return None if len(objects) + len(rest) > most else level


def filled(store: MemoryStore, keys: list[str]) -> MemoryStore:
    for key in keys:
        store.put(key, [b"x"], size_bytes=1)
    return store


def in_little() -> object:
    return patch.multiple(levels, _PAGE=3, _AT_ONCE=2, _WIDE_ENOUGH=4, _MOST_PREFIXES=5)


keys = st.lists(st.text("ab/", min_size=1, max_size=6), max_size=40, unique=True)


@settings(max_examples=200, deadline=None)
@given(keys, st.sampled_from(["", "a", "a/", "b/a"]))
def test_nothing_is_missing_and_nothing_comes_twice(keys: list[str], prefix: str) -> None:
    store = filled(Levelled(), keys)
    with in_little():  # pyright: ignore[reportGeneralTypeIssues]
        found = [info.key for info in listed(store, prefix)]
    assert sorted(found) == sorted(key for key in keys if key.startswith(prefix))


def test_prefixes_are_listed_at_once() -> None:
    together = threading.Barrier(2, timeout=20)

    def meet(call: str, prefix: str) -> None:
        if call == "list" and prefix in ("a/", "b/") and threading.current_thread().name.startswith("listing"):
            together.wait()

    store = filled(Levelled(before=meet), [f"{top}/{n}" for top in "ab" for n in range(4)])
    with in_little():  # pyright: ignore[reportGeneralTypeIssues]
        assert len(list(listed(store, ""))) == 8


def test_a_small_dataset_costs_no_more_than_its_listing() -> None:
    calls: list[str] = []
    store = filled(Levelled(before=lambda call, _: calls.append(call)), ["a/1", "b/1"])
    calls.clear()
    with in_little():  # pyright: ignore[reportGeneralTypeIssues]
        assert len(list(listed(store, ""))) == 2
    assert calls == ["list"]


def test_what_is_known_to_be_flat_is_listed_once() -> None:
    calls: list[str] = []
    store = filled(Levelled(before=lambda call, _: calls.append(call)), [f"a/{number}" for number in range(20)])
    calls.clear()
    with in_little():  # pyright: ignore[reportGeneralTypeIssues]
        assert len(list(listed(store, "a/"))) == 20
    assert calls == ["list"]


def test_a_page_that_fails_ends_the_listing_and_its_threads() -> None:
    def fail(call: str, prefix: str) -> None:
        if call == "list" and prefix == "b/" and threading.current_thread().name.startswith("listing"):
            raise Retryable("busy", "try again")

    store = filled(Levelled(before=fail), [f"{top}/{n}" for top in "abc" for n in range(30)])
    with in_little(), pytest.raises(Retryable, match="busy"):  # pyright: ignore[reportGeneralTypeIssues]
        list(listed(store, ""))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("listing")]


def test_whoever_stops_reading_leaves_no_thread_behind() -> None:
    store = filled(Levelled(), [f"{top}/{n}" for top in "abc" for n in range(100)])
    with in_little():  # pyright: ignore[reportGeneralTypeIssues]
        reading = listed(store, "")
        next(reading)
        reading.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("listing")]
