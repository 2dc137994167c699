"""Further processes of a move, each with a pump of its own; see `tasks.core.plane.hand` for what they do.

The interpreter runs one thread at a time: what is mostly interpreter (small objects) needs a process a core, and where
the kernel copies (large ones) they do not wait for each other's lock. All that is durable stays with the process that
started them: the journal, uploads that begin and end, the judgement of what fails.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Protocol

from tasks.core.plane.orders import (
    Asked,
    Back,
    Carried,
    Described,
    End,
    Name,
    Order,
    Piece,
    PieceCarried,
    Report,
    Signatures,
    Start,
    Whole,
)

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.plane import Load
    from tasks.core.plane.pump import Delivery, Errand
    from tasks.core.ports import Direct, SentPart

_log = logging.getLogger(__name__)

_ASIDE = 4
_END_S = 10.0
_PROGRAM = "from tasks.core.plane.hand import main; main()"


class Lender(Protocol):
    """The move that a hand carries for, with one destination; its methods are safe between threads."""

    silence_s: float

    @property
    def near(self) -> Direct: ...
    @property
    def far(self) -> Direct: ...

    def joined(self) -> None:
        """The process of a hand is ready to carry."""
        ...

    def take(self) -> Errand | None:
        """What to carry next, of what nobody has given back; None when everything is under way."""
        ...

    def give_back(self, errand: Errand) -> None:
        """Let a pump of this process carry an errand that was taken."""
        ...

    def described(self, load: Load) -> Description:
        """What the source keeps with an object, by a call that blocks."""
        ...

    def fail(self, error: BaseException) -> None:
        """The move has failed."""
        ...


class Hand:
    """Starts a process and has it carry.

    Args:
        move: The move.
        budget_bytes: Its share of the memory.
        in_flight: Its share of the requests in flight.
    """

    def __init__(self, move: Lender, budget_bytes: int, in_flight: int) -> None:
        self._move = move
        self._start = Start(budget_bytes, max(1, in_flight), move.silence_s)
        self._wanted, self._ready = 0, False
        self._out: dict[Name, Errand] = {}
        self._lent = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._sending = threading.Lock()

    def run(self) -> None:
        """Carry until there is nothing left. What the process had when it ended early is given back."""
        with ThreadPoolExecutor(_ASIDE, thread_name_prefix="aside") as aside:
            try:
                with self._started() as process:
                    try:
                        self._carry(process, aside)
                        process.wait(_END_S)
                    finally:
                        process.kill()
            except (EOFError, OSError, pickle.UnpicklingError, subprocess.TimeoutExpired):
                if not self._stopped:
                    _log.warning("a process that carried objects ended early; others carry its %d", len(self._out))
            for errand in self._out.values():
                self._move.give_back(errand)

    def stop(self, error: BaseException) -> None:
        """Have `run` end as soon as it can; from any thread."""
        del error
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def _started(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It must find the same modules, and an interrupt at the terminal is for this process to handle.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,
        )
        if self._stopped:
            self._process.kill()
        return self._process

    def _carry(self, process: subprocess.Popen[bytes], aside: ThreadPoolExecutor) -> None:
        orders, reports = process.stdin, process.stdout
        assert orders is not None
        assert reports is not None
        self._send(orders, self._start)
        # What these are made of is loaded there before it asks for errands.
        self._lend(orders)
        more = True
        while more or self._out:
            report: Report = pickle.load(reports)  # noqa: S301  (the sender is a process that this one started)
            self._take(report, orders, aside)
            while more and self._wanted:
                more = self._give(orders)
            with self._sending:
                orders.flush()
        self._send(orders, End())

    def _give(self, orders: IO[bytes]) -> bool:
        """Send as many errands as are wanted; False when there are no more."""
        self._lend(orders)
        while self._wanted:
            errand = self._move.take()
            if errand is None:
                return False
            self._wanted -= 1
            self._out[errand.load.key, errand.number] = errand
            order = _order(errand)
            with self._sending:
                pickle.dump(order, orders)
        return True

    def _lend(self, orders: IO[bytes]) -> None:
        """Send the signatures of now if they are not those that the process has."""
        lent = pickle.dumps(Signatures(self._move.near.lent(), self._move.far.lent()))
        if lent != self._lent:
            with self._sending:
                orders.write(lent)
                orders.flush()
            self._lent = lent

    def _take(self, report: Report, orders: IO[bytes], aside: ThreadPoolExecutor) -> None:
        if isinstance(report, Carried):
            for key, version in report.objects:
                (one,) = self._out.pop((key, 0)).deliveries
                one.receiver.arrived(one.load, version)
        elif isinstance(report, PieceCarried):
            (one,) = self._out.pop((report.key, report.part.number)).deliveries
            aside.submit(self._guarded, lambda: self._enter(one, report.part))
        elif isinstance(report, Back):
            self._move.give_back(self._out.pop(report.name))
        elif isinstance(report, Asked):
            asked = self._out[report.key, 0].load
            aside.submit(self._guarded, lambda: self._describe(asked, orders))
        else:
            if not self._ready:
                self._ready = True
                self._move.joined()
            self._wanted += report.errands

    def _enter(self, one: Delivery, part: SentPart) -> None:
        assert one.parted is not None
        if one.parted.arrived(part):
            one.receiver.finish(one.parted)

    def _describe(self, load: Load, orders: IO[bytes]) -> None:
        self._send(orders, Described(load.key, self._move.described(load)))

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (BrokenPipeError, ValueError):
            return  # The process is gone, which `run` sees too.
        except BaseException as error:  # noqa: BLE001  (raised by the move)
            self._move.fail(error)

    def _send(self, orders: IO[bytes], order: Order) -> None:
        with self._sending:
            pickle.dump(order, orders)
            orders.flush()


def _order(errand: Errand) -> Order:
    ((_, load, parted),) = errand.deliveries
    if parted is None:
        return Whole(load)
    return Piece(load, parted.write, parted.upload.result(), errand.number, *errand.span())
