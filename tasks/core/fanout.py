"""Several destinations from one read: every object is read once at the source and written to all who lack it.

Where all stores sign for others the direct plane carries (`tasks.core.plane.direct`); else the bytes stream through the
SDKs: one reader an object, one writer a destination, a few pieces between them. Either way the slowest destination sets
the pace, and one that fails is left out while the others go on. What a destination must try again by streaming is read
again, for those who lack it alone.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from queue import Full, Queue
from typing import TYPE_CHECKING

from tasks.core.dataset import ContentHasher
from tasks.core.errors import LintasError, Retryable
from tasks.core.plane import Arrived, CopiedObject, Load, Recipient, copied, described, stored, write_of, wrong_bytes
from tasks.core.plane.direct import DirectPlane, can_sign
from tasks.core.plane.parts import UploadsOf
from tasks.core.plane.routes import closes
from tasks.core.planning import SHARD_OBJECTS
from tasks.core.retries import in_parallel, pause_s
from tasks.core.transfer import under_verdict

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.planning import TransferPlan
    from tasks.core.ports import Store, UploadJournal
    from tasks.core.privacy import Cleared, VerdictKey

_log = logging.getLogger(__name__)

_PIECES = 2
_LOOK_S = 0.2


def recipient_of(
    plan: TransferPlan, verdict: Cleared, key: VerdictKey, store: Store, arrived: Arrived, uploads: UploadJournal
) -> Recipient:
    """The recipient of a plan's loads under its own verdict.

    Raises:
        PolicyViolation: The verdict is not a valid clearance for exactly this plan.
    """
    loads = under_verdict(plan, plan.loads(), verdict, key)
    return Recipient(store, loads, arrived, uploads, plan.destination.key_prefix)


def read_for(plan: TransferPlan) -> str | None:
    """Plans that answer the same are better read once for all of them; None: read nothing for this one.

    What a service copies by itself is not read here at all. All others share a read, except that where reading costs
    nothing those that must stream do not keep the rest from the direct plane, which takes far less of the processor.
    """
    if plan.route not in ("stream", "direct"):
        return None
    return plan.route if plan.cost_usd == 0 else "any"


def carry_to_all(source: Store, recipients: Sequence[Recipient], *, say: Callable[[str], None] = _log.warning) -> None:
    """Read every object once and write it to each recipient that lacks it; see `Recipient.failure` for how it went.

    Args:
        source: The store that all loads are read from.
        recipients: The destinations; their loads in order of paths.
        say: Called with a sentence when a recipient for which the direct plane is closed is streamed to.
    """
    if not can_sign(source, *(recipient.store for recipient in recipients)):
        stream_to_all(source, recipients)
        return
    for stretch in _stretches(recipients):
        DirectPlane().carry_to_all(source, [part.recipient for part in stretch])
        closed = [part for part in stretch if part.reopened(say)]
        stream_to_all(source, [part.recipient for part in closed])
        for part in stretch:
            if part.recipient.failure is not None:
                part.whole.leave_out(part.recipient.failure)


class _Part:
    """A stretch of what a recipient lacks, so that memory does not follow the number of objects.

    Args:
        whole: The recipient.
        loads: What it lacks of this stretch.
        after, last: Uploads of paths beyond `after` up to `last` are this stretch's matter; None: there is no such end.
    """

    def __init__(self, whole: Recipient, loads: Sequence[Load], after: str | None, last: str | None) -> None:
        self.whole, self._loads = whole, loads
        self._there: set[str] = set()

        def owns(key: str) -> bool:
            path = key.removeprefix(whole.key_prefix)
            return (after is None or path > after) and (last is None or path <= last)

        uploads = None if whole.uploads is None else UploadsOf(whole.uploads, owns)
        self.recipient = Recipient(whole.store, loads, self._arrived, uploads, whole.key_prefix)

    def _arrived(self, load: Load, item: CopiedObject) -> None:
        self._there.add(load.key)
        self.whole.arrived(load, item)

    def reopened(self, say: Callable[[str], None]) -> bool:
        """Whether its failure closes the direct plane alone: if so it shall have the rest by another way."""
        failure = self.recipient.failure
        if failure is None or not closes(failure):
            return False
        rest = [load for load in self._loads if load.key not in self._there]
        say(f"{len(rest)} objects stream through the SDKs to {self.whole.store.cloud} instead: {failure}")
        self.recipient = Recipient(self.whole.store, rest, self.whole.arrived)
        return True


def _stretches(recipients: Sequence[Recipient]) -> Iterator[list[_Part]]:
    """What the recipients lack, so many objects at a time; at least once, for what earlier runs may have left."""
    objects = _by_object(recipients)
    after, wanted = None, list(islice(objects, SHARD_OBJECTS))
    while True:
        following = list(islice(objects, SHARD_OBJECTS))
        last = wanted[-1][0][1].entry.path if following else None
        yield [
            _Part(each, [load for wants in wanted for to, load in wants if to is each], after, last)
            for each in recipients
            if each.failure is None
        ]
        if not following:
            return
        after, wanted = last, following


_Want = tuple[Recipient, Load]


def stream_to_all(source: Store, recipients: Sequence[Recipient], *, in_flight: int = 4, attempts: int = 4) -> None:
    """The same through the SDKs of all stores.

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
