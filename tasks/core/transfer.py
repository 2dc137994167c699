"""Moving a dataset: plan it, copy what is missing under a verdict, verify, publish, and give a receipt.

Planning is pure. Copying takes nothing but a `Cleared` for exactly this plan; the data goes first and the manifest
last, so that a reader who asks for the published manifest never sees half a dataset. Everything can be killed
anywhere and run again: what is already at the destination is known by the journal, the published manifest or its
label, and is not sent twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.attributes import Attributes
from tasks.core.dataset import CHUNK_BYTES, PUBLISHED_MANIFEST, ContentHasher, DatasetURI, Entry, content_digest
from tasks.core.errors import IntegrityError, Invalid, NotFound
from tasks.core.listing import list_objects, published_manifest
from tasks.core.manifest import Manifest
from tasks.core.plane import CopiedObject, Load, Plane, Route
from tasks.core.plane.stream import StreamPlane
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import Journal, Store
    from tasks.core.privacy import Cleared, VerdictKey

GIB = 1024**3
_ATTEMPTS = 4
_BATCH_S = 0.25
"""How long what arrived may wait to be entered in the journal."""


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
        route: `nothing` when there is nothing to send, otherwise the way that the bytes shall take.
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
class Receipt:
    """What a finished move did. `digest` is the dataset's at the far end, equal to that of the plan's manifest.

    `route` is the way that the bytes took, which may differ from the plan's.
    """

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
    route: Route = "stream",
) -> TransferPlan:
    """Compare what should be at the destination with what is there. Moves nothing.

    Args:
        source: Where the bytes of `manifest` are.
        manifest: What the destination should hold.
        destination: Where to.
        present: What the destination holds now.
        prices: For the estimate of cost; None for free.
        delete: Whether objects that only the destination has may be removed.
        route: The way between the two stores; see `tasks.core.plane.routes.route_between`.

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
        route=route if add or replace else "nothing",
        cost_usd=cost_usd,
    )


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
        on_object: Called after each object, from several threads.

    Raises:
        PolicyViolation: The verdict is not a valid clearance for exactly this plan. Nothing was moved.
        IntegrityError: Wrong bytes; what was verified before stays, the manifest is not published.
        PreconditionFailed: Source or destination changed since planning; plan again.
    """
    started = time.monotonic()
    key.require(verdict, manifest_digest=plan.manifest.digest, destination=plan.destination)
    loads = _loads(plan)
    with _Arrivals(journal, destination, on_object) as arrivals:
        if loads:
            (plane or StreamPlane()).carry(loads, source, destination, arrivals.add)
    done = arrivals.all
    stop = threading.Event()
    for path in plan.remove:
        with_retries(partial(destination.delete, plan.destination.key(path)), _ATTEMPTS, stop)
    far = with_retries(lambda: _far_manifest(plan, done, destination), _ATTEMPTS, stop)
    with_retries(lambda: _publish(far, plan.destination, destination), _ATTEMPTS, stop)
    return Receipt(
        source=plan.source,
        destination=plan.destination,
        digest=far.digest,
        objects=len(far),
        size_bytes=far.size_bytes,
        copied=tuple(sorted(done, key=lambda item: item.path)),
        removed=plan.remove,
        route=_route_taken(done),
        elapsed_s=time.monotonic() - started,
    )


class _Arrivals:
    """What has arrived; entered in the journal in batches.

    A killed run loses its last batch from the journal only: the objects are there, and their labels say what they are.
    """

    def __init__(self, journal: Journal, destination: Store, on_object: Progress | None) -> None:
        self.all: list[CopiedObject] = []
        self._journal, self._destination, self._on_object = journal, destination, on_object
        self._batch: list[tuple[str, str, str, str, int, str]] = []
        self._flushed = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> _Arrivals:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush(self._batch)

    def add(self, load: Load, item: CopiedObject) -> None:
        """Note an object."""
        place = (self._destination.cloud, self._destination.bucket)
        with self._lock:
            self.all.append(item)
            self._batch.append((*place, load.key, item.version, item.size_bytes, item.digest))
            now = time.monotonic()
            due = now - self._flushed > _BATCH_S
            batch = self._batch if due else []
            if due:
                self._batch, self._flushed = [], now
        self._flush(batch)
        if self._on_object is not None:
            self._on_object(item)

    def _flush(self, batch: list[tuple[str, str, str, str, int, str]]) -> None:
        if batch:
            self._journal.record_all(batch)


def _loads(plan: TransferPlan) -> list[Load]:
    work: list[tuple[Entry, str | None]] = [(entry, None) for entry in plan.add]
    work += plan.replace
    source, destination = plan.source, plan.destination
    return [Load(entry, source.key(entry.path), destination.key(entry.path), replaces) for entry, replaces in work]


def _route_taken(done: list[CopiedObject]) -> Route:
    routes: set[Route] = {item.route for item in done}
    if len(routes) > 1:
        return "mixed"
    return routes.pop() if routes else "nothing"


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
        attributes=Attributes(content_type="application/jsonl"),
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
    in_parallel(lambda entry: with_retries(lambda: bring(entry), _ATTEMPTS, stop), wanted, in_flight, stop)
    return into


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return content_digest(iter(lambda: file.read(CHUNK_BYTES), b""))[0]
