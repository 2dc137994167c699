"""A process that carries objects for another one, which starts it; see `tasks.core.plane.crew`.

It loads neither an SDK nor Arrow: it gets errands with signatures that were lent, and carries them by a pump of its
own. Only what goes well ends here. Whatever it cannot do (a refusal, wrong bytes, a condition that does not hold) it
gives back, and the process that knows the stores meets the same and judges. It keeps nothing: when standard input
ends, whether the other process closed it or was killed, it is gone at once.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import threading
from collections import deque
from concurrent.futures import Future
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING

from tasks.core.errors import LintasError, Retryable, Terminal
from tasks.core.plane import Load
from tasks.core.plane.limits import NO_LIMITS
from tasks.core.plane.loop import Loop, Task, parked
from tasks.core.plane.orders import (
    Asked,
    Back,
    Carried,
    Described,
    End,
    Order,
    Piece,
    PieceCarried,
    Report,
    Signatures,
    Start,
    Wanted,
    Whole,
)
from tasks.core.plane.pump import BUSY, Delivery, Errand, Pump, collecting_rarely
from tasks.core.ports import Answer, SentPart, Signing

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.plane.pump import Sending

ATTEMPTS = 3
"""How often a request is tried here; who gets the errand back has attempts of its own."""

_RESERVE, _RESERVE_OF_PARTS = 48, 2
"""What waits here, so that there is always something to begin with; few parts, which another pump may begin sooner."""

_REPORT_AT = 16
"""So many objects are reported at once, or fewer when nothing else is under way."""


class _SentPiece:
    """An object in parts of which one is carried here; implements `tasks.core.plane.pump.Sending`."""

    def __init__(self, piece: Piece, move: _Move) -> None:
        self.load, self.write = piece.load, piece.write
        self.upload: Future[str] = Future()
        self.upload.set_result(piece.upload_id)
        self._piece, self._move = piece, move

    def span(self, number: int) -> tuple[int, int]:
        del number
        return self._piece.start, self._piece.length

    def arrived(self, part: SentPart) -> bool:
        self._move.piece_arrived(PieceCarried(self.load.key, part))
        return False


class _Move:
    """What is carried here, and where to: `Carriage` and `Receiver` of `tasks.core.plane.pump`, which says more."""

    attempts = ATTEMPTS
    byte_rate = NO_LIMITS.bytes()
    request_rate = NO_LIMITS.requests()

    def __init__(self, reports: IO[bytes], silence_s: float) -> None:
        self.silence_s = silence_s
        self._reports, self._reporting = reports, threading.Lock()
        self._signatures: Signatures | None = None
        self._errands: deque[Errand] = deque()
        self._ended = False
        self._reserve = self._expected = _RESERVE_OF_PARTS
        self._waiting: Task | None = None
        self._under_way = 0
        self._carried: list[tuple[str, str]] = []
        self._answers: dict[str, SimpleQueue[Description]] = {}

    @property
    def near(self) -> Signing:
        return self._signed.near

    @property
    def far(self) -> Signing:
        return self._signed.far

    @property
    def _signed(self) -> Signatures:
        if self._signatures is None:
            raise Terminal("a hand was given errands before signatures")
        return self._signatures

    def listen(self, orders: IO[bytes], loop: Loop) -> None:
        """Take orders until there are no more; on a thread of its own."""
        while True:
            try:
                order: Order = pickle.load(orders)  # noqa: S301  (the sender is the process that started this one)
            except (EOFError, OSError, pickle.UnpicklingError):
                # Nobody waits for what is under way: it is taken up again by whoever comes next.
                os._exit(1)
            if isinstance(order, Described):
                self._answers[order.key].put(order.description)
            else:
                loop.call(lambda order=order: self._obey(order, loop))

    def _obey(self, order: Order, loop: Loop) -> None:
        if isinstance(order, Signatures):
            self._signatures = order
        elif isinstance(order, Whole):
            self._reserve = _RESERVE
            self._received(Errand((Delivery(self, order.load),)))
        elif isinstance(order, Piece):
            self._reserve = _RESERVE_OF_PARTS
            self._received(Errand((Delivery(self, order.load, _SentPiece(order, self)),), order.number))
        elif isinstance(order, End):
            self._ended = True
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            loop.resume(waiting)

    def _received(self, errand: Errand) -> None:
        self._errands.append(errand)
        self._expected -= 1

    def _order_more(self) -> None:
        there = len(self._errands) + self._expected
        if there <= self._reserve // 2:
            self._expected += self._reserve - there
            self.report(Wanted(self._reserve - there))

    async def next(self) -> Errand | None:
        while not self._errands:
            if self._ended:
                return None

            def wait(task: Task) -> None:
                self._waiting = task

            await parked(wait)
        self._under_way += 1
        errand = self._errands.popleft()
        if not self._ended:
            self._order_more()
        return errand

    def arrived(self, load: Load, version: str) -> None:
        self._carried.append((load.key, version))
        self._done()

    def piece_arrived(self, piece: PieceCarried) -> None:
        """A part is at the destination."""
        self.report(piece)
        self._done()

    def failed(self, errand: Errand, error: LintasError) -> None:
        """Given back: whoever has it then meets the same and judges."""
        del error
        self.report(Back((errand.load.key, errand.number)))
        self._done()

    def _done(self) -> None:
        self._under_way -= 1
        if self._carried and (len(self._carried) >= _REPORT_AT or self._under_way == 0):
            carried, self._carried = tuple(self._carried), []
            self.report(Carried(carried))

    def refused_reading(self, load: Load, answer: Answer) -> LintasError:
        del load
        if answer.status in BUSY:
            return Retryable("a store asks for fewer requests")
        return Terminal("a store refused a request")

    refused_writing = refused_reading

    def wrong(self, load: Load) -> LintasError:
        del load
        return Terminal("these are not the bytes that were planned")

    def settled(self, load: Load) -> str | None:
        """Nothing is known here of what was written before."""
        del load

    def described(self, load: Load) -> Description:
        answer = self._answers[load.key] = SimpleQueue()
        self.report(Asked(load.key))
        description = answer.get()
        del self._answers[load.key]
        return description

    def may_continue(self) -> bool:
        return False

    def finish(self, parted: Sending) -> None:
        """Never called: no part is the last one here."""

    def report(self, report: Report) -> None:
        """Tell the other process; from any thread."""
        with self._reporting:
            pickle.dump(report, self._reports)
            self._reports.flush()


def main() -> None:
    """Carry what standard input tells."""
    # What has been loaded stays.
    gc.freeze()
    orders = sys.stdin.buffer
    start: Start = pickle.load(orders)  # noqa: S301  (as above)
    move = _Move(sys.stdout.buffer, start.silence_s)
    pump = Pump(move, start.budget_bytes, start.in_flight)
    threading.Thread(target=move.listen, args=(orders, pump.loop), daemon=True).start()
    move.report(Wanted(_RESERVE_OF_PARTS))
    with collecting_rarely():
        pump.run()
    # The thread that listens holds standard input, which the interpreter would wait for.
    os._exit(0)
