"""Placement: which offer should run a job, what it costs in all, and why every other one should not.

Choosing is pure and does not depend on the order in which offers come: among the offers that satisfy the
requirements and that the data may go to, the one of least total cost (compute, egress, storage, checkpoints) wins;
at the same cost the one that finishes first, then the one that cannot be preempted, then the first by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.core.errors import Invalid, Stockout
from tasks.core.fields import Fields
from tasks.core.offers import Offer, OfferKey, Prices, offers_from_catalog, prices_from_catalog

__all__ = [
    "Breakdown",
    "Offer",
    "OfferKey",
    "Placement",
    "Prices",
    "Requirements",
    "Situation",
    "cost",
    "offers_from_catalog",
    "place",
    "prices_from_catalog",
]

GIB = 1024**3
HOURS_PER_MONTH = 730.0
DEFAULT_BANDWIDTH_BYTES_PER_S = 100e6
"""Assumed throughput between two clouds when nothing was measured: 100 MB a second."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job needs.

    Args:
        accelerator: Name of the accelerator ("H100"), or None when a CPU will do.
        count: How many of them, in one machine.
        accelerator_memory_gib: Memory that each must have.
        vcpus: Virtual CPUs of the machine.
        memory_gib: Memory of the machine.
        run_s: Seconds that the job is expected to run; the cost is reckoned with it.
        checkpoint_gib: Size of what it keeps in its checkpoint directory.
        max_usd: The most that it may cost in all; None for no limit.
        deadline_s: Seconds within which it must be finished, transfer of the data included; None for no limit.
        spot: Whether it may run where it can be preempted.
        jurisdictions: Where it may run; empty for wherever the policy lets the data go.
        clouds: The only clouds on which it may run; empty for all.
    """

    accelerator: str | None = None
    count: int = 0
    accelerator_memory_gib: float = 0.0
    vcpus: float = 0.0
    memory_gib: float = 0.0
    run_s: float = 3600.0
    checkpoint_gib: float = 0.0
    max_usd: float | None = None
    deadline_s: float | None = None
    spot: bool = False
    jurisdictions: tuple[str, ...] = ()
    clouds: tuple[str, ...] = ()

    @classmethod
    def from_mapping(cls, data: object, where: str = "requirements") -> Requirements:
        """Read them from YAML. Raises `Invalid` naming the key that is unknown or of the wrong kind."""
        fields = Fields(data, where)
        accelerator = fields.text("accelerator", "none")
        needs = cls(
            accelerator=None if accelerator.lower() == "none" else accelerator,
            count=fields.integer("count", 0),
            accelerator_memory_gib=fields.number("accelerator_memory_gib", 0.0),
            vcpus=fields.number("vcpus", 0.0),
            memory_gib=fields.number("memory_gib", 0.0),
            run_s=fields.number("run_s", 3600.0),
            checkpoint_gib=fields.number("checkpoint_gib", 0.0),
            max_usd=fields.optional_number("max_usd"),
            deadline_s=fields.optional_number("deadline_s"),
            spot=fields.flag("spot", False),
            jurisdictions=fields.texts("jurisdictions", ()),
            clouds=fields.texts("clouds", ()),
        )
        fields.finish()
        if (needs.accelerator is None) != (needs.count == 0):
            raise Invalid(
                f"{where} asks for {needs.count} of accelerator '{accelerator}'",
                "give a count of at least 1 with an accelerator, and none without",
            )
        return needs


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What a job costs, in USD."""

    compute_usd: float
    egress_usd: float
    storage_usd: float
    checkpoints_usd: float

    @property
    def total_usd(self) -> float:
        """All of it."""
        return self.compute_usd + self.egress_usd + self.storage_usd + self.checkpoints_usd


@dataclass(frozen=True, slots=True)
class Placement:
    """The choice.

    Args:
        chosen: The offer to run on.
        breakdown: What it costs.
        finish_s: Seconds until the job is finished, transfer of the data included.
        rejected: Every other offer with the reason, cheapest first where a cost is known.
    """

    chosen: Offer
    breakdown: Breakdown
    finish_s: float
    rejected: tuple[tuple[Offer, str], ...]

    @property
    def total_usd(self) -> float:
        """What it costs in all."""
        return self.breakdown.total_usd

    def as_json(self) -> dict[str, Any]:
        """The shape that `lintas place --json` documents."""
        chosen = self.chosen.as_json()
        chosen |= {
            "total_usd": self.total_usd,
            "finish_s": self.finish_s,
            "compute_usd": self.breakdown.compute_usd,
            "egress_usd": self.breakdown.egress_usd,
            "storage_usd": self.breakdown.storage_usd,
            "checkpoints_usd": self.breakdown.checkpoints_usd,
        }
        return {
            "chosen": chosen,
            "rejected": [{**offer.as_json(), "reason": reason} for offer, reason in self.rejected],
        }


@dataclass(frozen=True, slots=True)
class Situation:
    """What a placement must know besides the offers.

    Args:
        data_size_bytes: Size of the dataset.
        data_cloud: The cloud that has it.
        prices: What each cloud charges besides machines, by the cloud's name.
        present_on: Further clouds that have the whole dataset already.
        allowed_jurisdictions: Where the policy lets the data go; None for anywhere.
        exhausted: Offers that were tried and had no capacity, each with what came of it, oldest first.
        bandwidth_bytes_per_s: Throughput from the data's cloud to another one.
    """

    data_size_bytes: int
    data_cloud: str
    prices: Mapping[str, Prices] = field(default_factory=dict[str, Prices])
    present_on: Collection[str] = ()
    allowed_jurisdictions: Collection[str] | None = None
    exhausted: Mapping[OfferKey, str] = field(default_factory=dict[OfferKey, str])
    bandwidth_bytes_per_s: float = DEFAULT_BANDWIDTH_BYTES_PER_S

    def has_data(self, cloud: str) -> bool:
        """Whether nothing needs to travel to that cloud."""
        return cloud == self.data_cloud or cloud in self.present_on


def place(requirements: Requirements, offers: Iterable[Offer], situation: Situation) -> Placement:
    """Choose the offer of least total cost.

    Raises:
        Stockout: No offer remains; its history has what was tried and every offer's reason.
    """
    possible: list[tuple[Offer, Breakdown, float]] = []
    impossible: list[tuple[Offer, str]] = []
    for offer in sorted(set(offers), key=_by_name):
        reason = _unfit(requirements, offer) or _barred(requirements, offer, situation)
        if reason is None:
            breakdown, finish_s = cost(requirements, offer, situation)
            reason = _over_limit(requirements, breakdown, finish_s)
            if reason is None:
                possible.append((offer, breakdown, finish_s))
                continue
        impossible.append((offer, reason))
    if not possible:
        raise _nothing_left(impossible, situation)
    possible.sort(key=lambda item: (item[1].total_usd, item[2], item[0].spot, _by_name(item[0])))
    (chosen, breakdown, finish_s), *others = possible
    dearer = [(offer, _why_not(breakdown, finish_s, other, later)) for offer, other, later in others]
    return Placement(chosen, breakdown, finish_s, (*dearer, *impossible))


def cost(requirements: Requirements, offer: Offer, situation: Situation) -> tuple[Breakdown, float]:
    """What the job costs on this offer in USD, and in how many seconds it would be finished.

    Compute is the machine's price for the expected run; egress is what leaving the data's cloud costs; storage is
    the copy of the dataset, and checkpoints their own, for as long as transfer and run take. Prices must be known.
    """
    travels = not situation.has_data(offer.cloud)
    transfer_s = situation.data_size_bytes / situation.bandwidth_bytes_per_s if travels else 0.0
    finish_s = transfer_s + requirements.run_s
    data_gib = situation.data_size_bytes / GIB if travels else 0.0
    months = finish_s / 3600.0 / HOURS_PER_MONTH
    leaving = situation.prices.get(situation.data_cloud, Prices())
    staying = situation.prices.get(offer.cloud, Prices())
    storage_usd_per_gib = (staying.storage_usd_per_gib_month or 0.0) * months
    breakdown = Breakdown(
        compute_usd=(offer.price_usd_per_hour or 0.0) * requirements.run_s / 3600.0,
        egress_usd=data_gib * (leaving.egress_usd_per_gib or 0.0),
        storage_usd=data_gib * storage_usd_per_gib,
        checkpoints_usd=requirements.checkpoint_gib * storage_usd_per_gib,
    )
    return breakdown, finish_s


def _unfit(needs: Requirements, offer: Offer) -> str | None:
    """Why the machine cannot do the job, or None."""
    if needs.accelerator is not None:
        if not offer.accelerator:
            return f"has no accelerator, {needs.accelerator} is needed"
        if offer.accelerator.lower() != needs.accelerator.lower():
            return f"has {offer.accelerator}, {needs.accelerator} is needed"
        if offer.count < needs.count:
            return f"has {offer.count} of {offer.accelerator}, {needs.count} are needed"
        if offer.accelerator_memory_gib < needs.accelerator_memory_gib:
            return _lacks("accelerator memory", offer.accelerator_memory_gib, needs.accelerator_memory_gib)
    if offer.memory_gib < needs.memory_gib:
        return _lacks("memory", offer.memory_gib, needs.memory_gib)
    if offer.vcpus < needs.vcpus:
        return f"lacks virtual CPUs: has {offer.vcpus:g}, {needs.vcpus:g} are needed"
    if offer.spot and not needs.spot:
        return "can be preempted, and the job does not allow spot"
    return None


def _lacks(what: str, has_gib: float, needed_gib: float) -> str:
    return f"lacks {what}: has {has_gib:g} GiB, {needed_gib:g} GiB are needed"


def _barred(needs: Requirements, offer: Offer, situation: Situation) -> str | None:
    """Why the job must not or cannot go there, or None."""
    if needs.clouds and offer.cloud not in needs.clouds:
        return f"'{offer.cloud}' is not among the job's clouds"
    if not offer.has_trainer:
        return f"'{offer.cloud}' has no trainer configured"
    allowed = situation.allowed_jurisdictions
    if allowed is not None and offer.jurisdiction not in allowed:
        return f"jurisdiction {offer.jurisdiction or 'unknown'} is not allowed by the policy"
    if needs.jurisdictions and offer.jurisdiction not in needs.jurisdictions:
        return f"jurisdiction {offer.jurisdiction or 'unknown'} is not among the job's"
    if offer.key in situation.exhausted:
        return situation.exhausted[offer.key]
    if offer.availability == "none":
        return "had no capacity when it was last looked at"
    if offer.price_usd_per_hour is None:
        return f"price unknown in region '{offer.region}'"
    return _unknown_price(needs, offer, situation)


def _unknown_price(needs: Requirements, offer: Offer, situation: Situation) -> str | None:
    travels = not situation.has_data(offer.cloud) and situation.data_size_bytes > 0
    if travels and situation.prices.get(situation.data_cloud, Prices()).egress_usd_per_gib is None:
        return f"price unknown for egress from '{situation.data_cloud}'"
    stores = travels or needs.checkpoint_gib > 0
    if stores and situation.prices.get(offer.cloud, Prices()).storage_usd_per_gib_month is None:
        return f"price unknown for storage on '{offer.cloud}'"
    return None


def _over_limit(needs: Requirements, breakdown: Breakdown, finish_s: float) -> str | None:
    if needs.max_usd is not None and breakdown.total_usd > needs.max_usd:
        return f"costs {_usd(breakdown.total_usd)}, at most {_usd(needs.max_usd)} is allowed"
    if needs.deadline_s is not None and finish_s > needs.deadline_s:
        return f"would be finished after {finish_s:.0f} s, the deadline is {needs.deadline_s:.0f} s"
    return None


def _why_not(best: Breakdown, best_finish_s: float, other: Breakdown, finish_s: float) -> str:
    dearer_usd = other.total_usd - best.total_usd
    if dearer_usd > 0:
        return f"dearer by {_usd(dearer_usd)} ({_usd(other.total_usd)} in all)"
    if finish_s > best_finish_s:
        return f"the same cost, finished {finish_s - best_finish_s:.0f} s later"
    return "the same cost and time; the choice went by spot and name"


def _usd(amount: float) -> str:
    return f"USD {amount:.2f}" if amount >= 0.1 else f"USD {amount:.2g}"


def _nothing_left(rejected: list[tuple[Offer, str]], situation: Situation) -> Stockout:
    tried = tuple(f"{'/'.join(key[:3])}: {outcome}" for key, outcome in situation.exhausted.items())
    others = tuple(f"{offer}: {reason}" for offer, reason in rejected if offer.key not in situation.exhausted)
    if not rejected:
        return Stockout("no configured cloud offers a machine", "configure a cloud that can train", history=tried)
    return Stockout(
        f"none of {len(rejected)} offers can run this job",
        "read each offer's reason, relax the requirements or wait for capacity",
        history=tried + others,
    )


def _by_name(offer: Offer) -> tuple[object, ...]:
    return (*offer.key, offer.price_usd_per_hour is None, offer.price_usd_per_hour or 0.0, repr(offer))
