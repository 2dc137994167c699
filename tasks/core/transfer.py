"""Moving a dataset: plan it, copy what is missing under a verdict, verify, publish, and give a receipt.

Planning is pure. Copying takes nothing but a `Cleared` for exactly this plan; the data goes first and the manifest
last, so that a reader who asks for the published manifest never sees half a dataset. Everything can be killed
anywhere and run again: what is already at the destination is known by the journal, the published manifest or its
label, and is not sent twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from tasks.core.dataset import (
    CHUNK_BYTES,
    DIGEST_METADATA,
    PUBLISHED_MANIFEST,
    ContentHasher,
    DatasetURI,
    Entry,
    Manifest,
    content_digest,
    list_objects,
    published_manifest,
)
from tasks.core.errors import IntegrityError, Invalid, NotFound, Retryable

if TYPE_CHECKING:
    from tasks.core.ports import Journal, Store
    from tasks.core.privacy import Cleared, VerdictKey

T = TypeVar("T")
R = TypeVar("R")

GIB = 1024**3
Route = Literal["nothing", "stream"]


@dataclass(frozen=True, slots=True)
class TransferPrices:
    """What a cloud pair charges: USD per GiB that leaves the source; None when nobody knows."""

    egress_usd_per_gib: float | None = 0.0


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """What must happen at the destination so that it holds `manifest`.

    Args:
        source, destination: From where to where.
        manifest: What the destination will hold; the privacy gate's verdict must be about its digest.
        add: Entries that the destination does not have.
        replace: Entries that it has with other content, with the version they must still have when replaced.
        remove: Paths that only the destination has.
        keep: Entries that are there already, byte for byte, with the version they have there.
        route: `nothing` when there is nothing to send, otherwise `stream` (through this worker).
        cost_usd: Estimated cost of egress; None when the price is unknown.
    """

    source: DatasetURI
    destination: DatasetURI
    manifest: Manifest
    add: tuple[Entry, ...]
    replace: tuple[tuple[Entry, str], ...]
    remove: tuple[str, ...]
    keep: tuple[Entry, ...]
    route: Route
    cost_usd: float | None

    @property
    def to_send(self) -> tuple[Entry, ...]:
        """Every entry whose bytes must travel."""
        return self.add + tuple(entry for entry, _ in self.replace)

    @property
    def bytes_to_send(self) -> int:
        """How many bytes must travel."""
        return sum(entry.size_bytes for entry in self.to_send)


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """One object of a receipt: what it is, how it was verified, and the version it has at the far end."""

    path: str
    size_bytes: int
    digest: str
    version: str
    verified_by: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished move did. `digest` is the dataset's at the far end, equal to that of the plan's manifest."""

    source: DatasetURI
    destination: DatasetURI
    digest: str
    objects: int
    size_bytes: int
    copied: tuple[CopiedObject, ...]
    removed: tuple[str, ...]
    route: Route
    elapsed_s: float

    @property
    def bytes_sent(self) -> int:
        """Bytes that travelled in this run."""
        return sum(item.size_bytes for item in self.copied)


def plan_transfer(
    source: DatasetURI,
    manifest: Manifest,
    destination: DatasetURI,
    present: Manifest,
    *,
    prices: TransferPrices | None = None,
    delete: bool = False,
) -> TransferPlan:
    """Compare what should be at the destination with what is there. Moves nothing.

    Args:
        source: Where the bytes of `manifest` are.
        manifest: What the destination should hold.
        destination: Where to.
        present: What the destination holds now.
        prices: For the estimate of cost; None for free.
        delete: Whether objects that only the destination has may be removed.

    Raises:
        Invalid: Source and destination are one, one lies inside the other, the source is empty, or the destination
            holds other objects and `delete` was not chosen.
    """
    if source.cloud == destination.cloud and source.bucket == destination.bucket:
        inner, outer = sorted((source.key_prefix, destination.key_prefix), key=len, reverse=True)
        if inner.startswith(outer):
            raise Invalid(f"{source} and {destination} overlap", "choose a destination outside the source")
    if not len(manifest):
        raise Invalid(f"{source} holds no objects", "check the bucket and the prefix")
    there = present.by_path()
    wanted = manifest.by_path()
    remove = tuple(sorted(path for path in there if path not in wanted))
    if remove and not delete:
        raise Invalid(
            f"{destination} holds {len(remove)} objects that {source} does not (first: '{remove[0]}')",
            "choose an empty prefix, or pass --delete to remove them",
        )
    add = tuple(entry for entry in manifest if entry.path not in there)
    replace = tuple(
        (entry, there[entry.path].version) for entry in manifest if entry.path in there and there[entry.path] != entry
    )
    sent_bytes = sum(entry.size_bytes for entry in add) + sum(entry.size_bytes for entry, _ in replace)
    usd_per_gib = (prices or TransferPrices()).egress_usd_per_gib
    cost_usd = None if usd_per_gib is None else sent_bytes / GIB * usd_per_gib
    return TransferPlan(
        source=source,
        destination=destination,
        manifest=manifest,
        add=add,
        replace=replace,
        remove=remove,
        keep=tuple(there[entry.path] for entry in manifest if there.get(entry.path) == entry),
        route="stream" if add or replace else "nothing",
        cost_usd=cost_usd,
    )


class Plane(Protocol):
    """Carries the bytes of one object. The first plane pumps through the official SDKs of both sides; a faster one
    takes requests that the SDKs have signed and needs no other change in this module.
    """

    def carry(
        self, entry: Entry, source: Store, source_key: str, destination: Store, key: str, *, replaces: str | None
    ) -> CopiedObject:
        """Copy one object and verify it on the way.

        Args:
            entry: What the object must be; its `version` pins the source's content.
            source, source_key: Where it is.
            destination, key: Where it goes.
            replaces: The version that the destination's object must still have, or None when there must be none.

        Raises:
            IntegrityError: The bytes read are not those of `entry`; nothing became visible.
            PreconditionFailed: The source or the destination changed since planning.
        """
        ...


class StreamPlane:
    """Streams through this process over both SDKs, a few 8 MiB pieces of each object in memory at a time."""

    def carry(
        self, entry: Entry, source: Store, source_key: str, destination: Store, key: str, *, replaces: str | None
    ) -> CopiedObject:
        """See `Plane.carry`. The digest is computed on the bytes as they pass, before the object becomes visible."""

        def checked() -> Iterator[bytes]:
            hasher = ContentHasher()
            for piece in source.get(source_key, version=entry.version or None):
                hasher.update(piece)
                yield piece
            if (hasher.hexdigest(), hasher.size_bytes) != (entry.digest, entry.size_bytes):
                raise IntegrityError(
                    f"'{entry.path}' did not arrive from {source.cloud} as its manifest says",
                    "the source is damaged or changes while it is read: check it, then run the move again",
                )

        written = destination.put(
            key,
            checked(),
            size_bytes=entry.size_bytes,
            metadata={DIGEST_METADATA: entry.digest},
            if_version=replaces,
            if_absent=replaces is None,
        )
        verified_by = f"blake3 on the way, {destination.cloud}'s own checksum on arrival"
        return CopiedObject(entry.path, entry.size_bytes, entry.digest, written.version, verified_by)


Progress = Callable[[CopiedObject], None]


def copy(
    plan: TransferPlan,
    verdict: Cleared,
    key: VerdictKey,
    source: Store,
    destination: Store,
    journal: Journal,
    *,
    plane: Plane | None = None,
    in_flight: int = 8,
    attempts: int = 4,
    on_object: Progress | None = None,
) -> Receipt:
    """Carry out a plan: send, remove, verify at the far end, publish the manifest, and give the receipt.

    Args:
        plan: From `plan_transfer`.
        verdict: The gate's clearance for this plan's manifest and destination.
        key: The key that verdicts are signed with; a verdict that does not verify is refused before any byte moves.
        source, destination: The stores of the two buckets.
        journal: Where each finished object is entered, so that a killed run continues after it.
        plane: What carries the bytes; `StreamPlane` unless told.
        in_flight: How many objects travel at the same time.
        attempts: How often one object is tried when the store answers `Retryable`.
        on_object: Called after each object, from several threads.

    Raises:
        PolicyViolation: The verdict is not a valid clearance for exactly this plan. Nothing was moved.
        IntegrityError: Wrong bytes; what was verified before stays, the manifest is not published.
        PreconditionFailed: Source or destination changed since planning; plan again.
    """
    started = time.monotonic()
    key.require(verdict, manifest_digest=plan.manifest.digest, destination=plan.destination)
    carrier = plane or StreamPlane()
    stop = threading.Event()

    def carry(item: tuple[Entry, str | None]) -> CopiedObject:
        entry, replaces = item
        far_key = plan.destination.key(entry.path)
        copied = _with_retries(
            lambda: carrier.carry(entry, source, plan.source.key(entry.path), destination, far_key, replaces=replaces),
            attempts,
            stop,
        )
        journal.record(destination.cloud, destination.bucket, far_key, copied.version, copied.size_bytes, copied.digest)
        if on_object is not None:
            on_object(copied)
        return copied

    work = [(entry, None) for entry in plan.add] + list(plan.replace)
    copied = _in_parallel(carry, work, in_flight, stop)
    for path in plan.remove:
        destination.delete(plan.destination.key(path))
    far = _far_manifest(plan, copied, destination)
    _publish(far, plan.destination, destination)
    return Receipt(
        source=plan.source,
        destination=plan.destination,
        digest=far.digest,
        objects=len(far),
        size_bytes=far.size_bytes,
        copied=tuple(sorted(copied, key=lambda item: item.path)),
        removed=plan.remove,
        route=plan.route,
        elapsed_s=time.monotonic() - started,
    )


def _in_parallel(work: Callable[[T], R], items: list[T], in_flight: int, stop: threading.Event) -> list[R]:
    """Run `work` over the items, at most `in_flight` at a time; the first failure stops the rest and is raised."""
    results: list[R] = []
    waiting = iter(items)
    with ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="carry") as pool:
        running: set[Future[R]] = {pool.submit(work, item) for item in islice(waiting, in_flight)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                results += [future.result() for future in done]
                running |= {pool.submit(work, item) for item in islice(waiting, len(done))}
        except BaseException:
            stop.set()
            raise
    return results


def _with_retries(call: Callable[[], R], attempts: int, stop: threading.Event) -> R:
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Retryable as error:
            pause_s = error.retry_after_s if error.retry_after_s is not None else 0.2 * 2**attempt
            if attempt == attempts or stop.wait(pause_s):
                raise
    raise AssertionError("unreachable: attempts is at least 1")


def _far_manifest(plan: TransferPlan, copied: list[CopiedObject], destination: Store) -> Manifest:
    """What the destination holds now, by its own listing: every object at the size and version that was verified."""
    versions = {entry.path: entry.version for entry in plan.keep} | {item.path: item.version for item in copied}
    listed = {plan.destination.path(info.key): info for info in list_objects(destination, plan.destination)}
    entries: list[Entry] = []
    for entry in plan.manifest:
        info = listed.pop(entry.path, None)
        if info is None or info.size_bytes != entry.size_bytes or info.version != versions[entry.path]:
            raise IntegrityError(
                f"'{entry.path}' at {plan.destination} is not what was written", "someone else writes there: run again"
            )
        entries.append(Entry(entry.path, entry.size_bytes, entry.digest, info.version))
    if listed:
        raise IntegrityError(
            f"{len(listed)} objects appeared at {plan.destination} during the move",
            "someone else writes there: run again",
        )
    return Manifest.of(entries)


def _publish(far: Manifest, uri: DatasetURI, destination: Store) -> None:
    before = None
    for info in destination.list(uri.key(PUBLISHED_MANIFEST)):
        before = info.version
    if before is not None and _already_published(far, uri, destination):
        return
    text = far.to_jsonl()
    destination.put(
        uri.key(PUBLISHED_MANIFEST),
        [text],
        size_bytes=len(text),
        content_type="application/jsonl",
        if_version=before,
        if_absent=before is None,
    )


def _already_published(far: Manifest, uri: DatasetURI, destination: Store) -> bool:
    try:
        there = published_manifest(destination, uri)
    except IntegrityError:
        return False
    return there is not None and there.to_jsonl() == far.to_jsonl()


def fetch(
    store: Store, uri: DatasetURI, manifest: Manifest, into: Path, *, under: str = "", in_flight: int = 8
) -> Path:
    """Bring objects of a dataset to a local directory, each verified against the manifest before it is visible.

    Args:
        store: The store that holds the dataset.
        uri: The dataset.
        manifest: What it must hold; objects that are in `into` already with this content are not read again.
        into: Local directory; created when absent. Paths below it are the dataset's own.
        under: Only objects whose path starts with this.
        in_flight: How many objects travel at the same time.

    Raises:
        IntegrityError: An object is not what the manifest says.
        NotFound: No object lies under `under`.
        Invalid: A path would lead out of `into`.
    """
    wanted = [entry for entry in manifest if entry.path.startswith(under)]
    if not wanted:
        raise NotFound(f"{uri} holds nothing under '{under}'", "check the dataset and the path in the training spec")
    root = into.resolve()

    def bring(entry: Entry) -> None:
        target = (root / entry.path).resolve()
        if not target.is_relative_to(root):
            raise Invalid(f"'{entry.path}' of {uri} leads out of its directory", "rename the object")
        if target.is_file() and target.stat().st_size == entry.size_bytes and _file_digest(target) == entry.digest:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        hasher = ContentHasher()
        with partial.open("wb") as file:
            for piece in store.get(uri.key(entry.path), version=entry.version or None):
                hasher.update(piece)
                file.write(piece)
        if hasher.hexdigest() != entry.digest:
            partial.unlink()
            raise IntegrityError(f"'{entry.path}' of {uri} is not what its manifest says", "run the move again")
        partial.replace(target)

    stop = threading.Event()
    _in_parallel(lambda entry: _with_retries(lambda: bring(entry), 4, stop), wanted, in_flight, stop)
    return into


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return content_digest(iter(lambda: file.read(CHUNK_BYTES), b""))[0]
