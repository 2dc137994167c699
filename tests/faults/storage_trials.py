"""Object stores and queues under each kind of fault that they can meet, by way of the knobs in front of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.local.faults import put_faults
from tasks.core.errors import LintasError
from tasks.core.ports import EventSource, Store
from tests.conformance.event_places import EventPlace
from tests.conformance.stores import MIB, keys, put, random_bytes, read
from tests.faults.outcomes import class_of, outcome_of

SEED = 20
LARGE_BYTES = 9 * MIB
"""An object of this size goes up in parts."""


@dataclass
class Storing:
    """A bucket as clients reach it, and as it is.

    Args:
        front: The address of the knobs.
        store: The bucket through them.
        honest: The same bucket without them.
    """

    front: str
    store: Store
    honest: Store

    def meet(self, kind: str, *, seed: int = SEED, **how: Any) -> None:
        """From now on this fault and no other comes about."""
        put_faults(self.front, [{"kind": kind, **how}], seed)

    def calm(self) -> None:
        """No fault any more."""
        put_faults(self.front, [])


def any_call(kind: str, **how: Any) -> StoreTrial:
    """Faults that any call may meet; afterwards nothing is there that was not written whole, and all is well again."""

    def trial(storing: Storing) -> Iterator[str]:
        there, large = b"there before", random_bytes(LARGE_BYTES)
        put(storing.honest, f"{kind}/there", there)
        calls: Mapping[str, Callable[[], object]] = {
            "list": lambda: list(storing.store.list(f"{kind}/")),
            "head": lambda: storing.store.head(f"{kind}/there"),
            "get": lambda: read(storing.store, f"{kind}/there"),
            "put": lambda: put(storing.store, f"{kind}/small", b"small"),
            "put in parts": lambda: put(storing.store, f"{kind}/large", large),
            "delete": lambda: storing.store.delete(f"{kind}/gone"),
        }
        for call in calls.values():
            storing.meet(kind, **how)
            yield outcome_of(call)
        storing.calm()
        written = {f"{kind}/there": there, f"{kind}/small": b"small", f"{kind}/large": large}
        for key in keys(storing.honest, f"{kind}/"):
            assert read(storing.honest, key) == written[key], key
        for name, call in calls.items():
            assert outcome_of(call) == "ok", name
        assert {key: read(storing.honest, key) for key in keys(storing.honest, f"{kind}/")} == written

    return trial


def wrong_bytes(storing: Storing) -> Iterator[str]:
    """One byte of an object's body is another on its way out."""
    content = random_bytes(200_000)
    put(storing.honest, "wrong/object", content)
    for seed in range(4):
        storing.meet("wrong_bytes", seed=seed, operation="GET *wrong/object*")
        try:
            yield "ok" if read(storing.store, "wrong/object") == content else "left to the manifest's digest"
        except LintasError as error:
            yield class_of(error)
    storing.calm()
    assert read(storing.store, "wrong/object") == content


@dataclass
class Listening:
    """A queue as its reader reaches it.

    Args:
        front: The address of the knobs.
        place: Where objects become events; it writes past the knobs.
        source: The reader, through them.
    """

    front: str
    place: EventPlace
    source: EventSource

    def meet(self, kind: str, **how: Any) -> None:
        """From now on this fault and no other comes about."""
        put_faults(self.front, [{"kind": kind, **how}], SEED)

    def calm(self) -> None:
        """No fault any more."""
        put_faults(self.front, [])


def an_event_outlasts(kind: str, **how: Any) -> EventTrial:
    """Faults that a reader may meet; the event is told all the same, and is gone once it is acknowledged."""

    def trial(listening: Listening) -> Iterator[str]:
        listening.place.write(f"{kind}.csv")
        listening.meet(kind, **how)
        yield outcome_of(lambda: listening.source.receive(wait_s=0.5))
        listening.calm()
        _, receipt = _told(listening)
        listening.meet(kind, **how)
        yield outcome_of(lambda: listening.source.acknowledge(receipt))
        listening.calm()
        _, receipt = _told(listening, may_be_gone=True)
        if receipt:
            listening.source.acknowledge(receipt)
        assert _told(listening, may_be_gone=True) == ("", "")

    return trial


def _told(listening: Listening, *, may_be_gone: bool = False) -> tuple[str, str]:
    """The next event's key and receipt, redelivered if need be; two empty texts when there is none."""
    listening.place.pass_time()
    for _ in range(2 if may_be_gone else 10):
        for event, receipt in listening.source.receive(wait_s=1.2):
            return str(event), receipt
    assert may_be_gone, "the event is lost"
    return "", ""


StoreTrial = Callable[[Storing], Iterator[str]]
EventTrial = Callable[[Listening], Iterator[str]]
"""Yields what comes out, one after the other; raises `AssertionError` when something else is not as promised."""

STORE_TRIALS: Mapping[str, StoreTrial] = {
    "throttle": any_call("throttle"),
    "deny": any_call("deny"),
    "error": any_call("error", status=500),
    "hang": any_call("hang", delay_s=0.5),
    "wrong_bytes": wrong_bytes,
    "cut": any_call("cut"),
    "lost": any_call("lost"),
}
EVENT_TRIALS: Mapping[str, EventTrial] = {
    "throttle": an_event_outlasts("throttle"),
    "deny": an_event_outlasts("deny"),
    "error": an_event_outlasts("error", status=500),
    "hang": an_event_outlasts("hang", delay_s=0.5),
    "cut": an_event_outlasts("cut"),
    "lost": an_event_outlasts("lost"),
}

_AGAIN = frozenset({"Retryable"})
PROMISED: Mapping[str, frozenset[str]] = {
    "throttle": _AGAIN,
    "deny": frozenset({"Denied"}),
    "error": _AGAIN,
    # Half a second is waited out.
    "hang": frozenset({"ok"}),
    "wrong_bytes": frozenset({"IntegrityError", "Retryable", "left to the manifest's digest"}),
    # An answer that has no body has no middle.
    "cut": frozenset({"Retryable", "ok"}),
    "lost": _AGAIN,
}


def through(place: EventPlace, address: str) -> EventSource:
    """The place's reader by way of an address in the place of its queue's."""
    url = place.config.endpoint("events")
    path = url.split("/", 3)[3:]
    return place.source(endpoints={**place.config.endpoints, "events": "/".join([address, *path])})


__all__ = ["EVENT_TRIALS", "PROMISED", "STORE_TRIALS", "Listening", "Storing", "through"]
