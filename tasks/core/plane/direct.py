"""The plane that sends requests signed by the SDKs over connections of its own.

Parts of 8 MiB are independent of each other, also across objects, so that a single large object uses every connection.
Small objects take one GET and one conditional PUT. One pump is a thread of this process, and moves worth it have
further processes; see `tasks.core.plane.pump` and `tasks.core.plane.crew`.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import Invalid, LintasError
from tasks.core.plane import Arrived, Load, Recipient, described, exchanges, wrong_bytes
from tasks.core.plane.crew import Hand
from tasks.core.plane.far_side import FarSide
from tasks.core.plane.limits import NO_LIMITS, Limits
from tasks.core.plane.loop import SILENCE_TIMEOUT_S
from tasks.core.plane.pump import Delivery, Errand, Pump, collecting_rarely
from tasks.core.ports import DirectStore
from tasks.core.retries import with_retries

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.plane.parts import Parted
    from tasks.core.ports import Answer, Direct, Store, UploadJournal

BUDGET_BYTES = 48 * 1024 * 1024
IN_FLIGHT = 256
"""The most, where more at a time brings more: small objects of distant stores."""

ATTEMPTS = 6
_CORES = len(os.sched_getaffinity(0))
PROCESSES = min(4, _CORES)
"""The most that carry one move: beyond that the network is what is short."""

_PUMPS = min(2, _CORES)
_MANY_OBJECTS = 2000
_MANY_BYTES = 4 * 1024**3
"""Beginning with a process takes as long as so many objects or bytes do."""
_BEGINNING = 16
_PARTS_AHEAD = 16
"""Uploads begin so many parts before they are needed: describing the object and beginning are two waits for stores."""

_LOOK_S = 0.5

_Want = tuple[FarSide, Load]


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
        if self._processes is not None:
            return self._processes
        if self.limits != NO_LIMITS:
            return 1
        if sum(load.entry.size_bytes for load in loads) >= _MANY_BYTES:
            return PROCESSES
        if len(loads) >= _MANY_OBJECTS:
            # Small exchanges have a thread of their own, and with it two cores are busy.
            return PROCESSES if exchanges.loaded() is None else max(1, PROCESSES // 2)
        return 1

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`. Raises `Invalid` when one of the stores cannot sign."""
        if not loads:
            return
        recipient = Recipient(destination, loads, arrived, self.uploads, self.key_prefix)
        self.carry_to_all(source, [recipient])
        if recipient.failure is not None:
            raise recipient.failure

    def carry_to_all(self, source: Store, recipients: Sequence[Recipient]) -> None:
        """Read everything once and write it to each recipient that lacks it; `Recipient.failure` says how it went.

        Whoever fails is sent nothing more. Until then the slowest sets the pace: a buffer is free when all have it.

        Raises:
            Invalid: One of the stores cannot sign.
        """
        if not can_sign(source, *(recipient.store for recipient in recipients)):
            raise Invalid("one of the stores cannot sign for others", "let the move stream")
        _Run(self, source, recipients).go()


def can_sign(*stores: Store) -> bool:
    """Whether all of them sign for others."""
    return all(isinstance(store, DirectStore) for store in stores)


class _Run:
    """One call of `carry_to_all`; the `Carriage` that its pumps share."""

    def __init__(self, plane: DirectPlane, source: Store, recipients: Sequence[Recipient]) -> None:
        assert isinstance(source, DirectStore)
        self.source, self.near = source, source.direct
        self.attempts, self.silence_s = plane.attempts, plane.silence_s
        self.byte_rate, self.request_rate = plane.limits.bytes(), plane.limits.requests()
        self._planning = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._beginning = ThreadPoolExecutor(_BEGINNING, thread_name_prefix="begin")
        self._back: deque[Errand] = deque()
        self._sides = [self._side(recipient) for recipient in recipients]
        self._errands = self._plan()
        loads = [load for side in self._sides for load in side.loads]
        # Further processes know of one destination.
        processes = min(plane.processes_for(loads), plane.in_flight) if len(self._sides) == 1 else 1
        # Small objects are all interpreter: a second thread of it would only wait for the first.
        large = any(load.entry.size_bytes > CHUNK_BYTES for load in loads)
        pumps = min(_PUMPS, plane.in_flight) if large and processes == 1 else 1
        self._share = plane.budget_bytes // (pumps + processes - 1), plane.in_flight // (pumps + processes - 1)
        self._in_flight = plane.in_flight
        # Processes take a while to begin: until then this one has what will be theirs.
        own = (self._share[0], self._share[1] if processes == 1 else self._in_flight)
        self._workers: list[Pump | Hand] = [Pump(self, *own) for _ in range(pumps)]
        self._workers += [Hand(self, *self._share) for _ in range(processes - 1)]

    def _side(self, recipient: Recipient) -> FarSide:
        store = recipient.store
        assert isinstance(store, DirectStore)
        return FarSide(
            recipient, store.direct, self.source, self.described, self._beginning, self.attempts, self._stop,
            self._nobody_left,
        )  # fmt: skip

    def _nobody_left(self) -> bool:
        return all(side.recipient.failure is not None for side in self._sides)

    @property
    def far(self) -> Direct:
        """See `Lender.far`."""
        return self._sides[0].far

    def go(self) -> None:
        """Carry everything, and note with each recipient how it went, when all pumps are at rest."""
        try:
            for side in self._sides:
                try:
                    side.open()
                except LintasError as error:
                    side.failed(None, error)
        except BaseException as error:  # noqa: BLE001  (raised below, as every failure)
            self.fail(error)
        with collecting_rarely():
            while self._workers and self._failure is None:
                self._work()
                # What hands gave back at the very end is carried here.
                self._workers = [Pump(self, *self._share)] if self._back else []
        self._beginning.shutdown(cancel_futures=True)
        failure = self._failure
        for side in self._sides:
            if isinstance(failure, LintasError):
                side.recipient.leave_out(failure)
            if (reason := side.recipient.failure or failure) is not None:
                side.settle(reason)
        if failure is not None and not isinstance(failure, LintasError):
            raise failure

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

    def refused_reading(self, load: Load, answer: Answer) -> LintasError:
        """See `Carriage.refused_reading`."""
        return self.near.refused(load.source_key, answer, writing=False)

    def wrong(self, load: Load) -> LintasError:
        """See `Carriage.wrong`."""
        return wrong_bytes(load.entry, self.source)

    def described(self, load: Load) -> Description:
        """See `Carriage.described`."""
        return with_retries(lambda: described(load, self.source), self.attempts, self._stop)

    def _plan(self) -> Iterator[Errand]:
        objects: defaultdict[tuple[str, str, str], list[_Want]] = defaultdict(list)
        for side in self._sides:
            for load in side.loads:
                objects[load.source_key, load.entry.version, load.entry.digest].append((side, load))
        # Large objects first: at the end there is work for everybody.
        ordered = sorted(objects.values(), key=lambda wanted: -wanted[0][1].entry.size_bytes)
        large = sum(wanted[0][1].entry.size_bytes > CHUNK_BYTES for wanted in ordered)
        yield from self._parts(iter(ordered[:large]))
        for wanted in ordered[large:]:
            if there := tuple(Delivery(side, load) for side, load in wanted if side.recipient.failure is None):
                yield Errand(there)

    def _parts(self, objects: Iterator[list[_Want]]) -> Iterator[Errand]:
        """The parts of the objects, of which those that come next have begun before they are asked for."""
        begun: deque[tuple[int, list[tuple[FarSide, Parted]]]] = deque()
        while True:
            while len(begun) < _PARTS_AHEAD and (wanted := next(objects, None)) is not None:
                begun += self._begun(wanted)
            if not begun:
                return
            number, lacking = begun.popleft()
            if there := tuple(
                Delivery(side, parted.load, parted) for side, parted in lacking if side.recipient.failure is None
            ):
                yield Errand(there, number)

    def _begun(self, wanted: Sequence[_Want]) -> list[tuple[int, list[tuple[FarSide, Parted]]]]:
        """Begin the uploads of an object; the numbers of its parts, each with the uploads that lack it."""
        missing: defaultdict[int, list[tuple[FarSide, Parted]]] = defaultdict(list)
        for side, load in wanted:
            if side.recipient.failure is not None:
                continue
            try:
                parted = side.parted(load)
            except LintasError as error:
                side.failed(None, error)
                continue
            for number in parted.missing():
                missing[number].append((side, parted))
        return sorted(missing.items(), key=lambda item: item[0])

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
