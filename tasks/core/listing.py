"""What a dataset holds: listing it, and giving every object its digest, with as few requests as will do.

The listing, the published manifest and whatever else is known are walked side by side in order of paths, a batch at
a time, so that memory does not grow with the dataset.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tasks.core.arrow import compute, pa
from tasks.core.dataset import DIGEST_METADATA, PUBLISHED_MANIFEST, RESERVED_PREFIX, DatasetURI, content_digest
from tasks.core.errors import IntegrityError, Invalid, NotFound
from tasks.core.levels import listed
from tasks.core.manifest import SCHEMA, Manifest, ManifestWriter
from tasks.core.plane.buffers import SMALL_BYTES
from tasks.core.plane.reading import Beginning, beginnings
from tasks.core.retries import in_parallel, with_retries
from tasks.core.rows import BATCH_ROWS, Batch, Rows, aligned, batch_of, in_order
from tasks.core.selection import Selection

if TYPE_CHECKING:
    from tasks.core.ports import Journal, Store

_LISTED: Any = pa.schema(
    [("path", pa.string()), ("size_bytes", pa.int64()), ("version", pa.string()), SCHEMA.field("modified")]
)
_JOURNALLED: Any = pa.schema([*list(_LISTED)[:3], ("digest", pa.string())])


def read_manifest(
    store: Store,
    uri: DatasetURI,
    journal: Journal | None = None,
    *,
    reread: bool = False,
    trust_labels: bool = False,
    like: Manifest | None = None,
    selection: Selection | None = None,
    refuse_archived: bool = False,
    in_flight: int = 8,
    attempts: int = 4,
) -> Manifest:
    """List a dataset and give every object its content digest, reading only what is not known already.

    A digest is known when the dataset's published manifest or the journal names this very version of the object.
    Everything else is read once and entered in the journal.

    Args:
        store: The store that holds the bucket of `uri`.
        uri: The dataset.
        journal: What earlier runs learnt; None to know nothing.
        reread: Trust nothing and read every byte, as `lintas manifest --verify` does.
        trust_labels: Also believe the digest in an object's own metadata, for one look-up an object. Meant for the
            destination of a move: Lintas writes that label only under a verified upload, so a half-done move can be
            continued from another machine without reading back what is there.
        like: Assume of an object that nothing is known of that it is this manifest's, when it has its path and size
            and was not written before it. The entry is marked as assumed, and the journal learns nothing.
        selection: Only these objects; the manifest says so.
        refuse_archived: Refuse a dataset of which some objects could not be read now, as a move's source.
        in_flight: How many objects are looked up or read at the same time; memory is bounded by this many chunks.
        attempts: How often one object is tried when the store answers `Retryable`.

    Raises:
        NotFound: The bucket does not exist.
        PreconditionFailed: An object changed while it was read; the caller starts again.
        Invalid: The store lists a name that is not text; or objects are archived, and the caller refuses them.
    """
    reader = _Reader(store, uri, journal, trust_labels and not reread, in_flight, attempts)
    listed = listed_rows(store, uri, selection, refuse_archived=refuse_archived)
    published = None if reread else _published_rows(store, uri)
    writer = ManifestWriter(selection)
    for found, stated, similar in aligned(listed, published or (), () if reread or like is None else like.rows):
        if found is None:
            continue
        digests = pa.nulls(len(found), pa.string())
        if stated is not None:
            digests = _of_same_version(found, stated.filter(compute.invert(stated.column("assumed"))))
        if not reread:
            digests = reader.journalled(found, digests)
        known = compute.is_valid(digests)
        if similar is not None:
            digests = compute.coalesce(digests, _of_similar(found, similar))
        assumed = compute.and_(compute.is_valid(digests), compute.invert(known))
        writer.append(_entries(found, reader.completed(found, digests), assumed))
    return writer.done()


def listed_rows(
    store: Store, uri: DatasetURI, selection: Selection | None = None, *, refuse_archived: bool = False
) -> Rows:
    """The listing in order of paths: `path`, `size_bytes`, `version`, `modified`.

    Lintas' own objects and directory markers (empty objects whose key ends in a slash) are no part of it. Raises
    `Invalid` when objects are archived and `refuse_archived` is set.
    """
    try:
        return in_order(_listed(store, uri, selection, refuse_archived), _LISTED)
    except UnicodeEncodeError:
        raise Invalid(f"{uri} holds an object whose name is not text", "rename it, in UTF-8") from None


def _listed(store: Store, uri: DatasetURI, selection: Selection | None, refuse_archived: bool) -> Iterator[Batch]:
    infos, above = listed(store, uri.key_prefix), len(uri.key_prefix)
    archived, first = 0, ""
    while some := list(islice(infos, BATCH_ROWS)):
        paths = [info.key[above:] for info in some]
        if refuse_archived:
            unread = [info.key[above:] for info in some if info.archived]
            unread = [path for path in unread if not selection or selection.takes(path)]
            archived, first = archived + len(unread), first or next(iter(unread), "")
        sizes = [info.size_bytes for info in some]
        batch = batch_of(_LISTED, [paths, sizes, [info.version for info in some], [info.modified for info in some]])
        path = batch.column("path")
        own = compute.or_(compute.equal(path, ""), compute.starts_with(path, RESERVED_PREFIX))
        marker = compute.and_(compute.ends_with(path, "/"), compute.equal(batch.column("size_bytes"), 0))
        batch = batch.filter(compute.invert(compute.or_(own, marker)))
        if selection:
            batch = batch.filter(pa.array(map(selection.takes, batch.column("path").to_pylist()), pa.bool_()))
        yield batch
    if archived:
        raise Invalid(
            f"{archived} objects of {uri} are archived and cannot be read (first: '{first}')",
            "have their store restore them, or leave them out with --exclude",
        )


def published_manifest(store: Store, uri: DatasetURI) -> Manifest | None:
    """The manifest that the last finished move published beside the dataset, or None. Readers start here."""
    try:
        return Manifest.from_jsonl(store.get(uri.key(PUBLISHED_MANIFEST)))
    except NotFound:
        return None


def _published_rows(store: Store, uri: DatasetURI) -> Rows | None:
    try:
        manifest = published_manifest(store, uri)
    except IntegrityError:
        return None  # A damaged manifest is worth nothing: the objects themselves are read instead.
    return manifest.rows if manifest else None


def _of_same_version(found: Batch, stated: Batch) -> Any:
    """The digests that are stated of exactly these versions; null where there is none."""
    there = _beside(found, stated)
    same = compute.and_(
        compute.equal(found.column("version"), there.column("version")),
        compute.equal(found.column("size_bytes"), there.column("size_bytes")),
    )
    return compute.if_else(same, there.column("digest"), pa.scalar(None, pa.string()))


def _of_similar(found: Batch, similar: Batch) -> Any:
    """The digests of the objects of the same size that were written no later; null where there is none."""
    there = _beside(found, similar)
    same = compute.and_(
        compute.equal(found.column("size_bytes"), there.column("size_bytes")),
        compute.greater_equal(found.column("modified"), there.column("modified")),
    )
    return compute.if_else(same, there.column("digest"), pa.scalar(None, pa.string()))


def _beside(found: Batch, other: Batch) -> Batch:
    """The rows of `other` for the paths of `found`; nulls where it has none."""
    return other.take(compute.index_in(found.column("path"), value_set=other.column("path")))


def _entries(found: Batch, digests: Any, assumed: Any) -> Batch:
    columns = {name: found.column(name) for name in _LISTED.names} | {"digest": digests, "assumed": assumed}
    return pa.record_batch([columns[name] for name in SCHEMA.names], schema=SCHEMA)


@dataclass(frozen=True, slots=True)
class _Unknown:
    """An object whose digest is to be found out."""

    at: int
    path: str
    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class _Reader:
    """Finds digests out: from the journal, from labels, from the bytes."""

    store: Store
    uri: DatasetURI
    journal: Journal | None
    trust_labels: bool
    in_flight: int
    attempts: int

    def journalled(self, found: Batch, digests: Any) -> Any:
        """The digests, with those that the journal knows."""
        if self.journal is None or not digests.null_count:
            return digests
        paths, above = found.column("path"), len(self.uri.key_prefix)
        first, last = (self.uri.key(paths[at].as_py()) for at in (0, -1))
        known = list(self.journal.between(self.store.cloud, self.store.bucket, first, last))
        if not known:
            return digests
        keys, versions, sizes, stated = zip(*known, strict=True)
        columns = [[key[above:] for key in keys], sizes, versions, stated]
        return compute.coalesce(digests, _of_same_version(found, batch_of(_JOURNALLED, columns)))

    def completed(self, found: Batch, digests: Any) -> Any:
        """The digests, with those that only the objects themselves tell."""
        if not digests.null_count:
            return digests
        filled = digests.to_pylist()
        stop = threading.Event()

        def find_out(each: _Unknown) -> None:
            filled[each.at] = self._digest(each, stop)

        unknown = list(_unknown(found, digests))
        small = [each for each in unknown if self._is_read_at_once(each)]
        for each, content in beginnings(self.store, small, self._whole, self.attempts):
            filled[each.at] = self._learned(each, *content_digest([content]))
        others = (each for each in unknown if not self._is_read_at_once(each))
        in_parallel(find_out, others, self.in_flight, stop)
        return pa.array(filled, pa.string())

    def _is_read_at_once(self, each: _Unknown) -> bool:
        return not self.trust_labels and each.size_bytes <= SMALL_BYTES

    def _whole(self, each: _Unknown) -> Beginning:
        return Beginning(self.uri.key(each.path), each.version, each.size_bytes, each.size_bytes)

    def _digest(self, each: _Unknown, stop: threading.Event) -> str:
        key = self.uri.key(each.path)
        digest = None
        if self.trust_labels:
            there = with_retries(lambda: self.store.head(key), self.attempts, stop)
            # A label speaks for the version that carries it.
            digest = there.metadata.get(DIGEST_METADATA) if there.version == each.version else None
        if digest is None:
            digest, size_bytes = with_retries(
                lambda: content_digest(self.store.get(key, version=each.version)), self.attempts, stop
            )
            return self._learned(each, digest, size_bytes)
        return self._noted(each, digest)

    def _learned(self, each: _Unknown, digest: str, size_bytes: int) -> str:
        """The digest of what was read."""
        if size_bytes != each.size_bytes:
            raise IntegrityError(
                f"'{each.path}' of {self.uri} gave {size_bytes} bytes where the listing says {each.size_bytes}",
                "check the store and run again",
            )
        return self._noted(each, digest)

    def _noted(self, each: _Unknown, digest: str) -> str:
        if self.journal is not None:
            key = self.uri.key(each.path)
            self.journal.record(self.store.cloud, self.store.bucket, key, each.version, each.size_bytes, digest)
        return digest


def _unknown(found: Batch, digests: Any) -> Iterable[_Unknown]:
    columns = (found.column(name).to_pylist() for name in ("path", "size_bytes", "version"))
    for at, (digest, *facts) in enumerate(zip(digests.to_pylist(), *columns, strict=True)):
        if digest is None:
            yield _Unknown(at, *facts)
