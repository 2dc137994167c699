"""Releases: what a record may say, and what should be done about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tasks.core.errors import Denied, Invalid, Retryable
from tasks.core.release import (
    Deploy,
    Endpoint,
    MarkFailed,
    MarkLive,
    ReleaseState,
    Remove,
    Wait,
    endpoint_name,
    new_release,
    next_steps,
)

NOW = datetime(2026, 11, 5, 10, 0, tzinfo=UTC)
RELEASE = new_release("flights", "2", "digest-2", [("here", 60), ("there", 40)], now=NOW)


def endpoint(cloud: str, digest: str = "digest-2", *, healthy: bool = True, version: str = "2") -> Endpoint:
    return Endpoint(cloud, "flights", f"http://{cloud}", 0, digest, version, healthy, "" if healthy else "starting")


def steps(release=RELEASE, *, after_s: float = 1, **observed):
    return next_steps(release, observed, now=NOW + timedelta(seconds=after_s), deadline_s=60)


def test_a_cloud_without_the_endpoint_is_deployed_to():
    assert steps(here=None, there=None) == (Deploy("here"), Deploy("there"))


def test_a_cloud_that_serves_another_digest_or_version_is_deployed_to():
    assert steps(here=endpoint("here", "digest-1"), there=endpoint("there", version="1")) == (
        Deploy("here"),
        Deploy("there"),
    )


def test_the_right_digest_without_health_is_waited_for():
    assert steps(here=endpoint("here", healthy=False), there=endpoint("there")) == (Wait("here", "starting"),)


def test_a_cloud_that_cannot_be_asked_is_waited_for():
    assert steps(here=Retryable("here is down"), there=endpoint("there")) == (Wait("here", "here is down"),)


def test_it_is_live_only_when_every_target_is_healthy_with_the_right_digest():
    assert steps(here=endpoint("here"), there=endpoint("there")) == (MarkLive(),)


def test_being_late_does_not_fail_a_release_that_is_healthy_everywhere():
    assert steps(here=endpoint("here"), there=endpoint("there"), after_s=61) == (MarkLive(),)


def test_after_the_deadline_it_has_failed_and_says_what_is_missing():
    (failed,) = steps(here=endpoint("here", healthy=False), there=None, after_s=61)
    assert failed == MarkFailed("not live after 60 s: here: starting, there: does not serve it yet")


def test_an_error_that_waiting_cannot_mend_fails_it_at_once():
    (failed,) = steps(here=Denied("here refuses the token", "renew it"), there=None)
    assert failed == MarkFailed("here: here refuses the token; renew it.")


def test_a_live_release_is_repaired_but_never_failed():
    live = replace(RELEASE, state=ReleaseState.LIVE)
    assert steps(live, here=None, there=endpoint("there"), after_s=9999) == (Deploy("here"),)
    assert steps(live, here=Denied("no"), there=endpoint("there"), after_s=9999) == (Wait("here", "no"),)


def test_spare_endpoints_go_only_once_the_release_is_live_and_whole():
    spare = endpoint("old")
    assert Remove("old") not in steps(here=endpoint("here"), there=endpoint("there"), old=spare)
    live = replace(RELEASE, state=ReleaseState.LIVE)
    assert steps(live, here=None, there=endpoint("there"), old=spare) == (Deploy("here"),)
    assert steps(live, here=endpoint("here"), there=endpoint("there"), old=spare) == (Remove("old"),)


def test_a_failed_release_that_nothing_replaces_leaves_no_endpoint():
    failed = replace(RELEASE, state=ReleaseState.FAILED)
    assert steps(failed, here=endpoint("here"), there=None) == (Remove("here"),)


@pytest.mark.parametrize("state", [ReleaseState.SUPERSEDED, ReleaseState.ROLLED_BACK])
def test_a_release_that_is_over_asks_for_nothing(state):
    assert steps(replace(RELEASE, state=state), here=None, there=None) == ()


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ([], "sum to 0"),
        ([("a", 50)], "sum to 50"),
        ([("a", 50), ("a", 50)], "'a' is named twice"),
        ([("a", 150), ("b", -50)], "weight of 'a' is 150"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights, complaint):
    with pytest.raises(Invalid, match=complaint):
        new_release("flights", "1", "d", weights, now=NOW)


def test_a_clock_that_goes_back_still_gives_a_later_id():
    first = new_release("flights", "1", "d", [("a", 100)], now=NOW)
    second = new_release("flights", "2", "e", [("a", 100)], now=NOW - timedelta(hours=1), after=first)
    assert second.release_id > first.release_id
    assert second.created > first.created


@pytest.mark.parametrize("model", ["", "123", "---"])
def test_a_model_that_no_endpoint_can_be_named_after_is_refused(model):
    with pytest.raises(Invalid, match="begin the model's name with a letter"):
        endpoint_name(model)
