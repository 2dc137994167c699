"""One thread that carries objects: it reads parts into its buffers, looks at the bytes while they pass, and sends them.

Reads and writes are apart: as many of each may be in flight as the pace allows, joined by the buffers alone. A read has
its buffer from the first byte on, and is asked for before there is one. What is read goes to all destinations that lack
it, usually one, from the same buffer.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from blake3 import blake3

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import LintasError, PreconditionFailed, Retryable
from tasks.core.plane import Load, write_of
from tasks.core.plane.buffers import SMALL_BYTES, Buffers
from tasks.core.plane.limits import Rate
from tasks.core.plane.loop import Loop
from tasks.core.plane.pace import TICK_S, Gate, Pace
from tasks.core.plane.wire import Wire
from tasks.core.ports import Answer, SentPart, SignedRequest
from tasks.core.retries import pause_s

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.ports import Signing, Write

FAR_S = 0.02
"""Stores that begin to answer later than this, both together, get more memory: more must be under way."""
FAR_TIMES = 3
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


class Receiver(Protocol):
    """A destination, as a pump sees it."""

    @property
    def far(self) -> Signing: ...

    def refused_writing(self, load: Load, answer: Answer) -> LintasError:
        """The error that an unsuccessful answer to a write means."""
        ...

    def settled(self, load: Load) -> str | None:
        """The version of what is at the destination if it is this load already, by a call that blocks."""
        ...

    def arrived(self, load: Load, version: str) -> None:
        """A small object is at the destination."""
        ...

    def may_continue(self) -> bool:
        """Whether parts that have arrived are kept for a later run, by a call that blocks."""
        ...

    def finish(self, parted: Sending) -> None:
        """All parts of an object are at the destination: make it visible, by calls that block."""
        ...

    def failed(self, errand: Errand, error: LintasError) -> None:
        """It will not have this from here. Raises the error when that ends the pump: nobody is left to carry for."""
        ...


class Delivery(NamedTuple):
    """What one destination shall have of an errand: an object, or a part of an object that travels in parts."""

    receiver: Receiver
    load: Load
    parted: Sending | None = None


class Errand(NamedTuple):
    """Bytes that are read once, and what they are for all who lack them.

    Args:
        deliveries: One for each of them; the objects are the same, their keys and conditions may differ.
        number: Which part, from 1; 0 for a whole object.
    """

    deliveries: tuple[Delivery, ...]
    number: int = 0

    @property
    def load(self) -> Load:
        """The object, as the first of them shall have it."""
        return self.deliveries[0].load

    def span(self) -> tuple[int, int]:
        """First byte and length in bytes of what is read."""
        parted = self.deliveries[0].parted
        return (0, self.load.entry.size_bytes) if parted is None else parted.span(self.number)


class Carriage(Protocol):
    """What the pumps of one move share."""

    attempts: int
    byte_rate: Rate
    request_rate: Rate
    silence_s: float

    @property
    def near(self) -> Signing: ...

    async def next(self) -> Errand | None:
        """What to carry next; None when everything is under way."""
        ...

    def refused_reading(self, load: Load, answer: Answer) -> LintasError:
        """The error that an unsuccessful answer of the source means."""
        ...

    def wrong(self, load: Load) -> LintasError:
        """What was read is not what was planned."""
        ...

    def described(self, load: Load) -> Description:
        """What the source keeps with an object, by a call that blocks."""
        ...


class _Passing:
    """Digest, checksums and pace of the bytes of one body, computed while they are in the core's own cache."""

    __slots__ = ("_rate", "_receivers", "digest", "proofs")

    def __init__(self, receivers: Sequence[Receiver], rate: Rate) -> None:
        self._receivers, self._rate = receivers, rate
        self.restart()

    def restart(self) -> None:
        """Forget what has passed."""
        self.digest = blake3()
        self.proofs = [receiver.far.proof() for receiver in self._receivers]

    def __call__(self, piece: memoryview) -> float:
        self.digest.update(piece)
        for proof in self.proofs:
            proof.update(piece)
        return self._rate.take(len(piece))


@dataclass(slots=True)
class _Filled:
    """What is read, and its buffer, which goes back when all have it.

    Args:
        size_bytes: How much is read.
        passing: What is computed on the way.
        left: How many deliveries still need it.
        buffer: The buffer; None before the answer has begun to arrive.
        since: When the buffer was leased.
    """

    size_bytes: int
    passing: _Passing
    left: int
    buffer: memoryview | None = None
    since: float = 0.0

    @property
    def content(self) -> memoryview:
        """The part of the buffer that is read into."""
        assert self.buffer is not None
        return self.buffer[: self.size_bytes]


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
        self._wire = Wire(self._loop, carriage.silence_s)
        self._buffers = Buffers(self._loop, budget_bytes, FAR_TIMES * budget_bytes)
        self._pace = Pace(in_flight)
        self._reading, self._writing = (Gate(self._loop, lambda: self._pace.limit) for _ in range(2))
        self._ahead = Gate(self._loop, lambda: self._buffers.ahead)

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
            await self._ahead.enter()
            passing = _Passing([one.receiver for one in errand.deliveries], self._move.byte_rate)
            filled = _Filled(errand.span()[1], passing, len(errand.deliveries))
            if filled.size_bytes <= SMALL_BYTES:
                await self._room(filled)
            self._loop.spawn(self._carry(errand, filled))

    async def _room(self, filled: _Filled) -> memoryview:
        """Where what is read goes: leased when the first of it is there, so that no buffer waits for a far source."""
        if filled.buffer is None:
            filled.buffer = await self._buffers.lease(filled.size_bytes)
            filled.since = self._loop.now
            self._ahead.leave()
        return filled.content

    async def _keep_pace(self) -> None:
        before = self._loop.now
        while True:
            await self._loop.sleep(TICK_S)
            self._pace.tick(max(TICK_S, self._loop.now - before))
            before = self._loop.now
            self._reading.wake()
            self._writing.wake()

    async def _carry(self, errand: Errand, filled: _Filled) -> None:
        deliveries = errand.deliveries
        try:
            kept = await (self._read_part(errand, filled) if errand.number else self._read_whole(errand.load, filled))
        except LintasError as error:
            self._release(filled)
            for one in deliveries:
                one.receiver.failed(errand, error)
            return
        for at in range(1, len(deliveries)):
            self._loop.spawn(self._deliver(errand, at, filled, kept))
        await self._deliver(errand, 0, filled, kept)

    async def _read_whole(self, load: Load, filled: _Filled) -> Description:
        near, entry = self._move.near, load.entry
        try:
            answer = await self._read(
                lambda: near.get(load.source_key, version=entry.version, start=0, length=None), load, filled
            )
        finally:
            self._reading.leave()
        if filled.passing.digest.hexdigest() != entry.digest:
            raise self._move.wrong(load)
        kept = near.described(load.source_key, answer)
        return await self._loop.apart(lambda: self._move.described(load)) if kept is None else kept

    async def _read_part(self, errand: Errand, filled: _Filled) -> None:
        near, load = self._move.near, errand.load
        start, length = errand.span()
        try:
            await self._read(
                lambda: near.get(load.source_key, version=load.entry.version, start=start, length=length), load, filled
            )
        finally:
            self._reading.leave()

    async def _deliver(self, errand: Errand, at: int, filled: _Filled, kept: Description | None) -> None:
        one, proof = errand.deliveries[at], filled.passing.proofs[at].text()
        try:
            if one.parted is None:
                assert kept is not None
                await self._deliver_whole(one.receiver, write_of(one.load, kept), one.load, filled, proof)
            else:
                await self._deliver_part(one.receiver, one.parted, errand.number, filled, proof)
        except LintasError as error:
            one.receiver.failed(errand, error)

    async def _deliver_whole(self, receiver: Receiver, write: Write, load: Load, filled: _Filled, proof: str) -> None:
        far = receiver.far
        try:
            await self._writing.enter()
            try:
                request, answer = await self._write(lambda: far.put(write, proof), receiver, load, filled)
                version = far.written(write, request, answer)
            except PreconditionFailed:
                settled = await self._loop.apart(lambda: receiver.settled(load))
                if settled is None:
                    raise
                version = settled
            finally:
                self._writing.leave()
        finally:
            self._delivered(filled)
        self._pace.moved(load.entry.size_bytes, 1)
        receiver.arrived(load, version)

    async def _deliver_part(
        self, receiver: Receiver, parted: Sending, number: int, filled: _Filled, proof: str
    ) -> None:
        far, length = receiver.far, filled.size_bytes
        try:
            await self._writing.enter()
            try:
                upload_id = await self._loop.outcome(parted.upload)
                request, answer = await self._write(
                    lambda: far.part(parted.write, upload_id, number, proof), receiver, parted.load, filled
                )
            finally:
                self._writing.leave()
        finally:
            self._delivered(filled)
        tag = far.part_tag(request, answer)
        part = SentPart(number, length, tag, proof, filled.passing.digest.hexdigest())
        self._pace.moved(length, 0)
        kept = receiver.may_continue()
        complete = await self._loop.apart(lambda: parted.arrived(part)) if kept else parted.arrived(part)
        if complete:
            await self._loop.apart(lambda: receiver.finish(parted))

    def _delivered(self, filled: _Filled) -> None:
        filled.left -= 1
        if not filled.left:
            self._release(filled)

    def _release(self, filled: _Filled) -> None:
        if filled.buffer is None:
            self._ahead.leave()
            return
        if len(filled.buffer) == CHUNK_BYTES:
            distance_s = self._wire.distance_s
            self._buffers.follow(self._loop.now - filled.since, distance_s if distance_s > FAR_S else 0.0)
        self._buffers.release(filled.buffer)

    async def _read(self, sign: Callable[[], SignedRequest], load: Load, filled: _Filled) -> Answer:
        def send(request: SignedRequest) -> Awaitable[Answer]:
            if filled.size_bytes <= SMALL_BYTES:
                return self._wire.small(request, None, filled.content, filled.passing)
            return self._wire.exchange(request, None, lambda: self._room(filled), filled.passing)

        _, answer = await self._exchange(sign, send, partial(self._move.refused_reading, load), filled.passing)
        if answer.size_bytes != filled.size_bytes:
            raise self._move.wrong(load)
        return answer

    async def _write(
        self, sign: Callable[[], SignedRequest], receiver: Receiver, load: Load, filled: _Filled
    ) -> tuple[SignedRequest, Answer]:
        def send(request: SignedRequest) -> Awaitable[Answer]:
            if filled.size_bytes <= SMALL_BYTES:
                return self._wire.small(request, filled.content, None)
            return self._wire.exchange(request, filled.content, None)

        return await self._exchange(sign, send, partial(receiver.refused_writing, load), None)

    async def _exchange(
        self,
        sign: Callable[[], SignedRequest],
        send: Callable[[SignedRequest], Awaitable[Answer]],
        refused: Callable[[Answer], LintasError],
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
                answer = await send(request)
                if answer.status < 300:
                    return request, answer
                if answer.status in BUSY:
                    self._pace.throttled()
                raise refused(answer)
            except Retryable as error:
                if attempt == self._move.attempts:
                    raise
                await self._loop.sleep(pause_s(error, attempt))
            attempt += 1
            if passing is not None:
                passing.restart()
