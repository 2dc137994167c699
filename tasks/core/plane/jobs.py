"""The plane of services that pull by jobs: one job a shard and storage class, and each object proven afterwards.

A job takes minutes, reads whatever version of the source is the latest, and knows no conditions; but it never replaces
an object. So this plane gives it only what replaces nothing, and looks at the destination when the job has ended, well
or not: what arrived with the right content counts, what the service made wrong is removed. What then is missing is
left to the next plane.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.attributes import Description
from tasks.core.dataset import DIGEST_METADATA
from tasks.core.errors import Invalid, LintasError, NotFound, PreconditionFailed, Terminal
from tasks.core.plane import Arrived, Load, copied, described_at
from tasks.core.plane.server_side import other_content, proof, unlabelled
from tasks.core.ports import PullingStore, PullOrder
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import ObjectInfo, PullJobs, Store

_FIRST_LOOK_S = 0.2
_LONGEST_LOOK_S = 15.0

Seen = tuple[Load, "ObjectInfo"]
"""A load, and its object as the source described it before the job."""


class JobPlane:
    """Has a service of the destination fetch the objects by jobs.

    Args:
        in_flight: How many objects at a time are looked at, before and after.
        attempts: How often one call is tried when a service answers `Retryable`.
    """

    def __init__(self, *, in_flight: int = 16, attempts: int = 4) -> None:
        self._in_flight = in_flight
        self._attempts = attempts

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`.

        Raises:
            Terminal: Some objects were not brought, for a reason that is none of theirs: another plane may carry them.
            Invalid: The destination brings nothing from there by jobs.
        """
        jobs = jobs_of(destination)
        reason = jobs_closed(source, destination)
        if jobs is None or reason:
            raise Invalid(reason or f"{destination.cloud} pulls nothing by jobs", "let the move stream")

        def seen(load: Load) -> Seen:
            return load, with_retries(lambda: described_at(load, source), self._attempts, threading.Event())

        orders: defaultdict[tuple[str, str, str], list[Seen]] = defaultdict(list)
        for load, info in in_parallel(seen, loads, self._in_flight, threading.Event()):
            if _fits(load, info):
                path = load.entry.path
                roots = load.source_key.removesuffix(path), load.key.removesuffix(path)
                orders[(*roots, unlabelled(load, info).attributes.tier)].append((load, info))
        wanted, reasons = sum(map(len, orders.values())), list[str]()
        unfit = len(loads) - wanted
        if unfit:
            reasons.append(f"{unfit} replace others, bear labels that must not arrive yet, or are named in other ways")
        left = unfit
        for (source_root, root, tier), group in orders.items():
            group.sort(key=lambda item: item[0].entry.path)
            names = tuple(load.entry.path for load, _ in group)
            order = PullOrder(source_root, root, names, tier)
            missing, ended = self._carried(jobs, order, group, source, destination, arrived)
            left += missing
            if missing:
                reasons.append(
                    f"a job left {missing} of {len(group)} behind ({ended or 'and says that it ended well'})"
                )
        if left:
            raise Terminal(
                f"{destination.cloud} did not pull {left} of {len(loads)} objects: {'; '.join(reasons)}",
                "look at the service's log if it should have",
            )

    def _carried(
        self,
        jobs: PullJobs,
        order: PullOrder,
        group: Sequence[Seen],
        source: Store,
        destination: Store,
        arrived: Arrived,
    ) -> tuple[int, str]:
        """Run one job and look at each of its objects; how many it left behind, and how it ended."""
        failures: list[LintasError] = []
        ended = ""
        try:
            ended = self._run(jobs, source, order)
        except LintasError as error:
            failures.append(error)

        def settled(item: Seen) -> bool:
            # Everything that a job has made visible is looked at, whatever became of the others.
            try:
                return with_retries(
                    lambda: self._settled(jobs, item, source, destination, arrived), self._attempts, threading.Event()
                )
            except LintasError as error:
                failures.append(error)
                return True

        there = in_parallel(settled, group, self._in_flight, threading.Event())
        if failures:
            raise failures[0]
        return there.count(False), ended

    def _run(self, jobs: PullJobs, source: Store, order: PullOrder) -> str:
        """How a job ended: empty for well."""
        deadline, pause_s = time.monotonic() + jobs.timeout_s, _FIRST_LOOK_S
        with jobs.running(source, order) as look:
            while (ended := with_retries(look, self._attempts, threading.Event())) is None:
                if time.monotonic() >= deadline:
                    return f"not done after {jobs.timeout_s:g} s"
                time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
                pause_s = min(_LONGEST_LOOK_S, 2 * pause_s)
        return ended

    def _settled(self, jobs: PullJobs, item: Seen, source: Store, destination: Store, arrived: Arrived) -> bool:
        """Whether the object has arrived. Raises when what is there is not what was planned."""
        load, info = item
        try:
            made = destination.head(load.key)
        except NotFound:
            return False
        by, ours = proof(load, info, made, destination), jobs.mark in made.metadata
        if not by and not ours:
            raise PreconditionFailed(
                f"somebody wrote '{load.entry.path}' on {destination.cloud} while it was pulled", "run the move again"
            )
        if not by:
            destination.delete(load.key)
            described_at(load, source)
            raise other_content(load, destination)
        if ours:
            jobs.describe(unlabelled(load, info), made.version)
        arrived(load, copied(load, made.version, by, "pull"))
        return True


def jobs_of(destination: Store) -> PullJobs | None:
    """The service that pulls by jobs into a store, where it has one and may use it. Asks nobody."""
    if not hasattr(type(destination), "pull_jobs") or not isinstance(destination, PullingStore):
        return None
    return destination.pull_jobs


def jobs_closed(source: Store, destination: Store) -> str:
    """Why a service that the destination may use brings nothing from there; empty where it does, or has none."""
    jobs = jobs_of(destination)
    return jobs.closed(source) if jobs is not None else ""


def _fits(load: Load, info: ObjectInfo) -> bool:
    """Whether a job may bring it: the service takes metadata along, and writes it before anything is proven."""
    described, path = Description(info.metadata, info.attributes), load.entry.path
    return (
        load.replaces is None
        and DIGEST_METADATA not in info.metadata
        and (load.keeps_labels or described.without_labels() == described)
        and all(_root(key, path) for key in (load.source_key, load.key))
        and not any(letter in path for letter in "\r\n")
    )


def _root(key: str, path: str) -> bool:
    """Whether the key is the path below a folder, or alone."""
    return key == path or key.endswith(f"/{path}")
