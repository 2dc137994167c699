"""What a planned move will take: requests by kind, USD and seconds. Whatever is not known is None, never a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.core.arrow import compute
from tasks.core.dataset import CHUNK_BYTES
from tasks.core.planning import GIB, TransferPlan, TransferPrices

PAGE_OBJECTS = 1000
"""How many objects a page of a listing has; all four clouds give at most so many or more."""


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests of each kind a move sends when nothing has to be tried again.

    Args:
        source_list, source_read: At the source.
        destination_list, destination_write, destination_delete: At the destination. A part of a large object is a
            write, and so are the beginning and the end of its upload.
    """

    source_list: int
    source_read: int
    destination_list: int
    destination_write: int
    destination_delete: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a move will take.

    Args:
        requests: By kind.
        egress_usd: For the bytes that leave the source; None when the price is unknown.
        requests_usd: For the requests of both sides; None when a price is unknown.
        seconds: By how fast this installation last moved between the two clouds; None before it did.
    """

    requests: Requests
    egress_usd: float | None
    requests_usd: float | None
    seconds: float | None


def estimate(
    plan: TransferPlan, present: int, prices: TransferPrices, bytes_per_s: float | None, objects_per_s: float | None
) -> Estimate:
    """Count and price what a plan will do.

    Args:
        plan: From `plan_transfer`.
        present: How many objects the destination holds now.
        prices: Of the two clouds.
        bytes_per_s, objects_per_s: How fast a move between them was; the slower of the two counts.
    """
    whole, parts, large = _pieces(plan)
    requests = Requests(
        source_list=_pages(len(plan.manifest)),
        source_read=whole + parts,
        # Once to plan and once to verify; and the manifest's own place.
        destination_list=_pages(present) + _pages(len(plan.manifest)) + 1,
        destination_write=whole + parts + 2 * large + 1,
        destination_delete=len(plan.remove),
    )
    return Estimate(
        requests=requests,
        egress_usd=None if prices.egress_usd_per_gib is None else plan.bytes_to_send / GIB * prices.egress_usd_per_gib,
        requests_usd=_requests_usd(requests, prices),
        seconds=_seconds(plan, bytes_per_s, objects_per_s),
    )


def _pages(objects: int) -> int:
    return max(1, -(-objects // PAGE_OBJECTS))


def _pieces(plan: TransferPlan) -> tuple[int, int, int]:
    """How many objects go whole, how many parts the others have, and how many those are."""
    whole = parts = large = 0
    for batch in plan.steps:
        sizes: Any = batch.filter(compute.not_equal(batch.column("action"), "keep")).column("size_bytes")
        in_parts = sizes.filter(compute.greater(sizes, CHUNK_BYTES))
        whole += len(sizes) - len(in_parts)
        large += len(in_parts)
        parts += compute.sum(compute.divide(compute.add(in_parts, CHUNK_BYTES - 1), CHUNK_BYTES)).as_py() or 0
    return whole, parts, large


def _requests_usd(requests: Requests, prices: TransferPrices) -> float | None:
    counted = (
        (requests.source_list, prices.source_list_usd_per_1000),
        (requests.source_read, prices.read_usd_per_1000),
        (requests.destination_list + requests.destination_write, prices.write_usd_per_1000),
    )
    if any(count and price is None for count, price in counted):
        return None
    return sum(count / 1000 * (price or 0.0) for count, price in counted)


def _seconds(plan: TransferPlan, bytes_per_s: float | None, objects_per_s: float | None) -> float | None:
    if not plan.objects_to_send:
        return 0.0
    if not bytes_per_s or not objects_per_s:
        return None
    return max(plan.bytes_to_send / bytes_per_s, plan.objects_to_send / objects_per_s)
