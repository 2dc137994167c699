"""Planes: what carries the bytes of a move from one store to another, verified on the way.

`stream` pumps through the official SDKs of both sides and works between any two stores. `direct` sends requests that
the SDKs have signed over connections of its own. `tasks.core.transfer.copy` asks a plane for nothing but what stands
on this page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from tasks.core.attributes import Description
from tasks.core.dataset import DIGEST_METADATA, Entry
from tasks.core.errors import IntegrityError, LintasError, NotFound, PreconditionFailed
from tasks.core.ports import Write

if TYPE_CHECKING:
    from tasks.core.ports import ObjectInfo, Store, UploadJournal

Route = Literal["nothing", "stream", "direct", "server-side", "pull", "mixed"]
"""`stream`: through both SDKs. `direct`: signed requests over our own connections. `server-side`: copied inside one
service by itself. `pull`: fetched by the destination's service from the source's. `mixed`: some of each."""


@dataclass(frozen=True, slots=True)
class Load:
    """One object to be carried.

    Args:
        entry: What the object must be; its `version` pins the source's content.
        source_key: Where it is.
        key: Where it goes.
        replaces: The version that the destination's object must still have, or None when there must be none.
        keeps_labels: Whether user metadata, tags and the name in a disposition go along.
    """

    entry: Entry
    source_key: str
    key: str
    replaces: str | None
    keeps_labels: bool = True


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """One object of a receipt: what it is, how it was verified, the version at the far end, and the way it took."""

    path: str
    size_bytes: int
    digest: str
    version: str
    verified_by: str
    route: Route


Arrived = Callable[[Load, CopiedObject], None]


@dataclass(slots=True)
class Recipient:
    """A destination, and what shall be carried to it.

    Args:
        store: Where it is.
        loads: What it lacks.
        arrived: Called after each of its objects, from several threads.
        uploads: Where its uploads in parts are kept, so that a killed move continues them; None: they are given up
            when it fails.
        key_prefix: What the keys of its dataset start with; uploads of other moves below it, which nobody will
            finish, are given up.
        failure: Why it was left out, once it was.
    """

    store: Store
    loads: Iterable[Load]
    arrived: Arrived
    uploads: UploadJournal | None = None
    key_prefix: str = ""
    failure: LintasError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def leave_out(self, error: LintasError) -> None:
        """Send it nothing more; the first reason counts."""
        with self._lock:
            self.failure = self.failure or error


class Plane(Protocol):
    """Carries objects."""

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """Copy the objects and verify each on the way: it becomes visible with the right content, or not at all.

        Args:
            loads: What to carry; in any order.
            source, destination: The stores of the two buckets.
            arrived: Called after each object, from several threads.

        Raises:
            IntegrityError: The bytes read are not those of the entry; the object did not become visible.
            PreconditionFailed: The source or the destination changed since planning.
            Retryable: A store did not answer, after several attempts. What arrived before stays.
        """
        ...


def copied(load: Load, version: str, verified_by: str, route: Route) -> CopiedObject:
    """The receipt's line for a load that arrived as `version`."""
    entry = load.entry
    return CopiedObject(entry.path, entry.size_bytes, entry.digest, version, verified_by, route)


def wrong_bytes(entry: Entry, source: Store) -> IntegrityError:
    """What was read is not what the manifest says."""
    return IntegrityError(
        f"'{entry.path}' did not arrive from {source.cloud} as its manifest says",
        "the source is damaged or changes while it is read: check it, then run the move again",
    )


def described(load: Load, source: Store) -> Description:
    """What is kept with a load's object at the source. Raises `PreconditionFailed` when it changed since planning."""
    info = described_at(load, source)
    return Description(info.metadata, info.attributes)


def described_at(load: Load, source: Store) -> ObjectInfo:
    """A load's object as its source describes it. Raises `PreconditionFailed` when it changed since planning."""
    info = source.head(load.source_key)
    if load.entry.version not in ("", info.version):
        raise PreconditionFailed(
            f"'{load.entry.path}' on {source.cloud} is not what it was when it was planned", "run the move again"
        )
    return info


def write_of(load: Load, kept: Description, *, labelled: bool = True) -> Write:
    """What the destination shall write for a load.

    Args:
        load: The object.
        kept: What is kept with it at the source.
        labelled: Whether the content is verified before it becomes visible, so that the label may say what it is.
    """
    entry, kept = load.entry, kept if load.keeps_labels else kept.without_labels()
    metadata = {**kept.metadata, **({DIGEST_METADATA: entry.digest} if labelled else {})}
    return Write(load.key, entry.size_bytes, metadata, load.replaces, load.replaces is None, kept.attributes)


def own_write(load: Load, destination: Store) -> str | None:
    """The version of what is at the destination, if that is this very load; None otherwise.

    A conditional write whose answer was lost meets its own result when it is tried again. The label tells: Lintas
    writes it only under a verified upload.
    """
    try:
        there = destination.head(load.key)
    except NotFound:
        return None
    same = (there.metadata.get(DIGEST_METADATA), there.size_bytes) == (load.entry.digest, load.entry.size_bytes)
    return there.version if same and there.version != load.replaces else None


def stored(load: Load, write: Write, body: Iterable[bytes], destination: Store) -> str:
    """Write a load through the destination's own SDK; the version that was made.

    A write whose answer was lost and that was tried again meets its own result, which counts.

    Raises:
        PreconditionFailed: The destination changed since planning.
    """
    try:
        return destination.put(
            write.key,
            body,
            size_bytes=write.size_bytes,
            metadata=write.metadata,
            attributes=write.attributes,
            if_version=write.if_version,
            if_absent=write.if_absent,
        ).version
    except PreconditionFailed:
        settled = own_write(load, destination)
        if settled is None:
            raise
        return settled
