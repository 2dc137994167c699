"""What a move is, whoever starts it: prepared, then carried, to one destination or to several.

Nothing here loads Prefect: the `lintas` command moves without it. The flow is `flows.move`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.coarsening import coarsen_outgoing
from tasks.conversion import convert_outgoing
from tasks.core.conversion import Conversion
from tasks.core.dataset import DatasetURI
from tasks.core.errors import LintasError, PolicyViolation
from tasks.core.estimates import Estimate
from tasks.core.fanout import read_for
from tasks.core.findings import Finding
from tasks.core.held import Held
from tasks.core.plane.limits import Limits
from tasks.core.planning import DeleteLimit, TransferPlan, require_apart, require_objects
from tasks.core.privacy import Cleared, Refused
from tasks.core.selection import Selection
from tasks.core.transfer import Receipt
from tasks.gate_report import publish_gate_report
from tasks.privacy import Clearance, Outgoing, judge, keep_clearance, recall_clearance, scan_dataset, treat
from tasks.quarantine import set_apart
from tasks.registry import installation
from tasks.staging import staged_copies
from tasks.steps import say
from tasks.storage import MoveOptions, copy_cleared, copy_to_all, manifest_of, plan_move

if TYPE_CHECKING:
    from flows.forms import Compare


@dataclass(frozen=True)
class Prepared:
    """A move before any byte moves: what was found, what stays, what would leave, its clearance, and the plan."""

    source: DatasetURI
    policy: str
    findings: tuple[Finding, ...]
    held: tuple[Held, ...]
    page: str
    outgoing: Outgoing
    verdict: Cleared
    plan: TransferPlan
    estimate: Estimate


@dataclass(frozen=True)
class Moved:
    """What a move did.

    Args:
        source: Where the dataset was.
        source_digest: Its digest there.
        findings: What the gate found in it before treatment.
        held: The objects that stay at the source, in quarantine.
        coarsened: How coarse each table became to be anonymous enough, and how many rows were left out.
        page: The gate's report.
        receipt: What was sent; its digest is that of the destination, equal to the source's unless the policy
            made a treated copy.
        verdict: The clearance it travelled under.
        policy: Its policy's name.
        conversion: What became of the objects on the way; empty when they went as they were.
        cost_usd: The plan's estimate of egress; None when the price is unknown.
        elapsed_s: Of the whole, with scan and verdict.
    """

    source: DatasetURI
    source_digest: str
    findings: tuple[Finding, ...]
    held: tuple[Held, ...]
    coarsened: tuple[Mapping[str, Any], ...]
    page: str
    receipt: Receipt
    verdict: Cleared
    policy: str
    conversion: str
    cost_usd: float | None
    elapsed_s: float

    def findings_json(self) -> list[dict[str, Any]]:
        """What was found at the source, and what the policy had done to it before it left."""
        here = installation()
        rules, place = here.policy(self.policy), here.place(self.receipt.destination.cloud, source=self.source)
        return [
            finding.as_dict() | {"treatment": rules.decide(finding, place).action.value} for finding in self.findings
        ]

    def as_json(self) -> dict[str, Any]:
        """The shape that `lintas move --json` documents."""
        return {
            "source": str(self.source),
            "destination": str(self.receipt.destination),
            "leaving": str(self.receipt.source),
            "digest": self.receipt.digest,
            "source_digest": self.source_digest,
            "objects": self.receipt.objects,
            "size_bytes": self.receipt.size_bytes,
            "objects_sent": len(self.receipt.copied),
            "bytes_sent": self.receipt.bytes_sent,
            "objects_removed": len(self.receipt.removed),
            "objects_assumed": self.receipt.assumed,
            "objects_held": len(self.held),
            "route": self.receipt.route,
            "verdict": "cleared",
            "policy": self.policy,
            "report": self.page,
            "conversion": self.conversion,
            "anonymised": [dict(each) for each in self.coarsened],
            "treated": self.receipt.source != self.source and self.receipt.digest != self.source_digest,
            "cost_usd": self.cost_usd,
            "elapsed_s": self.elapsed_s,
        }


def move_to_all(
    source: str,
    destinations: Sequence[str],
    policy: str,
    options: MoveOptions,
    conversion: Conversion,
    limit_mb_per_s: float = 0,
) -> list[Moved | LintasError]:
    """Move a dataset to several destinations: each has its own verdict, lease and receipt, and fails alone.

    Destinations that the same bytes leave for are fed from one read of the source. What a service copies by itself
    is not read here at all, and goes one after the other; so does everything when a limit is set, which a shared read
    does not keep.

    Returns:
        What became of each destination, in their order.
    """
    started = time.monotonic()
    outcomes: dict[int, Moved | LintasError] = {}
    together: dict[tuple[Any, ...], list[tuple[int, Prepared]]] = {}
    unlimited = not limit_mb_per_s and installation().limits == Limits()
    with staged_copies() as staged:
        for at, destination in enumerate(destinations):
            try:
                ready = prepare(source, destination, policy, options, conversion)
            except LintasError as error:
                outcomes[at] = error
                continue
            read = read_for(ready.plan) if unlimited else None
            key = (at,) if read is None else (str(ready.plan.source), ready.plan.manifest.digest, read)
            together.setdefault(key, []).append((at, ready))
        for group in together.values():
            for (at, ready), receipt in zip(
                group, _received([ready for _, ready in group], limit_mb_per_s), strict=True
            ):
                outcomes[at] = (
                    receipt if isinstance(receipt, LintasError) else moved(ready, receipt, conversion, started)
                )
        if any(isinstance(each, LintasError) and not isinstance(each, PolicyViolation) for each in outcomes.values()):
            staged.keep()
    return [outcomes[at] for at in range(len(destinations))]


def _received(group: Sequence[Prepared], limit_mb_per_s: float) -> list[Receipt | LintasError]:
    """Carry what one read is for; one destination has a move of its own, with its shards and processes."""
    if len(group) > 1:
        return copy_to_all([(ready.plan, ready.verdict) for ready in group])
    (ready,) = group
    try:
        return [copy_cleared(ready.plan, ready.verdict, limit_mb_per_s=limit_mb_per_s)]
    except LintasError as error:
        return [error]


def moved(ready: Prepared, receipt: Receipt, conversion: Conversion, started: float) -> Moved:
    """What was prepared and then carried, as it is told; `started` by the monotonic clock."""
    return Moved(
        source=ready.source,
        source_digest=ready.outgoing.source_digest,
        findings=ready.findings,
        held=ready.held,
        coarsened=ready.outgoing.coarsened,
        page=ready.page,
        receipt=receipt,
        verdict=ready.verdict,
        policy=ready.policy,
        conversion=conversion.label,
        cost_usd=ready.plan.cost_usd,
        elapsed_s=time.monotonic() - started,
    )


def options_of(
    delete: bool, delete_limit: str, include: list[str], exclude: list[str], compare: Compare
) -> MoveOptions:
    """The options of a move as people write them. Raises `Invalid` naming what is wrong."""
    return MoveOptions(Selection.of(include, exclude), delete, DeleteLimit.parse(delete_limit), compare == "listing")


def prepare(
    source: str, destination: str, policy: str, options: MoveOptions, conversion: Conversion | None = None
) -> Prepared:
    """Everything of a move up to the plan; nothing at the destination is touched.

    Raises:
        PolicyViolation: The gate refuses; the reasons name entities and places, never values.
        Invalid: The destination cannot hold the dataset, or holds what may not be removed.
    """
    here = installation()
    origin, target, policy = here.parse(source), here.parse(destination), here.policy_name(policy)
    rules = here.policy(policy)
    require_apart(origin, target)
    manifest = manifest_of(origin, selection=options.selection)
    require_objects(origin, manifest)
    wanted = conversion or Conversion()
    cleared = recall_clearance(origin, manifest, rules, target, wanted.label)
    if cleared is None:
        report = scan_dataset(origin, manifest, rules)
        sifted = set_apart(origin, manifest, report, rules, target)
        treated = coarsen_outgoing(treat(origin, manifest.digest, sifted, rules, target), rules)
        outgoing = convert_outgoing(treated, wanted, rules)
        verdict = judge(outgoing, rules, target, origin)
        page = publish_gate_report(
            report,
            rules,
            target,
            decision="refused" if isinstance(verdict, Refused) else "cleared",
            reasons=verdict.reasons if isinstance(verdict, Refused) else (),
            held=sifted.held,
            anonymised=outgoing.coarsened,
        )
        say(f"what the gate found: {page}")
        if isinstance(verdict, Refused):
            raise verdict.violation()
        cleared = Clearance(outgoing, verdict, report.findings, sifted.held, str(page))
        keep_clearance(cleared, origin, manifest, rules, target, wanted.label)
    leaving = cleared.outgoing
    plan, expected = plan_move(leaving.uri, leaving.manifest, target, charged_as=origin.cloud, options=options)
    return Prepared(
        origin, policy, cleared.findings, cleared.held, cleared.page, leaving, cleared.verdict, plan, expected
    )
