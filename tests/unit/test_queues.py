"""What a source of events makes of a message queue, whichever cloud's it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from tasks.core.errors import Invalid
from tasks.core.events import object_created
from tasks.core.ports import CloudEvent
from tasks.providers._dialects.queues import Message, QueueSource


class Messages:
    """A queue in memory: a body is the keys that were created, or None for what nobody understands."""

    name = "events"

    def __init__(self, *bodies: list[str] | None) -> None:
        self.left = {f"h#{number}": body for number, body in enumerate(bodies)}
        self.aside: list[str] = []

    def take(self, wait_s: float) -> Sequence[Message]:
        del wait_s
        return [Message(f"m-{receipt}", receipt, body) for receipt, body in self.left.items()]

    def remove(self, receipt: str) -> None:
        self.left.pop(receipt, None)

    def set_aside(self, message: Message) -> None:
        self.aside.append(message.id)

    def read(self, message: Message) -> list[CloudEvent]:
        if message.body is None:
            raise Invalid("not understood")
        moment = datetime(2026, 11, 25, tzinfo=UTC)
        return [
            object_created("aws", "raw", key, write="1", time=moment, size_bytes=0, version="") for key in message.body
        ]


def test_a_message_of_several_events_is_gone_when_all_are_acknowledged() -> None:
    queue = Messages(["a", "b"])
    source = QueueSource(queue)
    (_, one), (_, other) = source.receive(wait_s=0)
    source.acknowledge(one)
    source.acknowledge(one)
    assert queue.left
    source.acknowledge(other)
    assert not queue.left


def test_a_message_without_events_is_removed_at_once() -> None:
    queue = Messages([])
    assert QueueSource(queue).receive(wait_s=0) == []
    assert not queue.left


def test_what_is_not_understood_is_logged_once_without_its_content_and_the_others_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = Messages(None, ["a"])
    source = QueueSource(queue)
    assert [event.subject for event, _ in source.receive(wait_s=0)] == ["a"]
    source.receive(wait_s=0)
    assert queue.aside == ["m-h#0", "m-h#0"]
    assert len([record for record in caplog.records if "m-h#0" in record.getMessage()]) == 1


def test_a_message_does_not_show_what_it_says() -> None:
    assert "secret" not in repr(Message("1", "r", "secret"))
