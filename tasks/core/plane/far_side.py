"""One destination of a direct move: its journal and uploads, its own errors, and what becomes of it when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from tasks.core.dataset import CHUNK_BYTES, RESERVED_PREFIX
from tasks.core.errors import Invalid, LintasError, PreconditionFailed, Retryable
from tasks.core.plane import Load, Recipient, copied, own_write, wrong_bytes
from tasks.core.plane.parts import Parted, parts_of, resumable
from tasks.core.retries import with_retries

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.plane.pump import Errand, Sending
    from tasks.core.ports import Answer, Direct, OpenUpload, Store

_MANY = 256
"""So many objects are worth asking the store which checksum it verifies: the cheapest one may be a tenth of another."""

_NOBODYS = RESERVED_PREFIX + "checksum"
_VERIFIED_BY = "blake3 on the way before it became visible, {cloud}'s own checksum of every request on arrival"


class FarSide:
    """A recipient while pumps carry to it: a `Receiver` of `tasks.core.plane.pump`, where the methods are described.

    Args:
        recipient: Who it is, and what it lacks.
        far: Its signer.
        source: Where the objects come from.
        describe: Asks the source what is kept with an object.
        threads: Where uploads begin.
        attempts: How often a request is tried.
        stop: Set when the whole move has failed.
        nobody_left: Whether all recipients have been left out.
    """

    def __init__(
        self,
        recipient: Recipient,
        far: Direct,
        source: Store,
        describe: Callable[[Load], Description],
        threads: Executor,
        attempts: int,
        stop: threading.Event,
        nobody_left: Callable[[], bool],
    ) -> None:
        self.recipient, self.far = recipient, far
        self.loads = list(recipient.loads)
        self._source, self._describe, self._threads = source, describe, threads
        self._attempts, self._stop, self._nobody_left = attempts, stop, nobody_left
        self._store, self._uploads = recipient.store, recipient.uploads
        self._verified_by = _VERIFIED_BY.format(cloud=self._store.cloud)
        self._known: dict[str, OpenUpload] = {}
        self._under_way: set[Parted] = set()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Find what earlier runs have left, and what the store wants to be told. Raises what the store answers."""
        uploads = self._uploads
        if uploads is not None:
            self._known = with_retries(
                lambda: resumable(self.loads, self.far, self._store, uploads, self.recipient.key_prefix),
                self._attempts,
                self._stop,
            )
        largest = max(self.loads, key=lambda load: load.entry.size_bytes, default=None)
        in_parts = largest is not None and largest.entry.size_bytes > CHUNK_BYTES
        if largest is not None and (in_parts or len(self.loads) >= _MANY):
            # What is tried leaves parts of no object, which a store may take for one: never where a whole one goes.
            key = largest.key if in_parts else f"{self.recipient.key_prefix}{_NOBODYS}"
            with_retries(lambda: self.far.prepare(key), self._attempts, self._stop)

    def parted(self, load: Load) -> Parted:
        """Begin, or continue, an upload in parts. Invalid: the store takes fewer parts than that."""
        if parts_of(load.entry.size_bytes) > self.far.most_parts:
            raise Invalid(f"'{load.entry.path}' has too many parts for {self._store.cloud}", "let the move stream")
        known = self._known.get(load.key)
        parted = Parted(load, self._describe, self.far, self._uploads, self._store, known, self._threads)
        with self._lock:
            self._under_way.add(parted)
        return parted

    def refused_writing(self, load: Load, answer: Answer) -> LintasError:
        """See `Receiver.refused_writing`."""
        return self.far.refused(load.key, answer, writing=True)

    def settled(self, load: Load) -> str | None:
        """See `Receiver.settled`."""
        return own_write(load, self._store)

    def arrived(self, load: Load, version: str) -> None:
        """See `Receiver.arrived`."""
        self.recipient.arrived(load, copied(load, version, self._verified_by, "direct"))

    def may_continue(self) -> bool:
        """See `Receiver.may_continue`."""
        return self._uploads is not None

    def finish(self, parted: Sending) -> None:
        """See `Receiver.finish`."""
        assert isinstance(parted, Parted)
        load = parted.load
        if parted.digest() != load.entry.digest:
            raise wrong_bytes(load.entry, self._source)
        try:
            version = parted.finish()
        except (PreconditionFailed, Retryable):
            # The SDK tries again by itself: it may have met the object that its first try made.
            settled = own_write(load, self._store)
            if settled is None:
                raise
            parted.end()
            version = settled
        with self._lock:
            self._under_way.discard(parted)
        self.arrived(load, version)

    def failed(self, errand: Errand | None, error: LintasError) -> None:
        """See `Receiver.failed`: it is sent nothing more, and the others go on."""
        del errand
        self.recipient.leave_out(error)
        if self._nobody_left():
            raise error

    def settle(self, failure: BaseException) -> None:
        """When all is at rest: uploads that a later run can continue stay, all others are given up."""
        if self._uploads is not None and isinstance(failure, Retryable):
            return
        for parted in self._under_way:
            parted.give_up(failure)
