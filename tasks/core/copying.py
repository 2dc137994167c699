"""Copies of a dataset that are made on this side, object by object: looked at ahead, written unless they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO, TYPE_CHECKING, TypeVar

from tasks.core.attributes import Attributes
from tasks.core.dataset import DIGEST_METADATA, DatasetURI, Entry, content_digest
from tasks.core.detectors.tables import Source, beginning_of
from tasks.core.errors import NotFound
from tasks.core.manifest import Manifest
from tasks.core.plane.reading import beginnings
from tasks.core.retries import in_turn

if TYPE_CHECKING:
    from tasks.core.ports import Store

T = TypeVar("T")

_PIECE_BYTES = 8 * 1024 * 1024
_LOOKED_AT = 16
"""So many objects are described by their store at a time: each is a wait for it."""


@dataclass(frozen=True, slots=True)
class Looked:
    """An object of which a copy is about to be made.

    Args:
        store, uri, entry: The object.
        head: Its first bytes, as they lie there.
        attributes: What goes along with the copy.
    """

    store: Store
    uri: DatasetURI
    entry: Entry
    head: bytes = field(repr=False)
    attributes: Attributes

    @property
    def source(self) -> Source:
        """For who reads what is in it."""
        return Source.of(self.store, self.uri, self.entry, self.head)

    def pieces(self) -> Iterator[bytes]:
        """The object as it is."""
        if len(self.head) == self.entry.size_bytes:
            return iter((self.head,))
        return self.store.get(self.uri.key(self.entry.path), version=self.entry.version or None)


def copied_by(
    work: Callable[[Looked], T], source: Store, uri: DatasetURI, manifest: Manifest, in_flight: int
) -> Iterator[T]:
    """What `work` makes of each object, in order, `in_flight` at a time; they are looked at ahead of it."""

    def look(begun: tuple[Entry, bytes]) -> Looked:
        entry, head = begun
        return Looked(source, uri, entry, head, kept_with_copy(source, uri, entry))

    with (
        closing(beginnings(source, manifest, partial(beginning_of, uri))) as begun,
        closing(in_turn(look, begun, _LOOKED_AT)) as looked,
        closing(in_turn(work, looked, in_flight)) as made,
    ):
        yield from made


def kept_with_copy(source: Store, uri: DatasetURI, entry: Entry) -> Attributes:
    """What goes along with a copy that is made here: how the content is served and how often it is read.

    User metadata, tags and file names stay behind: the gate has looked at the content alone.
    """
    return replace(source.head(uri.key(entry.path)).attributes, tags={}, content_disposition="")


def unchanged(looked: Looked, into: Store, into_uri: DatasetURI) -> Entry:
    """Write an object as it is into a copy of its dataset, unless it is there."""
    entry = looked.entry
    return _put(into, into_uri, entry.path, looked.pieces(), entry.size_bytes, entry.digest, looked.attributes)


def written(into: Store, uri: DatasetURI, path: str, file: IO[bytes], attributes: Attributes) -> Entry:
    """Write a file that was made here into a copy of a dataset, unless its content is there."""
    file.seek(0)
    digest, size_bytes = content_digest(_pieces(file))
    file.seek(0)
    return _put(into, uri, path, _pieces(file), size_bytes, digest, attributes)


def _put(
    into: Store,
    uri: DatasetURI,
    path: str,
    pieces: Iterator[bytes],
    size_bytes: int,
    digest: str,
    attributes: Attributes,
) -> Entry:
    key = uri.key(path)
    try:
        there = into.head(key)
    except NotFound:
        there = None
    if there is not None and (there.metadata.get(DIGEST_METADATA), there.size_bytes) == (digest, size_bytes):
        return Entry(path, size_bytes, digest, there.version)
    made = into.put(
        key,
        pieces,
        size_bytes=size_bytes,
        metadata={DIGEST_METADATA: digest},
        attributes=attributes,
        if_version=there.version if there else None,
        if_absent=there is None,
    )
    return Entry(path, size_bytes, digest, made.version)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece
