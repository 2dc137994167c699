"""The plane that sends requests signed by the SDKs over connections of its own.

Parts of 8 MiB are independent of each other, also across objects, so that a single large object uses every connection.
Small objects take one GET and one conditional PUT. One pump is a thread of this process, and moves worth it have
further processes; see `tasks.core.plane.pump` and `tasks.core.plane.crew`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import Invalid, PreconditionFailed, Retryable
from tasks.core.plane import Arrived, Load, copied, described, own_write, wrong_bytes
from tasks.core.plane.crew import Hand
from tasks.core.plane.limits import NO_LIMITS, Limits
from tasks.core.plane.loop import SILENCE_TIMEOUT_S
from tasks.core.plane.parts import Parted, parts_of, resumable
from tasks.core.plane.pump import Errand, Pump, collecting_rarely
from tasks.core.ports import DirectStore
from tasks.core.retries import with_retries

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.errors import LintasError
    from tasks.core.plane.pump import Sending
    from tasks.core.ports import Answer, Direct, OpenUpload, Store, UploadJournal

BUDGET_BYTES = 48 * 1024 * 1024
IN_FLIGHT = 64
ATTEMPTS = 6
_CORES = len(os.sched_getaffinity(0))
PROCESSES = min(4, _CORES)
"""The most that carry one move: beyond that the network is what is short."""

_PUMPS = min(2, _CORES)
_MANY_OBJECTS = 2000
_MANY_BYTES = 4 * 1024**3
"""Beginning with a process takes as long as so many objects or bytes do."""
_BEGINNING = 16
_LOOK_S = 0.5
_VERIFIED_BY = "blake3 on the way before it became visible, {cloud}'s own checksum of every request on arrival"


class DirectPlane:
    """Carries objects between two stores that sign for others; see `tasks.core.ports.Direct`.

    Args:
        uploads: Where uploads in parts are kept, so that a killed move continues them; None: they are given up
            whenever the move fails.
        key_prefix: What the keys of the destination's dataset start with; uploads of other moves below it, which
            nobody will finish, are given up.
        budget_bytes: Memory for all objects under way together, where the stores are near.
        in_flight: The most requests under way at a time on either side.
        attempts: How often one request is tried when a store answers `Retryable`.
        limits: What the move may take of the network and of the stores.
        processes: How many carry together; None for one a core where there is enough to carry and no limit, else one.
        silence_s: How long a connection may neither take nor give a byte until its request is tried again, in seconds.
    """

    def __init__(
        self,
        *,
        uploads: UploadJournal | None = None,
        key_prefix: str = "",
        budget_bytes: int = BUDGET_BYTES,
        in_flight: int = IN_FLIGHT,
        attempts: int = ATTEMPTS,
        limits: Limits = NO_LIMITS,
        processes: int | None = None,
        silence_s: float = SILENCE_TIMEOUT_S,
    ) -> None:
        self.uploads = uploads
        self.key_prefix = key_prefix
        self.budget_bytes = budget_bytes
        self.in_flight = in_flight
        self.attempts = attempts
        self.limits = limits
        self._processes = processes
        self.silence_s = silence_s

    def processes_for(self, loads: Sequence[Load]) -> int:
        """How many processes carry these loads. Limits hold for one process, which is enough for them."""
        if self._processes is None:
            much = len(loads) >= _MANY_OBJECTS or sum(load.entry.size_bytes for load in loads) >= _MANY_BYTES
            return PROCESSES if much and self.limits == NO_LIMITS else 1
        return self._processes

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`. Raises `Invalid` when one of the stores cannot sign."""
        if not (isinstance(source, DirectStore) and isinstance(destination, DirectStore)):
            raise Invalid("one of the stores cannot sign for others", "let the move stream")
        if not loads:
            return
        near, far = source.direct, destination.direct
        known: dict[str, OpenUpload] = {}
        uploads = self.uploads
        if uploads is not None:
            known = with_retries(
                lambda: resumable(loads, far, destination, uploads, self.key_prefix), self.attempts, threading.Event()
            )
        _Run(self, loads, known, (source, near), (destination, far), arrived).go()


class _Run:
    """One call of `carry`; the `Carriage` that its pumps share."""

    def __init__(
        self,
        plane: DirectPlane,
        loads: Sequence[Load],
        known: dict[str, OpenUpload],
        near: tuple[Store, Direct],
        far: tuple[Store, Direct],
        arrived: Arrived,
    ) -> None:
        (self.source, self.near), (self.destination, self.far) = near, far
        self.attempts, self.silence_s = plane.attempts, plane.silence_s
        self.byte_rate, self.request_rate = plane.limits.bytes(), plane.limits.requests()
        self._plane, self._known, self._report = plane, known, arrived
        self._verified_by = _VERIFIED_BY.format(cloud=self.destination.cloud)
        self._largest = max(loads, key=lambda load: load.entry.size_bytes)
        self._errands = self._plan(loads)
        self._planning = threading.Lock()
        self._stop = threading.Event()
        self._under_way: set[Parted] = set()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._beginning = ThreadPoolExecutor(_BEGINNING, thread_name_prefix="begin")
        self._back: deque[Errand] = deque()
        processes = min(plane.processes_for(loads), plane.in_flight)
        # Small objects are all interpreter: a second thread of it would only wait for the first.
        large = self._largest.entry.size_bytes > CHUNK_BYTES
        pumps = min(_PUMPS, plane.in_flight) if large and processes == 1 else 1
        self._share = plane.budget_bytes // (pumps + processes - 1), plane.in_flight // (pumps + processes - 1)
        self._in_flight = plane.in_flight
        # Processes take a while to begin: until then this one has what will be theirs.
        own = (self._share[0], self._share[1] if processes == 1 else self._in_flight)
        self._workers: list[Pump | Hand] = [Pump(self, *own) for _ in range(pumps)]
        self._workers += [Hand(self, *self._share) for _ in range(processes - 1)]

    def go(self) -> None:
        """Carry everything, or raise the first failure when all pumps are at rest."""
        try:
            if self._largest.entry.size_bytes > CHUNK_BYTES:
                with_retries(lambda: self.far.prepare(self._largest.key), self.attempts, self._stop)
        except BaseException as error:  # noqa: BLE001  (raised below, as every failure)
            self.fail(error)
        with collecting_rarely():
            while self._workers and self._failure is None:
                self._work()
                # What hands gave back at the very end is carried here.
                self._workers = [Pump(self, *self._share)] if self._back else []
        self._beginning.shutdown(cancel_futures=True)
        if self._failure is not None:
            self._settle(self._failure)
            raise self._failure

    def _work(self) -> None:
        threads = [threading.Thread(target=self._run, args=(one,), name="pump", daemon=True) for one in self._workers]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK_S)
        except BaseException as error:  # noqa: BLE001  (raised by `go`, when all are at rest)
            self.fail(error)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    async def next(self) -> Errand | None:
        """See `Carriage.next`."""
        return self._back.popleft() if self._back else self.take()

    def joined(self) -> None:
        """See `Lender.joined`."""
        with self._lock:
            self._in_flight -= self._share[1]
        for worker in self._workers:
            if isinstance(worker, Pump):
                worker.leave_room(self._in_flight)

    def take(self) -> Errand | None:
        """See `Lender.take`."""
        with self._planning:
            return next(self._errands, None)

    def give_back(self, errand: Errand) -> None:
        """See `Lender.give_back`."""
        self._back.append(errand)

    def returned(self, errand: Errand) -> bool:
        """See `Carriage.returned`: what fails here has failed."""
        del errand
        return False

    def refused(self, load: Load, answer: Answer, *, writing: bool) -> LintasError:
        """See `Carriage.refused`."""
        signer, key = (self.far, load.key) if writing else (self.near, load.source_key)
        return signer.refused(key, answer, writing=writing)

    def wrong(self, load: Load) -> LintasError:
        """See `Carriage.wrong`."""
        return wrong_bytes(load.entry, self.source)

    def settled(self, load: Load) -> str | None:
        """See `Carriage.settled`."""
        return own_write(load, self.destination)

    def described(self, load: Load) -> Description:
        """See `Carriage.described`."""
        return with_retries(lambda: described(load, self.source), self.attempts, self._stop)

    def arrived(self, load: Load, version: str) -> None:
        """See `Carriage.arrived`."""
        self._report(load, copied(load, version, self._verified_by, "direct"))

    def may_continue(self) -> bool:
        """See `Carriage.may_continue`."""
        return self._plane.uploads is not None

    def finish(self, parted: Sending) -> None:
        """See `Carriage.finish`."""
        assert isinstance(parted, Parted)
        load = parted.load
        if parted.digest() != load.entry.digest:
            raise wrong_bytes(load.entry, self.source)
        try:
            version = parted.finish()
        except (PreconditionFailed, Retryable):
            # The SDK tries again by itself: it may have met the object that its first try made.
            settled = own_write(load, self.destination)
            if settled is None:
                raise
            parted.end()
            version = settled
        with self._lock:
            self._under_way.discard(parted)
        self.arrived(load, version)

    def _plan(self, loads: Sequence[Load]) -> Iterator[Errand]:
        # Large objects first: at the end there is work for everybody.
        for load in sorted(loads, key=lambda load: -load.entry.size_bytes):
            if load.entry.size_bytes <= CHUNK_BYTES:
                yield load
                continue
            if parts_of(load.entry.size_bytes) > self.far.most_parts:
                raise Invalid(
                    f"'{load.entry.path}' has too many parts for {self.destination.cloud}", "let the move stream"
                )
            known, uploads = self._known.get(load.key), self._plane.uploads
            parted = Parted(load, self.described, self.far, uploads, self.destination, known, self._beginning)
            with self._lock:
                self._under_way.add(parted)
            for number in parted.missing():
                yield parted, number

    def _run(self, worker: Pump | Hand) -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  (whatever ended one is raised by `go`)
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """See `Lender.fail`."""
        with self._lock:
            first = self._failure is None
            if first:
                self._failure = error
        if first:
            self._stop.set()
            for worker in self._workers:
                worker.stop(error)

    def _settle(self, failure: BaseException) -> None:
        """Uploads that a later run can continue stay, all others are given up."""
        if self._plane.uploads is not None and isinstance(failure, Retryable):
            return
        for parted in self._under_way:
            parted.give_up(failure)
