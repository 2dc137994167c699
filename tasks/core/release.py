"""Releases: one model version, wanted on several clouds, brought about by reconciling and never by a script.

A `Release` records what is wanted and what was last observed; `next_steps` compares the two, and
`tasks.core.reconcile` carries the steps out. It can be killed anywhere and run again. Aliases in the model registry
are written last, as a projection of the record: the record is the truth.

Of a model's releases one governs: the newest that is pending, rolling out or live. A release that fails stops
governing, so that reconciling brings back the live one before it; with none before it, its endpoints are removed.
"""

from __future__ import annotations

import enum
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tasks.core.errors import Invalid, LintasError, NotFound, Retryable, Stockout

if TYPE_CHECKING:
    from tasks.core.ports import ReleaseBook


class ReleaseState(enum.StrEnum):
    """Where a release stands."""

    PENDING = "pending"
    ROLLING_OUT = "rolling_out"
    LIVE = "live"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"

    @property
    def governs(self) -> bool:
        """Whether a release in this state says what should be served, if no newer one does."""
        return self in (ReleaseState.PENDING, ReleaseState.ROLLING_OUT, ReleaseState.LIVE)


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """What one endpoint should serve.

    Args:
        name: The endpoint's name, the same on every cloud: `endpoint_name` of the model.
        model: Registered model name.
        version: Model version in the registry.
        digest: Digest of the model's files; what is served is compared with it.
        model_path: Local directory with the MLflow model.
    """

    name: str
    model: str
    version: str
    digest: str
    model_path: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as it is observed: never what was asked for.

    Args:
        cloud: Where it is.
        name: Its name there.
        url: Where it answers MLflow's scoring protocol.
        weight: Its share of traffic in percent; a server, which does not know it, says 0.
        digest: Digest of the model that it serves, by its own word; empty while it serves none.
        version: Model version that it serves, by its own word; empty where a cloud cannot tell.
        healthy: Whether it answered a probe just now.
        detail: Why it is not healthy, in one line.
        mirror_version: Model version that gets a copy of some requests; empty when none does.
        mirror_percent: How many of a hundred requests are copied to it.
    """

    cloud: str
    name: str
    url: str
    weight: int
    digest: str
    version: str
    healthy: bool
    detail: str = ""
    mirror_version: str = ""
    mirror_percent: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    """The record of one release.

    Args:
        release_id: Unique, sortable by time.
        model, version, digest: What is released.
        weights: Cloud name and wanted share of traffic in percent; they sum to 100.
        state: Where it stands.
        generation: Grows by one with every write; a writer names the generation it read.
        created: When it was asked for, timezone-aware.
        reason: Why it stands as it does, in one line.
        endpoints: What was last observed.
        previous: The release that it replaces.
        restores: The earlier release that it brings back, when it is a rollback of `previous`.
        live_since: When it went live; None if it never did.
    """

    release_id: str
    model: str
    version: str
    digest: str
    weights: tuple[tuple[str, int], ...]
    state: ReleaseState
    generation: int
    created: datetime
    reason: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    previous: str | None = None
    restores: str | None = None
    live_since: datetime | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The clouds that should serve it."""
        return tuple(cloud for cloud, _ in self.weights)


@dataclass(frozen=True, slots=True)
class Deploy:
    """Ask the cloud to serve the release's model; `why` is what it said while it does not."""

    cloud: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do on the cloud but to look again later."""

    cloud: str
    why: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the model's endpoint on a cloud that should not have one."""

    cloud: str


@dataclass(frozen=True, slots=True)
class MarkLive:
    """Every target serves the right digest and is healthy: record it."""


@dataclass(frozen=True, slots=True)
class MarkFailed:
    """The release did not come about in time: record why."""

    reason: str


Step = Deploy | Wait | Remove | MarkLive | MarkFailed
Observation = Endpoint | LintasError | None
"""What a cloud answered when it was asked for the endpoint: its state, an error, or that there is none."""


def endpoint_name(model: str) -> str:
    """The name of a model's endpoints, legal on every cloud: lower-case letters, digits and dashes, 63 at most.

    >>> endpoint_name("Flights late_v2")
    'flights-late-v2'
    """
    name = re.sub(r"[^a-z0-9]+", "-", model.lower())[:63].strip("-")
    if not name or not name[0].isalpha():
        raise Invalid(f"no endpoint can be named after the model '{model}'", "begin the model's name with a letter")
    return name


def even_weights(clouds: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Equal shares of 100 percent; what does not divide goes to the first ones.

    >>> even_weights(["aws", "google", "onprem"])
    (('aws', 34), ('google', 33), ('onprem', 33))
    """
    names = list(clouds)
    if not names:
        raise Invalid("a release needs at least one cloud", "name the clouds to serve from")
    share, rest = divmod(100, len(names))
    return tuple((name, share + (1 if index < rest else 0)) for index, name in enumerate(names))


def new_release(
    model: str,
    version: str,
    digest: str,
    weights: Iterable[tuple[str, int]],
    *,
    now: datetime,
    after: Release | None = None,
    previous: str | None = None,
    restores: str | None = None,
    reason: str = "",
) -> Release:
    """A pending release that is not yet in any book.

    Args:
        model, version, digest: What is released.
        weights: Cloud and share of traffic in percent.
        now: The moment, timezone-aware; the id sorts by it.
        after: The newest release of this model: the new id sorts after it even if the clock went back.
        previous, restores, reason: See `Release`.

    Raises:
        Invalid: A cloud is named twice or none is, a weight is not between 0 and 100, or they do not sum to 100.
    """
    shares = tuple(weights)
    _check_weights(shares)
    created = now.astimezone(UTC)
    if after is not None:
        created = max(created, after.created + timedelta(microseconds=1))
    release_id = f"{created:%Y%m%dt%H%M%S%f}-{secrets.token_hex(4)}"
    return Release(
        release_id, model, version, digest, shares, ReleaseState.PENDING, 0, created, reason, (), previous, restores
    )


def _check_weights(weights: tuple[tuple[str, int], ...]) -> None:
    clouds = [cloud for cloud, _ in weights]
    for cloud, weight in weights:
        if clouds.count(cloud) > 1:
            raise Invalid(f"'{cloud}' is named twice in a release", "name every cloud once")
        if not 0 <= weight <= 100:
            raise Invalid(f"the weight of '{cloud}' is {weight}", "choose a whole number from 0 to 100")
    total = sum(weight for _, weight in weights)
    if total != 100:
        raise Invalid(f"the weights of a release sum to {total}", "make them sum to 100")


def request_release(
    book: ReleaseBook, model: str, version: str, digest: str, weights: Iterable[tuple[str, int]], *, now: datetime
) -> Release:
    """Enter a release in the book, or find the one that governs already and wants exactly this.

    Raises:
        Invalid: The weights are wrong.
    """
    shares = tuple(weights)
    ruling = governing(book, model)
    if ruling is not None and (ruling.version, ruling.digest, ruling.weights) == (version, digest, shares):
        return ruling
    previous = None if ruling is None else ruling.release_id
    release = new_release(model, version, digest, shares, now=now, after=book.latest(model), previous=previous)
    return book.write(release, read_generation=0)


def governing(book: ReleaseBook, model: str) -> Release | None:
    """The release that says what should be served now, or None."""
    return next((release for release in _newest_first(book, model) if release.state.governs), None)


def roll_back(
    book: ReleaseBook, model: str, *, now: datetime, require: Callable[[Release], None] = lambda earlier: None
) -> Release:
    """Make what was live before wanted again: a new release, to be reconciled like any other.

    Rolling back again goes further back, never forth: a release that was rolled back is not brought back this way.

    Args:
        book: Where releases are kept.
        model: Registered model name.
        now: The time, timezone-aware.
        require: Called with the release that would come back, before anything is written; raises what forbids it.

    Raises:
        NotFound: There is no earlier release that was live and serves something else.
    """
    releases = _newest_first(book, model)
    if not releases:
        raise NotFound(f"the model '{model}' was never released", "check its name with 'lintas releases'")
    present = next((release for release in releases if release.state.governs), releases[0])
    origin = present
    while origin.restores is not None:
        origin = book.read(origin.restores)
    for earlier in releases:
        if earlier.release_id >= origin.release_id or earlier.live_since is None:
            continue
        if earlier.state is ReleaseState.ROLLED_BACK or _content(earlier) == _content(present):
            continue
        require(earlier)
        release = new_release(
            model,
            earlier.version,
            earlier.digest,
            earlier.weights,
            now=now,
            after=releases[0],
            previous=present.release_id,
            restores=earlier.release_id,
            reason=f"rolls back {present.release_id}",
        )
        return book.write(release, read_generation=0)
    raise NotFound(f"'{model}' has no earlier release that was live", "promote another version instead")


def _content(release: Release) -> tuple[str, tuple[tuple[str, int], ...]]:
    return release.digest, release.weights


def _newest_first(book: ReleaseBook, model: str) -> list[Release]:
    return sorted(book.list(model), key=lambda release: release.release_id, reverse=True)


def next_steps(
    release: Release, observed: Mapping[str, Observation], *, now: datetime, deadline_s: float
) -> tuple[Step, ...]:
    """What to do now so that the release comes about. Pure.

    Args:
        release: The governing release, or a failed one when none governs.
        observed: By cloud, what it answered. Clouds beyond the release's targets are those that other releases of
            the model named: what they still serve is removed once this release is live.
        now: The moment, timezone-aware.
        deadline_s: Seconds after its creation in which a release must be live.
    """
    serving = [cloud for cloud, endpoint in observed.items() if isinstance(endpoint, Endpoint)]
    if release.state is ReleaseState.FAILED:
        return tuple(Remove(cloud) for cloud in serving)
    if not release.state.governs:
        return ()
    steps = [step for cloud in release.targets if (step := _step_on(cloud, release, observed.get(cloud))) is not None]
    if release.state is ReleaseState.LIVE:
        return tuple(steps) or tuple(Remove(cloud) for cloud in serving if cloud not in release.targets)
    if not steps:
        return (MarkLive(),)
    hopeless = [f"{cloud}: {error}" for cloud, error in observed.items() if cloud in release.targets and final(error)]
    if hopeless:
        return (MarkFailed(hopeless[0]),)
    if now >= release.created + timedelta(seconds=deadline_s):
        return (MarkFailed(f"not live after {deadline_s:.0f} s: {shortfall(steps)}"),)
    return tuple(steps)


def final(answer: Observation) -> bool:
    """Whether a cloud's answer is an error that waiting cannot mend."""
    return isinstance(answer, LintasError) and not isinstance(answer, (Retryable, Stockout))


def shortfall(steps: Iterable[Step]) -> str:
    """What is still missing, in one line."""
    words: list[str] = []
    for step in steps:
        match step:
            case Deploy(cloud, why):
                words.append(f"{cloud}: {why or 'does not serve it yet'}")
            case Wait(cloud, why):
                words.append(f"{cloud}: {why}")
            case Remove(cloud):
                words.append(f"{cloud} still has an endpoint")
            case _:
                pass
    return ", ".join(words)


def _step_on(cloud: str, release: Release, observed: Observation) -> Step | None:
    if isinstance(observed, LintasError):
        return Wait(cloud, observed.what)
    if observed is None:
        return Deploy(cloud)
    if observed.digest != release.digest or observed.version not in ("", release.version):
        return Deploy(cloud, observed.detail)
    return None if observed.healthy else Wait(cloud, observed.detail or "not healthy")
