"""Laws of placement: order does not matter, everything is accounted for, less is never dearer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import Stockout
from tasks.core.placement import GIB, Offer, Placement, Prices, Requirements, Situation, place

CLOUDS = ("aws", "google", "onprem")

offers = st.lists(
    st.builds(
        Offer,
        cloud=st.sampled_from(CLOUDS),
        region=st.sampled_from(("east", "west")),
        jurisdiction=st.sampled_from(("US", "EU", "")),
        sku=st.sampled_from(("small", "big", "bigger")),
        accelerator=st.sampled_from(("", "A100", "H100")),
        count=st.integers(0, 8),
        vcpus=st.sampled_from((2.0, 8.0)),
        memory_gib=st.sampled_from((4.0, 64.0)),
        spot=st.booleans(),
        price_usd_per_hour=st.none() | st.sampled_from((0.0, 0.5, 1.0, 1.0, 40.0)),
        availability=st.sampled_from(("unknown", "seen", "none")),
        has_trainer=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda offer: offer.key,
)
needs = st.builds(
    Requirements,
    accelerator=st.none(),
    memory_gib=st.sampled_from((0.0, 8.0)),
    run_s=st.sampled_from((60.0, 7200.0)),
    max_usd=st.none() | st.sampled_from((0.1, 5.0)),
    deadline_s=st.none() | st.sampled_from((100.0, 10_000.0)),
    spot=st.booleans(),
    jurisdictions=st.sampled_from(((), ("US",), ("US", "EU"))),
) | st.builds(Requirements, accelerator=st.just("H100"), count=st.integers(1, 8), spot=st.booleans())
prices = st.builds(Prices, st.none() | st.just(0.1), st.none() | st.just(0.02))
situations = st.builds(
    Situation,
    data_size_bytes=st.sampled_from((0, GIB, 500 * GIB)),
    data_cloud=st.sampled_from(CLOUDS),
    prices=st.dictionaries(st.sampled_from(CLOUDS), prices),
    allowed_jurisdictions=st.none() | st.just(("US",)),
)


def outcome(wanted: Requirements, found: list[Offer], situation: Situation) -> Placement | tuple[str, ...]:
    try:
        return place(wanted, found, situation)
    except Stockout as error:
        return error.history


@given(needs, offers, situations, st.randoms(use_true_random=False))
def test_the_order_of_offers_does_not_matter(wanted, found, situation, random) -> None:
    shuffled = random.sample(found, len(found))
    assert outcome(wanted, found, situation) == outcome(wanted, shuffled, situation)


@given(needs, offers, situations)
def test_every_offer_is_chosen_or_rejected_with_a_reason_and_none_is_cheaper_than_the_chosen(
    wanted, found, situation
) -> None:
    placement = outcome(wanted, found, situation)
    if isinstance(placement, Placement):
        accounted = [placement.chosen, *(offer for offer, _ in placement.rejected)]
        assert sorted(offer.key for offer in accounted) == sorted(offer.key for offer in found)
        assert all(reason for _, reason in placement.rejected)
        for offer, reason in placement.rejected:
            alone = outcome(wanted, [offer], situation)
            assert isinstance(alone, Placement) == reason.startswith(("dearer", "the same cost"))
            if isinstance(alone, Placement):
                assert alone.total_usd >= placement.total_usd
    else:
        assert len(placement) == len(found)


@given(needs, offers, situations)
def test_an_offer_more_never_makes_it_dearer(wanted, found, situation) -> None:
    for number in range(len(found)):
        fewer = outcome(wanted, found[:number] + found[number + 1 :], situation)
        if isinstance(fewer, Placement):
            everything = outcome(wanted, found, situation)
            assert isinstance(everything, Placement)
            assert everything.total_usd <= fewer.total_usd


@given(needs, offers, situations)
def test_a_stricter_policy_never_lets_more_offers_in(wanted, found, situation) -> None:
    strict = outcome(wanted, found, replace(situation, allowed_jurisdictions=("EU",)))
    if isinstance(strict, Placement):
        assert strict.chosen.jurisdiction == "EU"
        free = outcome(wanted, found, replace(situation, allowed_jurisdictions=None))
        assert isinstance(free, Placement)
        assert free.total_usd <= strict.total_usd


@given(needs, offers, situations)
def test_a_chosen_offer_keeps_every_limit(wanted, found, situation) -> None:
    placement = outcome(wanted, found, situation)
    if isinstance(placement, Placement):
        chosen = placement.chosen
        assert chosen.has_trainer
        assert chosen.price_usd_per_hour is not None
        assert chosen.memory_gib >= wanted.memory_gib
        assert wanted.spot or not chosen.spot
        assert wanted.max_usd is None or placement.total_usd <= wanted.max_usd
        assert wanted.deadline_s is None or placement.finish_s <= wanted.deadline_s
        assert situation.allowed_jurisdictions is None or chosen.jurisdiction in situation.allowed_jurisdictions
