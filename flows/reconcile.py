"""Reconcile: bring every model's endpoints to what its governing release says, after whatever happened to them."""

from prefect import flow

from flows.forms import Seconds
from tasks.core.errors import LintasError, Terminal
from tasks.serving import bring_about, governing_releases
from tasks.steps import say


@flow(name="reconcile")
def reconcile(deadline_s: Seconds = 120.0) -> int:
    """Reconcile all releases; returns how many stand as they should.

    Args:
        deadline_s: Seconds that each release may take.
    """
    releases, failed = governing_releases(), list[str]()
    for release in releases:
        try:
            bring_about(release, deadline_s=deadline_s)
        except LintasError as error:
            say(str(error))
            failed.append(f"{release.model} {release.version}")
    if failed:
        raise Terminal(
            f"{len(failed)} of {len(releases)} releases do not stand: {', '.join(failed)}", "see the run's log"
        )
    return len(releases)
