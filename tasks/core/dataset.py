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

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blake3 import blake3

from tasks.core.errors import Invalid

CHUNK_BYTES = 8 * 1024 * 1024
"""Size in bytes of the chunks that are read, hashed and sent as one piece."""

RESERVED_PREFIX = ".lintas/"
"""Keys under this prefix of a dataset are Lintas' own (the published manifest) and never part of the dataset."""

PUBLISHED_MANIFEST = RESERVED_PREFIX + "manifest.jsonl"

PULLS_PREFIX = RESERVED_PREFIX + "pulls/"
"""Keys of a bucket under this prefix are what a service has pulled and nobody has proven yet."""

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
        assumed: Whether nobody has verified the digest: the user accepted size and time of modification instead.
    """

    path: str
    size_bytes: int
    digest: str
    version: str = field(default="", compare=False)
    assumed: bool = field(default=False, compare=False)


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
