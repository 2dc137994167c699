"""Privacy steps: scan what is there, treat what must not leave as it stands, and judge what would leave."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.artifacts import show_table
from tasks.core.dataset import DatasetURI, Manifest
from tasks.core.detectors.scan import scan
from tasks.core.findings import ScanReport
from tasks.core.policy import Policy
from tasks.core.privacy import Cleared, Refused, Verdict, actions_for, decide
from tasks.core.transform import apply_treatment
from tasks.registry import STAGING, installation
from tasks.steps import say, step


@dataclass(frozen=True)
class Outgoing:
    """What would leave: the dataset as it is, or a copy of it that was treated for one destination.

    Args:
        uri: Where its bytes are.
        manifest: What it holds.
        source_digest: Digest of the dataset that it was made from.
        report: A scan of exactly these bytes; None when it is refused already.
        refused: The refusal, when a rule refuses whatever is done to the data.
    """

    uri: DatasetURI
    manifest: Manifest
    source_digest: str
    report: ScanReport | None
    refused: Refused | None = None


@step(name="scan", retries=2, run_name="scan {uri}")
def scan_dataset(uri: DatasetURI, manifest: Manifest) -> ScanReport:
    """Look for personal data in every object; see `tasks.core.scan.scan`. The report holds counts, never values."""
    report = scan(installation().store_of(uri), uri, manifest)
    say(f"{uri}: {report.rows:,} rows, {len(report.findings)} findings")
    show_table(
        f"findings-{uri.cloud}",
        [finding.as_dict() for finding in report.findings],
        f"Findings in {uri}: {report.rows:,} rows, {report.objects} objects. Places and counts, never values.",
    )
    return report


@step(name="treat", retries=1, run_name="treat {uri} for {destination}")
def treat(uri: DatasetURI, manifest: Manifest, report: ScanReport, policy: Policy, destination: DatasetURI) -> Outgoing:
    """Make the copy that the policy wants for this destination, on this side, and scan it again.

    Pseudonyms are the same for the same value and destination, and the bytes are the same for the same source, so
    that a second move finds everything in its place.
    """
    here = installation()
    target = here.cloud(destination.cloud)
    treatment = actions_for(
        policy, report, destination=destination, jurisdiction=target.jurisdiction, cloud=target.name
    )
    if isinstance(treatment, Refused):
        return Outgoing(uri, manifest, manifest.digest, None, treatment)
    if treatment.empty:
        return Outgoing(uri, manifest, manifest.digest, report)
    staged = DatasetURI(STAGING, target.name, f"{policy.digest[:16]}/{manifest.digest[:32]}")
    store = here.store_of(staged)
    store.create_bucket()
    made = apply_treatment(
        here.store_of(uri), uri, manifest, treatment, here.pseudonym_key, into=store, into_uri=staged
    )
    say(f"treated {len(treatment.columns)} columns for {destination}")
    show_table(
        f"treatment-{destination.cloud}",
        [
            {"path": item.path, "column": item.column, "action": item.action.value, "rule": item.rule}
            for item in treatment.columns
        ],
        f"What is done to {uri} before it may go to {destination}",
    )
    return Outgoing(staged, made, manifest.digest, scan(store, staged, made))


@step(name="judge", run_name="judge {outgoing.uri} for {destination}")
def judge(outgoing: Outgoing, policy: Policy, destination: DatasetURI) -> Verdict:
    """Clear or refuse what would leave; see `tasks.core.privacy.decide`. Every verdict enters the audit log."""
    from tasks.expectations import check_expectations

    here = installation()
    target = here.cloud(destination.cloud)
    verdict: Verdict
    if outgoing.refused is not None or outgoing.report is None:
        assert outgoing.refused is not None
        verdict = outgoing.refused
    else:
        verdict = decide(
            policy,
            outgoing.report,
            manifest_digest=outgoing.manifest.digest,
            source_digest=outgoing.source_digest,
            destination=destination,
            jurisdiction=target.jurisdiction,
            cloud=target.name,
            key=here.verdict_key,
            now=datetime.now(UTC),
            objects=len(outgoing.manifest),
            expectations=check_expectations(
                policy,
                outgoing.report,
                destination=destination,
                jurisdiction=target.jurisdiction,
                docs=here.settings.state_dir / "data-docs" / target.name,
            ),
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
