"""Planning a move: what must happen at the destination so that it holds a manifest. Pure: planning moves nothing.

A plan of a million objects is columns, as manifests are: its parts are counted, and iterated without being held.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tasks.core.arrow import compute, pa
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.errors import Invalid
from tasks.core.manifest import SCHEMA, Manifest
from tasks.core.plane import Load, Route
from tasks.core.rows import Batch, Rows, aligned

GIB = 1024**3

SHARD_OBJECTS = 20_000
SHARD_BYTES = 64 * GIB
"""A shard is a task run: worth some seconds to some minutes."""

STEPS: Any = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("digest", pa.string()),
        ("version", pa.string()),
        ("assumed", pa.bool_()),
        ("there", pa.string()),
        ("action", pa.string()),
    ]
)
"""An entry of the manifest, the version that the destination has of its path (null: none), and what to do."""

_EXTRA: Any = pa.schema([("path", pa.string()), ("size_bytes", pa.int64())])


@dataclass(frozen=True, slots=True)
class TransferPrices:
    """What a cloud pair charges, in USD; None when nobody knows.

    Args:
        egress_usd_per_gib: For each GiB that leaves the source.
        read_usd_per_1000: For 1,000 requests that read from the source.
        source_list_usd_per_1000: For 1,000 requests that list the source.
        write_usd_per_1000: For 1,000 requests that write to the destination or list it.
    """

    egress_usd_per_gib: float | None = 0.0
    read_usd_per_1000: float | None = 0.0
    source_list_usd_per_1000: float | None = 0.0
    write_usd_per_1000: float | None = 0.0


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """How many objects a move may remove: a number, or a share of what the destination holds.

    >>> DeleteLimit.parse("10%").allows(10, of=100), DeleteLimit.parse("10%").allows(11, of=100)
    (True, False)
    >>> DeleteLimit.parse("3").allows(4, of=1000)
    False
    """

    objects: int | None = None
    share: float = 0.1

    @classmethod
    def parse(cls, text: str) -> DeleteLimit:
        """Read `250` or `12.5%`. Raises `Invalid` when it is neither."""
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)\s*%", text.strip())
        if match is None or float(match.group(2) or 0) > 100:
            raise Invalid(f"'{text}' is no limit of removals", "write a number of objects, or a share such as 10%")
        return cls(objects=int(match.group(1))) if match.group(1) else cls(share=float(match.group(2)) / 100)

    def allows(self, removed: int, *, of: int) -> bool:
        """Whether so many of the destination's objects may be removed. A share allows one object at least."""
        return removed <= (math.ceil(self.share * of) if self.objects is None else self.objects)

    def __str__(self) -> str:
        return f"{self.share:.4g}" if self.objects is None else str(self.objects)


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of a plan, with the version that the destination has of it or None."""

    entry: Entry
    there: str | None


class Steps:
    """The steps of one action: counted, and iterated in order of paths from the plan's rows."""

    def __init__(self, rows: Rows, action: str, objects: int, size_bytes: int) -> None:
        self._rows, self._action, self._objects = rows, action, objects
        self.size_bytes = size_bytes

    def __len__(self) -> int:
        return self._objects

    def __iter__(self) -> Iterator[Step]:
        if not len(self):
            return
        for batch in self._rows:
            yield from steps_of(batch.filter(compute.equal(batch.column("action"), self._action)))


class Paths:
    """Paths that only the destination has, in order."""

    def __init__(self, rows: Rows, size_bytes: int) -> None:
        self._rows = rows
        self.size_bytes = size_bytes

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        for batch in self._rows:
            yield from batch.column("path").to_pylist()


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of a plan that is carried as one piece of work, and says all that another machine must know of it.

    Args:
        source, destination, manifest_digest, route: Those of the plan.
        number: From 1.
        loads: Its objects.
        after, last: Everything at the destination beyond the key `after` up to the key `last` is this shard's matter.
            The first shard has no beginning and the last one no end (None).
    """

    source: DatasetURI
    destination: DatasetURI
    manifest_digest: str
    route: Route
    number: int
    loads: tuple[Load, ...]
    after: str | None
    last: str | None

    @property
    def size_bytes(self) -> int:
        """How many bytes it carries."""
        return sum(load.entry.size_bytes for load in self.loads)

    def owns(self, key: str) -> bool:
        """Whether a key of the destination is this shard's matter."""
        return (self.after is None or key > self.after) and (self.last is None or key <= self.last)


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """What must happen at the destination so that it holds `manifest`.

    Args:
        source, destination: From where to where.
        manifest: What the destination will hold; the privacy gate's verdict must be about its digest.
        steps: Every entry of the manifest with what to do about it (`STEPS`).
        add: Entries that the destination does not have.
        replace: Entries that it has with other content; they must still have that version when they are replaced.
        remove: Paths that only the destination has.
        keep: Entries that are there already, byte for byte.
        assumed: How many of `keep` are taken for the same by size and time alone, as the user chose.
        route: `nothing` when there is nothing to send, otherwise the way that the bytes shall take.
        cost_usd: Estimated cost of egress; None when the price is unknown.
    """

    source: DatasetURI
    destination: DatasetURI
    manifest: Manifest
    steps: Rows
    add: Steps
    replace: Steps
    remove: Paths
    keep: Steps
    assumed: int
    route: Route
    cost_usd: float | None

    @property
    def manifest_digest(self) -> str:
        """What the gate's verdict must be about."""
        return self.manifest.digest

    @property
    def objects_to_send(self) -> int:
        """How many objects must travel."""
        return len(self.add) + len(self.replace)

    @property
    def bytes_to_send(self) -> int:
        """How many bytes must travel."""
        return self.add.size_bytes + self.replace.size_bytes

    def loads(self) -> Iterator[Load]:
        """Every object whose bytes must travel, in order of paths."""
        if not self.objects_to_send:
            return
        for batch in self.steps:
            for step in steps_of(batch.filter(compute.not_equal(batch.column("action"), "keep"))):
                path = step.entry.path
                yield Load(step.entry, self.source.key(path), self.destination.key(path), step.there)

    def shards(self, most_objects: int = SHARD_OBJECTS, most_bytes: int = SHARD_BYTES) -> Iterator[Shard]:
        """The loads in stretches of so many objects or bytes; a larger object is a stretch of its own."""
        shard = partial(Shard, self.source, self.destination, self.manifest_digest, self.route)
        held: list[Load] = []
        size_bytes, number = 0, 1
        after: str | None = None
        for load in self.loads():
            if held and (len(held) == most_objects or size_bytes + load.entry.size_bytes > most_bytes):
                yield shard(number, tuple(held), after, held[-1].key)
                number, after = number + 1, held[-1].key
                held, size_bytes = [], 0
            held.append(load)
            size_bytes += load.entry.size_bytes
        if held:
            yield shard(number, tuple(held), after, None)


def require_objects(source: DatasetURI, manifest: Manifest) -> None:
    """Insist that a dataset is not empty, so that nothing is cleared by a mistyped prefix. Raises `Invalid`."""
    if not len(manifest):
        raise Invalid(
            f"{source} holds no objects",
            "check the bucket, the prefix (one object is named by --include, not by the prefix) and the patterns",
        )


def plan_transfer(
    source: DatasetURI,
    manifest: Manifest,
    destination: DatasetURI,
    present: Manifest,
    *,
    prices: TransferPrices | None = None,
    delete: bool = False,
    delete_limit: DeleteLimit | None = None,
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
        delete_limit: How many of them; a tenth of what is there unless told.
        route: The way between the two stores; see `tasks.core.plane.routes.route_between`.

    Raises:
        Invalid: Source and destination are one, one lies inside the other, the source is empty, or the destination
            holds other objects and `delete` was not chosen or its limit is exceeded.
    """
    require_apart(source, destination)
    require_objects(source, manifest)
    steps, extra = Rows(STEPS), Rows(_EXTRA)
    counts: dict[str, tuple[int, int]] = {}
    assumed = 0
    for wanted, there in aligned(manifest.rows, present.rows):
        if there is not None:
            only_there = there if wanted is None else _without(there, wanted)
            extra.append(only_there.select(_EXTRA.names))
            _count(counts, "remove", only_there)
        if wanted is not None:
            compared = _compared(wanted, there)
            steps.append(compared)
            for action in ("add", "replace", "keep"):
                of_action = compared.filter(compute.equal(compared.column("action"), action))
                _count(counts, action, of_action)
                assumed += (compute.sum(of_action.column("assumed")).as_py() or 0) if action == "keep" else 0
    add, replace, keep = (Steps(steps, each, *counts.get(each, (0, 0))) for each in ("add", "replace", "keep"))
    remove = Paths(extra, counts.get("remove", (0, 0))[1])
    _require_removable(source, destination, remove, len(present), delete, delete_limit or DeleteLimit())
    usd_per_gib = (prices or TransferPrices()).egress_usd_per_gib
    sent_bytes = add.size_bytes + replace.size_bytes
    return TransferPlan(
        source=source,
        destination=destination,
        manifest=manifest,
        steps=steps,
        add=add,
        replace=replace,
        remove=remove,
        keep=keep,
        assumed=assumed,
        route=route if len(add) or len(replace) else "nothing",
        cost_usd=None if usd_per_gib is None else sent_bytes / GIB * usd_per_gib,
    )


def require_apart(source: DatasetURI, destination: DatasetURI) -> None:
    """Insist that neither dataset lies inside the other. Raises `Invalid` otherwise."""
    if (source.cloud, source.bucket) == (destination.cloud, destination.bucket):
        inner, outer = sorted((source.key_prefix, destination.key_prefix), key=len, reverse=True)
        if inner.startswith(outer):
            raise Invalid(f"{source} and {destination} overlap", "choose a destination outside the source")


def differences(stated: Manifest, found: Manifest) -> str:
    """What is other than it was stated: how many objects of each kind, and the first of all."""
    counts = {"missing": 0, "new": 0, "with other content": 0}
    first = ""
    nothing: Batch = pa.RecordBatch.from_pylist([], schema=SCHEMA)
    for said, there in aligned(stated.rows, found.rows):
        said, there = (nothing if part is None else part for part in (said, there))
        missing, new = _without(said, there), _without(there, said)
        compared = _compared(said, there)
        other = compared.filter(compute.equal(compared.column("action"), "replace"))
        for kind, rows in zip(counts, (missing, new, other), strict=True):
            counts[kind] += len(rows)
            first = first or (rows.column("path")[0].as_py() if len(rows) else "")
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    return f"{told} (first: '{first}')"


def steps_of(batch: Batch) -> Iterator[Step]:
    """The rows of a plan as steps."""
    columns = [batch.column(name).to_pylist() for name in STEPS.names[:6]]
    for path, size_bytes, digest, version, assumed, there in zip(*columns, strict=True):
        yield Step(Entry(path, size_bytes, digest, version, assumed), there)


def _require_removable(
    source: DatasetURI, destination: DatasetURI, remove: Paths, present: int, delete: bool, limit: DeleteLimit
) -> None:
    if not len(remove):
        return
    if not delete:
        raise Invalid(
            f"{destination} holds {len(remove)} objects that {source} does not (first: '{next(iter(remove))}')",
            "choose an empty prefix, or pass --delete to remove them",
        )
    if not limit.allows(len(remove), of=present):
        raise Invalid(
            f"{len(remove)} of the {present} objects at {destination} would be removed"
            f" (first: '{next(iter(remove))}'), and the limit is {limit}",
            f"see that the source is whole, then pass --delete-limit {len(remove)}",
        )


def _compared(wanted: Batch, there: Batch | None) -> Batch:
    """The wanted rows with what is there and what to do."""
    if there is None:
        return _steps(wanted, pa.nulls(len(wanted), pa.string()), pa.array(["add"] * len(wanted)), False)
    beside = there.take(compute.index_in(wanted.column("path"), value_set=there.column("path")))
    same = compute.and_(
        compute.equal(wanted.column("digest"), beside.column("digest")),
        compute.equal(wanted.column("size_bytes"), beside.column("size_bytes")),
    )
    action = compute.if_else(compute.is_null(same), "add", compute.if_else(same, "keep", "replace"))
    assumed = compute.fill_null(compute.and_(same, beside.column("assumed")), False)
    return _steps(wanted, beside.column("version"), action, assumed)


def _steps(wanted: Batch, there: Any, action: Any, assumed: Any) -> Batch:
    if assumed is False:
        assumed = pa.array([False] * len(wanted))
    columns = {name: wanted.column(name) for name in ("path", "size_bytes", "digest", "version")}
    columns |= {"assumed": assumed, "there": there, "action": action}
    return pa.record_batch([columns[name] for name in STEPS.names], schema=STEPS)


def _without(rows: Batch, others: Batch) -> Batch:
    known = compute.is_in(rows.column("path"), value_set=others.column("path"))
    return rows.filter(compute.invert(known))


def _count(counts: dict[str, tuple[int, int]], action: str, rows: Batch) -> None:
    objects, size_bytes = counts.get(action, (0, 0))
    more = compute.sum(rows.column("size_bytes")).as_py() or 0
    counts[action] = (objects + len(rows), size_bytes + more)
