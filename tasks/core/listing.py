"""What a dataset holds: listing it, and giving every object its digest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from tasks.core.dataset import DIGEST_METADATA, PUBLISHED_MANIFEST, RESERVED_PREFIX, DatasetURI, Entry, content_digest
from tasks.core.errors import IntegrityError, NotFound
from tasks.core.manifest import Manifest
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import Journal, ObjectInfo, Store

R = TypeVar("R")


def read_manifest(
    store: Store,
    uri: DatasetURI,
    journal: Journal | None = None,
    *,
    reread: bool = False,
    trust_labels: bool = False,
    in_flight: int = 8,
    attempts: int = 4,
    on_object: Callable[[Entry], None] | None = None,
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
        in_flight: How many objects are looked up or read at the same time; memory is bounded by this many chunks.
        attempts: How often one object is tried when the store answers `Retryable`.
        on_object: Called with each entry as it becomes known, from several threads.

    Raises:
        NotFound: The bucket does not exist.
        PreconditionFailed: An object changed while it was read; the caller starts again.
    """
    published = {} if reread else _published_entries(store, uri)
    stop = threading.Event()

    def again(call: Callable[[], R]) -> R:
        return with_retries(call, attempts, stop)

    def entry_of(info: ObjectInfo) -> Entry:
        path = uri.path(info.key)
        digest = None if reread else _known_digest(store, info, published.get(path), journal)
        if digest is None and trust_labels and not reread:
            digest = again(lambda: store.head(info.key)).metadata.get(DIGEST_METADATA)
        if digest is None:
            digest, size_bytes = again(lambda: content_digest(store.get(info.key, version=info.version)))
            if size_bytes != info.size_bytes:
                raise IntegrityError(
                    f"'{path}' of {uri} gave {size_bytes} bytes where the listing says {info.size_bytes}",
                    "check the store and run again",
                )
        if journal is not None:
            journal.record(store.cloud, store.bucket, info.key, info.version, info.size_bytes, digest)
        entry = Entry(path, info.size_bytes, digest, info.version)
        if on_object is not None:
            on_object(entry)
        return entry

    return Manifest.of(in_parallel(entry_of, list_objects(store, uri), in_flight, stop))


def list_objects(store: Store, uri: DatasetURI) -> Iterator[ObjectInfo]:
    """The objects of a dataset as the store lists them, without Lintas' own and without directory markers."""
    for info in store.list(uri.key_prefix):
        path = uri.path(info.key)
        is_marker = path.endswith("/") and info.size_bytes == 0
        if not path.startswith(RESERVED_PREFIX) and not is_marker and path:
            yield info


def published_manifest(store: Store, uri: DatasetURI) -> Manifest | None:
    """The manifest that the last finished move published beside the dataset, or None. Readers start here."""
    try:
        return Manifest.from_jsonl(b"".join(store.get(uri.key(PUBLISHED_MANIFEST))))
    except NotFound:
        return None


def _published_entries(store: Store, uri: DatasetURI) -> dict[str, Entry]:
    try:
        manifest = published_manifest(store, uri)
    except IntegrityError:
        return {}  # A damaged manifest is worth nothing: the objects themselves are read instead.
    return manifest.by_path() if manifest else {}


def _known_digest(store: Store, info: ObjectInfo, published: Entry | None, journal: Journal | None) -> str | None:
    if published is not None and (published.version, published.size_bytes) == (info.version, info.size_bytes):
        return published.digest
    if journal is not None:
        digest = journal.known(store.cloud, store.bucket, info.key, info.version, info.size_bytes)
        if digest is not None:
            return digest
    return None
