"""A lease on a destination, so that two moves never write to one dataset at the same time.

The lease is an object beside the dataset (`.lintas/lease.json`), made by a conditional write: of two moves exactly one
gets it. It names its owner and until when it holds, and its owner renews it while it works. One whose owner is dead
lapses, and the next move takes it over by a write that names the version it saw. Clocks may differ: a lease counts as
lapsed only some time after its end.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tasks.core.attributes import Attributes
from tasks.core.dataset import RESERVED_PREFIX, DatasetURI
from tasks.core.errors import LintasError, NotFound, PreconditionFailed, Retryable

if TYPE_CHECKING:
    from tasks.core.ports import Store

LEASE = RESERVED_PREFIX + "lease.json"
TERM_S = 60.0
_SKEW_S = 15.0
_POLL_S = 2.0

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a lease holds without being renewed, and how far the clocks of two machines may differ."""

    term_s: float = TERM_S
    skew_s: float = _SKEW_S
    now: Callable[[], datetime] = _now


class Lease:
    """A lease that is held. Check it before whatever must not happen twice."""

    def __init__(self, store: Store, uri: DatasetURI, owner: str, terms: Terms, version: str) -> None:
        self._store, self._uri, self._owner, self._terms = store, uri, owner, terms
        self._version = version
        self._until = terms.now() + timedelta(seconds=terms.term_s)
        self._lost: LintasError | None = None
        self._lock = threading.Lock()

    def require(self) -> None:
        """Insist that the lease is still ours, renewing it. Raises `PreconditionFailed` when it is not."""
        with self._lock:
            self._renew()

    def renew_quietly(self) -> None:
        """Renew it. A failure shows in the next `require`, or passes when a later renewal succeeds."""
        try:
            self.require()
        except LintasError as error:
            _log.warning("the lease of %s could not be renewed: %s", self._uri, error)

    def give_back(self) -> None:
        """Let the next move in at once. A failure only makes it wait for the lease to lapse."""
        with self._lock:
            try:
                if self._lost is None and self._store.head(self._uri.key(LEASE)).version == self._version:
                    self._store.delete(self._uri.key(LEASE))
            except LintasError as error:
                _log.warning("the lease of %s lapses by itself: %s", self._uri, error)

    def _renew(self) -> None:
        if self._lost is not None:
            raise self._lost
        try:
            self._version = _written(self._store, self._uri, self._owner, self._terms, self._version)
        except PreconditionFailed as error:
            self._lost = PreconditionFailed(
                f"another move took {self._uri} over from this one", "see that it ends, then run this one again"
            )
            raise self._lost from error
        except Retryable:
            if self._terms.now() < self._until:
                return
            raise
        self._until = self._terms.now() + timedelta(seconds=self._terms.term_s)


def acquire(
    store: Store,
    uri: DatasetURI,
    owner: str,
    terms: Terms | None = None,
    is_dead: Callable[[str], bool] = lambda _owner: False,
) -> Lease:
    """Take the lease of a destination.

    Args:
        store: The destination's store; its bucket exists.
        uri: The destination.
        owner: Who asks, for people: a machine and a process.
        terms: How long it holds.
        is_dead: Whether the owner of a lease is known to have ended, which ends the lease too.

    Raises:
        Retryable: Another move holds it; `retry_after_s` says when it would lapse. The caller waits, or refuses.
    """
    terms = terms or Terms()
    key = uri.key(LEASE)
    try:
        there = store.head(key)
    except NotFound:
        there = None
    if there is not None:
        holder, until = _read(store, key, there.version)
        left_s = (until - terms.now()).total_seconds() + terms.skew_s
        if left_s > 0 and not is_dead(holder):
            raise _held(uri, holder, left_s)
    try:
        return Lease(store, uri, owner, terms, _written(store, uri, owner, terms, there.version if there else None))
    except PreconditionFailed:
        raise _held(uri, "another one", terms.term_s) from None


def require_held(store: Store, uri: DatasetURI, owner: str, terms: Terms | None = None) -> None:
    """Insist that an owner holds the lease of a destination, for whoever works for it on another machine.

    Raises:
        PreconditionFailed: The owner gave it back, let it lapse, or lost it to another move.
    """
    terms = terms or Terms()
    try:
        holder, until = _read(store, uri.key(LEASE), store.head(uri.key(LEASE)).version)
    except NotFound:
        holder, until = "", terms.now()
    if holder != owner or (until - terms.now()).total_seconds() + terms.skew_s <= 0:
        raise PreconditionFailed(f"the move to {uri} that this work belongs to has ended", "run the move again")


@contextmanager
def leased(
    store: Store,
    uri: DatasetURI,
    owner: str,
    terms: Terms | None = None,
    *,
    is_dead: Callable[[str], bool] = lambda _owner: False,
    wait_s: float = TERM_S + _SKEW_S,
) -> Generator[Lease]:
    """Hold the lease of a destination while the block runs, renewing it every third of its term.

    Args:
        store, uri, owner, terms, is_dead: See `acquire`.
        wait_s: How long to wait for another move's lease, in seconds: as long as one needs to lapse.

    Raises:
        Retryable: Another move holds the lease and keeps renewing it.
    """
    stop = threading.Event()
    lease = _awaited(lambda: acquire(store, uri, owner, terms, is_dead), wait_s, stop)
    every_s = (terms or Terms()).term_s / 3

    def keep() -> None:
        while not stop.wait(every_s):
            lease.renew_quietly()

    keeper = threading.Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        stop.set()
        keeper.join()
        lease.give_back()


def _awaited(acquired: Callable[[], Lease], wait_s: float, stop: threading.Event) -> Lease:
    give_up = time.monotonic() + wait_s
    while True:
        try:
            return acquired()
        except Retryable as error:
            left_s = give_up - time.monotonic()
            if left_s <= 0:
                raise
            stop.wait(min(left_s, _POLL_S, error.retry_after_s or _POLL_S))


def _held(uri: DatasetURI, holder: str, left_s: float) -> Retryable:
    return Retryable(
        f"{holder} is moving a dataset to {uri}", "wait until it has ended, then run again", retry_after_s=left_s
    )


def _read(store: Store, key: str, version: str) -> tuple[str, datetime]:
    """Whose it is and until when; a lease that cannot be read has no owner and has lapsed."""
    try:
        said = json.loads(b"".join(store.get(key, version=version)))
        return str(said["owner"]), datetime.fromisoformat(said["until"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return "nobody", datetime.min.replace(tzinfo=UTC)
    except (NotFound, PreconditionFailed) as error:
        raise Retryable(f"the lease '{key}' changed hands", "run again", retry_after_s=0.5) from error


def _written(store: Store, uri: DatasetURI, owner: str, terms: Terms, version: str | None) -> str:
    until = terms.now() + timedelta(seconds=terms.term_s)
    text = json.dumps({"lintas_lease": 1, "owner": owner, "until": until.isoformat()}).encode()
    return store.put(
        uri.key(LEASE),
        [text],
        size_bytes=len(text),
        attributes=Attributes(content_type="application/json"),
        if_version=version,
        if_absent=version is None,
    ).version
