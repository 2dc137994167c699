"""Storage steps: what a dataset holds, what a move would do, the move itself, and bringing a dataset here."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from tasks.artifacts import show_progress, show_table
from tasks.core.dataset import DatasetURI
from tasks.core.errors import NotFound
from tasks.core.fetching import fetch
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.plane.routes import plane_for, route_between
from tasks.core.planning import TransferPlan, TransferPrices, plan_transfer
from tasks.core.privacy import Cleared
from tasks.core.transfer import CopiedObject, Receipt, copy
from tasks.registry import installation
from tasks.steps import say, step


@step(name="manifest", retries=3, run_name="manifest {uri}")
def manifest_of(uri: DatasetURI, *, reread: bool = False) -> Manifest:
    """List a dataset with a digest of every object; see `tasks.core.listing.read_manifest`."""
    here = installation()
    manifest = read_manifest(here.store_of(uri), uri, here.records.journal, reread=reread, refuse_archived=True)
    say(f"{uri} holds {len(manifest)} objects, {manifest.size_bytes:,} bytes, digest {manifest.digest[:16]}")
    return manifest


@step(name="plan", retries=3, run_name="plan {source} -> {destination}")
def plan_move(
    source: DatasetURI, manifest: Manifest, destination: DatasetURI, *, charged_as: str, delete: bool = False
) -> TransferPlan:
    """Compare with what is at the destination; see `tasks.core.transfer.plan_transfer`.

    Args:
        source: Where the bytes are (the staging area, for a pseudonymised copy).
        manifest: What the destination should hold.
        destination: Where to. A bucket that does not exist yet is created.
        charged_as: The cloud whose egress price counts.
        delete: Whether objects that only the destination has may be removed.
    """
    here = installation()
    plan = plan_transfer(
        source,
        manifest,
        destination,
        _present(destination),
        prices=TransferPrices(egress_usd_per_gib=here.prices(charged_as).egress_usd_per_gib),
        delete=delete,
        route=route_between(here.store_of(source), here.store_of(destination)),
    )
    say(
        f"{plan.objects_to_send} of {len(manifest)} objects to send, {plan.bytes_to_send:,} bytes,"
        f" {in_usd(plan.cost_usd)}"
    )
    show_table(
        f"plan-{destination.cloud}",
        [
            {"what": "add", "objects": len(plan.add), "bytes": plan.add.size_bytes},
            {"what": "replace", "objects": len(plan.replace), "bytes": plan.replace.size_bytes},
            {"what": "remove", "objects": len(plan.remove), "bytes": plan.remove.size_bytes},
            {"what": "keep", "objects": len(plan.keep), "bytes": plan.keep.size_bytes},
        ],
        f"Plan {source} -> {destination}: route {plan.route}, {in_usd(plan.cost_usd)}",
    )
    return plan


@step(name="copy", retries=2, run_name="copy {plan.source} -> {plan.destination}")
def copy_cleared(plan: TransferPlan, verdict: Cleared) -> Receipt:
    """Carry out a cleared plan and enter the receipt in the audit log; see `tasks.core.transfer.copy`."""
    here = installation()
    destination = here.store_of(plan.destination)
    if not len(plan.keep):
        destination.create_bucket()
    with show_progress(f"copy-{plan.destination.cloud}", plan.bytes_to_send) as advance:

        def count(item: CopiedObject) -> None:
            advance(item.size_bytes)

        receipt = copy(
            plan,
            verdict,
            here.verdict_key,
            here.store_of(plan.source),
            destination,
            here.records.journal,
            plane=plane_for(plan.route, uploads=here.records.uploads, key_prefix=plan.destination.key_prefix, say=say),
            on_object=count,
        )
    here.records.audit.append(
        "receipt",
        str(plan.destination),
        {
            "source": str(plan.source),
            "digest": receipt.digest,
            "objects": receipt.objects,
            "objects_sent": len(receipt.copied),
            "bytes_sent": receipt.bytes_sent,
            "objects_removed": len(receipt.removed),
            "route": receipt.route,
        },
    )
    say(f"{plan.destination} holds {receipt.digest[:16]}; {len(receipt.copied)} objects sent, route {receipt.route}")
    show_table(
        f"receipt-{plan.destination.cloud}",
        [
            {"path": item.path, "bytes": item.size_bytes, "digest": item.digest[:16], "verified by": item.verified_by}
            for item in islice(receipt.copied, 200)
        ],
        f"Receipt {plan.destination}: digest {receipt.digest}",
    )
    return receipt


@step(name="fetch", retries=3, run_name="fetch {uri}")
def fetch_dataset(uri: DatasetURI, manifest: Manifest, into: Path, *, under: str = "") -> Path:
    """Bring the objects of a dataset that lie under a path to a local directory, verified against the manifest."""
    return fetch(installation().store_of(uri), uri, manifest, into, under=under)


def _present(destination: DatasetURI) -> Manifest:
    here = installation()
    try:
        return read_manifest(here.store_of(destination), destination, here.records.journal, trust_labels=True)
    except NotFound:
        return Manifest.of(())


def in_usd(amount: float | None) -> str:
    """An amount for people; an unknown price is said to be unknown."""
    return "cost unknown" if amount is None else f"{amount:.4f} USD"
