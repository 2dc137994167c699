"""The ports: what Lintas asks of the world outside, all on one screen.

A provider implements `Store`, `Trainer`, `Server` and `EventSource`, as many of them as it has; one that it lacks
is absent (None in the registry) and refused at planning. The state of Lintas itself sits behind `Journal`,
`ReleaseBook` and `AuditLog`; the model registry behind `Tracking`. Only what cannot be built from the rest is
asked for. Every call may raise the classes of `tasks.core.errors` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tasks.core.audit import AuditRecord
    from tasks.core.release import Endpoint, EndpointSpec, Release
    from tasks.core.training import JobSpec, JobStatus


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as its store describes it.

    Args:
        key: The full key in the bucket.
        size_bytes: Size of the content.
        version: The store's id of this very content (generation, ETag, inode and times). Changes when it changes.
        modified: When it was last written, timezone-aware.
        metadata: User metadata with lower-case names; empty where a listing does not carry it.
    """

    key: str
    size_bytes: int
    version: str
    modified: datetime
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


class Store(Protocol):
    """One bucket of one cloud. Safe to use from several threads."""

    @property
    def cloud(self) -> str: ...
    @property
    def bucket(self) -> str: ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, page by page, in any order. NotFound: no such bucket."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """The object's description with its metadata. NotFound: no such object or bucket."""
        ...

    def get(
        self, key: str, *, version: str | None = None, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """The content in pieces of at most 8 MiB, from byte `start`, `length` bytes of it.

        PreconditionFailed: the object is no longer `version`. A short body is Retryable, never silent.
        """
        ...

    def put(
        self,
        key: str,
        body: Iterable[bytes],
        *,
        size_bytes: int,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/octet-stream",
        if_version: str | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Write an object as a whole: it becomes visible when the body has ended, or not at all.

        The provider checks a checksum of what it received. If the body raises or has another size, nothing is
        visible and no unfinished upload is left. PreconditionFailed: `if_version` or `if_absent` does not hold.
        At most a few 8 MiB pieces are in memory at a time.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; returns silently if it is already gone."""
        ...

    def create_bucket(self) -> None:
        """Create the bucket; returns silently if it is already ours."""
        ...


class Journal(Protocol):
    """What earlier runs learnt about objects: the digest of this version of this key, kept durably."""

    def known(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int) -> str | None: ...

    def record(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int, digest: str) -> None: ...


class Trainer(Protocol):
    """Runs training jobs on one cloud."""

    def submit(self, job: JobSpec) -> str:
        """Start the job and return the provider's id at once. The same spec twice is one job: same id.

        Stockout: no capacity or quota, known at once. Invalid: the provider cannot run this spec.
        """
        ...

    def poll(self, job_id: str) -> JobStatus:
        """The job's state now; a stock-out that shows late is a status of its own. NotFound: no such job."""
        ...

    def logs(self, job_id: str, *, after_line: int = 0) -> Iterator[str]:
        """The lines written so far, from line number `after_line` on; ends at the last line there is now."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop the job; returns silently if it has ended or is gone."""
        ...

    def fetch_output(self, job_id: str, into: Path) -> None:
        """Bring what the job wrote to its output directory into the local directory `into`."""
        ...


class Server(Protocol):
    """Serves models on one cloud."""

    def deploy(self, spec: EndpointSpec) -> Endpoint:
        """Make the endpoint serve this model version. The same spec again changes nothing.

        Returns at once; `describe` says when it is healthy.
        """
        ...

    def describe(self, name: str) -> Endpoint | None:
        """The endpoint as it is observed now: digest served, health, URL. None: there is none of this name."""
        ...

    def predict(self, name: str, payload: bytes) -> bytes:
        """Send one request in MLflow's scoring protocol (JSON) and return the answer's JSON."""
        ...

    def delete(self, name: str) -> None:
        """Remove the endpoint; returns silently if it is already gone."""
        ...


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """What happened in a cloud, in the terms of CloudEvents 1.0.

    Args:
        id: The source's own id; the same id twice is the same event.
        type: For example `lintas.object.created`.
        source: The bucket or registry it came from, as a URI.
        subject: The key or name it is about.
        time: When it happened, timezone-aware.
        data: Further facts, JSON-compatible, no personal values.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])


class EventSource(Protocol):
    """A queue of events of one cloud. An event comes again until it is acknowledged."""

    def receive(self, *, wait_s: float) -> list[tuple[CloudEvent, str]]:
        """Up to ten events with their receipts, after waiting at most `wait_s` seconds for the first."""
        ...

    def acknowledge(self, receipt: str) -> None:
        """Never deliver this one again."""
        ...


class ReleaseBook(Protocol):
    """The record of releases. Writers never overwrite each other: an update names the generation it read."""

    def read(self, release_id: str) -> Release: ...
    def latest(self, model: str) -> Release | None: ...
    def list(self, model: str | None = None) -> list[Release]: ...
    def write(self, release: Release, *, read_generation: int) -> Release:
        """Store it as the next generation. PreconditionFailed: another writer came first; read again."""
        ...


class AuditLog(Protocol):
    """An append-only log of decisions, each record chained to the one before by its digest."""

    def append(self, kind: str, subject: str, facts: Mapping[str, Any]) -> AuditRecord: ...
    def records(self, *, kind: str | None = None, since: datetime | None = None) -> Iterator[AuditRecord]: ...
