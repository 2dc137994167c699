"""Quarantine: objects with findings that a policy quarantines stay where they are, and the rest of the dataset may go.

An object stays when it holds a single hit of what its table is quarantined for: how sure a hit is was judged over the
whole table. A person may release what stays; a release is for exactly these bytes, this policy and this destination.
It lifts `quarantine` and nothing else: what other rules want done is done, and residency is asked as for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.entities import UNREADABLE, entity_of
from tasks.core.detectors.objects import ObjectScan, scan_objects
from tasks.core.detectors.personal_names import may_be_of, personal_name, safe_path
from tasks.core.detectors.scan import NAME_COLUMN, scan
from tasks.core.errors import Invalid
from tasks.core.findings import ScanReport
from tasks.core.held import Held, Reason
from tasks.core.manifest import Manifest
from tasks.core.policy import Decision, Place, Policy
from tasks.core.privacy import NO_EXEMPTIONS, Exemptions, Refused, actions_for

if TYPE_CHECKING:
    from tasks.core.ports import Store


@dataclass(frozen=True)
class Sifted:
    """A dataset without what stays.

    Args:
        leaving: What may be treated and judged.
        report: A scan of exactly that.
        held: What stays.
        exemptions: What goes along because a person released it from quarantine.
    """

    leaving: Manifest
    report: ScanReport
    held: tuple[Held, ...] = ()
    exemptions: Exemptions = NO_EXEMPTIONS


def sift(
    policy: Policy,
    report: ScanReport,
    store: Store,
    uri: DatasetURI,
    manifest: Manifest,
    *,
    destination: DatasetURI,
    place: Place,
    is_released: Callable[[Held], bool],
) -> Sifted:
    """Set apart what a policy quarantines. Tables that are concerned are read again, and so is what is left.

    Args:
        policy: The policy.
        report: The scan of the whole dataset.
        store: The store that holds the bucket of `uri`.
        uri, manifest: The dataset.
        destination, place: Where it would go.
        is_released: Whether a person has released an object.

    Returns:
        The dataset as it is when nothing is quarantined, and when it is refused anyway: `refuse` is for the whole.

    Raises:
        PreconditionFailed: An object changed since the manifest was made; read the manifest again.
        Retryable: The store is throttled or away; try again later.
    """
    leaving, held, released = manifest, dict[str, Held](), dict[str, Held]()
    while True:
        answer = actions_for(policy, report, destination=destination, place=place)
        if isinstance(answer, Refused) and not held:
            return Sifted(manifest, report)
        wanted = () if isinstance(answer, Refused) else answer.quarantined
        staying = set[str]()
        found = _reasons(wanted, store, uri, leaving, policy.detection)
        for entry, reasons in found.items():
            size, path = entry.size_bytes, safe_path(entry.path)
            item = Held(str(uri), path, entry.digest, policy.digest, str(destination), policy.name, size, reasons)
            if is_released(item):
                released[entry.path] = item
            else:
                held[entry.path] = item
                staying.add(entry.path)
        if not staying:
            seen = {(reason.entity, reason.column) for reasons in found.values() for reason in reasons}
            lifted = [d.finding for d in wanted if (d.finding.entity, d.finding.column) in seen]
            counts = tuple(sorted((finding.entity, finding.column, finding.count) for finding in lifted))
            entries = tuple(sorted(item.entry for item in released.values()))
            return Sifted(leaving, report, tuple(held.values()), Exemptions(entries, counts))
        leaving = without(leaving, lambda entry, left=staying: entry.path in left)
        report = scan(store, uri, leaving, detection=policy.detection, thoroughness=policy.thoroughness)


def without(manifest: Manifest, stays: Callable[[Entry], bool]) -> Manifest:
    """The manifest of the other objects."""
    left = Manifest.of(entry for entry in manifest if not stays(entry))
    left.selection = manifest.selection
    return left


def require_reason(reason: str) -> str:
    """A person's reason for a release, as it is kept.

    Raises:
        Invalid: It is empty, or holds what looks like somebody's data, which the audit log would keep for ever.
    """
    said = " ".join(reason.split())
    if not said:
        raise Invalid("the reason is empty", "say why these objects may go; the audit log keeps it")
    entity = personal_name(said)
    if entity:
        raise Invalid(f"the reason holds what looks like {entity_of(entity).what}", "say why without naming anybody")
    return said


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one object holds: hits by entity and column, filled rows by column, and what could not be read."""

    rows: int
    hits: Mapping[tuple[str, str], int]
    filled: Mapping[str, int]
    unread: int

    @classmethod
    def of(cls, seen: ObjectScan) -> _Seen:
        hits: dict[tuple[str, str], int] = {}
        for column, state in seen.columns.items():
            for (entity, _), tally in state.tallies.items():
                hits[entity, column] = hits.get((entity, column), 0) + tally.cells
        filled = {column: state.filled for column, state in seen.columns.items()}
        return cls(seen.rows, hits, filled, sum(part.count for part in seen.unread))


def _reasons(
    wanted: Sequence[Decision], store: Store, uri: DatasetURI, manifest: Manifest, detection: Detection
) -> dict[Entry, tuple[Reason, ...]]:
    """The objects that hold what is quarantined, each with all its reasons."""
    if not wanted:
        return {}
    concerned = {entry: about for entry in manifest if (about := _about(entry, wanted))}
    looked_into = [entry for entry, about in concerned.items() if any(_needs_a_look(each, entry) for each in about)]
    scans = scan_objects(store, uri, ((entry, None) for entry in looked_into), detection=detection)
    seen = dict(zip(looked_into, map(_Seen.of, scans), strict=True))
    searched = {key for each in seen.values() for key, count in each.hits.items() if count}
    reasons = {
        entry: tuple(sorted(_of_object(entry, about, seen.get(entry), searched))) for entry, about in concerned.items()
    }
    return {entry: found for entry, found in reasons.items() if found}


def _about(entry: Entry, wanted: Iterable[Decision]) -> list[Decision]:
    shown = safe_path(entry.path)
    return [
        decision
        for decision in wanted
        if shown == decision.finding.path
        or (decision.finding.column != NAME_COLUMN and may_be_of(entry.path, decision.finding.path))
    ]


def _needs_a_look(decision: Decision, entry: Entry) -> bool:
    """Whether the finding is about several objects, and so perhaps not about this one."""
    return decision.finding.path != entry.path and not decision.finding.column.startswith((NAME_COLUMN, "#"))


def _of_object(
    entry: Entry, about: Iterable[Decision], seen: _Seen | None, searched: Collection[tuple[str, str]]
) -> Iterator[Reason]:
    for decision in about:
        finding = decision.finding
        if seen is None or not _needs_a_look(decision, entry):
            # Nobody has counted what a name alone tells of.
            yield Reason(finding.entity, finding.column, finding.count, decision.rule, finding.why)
            continue
        if finding.entity == UNREADABLE:
            count = seen.unread
        elif (finding.entity, finding.column) in searched:
            count = seen.hits.get((finding.entity, finding.column), 0)
        else:  # It was told by the column's name and the look of its values: every filled row may be one.
            count = seen.filled.get(finding.column, 0)
        if count:
            yield Reason(finding.entity, finding.column, count, decision.rule, finding.why)
