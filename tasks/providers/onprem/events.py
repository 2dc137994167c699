"""Events of a directory: files that have become whole, found by looking again and again.

Looking, and not inotify, because a change by another machine on a shared disk wakes nobody
(docs/decisions/0041-watching-by-looking.md). A file is told once it has stayed as it is for `settle_s` seconds; one
that a Lintas store writes appears whole, and waits as long. Links, and names that are no text, are logged and passed
over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from tasks.core.cloud import CloudConfig
from tasks.core.errors import LintasError
from tasks.core.ports import EventSource, ObjectInfo
from tasks.providers._dialects.polling import PollingSource, Rhythm, watched_places
from tasks.providers.onprem.store import open_store

_log = logging.getLogger(__name__)

_RHYTHM = Rhythm(poll_s=5, settle_s=5)


def open_events(config: CloudConfig, memory: Path) -> EventSource:
    """The watched directories of the site.

    Args:
        config: The cloud. `options.watch` names buckets; `poll_s` is the pause between two looks (5), `settle_s` how
            long a file must stay as it is (5), `redeliver_s` after how many seconds an event that was not
            acknowledged comes again (60).
        memory: Where what was seen is kept.

    Raises:
        Invalid: Nothing is watched, the root is missing in the configuration, or an option is no number.
        LintasError: The first look failed; try again.
    """
    places, passed_over = watched_places(config), _PassedOver()
    stores = {place.bucket: open_store(config, place.bucket) for place in places}

    def listing(bucket: str, prefix: str) -> Iterator[ObjectInfo]:
        return stores[bucket].files(prefix, unfit=passed_over.tell)

    return PollingSource(config.name, places, listing, memory, _RHYTHM.configured(config))


class _PassedOver:
    """Logs what cannot be an object, once as long as it is the last of its kind."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, error: LintasError) -> None:
        if error.what not in self._told:
            if len(self._told) > 1000:
                self._told.clear()
            self._told.add(error.what)
            _log.warning("passed over: %s", error)
