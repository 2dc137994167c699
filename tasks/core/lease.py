"""A lease on a destination, so that two moves never write to one dataset at the same time.

The lease is an object beside the dataset (`.lintas/lease.json`), made by a conditional write: of two moves exactly one
gets it. It names its owner, who writes it anew while it works. One that nobody writes anew for longer than its term has
lapsed, and the next move takes it over by a write that names the version it saw. Whoever waits measures that with its
own stopwatch, from when it first saw that version: no two clocks are ever compared, and a wrong one takes nothing over.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.attributes import Attributes
from tasks.core.dataset import RESERVED_PREFIX, DatasetURI
from tasks.core.errors import LintasError, NotFound, PreconditionFailed, Retryable

if TYPE_CHECKING:
    from tasks.core.ports import Store

LEASE = RESERVED_PREFIX + "lease.json"
TERM_S = 60.0
_GRACE_S = 15.0
_POLL_S = 2.0
_WAIT_S = TERM_S + _GRACE_S + 2 * _POLL_S

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a lease holds without being renewed, in seconds.

    Args:
        term_s: What its owner counts on.
        grace_s: How much longer others wait.
        now: A stopwatch in seconds, of which only differences count.
    """

    term_s: float = TERM_S
    grace_s: float = _GRACE_S
    now: Callable[[], float] = time.monotonic


class Watch:
    """Looks at the lease of a destination, again and again, and so knows for how long nobody has renewed it.

    Args:
        store: The destination's store; its bucket exists.
        uri: The destination.
        terms: How long leases hold.
    """

    def __init__(self, store: Store, uri: DatasetURI, terms: Terms | None = None) -> None:
        self.store, self.uri, self.terms = store, uri, terms or Terms()
        self.version: str | None = None
        """The lease that was last seen; None for none."""
        self._since = 0.0

    def look(self) -> tuple[str, float]:
        """Whose the lease is, and in how many seconds it lapses: 0 or less when it has, or there is none."""
        key = self.uri.key(LEASE)
        try:
            version = self.store.head(key).version
        except NotFound:
            self.version = None
            return "", 0.0
        holder = _owner(self.store, key, version)
        now = self.terms.now()
        if version != self.version:
            self.version, self._since = version, now
        if not holder:
            return "", 0.0
        return holder, self._since + self.terms.term_s + self.terms.grace_s - now

    def require(self, owner: str) -> None:
        """Insist that an owner holds the lease, for whoever works for it on another machine.

        Raises:
            PreconditionFailed: The owner gave it back, let it lapse, or lost it to another move.
        """
        holder, left_s = self.look()
        if holder != owner or left_s <= 0:
            raise PreconditionFailed(
                f"the move to {self.uri} that this work belongs to has ended", "run the move again"
            )


class Lease:
    """A lease that is held. Check it before whatever must not happen twice."""

    def __init__(self, store: Store, uri: DatasetURI, owner: str, terms: Terms, version: str | None) -> None:
        self._store, self._uri, self._owner, self._terms = store, uri, owner, terms
        self._until = terms.now() + terms.term_s
        self._version = _written(store, uri, owner, version)
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
        until = self._terms.now() + self._terms.term_s
        try:
            self._version = _written(self._store, self._uri, self._owner, self._version)
        except PreconditionFailed as error:
            self._lost = PreconditionFailed(
                f"another move took {self._uri} over from this one", "see that it ends, then run this one again"
            )
            raise self._lost from error
        except Retryable:
            if self._terms.now() < self._until:
                return
            raise
        self._until = until


def acquire(watch: Watch, owner: str, is_dead: Callable[[str], bool] = lambda _owner: False) -> Lease:
    """Take the lease of a destination.

    Args:
        watch: Of the destination. One that another move holds can only be taken over by the watch that saw it before.
        owner: Who asks, for people: a machine and a process.
        is_dead: Whether the owner of a lease is known to have ended, which ends the lease too.

    Raises:
        Retryable: Another move holds it; `retry_after_s` says when it would lapse. The caller waits, or refuses.
    """
    holder, left_s = watch.look()
    if left_s > 0 and not is_dead(holder):
        raise _held(watch.uri, holder, left_s)
    try:
        return Lease(watch.store, watch.uri, owner, watch.terms, watch.version)
    except PreconditionFailed:
        raise _held(watch.uri, "another one", watch.terms.term_s) from None


@contextmanager
def leased(
    store: Store,
    uri: DatasetURI,
    owner: str,
    terms: Terms | None = None,
    *,
    is_dead: Callable[[str], bool] = lambda _owner: False,
    wait_s: float = _WAIT_S,
) -> Generator[Lease]:
    """Hold the lease of a destination while the block runs, renewing it every third of its term.

    Args:
        store, uri, terms: See `Watch`.
        owner, is_dead: See `acquire`.
        wait_s: How long to wait for another move's lease, in seconds: as long as one needs to lapse.

    Raises:
        Retryable: Another move holds the lease and keeps renewing it.
    """
    stop, watch = threading.Event(), Watch(store, uri, terms)
    lease = _awaited(lambda: acquire(watch, owner, is_dead), wait_s, stop)
    every_s = watch.terms.term_s / 3

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


def _owner(store: Store, key: str, version: str) -> str:
    """Whose it is; a lease that cannot be read has no owner."""
    try:
        return str(json.loads(b"".join(store.get(key, version=version)))["owner"])
    except (ValueError, KeyError, TypeError):
        return ""
    except (NotFound, PreconditionFailed) as error:
        raise Retryable(f"the lease '{key}' changed hands", "run again", retry_after_s=0.5) from error


def _written(store: Store, uri: DatasetURI, owner: str, version: str | None) -> str:
    # The number makes each renewal another content, and so another version where a version is a digest of it.
    text = json.dumps({"lintas_lease": 2, "owner": owner, "renewal": uuid.uuid4().hex}).encode()
    return store.put(
        uri.key(LEASE),
        [text],
        size_bytes=len(text),
        attributes=Attributes(content_type="application/json"),
        if_version=version,
        if_absent=version is None,
    ).version
