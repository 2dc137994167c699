"""Offers: what each configured cloud could run and at what price, as its provider's `catalog.yaml` tells.

A price without a day and a source does not get in: the catalogue is data that somebody can check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid
from tasks.core.fields import Fields

OfferKey = tuple[str, str, str, bool]


AGREED = "price_usd_per_hour."
"""Options of a cloud that begin so state what its owner pays for the SKU that follows, whatever the catalogue says."""

_OWNED_NUMBERS = {"price_usd_per_hour", "vcpus", "memory_gib", "count", "accelerator_memory_gib"}
"""Options of a cloud that describe its own machine where the catalogue says `owned: true`."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that a cloud could run.

    Args:
        cloud: The cloud's name in `lintas.yaml`.
        region: Where, in the provider's words.
        jurisdiction: Where by law, in the policy's words.
        sku: The provider's name of the machine.
        accelerator: Name of its accelerators; empty when it has none.
        count: How many it has.
        accelerator_memory_gib: Memory of each.
        vcpus: Its virtual CPUs.
        memory_gib: Its memory.
        spot: Whether it can be preempted.
        price_usd_per_hour: For the whole machine; None when unknown.
        as_of: The day on which the source gave this price.
        source: The page that gave it, or whose figure it is.
        availability: What was observed of it last.
        has_trainer: Whether jobs can be run on this cloud at all.
    """

    cloud: str
    region: str
    jurisdiction: str
    sku: str
    accelerator: str = ""
    count: int = 0
    accelerator_memory_gib: float = 0.0
    vcpus: float = 0.0
    memory_gib: float = 0.0
    spot: bool = False
    price_usd_per_hour: float | None = None
    as_of: date | None = None
    source: str = ""
    availability: Literal["unknown", "seen", "none"] = "unknown"
    has_trainer: bool = True

    @property
    def key(self) -> OfferKey:
        """What tells this offer from all others."""
        return (self.cloud, self.region, self.sku, self.spot)

    def as_json(self) -> dict[str, Any]:
        """The shape that `lintas offers --json` documents."""
        return {
            "provider": self.cloud,
            "region": self.region,
            "sku": self.sku,
            "accelerator": self.accelerator,
            "count": self.count,
            "spot": self.spot,
            "price_usd_per_hour": self.price_usd_per_hour,
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "source": self.source,
        }

    def __str__(self) -> str:
        return f"{self.cloud}/{self.region}/{self.sku}" + (" spot" if self.spot else "")


@dataclass(frozen=True, slots=True)
class Prices:
    """What a cloud charges besides machines, in USD. None: nobody knows, and what needs it is refused."""

    egress_usd_per_gib: float | None = None
    storage_usd_per_gib_month: float | None = None


def offers_from_catalog(catalog: Mapping[str, Any], cloud: CloudConfig, has_trainer: bool) -> tuple[Offer, ...]:
    """What a cloud could run, by its provider's `catalog.yaml`.

    A price counts for the region that it names, or for every region when that is `*`. A machine without a price in
    the cloud's region is an offer of unknown price, so that placement can say so. A catalogue with `owned: true`
    describes a machine of the cloud's owner: the cloud's options `price_usd_per_hour`, `vcpus`, `memory_gib`,
    `accelerator`, `count` and `accelerator_memory_gib` replace its assumptions.

    Raises:
        Invalid: The catalogue does not hold what its keys promise; the key is named.
    """
    where = f"{cloud.provider}/catalog.yaml"
    fields = Fields(catalog, where)
    entries, owned = fields.items("offers", ()), fields.flag("owned", False)
    found: list[Offer] = []
    for number, entry in enumerate(entries):
        found += _offers_of(Fields(entry, f"{where}: offers[{number}]"), cloud, has_trainer)
    return tuple(_as_owned(offer, cloud) for offer in found) if owned else tuple(found)


def prices_from_catalog(catalog: Mapping[str, Any], cloud: CloudConfig) -> Prices:
    """What a cloud charges for egress and storage, by its provider's `catalog.yaml`.

    Raises:
        Invalid: A price is not a number of at least 0; the key is named.
    """
    fields = Fields(catalog, f"{cloud.provider}/catalog.yaml")
    return Prices(
        egress_usd_per_gib=fields.optional_number("egress_usd_per_gib"),
        storage_usd_per_gib_month=fields.optional_number("storage_usd_per_gib_month"),
    )


def _offers_of(fields: Fields, cloud: CloudConfig, has_trainer: bool) -> list[Offer]:
    machine = Offer(
        cloud=cloud.name,
        region=cloud.region,
        jurisdiction=cloud.jurisdiction,
        sku=fields.text("sku"),
        accelerator=fields.text("accelerator", ""),
        count=fields.integer("count", 0),
        accelerator_memory_gib=fields.number("accelerator_memory_gib", 0.0),
        vcpus=fields.number("vcpus"),
        memory_gib=fields.number("memory_gib"),
        has_trainer=has_trainer,
    )
    prices = dict(_price(Fields(item, fields.key("prices"))) for item in fields.items("prices"))
    fields.finish()
    agreed = _agreed_price(cloud, machine.sku)
    if agreed is not None:
        source = f"clouds.{cloud.name}.options.{AGREED}{machine.sku}"
        return [replace(machine, price_usd_per_hour=agreed, source=source)]
    here = prices.get(cloud.region) or prices.get("*")
    if here is None:
        return [machine]
    found = [replace(machine, price_usd_per_hour=here.on_demand, as_of=here.as_of, source=here.source)]
    if here.spot is not None:
        spot = replace(machine, spot=True, price_usd_per_hour=here.spot, as_of=here.as_of, source=here.source)
        found.append(spot)
    return found


def _agreed_price(cloud: CloudConfig, sku: str) -> float | None:
    """What the cloud's owner pays for this machine by agreement, or None."""
    given = cloud.options.get(f"{AGREED}{sku}")
    if given is None:
        return None
    try:
        price = float(given)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        key = f"clouds.{cloud.name}.options.{AGREED}{sku}"
        raise Invalid(f"{key} is not a price", "write a number of USD of at least 0")
    return price


@dataclass(frozen=True, slots=True)
class _Price:
    on_demand: float | None
    spot: float | None
    as_of: date
    source: str


def _price(fields: Fields) -> tuple[str, _Price]:
    price = _Price(
        on_demand=fields.optional_number("on_demand_usd_per_hour"),
        spot=fields.optional_number("spot_usd_per_hour"),
        as_of=fields.day("as_of"),
        source=fields.text("source"),
    )
    region = fields.text("region")
    fields.finish()
    return region, price


def _as_owned(offer: Offer, cloud: CloudConfig) -> Offer:
    """The offer with the owner's own facts in place of the catalogue's."""
    facts: dict[str, Any] = {}
    for name in _OWNED_NUMBERS & cloud.options.keys():
        key = f"clouds.{cloud.name}.options.{name}"
        try:
            value = float(cloud.options[name])
        except ValueError as error:
            raise Invalid(f"{key} is not a number", "correct it in lintas.yaml") from error
        facts[name] = Fields({name: value}, key.rpartition(".")[0]).number(name)
    if "count" in facts:
        facts["count"] = int(facts["count"])
    if "accelerator" in cloud.options:
        facts["accelerator"] = cloud.options["accelerator"]
    if "price_usd_per_hour" in facts:
        facts |= {"as_of": None, "source": f"clouds.{cloud.name}.options.price_usd_per_hour"}
    return replace(offer, **facts)
