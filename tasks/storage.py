"""Storage steps: what a dataset holds, what a move would do, the move itself, and bringing a dataset here."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.artifacts import show_table
from tasks.core.dataset import DatasetURI
from tasks.core.errors import LintasError, NotFound
from tasks.core.estimates import Estimate, estimate
from tasks.core.fanout import Recipient, carry_to_all, recipient_of
from tasks.core.fetching import fetch
from tasks.core.lease import Lease, Watch, leased
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.names import ObjectRules, require_names
from tasks.core.plane import CopiedObject
from tasks.core.plane.limits import Limits
from tasks.core.plane.parts import UploadsOf
from tasks.core.plane.routes import plane_for, route_between, why_no_pull
from tasks.core.planning import (
    GIB,
    SHARD_BYTES,
    SHARD_OBJECTS,
    DeleteLimit,
    Shard,
    TransferPlan,
    TransferPrices,
    plan_transfer,
)
from tasks.core.ports import UploadJournal
from tasks.core.privacy import Cleared
from tasks.core.retries import in_parallel, with_retries
from tasks.core.selection import Selection
from tasks.core.transfer import Arrivals, Copied, Receipt, carry, settle
from tasks.progress import show_moving
from tasks.registry import STAGING, installation
from tasks.shards import shards_run
from tasks.steps import say, step
from tasks.uploads import NotedUploads

_HISTORY = timedelta(days=90)
_TELLING_BYTES = 64 * 1024 * 1024
_LOOK_S = 20.0
"""How often a shard that was given away looks whether its move still holds the lease."""


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """How a move compares and what it may remove.

    Args:
        selection: Which objects of the source are meant.
        delete: Whether objects that only the destination has may be removed.
        delete_limit: How many of them.
        by_listing: Whether objects of the destination of which nothing is known count as unchanged when they have
            the source's size and were written no earlier; plan, receipt and manifest name them as assumed.
    """

    selection: Selection = field(default_factory=Selection)
    delete: bool = False
    delete_limit: DeleteLimit = field(default_factory=DeleteLimit)
    by_listing: bool = False


@step(name="manifest", retries=3, run_name="manifest {uri}")
def manifest_of(uri: DatasetURI, *, reread: bool = False, selection: Selection | None = None) -> Manifest:
    """List a dataset with a digest of every object; see `tasks.core.listing.read_manifest`."""
    here = installation()
    manifest = read_manifest(
        here.store_of(uri), uri, here.records.journal, reread=reread, selection=selection, refuse_archived=True
    )
    only = f" (only {selection})" if selection else ""
    say(f"{uri}{only} holds {len(manifest)} objects, {manifest.size_bytes:,} bytes, digest {manifest.digest[:16]}")
    return manifest


@step(name="plan", retries=3, run_name="plan {source} -> {destination}")
def plan_move(
    source: DatasetURI,
    manifest: Manifest,
    destination: DatasetURI,
    *,
    charged_as: str,
    options: MoveOptions = MoveOptions(),
) -> tuple[TransferPlan, Estimate]:
    """Compare with what is at the destination; see `tasks.core.planning.plan_transfer` and `estimates.estimate`.

    Args:
        source: Where the bytes are (the staging area, for a pseudonymised copy).
        manifest: What the destination should hold.
        destination: Where to. A bucket that does not exist yet is created.
        charged_as: The cloud whose egress price counts.
        options: How to compare, and what may be removed.
    """
    here = installation()
    target = here.cloud(destination.cloud)
    rules = ObjectRules.from_catalog(here.catalog(destination.cloud), target.options, f"{target.provider}/catalog.yaml")
    require_names(manifest, destination, rules)
    present = _present(destination, manifest if options.by_listing else None)
    prices = _prices(charged_as, destination.cloud)
    plan = plan_transfer(
        source,
        manifest,
        destination,
        present,
        prices=prices,
        delete=options.delete,
        delete_limit=options.delete_limit,
        route=route_between(here.store_of(source), here.store_of(destination)),
    )
    expected = estimate(plan, len(present), prices, *_rates(charged_as, destination.cloud))
    assumed = f", {plan.assumed} assumed to be there by size and time" if plan.assumed else ""
    if closed := why_no_pull(here.store_of(source), here.store_of(destination)):
        say(f"{destination.cloud} does not pull: {closed}; the route is {plan.route}")
    say(
        f"{plan.objects_to_send} of {len(manifest)} objects to send, {plan.bytes_to_send:,} bytes,"
        f" {in_usd(plan.cost_usd)}{assumed}"
    )
    show_table(
        f"plan-{destination.cloud}",
        [
            {"what": "add", "objects": len(plan.add), "bytes": plan.add.size_bytes},
            {"what": "replace", "objects": len(plan.replace), "bytes": plan.replace.size_bytes},
            {"what": "remove", "objects": len(plan.remove), "bytes": plan.remove.size_bytes},
            {"what": "keep", "objects": len(plan.keep), "bytes": plan.keep.size_bytes},
        ],
        f"Plan {source} -> {destination}: route {plan.route}, {in_usd(plan.cost_usd)}{assumed}",
    )
    return plan, expected


def copy_cleared(plan: TransferPlan, verdict: Cleared, *, limit_mb_per_s: float = 0) -> Receipt:
    """Carry out a cleared plan under the destination's lease, shard by shard, and enter the receipt in the audit log.

    See `tasks.core.transfer.copy` for what may go wrong.

    Args:
        plan, verdict: What to carry, under which clearance.
        limit_mb_per_s: The most that may pass through this machine; 0 for what the configuration says.
    """
    here = installation()
    limits = here.limits if not limit_mb_per_s else replace(here.limits, mb_per_s=limit_mb_per_s)
    started = time.monotonic()
    destination = here.store_of(plan.destination)
    if not len(plan.keep):
        destination.create_bucket()
    with (
        leased(destination, plan.destination, this_process(), is_dead=is_dead) as lease,
        show_moving(f"copy-{plan.destination.cloud}", plan.objects_to_send, plan.bytes_to_send) as count,
    ):
        copied = Copied.joined(_carry_shards(plan, verdict, count, limits))
        return settle_move(plan, copied, verdict, lease, started)


def _carry_shards(
    plan: TransferPlan, verdict: Cleared, count: Callable[[CopiedObject], None], limits: Limits
) -> list[Copied]:
    """Carry all shards of a plan, as many at once as the configuration says and where it says."""
    where = installation().settings.mover.shards
    # What waits in the staging area of this machine can be read nowhere else.
    here = where.runner == "threads" or plan.source.cloud == STAGING
    owner = this_process()

    def one(shard: Shard) -> Copied:
        arguments = {"shard": shard, "verdict": verdict, "arrived": {}, "limits": limits.shared(where.at_once)}
        if here:
            return run(**arguments, count=count, owner="")
        copied = run(**arguments, count=None, owner=owner)
        for item in copied:
            count(item)
        return copied

    most_bytes = SHARD_BYTES if where.gib is None else round(where.gib * GIB)
    shards = plan.shards(where.objects or SHARD_OBJECTS, most_bytes)
    with shards_run(copy_shard, where, here=here) as run:
        return in_parallel(one, shards, where.at_once, threading.Event())


def copy_to_all(plans: Sequence[tuple[TransferPlan, Cleared]]) -> list[Receipt | LintasError]:
    """Carry out plans that read the same bytes, with one read for all; what became of each, in their order.

    The plans have source and manifest in common; each has its own clearance, lease and receipt, and fails alone. See
    `tasks.core.fanout`.
    """
    here = installation()
    started = time.monotonic()
    outcomes: dict[int, Receipt | LintasError] = {}
    under_way: dict[int, tuple[Recipient, Lease, Arrivals]] = {}
    with ExitStack() as held:
        objects = sum(plan.objects_to_send for plan, _ in plans)
        count = held.enter_context(show_moving("copy-to-all", objects, sum(plan.bytes_to_send for plan, _ in plans)))
        for at, (plan, verdict) in enumerate(plans):
            store = here.store_of(plan.destination)
            try:
                if not len(plan.keep):
                    store.create_bucket()
                lease = held.enter_context(leased(store, plan.destination, this_process(), is_dead=is_dead))
                arrivals = held.enter_context(Arrivals(here.records.journal, store, count))
                recipient = recipient_of(plan, verdict, here.verdict_key, store, arrivals.add, here.records.uploads)
                under_way[at] = recipient, lease, arrivals
            except LintasError as error:
                outcomes[at] = error
        carry_to_all(here.store_of(plans[0][0].source), [recipient for recipient, _, _ in under_way.values()], say=say)
        for at, (recipient, lease, arrivals) in under_way.items():
            plan, verdict = plans[at]
            try:
                if recipient.failure is not None:
                    raise recipient.failure
                outcomes[at] = settle_move(plan, Copied.of(arrivals.all), verdict, lease, started)
            except LintasError as error:
                outcomes[at] = error
    return [outcomes[at] for at in range(len(plans))]


@step(name="copy", retries=2, run_name="copy {shard.source} -> {shard.destination}, part {shard.number}")
def copy_shard(
    shard: Shard,
    verdict: Cleared,
    arrived: dict[str, CopiedObject],
    count: Callable[[CopiedObject], None] | None,
    limits: Limits,
    owner: str,
) -> Copied:
    """Carry one shard of a plan, on whichever machine this is; see `tasks.core.transfer.carry`.

    Clouds, secrets and the key of verdicts are those of this machine's own configuration.

    Args:
        shard, verdict: What to carry, under which clearance.
        arrived: What has arrived, by path: empty at first. It survives a retry, which sends nothing of it again.
        count: Called with each object that arrives; None where nobody here counts.
        limits: What this shard may take.
        owner: Who holds the destination's lease, when the work was given away by another process: it ends when that
            one does. Empty for this process.
    """
    here = installation()
    destination = here.store_of(shard.destination)
    uploads: UploadJournal = here.records.uploads
    if owner:
        uploads = NotedUploads(uploads, destination, shard.destination)
    lock, looked, watch = threading.Lock(), -_LOOK_S, Watch(destination, shard.destination)

    def require_owner() -> None:
        nonlocal looked
        with lock:
            due = bool(owner) and time.monotonic() - looked >= _LOOK_S
            looked = time.monotonic() if due else looked
        if due:
            with_retries(lambda: watch.require(owner), 4, threading.Event())

    def note(item: CopiedObject) -> None:
        arrived[item.path] = item
        if count is not None:
            count(item)
        require_owner()

    require_owner()
    carry(
        shard,
        [load for load in shard.loads if load.entry.path not in arrived],
        verdict,
        here.verdict_key,
        here.store_of(shard.source),
        destination,
        here.records.journal,
        plane=plane_for(
            shard.route,
            uploads=UploadsOf(uploads, shard.owns),
            key_prefix=shard.destination.key_prefix,
            limits=limits,
            say=say,
        ),
        on_object=note,
    )
    return Copied.of(arrived.values())


@step(name="settle", retries=2, run_name="settle {plan.destination}")
def settle_move(plan: TransferPlan, copied: Copied, verdict: Cleared, lease: Lease, started: float) -> Receipt:
    """Remove, verify and publish when everything has arrived, then enter the receipt; see `tasks.core.transfer.settle`.

    Args:
        plan, copied, verdict: What was planned, what was sent, under which clearance.
        lease: That of the destination; it must still be held when something is removed or published.
        started: When the copy began, by `time.monotonic`.
    """
    here = installation()
    destination = here.store_of(plan.destination)
    receipt = settle(plan, copied, verdict, here.verdict_key, destination, started=started, still_alone=lease.require)
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
            "objects_assumed": receipt.assumed,
            "route": receipt.route,
            "elapsed_ms": round(receipt.elapsed_s * 1000),
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


def in_usd(amount: float | None) -> str:
    """An amount for people; an unknown price is said to be unknown."""
    return "cost unknown" if amount is None else f"{amount:.4f} USD"


def receipt_lines(receipt: Receipt) -> Iterable[dict[str, Any]]:
    """The whole receipt, for a file of JSON lines: what was moved, then every object with how it was verified."""
    yield {
        "lintas_receipt": 1,
        "source": str(receipt.source),
        "destination": str(receipt.destination),
        "digest": receipt.digest,
        "objects": receipt.objects,
        "objects_sent": len(receipt.copied),
        "objects_assumed": receipt.assumed,
        "route": receipt.route,
    }
    for item in receipt.copied:
        yield asdict(item)
    for path in receipt.removed:
        yield {"path": path, "removed": True}


def this_process() -> str:
    """Who a lease belongs to: this machine (with its container) and process."""
    return f"{socket.gethostname()}/{_namespace()}/{os.getpid()}"


def is_dead(owner: str) -> bool:
    """Whether the owner of a lease was a process of this machine that has ended."""
    machine, _, process = owner.rpartition("/")
    if machine != this_process().rpartition("/")[0] or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _namespace() -> str:
    """What tells two containers of one host name apart, where the system has it."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"


def _present(destination: DatasetURI, like: Manifest | None) -> Manifest:
    here = installation()
    store, journal = here.store_of(destination), here.records.journal
    try:
        return read_manifest(store, destination, journal, trust_labels=like is None, like=like)
    except NotFound:
        return Manifest.of(())


def _prices(source: str, destination: str) -> TransferPrices:
    here = installation()
    near, far = (here.catalog(cloud).get("requests") or {} for cloud in (source, destination))
    return TransferPrices(
        egress_usd_per_gib=here.prices(source).egress_usd_per_gib,
        read_usd_per_1000=near.get("read_usd_per_1000"),
        source_list_usd_per_1000=near.get("write_usd_per_1000"),
        write_usd_per_1000=far.get("write_usd_per_1000"),
    )


def _rates(source: str, destination: str) -> tuple[float | None, float | None]:
    """Bytes and objects a second of the last telling moves between two clouds, by this installation's receipts."""
    bytes_per_s = objects_per_s = None
    for record in installation().records.audit.records(kind="receipt", since=datetime.now(UTC) - _HISTORY):
        facts = record.facts
        same = str(facts["source"]).startswith(f"{source}://") and record.subject.startswith(f"{destination}://")
        seconds = facts.get("elapsed_ms", 0) / 1000
        if not same or not seconds:
            continue
        if facts["bytes_sent"] >= _TELLING_BYTES:
            bytes_per_s = facts["bytes_sent"] / seconds
        if facts["objects_sent"]:
            objects_per_s = facts["objects_sent"] / seconds
            bytes_per_s = bytes_per_s or facts["bytes_sent"] / seconds
    return bytes_per_s, objects_per_s
