"""The privacy gate's verdicts: nothing leaves without one, and one can be trusted.

A dataset is scanned (`tasks.core.detectors.scan`); `actions_for` says which columns the policy wants treated; the
treated copy is scanned again by the same scan; `decide` gives the verdict. `Cleared` is bound to the manifest, the
policy and the destination and signed, and a copy takes nothing else. Whatever is doubtful is `Refused`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.coverage import Coverage
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.entities import Group, entity_of
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.findings import ColumnProfile, Finding, ScanReport
from tasks.core.policy import Action, ActionOptions, Decision, Place, Policy

__all__ = [
    "Action",
    "Cleared",
    "ColumnProfile",
    "ColumnTreatment",
    "Exemptions",
    "ExpectationOutcome",
    "Finding",
    "Policy",
    "Refused",
    "ScanReport",
    "Treatment",
    "Verdict",
    "VerdictKey",
    "actions_for",
    "decide",
]

_MIN_SECRET_BYTES = 16
_LEAVE_ALONE = (Action.ALLOW, Action.QUARANTINE, Action.REFUSE)
"""Actions that change no column."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """The gate's clearance of one dataset for one destination. It counts only with a signature that verifies.

    Args:
        manifest_digest: The dataset that may be copied: what was scanned last.
        source_digest: The dataset it was made from; the same unless columns were treated.
        policy_digest: The policy that cleared it.
        destination: Where it may go, and nowhere else.
        jurisdiction: Where that is by law.
        findings: What is in it and was allowed.
        rows, objects: How much was scanned.
        issued: When, timezone-aware.
        keeps_labels: Whether what the gate does not read (user metadata, tags, names in dispositions) may go along.
        releases: The entries of the quarantine list that a person released, and that go along; see `Exemptions`.
        coverage: How much of it was read; a sample's bound is part of what is signed.
        key_id: Which key signed.
        signature: HMAC-SHA256 over all other fields, hexadecimal.
    """

    manifest_digest: str
    source_digest: str
    policy_digest: str
    destination: DatasetURI
    jurisdiction: str
    findings: tuple[Finding, ...]
    rows: int
    objects: int
    issued: datetime
    keeps_labels: bool = False
    releases: tuple[str, ...] = ()
    coverage: Coverage = field(default_factory=Coverage)
    key_id: str = ""
    signature: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible, with `decision`: for records, artifacts and the audit log."""
        return {"decision": "cleared", **_plain(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cleared:
        """The inverse of `as_dict`. The signature still has to verify. Raises `Invalid` for any other shape."""
        try:
            values = {name: data[name] for name in cls.__dataclass_fields__}
            values["destination"] = DatasetURI.parse(values["destination"])
            values["findings"] = tuple(Finding.from_dict(item) for item in values["findings"])
            values["coverage"] = Coverage.from_dict(values["coverage"])
            values["issued"] = datetime.fromisoformat(values["issued"])
            values["releases"] = tuple(values["releases"])
            if data["decision"] != "cleared":
                raise ValueError("another decision")
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid("a stored verdict cannot be read", "scan the dataset again") from error
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Refused:
    """The gate's refusal. `reasons` name entities, places and rules, never values."""

    manifest_digest: str
    policy_digest: str
    destination: DatasetURI
    findings: tuple[Finding, ...]
    rows: int
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible, with `decision`."""
        return {"decision": "refused", **_plain(self)}

    def violation(self) -> PolicyViolation:
        """The refusal as an error to raise."""
        first, *others = self.reasons
        more = f" (and {len(others)} more reasons)" if others else ""
        return PolicyViolation(
            f"the policy refuses {self.destination}: {first}{more}",
            "change the data or the destination, or have the policy's owner change the policy",
            reasons=self.reasons,
        )


Verdict = Cleared | Refused


@dataclass(frozen=True, slots=True)
class VerdictKey:
    """The key that verdicts are signed with.

    Args:
        key_id: Its name, which every verdict carries.
        secret: At least 16 random bytes.
    """

    key_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < _MIN_SECRET_BYTES:
            raise Invalid(
                f"the signing key '{self.key_id}' has fewer than {_MIN_SECRET_BYTES} bytes",
                "make one with: python -c 'import secrets; print(secrets.token_hex(32))'",
            )

    def sign(self, verdict: Cleared) -> Cleared:
        """The same verdict with this key's id and signature."""
        named = replace(verdict, key_id=self.key_id, signature="")
        return replace(named, signature=self._signature(named))

    def require(self, verdict: Cleared, *, manifest_digest: str, destination: DatasetURI) -> None:
        """Insist on a valid clearance for exactly this manifest and this destination.

        Raises:
            PolicyViolation: It is none. The caller moves nothing.
        """
        mend = "let the gate check this dataset for this destination"
        if type(verdict) is not Cleared:
            raise PolicyViolation(f"{destination} has not been cleared by the privacy gate", mend)
        if not hmac.compare_digest(self._signature(verdict).encode(), verdict.signature.encode()):
            raise PolicyViolation("the signature of the privacy gate's verdict does not verify", mend)
        if verdict.key_id != self.key_id:
            raise PolicyViolation(f"the verdict is signed with another key than '{self.key_id}'", mend)
        if not hmac.compare_digest(verdict.manifest_digest.encode(), manifest_digest.encode()):
            raise PolicyViolation("the privacy gate's verdict is for another dataset", mend)
        if not hmac.compare_digest(str(verdict.destination).encode(), str(destination).encode()):
            raise PolicyViolation("the privacy gate's verdict is for another destination", mend)

    def _signature(self, verdict: Cleared) -> str:
        return hmac.new(self.secret, _canonical(verdict), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class ColumnTreatment:
    """What must be done to one column of one table before it may leave.

    Args:
        path, column: As in the findings.
        action: The strictest action that the policy wants for the column.
        entities: What was found there.
        rule: The rule that decided.
        options: How it is done.
        domain: Equal values of one domain get equal tokens at one destination.
        in_text: Whether hits stand inside longer text, so that only the hits are treated and not whole cells.
    """

    path: str
    column: str
    action: Action
    entities: tuple[str, ...]
    rule: str
    options: ActionOptions
    domain: str
    in_text: bool = False

    def applies_to(self, path: str) -> bool:
        """Whether an object is part of the table; it may say yes once too often, which treats more."""
        return path == self.path or fnmatchcase(path, self.path.replace("[", "[[]"))

    @property
    def makes_lookalikes(self) -> bool:
        """Whether every value of the column becomes one that a scan may take for a value again."""
        return self.action in (Action.SHIFT_DATES, Action.FORMAT_PRESERVE) and not self.in_text

    def made(self, finding: Finding) -> bool:
        """Whether a finding in the treated copy is in the column that this made, also where the copy was converted."""
        return finding.column == self.column and (
            self.applies_to(finding.path) or replace(self, path=_stem(self.path)).applies_to(_stem(finding.path))
        )


@dataclass(frozen=True, slots=True)
class Treatment:
    """Every column that must be treated before the dataset may go to `destination`; empty when none.

    Where hits stand inside longer text they are those that `detection` finds.
    `quarantined` is what keeps objects back before anything is treated: see `tasks.core.quarantine`.
    """

    destination: DatasetURI
    policy_digest: str
    columns: tuple[ColumnTreatment, ...]
    detection: Detection = field(default_factory=Detection)
    quarantined: tuple[Decision, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the dataset may be judged as it is."""
        return not self.columns


@dataclass(frozen=True, slots=True)
class Exemptions:
    """What of a copy is not judged by its looks alone.

    Args:
        releases: The entries of the quarantine list that people released and whose objects go along.
        counts: Entity, column and the most rows that these objects hold of it. Anything beyond was not released.
        pseudonyms: Columns whose every value was exchanged for one that looks like it.
    """

    releases: tuple[str, ...] = ()
    counts: Collection[tuple[str, str, int]] = ()
    pseudonyms: tuple[ColumnTreatment, ...] = ()

    def of_values(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """The findings without those in columns of pseudonyms, which are nobody's values."""
        return tuple(each for each in findings if not any(column.made(each) for column in self.pseudonyms))

    def decide(self, policy: Policy, finding: Finding, place: Place) -> Decision:
        """What a policy says about a finding, with `quarantine` lifted where all of it was released."""
        released = any(
            (entity, column) == (finding.entity, finding.column) and finding.count <= count
            for entity, column, count in self.counts
        )
        return policy.decide(finding, place, released=released)


NO_EXEMPTIONS = Exemptions()
"""Everything is judged by what the scan saw."""


@dataclass(frozen=True, slots=True)
class ExpectationOutcome:
    """What the expectations over the counts said: how many were checked, and those that failed, in words."""

    checked: int
    failed: tuple[str, ...] = ()

    @property
    def success(self) -> bool:
        """Whether none failed."""
        return not self.failed


def may_change(policy: Policy) -> bool:
    """Whether a copy may be made under a policy, treated or anonymised, so that a second scan may follow the first."""
    actions = {policy.default_action, *(rule.action for rule in policy.rules)}
    return bool(policy.anonymity or actions.difference(_LEAVE_ALONE) or any(map(may_change, policy.bases)))


def actions_for(
    policy: Policy, report: ScanReport, *, destination: DatasetURI, place: Place, exemptions: Exemptions = NO_EXEMPTIONS
) -> Treatment | Refused:
    """What the policy wants done to a dataset before it may go to a destination.

    Args:
        policy, report: The policy, and the scan of the dataset as it is.
        destination, place: Where it would go.
        exemptions: What is not judged by what the scan saw of it.

    Returns:
        The columns to treat (none: judge it as it is), or the refusal when a rule refuses or residency forbids.
    """
    decisions = [exemptions.decide(policy, finding, place) for finding in report.findings]
    leaving = [decision.finding for decision in decisions if decision.action.leaves_the_value]
    reasons = [_in_words(decision) for decision in decisions if decision.action is Action.REFUSE]
    reasons += [
        f"{_in_words(decision)}, and {decision.finding.place} cannot be treated: rename it"
        for decision in decisions
        if decision.action not in _LEAVE_ALONE and decision.finding.column.startswith(("#", "(name)"))
    ]
    reasons += policy.residency_refusals(leaving, place)
    reasons += _not_thorough(policy, report)
    if reasons:
        return _refused(policy, report, report.manifest_digest, destination, tuple(reasons))
    by_column: dict[tuple[str, str], list[Decision]] = {}
    for decision in decisions:
        if decision.action not in _LEAVE_ALONE:
            by_column.setdefault((decision.finding.path, decision.finding.column), []).append(decision)
    columns = _with_dates_beside(
        [_column_treatment(path, column, of) for (path, column), of in sorted(by_column.items())]
    )
    quarantined = tuple(decision for decision in decisions if decision.action is Action.QUARANTINE)
    return Treatment(destination, policy.digest, columns, policy.detection, quarantined)


def decide(
    policy: Policy,
    report: ScanReport,
    *,
    manifest_digest: str,
    source_digest: str,
    destination: DatasetURI,
    place: Place,
    key: VerdictKey,
    now: datetime,
    objects: int | None = None,
    expectations: ExpectationOutcome | None = None,
    anonymity: tuple[str, ...] | None = None,
    exemptions: Exemptions = NO_EXEMPTIONS,
) -> Verdict:
    """Judge exactly what was scanned: cleared when every finding is allowed as it stands, refused otherwise.

    Args:
        policy: The policy.
        report: The scan of what would leave (after treatment, if there was any).
        manifest_digest: Digest of what would leave.
        source_digest: Digest of the dataset that it was made from.
        destination, place: Where it would go.
        key: Signs a clearance.
        now: The time it is issued, timezone-aware.
        objects: How many objects the manifest has, to be compared with how many were scanned; None to skip.
        expectations: What Great Expectations said; required when the policy has `quality`.
        anonymity: What `tasks.core.structure.check_anonymity` said; required when the policy has `anonymity`.
        exemptions: What is not judged by what the scan saw of it; the clearance names the entries.
    """
    reasons: list[str] = []
    if report.manifest_digest != manifest_digest:
        reasons.append("the scan is of another dataset than the one that would leave")
    reasons += _not_thorough(policy, report)
    if objects is not None and report.objects != objects:
        reasons.append(f"the scan read {report.objects} of {objects} objects")
    if destination.cloud != place.cloud:
        reasons.append(f"the destination is on {destination.cloud}, and the jurisdiction given is of {place.cloud}")
    findings = exemptions.of_values(report.findings)
    decisions = [exemptions.decide(policy, finding, place) for finding in findings]
    reasons += [_in_words(decision) for decision in decisions if decision.action is not Action.ALLOW]
    reasons += policy.residency_refusals(findings, place)
    if policy.quality and expectations is None:
        reasons.append("the policy has quality expectations that were not checked")
    if expectations is not None:
        reasons += expectations.failed
    if policy.anonymity and anonymity is None:
        reasons.append("the policy has limits on anonymity that were not checked")
    reasons += anonymity or ()
    if reasons:
        return _refused(policy, report, manifest_digest, destination, tuple(reasons))
    return key.sign(
        Cleared(
            manifest_digest=manifest_digest,
            source_digest=source_digest,
            policy_digest=policy.digest,
            destination=destination,
            jurisdiction=place.jurisdiction,
            findings=findings,
            rows=report.rows,
            objects=report.objects,
            issued=now.astimezone(UTC),
            keeps_labels=policy.keeps_labels_everywhere,
            releases=exemptions.releases,
            coverage=report.coverage,
        )
    )


def _not_thorough(policy: Policy, report: ScanReport) -> Iterator[str]:
    """Why a scan saw less than the policy asks for; nothing when it saw enough."""
    if not report.detection.covers(policy.detection):
        yield "the scan did not look for everything that the policy names"
    if not report.coverage.satisfies(policy.thoroughness):
        yield f"{report.coverage.in_words}, and the policy asks for more (detection.mode)"


def _refused(
    policy: Policy, report: ScanReport, manifest_digest: str, destination: DatasetURI, reasons: tuple[str, ...]
) -> Refused:
    return Refused(manifest_digest, policy.digest, destination, report.findings, report.rows, reasons)


def _in_words(decision: Decision) -> str:
    finding = decision.finding
    found = f"{entity_of(finding.entity).what} in {finding.place} in {finding.count} rows ({finding.why})"
    if entity_of(finding.entity).group is Group.UNREAD:
        found = f"{finding.place} could not be read ({finding.why})"
    verb = "is refused" if decision.action is Action.REFUSE else f"needs '{decision.action}'"
    return f"{found} {verb} by {decision.rule}"


def _column_treatment(path: str, column: str, decisions: list[Decision]) -> ColumnTreatment:
    strictest = max(decisions, key=lambda decision: decision.strictness)
    return ColumnTreatment(
        path=path,
        column=column,
        action=strictest.action,
        entities=tuple(sorted({decision.finding.entity for decision in decisions})),
        rule=strictest.rule,
        options=strictest.options,
        domain=strictest.options.domain or strictest.finding.entity,
        in_text=strictest.action is not Action.SHIFT_DATES and all(each.finding.whole < 0.5 for each in decisions),
    )


def _with_dates_beside(columns: list[ColumnTreatment]) -> tuple[ColumnTreatment, ...]:
    """The treatments, with those of the columns that must move along with shifted dates."""
    treated = {(each.path, each.column) for each in columns}
    beside = {
        (each.path, name): replace(each, column=name)
        for each in columns
        if each.action is Action.SHIFT_DATES
        for name in each.options.also
        if (each.path, name) not in treated
    }
    return tuple(sorted([*columns, *beside.values()], key=lambda each: (each.path, each.column)))


def _stem(path: str) -> str:
    """A path without the endings of its name, which a conversion changes."""
    directory, slash, name = path.rpartition("/")
    return directory + slash + name.partition(".")[0]


def _plain(verdict: Verdict) -> dict[str, Any]:
    """Every field in JSON's types, so that a field added later is signed without further thought."""
    values: dict[str, Any] = {item.name: getattr(verdict, item.name) for item in fields(verdict)}
    values["destination"] = str(verdict.destination)
    values["findings"] = [finding.as_dict() for finding in verdict.findings]
    if isinstance(verdict, Cleared):
        values["issued"] = verdict.issued.isoformat()
        values["coverage"] = verdict.coverage.as_dict()
    else:
        values["reasons"] = list(verdict.reasons)
    return values


def _canonical(verdict: Cleared) -> bytes:
    values = _plain(verdict)
    del values["signature"]
    return b"lintas verdict 1\n" + json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
