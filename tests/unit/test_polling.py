"""Events found by looking: each write once, none lost, over restarts and whatever goes wrong in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, NotFound, Retryable, Terminal
from tasks.core.ports import ObjectInfo
from tasks.providers._dialects.polling import PollingSource, Rhythm, Watched, watched_places

EAGER = Rhythm(poll_s=0, redeliver_s=0)
START = datetime(2026, 11, 25, tzinfo=UTC)


class Bucket:
    """A bucket in memory, listed in the order of writing; `failing` breaks a listing after so many objects."""

    def __init__(self) -> None:
        self.objects: dict[str, ObjectInfo] = {}
        self.writes = 0
        self.failing: int | None = None
        self.missing = False

    def write(self, key: str, size_bytes: int = 1) -> None:
        self.writes += 1
        moment = START + timedelta(seconds=self.writes)
        self.objects[key] = ObjectInfo(key, size_bytes, f"v{self.writes}", moment)

    def listing(self, bucket: str, prefix: str) -> Iterator[ObjectInfo]:
        if self.missing:
            raise NotFound(f"bucket '{bucket}' does not exist")
        for number, info in enumerate(list(self.objects.values())):
            if number == self.failing:
                raise Retryable("the listing was cut")
            if info.key.startswith(prefix):
                yield info


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def opened(bucket: Bucket, memory: Path, rhythm: Rhythm = EAGER, clock: Clock | None = None) -> PollingSource:
    return PollingSource("site", [Watched("raw")], bucket.listing, memory, rhythm, clock or Clock())


def told(source: PollingSource, *, acknowledge: bool = True, looks: int = 4) -> list[str]:
    """Keys of the events of some looks."""
    found: list[str] = []
    for _ in range(looks):
        for event, receipt in source.receive(wait_s=0):
            found.append(event.subject)
            if acknowledge:
                source.acknowledge(receipt)
    return found


def test_what_was_there_before_the_watching_began_is_no_event(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("old")
    source = opened(bucket, tmp_path)
    bucket.write("new")
    assert told(source) == ["new"]


def test_a_bucket_that_comes_later_is_told_from_its_first_object_on(bucket: Bucket, tmp_path: Path) -> None:
    bucket.missing = True
    source = opened(bucket, tmp_path)
    assert told(source) == []
    bucket.missing = False
    bucket.write("first")
    assert told(source) == ["first"]


def test_an_event_that_was_not_acknowledged_outlives_the_process_with_its_id(bucket: Bucket, tmp_path: Path) -> None:
    source = opened(bucket, tmp_path)
    bucket.write("new")
    told(source, acknowledge=False, looks=2)
    ((before, _),) = source.receive(wait_s=0)
    source.close()
    ((after, receipt),) = opened(bucket, tmp_path).receive(wait_s=0)
    assert before == after
    assert receipt


def test_an_event_under_way_is_not_delivered_twice_before_its_time(bucket: Bucket, tmp_path: Path) -> None:
    source = opened(bucket, tmp_path, Rhythm(poll_s=0, redeliver_s=3600))
    bucket.write("new")
    assert told(source, acknowledge=False) == ["new"]


def test_what_is_still_changing_is_not_told(bucket: Bucket, tmp_path: Path) -> None:
    clock = Clock()
    source = opened(bucket, tmp_path, Rhythm(poll_s=0, settle_s=5, redeliver_s=0), clock)
    for size_bytes in (1, 2, 3):
        bucket.write("growing", size_bytes)
        assert told(source) == []
        clock.time += 4
    assert told(source) == []
    clock.time += 2
    assert told(source) == ["growing"]


def test_a_clock_that_was_put_back_keeps_nothing_waiting(bucket: Bucket, tmp_path: Path) -> None:
    clock = Clock()
    source = opened(bucket, tmp_path, Rhythm(poll_s=0, settle_s=5, redeliver_s=0), clock)
    bucket.write("new")
    assert told(source) == []
    clock.time -= 3600
    assert told(source) == ["new"]


def test_a_disk_that_is_not_mounted_for_a_while_makes_nothing_new(bucket: Bucket, tmp_path: Path) -> None:
    source = opened(bucket, tmp_path)
    bucket.write("a")
    told(source)
    kept, bucket.objects = bucket.objects, {}
    told(source)
    bucket.missing = True
    told(source)
    bucket.missing, bucket.objects = False, kept
    assert told(source) == []


def test_what_is_gone_is_forgotten(bucket: Bucket, tmp_path: Path) -> None:
    source = opened(bucket, tmp_path)
    bucket.write("stays")
    for number in range(50):
        bucket.write(f"goes-{number}")
    told(source, looks=20)
    bucket.objects = {"stays": bucket.objects["stays"]}
    told(source, looks=10)
    assert source.known() == 1


def test_a_first_look_that_fails_learns_nothing_and_is_tried_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("old")
    bucket.failing = 0
    with pytest.raises(Retryable):
        opened(bucket, tmp_path)
    bucket.failing = None
    assert told(opened(bucket, tmp_path)) == []


def test_a_memory_that_is_damaged_is_an_error_that_says_what_to_do(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "seen.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(Terminal, match=r"seen\.sqlite.*remove it"):
        opened(bucket, tmp_path)


ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from("abc")),
    st.tuples(st.just("delete"), st.sampled_from("abc")),
    st.tuples(st.just("look"), st.booleans()),
    st.tuples(st.just("cut"), st.integers(0, 2)),
    st.tuples(st.just("restart"), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=25))
def test_every_object_that_stays_is_told_exactly_once_whatever_happens_meanwhile(
    actions: list[tuple[str, object]],
) -> None:
    with TemporaryDirectory() as directory:
        bucket, memory = Bucket(), Path(directory)
        source = opened(bucket, memory)
        acknowledged: list[str] = []

        def take(*, acknowledge: bool) -> None:
            for event, receipt in source.receive(wait_s=0):
                if acknowledge:
                    acknowledged.append(event.id)
                    source.acknowledge(receipt)

        for kind, argument in actions:
            match kind:
                case "write":
                    bucket.write(str(argument))
                case "delete":
                    bucket.objects.pop(str(argument), None)
                case "look":
                    take(acknowledge=bool(argument))
                case "cut":
                    bucket.failing = int(str(argument))
                    with suppress(Retryable):
                        take(acknowledge=True)
                    bucket.failing = None
                case _:
                    source.close()
                    source = opened(bucket, memory)
        for _ in range(12):
            take(acknowledge=True)
        source.close()

    assert len(acknowledged) == len(set(acknowledged))
    last = {f"site://raw/{key}#{info.version}@{info.modified.isoformat()}" for key, info in bucket.objects.items()}
    assert last <= set(acknowledged)


@pytest.mark.parametrize(
    "options", [{}, {"watch": ""}, {"watch": " , "}, {"watch": "/raw"}, {"watch": "raw", "poll_s": "soon"}]
)
def test_options_that_make_no_sense_are_named(options: dict[str, str]) -> None:
    config = CloudConfig("site", "onprem", options=options)
    with pytest.raises(Invalid, match=r"clouds\.site\.options\."):
        EAGER.configured(config), watched_places(config)
