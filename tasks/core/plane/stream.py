"""The plane that works between any two stores: it pumps through the official SDKs of both sides."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.core.dataset import ContentHasher
from tasks.core.plane import Arrived, CopiedObject, Load, copied, described, stored, write_of, wrong_bytes
from tasks.core.plane.begun import give_up_begun, noting
from tasks.core.plane.limits import NO_LIMITS, Limits, Rate
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import Store, UploadJournal


class StreamPlane:
    """Streams through this process, a few 8 MiB pieces of each object in memory at a time.

    Args:
        in_flight: How many objects travel at the same time.
        attempts: How often one object is tried when a store answers `Retryable`.
        uploads: Where the uploads that an SDK makes in parts are kept: the next move gives up what a killed one left.
        key_prefix: What the keys of the destination's dataset start with.
        limits: What the move may take; the SDKs' requests are not counted.
    """

    def __init__(
        self,
        *,
        in_flight: int = 8,
        attempts: int = 4,
        uploads: UploadJournal | None = None,
        key_prefix: str = "",
        limits: Limits = NO_LIMITS,
    ) -> None:
        self._in_flight = in_flight
        self._attempts = attempts
        self._uploads, self._key_prefix = uploads, key_prefix
        self._limits = limits

    def carry(self, loads: Sequence[Load], source: Store, destination: Store, arrived: Arrived) -> None:
        """See `Plane.carry`. The digest is computed on the bytes as they pass, before the object becomes visible."""
        stop, rate = threading.Event(), self._limits.bytes()
        give_up_begun(destination, self._uploads, self._key_prefix, self._attempts, stop)
        noted = noting(destination, self._uploads)

        def one(load: Load) -> None:
            arrived(load, with_retries(lambda: _carry(load, source, noted, rate, stop), self._attempts, stop))

        in_parallel(one, loads, self._in_flight, stop)
        give_up_begun(destination, self._uploads, self._key_prefix, self._attempts, stop)


def _carry(load: Load, source: Store, destination: Store, rate: Rate, stop: threading.Event) -> CopiedObject:
    entry = load.entry
    write = write_of(load, described(load, source))

    def checked() -> Iterator[bytes]:
        hasher = ContentHasher()
        for piece in source.get(load.source_key, version=entry.version or None):
            hasher.update(piece)
            stop.wait(rate.take(len(piece)))
            yield piece
        if (hasher.hexdigest(), hasher.size_bytes) != (entry.digest, entry.size_bytes):
            raise wrong_bytes(entry, source)

    version = stored(load, write, checked(), destination)
    return copied(load, version, f"blake3 on the way, {destination.cloud}'s own checksum on arrival", "stream")
