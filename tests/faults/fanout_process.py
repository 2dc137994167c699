"""One read for several destinations, as a function, and as a process that may be killed at any moment."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.cloud import CloudConfig
from tasks.core.dataset import DatasetURI
from tasks.core.errors import LintasError
from tasks.core.fanout import carry_to_all, recipient_of
from tasks.core.listing import read_manifest
from tasks.core.planning import plan_transfer
from tasks.core.privacy import Cleared, VerdictKey
from tasks.core.transfer import Arrivals, Copied, settle
from tasks.records import Records
from tests.conformance.stores import open_store
from tests.faults.mover_process import cloud_of

KEY = VerdictKey("test", b"k" * 32)


def fan_out(
    near: CloudConfig,
    far: Sequence[CloudConfig],
    bucket: str,
    records_at: Path,
    *,
    near_way: CloudConfig | None = None,
    far_ways: Sequence[CloudConfig] | None = None,
    when_planned: Callable[[], None] = lambda: None,
) -> list[LintasError | frozenset[str]]:
    """Bring the dataset `in` to `out` of each cloud; the routes taken, or why not, in their order.

    Args:
        near, far: The clouds, as they are honestly reached.
        bucket: The bucket in all of them.
        records_at: Journal and uploads.
        near_way, far_ways: What the bytes take instead.
        when_planned: Called when everything is planned and nothing carried.
    """
    source = DatasetURI(near.name, bucket, "in")
    with Records(records_at) as records, ExitStack() as held:
        manifest = read_manifest(open_store(near, bucket), source, records.journal)
        digest = manifest.digest
        under_way = []
        for cloud, way in zip(far, far_ways or far, strict=True):
            target = DatasetURI(cloud.name, bucket, "out")
            present = read_manifest(open_store(cloud, bucket), target, records.journal, trust_labels=True)
            plan = plan_transfer(source, manifest, target, present)
            verdict = KEY.sign(Cleared(digest, digest, "p" * 64, target, "EU", (), 0, len(manifest), datetime.now(UTC)))
            store = open_store(way, bucket)
            arrivals = held.enter_context(Arrivals(records.journal, store, None))
            recipient = recipient_of(plan, verdict, KEY, store, arrivals.add, records.uploads)
            under_way.append((plan, verdict, store, arrivals, recipient))
        when_planned()
        carry_to_all(open_store(near_way or near, bucket), [recipient for *_, recipient in under_way])
        outcomes: list[LintasError | frozenset[str]] = []
        for plan, verdict, store, arrivals, recipient in under_way:
            if recipient.failure is not None:
                outcomes.append(recipient.failure)
                continue
            copied = Copied.of(arrivals.all)
            settle(plan, copied, verdict, KEY, store, started=time.monotonic())
            outcomes.append(frozenset(copied.routes))
    return outcomes


def main() -> None:
    """Fan out as standard input says, and fail when one destination does."""
    work = json.load(sys.stdin)
    ways = {name: [cloud_of(each) for each in work[name]] for name in ("far", "far_ways")}
    outcomes = fan_out(cloud_of(work["near"]), bucket=work["bucket"], records_at=Path(work["records"]), **ways)
    for outcome in outcomes:
        if isinstance(outcome, LintasError):
            raise outcome


if __name__ == "__main__":
    main()
