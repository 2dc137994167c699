"""Datasets: where they are, what they hold, and when two clouds hold the same one.

A dataset is all objects under a `DatasetURI`. Its `Manifest` lists them with a digest of each one's content and
one digest of the whole; two clouds hold the same dataset exactly when those are equal. Ids that a store makes up
(ETags, generations) are `version`s here: they tell whether an object is still the one that was read, in its own
store, and are never compared across stores.

The content digest is BLAKE3 for an object of up to `CHUNK_BYTES`, and BLAKE3 over the concatenated 32-byte
digests of its `CHUNK_BYTES` chunks beyond that, so that parts can be checked and resumed alone. The size, which
always stands beside the digest, separates the two cases. docs/decisions/0003-content-digest.md says why.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from blake3 import blake3

from tasks.core.errors import IntegrityError, Invalid, NotFound
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import Journal, ObjectInfo, Store

R = TypeVar("R")

CHUNK_BYTES = 8 * 1024 * 1024
"""Size in bytes of the chunks that are read, hashed and sent as one piece."""

RESERVED_PREFIX = ".lintas/"
"""Keys under this prefix of a dataset are Lintas' own (the published manifest) and never part of the dataset."""

PUBLISHED_MANIFEST = RESERVED_PREFIX + "manifest.jsonl"

DIGEST_METADATA = "lintas-digest"
"""Name of the object metadata that carries the content digest of an object that Lintas wrote."""

_URI = re.compile(r"^([a-z][a-z0-9+.-]*)://([^/]+)(?:/(.*))?$", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class DatasetURI:
    """Where a dataset is: a cloud's name in `lintas.yaml`, a bucket (container, directory) and a prefix.

    >>> str(DatasetURI.parse("aws://raw/flights/"))
    'aws://raw/flights'
    >>> DatasetURI.parse("aws://raw/flights").key("m=01.parquet")
    'flights/m=01.parquet'
    """

    cloud: str
    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> DatasetURI:
        """Read `cloud://bucket/prefix`. Raises `Invalid` when the text has another form."""
        match = _URI.match(text.strip())
        if match is None:
            raise Invalid(f"'{text}' is not a dataset URI", "write it as cloud://bucket/prefix")
        cloud, bucket, prefix = match.group(1), match.group(2), (match.group(3) or "").strip("/")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise Invalid(f"the prefix of '{text}' has an empty, '.' or '..' part", "write the plain path")
        return cls(cloud, bucket, prefix)

    def __str__(self) -> str:
        return f"{self.cloud}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def __truediv__(self, path: str) -> DatasetURI:
        return DatasetURI(self.cloud, self.bucket, self.key(path).strip("/"))

    def key(self, path: str) -> str:
        """The store's key of the object at `path` (relative to the dataset)."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def path(self, key: str) -> str:
        """The path, relative to the dataset, of the object at the store's `key`; the inverse of `key`."""
        return key[len(self.prefix) + 1 :] if self.prefix else key

    @property
    def key_prefix(self) -> str:
        """What every key of this dataset starts with: the prefix and a slash, or nothing for a whole bucket."""
        return f"{self.prefix}/" if self.prefix else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a dataset.

    Args:
        path: Relative to the dataset, `/` between parts.
        size_bytes: Exact size of the content.
        digest: Content digest, 64 hexadecimal characters (see the module's text).
        version: The store's own id of this content, for conditional reads; not part of the dataset's identity.
    """

    path: str
    size_bytes: int
    digest: str
    version: str = field(default="", compare=False)


@dataclass(frozen=True)
class Manifest:
    """The immutable list of a dataset's objects. Entries are sorted by path (by code point) and paths are unique."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """Sort the entries. Raises `Invalid` when two of them have the same path."""
        ordered = tuple(sorted(entries, key=lambda entry: entry.path))
        for before, after in pairwise(ordered):
            if before.path == after.path:
                raise Invalid(f"'{after.path}' is listed twice in a manifest", "list every object once")
        return cls(ordered)

    @cached_property
    def digest(self) -> str:
        """The dataset's identity: BLAKE3 over one canonical JSON line (path, size, digest) an entry."""
        whole = blake3()
        for entry in self.entries:
            whole.update(_canonical_line(entry))
        return whole.hexdigest()

    @property
    def size_bytes(self) -> int:
        """Sum of the objects' sizes."""
        return sum(entry.size_bytes for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def by_path(self) -> dict[str, Entry]:
        """The entries, keyed by path."""
        return {entry.path: entry for entry in self.entries}

    def to_jsonl(self) -> bytes:
        """The published form: a header line, then one line an entry with the version it has in its store."""
        header = {"lintas_manifest": 1, "digest": self.digest, "objects": len(self), "size_bytes": self.size_bytes}
        lines = [json.dumps(header)]
        lines += [
            json.dumps({"path": e.path, "size_bytes": e.size_bytes, "digest": e.digest, "version": e.version})
            for e in self.entries
        ]
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def from_jsonl(cls, text: bytes) -> Manifest:
        """Read the published form. Raises `IntegrityError` when it does not hold what its own header says."""
        try:
            header, *rows = (json.loads(line) for line in text.splitlines())
            manifest = cls.of(Entry(r["path"], r["size_bytes"], r["digest"], r["version"]) for r in rows)
            stated = header["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError("a published manifest cannot be read", "move the dataset again") from error
        if manifest.digest != stated:
            raise IntegrityError("a published manifest does not match its own digest", "move the dataset again")
        return manifest


def _canonical_line(entry: Entry) -> bytes:
    return json.dumps([entry.path, entry.size_bytes, entry.digest], separators=(",", ":")).encode() + b"\n"


class ContentHasher:
    """Computes the content digest of bytes that pass by, in pieces of any size.

    >>> hasher = ContentHasher()
    >>> hasher.update(b"abc")
    >>> hasher.hexdigest() == blake3(b"abc").hexdigest()
    True
    """

    def __init__(self) -> None:
        self._chunk = blake3()
        self._room = CHUNK_BYTES
        self._done: list[bytes] = []
        self.size_bytes = 0

    def update(self, piece: bytes | memoryview) -> None:
        """Add the next bytes of the content."""
        view = memoryview(piece)
        self.size_bytes += len(view)
        while len(view):
            if self._room == 0:
                self._done.append(self._chunk.digest())
                self._chunk, self._room = blake3(), CHUNK_BYTES
            taken = view[: self._room]
            self._chunk.update(taken)
            self._room -= len(taken)
            view = view[len(taken) :]

    def hexdigest(self) -> str:
        """The content digest of all bytes so far."""
        if not self._done:
            return self._chunk.hexdigest()
        return blake3(b"".join([*self._done, self._chunk.digest()])).hexdigest()


def content_digest(pieces: Iterable[bytes]) -> tuple[str, int]:
    """The content digest and the size in bytes of what the pieces make together."""
    hasher = ContentHasher()
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest(), hasher.size_bytes


def rechunk(pieces: Iterable[bytes], size_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Regroup pieces of any size into pieces of exactly `size_bytes` (the last one may be shorter)."""
    buffer = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            taken = view[: size_bytes - len(buffer)]
            buffer += taken
            view = view[len(taken) :]
            if len(buffer) == size_bytes:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)


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
