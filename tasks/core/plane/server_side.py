"""The plane that lets the stores do it: copies inside one service, and pulls by the destination's service.

No byte passes through this process, so that the content is proven by what the stores themselves state: the manifest's
digest belongs to one version of the source; that version's checksum and the new object's, each computed by its store
over the whole content, are equal. Where the two state no common checksum the new object is read back and its content
digest compared. The label that says so much of an object (`lintas-digest`) is left out, because it would be visible
before the proof.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from tasks.core.attributes import Description
from tasks.core.dataset import DIGEST_METADATA, content_digest
from tasks.core.errors import IntegrityError, Invalid, NotFound, PreconditionFailed
from tasks.core.plane import Arrived, Load, copied, described_at, write_of
from tasks.core.plane.begun import give_up_begun, noting
from tasks.core.ports import ServerSideStore
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import ObjectInfo, Store, UploadJournal, Write

CONTENT = "content"
"""Name of Lintas' own content digest among an object's checksums."""

_STRONGEST_FIRST = ("crc64nvme", "md5", "crc32c")


class ServerSidePlane:
    """Has the destination bring the objects.

    Args:
        in_flight: How many objects at a time.
        attempts: How often one object is tried when a store answers `Retryable`.
        uploads: Where the uploads that the destination makes of large objects are kept: when all objects are there,
            what a killed move left is given up.
        key_prefix: What the keys of the destination's dataset start with.
    """

    def __init__(
        self,
        *,
        in_flight: int = 16,
        attempts: int = 4,
        uploads: UploadJournal | None = None,
        key_prefix: str = "",
    ) -> None:
        self._in_flight = in_flight
        self._attempts = attempts
        self._uploads, self._key_prefix = uploads, key_prefix

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`. Raises `Invalid` when the destination brings nothing from there by itself."""
        way, noted = way_between(source, destination), noting(destination, self._uploads)
        if way is None or not isinstance(noted, ServerSideStore):
            raise Invalid(f"{destination.cloud} brings nothing from {source.cloud} by itself", "let the move stream")
        bring, stop = noted.server_side, threading.Event()

        def one(load: Load) -> None:
            def attempt() -> None:
                info = described_at(load, source)
                try:
                    made = bring.copy(source, load.source_key, info.version, _unlabelled(load, info))
                except PreconditionFailed:
                    settled = _own_copy(load, info, destination)
                    if settled is None:
                        raise
                    made = settled
                by = proven(load, info, made, destination)
                arrived(load, copied(load, made.version, by, way))

            with_retries(attempt, self._attempts, stop)

        in_parallel(one, loads, self._in_flight, stop)
        # Not before: where this way turns out to be closed, the next plane continues uploads of its own.
        give_up_begun(destination, self._uploads, self._key_prefix, self._attempts, stop)


def way_between(source: Store, destination: Store) -> Literal["server-side", "pull"] | None:
    """How the destination would bring objects from there by itself, or None. Asks neither store."""
    if not hasattr(type(destination), "server_side") or not isinstance(destination, ServerSideStore):
        return None
    return destination.server_side.way(source)


def proven(load: Load, info: ObjectInfo, made: ObjectInfo, destination: Store) -> str:
    """How the new object is known to have the entry's content; arguments as of `proof`.

    Raises:
        IntegrityError: It has another content. It was removed.
    """
    by = proof(load, info, made, destination)
    if not by:
        destination.delete(load.key)
        raise other_content(load, destination)
    return by


def proof(load: Load, info: ObjectInfo, made: ObjectInfo, destination: Store) -> str:
    """How the new object is known to have the entry's content; empty when it has another.

    Args:
        load: What was to be carried.
        info: The source's object, in the version whose digest the entry has.
        made: The new object.
        destination: Its store.
    """
    entry = load.entry
    if made.size_bytes != entry.size_bytes:
        return ""
    if CONTENT in made.checksums:
        same, by = made.checksums[CONTENT] == entry.digest, f"blake3 of the copy, read back by {destination.cloud}"
    elif common := [name for name in _STRONGEST_FIRST if name in info.checksums and name in made.checksums]:
        same = info.checksums[common[0]] == made.checksums[common[0]]
        by = f"{common[0]} of source and copy, each as its store computed it"
    else:
        digest, _ = content_digest(destination.get(made.key, version=made.version))
        same, by = digest == entry.digest, f"blake3, read back from {destination.cloud}"
    return by if same else ""


def other_content(load: Load, destination: Store) -> IntegrityError:
    """What arrived is not what the manifest says, and is gone again."""
    return IntegrityError(
        f"{destination.cloud} made another content of '{load.entry.path}' than its manifest says",
        "check the source, then run the move again",
    )


def _own_copy(load: Load, info: ObjectInfo, destination: Store) -> ObjectInfo | None:
    """What is at the destination, if it is this very content: a copy whose answer was lost meets its own result."""
    try:
        there = destination.head(load.key)
    except NotFound:
        return None
    same = any(there.checksums.get(name) == value for name, value in info.checksums.items())
    return there if same and there.size_bytes == info.size_bytes and there.version != load.replaces else None


def _unlabelled(load: Load, info: ObjectInfo) -> Write:
    kept = {name: value for name, value in info.metadata.items() if name != DIGEST_METADATA}
    return write_of(load, Description(kept, info.attributes), labelled=False)
