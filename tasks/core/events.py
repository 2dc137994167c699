"""Events of object stores, whichever way they arrive, and the datasets that they complete.

A producer says that a dataset is complete by writing a marker last: `_SUCCESS` (as Hadoop and Spark do) or the
manifest that a Lintas move publishes. Only that is a landing; the objects before it are not.
"""

from __future__ import annotations

from datetime import datetime

from tasks.core.dataset import PUBLISHED_MANIFEST, PULLS_PREFIX, DatasetURI
from tasks.core.ports import CloudEvent

OBJECT_CREATED = "lintas.object.created"
"""Type of the event that says that an object was written, whole."""

_MARKERS = ("_SUCCESS", PUBLISHED_MANIFEST)


def object_created(
    cloud: str, bucket: str, key: str, *, write: str, time: datetime, size_bytes: int, version: str
) -> CloudEvent:
    """The event of an object that was written.

    Args:
        cloud, bucket, key: Which object.
        write: What tells this write of the key from all others (a sequencer, a generation); the event's id follows
            from it, so that the same write is the same event however often it is told.
        time: When it was written, timezone-aware.
        size_bytes: Its size.
        version: What the cloud calls this content.
    """
    return CloudEvent(
        id=f"{cloud}://{bucket}/{key}#{write}",
        type=OBJECT_CREATED,
        source=f"{cloud}://{bucket}",
        subject=key,
        time=time,
        data={"bucket": bucket, "key": key, "size_bytes": size_bytes, "version": version},
    )


def landed_dataset(event: CloudEvent) -> DatasetURI | None:
    """The dataset that an object's creation completes, or None when the object is not a marker.

    Raises:
        Invalid: The marker lies where no dataset can be; the caller sets the event aside.

    >>> from datetime import UTC, datetime
    >>> created = CloudEvent("1", "lintas.object.created", "aws://raw", "flights/_SUCCESS", datetime.now(UTC))
    >>> str(landed_dataset(created))
    'aws://raw/flights'
    """
    if event.type != OBJECT_CREATED or event.subject.startswith(PULLS_PREFIX):
        return None
    for marker in _MARKERS:
        if event.subject == marker or event.subject.endswith("/" + marker):
            return DatasetURI.parse(f"{event.source}/{event.subject.removesuffix(marker)}".rstrip("/"))
    return None
