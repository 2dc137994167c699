"""Several destinations from one read: every object is read once at the source and written to all who lack it.

The bytes stream through this process: one reader an object, one writer a destination, a few pieces between them, so
that the slowest destination sets the pace of an object. A destination that fails is left out from then on, and the
others go on. What must be tried again is read again, for those who lack it alone.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from queue import Full, Queue
from typing import TYPE_CHECKING

from tasks.core.dataset import ContentHasher
from tasks.core.errors import LintasError, Retryable
from tasks.core.plane import Arrived, CopiedObject, Load, copied, described, stored, write_of, wrong_bytes
from tasks.core.retries import in_parallel, pause_s
from tasks.core.transfer import under_verdict

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.planning import TransferPlan
    from tasks.core.ports import Store
    from tasks.core.privacy import Cleared, VerdictKey

_PIECES = 2
_LOOK_S = 0.2


@dataclass(slots=True)
class Recipient:
    """A destination of a shared read.

    Args:
        store: Where it is.
        loads: What it lacks, in order of paths.
        arrived: Called after each of its objects, from several threads.
        failure: Why it was left out, once it was.
    """

    store: Store
    loads: Iterable[Load]
    arrived: Arrived
    failure: LintasError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def leave_out(self, error: LintasError) -> None:
        """Send it nothing more; the first reason counts."""
        with self._lock:
            self.failure = self.failure or error


def recipient_of(plan: TransferPlan, verdict: Cleared, key: VerdictKey, store: Store, arrived: Arrived) -> Recipient:
    """The recipient of a plan's loads under its own verdict.

    Raises:
        PolicyViolation: The verdict is not a valid clearance for exactly this plan.
    """
    return Recipient(store, under_verdict(plan, plan.loads(), verdict, key), arrived)


def worth_one_read(plan: TransferPlan) -> bool:
    """Whether a plan's bytes are better read once for all who lack them than once for each.

    One read goes through the SDKs, which is all that there is for a `stream`. Instead of a direct move it takes several
    times the processor (decision 0145): that is worth the egress that it saves, where egress costs anything or nobody
    knows. What a service copies by itself is not read here at all.
    """
    return plan.route == "stream" or (plan.route == "direct" and plan.cost_usd != 0)


_Want = tuple[Recipient, Load]


def carry_to_all(source: Store, recipients: Sequence[Recipient], *, in_flight: int = 4, attempts: int = 4) -> None:
    """Read every object once and write it to each recipient that lacks it; see `Recipient.failure` for how it went.

    Args:
        source: The store that all loads are read from.
        recipients: The destinations.
        in_flight: How many objects travel at the same time; each holds a few 8 MiB pieces a recipient.
        attempts: How often one object is tried when a store answers `Retryable`.
    """
    stop = threading.Event()

    def one(wanted: list[_Want]) -> None:
        for attempt in range(1, attempts + 1):
            wanted = [(recipient, load) for recipient, load in wanted if recipient.failure is None]
            if not wanted:
                return
            wanted, error = _once(source, wanted, last=attempt == attempts)
            if wanted and error is not None:
                stop.wait(pause_s(error, attempt))

    in_parallel(one, _by_object(recipients), in_flight, stop)


def _by_object(recipients: Sequence[Recipient]) -> Iterator[list[_Want]]:
    """The loads of all recipients, those of one object together."""

    def keyed(at: int, recipient: Recipient) -> Iterator[tuple[str, int, Load]]:
        return ((load.entry.path, at, load) for load in recipient.loads)

    merged = heapq.merge(*(keyed(at, each) for at, each in enumerate(recipients)), key=lambda item: item[:2])
    for _, items in groupby(merged, key=lambda item: item[0]):
        yield [(recipients[at], load) for _, at, load in items]


def _once(source: Store, wanted: list[_Want], *, last: bool) -> tuple[list[_Want], Retryable | None]:
    """One reading of one object; returns who must try again, and one reason for it."""
    try:
        kept = described(wanted[0][1], source)
    except LintasError as error:
        return _sorted_out([(want, error) for want in wanted], last)
    writers = [_Writer(want, kept) for want in wanted]
    _pump(source, wanted[0][1], writers)
    failed: list[tuple[_Want, LintasError]] = []
    for writer in writers:
        recipient, load = writer.want
        outcome = writer.outcome()
        if isinstance(outcome, CopiedObject):
            recipient.arrived(load, outcome)
        else:
            failed.append((writer.want, outcome))
    return _sorted_out(failed, last)


def _sorted_out(failed: list[tuple[_Want, LintasError]], last: bool) -> tuple[list[_Want], Retryable | None]:
    again: list[_Want] = []
    reason = None
    for want, error in failed:
        if isinstance(error, Retryable) and not last:
            again.append(want)
            reason = error
        else:
            want[0].leave_out(error)
    return again, reason


def _pump(source: Store, load: Load, writers: Sequence[_Writer]) -> None:
    """Read the object and hand every piece to every writer. The end comes only when the digest is right."""
    entry = load.entry
    hasher = ContentHasher()
    end: LintasError | None = None
    try:
        for piece in source.get(load.source_key, version=entry.version or None):
            hasher.update(piece)
            for writer in writers:
                writer.hand(piece)
        if (hasher.hexdigest(), hasher.size_bytes) != (entry.digest, entry.size_bytes):
            end = wrong_bytes(entry, source)
    except LintasError as error:
        end = error
    for writer in writers:
        writer.hand(end)


class _Writer:
    """Writes one object to one recipient from the pieces that it is handed."""

    def __init__(self, want: _Want, kept: Description) -> None:
        self.want = want
        self._kept = kept
        self._pieces: Queue[bytes | LintasError | None] = Queue(_PIECES)
        self._outcome: CopiedObject | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fanout", daemon=True)
        self._thread.start()

    def hand(self, piece: bytes | LintasError | None) -> None:
        """Give it the next piece, an error instead of the rest, or None for the end; waits while it has enough."""
        while self._thread.is_alive():
            try:
                self._pieces.put(piece, timeout=_LOOK_S)
            except Full:
                continue
            return

    def outcome(self) -> CopiedObject | LintasError:
        """What became of it. Anything but an error of Lintas is raised."""
        self._thread.join()
        if isinstance(self._outcome, (CopiedObject, LintasError)):
            return self._outcome
        raise self._outcome or AssertionError("a writer ended without an outcome")

    def _run(self) -> None:
        try:
            self._outcome = self._write()
        except BaseException as error:  # noqa: BLE001  (whatever ended the writer is told by `outcome`)
            self._outcome = error

    def _write(self) -> CopiedObject:
        recipient, load = self.want
        version = stored(load, write_of(load, self._kept), self._body(), recipient.store)
        verified_by = f"blake3 on the way of one read, {recipient.store.cloud}'s own checksum on arrival"
        return copied(load, version, verified_by, "stream")

    def _body(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, LintasError):
                raise piece
            yield piece
