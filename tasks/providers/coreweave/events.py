"""Events of AI Object Storage, which sends none: its buckets are listed again and again.

CoreWeave documents no notifications of objects (November 2026); what a listing cannot see is told in
`tasks.providers._dialects.polling`. https://docs.coreweave.com/products/storage/object-storage
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.core.cloud import CloudConfig
from tasks.core.ports import EventSource, ObjectInfo
from tasks.providers._dialects.polling import PollingSource, Rhythm, watched_places
from tasks.providers.coreweave.store import open_store

_RHYTHM = Rhythm(poll_s=30)


def open_events(config: CloudConfig, memory: Path) -> EventSource:
    """The watched buckets of the cloud.

    Args:
        config: The cloud. `options.watch` names buckets; `poll_s` is the pause between two looks (30), `redeliver_s`
            after how many seconds an event that was not acknowledged comes again (60).
        memory: Where what was seen is kept.

    Raises:
        Invalid: Nothing is watched, or an option is no number.
        LintasError: The first listing failed; try again.
    """
    places = watched_places(config)
    stores = {place.bucket: open_store(config, place.bucket) for place in places}

    def listing(bucket: str, prefix: str) -> Iterator[ObjectInfo]:
        return stores[bucket].list(prefix)

    return PollingSource(config.name, places, listing, memory, _RHYTHM.configured(config))
