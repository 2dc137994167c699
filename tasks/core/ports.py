"""The ports: what Lintas asks of the world outside, all on one screen.

A provider implements `Store`, `Trainer`, `Server` and `EventSource`, as many of them as it has (and `Direct`, where
its stores can sign for others); one that it lacks is absent (None in the registry) and refused at planning. The
state of Lintas itself sits behind `Journal`, `UploadJournal`, `ReleaseBook` and `AuditLog`; the model registry
behind `Tracking`. Only what cannot be built from the rest is asked for. Every call may raise the classes of
`tasks.core.errors` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from tasks.core.attributes import PLAIN, Attributes, Description

if TYPE_CHECKING:
    from tasks.core.audit import AuditRecord
    from tasks.core.errors import LintasError
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
        attributes: What else is kept with it; where a listing does not carry it, only what it carries.
        archived: Its content cannot be read before somebody has the store restore it.
        checksums: What the store itself has computed over the whole content (`crc64nvme`, `crc32c`, `md5`, or
            `content`: Lintas' own content digest), in hexadecimal; those that it states, where `head` is asked.
    """

    key: str
    size_bytes: int
    version: str
    modified: datetime
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    attributes: Attributes = PLAIN
    archived: bool = False
    checksums: Mapping[str, str] = field(default_factory=dict[str, str])


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
        attributes: Attributes = PLAIN,
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


@dataclass(frozen=True, slots=True)
class Write:
    """An object that is to be written: everything about it but its bytes. `Store.put` says what the fields mean."""

    key: str
    size_bytes: int
    metadata: Mapping[str, str]
    if_version: str | None
    if_absent: bool
    attributes: Attributes = PLAIN


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """One HTTP request that its holder may send as it is, once and soon: signatures age.

    Args:
        method: Its method.
        origin: Scheme, host and port (`https://host:443`), without a slash at the end.
        target: Percent-encoded path and query.
        headers: Everything but `Host` and `Content-Length`. Holds a credential: never to be logged.
        proof: The body's checksum, as the store will verify it; empty without a body.
    """

    method: str
    origin: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A URL that lets its holder read one object for a while: a secret, never to be logged or recorded."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store answered. Header names are in lower case; `body` is empty where the content went elsewhere."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part of an object that the store has received and verified.

    Args:
        number: From 1.
        size_bytes: Its size.
        tag: What the store calls it.
        proof: Its checksum, as it was verified.
        digest: Its content digest.
    """

    number: int
    size_bytes: int
    tag: str
    proof: str
    digest: str


class Proof(Protocol):
    """A checksum of the kind that a store verifies, computed piece by piece while the bytes pass."""

    def update(self, piece: memoryview, /) -> None:
        """Add the next bytes."""
        ...

    def text(self) -> str:
        """The checksum of all bytes so far, as the store's requests carry it."""
        ...


class Signing(Protocol):
    """What carries bytes between here and a store: requests that others may send, and what the answers to them say.

    Each call costs microseconds and no request.
    """

    def get(self, key: str, *, version: str, start: int, length: int | None) -> SignedRequest:
        """Read `length` bytes from `start` of exactly this version; the whole object when `length` is None."""
        ...

    def described(self, key: str, answer: Answer) -> Description | None:
        """What the answer to a `get` says to be kept with the object; None where only `Store.head` says all of it."""
        ...

    def proof(self) -> Proof:
        """A new checksum, for one body of a `put` or a `part`."""
        ...

    def put(self, write: Write, proof: str) -> SignedRequest:
        """Write a whole object under its conditions, with the checksum of its bytes, which the store verifies."""
        ...

    def written(self, write: Write, request: SignedRequest, answer: Answer) -> str:
        """The version that a successful `put` made. IntegrityError: the store says that it has other bytes."""
        ...

    def part(self, write: Write, upload_id: str, number: int, proof: str) -> SignedRequest:
        """Send a part, with the checksum of its bytes, which the store verifies."""
        ...

    def part_tag(self, request: SignedRequest, answer: Answer) -> str:
        """What the store calls a part that was sent. IntegrityError: the store says that it has other bytes."""
        ...


class Direct(Signing, Protocol):
    """What a store signs for others to send: the SDK's credentials and rules, without the SDK's pump.

    A store that can do this has an attribute `direct`; see `DirectStore`. Beside what `Signing` says, calls of the SDK.
    """

    most_parts: int

    def lent(self) -> Signing:
        """The same signatures as of now, for another process, which does not load the SDK for them.

        They can be pickled, hold a credential, and are good for some minutes: whoever lends them renews them.
        """
        ...

    def link(self, key: str, *, valid_s: int) -> Link:
        """Let whoever has the link read the object for `valid_s` seconds. Denied: these credentials cannot sign one."""
        ...

    def prepare(self, key: str) -> None:
        """Find out, before the first upload, what a `proof` should be; leaves nothing visible at the key."""
        ...

    def begin(self, write: Write) -> str:
        """Open an upload in parts; returns its id. Nothing is visible before `finish`."""
        ...

    def sent(self, write: Write, upload_id: str) -> Mapping[int, str] | None:
        """Number and tag of the parts that the store has; None when the upload is gone."""
        ...

    def finish(self, write: Write, upload_id: str, parts: Sequence[SentPart]) -> str:
        """Make the object visible, if its conditions hold and the whole has the parts' joint checksum; its version."""
        ...

    def abandon(self, write: Write, upload_id: str) -> None:
        """Give the upload up; returns silently if it is gone."""
        ...

    def sweep(self, key: str, but: Collection[str]) -> None:
        """Give up all uploads of exactly this key but these: some began, and the answer that named them was lost."""
        ...

    def refused(self, key: str, answer: Answer, *, writing: bool) -> LintasError:
        """The error that an unsuccessful answer means."""
        ...


@runtime_checkable
class DirectStore(Protocol):
    """A store whose requests others may send."""

    @property
    def direct(self) -> Direct: ...


class UploadNotes(Protocol):
    """Hears of the uploads in parts that a store's own `put`, or `copy`, begins and ends."""

    def asking(self, key: str) -> None:
        """It asks the service to begin one now: from here on there may be one whose id nobody has heard."""
        ...

    def begun(self, key: str, upload_id: str) -> None: ...
    def ended(self, key: str, upload_id: str) -> None:
        """It was finished or given up."""
        ...


@runtime_checkable
class NotingStore(Protocol):
    """A store whose `put` or `copy` makes uploads that stay, and cost, when the process is killed in the middle."""

    def noting(self, notes: UploadNotes) -> Store:
        """The same store, which tells of them."""
        ...


class ServerSideCopy(Protocol):
    """Objects that a store brings from another one by itself: no byte of them passes through this process.

    A store that can do this has an attribute `server_side`; see `ServerSideStore`.
    """

    def way(self, source: Store) -> Literal["server-side", "pull"] | None:
        """How objects come from there: copied inside one service, pulled from another one, or None. Asks neither."""
        ...

    def copy(self, source: Store, key: str, version: str, write: Write) -> ObjectInfo:
        """Make `write` of exactly this version of `key`, under its conditions; the new object with its checksums.

        It may become visible before anybody has compared its content: the caller does, by the checksums or by reading.
        PreconditionFailed: the source is no longer this version, or the write's conditions do not hold.
        """
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """What lies directly below a prefix.

    Args:
        objects: Objects whose keys hold no further slash.
        prefixes: What the other keys begin with, each up to and with its next slash.
    """

    objects: list[ObjectInfo]
    prefixes: list[str]


@runtime_checkable
class LevelledStore(Protocol):
    """A store that can tell what lies directly below a prefix without listing all that lies deeper."""

    def level(self, prefix: str, most: int) -> Level | None:
        """What lies directly below; None when there are more than `most` objects and prefixes.

        NotFound: no such bucket.
        """
        ...


@runtime_checkable
class ServerSideStore(Protocol):
    """A store that can bring objects by itself."""

    @property
    def server_side(self) -> ServerSideCopy: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a store's objects are, in words that another provider's service understands.

    Args:
        service: Which service keeps them.
        account: The account there, where buckets belong to one by name.
        elsewhere: Whether it is a stand-in at another address than the public one.
    """

    service: Literal["s3", "blob", "cloud-storage"]
    account: str = ""
    elsewhere: bool = False


@runtime_checkable
class OriginStore(Protocol):
    """A store that other providers' services can be told to fetch from."""

    @property
    def origin(self) -> Origin | None: ...


def origin_of(store: Store) -> Origin | None:
    """How another provider's service would name a store; None where it could not."""
    return store.origin if isinstance(store, OriginStore) else None


class PullJobs(Protocol):
    """A service of the destination that fetches many objects from another provider by one job, in minutes.

    It reads the source's latest versions. A store whose configuration allows it has one as `pull_jobs`; see
    `PullingStore`.
    """

    @property
    def takes_labels(self) -> bool:
        """Whether user metadata, tags and names in dispositions come along."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long a job may take, in seconds."""
        ...

    def closed(self, source: Store) -> str:
        """Why nothing comes from there by a job; empty where it does. Asks neither store."""
        ...

    def running(
        self, source: Store, keys: Sequence[str], root: str
    ) -> AbstractContextManager[Callable[[], str | None]]:
        """A job, from its start to its end, that brings exactly these objects to `root` and their whole key.

        Inside, call what it gives to learn how the job stands. None: it goes on. Empty: it ended well. Otherwise how it
        ended, in a few words. On leaving, however that comes about, the job is ended and nothing is left of it but
        the objects that it brought.

        Retryable: the job could not be ended: what may be left of it is named.
        """
        ...

    def end_left(self, root: str) -> None:
        """End what a process that was killed left of its job to `root`; returns silently when nothing is left of it.

        Retryable: as of `running`.
        """
        ...


@runtime_checkable
class PullingStore(Protocol):
    """A store that may have a service which pulls by jobs; None where the configuration does not allow it."""

    @property
    def pull_jobs(self) -> PullJobs | None: ...


class Journal(Protocol):
    """What earlier runs learnt about objects: the digest of this version of this key, kept durably."""

    def known(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int) -> str | None: ...

    def between(self, cloud: str, bucket: str, first: str, last: str) -> Iterator[tuple[str, str, int, str]]:
        """Key, version, size in bytes and digest of the keys from `first` to `last`, in any order."""
        ...

    def record(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int, digest: str) -> None: ...

    def record_all(self, rows: Sequence[tuple[str, str, str, str, int, str]]) -> None:
        """`record` for each of the rows at once."""
        ...


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload in parts that was begun: where, what it shall hold, and the parts that have arrived.

    Args:
        content: Digest, size and condition of the object; an upload is continued only for the same content.
    """

    key: str
    upload_id: str
    content: str
    parts: tuple[SentPart, ...]


class UploadJournal(Protocol):
    """The uploads in parts that are under way, kept durably, so that a killed move sends no finished part again."""

    def begun(self, cloud: str, bucket: str, key: str, upload_id: str, content: str) -> None: ...
    def part_sent(self, cloud: str, bucket: str, key: str, upload_id: str, part: SentPart) -> None: ...
    def ended(self, cloud: str, bucket: str, key: str, upload_id: str) -> None:
        """Forget the upload: it was finished or given up."""
        ...

    def open(self, cloud: str, bucket: str, prefix: str) -> list[OpenUpload]:
        """The uploads that were begun and not ended, of keys that start with `prefix`."""
        ...


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


class MirroringServer(Server, Protocol):
    """A server that can let a version see requests without answering them. Not every cloud has one."""

    def mirror(self, spec: EndpointSpec, percent: int) -> Endpoint:
        """Send a copy of so many percent of the endpoint's requests to this version too; nobody gets its answers.

        The same again changes nothing; 0 percent ends it. Returns at once, and so does each call that follows;
        `mirror_version` and `mirror_percent` of what is observed say when it has come about. NotFound: there is no
        endpoint of this name. Invalid: the provider mirrors no such percentage.
        """
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
