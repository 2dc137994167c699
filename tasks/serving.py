"""Serving steps: ask for a release, bring it about on every cloud, roll it back, and probe what answers."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.artifacts import show_table
from tasks.core import release as releases
from tasks.core.errors import Invalid, PolicyViolation, Terminal
from tasks.core.mirroring import mirror_until, release_to_mirror
from tasks.core.ports import Server
from tasks.core.reconcile import reconcile_until
from tasks.core.release import Endpoint, EndpointSpec, Release, ReleaseState, even_weights, governing, request_release
from tasks.registry import installation
from tasks.residency import require_residency
from tasks.steps import say, step
from tasks.tracking import CHAMPION, download_version, model_version, set_alias, version_by_alias


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A version that gets copies of a live release's requests, and where that was observed."""

    live: Release
    model: str
    version: str
    digest: str
    percent: int
    endpoints: tuple[Endpoint, ...]


_PASSED_TAG = "lintas.evaluation"


@step(name="release", run_name="release {model} {version}")
def open_release(model: str, version: str, clouds: Sequence[str]) -> Release:
    """Ask for one model version on these clouds; the same wish again is the same release.

    Raises:
        PolicyViolation: The version was not evaluated, or did not pass, or may not be served there by residency.
        Invalid: A cloud cannot serve.
    """
    here = installation()
    registered = model_version(model, version)
    evaluated = registered.tags.get(_PASSED_TAG, "missing")
    if evaluated != "passed":
        raise PolicyViolation(
            f"version {version} of '{model}' may not be released: its evaluation is {evaluated}",
            "train and evaluate it first, or promote a version that passed",
        )
    for cloud in clouds:
        here.server(cloud)
    require_residency(registered, clouds)
    release = request_release(
        here.records.releases, model, version, registered.digest, even_weights(clouds), now=datetime.now(UTC)
    )
    say(f"release {release.release_id}: {model} {version} on {', '.join(clouds)}")
    return release


@step(name="reconcile", retries=2, run_name="reconcile {release.model} {release.version}")
def bring_about(release: Release, *, deadline_s: float = 600.0) -> Release:
    """Reconcile a release until it stands; see `tasks.core.reconcile.reconcile_until`.

    Raises:
        Terminal: It failed; what was live before is live again.
    """
    here = installation()
    folder = Path(tempfile.mkdtemp(prefix="model-", dir=here.scratch()))
    try:
        settled = reconcile_until(
            release,
            _servers(),
            here.records.releases,
            fetch=lambda wanted: download_version(wanted.model, wanted.version, folder / wanted.version),
            project=_write_alias,
            clock=lambda: datetime.now(UTC),
            sleep=time.sleep,
            deadline_s=deadline_s,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show_table("release", [_row(endpoint) for endpoint in settled.endpoints], f"Release {settled.release_id}")
    if settled.state is not ReleaseState.LIVE:
        why = settled.reason or "not live yet"
        raise Terminal(
            f"release {settled.release_id} of '{settled.model}' is {settled.state.value}: {why}",
            "see 'lintas releases', mend the endpoint and promote again",
        )
    return settled


@step(name="mirror", retries=2, run_name="mirror {model} {version}")
def mirror(model: str, version: str, clouds: Sequence[str], percent: int, *, deadline_s: float = 600.0) -> Mirrored:
    """Let a version see a copy of so many percent of the live release's requests; 0 percent ends it.

    Raises:
        PolicyViolation: The version may not be served there by residency.
        Invalid: A cloud cannot mirror, or not this much.
        NotFound: Nothing of the model is live there.
        Terminal: The version does not come up; the live release serves as before.
    """
    here = installation()
    registered = model_version(model, version)
    servers = {cloud: here.mirroring_server(cloud) for cloud in clouds}
    if percent:
        require_residency(registered, clouds)
    live = release_to_mirror(here.records.releases, model, registered.digest, tuple(clouds), percent)
    folder = Path(tempfile.mkdtemp(prefix="model-", dir=here.scratch()))
    try:
        path = str(download_version(model, version, folder / version))
        spec = EndpointSpec(releases.endpoint_name(model), model, version, registered.digest, path)
        say(f"{percent}% of the requests of {model} {live.version} go to version {version} as well")
        endpoints = mirror_until(
            spec, percent, servers, clock=lambda: datetime.now(UTC), sleep=time.sleep, deadline_s=deadline_s
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    here.records.audit.append(
        "mirror",
        f"{model} {version}",
        {"release": live.release_id, "digest": registered.digest, "clouds": list(clouds), "percent": percent},
    )
    return Mirrored(live, model, version, registered.digest, percent, endpoints)


@step(name="audit promotion")
def record_promotion(release: Release) -> None:
    """Enter a release that went live in the audit log."""
    installation().records.audit.append(
        "rollback" if release.restores else "promotion",
        f"{release.model} {release.version}",
        {
            "release": release.release_id,
            "digest": release.digest,
            "clouds": [endpoint.cloud for endpoint in release.endpoints],
            "restores": release.restores,
        },
    )


@step(name="roll back", run_name="roll back {model}")
def ask_roll_back(model: str) -> Release:
    """Make what was live before wanted again; see `tasks.core.release.roll_back`.

    Raises:
        PolicyViolation: It may not be served there any more by residency.
        NotFound: Nothing was live before, or its version is gone from the registry.
    """
    return releases.roll_back(
        installation().records.releases,
        model,
        now=datetime.now(UTC),
        require=lambda earlier: require_residency(model_version(model, earlier.version), earlier.targets),
    )


def probe(release: Release, payload: bytes) -> Mapping[str, bytes]:
    """Send one request to every endpoint of a release and return each answer by its cloud."""
    here = installation()
    return {
        endpoint.cloud: here.server(endpoint.cloud).predict(endpoint.name, payload) for endpoint in release.endpoints
    }


def governing_releases() -> list[Release]:
    """For every model the release that says what should be served, or the newest if it failed and must be undone."""
    book = installation().records.releases
    found: list[Release] = []
    for model in sorted({release.model for release in book.list()}):
        ruling, newest = governing(book, model), book.latest(model)
        if ruling is not None:
            found.append(ruling)
        elif newest is not None and newest.state is ReleaseState.FAILED:
            found.append(newest)
    return found


def _servers() -> dict[str, Server]:
    here = installation()
    opened: dict[str, Server] = {}
    for name in here.settings.clouds:
        try:
            opened[name] = here.server(name)
        except Invalid:
            continue  # Not configured for serving; a release that wants it there is refused when it is asked for.
    return opened


def _write_alias(release: Release) -> None:
    current = version_by_alias(release.model, CHAMPION)
    if current is None or current.version != release.version:
        set_alias(release.model, release.version, CHAMPION)


def _row(endpoint: Endpoint) -> dict[str, object]:
    return {
        "cloud": endpoint.cloud,
        "url": endpoint.url,
        "weight": endpoint.weight,
        "version": endpoint.version,
        "digest": endpoint.digest[:16],
        "healthy": endpoint.healthy,
    }
