"""The event bridge: nothing is lost, nothing stops it, and Prefect's absence costs one delivery."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deployments import event_bridge
from deployments.event_bridge import Destination, carry, watch
from tasks.core.errors import Invalid, NotFound, Retryable
from tasks.core.ports import CloudEvent


def created(key: str, identity: str = "1") -> CloudEvent:
    return CloudEvent(identity, "lintas.object.created", "aws://raw", key, datetime(2026, 11, 23, tzinfo=UTC))


class Queue:
    """An event source in memory; whatever stands in `troubles` is raised first."""

    def __init__(self, *events: CloudEvent, troubles: tuple[Exception, ...] = ()) -> None:
        self.waiting = {f"r{index}": event for index, event in enumerate(events)}
        self.troubles = list(troubles)
        self.deliveries = 0

    def receive(self, *, wait_s: float) -> list[tuple[CloudEvent, str]]:
        del wait_s
        if self.troubles:
            raise self.troubles.pop(0)
        self.deliveries += bool(self.waiting)
        return [(event, receipt) for receipt, event in self.waiting.items()]

    def acknowledge(self, receipt: str) -> None:
        self.waiting.pop(receipt, None)


class Prefect:
    """Stands for `emit`: keeps what it takes; `troubles` are raised first, and events of `refused` keys always."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.troubles: list[Exception] = []
        self.refused: set[str] = set()

    def __call__(self, events: list[dict[str, Any]], *, prefect_api_url: str, auth: str | None) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        if any(event["payload"]["prefix"] in self.refused for event in events):
            raise Invalid("Prefect does not accept an event (422)")
        self.taken += events

    @property
    def landed(self) -> list[str]:
        return [event["payload"]["uri"] for event in self.taken]


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    standing_in = Prefect()
    monkeypatch.setattr(event_bridge, "emit", standing_in)
    monkeypatch.setattr(event_bridge, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(event_bridge, "_LONGEST_PAUSE_S", 0.001)
    return standing_in


@pytest.fixture
def to(tmp_path: Path) -> Destination:
    return Destination("http://127.0.0.1:9/api", tmp_path / "events" / "set-aside.jsonl")


def set_aside(to: Destination) -> Iterator[dict[str, Any]]:
    return map(json.loads, to.set_aside.read_text().splitlines() if to.set_aside.exists() else ())


def watched(open_source: Any, to: Destination, until: Any) -> None:
    """Watch until the condition holds."""
    stop, tried = threading.Event(), threading.Event()
    thread = threading.Thread(target=watch, args=("aws", open_source, to, stop, tried))
    thread.start()
    deadline = threading.Event()
    for _ in range(1000):
        if until():
            break
        deadline.wait(0.01)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert tried.is_set()
    assert until()


def test_nothing_is_acknowledged_when_prefect_does_not_answer(to: Destination) -> None:
    queue = Queue(created("flights/_SUCCESS"), created("flights/x"))
    with pytest.raises(Retryable, match="does not take events"):
        carry(queue, queue.receive(wait_s=0), to)
    assert len(queue.waiting) == 2


def test_events_that_complete_nothing_are_acknowledged_without_prefect(to: Destination) -> None:
    queue = Queue(created("flights/x"))
    carry(queue, queue.receive(wait_s=0), to)
    assert queue.waiting == {}


def test_while_prefect_is_away_the_batch_is_held_and_no_delivery_is_used_up(to: Destination, prefect: Prefect) -> None:
    queue = Queue(created("flights/_SUCCESS"))
    prefect.troubles = [Retryable("Prefect is away")] * 5
    watched(lambda: queue, to, lambda: queue.waiting == {})
    assert (prefect.landed, queue.deliveries) == (["aws://raw/flights"], 1)


def test_an_event_that_prefect_refuses_is_set_aside_and_the_others_go_on(to: Destination, prefect: Prefect) -> None:
    prefect.refused = {"bad"}
    queue = Queue(created("bad/_SUCCESS", "1"), created("good/_SUCCESS", "2"))
    carry(queue, queue.receive(wait_s=0), to)
    assert prefect.landed == ["aws://raw/good"]
    assert queue.waiting == {}
    (kept,) = set_aside(to)
    assert kept["event"]["subject"] == "bad/_SUCCESS"


def test_a_marker_where_no_dataset_can_be_is_set_aside(to: Destination, prefect: Prefect) -> None:
    queue = Queue(created("a/../b/_SUCCESS", "1"), created("good/_SUCCESS", "2"))
    carry(queue, queue.receive(wait_s=0), to)
    assert prefect.landed == ["aws://raw/good"]
    assert [kept["event"]["id"] for kept in set_aside(to)] == ["1"]


def test_no_trouble_of_a_source_ends_the_watching(to: Destination, prefect: Prefect) -> None:
    troubles = (Retryable("busy"), NotFound("queue 'x' does not exist"), ZeroDivisionError("a secret"))
    queue = Queue(created("flights/_SUCCESS"), troubles=troubles)
    openings = iter([Retryable("away"), RuntimeError("surprise")])

    def open_source() -> Queue:
        for trouble in openings:
            raise trouble
        return queue

    watched(open_source, to, lambda: queue.waiting == {})
    assert prefect.landed == ["aws://raw/flights"]


def test_what_a_surprise_says_is_not_logged(
    to: Destination, prefect: Prefect, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(created("flights/_SUCCESS"), troubles=(ZeroDivisionError("a secret"),))
    watched(lambda: queue, to, lambda: queue.waiting == {})
    assert "ZeroDivisionError" in caplog.text
    assert "a secret" not in caplog.text
