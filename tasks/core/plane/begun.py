"""Uploads in parts that a store begins by itself: they stand in the journal, and those of killed moves are given up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tasks.core.plane.parts import Beginning, resumable
from tasks.core.ports import DirectStore, NotingStore
from tasks.core.retries import with_retries

if TYPE_CHECKING:
    from tasks.core.ports import Store, UploadJournal

_BY_THE_STORE = "streamed"
"""The content of an upload whose parts nobody can continue."""


class _Notes(Beginning):
    """Enters the uploads of a store's SDK in the journal; implements `tasks.core.ports.UploadNotes`."""

    def begun(self, key: str, upload_id: str, content: str = _BY_THE_STORE) -> None:
        super().begun(key, upload_id, content)


def noting(store: Store, uploads: UploadJournal | None) -> Store:
    """The same store, which enters in the journal what it begins; itself where it begins nothing, or without one."""
    if uploads is None or not isinstance(store, NotingStore):
        return store
    return store.noting(_Notes(uploads, store.cloud, store.bucket))


def give_up_begun(
    store: Store, uploads: UploadJournal | None, key_prefix: str, attempts: int, stop: threading.Event
) -> None:
    """Give up what the journal has of uploads below a prefix: nobody can continue those that a store has begun."""
    if uploads is None or not uploads.open(store.cloud, store.bucket, key_prefix):
        return
    if isinstance(store, DirectStore):
        far = store.direct
        with_retries(lambda: resumable((), far, store, uploads, key_prefix), attempts, stop)
