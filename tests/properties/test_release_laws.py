"""Laws of releases: shares are whole, ids sort by time, and the order in which clouds answer does not matter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import Invalid, Retryable
from tasks.core.release import Deploy, Endpoint, MarkLive, Remove, even_weights, new_release, next_steps

NOW = datetime(2026, 11, 5, 10, 0, tzinfo=UTC)
names = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=12, unique=True)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@given(names)
def test_even_shares_sum_to_100_and_differ_by_at_most_one(clouds):
    shares = [weight for _, weight in even_weights(clouds)]
    assert sum(shares) == 100
    assert max(shares) - min(shares) <= 1


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), st.integers(-20, 120)), max_size=6))
def test_a_release_has_shares_that_sum_to_100_or_does_not_exist(weights):
    clouds = [cloud for cloud, _ in weights]
    sound = (
        sum(w for _, w in weights) == 100 and all(0 <= w <= 100 for _, w in weights) and len(set(clouds)) == len(clouds)
    )
    try:
        release = new_release("m", "1", "d", weights, now=NOW)
    except Invalid:
        assert not sound
    else:
        assert sound
        assert release.weights == tuple(weights)


@given(st.lists(moments, min_size=2, max_size=8))
def test_ids_sort_in_the_order_of_asking_whatever_the_clock_does(times):
    releases = [new_release("m", "1", "d", [("a", 100)], now=times[0])]
    for time in times[1:]:
        releases.append(new_release("m", "1", "d", [("a", 100)], now=time, after=releases[-1]))
    ids = [release.release_id for release in releases]
    assert ids == sorted(set(ids))


@given(st.lists(moments, min_size=2, max_size=2, unique=True))
def test_ids_sort_by_time(times):
    first, second = (new_release("m", "1", "d", [("a", 100)], now=time) for time in sorted(times))
    assert first.release_id < second.release_id


answers = st.sampled_from(["none", "old", "starting", "healthy", "away"])


def answer(cloud: str, kind: str) -> Endpoint | Retryable | None:
    if kind == "none":
        return None
    if kind == "away":
        return Retryable("away")
    return Endpoint(cloud, "m", "", 0, "old" if kind == "old" else "d", "1", kind != "starting")


@given(st.dictionaries(st.sampled_from("abcdef"), answers, min_size=1), st.randoms(use_true_random=False))
def test_steps_do_not_depend_on_the_order_of_answers_and_never_touch_what_is_right(kinds, random):
    release = new_release("m", "1", "d", even_weights(sorted(kinds)), now=NOW)
    observed = [(cloud, answer(cloud, kind)) for cloud, kind in kinds.items()]
    steps = next_steps(release, dict(observed), now=NOW, deadline_s=60)
    random.shuffle(observed)
    assert next_steps(release, dict(observed), now=NOW, deadline_s=60) == steps
    deployed = {step.cloud for step in steps if isinstance(step, Deploy)}
    assert deployed == {cloud for cloud, kind in kinds.items() if kind in ("none", "old")}
    assert (steps == (MarkLive(),)) == (set(kinds.values()) == {"healthy"})
    assert not any(isinstance(step, Remove) for step in steps)


@given(st.dictionaries(st.sampled_from("abcdef"), answers, min_size=1), st.integers(0, 10**6))
def test_nothing_is_live_before_every_target_is_healthy_however_late(kinds, late_s):
    release = new_release("m", "1", "d", even_weights(sorted(kinds)), now=NOW)
    observed = {cloud: answer(cloud, kind) for cloud, kind in kinds.items()}
    steps = next_steps(release, observed, now=NOW + timedelta(seconds=late_s), deadline_s=60)
    if set(kinds.values()) != {"healthy"}:
        assert MarkLive() not in steps
