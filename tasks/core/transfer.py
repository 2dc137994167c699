"""Moving a dataset: copy what is missing under a verdict, verify, publish, and give a receipt.

Copying takes nothing but a `Cleared` for exactly this plan; the data goes first and the manifest last, so that a
reader who asks for the published manifest never sees half a dataset. Everything can be killed anywhere and run
again: what is already at the destination is known by the journal, the published manifest or its label, and is not
sent twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from tasks.core.arrow import compute, pa
from tasks.core.attributes import Attributes
from tasks.core.dataset import PUBLISHED_MANIFEST, DatasetURI
from tasks.core.errors import IntegrityError
from tasks.core.listing import listed_rows, published_manifest
from tasks.core.manifest import SCHEMA, Manifest, ManifestWriter
from tasks.core.plane import CopiedObject, Load, Plane, Route
from tasks.core.plane.stream import StreamPlane
from tasks.core.planning import Paths, Shard, TransferPlan
from tasks.core.retries import with_retries
from tasks.core.rows import Batch, aligned, batches_of, in_order

if TYPE_CHECKING:
    from tasks.core.ports import Journal, Store
    from tasks.core.privacy import Cleared, VerdictKey

_ATTEMPTS = 4
_BATCH_S = 0.25
"""How long what arrived may wait to be entered in the journal."""

_COPIED: Any = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("digest", pa.string()),
        ("version", pa.string()),
        ("verified_by", pa.string()),
        ("route", pa.string()),
    ]
)

Progress = Callable[[CopiedObject], None]


class Copied:
    """The objects that a move sent, in order of paths: counted, and iterated without being held."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.rows = in_order(batches, _COPIED)
        self.size_bytes = 0
        self.routes: frozenset[Route] = frozenset()
        for batch in self.rows:
            self.size_bytes += compute.sum(batch.column("size_bytes")).as_py()
            self.routes |= frozenset(compute.unique(batch.column("route")).to_pylist())

    @classmethod
    def of(cls, items: Iterable[CopiedObject]) -> Copied:
        """These objects, in any order."""
        return cls(batches_of(_COPIED, map(astuple, items)))

    @classmethod
    def joined(cls, parts: Iterable[Copied]) -> Copied:
        """The objects of all shards together."""
        return cls(batch for part in parts for batch in part.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[CopiedObject]:
        for batch in self.rows:
            yield from map(CopiedObject, *(batch.column(name).to_pylist() for name in _COPIED.names))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished move did. `digest` is the dataset's at the far end, equal to that of the plan's manifest.

    `route` is the way that the bytes took, which may differ from the plan's. `assumed` objects were there already
    and nobody has verified them: the user accepted size and time of modification.
    """

    source: DatasetURI
    destination: DatasetURI
    digest: str
    objects: int
    size_bytes: int
    copied: Copied
    removed: Paths
    assumed: int
    route: Route
    elapsed_s: float

    @property
    def bytes_sent(self) -> int:
        """Bytes that travelled in this run."""
        return self.copied.size_bytes


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
    """Carry out a plan as one piece of work: `carry` all of it, then `settle`.

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
    copied = carry(
        plan, list(plan.loads()), verdict, key, source, destination, journal, plane=plane, on_object=on_object
    )
    return settle(plan, copied, verdict, key, destination, started=started)


def carry(
    plan: TransferPlan | Shard,
    loads: Sequence[Load],
    verdict: Cleared,
    key: VerdictKey,
    source: Store,
    destination: Store,
    journal: Journal,
    *,
    plane: Plane | None = None,
    on_object: Progress | None = None,
) -> Copied:
    """Send some loads of a plan, or of a shard of it, under its verdict; see `copy` for the arguments and errors."""
    leaving = list(under_verdict(plan, loads, verdict, key))
    with Arrivals(journal, destination, on_object) as arrivals:
        # Also when nothing leaves: what an earlier run left at the destination is given up then.
        (plane or StreamPlane()).carry(leaving, source, destination, arrivals.add)
    return Copied.of(arrivals.all)


def under_verdict(
    plan: TransferPlan | Shard, loads: Iterable[Load], verdict: Cleared, key: VerdictKey
) -> Iterator[Load]:
    """A plan's loads as its verdict lets them leave. Whatever carries loads takes them from here.

    Raises:
        PolicyViolation: The verdict is not a valid clearance for exactly this plan; at once, before any load is taken.
    """
    key.require(verdict, manifest_digest=plan.manifest_digest, destination=plan.destination)
    return (replace(load, keeps_labels=verdict.keeps_labels) for load in loads)


def settle(
    plan: TransferPlan,
    copied: Copied,
    verdict: Cleared,
    key: VerdictKey,
    destination: Store,
    *,
    started: float,
    still_alone: Callable[[], None] = lambda: None,
) -> Receipt:
    """When all loads have arrived: remove, verify at the far end, publish the manifest, and give the receipt.

    Args:
        plan: The plan.
        copied: Everything that was sent for it.
        verdict, key, destination: As in `copy`.
        started: When the copy began, by `time.monotonic`.
        still_alone: Raises when another move has taken the destination over; asked before anything is removed and
            before the manifest is published.
    """
    key.require(verdict, manifest_digest=plan.manifest.digest, destination=plan.destination)
    still_alone()
    stop = threading.Event()
    for path in plan.remove:
        with_retries(partial(destination.delete, plan.destination.key(path)), _ATTEMPTS, stop)
    far = with_retries(lambda: _far_manifest(plan, copied, destination), _ATTEMPTS, stop)
    still_alone()
    with_retries(lambda: _publish(far, plan.destination, destination), _ATTEMPTS, stop)
    return Receipt(
        source=plan.source,
        destination=plan.destination,
        digest=far.digest,
        objects=len(far),
        size_bytes=far.size_bytes,
        copied=copied,
        removed=plan.remove,
        assumed=far.assumed,
        route=_route_taken(copied),
        elapsed_s=time.monotonic() - started,
    )


class Arrivals:
    """What has arrived; entered in the journal in batches.

    A killed run loses its last batch from the journal only: the objects are there, and their labels say what they are.
    """

    def __init__(self, journal: Journal, destination: Store, on_object: Progress | None) -> None:
        self.all: list[CopiedObject] = []
        self._journal, self._destination, self._on_object = journal, destination, on_object
        self._batch: list[tuple[str, str, str, str, int, str]] = []
        self._flushed = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Arrivals:
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


def _route_taken(copied: Copied) -> Route:
    if len(copied.routes) > 1:
        return "mixed"
    return next(iter(copied.routes)) if copied.routes else "nothing"


def _far_manifest(plan: TransferPlan, copied: Copied, destination: Store) -> Manifest:
    """What the destination holds now, by its own listing: every object at the size and version that was verified."""
    listed = listed_rows(destination, plan.destination)
    writer = ManifestWriter(plan.manifest.selection)
    strangers = 0
    for steps, sent, found in aligned(plan.steps, copied.rows, listed):
        if steps is None:
            strangers += len(found or ())
            continue
        wanted = steps.column("path")
        there = (found if found is not None else _nothing(listed.schema)).take(_places(wanted, found))
        new = (sent if sent is not None else _nothing(_COPIED)).take(_places(wanted, sent))
        kept = compute.if_else(
            compute.equal(steps.column("action"), "keep"), steps.column("there"), pa.scalar(None, pa.string())
        )
        version = compute.coalesce(new.column("version"), kept)
        right = compute.and_(
            compute.equal(there.column("version"), version),
            compute.equal(there.column("size_bytes"), steps.column("size_bytes")),
        )
        wrong = compute.index(compute.fill_null(right, False), value=False).as_py()
        if wrong >= 0:
            raise IntegrityError(
                f"'{wanted[wrong].as_py()}' at {plan.destination} is not what was written",
                "someone else writes there: run again",
            )
        strangers += len(found or ()) - len(steps)
        columns = {name: steps.column(name) for name in ("path", "size_bytes", "digest", "assumed")}
        columns |= {"version": version, "modified": there.column("modified")}
        writer.append(pa.record_batch([columns[name] for name in SCHEMA.names], schema=SCHEMA))
    if strangers:
        raise IntegrityError(
            f"{strangers} objects appeared at {plan.destination} during the move",
            "someone else writes there: run again",
        )
    return writer.done()


def _places(wanted: Any, batch: Batch | None) -> Any:
    """Where the wanted paths are in a batch; null for those that are not."""
    if batch is None:
        return pa.nulls(len(wanted), pa.int32())
    return compute.index_in(wanted, value_set=batch.column("path"))


def _nothing(schema: Any) -> Batch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _publish(far: Manifest, uri: DatasetURI, destination: Store) -> None:
    before = None
    for info in destination.list(uri.key(PUBLISHED_MANIFEST)):
        if info.key == uri.key(PUBLISHED_MANIFEST):
            before = info.version
    if before is not None and _already_published(far, uri, destination):
        return
    destination.put(
        uri.key(PUBLISHED_MANIFEST),
        far.to_jsonl(),
        size_bytes=sum(map(len, far.to_jsonl())),
        attributes=Attributes(content_type="application/jsonl"),
        if_version=before,
        if_absent=before is None,
    )


def _already_published(far: Manifest, uri: DatasetURI, destination: Store) -> bool:
    try:
        there = published_manifest(destination, uri)
    except IntegrityError:
        return False
    return there is not None and _same_bytes(there.to_jsonl(), far.to_jsonl())


def _same_bytes(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    return _digest(one) == _digest(other)


def _digest(pieces: Iterable[bytes]) -> bytes:
    whole = blake3()
    for piece in pieces:
        whole.update(piece)
    return whole.digest()
