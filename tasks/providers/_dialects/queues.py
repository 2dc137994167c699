"""What the message queues of several clouds have in common once their own words are translated.

A provider supplies a `MessageQueue` (take, remove, set aside, read); `QueueSource` makes an `EventSource` of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks.core.errors import Invalid
from tasks.core.ports import CloudEvent

_log = logging.getLogger(__name__)

AT_ONCE = 10
"""Messages that are taken at once."""

_SHORTEST_WAIT_S = 1.0
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a queue.

    Args:
        id: The queue's own id of it, the same at every delivery.
        receipt: What this delivery is removed by.
        body: What it says, in the provider's own form. Never logged.
    """

    id: str
    receipt: str
    body: Any = field(repr=False)


class MessageQueue(Protocol):
    """A queue from which a message comes again until it is removed."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def take(self, wait_s: float) -> Sequence[Message]:
        """Up to `AT_ONCE` messages, after waiting at most `wait_s` seconds for the first; it may wait less."""
        ...

    def remove(self, receipt: str) -> None:
        """Never deliver it again; returns silently when somebody else has it by now or it is gone."""
        ...

    def set_aside(self, message: Message) -> None:
        """Get a message that nobody understands out of the way of the others, without losing it."""
        ...

    def read(self, message: Message) -> Sequence[CloudEvent]:
        """The events of created objects in it; none for other kinds of events. Invalid: it is not understood."""
        ...


class QueueSource:
    """A message queue; implements `tasks.core.ports.EventSource`.

    A message may carry several events; it is removed when all of them were acknowledged. One that carries none is
    removed at once, and one that is not understood is logged by its id and set aside.
    """

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._shared: OrderedDict[str, set[str]] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()

    def receive(self, *, wait_s: float) -> list[tuple[CloudEvent, str]]:
        """See `EventSource.receive`."""
        deadline = time.monotonic() + wait_s
        while True:
            messages = self._queue.take(max(0.0, deadline - time.monotonic()))
            found = [pair for message in messages for pair in self._events_in(message)]
            if found or time.monotonic() + _SHORTEST_WAIT_S > deadline:
                return found

    def acknowledge(self, receipt: str) -> None:
        """See `EventSource.acknowledge`."""
        place, _, handle = receipt.partition("#")
        if place != "0/1":
            with self._lock:
                # Forgotten handles are those of deliveries that were given up: the message comes again.
                waiting = self._shared.get(handle, {""})
                waiting.discard(receipt)
                if waiting:
                    return
                self._shared.pop(handle, None)
        self._queue.remove(handle)

    def _events_in(self, message: Message) -> list[tuple[CloudEvent, str]]:
        try:
            events = self._queue.read(message)
        except Invalid:
            self._tell(message)
            self._queue.set_aside(message)
            return []
        if not events:
            self._queue.remove(message.receipt)
            return []
        pairs = [(event, f"{number}/{len(events)}#{message.receipt}") for number, event in enumerate(events)]
        if len(pairs) > 1:
            with self._lock:
                self._shared[message.receipt] = {receipt for _, receipt in pairs}
                _forget_oldest(self._shared)
        return pairs

    def _tell(self, message: Message) -> None:
        """Log a message that is not understood, once as long as it is remembered."""
        with self._lock:
            if message.id in self._told:
                return
            self._told[message.id] = None
            _forget_oldest(self._told)
        _log.warning("message %s of '%s' is not understood and is set aside", message.id, self._queue.name)


def _forget_oldest(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
