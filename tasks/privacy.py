"""Privacy steps: scan what is there, treat what must not leave as it stands, and judge what would leave.

What reads tables is loaded by the step that needs it: a dataset that was cleared before leaves without.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.artifacts import show_table
from tasks.core.dataset import DatasetURI
from tasks.core.errors import LintasError, Terminal
from tasks.core.findings import Finding, ScanReport
from tasks.core.held import Held
from tasks.core.learned import entities_of
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.policy import Policy
from tasks.core.privacy import NO_EXEMPTIONS, Cleared, Exemptions, Refused, Verdict, actions_for, decide, may_change
from tasks.expectations import check_expectations
from tasks.registry import STAGING, installation
from tasks.staging import recall_of_move, scan_copy, stage, use
from tasks.steps import say, step

if TYPE_CHECKING:
    from tasks.core.quarantine import Sifted


@dataclass(frozen=True)
class Outgoing:
    """What would leave: the dataset as it is, or a copy of it that was treated for one destination.

    Args:
        uri: Where its bytes are.
        manifest: What it holds.
        source_digest: Digest of the dataset that it was made from.
        report: A scan of exactly these bytes; None when it is refused already, or was cleared before.
        refused: The refusal, when a rule refuses whatever is done to the data.
        exemptions: What is not judged by what the scan saw of it.
        coarsened: How coarse each table became to be anonymous enough, and how many rows were left out.
    """

    uri: DatasetURI
    manifest: Manifest
    source_digest: str
    report: ScanReport | None
    refused: Refused | None = None
    exemptions: Exemptions = NO_EXEMPTIONS
    coarsened: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Clearance:
    """What was cleared once and may go again.

    Args:
        outgoing: What would leave.
        verdict: Its clearance.
        findings: What was found at the source.
        held: What stays there in quarantine.
        page: The gate's report of then.
    """

    outgoing: Outgoing
    verdict: Cleared
    findings: tuple[Finding, ...]
    held: tuple[Held, ...] = ()
    page: str = ""


@step(name="recall", run_name="recall the clearance of {uri} for {destination}")
def recall_clearance(
    uri: DatasetURI, manifest: Manifest, policy: Policy, destination: DatasetURI, conversion: str = ""
) -> Clearance | None:
    """The clearance that this very dataset got for this destination under this policy and this version of the gate.

    Args:
        uri, manifest: The dataset.
        policy: The policy.
        destination: Where it would go.
        conversion: What it would be converted to on the way; see `tasks.core.conversion.Conversion.label`.

    Returns:
        None when there is none, when its signature does not verify, or when what was cleared is neither staged any
        more nor what the destination holds: then the gate does its work anew.
    """
    here = installation()
    path = _clearance_file(uri, manifest, policy, destination, conversion)
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        verdict = Cleared.from_dict(kept["verdict"])
        findings = tuple(Finding.from_dict(item) for item in kept["findings"])
        held = tuple(Held.from_dict(item) for item in kept["held"])
        coarsened = tuple(kept["coarsened"])
        page = str(kept["page"])
        leaving = DatasetURI.parse(kept["uri"])
        present = _without(manifest, held) if leaving == uri else _staged(leaving, verdict, destination)
        here.verdict_key.require(verdict, manifest_digest=present.digest, destination=destination)
    except (LintasError, ValueError, KeyError, TypeError) as error:
        say(f"the clearance kept for {destination} does not hold ({type(error).__name__}); the gate looks again")
        return None
    if (verdict.source_digest, verdict.policy_digest) != (manifest.digest, policy.digest):
        return None
    say(f"{destination}: cleared before, at {verdict.issued:%Y-%m-%d %H:%M}, unchanged since")
    outgoing = Outgoing(leaving, present, manifest.digest, None, coarsened=coarsened)
    return Clearance(outgoing, verdict, findings, held, page)


def _staged(leaving: DatasetURI, verdict: Cleared, destination: DatasetURI) -> Manifest:
    """What is staged, or the destination's when all of it has arrived there, so that nothing has to leave."""
    here = installation()
    if leaving.cloud == STAGING:
        use(leaving)
    staged = read_manifest(here.store_of(leaving), leaving, here.records.journal)
    if staged.digest == verdict.manifest_digest:
        return staged
    return read_manifest(here.store_of(destination), destination, here.records.journal, trust_labels=True)


def _without(manifest: Manifest, held: tuple[Held, ...]) -> Manifest:
    if not held:
        return manifest
    from tasks.core.detectors.personal_names import safe_path
    from tasks.core.quarantine import without

    stays = {(item.path, item.digest) for item in held}
    return without(manifest, lambda entry: (safe_path(entry.path), entry.digest) in stays)


def keep_clearance(
    clearance: Clearance,
    uri: DatasetURI,
    manifest: Manifest,
    policy: Policy,
    destination: DatasetURI,
    conversion: str = "",
) -> None:
    """Keep a clearance for the next move of the same dataset to the same place; it is signed and holds no value."""
    path = _clearance_file(uri, manifest, policy, destination, conversion)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "uri": str(clearance.outgoing.uri),
        "verdict": clearance.verdict.as_dict(),
        "findings": [finding.as_dict() for finding in clearance.findings],
        "held": [item.as_dict() for item in clearance.held],
        "coarsened": list(clearance.outgoing.coarsened),
        "page": clearance.page,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(kept), encoding="utf-8")
    partial.replace(path)


def _clearance_file(
    uri: DatasetURI, manifest: Manifest, policy: Policy, destination: DatasetURI, conversion: str
) -> Path:
    here = installation()
    jurisdiction = here.cloud(destination.cloud).jurisdiction
    # With another pseudonym key the same dataset would leave with other tokens.
    tokens = here.pseudonym_key.derive("clearances").hex()
    # Rules for some datasets go by the URI: the same bytes elsewhere may be under others.
    place = [str(uri), str(destination), jurisdiction]
    released = sorted(here.records.quarantine.released(str(uri), policy.digest, str(destination)))
    about = [version("lintas"), *place, manifest.digest, policy.digest, tokens, conversion, released]
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:40]
    return here.settings.state_dir / "clearances" / f"{name}.json"


@step(name="scan", retries=2, run_name="scan {uri}")
def scan_dataset(uri: DatasetURI, manifest: Manifest, policy: Policy) -> ScanReport:
    """Look for personal data in every object, and for what the policy names; counts come back, never values.

    See `tasks.core.detectors.scan.scan`.
    """
    from tasks.core.detectors.scan import scan

    report = scan(
        installation().store_of(uri),
        uri,
        manifest,
        detection=policy.detection,
        thoroughness=policy.thoroughness,
        recall=recall_of_move() if may_change(policy) else None,
    )
    say(f"{uri}: {report.rows:,} rows, {len(report.findings)} findings; {report.coverage.in_words}")
    show_table(
        f"findings-{uri.cloud}",
        [finding.as_dict() for finding in report.findings],
        f"Findings in {uri}: {report.rows:,} rows, {report.objects} objects. {report.coverage.in_words}. "
        "Places and counts, never values.",
    )
    return report


@step(name="treat", retries=1, run_name="treat {uri} for {destination}")
def treat(uri: DatasetURI, source_digest: str, sifted: Sifted, policy: Policy, destination: DatasetURI) -> Outgoing:
    """Make the copy that the policy wants for this destination, on this side, and scan it again.

    Pseudonyms are the same for the same value and destination, and the bytes are the same for the same source, so
    that a second move finds everything in its place.

    Args:
        uri, source_digest: The dataset.
        sifted: What of it may leave, from `set_apart`.
        policy, destination: What would have to be done to it, and for where.
    """
    here = installation()
    manifest, report, exemptions = sifted.leaving, sifted.report, sifted.exemptions
    target = here.cloud(destination.cloud)
    place = here.place(destination.cloud, source=uri)
    if sifted.held and not len(manifest):
        reason = f"all {len(sifted.held)} objects stay in quarantine ('lintas quarantine list')"
        nothing = Refused(manifest.digest, policy.digest, destination, report.findings, report.rows, (reason,))
        return Outgoing(uri, manifest, source_digest, None, nothing)
    treatment = actions_for(policy, report, destination=destination, place=place, exemptions=exemptions)
    if isinstance(treatment, Refused):
        return Outgoing(uri, manifest, source_digest, None, treatment)
    if treatment.empty:
        return Outgoing(uri, manifest, source_digest, report, exemptions=exemptions)
    from tasks.core.transform import apply_treatment

    staged, store = stage(target.name, f"{policy.digest[:16]}/{manifest.digest[:32]}")
    made = apply_treatment(
        here.store_of(uri), uri, manifest, treatment, here.pseudonym_key, into=store, into_uri=staged
    )
    lookalikes = tuple(column for column in treatment.columns if column.makes_lookalikes)
    say(f"treated {len(treatment.columns)} columns for {destination}")
    show_table(
        f"treatment-{destination.cloud}",
        [
            {"path": item.path, "column": item.column, "action": item.action.value, "rule": item.rule}
            for item in treatment.columns
        ],
        f"What is done to {uri} before it may go to {destination}",
    )
    again = scan_copy(store, staged, made, policy)
    return Outgoing(staged, made, source_digest, again, exemptions=replace(exemptions, pseudonyms=lookalikes))


@step(name="judge", retries=2, run_name="judge {outgoing.uri} for {destination}")
def judge(outgoing: Outgoing, policy: Policy, destination: DatasetURI, source: DatasetURI) -> Verdict:
    """Clear or refuse what would leave; see `tasks.core.privacy.decide`. Every verdict enters the audit log.

    Args:
        outgoing: What would leave, from `treat`.
        policy: The policy.
        destination: Where it would go.
        source: The dataset that it was made from, which rules for some datasets go by.
    """
    here = installation()
    place = here.place(destination.cloud, source=source)
    docs = here.settings.state_dir / "data-docs" / place.cloud if here.settings.gate.data_docs else None
    verdict: Verdict
    if outgoing.refused is not None:
        verdict = outgoing.refused
    elif outgoing.report is None:
        raise Terminal(f"{outgoing.uri} was not scanned, so nothing can be said of it", "scan it first")
    else:
        from tasks.core.structure import check_anonymity

        verdict = decide(
            policy,
            outgoing.report,
            manifest_digest=outgoing.manifest.digest,
            source_digest=outgoing.source_digest,
            destination=destination,
            place=place,
            key=here.verdict_key,
            now=datetime.now(UTC),
            objects=len(outgoing.manifest),
            expectations=check_expectations(
                policy, outgoing.report, place=place, docs=docs, exemptions=outgoing.exemptions
            ),
            anonymity=check_anonymity(policy, here.store_of(outgoing.uri), outgoing.uri, outgoing.manifest),
            exemptions=outgoing.exemptions,
        )
    cleared = isinstance(verdict, Cleared)
    here.records.audit.append(
        "verdict",
        str(destination),
        {
            "decision": "cleared" if cleared else "refused",
            "manifest": verdict.manifest_digest,
            "source": outgoing.source_digest,
            "policy": verdict.policy_digest,
            "rows": verdict.rows,
            "findings": len(verdict.findings),
            "entities": entities_of(verdict.findings),
            "releases": list(outgoing.exemptions.releases),
            "reasons": list(verdict.reasons) if isinstance(verdict, Refused) else [],
        },
    )
    say(f"{destination}: {'cleared' if cleared else 'refused'}")
    show_table(
        f"verdict-{destination.cloud}",
        [{"decision": "cleared" if cleared else "refused", "policy": policy.name, "rows": verdict.rows}]
        + [{"reason": reason} for reason in (verdict.reasons if isinstance(verdict, Refused) else ())],
        f"Verdict for {destination}",
    )
    return verdict
