"""The audit log: decisions in order, each record chained to the one before, so that a change shows.

A record's digest covers everything it says and the digest of its predecessor. Whoever alters, removes or inserts a
record breaks the chain at a place that `verify_chain` names. Rewriting the whole tail, or cutting it off, leaves a
chain that is sound in itself: against that, keep a `ChainHead` elsewhere and pass it to `verify_chain`.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from blake3 import blake3

from tasks.core.errors import Invalid

GENESIS = "0" * 64
"""What the first record names as its predecessor's digest."""


class AuditKind(enum.StrEnum):
    """What a record is about."""

    VERDICT = "verdict"
    RECEIPT = "receipt"
    PLACEMENT = "placement"
    RUN = "run"
    EVALUATION = "evaluation"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    MIRROR = "mirror"
    QUARANTINE = "quarantine"
    REIDENTIFICATION = "reidentification"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One decision.

    Args:
        sequence: 1 for the first record, then without gaps.
        time: When it was appended, timezone-aware.
        kind: One of `AuditKind`.
        subject: What it is about: a URI, a model and version, a run id.
        facts: Counts, digests, names and places; JSON-simple, never a value found in somebody's data.
        previous_digest: Digest of the record before, `GENESIS` for the first.
        digest: BLAKE3 of all the above, 64 hexadecimal characters.
    """

    sequence: int
    time: datetime
    kind: str
    subject: str
    facts: Mapping[str, Any]
    previous_digest: str
    digest: str


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The end of a log at some moment: worth noting elsewhere, since only it shows a tail that was cut off."""

    sequence: int = 0
    digest: str = GENESIS


@dataclass(frozen=True, slots=True)
class ChainFault:
    """One place where the chain does not hold.

    Args:
        sequence: The record that was altered, removed or inserted.
        what: `altered`, `removed` or `inserted`.
        detail: Why it is thought so, in one line.
    """

    sequence: int
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What `verify_chain` found: the end it came to and every fault on the way, in order."""

    head: ChainHead
    faults: tuple[ChainFault, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether no fault was found."""
        return not self.faults


def next_record(head: ChainHead, *, kind: str, subject: str, facts: Mapping[str, Any], time: datetime) -> AuditRecord:
    """The record that continues the log after `head`.

    Raises:
        Invalid: The kind is unknown, the time has no zone, or the facts are not JSON-simple; nothing is appended.
    """
    if kind not in set(AuditKind):
        raise Invalid(f"'{kind}' is not a kind of audit record", f"use one of {', '.join(AuditKind)}")
    if time.tzinfo is None:
        raise Invalid("the time of an audit record has no zone", "pass a timezone-aware time")
    simple = cast("dict[str, Any]", _simple(facts, "facts"))
    sequence, moment = head.sequence + 1, time.astimezone(UTC)
    digest = _digest(sequence, moment, kind, subject, simple, head.digest)
    return AuditRecord(sequence, moment, str(kind), subject, simple, head.digest, digest)


def verify_chain(records: Iterable[AuditRecord], *, head: ChainHead | None = None) -> ChainReport:
    """Check a whole log, oldest record first, in one pass.

    Args:
        records: All records; a log filtered by kind or time has gaps and does not verify.
        head: An end of this log that was noted elsewhere. Its record must still be there, unchanged.
    """
    faults: list[ChainFault] = []
    last = ChainHead()
    head_seen = head is None or head.sequence == 0
    for record in records:
        expected = last.sequence + 1
        if _digest_of(record) != record.digest:
            faults.append(ChainFault(record.sequence, "altered", "what it says does not give its digest"))
        if record.sequence < expected:
            faults.append(ChainFault(record.sequence, "inserted", f"it stands after record {last.sequence}"))
            continue
        if record.sequence > expected:
            faults += [
                ChainFault(missing, "removed", f"record {record.sequence} follows on record {last.sequence}")
                for missing in range(expected, record.sequence)
            ]
        elif record.previous_digest != last.digest:
            faults.append(_broken_link(record, last))
        if head is not None and record.sequence == head.sequence:
            head_seen = True
            if record.digest != head.digest:
                faults.append(ChainFault(record.sequence, "altered", "its digest is not the one noted elsewhere"))
        last = ChainHead(record.sequence, record.digest)
    if head is not None and not head_seen and head.sequence > last.sequence:
        faults += [
            ChainFault(missing, "removed", f"the log was known to reach record {head.sequence}")
            for missing in range(last.sequence + 1, head.sequence + 1)
        ]
    return ChainReport(last, tuple(faults))


def _broken_link(record: AuditRecord, last: ChainHead) -> ChainFault:
    if last.sequence == 0:
        return ChainFault(record.sequence, "altered", "it is the first record and names a predecessor")
    return ChainFault(last.sequence, "altered", f"record {record.sequence} was chained to another record")


def _digest_of(record: AuditRecord) -> str:
    return _digest(record.sequence, record.time, record.kind, record.subject, record.facts, record.previous_digest)


def _digest(
    sequence: int, time: datetime, kind: str, subject: str, facts: Mapping[str, Any], previous_digest: str
) -> str:
    said = [sequence, time.astimezone(UTC).isoformat(), kind, subject, dict(facts), previous_digest]
    return blake3(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _simple(value: object, place: str) -> object:
    """The value with tuples as lists, so that it is the same after a trip through JSON."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(f"{place} is not a finite number", "leave it out of the audit record")
        return value
    if isinstance(value, Mapping):
        simple: dict[str, object] = {}
        for key, item in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise Invalid(f"{place} has a key that is not text", "give audit facts names")
            simple[key] = _simple(item, f"{place}.{key}")
        return simple
    if isinstance(value, (list, tuple)):
        items = cast("list[object] | tuple[object, ...]", value)
        return [_simple(item, f"{place}[{index}]") for index, item in enumerate(items)]
    raise Invalid(
        f"{place} is a {type(value).__name__}, which an audit record cannot hold",
        "pass text, numbers, lists or mappings",
    )
