"""The plane of services that pull by jobs: one a shard, into a folder of its own, and each object proven afterwards.

A job takes minutes, reads whatever version of the source is the latest, and knows neither conditions nor descriptions.
So it writes nowhere but below a prefix that nobody else has. When it has ended, well or not, that folder is looked at:
what has the right content is copied to its place by the store itself, under the plan's condition and described as by
any other route, and the folder goes away. What the job did not bring is left to the next plane.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.attributes import Description
from tasks.core.dataset import PULLS_PREFIX
from tasks.core.errors import Invalid, LintasError, NotFound, PreconditionFailed, Stockout, Terminal
from tasks.core.plane import Arrived, Load, copied, described_at, own_write, write_of
from tasks.core.plane.parts import is_folder
from tasks.core.plane.server_side import other_content, proof, proven
from tasks.core.ports import PullingStore, ServerSideStore
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import ObjectInfo, PullJobs, Store, UploadJournal

_FIRST_LOOK_S = 0.2
_LONGEST_LOOK_S = 15.0
_LONGEST_KEY_BYTES = 900

Seen = tuple[Load, "ObjectInfo"]
"""A load, and its object as the source described it before the job."""


class JobPlane:
    """Has a service of the destination fetch the objects by a job.

    Args:
        in_flight: How many objects at a time are looked at, before and after.
        attempts: How often one call is tried when a service answers `Retryable`.
        uploads: Where the folders of jobs are kept: the next move ends the jobs that a killed one left.
        key_prefix: What the keys of the destination's dataset start with.
    """

    def __init__(
        self, *, in_flight: int = 16, attempts: int = 4, uploads: UploadJournal | None = None, key_prefix: str = ""
    ) -> None:
        self._in_flight = in_flight
        self._attempts = attempts
        self._uploads, self._key_prefix = uploads, key_prefix

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
        self._end_left(jobs, destination)

        def seen(load: Load) -> Seen:
            return load, with_retries(lambda: described_at(load, source), self._attempts, threading.Event())

        found = in_parallel(seen, loads, self._in_flight, threading.Event())
        fit = sorted((item for item in found if _fits(jobs, *item)), key=lambda item: item[0].source_key)
        missing, ended = self._carried(jobs, fit, source, destination, arrived) if fit else (0, "")
        reasons = list[str]()
        if unfit := len(loads) - len(fit):
            reasons.append(f"{unfit} bear labels that must stay behind, or names that the service does not take")
        if missing:
            reasons.append(f"a job left {missing} behind ({ended or 'and says that it ended well'})")
        if reasons:
            raise Terminal(
                f"{destination.cloud} did not pull {unfit + missing} of {len(loads)} objects: {'; '.join(reasons)}",
                "look at the service's log if it should have",
            )

    def _carried(
        self, jobs: PullJobs, fit: Sequence[Seen], source: Store, destination: Store, arrived: Arrived
    ) -> tuple[int, str]:
        """Run a job and look at each of its objects; how many it left behind, and how it ended."""
        root, ended, failures = f"{PULLS_PREFIX}{uuid.uuid4().hex}/", "", list[LintasError]()
        note = destination.cloud, destination.bucket, fit[0][0].key, root
        if self._uploads is not None:
            self._uploads.begun(*note, "")
        try:
            ended = self._run(jobs, source, [load.source_key for load, _ in fit], root)
        except Stockout as error:
            ended = error.what
        except LintasError as error:
            failures.append(error)
        job_failed = bool(failures)

        def settled(item: Seen) -> bool:
            # What has arrived counts, whatever became of the job and of the others.
            try:
                return with_retries(
                    lambda: _settled(item, root, source, destination, arrived), self._attempts, threading.Event()
                )
            except LintasError as error:
                failures.append(error)
                return True

        try:
            there = in_parallel(settled, fit, self._in_flight, threading.Event())
        finally:
            self._clear(destination, root)
            if self._uploads is not None and not job_failed:
                self._uploads.ended(*note)
        if failures:
            raise failures[0]
        return there.count(False), ended

    def _end_left(self, jobs: PullJobs, destination: Store) -> None:
        """End the jobs of earlier moves to this dataset: they are over, since this one holds its lease."""
        if self._uploads is None:
            return
        place = destination.cloud, destination.bucket
        for left in self._uploads.open(*place, self._key_prefix):
            if is_folder(left):
                with_retries(lambda root=left.upload_id: jobs.end_left(root), self._attempts, threading.Event())
                self._clear(destination, left.upload_id)
                self._uploads.ended(*place, left.key, left.upload_id)

    def _clear(self, destination: Store, root: str) -> None:
        staged = with_retries(lambda: list(destination.list(root)), self._attempts, threading.Event())
        in_parallel(lambda info: destination.delete(info.key), staged, self._in_flight, threading.Event())

    def _run(self, jobs: PullJobs, source: Store, keys: Sequence[str], root: str) -> str:
        """How a job ended: empty for well."""
        deadline, pause_s = time.monotonic() + jobs.timeout_s, _FIRST_LOOK_S
        with jobs.running(source, keys, root) as look:
            while (ended := with_retries(look, self._attempts, threading.Event())) is None:
                if time.monotonic() >= deadline:
                    return f"not done after {jobs.timeout_s:g} s"
                time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
                pause_s = min(_LONGEST_LOOK_S, 2 * pause_s)
        return ended


def jobs_of(destination: Store) -> PullJobs | None:
    """The service that pulls by jobs into a store, where it has one and may use it. Asks nobody."""
    if not hasattr(type(destination), "pull_jobs") or not isinstance(destination, PullingStore):
        return None
    return destination.pull_jobs


def jobs_closed(source: Store, destination: Store) -> str:
    """Why a service that the destination may use brings nothing from there; empty where it does, or has none."""
    jobs = jobs_of(destination)
    return jobs.closed(source) if jobs is not None else ""


def _settled(item: Seen, root: str, source: Store, destination: Store, arrived: Arrived) -> bool:
    """Whether the object was brought: then it is at its place. Raises when it is not what was planned."""
    load, info = item
    try:
        staged = destination.head(root + load.source_key)
    except NotFound:
        return False
    by = proof(load, info, staged, destination)
    if not by:
        described_at(load, source)
        raise other_content(load, destination)
    if not isinstance(destination, ServerSideStore):
        raise Invalid(f"{destination.cloud} copies nothing inside itself", "let the move stream")
    write = write_of(load, Description(info.metadata, info.attributes))
    try:
        made = destination.server_side.copy(destination, staged.key, staged.version, write)
        proven(load, staged, made, destination)
        version = made.version
    except PreconditionFailed:
        # A copy whose answer was lost meets its own result.
        own = own_write(load, destination)
        if own is None:
            raise
        version = own
    arrived(load, copied(load, version, by, "pull"))
    return True


def _fits(jobs: PullJobs, load: Load, info: ObjectInfo) -> bool:
    """Whether a job may bring it."""
    described = Description(info.metadata, info.attributes)
    labels_go = load.keeps_labels or not jobs.takes_labels or described.without_labels() == described
    key = load.source_key
    return labels_go and len(key.encode()) <= _LONGEST_KEY_BYTES and not any(letter in key for letter in "\r\n")
