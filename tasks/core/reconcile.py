"""Bringing a release about: look at the clouds, compare with the record, make the next step, look again.

Each pass starts from the book and from what the clouds answer now, never from what was asked of them before, so a
pass that was killed anywhere is simply followed by another one. Every change is recorded before the step that
builds on it: the release is `rolling_out` before anything is deployed, and `live` before what it replaces is retired,
spare endpoints are removed and the alias is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from tasks.core.errors import Invalid, LintasError, PreconditionFailed, Retryable
from tasks.core.ports import ReleaseBook, Server
from tasks.core.release import (
    Deploy,
    Endpoint,
    EndpointSpec,
    MarkFailed,
    MarkLive,
    Observation,
    Release,
    ReleaseState,
    Remove,
    Step,
    endpoint_name,
    final,
    governing,
    next_steps,
    shortfall,
)

Fetch = Callable[[Release], Path]
"""Brings the release's model to a local directory and verifies its digest; called only when something is deployed."""

Project = Callable[[Release], None]
"""Makes the model registry's alias say what a live release says: reads it first, writes it when it differs."""


def reconcile(
    release: Release,
    servers: Mapping[str, Server],
    book: ReleaseBook,
    *,
    fetch: Fetch,
    project: Project,
    now: datetime,
    deadline_s: float = 600.0,
) -> Release:
    """One pass: the smallest next step towards what the book says of this model.

    For a release that failed this works on the one that governs again, or removes its endpoints if none does. A
    release that a newer one overtook before it was live is marked superseded.

    Args:
        release: Which release; its record is read afresh.
        servers: By cloud, for every target; also for clouds of earlier releases, if what they serve is to go.
        book: The record.
        fetch, project: See `Fetch` and `Project`.
        now: The moment, timezone-aware.
        deadline_s: Seconds after its creation in which a release must be live, or it has failed.

    Returns:
        The release as it is recorded after the pass.

    Raises:
        Invalid: A target has no server here; nothing was done.
        LintasError: What `project` raised; the release is live, and the next pass writes the alias.
    """
    return _pass(release, servers, book, _Means(fetch, project, now, deadline_s)).release


def reconcile_until(
    release: Release,
    servers: Mapping[str, Server],
    book: ReleaseBook,
    *,
    fetch: Fetch,
    project: Project,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    deadline_s: float = 600.0,
    poll_s: float = 0.5,
    on_pass: Callable[[Release], None] | None = None,
) -> Release:
    """Passes until the release stands: live with its alias written, or failed with what was live before restored.

    Args:
        clock: Tells the time, timezone-aware.
        sleep: Waits for so many seconds.
        poll_s: Seconds between passes that wait for a cloud.
        on_pass: Called with the release after each pass.

    Returns:
        The release, to be judged by its `state` and `reason`. Something may still be lacking when this call has tried
        for `deadline_s` seconds (and as many again for restoring): a later call, or the scheduled one, goes on.

    Raises:
        Invalid: A target has no server here; nothing was done.
        LintasError: The alias could not be written; the release is live, and calling again writes it.
    """
    patience = timedelta(seconds=deadline_s)
    give_up, restoring = clock() + patience, False
    fetched: dict[str, Path] = {}

    def fetch_once(wanted: Release) -> Path:
        if wanted.release_id not in fetched:
            fetched[wanted.release_id] = fetch(wanted)
        return fetched[wanted.release_id]

    while True:
        now = clock()
        last = now >= give_up
        try:
            outcome = _pass(release, servers, book, _Means(fetch_once, project, now, deadline_s))
        except Retryable:
            if last:
                raise
            sleep(poll_s)
            continue
        if on_pass is not None:
            on_pass(outcome.release)
        if outcome.release.state is ReleaseState.FAILED and not restoring:
            give_up, restoring, last = now + patience, True, False
        if outcome.settled or last:
            return outcome.release
        if not outcome.go_on:
            sleep(poll_s)


@dataclass(frozen=True, slots=True)
class _Means:
    fetch: Fetch
    project: Project
    now: datetime
    deadline_s: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A pass's result: `settled` when nothing is left to do, `go_on` when the next pass need not wait."""

    release: Release
    settled: bool
    go_on: bool = False


def _pass(release: Release, servers: Mapping[str, Server], book: ReleaseBook, means: _Means) -> _Outcome:
    current = book.read(release.release_id)
    ruling = governing(book, current.model)
    try:
        if ruling is None or ruling.release_id == current.release_id:
            return _bring_about(current, servers, book, means)
        if current.state is ReleaseState.FAILED and ruling.release_id < current.release_id:
            return replace(_bring_about(ruling, servers, book, means), release=current)
        if current.state in (ReleaseState.PENDING, ReleaseState.ROLLING_OUT):
            current = _record(current, book, state=ReleaseState.SUPERSEDED, reason=f"overtaken by {ruling.release_id}")
        return _Outcome(current, settled=True)
    except PreconditionFailed:
        # Another reconciler wrote first; its record is the one to go on from.
        return _Outcome(book.read(release.release_id), settled=False)


def _bring_about(release: Release, servers: Mapping[str, Server], book: ReleaseBook, means: _Means) -> _Outcome:
    absent = [cloud for cloud in release.targets if cloud not in servers]
    if absent:
        raise Invalid(f"'{absent[0]}' has no server", "promote to clouds that can serve, or configure its provider")
    observed = _observe(release, servers, book)
    release = _note(release, observed, book)
    steps = next_steps(release, observed, now=means.now, deadline_s=means.deadline_s)
    match steps:
        case (MarkLive(),):
            return _Outcome(
                _record(release, book, state=ReleaseState.LIVE, live_since=means.now, reason=""),
                settled=False,
                go_on=True,
            )
        case (MarkFailed(reason),):
            return _Outcome(_record(release, book, state=ReleaseState.FAILED, reason=reason), settled=False, go_on=True)
        case _:
            pass
    if steps and release.state is ReleaseState.PENDING:
        release = _record(release, book, state=ReleaseState.ROLLING_OUT)
    if release.state is ReleaseState.LIVE:
        _retire_older(release, book)
    left = [trouble for step in steps if (trouble := _carry_out(step, release, servers, means)) is not None]
    hopeless = next((f"{cloud}: {error}" for cloud, error in left if final(error)), None)
    if hopeless is not None and release.state is ReleaseState.ROLLING_OUT:
        return _Outcome(_record(release, book, state=ReleaseState.FAILED, reason=hopeless), settled=False, go_on=True)
    if release.state.governs:
        lacking = hopeless or ", ".join(f"{cloud}: {error.what}" for cloud, error in left) or shortfall(steps)
        release = _record(release, book, reason=lacking if not _only_removed(steps, left) else "")
    if release.state is ReleaseState.LIVE:
        means.project(release)
    return _Outcome(release, settled=_only_removed(steps, left))


def _only_removed(steps: tuple[Step, ...], left: list[tuple[str, LintasError]]) -> bool:
    return not left and all(isinstance(step, Remove) for step in steps)


def _observe(release: Release, servers: Mapping[str, Server], book: ReleaseBook) -> dict[str, Observation]:
    """What every cloud that any release of the model named says now."""
    name = endpoint_name(release.model)
    clouds = list(release.targets)
    for other in book.list(release.model):
        clouds += [cloud for cloud in other.targets if cloud not in clouds and cloud in servers]
    observed: dict[str, Observation] = {}
    for cloud in clouds:
        try:
            observed[cloud] = servers[cloud].describe(name)
        except LintasError as error:
            observed[cloud] = error
    return observed


def _note(release: Release, observed: Mapping[str, Observation], book: ReleaseBook) -> Release:
    """Record what was observed on the targets."""
    weights = dict(release.weights)
    seen = tuple(
        replace(endpoint, weight=weights[cloud])
        for cloud in release.targets
        if isinstance(endpoint := observed.get(cloud), Endpoint)
    )
    return _record(release, book, endpoints=seen)


def _record(release: Release, book: ReleaseBook, **changes: object) -> Release:
    changed = replace(release, **changes)  # pyright: ignore[reportArgumentType]
    return release if changed == release else book.write(changed, read_generation=release.generation)


def _retire_older(release: Release, book: ReleaseBook) -> None:
    for older in book.list(release.model):
        if older.state.governs and older.release_id < release.release_id:
            rolled_back = release.restores is not None and older.release_id == release.previous
            state = ReleaseState.ROLLED_BACK if rolled_back else ReleaseState.SUPERSEDED
            _record(older, book, state=state, reason=f"replaced by {release.release_id}")


def _carry_out(
    step: Step, release: Release, servers: Mapping[str, Server], means: _Means
) -> tuple[str, LintasError] | None:
    """Make one step; what a cloud answers to it in trouble is returned, and judged with the rest."""
    name = endpoint_name(release.model)
    match step:
        case Deploy(cloud):
            try:
                path = str(means.fetch(release))
                servers[cloud].deploy(EndpointSpec(name, release.model, release.version, release.digest, path))
            except LintasError as error:
                return cloud, error
        case Remove(cloud):
            try:
                servers[cloud].delete(name)
            except LintasError as error:
                return cloud, error
        case _:
            pass
    return None
