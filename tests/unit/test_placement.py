"""Placement chooses the least total cost and gives every other offer a reason in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, Stockout
from tasks.core.placement import (
    GIB,
    Offer,
    Prices,
    Requirements,
    Situation,
    offers_from_catalog,
    place,
    prices_from_catalog,
)

CATALOGS = sorted(Path("tasks/providers").glob("*/catalog.yaml"))
H100 = Offer("aws", "us-east-1", "US", "p5", "H100", 8, 80, 192, 2048, price_usd_per_hour=60.0)
CPU = Offer("aws", "us-east-1", "US", "m7i", vcpus=4, memory_gib=16, price_usd_per_hour=0.2)
HERE = Situation(data_size_bytes=0, data_cloud="aws")
PRICES = {"aws": Prices(0.09, 0.023), "google": Prices(0.12, 0.02)}


def rejection(needs: Requirements, offer: Offer, situation: Situation = HERE) -> str:
    """The reason for an offer that cannot win against a cheap one that can."""
    winner = replace(
        H100 if needs.accelerator else CPU,
        sku="winner",
        cloud=situation.data_cloud,
        memory_gib=9999,
        vcpus=9999,
        price_usd_per_hour=0.001,
    )
    placement = place(needs, [offer, winner], situation)
    assert placement.chosen == winner
    ((rejected, reason),) = placement.rejected
    assert rejected == offer
    return reason


def test_the_cheapest_in_all_wins_although_another_machine_is_cheaper() -> None:
    near = replace(CPU, price_usd_per_hour=1.0)
    far = replace(CPU, cloud="google", price_usd_per_hour=0.5)
    situation = Situation(100 * GIB, "aws", PRICES, bandwidth_bytes_per_s=1e9)
    placement = place(Requirements(run_s=3600), [near, far], situation)
    assert placement.chosen == near
    assert placement.total_usd == pytest.approx(1.0)
    ((_, reason),) = placement.rejected
    assert reason.startswith("dearer by USD 8.5")

    for_long = place(Requirements(run_s=72_000), [near, far], situation)
    assert for_long.chosen == far
    assert for_long.breakdown.compute_usd == pytest.approx(10.0)
    assert for_long.breakdown.egress_usd == pytest.approx(9.0)
    assert for_long.finish_s == pytest.approx(72_000 + 100 * GIB / 1e9)
    months = for_long.finish_s / 3600 / 730
    assert for_long.breakdown.storage_usd == pytest.approx(100 * 0.02 * months)


def test_data_that_is_there_already_does_not_travel_again() -> None:
    far = replace(CPU, cloud="google", price_usd_per_hour=0.1)
    situation = Situation(100 * GIB, "aws", PRICES, present_on=("google",))
    placement = place(Requirements(), [CPU, far], situation)
    assert placement.chosen == far
    assert placement.breakdown.egress_usd == 0


def test_checkpoints_cost_storage_even_where_the_data_is() -> None:
    placement = place(Requirements(checkpoint_gib=730, run_s=3600), [CPU], replace(HERE, prices=PRICES))
    assert placement.breakdown.checkpoints_usd == pytest.approx(0.023)


@pytest.mark.parametrize(
    ("needs", "offer", "words"),
    [
        (Requirements("H100", 1), CPU, "has no accelerator, H100 is needed"),
        (Requirements("H100", 1), replace(H100, accelerator="A100"), "has A100, H100 is needed"),
        (Requirements("h100", 8), replace(H100, count=4), "has 4 of H100, 8 are needed"),
        (Requirements("H100", 1, 80), replace(H100, accelerator_memory_gib=40), "lacks accelerator memory: has 40 GiB"),
        (Requirements(memory_gib=32), CPU, "lacks memory: has 16 GiB, 32 GiB are needed"),
        (Requirements(vcpus=8), CPU, "lacks virtual CPUs: has 4, 8 are needed"),
        (Requirements(), replace(CPU, spot=True), "can be preempted, and the job does not allow spot"),
        (Requirements(), replace(CPU, has_trainer=False), "'aws' has no trainer configured"),
        (Requirements(), replace(CPU, availability="none"), "had no capacity when it was last looked at"),
        (Requirements(), replace(CPU, price_usd_per_hour=None), "price unknown in region 'us-east-1'"),
        (Requirements(max_usd=0.1), CPU, "costs USD 0.20, at most USD 0.10 is allowed"),
    ],
)
def test_an_offer_that_does_not_fit_is_told_why(needs: Requirements, offer: Offer, words: str) -> None:
    assert words in rejection(needs, offer)


def test_jurisdictions_bar_by_policy_and_by_the_job() -> None:
    elsewhere = replace(CPU, cloud="google", jurisdiction="XX")
    by_policy = replace(HERE, allowed_jurisdictions=("US",), prices=PRICES)
    assert rejection(Requirements(), elsewhere, by_policy) == "jurisdiction XX is not allowed by the policy"
    assert rejection(Requirements(jurisdictions=("US",)), elsewhere) == "jurisdiction XX is not among the job's"
    nowhere = replace(elsewhere, jurisdiction="")
    assert rejection(Requirements(), nowhere, by_policy) == "jurisdiction unknown is not allowed by the policy"


def test_a_deadline_counts_the_transfer() -> None:
    far = replace(CPU, cloud="google", price_usd_per_hour=0.0)
    situation = Situation(10**9, "aws", PRICES, bandwidth_bytes_per_s=1e6)
    assert "would be finished after 1060 s, the deadline is 600 s" in rejection(
        Requirements(run_s=60, deadline_s=600), far, situation
    )


def test_a_price_that_nobody_knows_is_not_taken_for_nothing() -> None:
    far = replace(CPU, cloud="google")
    no_egress = Situation(GIB, "aws", {"google": Prices(0.1, 0.02)})
    assert rejection(Requirements(), far, no_egress) == "price unknown for egress from 'aws'"
    no_storage = Situation(GIB, "aws", {"aws": Prices(0.09, 0.02)})
    assert rejection(Requirements(), far, no_storage) == "price unknown for storage on 'google'"


def test_when_nothing_remains_the_history_tells_what_was_tried_and_every_reason() -> None:
    tried = replace(HERE, exhausted={H100.key: "had no capacity at 10:00"})
    with pytest.raises(Stockout) as nothing:
        place(Requirements("H100", 8), [CPU, H100], tried)
    assert nothing.value.history == (
        "aws/us-east-1/p5: had no capacity at 10:00",
        "aws/us-east-1/m7i: has no accelerator, H100 is needed",
    )
    assert "none of 2 offers can run this job" in str(nothing.value)
    with pytest.raises(Stockout, match="no configured cloud offers a machine"):
        place(Requirements(), [], HERE)


def test_an_exhausted_offer_gives_way_to_the_next() -> None:
    second = replace(CPU, sku="m7i.big", price_usd_per_hour=0.4)
    placement = place(Requirements(), [CPU, second], replace(HERE, exhausted={CPU.key: "no capacity"}))
    assert placement.chosen == second
    assert placement.rejected == ((CPU, "no capacity"),)


def test_the_json_has_the_documented_shape() -> None:
    shape = place(Requirements(run_s=3600), [CPU, replace(CPU, sku="b", price_usd_per_hour=0.4)], HERE).as_json()
    documented = {
        "provider": "aws",
        "region": "us-east-1",
        "sku": "m7i",
        "accelerator": "",
        "count": 0,
        "spot": False,
        "price_usd_per_hour": 0.2,
        "total_usd": pytest.approx(0.2),
        "finish_s": 3600.0,
    }
    assert documented.items() <= shape["chosen"].items()
    assert [(row["sku"], row["reason"]) for row in shape["rejected"]] == [("b", "dearer by USD 0.20 (USD 0.40 in all)")]


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parent.name)
def test_every_catalog_loads_and_every_price_has_its_day_and_its_source(path: Path) -> None:
    catalog = yaml.safe_load(path.read_text())
    regions = {price["region"] for offer in catalog["offers"] for price in offer["prices"]} or {"*"}
    for region in regions:
        cloud = CloudConfig("here", path.parent.name, region=region, jurisdiction="US")
        offers = offers_from_catalog(catalog, cloud, True)
        assert len({offer.key for offer in offers}) == len(offers)
        for offer in offers:
            if offer.price_usd_per_hour is not None:
                assert isinstance(offer.as_of, date)
                assert offer.source.startswith(("https://", "assumption: "))
        assert any(offer.price_usd_per_hour is not None for offer in offers)
    prices = prices_from_catalog(catalog, CloudConfig("here", path.parent.name))
    assert prices.egress_usd_per_gib is not None
    assert prices.storage_usd_per_gib_month is not None
    priced = {"egress_usd_per_gib", "storage_usd_per_gib_month"} | {"requests"} & set(catalog)
    assert priced == set(catalog["sources"])


def test_all_five_providers_have_a_catalog() -> None:
    assert [path.parent.name for path in CATALOGS] == ["aws", "azure", "coreweave", "google", "onprem"]


def catalog(**changes: Any) -> Mapping[str, Any]:
    price = {"region": "west", "on_demand_usd_per_hour": 2.0, "as_of": "2026-01-02", "source": "https://prices"}
    offer = {"sku": "big", "vcpus": 8, "memory_gib": 32, "prices": [price]}
    return {"offers": [offer | changes]}


def test_a_price_counts_for_its_region_and_a_star_for_all() -> None:
    west, east = CloudConfig("c", "p", "west"), CloudConfig("c", "p", "east")
    (offer,) = offers_from_catalog(catalog(), west, True)
    assert (offer.price_usd_per_hour, offer.as_of) == (2.0, date(2026, 1, 2))
    (unknown,) = offers_from_catalog(catalog(), east, True)
    assert (unknown.price_usd_per_hour, unknown.region) == (None, "east")
    anywhere = {"region": "*", "spot_usd_per_hour": 0.5, "as_of": date(2026, 1, 2), "source": "https://prices"}
    on_demand, spot = offers_from_catalog(catalog(prices=[anywhere]), east, True)
    assert (on_demand.price_usd_per_hour, on_demand.spot) == (None, False)
    assert (spot.price_usd_per_hour, spot.spot) == (0.5, True)


def test_the_owner_s_facts_replace_the_assumptions_about_an_owned_machine() -> None:
    options = {"price_usd_per_hour": "0.75", "memory_gib": "256", "accelerator": "H100", "count": "2"}
    cloud = CloudConfig("site", "onprem", "west", options=options)
    (owned,) = offers_from_catalog({"owned": True, **catalog()}, cloud, True)
    assert (owned.price_usd_per_hour, owned.memory_gib, owned.accelerator, owned.count) == (0.75, 256, "H100", 2)
    assert owned.source == "clouds.site.options.price_usd_per_hour"
    (rented,) = offers_from_catalog(catalog(), cloud, True)
    assert rented.price_usd_per_hour == 2.0
    with pytest.raises(Invalid, match=r"clouds\.site\.options\.memory_gib is not a number"):
        offers_from_catalog({"owned": True, **catalog()}, replace(cloud, options={"memory_gib": "lots"}), True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sku": None}, "offers[0].sku is missing"),
        ({"vcpus": "many"}, "offers[0].vcpus is a text"),
        ({"memory_gib": -1}, "offers[0].memory_gib is -1"),
        ({"gpus": 8}, "offers[0].gpus is not known"),
        ({"prices": "free"}, "offers[0].prices is a text"),
        ({"prices": [{"region": "west", "source": "x"}]}, "offers[0].prices.as_of is missing"),
        ({"prices": [{"region": "west", "as_of": "soon", "source": "x"}]}, "offers[0].prices.as_of is a text"),
        ({"prices": [{"region": "west", "as_of": "2026-01-02"}]}, "offers[0].prices.source is missing"),
    ],
)
def test_a_broken_catalog_names_the_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as broken:
        offers_from_catalog(catalog(**changes), CloudConfig("c", "p", "west"), True)
    assert words in str(broken.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"acelerator": "H100"}, "requirements.acelerator is not known; did you mean 'accelerator'"),
        ({"accelerator": "H100"}, "asks for 0 of accelerator 'H100'"),
        ({"count": 1}, "asks for 1 of accelerator 'none'"),
        ({"count": 1.5, "accelerator": "H100"}, "requirements.count is a number; write a whole number"),
        ({"spot": "yes"}, "requirements.spot is a text; write true or false"),
        ({"max_usd": -1}, "requirements.max_usd is -1"),
        ({"memory_gib": float("nan")}, "requirements.memory_gib is a number; write a number"),
        ({"jurisdictions": "US"}, "requirements.jurisdictions is a text; write a list"),
        ("fast", "requirements is a text where a mapping is needed"),
    ],
)
def test_wrong_requirements_name_the_key_and_the_mend(data: object, words: str) -> None:
    with pytest.raises(Invalid) as wrong:
        Requirements.from_mapping(data)
    assert words in str(wrong.value)


def test_a_price_by_agreement_replaces_the_catalogue_s_and_a_wrong_one_is_named() -> None:
    catalog = {
        "offers": [
            {
                "sku": "big",
                "vcpus": 4,
                "memory_gib": 16,
                "prices": [{"region": "r", "on_demand_usd_per_hour": 2.0, "as_of": date(2026, 1, 1), "source": "page"}],
            }
        ]
    }
    cloud = CloudConfig("c", "aws", region="elsewhere", options={"price_usd_per_hour.big": "1.25"})
    (offer,) = offers_from_catalog(catalog, cloud, True)
    assert (offer.price_usd_per_hour, offer.source) == (1.25, "clouds.c.options.price_usd_per_hour.big")
    with pytest.raises(Invalid, match=r"price_usd_per_hour\.big is not a price"):
        offers_from_catalog(catalog, replace(cloud, options={"price_usd_per_hour.big": "cheap"}), True)
