"""The plane that sends requests signed by the SDKs over connections of its own.

Fetchers read parts of 8 MiB into buffers of one fixed pool and hash them on the way; senders write them. Parts are
independent of each other, also across objects, so that a single large object uses every connection. Small objects
take one GET and one conditional PUT. How many fetchers and senders work is found out by measuring.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

from blake3 import blake3

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import Invalid, PreconditionFailed, Retryable
from tasks.core.plane import Arrived, Load, copied, described, own_write, write_of, wrong_bytes
from tasks.core.plane.buffers import Buffers
from tasks.core.plane.pace import TICK_S, Pace
from tasks.core.plane.parts import Parted, resumable
from tasks.core.plane.wire import Wire
from tasks.core.ports import Answer, DirectStore, SentPart, SignedRequest
from tasks.core.retries import pause_s, with_retries

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.ports import Direct, OpenUpload, Store, UploadJournal

BUDGET_BYTES = 64 * 1024 * 1024
IN_FLIGHT = 64
ATTEMPTS = 6
_STACK_BYTES = 512 * 1024
_BUSY = (429, 503)
_VERIFIED_BY = "blake3 on the way before it became visible, {cloud}'s own checksum of every request on arrival"

_Part = tuple[Parted, int]
_Task = Load | _Part
_Ready = tuple[_Part, memoryview, int, str]


class DirectPlane:
    """Carries objects between two stores that sign for others; see `tasks.core.ports.Direct`.

    Args:
        uploads: Where uploads in parts are kept, so that a killed move continues them; None: they are given up
            whenever the move fails.
        key_prefix: What the keys of the destination's dataset start with; uploads of other moves below it, which
            nobody will finish, are given up.
        budget_bytes: Memory for all objects under way together.
        in_flight: The most requests under way at a time on either side.
        attempts: How often one request is tried when a store answers `Retryable`.
    """

    def __init__(
        self,
        *,
        uploads: UploadJournal | None = None,
        key_prefix: str = "",
        budget_bytes: int = BUDGET_BYTES,
        in_flight: int = IN_FLIGHT,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.uploads = uploads
        self.key_prefix = key_prefix
        self.budget_bytes = budget_bytes
        self.in_flight = in_flight
        self.attempts = attempts

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`. Raises `Invalid` when one of the stores cannot sign."""
        if not (isinstance(source, DirectStore) and isinstance(destination, DirectStore)):
            raise Invalid("one of the stores cannot sign for others", "let the move stream")
        if not loads:
            return
        near, far = source.direct, destination.direct
        known: dict[str, OpenUpload] = {}
        if self.uploads is not None:
            known = resumable(loads, far, destination, self.uploads, self.key_prefix)
        _Run(self, loads, known, (source, near), (destination, far), arrived).go()


class _Run:
    """One call of `carry`."""

    def __init__(
        self,
        plane: DirectPlane,
        loads: Sequence[Load],
        known: dict[str, OpenUpload],
        near: tuple[Store, Direct],
        far: tuple[Store, Direct],
        arrived: Arrived,
    ) -> None:
        self._plane, self._known, self._arrived = plane, known, arrived
        (self._source, self._near), (self._destination, self._far) = near, far
        self._verified_by = _VERIFIED_BY.format(cloud=self._destination.cloud)
        self._tasks = self._plan(loads)
        self._planning = threading.Lock()
        self._ready: SimpleQueue[_Ready | None] = SimpleQueue()
        self._buffers = Buffers(plane.budget_bytes)
        self._wire = Wire()
        self._pace = Pace(plane.in_flight)
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._left = len(loads)
        self._under_way: set[Parted] = set()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def go(self) -> None:
        """Carry everything, or raise the first failure when all threads are at rest."""
        workers = 0
        before = time.monotonic()
        try:
            while not self._ended.is_set():
                workers = self._employ(workers)
                self._ended.wait(TICK_S)
                now = time.monotonic()
                self._pace.tick(now - before)
                before = now
        except BaseException as error:  # noqa: BLE001  (raised below, when all threads are at rest)
            self._fail(error)
        finally:
            self._dismiss()
        if self._failure is not None:
            self._settle(self._failure)
            raise self._failure

    def _plan(self, loads: Sequence[Load]) -> Iterator[_Task]:
        # Large objects first: at the end there is work for everybody.
        for load in sorted(loads, key=lambda load: -load.entry.size_bytes):
            if load.entry.size_bytes <= CHUNK_BYTES:
                yield load
                continue
            parted = Parted(
                load, self._described, self._far, self._plane.uploads, self._destination, self._known.get(load.key)
            )
            if parted.count > self._far.most_parts:
                raise Invalid(
                    f"'{load.entry.path}' has too many parts for {self._destination.cloud}", "let the move stream"
                )
            with self._lock:
                self._under_way.add(parted)
            for number in parted.missing():
                yield parted, number

    def _employ(self, workers: int) -> int:
        """Start as many fetchers and senders as may work; returns how many of each there are."""
        limit = self._pace.limit
        before = threading.stack_size(_STACK_BYTES)
        try:
            for number in range(workers, limit):
                for role in (self._fetch_all, self._send_all):
                    thread = threading.Thread(target=self._work, args=(role, number), name="direct", daemon=True)
                    self._threads.append(thread)
                    thread.start()
        finally:
            threading.stack_size(before)
        return max(workers, limit)

    def _dismiss(self) -> None:
        self._stop.set()
        self._pace.close()
        self._buffers.close()
        for _ in self._threads:
            self._ready.put(None)
        self._wire.close()
        for thread in self._threads:
            thread.join()

    def _settle(self, failure: BaseException) -> None:
        """Uploads that a later run can continue stay, all others are given up."""
        if self._plane.uploads is not None and isinstance(failure, Retryable):
            return
        for parted in self._under_way:
            parted.give_up(failure)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
        self._stop.set()
        self._ended.set()

    def _work(self, role: Callable[[int], None], number: int) -> None:
        try:
            role(number)
        except BaseException as error:  # noqa: BLE001  (whatever ended a worker is raised by `go`)
            self._fail(error)

    # Fetchers

    def _fetch_all(self, number: int) -> None:
        while self._pace.may_work(number) and not self._stop.is_set():
            with self._planning:
                task = next(self._tasks, None)
            if task is None:
                return
            size_bytes = task.entry.size_bytes if isinstance(task, Load) else task[0].span(task[1])[1]
            buffer = self._buffers.lease(size_bytes)
            if buffer is None:
                return
            if isinstance(task, Load):
                try:
                    self._carry_whole(task, buffer)
                finally:
                    self._buffers.release(buffer)
                self._pace.moved(number, size_bytes)
            else:
                self._fetch_part(task, buffer)

    def _carry_whole(self, load: Load, buffer: memoryview) -> None:
        entry = load.entry
        content = buffer[: entry.size_bytes]
        key, version = load.source_key, entry.version
        answer = self._read(key, content, lambda: self._near.get(key, version=version, start=0, length=None), load)
        if blake3(content).hexdigest() != entry.digest:
            raise wrong_bytes(entry, self._source)
        write = write_of(load, self._near.described(key, answer) or self._described(load))
        try:
            request, answer = self._exchange(
                lambda: self._far.put(write, content), content, None, self._far, load.key, writing=True
            )
            written = self._far.written(write, request, answer)
        except PreconditionFailed:
            settled = own_write(load, self._destination)
            if settled is None:
                raise
            written = settled
        self._done(load, written)

    def _fetch_part(self, task: _Part, buffer: memoryview) -> None:
        parted, number = task
        start, length = parted.span(number)
        key, version = parted.load.source_key, parted.load.entry.version
        content = buffer[:length]
        self._read(key, content, lambda: self._near.get(key, version=version, start=start, length=length), parted.load)
        self._ready.put((task, buffer, length, blake3(content).hexdigest()))

    def _read(self, key: str, content: memoryview, request: Callable[[], SignedRequest], load: Load) -> Answer:
        _, answer = self._exchange(request, None, content, self._near, key, writing=False)
        if answer.size_bytes != len(content):
            raise wrong_bytes(load.entry, self._source)
        return answer

    def _described(self, load: Load) -> Description:
        return with_retries(lambda: described(load, self._source), self._plane.attempts, self._stop)

    # Senders

    def _send_all(self, number: int) -> None:
        while self._pace.may_work(number) and not self._stop.is_set():
            ready = self._ready.get()
            if ready is None:
                return
            (parted, part_number), buffer, length, digest = ready
            try:
                part = self._send_part(parted, part_number, buffer[:length], digest)
            finally:
                self._buffers.release(buffer)
            self._pace.moved(number, length)
            if parted.arrived(part):
                self._finish(parted)

    def _send_part(self, parted: Parted, number: int, content: memoryview, digest: str) -> SentPart:
        upload_id = parted.upload_id()
        request, answer = self._exchange(
            lambda: self._far.part(parted.write, upload_id, number, content),
            content,
            None,
            self._far,
            parted.load.key,
            writing=True,
        )
        return SentPart(number, len(content), self._far.part_tag(request, answer), request.proof, digest)

    def _finish(self, parted: Parted) -> None:
        load = parted.load
        if parted.digest() != load.entry.digest:
            raise wrong_bytes(load.entry, self._source)
        try:
            version = parted.finish()
        except (PreconditionFailed, Retryable):
            # The SDK tries again by itself: it may have met the object that its first try made.
            settled = own_write(load, self._destination)
            if settled is None:
                raise
            parted.end()
            version = settled
        with self._lock:
            self._under_way.discard(parted)
        self._done(load, version)

    # Both

    def _exchange(
        self,
        sign: Callable[[], SignedRequest],
        body: memoryview | None,
        into: memoryview | None,
        signer: Direct,
        key: str,
        *,
        writing: bool,
    ) -> tuple[SignedRequest, Answer]:
        """Sign and send until it succeeds; raises what the last refusal means."""
        attempt = 1
        while True:
            request = sign()
            try:
                answer = self._wire.exchange(request, body, into)
                if answer.status < 300:
                    return request, answer
                if answer.status in _BUSY:
                    self._pace.throttled()
                raise signer.refused(key, answer, writing=writing)
            except Retryable as error:
                if attempt == self._plane.attempts or self._stop.wait(pause_s(error, attempt)):
                    raise
            attempt += 1

    def _done(self, load: Load, version: str) -> None:
        self._arrived(load, copied(load, version, self._verified_by, "direct"))
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._ended.set()
