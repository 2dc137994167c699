"""One thread that carries objects: it reads parts into its buffers, looks at the bytes while they pass, and sends them.

Reads and writes are apart: as many of each may be in flight as the pace allows, joined by the buffers alone.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import LintasError, PreconditionFailed, Retryable
from tasks.core.plane import Load, write_of
from tasks.core.plane.buffers import Buffers
from tasks.core.plane.limits import Rate
from tasks.core.plane.loop import Loop
from tasks.core.plane.pace import TICK_S, Gate, Pace
from tasks.core.plane.wire import Wire
from tasks.core.ports import Answer, SentPart, SignedRequest
from tasks.core.retries import pause_s

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.ports import Proof, Signing, Write

FAR_S = 0.02
"""Stores that begin to answer later than this, both together, get more memory: more must be under way."""
FAR_TIMES = 6
"""How much more at most."""

BUSY = (429, 503)
"""Statuses by which a store asks for fewer requests."""

_COLLECT_AT = 20_000


@contextmanager
def collecting_rarely() -> Generator[None, None, None]:
    """Let the interpreter look for circles of garbage at every twenty thousandth new thing, not at every 700th.

    A small object makes hundreds of things that are gone with it and in no circle: looking is a sixth of its cost.
    Holds for the whole process; of moves that overlap the last one to end may leave it so.
    """
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], _COLLECT_AT), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Sending(Protocol):
    """An object that travels in parts, as a pump sees it; `tasks.core.plane.parts.Parted` describes the rest."""

    load: Load
    upload: Future[str]

    @property
    def write(self) -> Write: ...
    def span(self, number: int) -> tuple[int, int]: ...
    def arrived(self, part: SentPart) -> bool: ...


Part = tuple[Sending, int]
Errand = Load | Part


class Carriage(Protocol):
    """What the pumps of one move share."""

    attempts: int
    byte_rate: Rate
    request_rate: Rate
    silence_s: float

    @property
    def near(self) -> Signing: ...
    @property
    def far(self) -> Signing: ...

    async def next(self) -> Errand | None:
        """What to carry next; None when everything is under way."""
        ...

    def refused(self, load: Load, answer: Answer, *, writing: bool) -> LintasError:
        """The error that an unsuccessful answer of the source, or to a write of the destination, means."""
        ...

    def wrong(self, load: Load) -> LintasError:
        """What was read is not what was planned."""
        ...

    def settled(self, load: Load) -> str | None:
        """The version of what is at the destination if it is this load already, by a call that blocks."""
        ...

    def returned(self, errand: Errand) -> bool:
        """An errand failed: whether somebody else takes it over, so that it is no failure of this pump."""
        ...

    def described(self, load: Load) -> Description:
        """What the source keeps with an object, by a call that blocks."""
        ...

    def arrived(self, load: Load, version: str) -> None:
        """A small object is at the destination."""
        ...

    def finish(self, parted: Sending) -> None:
        """All parts of an object are at the destination: make it visible, by calls that block."""
        ...

    def may_continue(self) -> bool:
        """Whether parts that have arrived are kept for a later run, by a call that blocks."""
        ...


class _Passing:
    """Digest, checksum and pace of the bytes of one body, computed while they are in the core's own cache."""

    __slots__ = ("_rate", "_start", "digest", "proof")

    def __init__(self, start: Callable[[], Proof], rate: Rate) -> None:
        self._start, self._rate = start, rate
        self.restart()

    def restart(self) -> None:
        """Forget what has passed."""
        self.digest = blake3()
        self.proof = self._start()

    def __call__(self, piece: memoryview) -> float:
        self.digest.update(piece)
        self.proof.update(piece)
        return self._rate.take(len(piece))


class Pump:
    """One thread's share of a move.

    Args:
        carriage: The move.
        budget_bytes: Memory for what is under way.
        in_flight: The most requests under way on either side.
    """

    def __init__(self, carriage: Carriage, budget_bytes: int, in_flight: int) -> None:
        self._move = carriage
        self._loop = Loop(carriage.silence_s)
        self._wire = Wire(self._loop)
        self._buffers = Buffers(self._loop, budget_bytes, FAR_TIMES * budget_bytes)
        self._pace = Pace(in_flight)
        self._reading, self._writing = Gate(self._loop, self._pace), Gate(self._loop, self._pace)

    @property
    def loop(self) -> Loop:
        """What it runs in, for a carriage that lets it wait."""
        return self._loop

    def run(self) -> None:
        """Carry until there is nothing left, or raise the first failure; nothing of it goes on afterwards."""
        try:
            self._loop.spawn(self._feed())
            self._loop.spawn(self._keep_pace(), background=True)
            self._loop.run()
        finally:
            self._wire.close()
            self._loop.close()

    def leave_room(self, in_flight: int) -> None:
        """Have at most so many requests in flight on either side from now on; from any thread."""
        self._loop.call(lambda: self._pace.at_most(in_flight))

    def stop(self, error: BaseException) -> None:
        """Have `run` raise this as soon as it can; from any thread."""

        def end() -> None:
            raise error

        self._loop.call(end)

    async def _feed(self) -> None:
        while True:
            await self._reading.enter()
            errand = await self._move.next()
            if errand is None:
                return
            size_bytes = errand.entry.size_bytes if isinstance(errand, Load) else errand[0].span(errand[1])[1]
            self._loop.spawn(self._carry(errand, await self._buffers.lease(size_bytes)))

    async def _keep_pace(self) -> None:
        before = self._loop.now
        while True:
            await self._loop.sleep(TICK_S)
            self._pace.tick(max(TICK_S, self._loop.now - before))
            before = self._loop.now
            self._reading.wake()
            self._writing.wake()

    async def _carry(self, errand: Errand, buffer: memoryview) -> None:
        try:
            if isinstance(errand, Load):
                await self._carry_whole(errand, buffer)
            else:
                await self._carry_part(*errand, buffer)
        except LintasError:
            if not self._move.returned(errand):
                raise

    async def _carry_whole(self, load: Load, buffer: memoryview) -> None:
        move, entry = self._move, load.entry
        content = buffer[: entry.size_bytes]
        passing = _Passing(move.far.proof, move.byte_rate)
        since = self._loop.now
        try:
            try:
                answer = await self._read(
                    lambda: move.near.get(load.source_key, version=entry.version, start=0, length=None),
                    content, load, passing,
                )  # fmt: skip
            finally:
                self._reading.leave()
            if passing.digest.hexdigest() != entry.digest:
                raise move.wrong(load)
            kept = move.near.described(load.source_key, answer)
            if kept is None:
                kept = await self._loop.apart(lambda: move.described(load))
            write, proof = write_of(load, kept), passing.proof.text()
            await self._writing.enter()
            try:
                request, answer = await self._write(lambda: move.far.put(write, proof), content, load)
                version = move.far.written(write, request, answer)
            except PreconditionFailed:
                settled = await self._loop.apart(lambda: move.settled(load))
                if settled is None:
                    raise
                version = settled
            finally:
                self._writing.leave()
        finally:
            self._release(buffer, since)
        self._pace.moved(entry.size_bytes, 1)
        move.arrived(load, version)

    async def _carry_part(self, parted: Sending, number: int, buffer: memoryview) -> None:
        move, load = self._move, parted.load
        start, length = parted.span(number)
        content = buffer[:length]
        passing = _Passing(move.far.proof, move.byte_rate)
        since = self._loop.now
        try:
            try:
                await self._read(
                    lambda: move.near.get(load.source_key, version=load.entry.version, start=start, length=length),
                    content, load, passing,
                )  # fmt: skip
            finally:
                self._reading.leave()
            await self._writing.enter()
            try:
                part = await self._send_part(parted, number, content, passing)
            finally:
                self._writing.leave()
        finally:
            self._release(buffer, since)
        self._pace.moved(length, 0)
        kept = move.may_continue()
        complete = await self._loop.apart(lambda: parted.arrived(part)) if kept else parted.arrived(part)
        if complete:
            await self._loop.apart(lambda: move.finish(parted))

    def _release(self, buffer: memoryview, since: float) -> None:
        if len(buffer) == CHUNK_BYTES:
            distance_s = self._wire.distance_s
            self._buffers.follow(self._loop.now - since, distance_s if distance_s > FAR_S else 0.0)
        self._buffers.release(buffer)

    async def _send_part(self, parted: Sending, number: int, content: memoryview, passing: _Passing) -> SentPart:
        far, proof = self._move.far, passing.proof.text()
        upload_id = await self._loop.outcome(parted.upload)
        request, answer = await self._write(
            lambda: far.part(parted.write, upload_id, number, proof), content, parted.load
        )
        return SentPart(number, len(content), far.part_tag(request, answer), proof, passing.digest.hexdigest())

    async def _read(
        self, sign: Callable[[], SignedRequest], content: memoryview, load: Load, passing: _Passing
    ) -> Answer:
        _, answer = await self._exchange(sign, None, content, load, passing)
        if answer.size_bytes != len(content):
            raise self._move.wrong(load)
        return answer

    async def _write(
        self, sign: Callable[[], SignedRequest], content: memoryview, load: Load
    ) -> tuple[SignedRequest, Answer]:
        return await self._exchange(sign, content, None, load, None)

    async def _exchange(
        self,
        sign: Callable[[], SignedRequest],
        body: memoryview | None,
        into: memoryview | None,
        load: Load,
        passing: _Passing | None,
    ) -> tuple[SignedRequest, Answer]:
        """Sign and send until it succeeds; raises what the last refusal means."""
        attempt = 1
        while True:
            wait_s = self._move.request_rate.take(1)
            if wait_s:
                await self._loop.sleep(wait_s)
            request = sign()
            try:
                answer = await self._wire.exchange(request, body, into, passing)
                if answer.status < 300:
                    return request, answer
                if answer.status in BUSY:
                    self._pace.throttled()
                raise self._move.refused(load, answer, writing=body is not None)
            except Retryable as error:
                if attempt == self._move.attempts:
                    raise
                await self._loop.sleep(pause_s(error, attempt))
            attempt += 1
            if passing is not None:
                passing.restart()
