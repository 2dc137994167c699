"""The messages of Pub/Sub and Event Grid by example: what is an event, what is none, what nobody understands."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.core.errors import Invalid
from tasks.providers.azure.events import events_of as azure_events
from tasks.providers.google.events import events_of as google_events

KEY = "flights/März 2013+part=1.parquet"
MOMENT = datetime(2026, 11, 25, 10, tzinfo=UTC)


def base64_of(content: object) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def notification(described: bool = True, **attributes: str) -> dict[str, Any]:
    told = {
        "notificationConfig": "projects/_/buckets/raw/notificationConfigs/1",
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1" if described else "NONE",
        "bucketId": "raw",
        "objectId": KEY,
        "objectGeneration": "1763980000000001",
        "eventTime": "2026-11-25T10:00:00.000000Z",
        **attributes,
    }
    data = {"data": base64_of({"name": KEY, "size": "12"})} if described else {}
    return {"messageId": "1", "publishTime": "2026-11-25T10:00:01Z", "attributes": told, **data}


def blob_created(schema: str = "event-grid", api: str = "PutBlob", **changes: Any) -> dict[str, Any]:
    data = {"api": api, "eTag": "0x8D", "contentLength": 12, "sequencer": "00000000000000AB", "blobType": "BlockBlob"}
    subject = f"/blobServices/default/containers/raw/blobs/{KEY}"
    common = {"id": "e-1", "subject": subject, "data": data}
    if schema == "event-grid":
        shape = {"eventType": "Microsoft.Storage.BlobCreated", "eventTime": "2026-11-25T10:00:00Z", "topic": "/s"}
    else:
        kind = "Microsoft.Storage.BlobCreated"
        shape = {"specversion": "1.0", "type": kind, "source": "/s", "time": "2026-11-25T10:00:00Z"}
    return {**common, **shape, **changes}


@pytest.mark.parametrize(("described", "size_bytes"), [(True, 12), (False, 0)])
def test_a_notification_of_cloud_storage_is_an_event(described: bool, size_bytes: int) -> None:
    (event,) = google_events(notification(described), "google")
    assert event.id == f"google://raw/{KEY}#1763980000000001"
    assert (event.source, event.subject, event.time) == ("google://raw", KEY, MOMENT)
    assert event.data == {"bucket": "raw", "key": KEY, "size_bytes": size_bytes, "version": "1763980000000001"}


@pytest.mark.parametrize("kind", ["OBJECT_DELETE", "OBJECT_ARCHIVE", "OBJECT_METADATA_UPDATE", "OBJECT_NEW_KIND"])
def test_other_changes_in_cloud_storage_are_no_events(kind: str) -> None:
    assert google_events(notification(eventType=kind), "google") == []


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"attributes": None},
        {"attributes": {"eventType": "OBJECT_FINALIZE"}},
        {"data": "eA==", "attributes": {}},
        notification() | {"data": "no base64"},
        notification() | {"data": base64.b64encode(b"no json").decode()},
        notification(eventTime="yesterday"),
    ],
)
def test_another_message_on_the_topic_is_not_understood(message: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        google_events(message, "google")


@pytest.mark.parametrize("schema", ["event-grid", "cloud-events"])
@pytest.mark.parametrize("encode", [base64_of, json.dumps])
@pytest.mark.parametrize("api", ["PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose"])
def test_a_blobs_creation_is_the_same_event_in_every_form(schema: str, encode: Any, api: str) -> None:
    (event,) = azure_events(encode(blob_created(schema, api)), "azure")
    assert event.id == f"azure://raw/{KEY}#00000000000000AB"
    assert (event.source, event.subject, event.time) == ("azure://raw", KEY, MOMENT)
    assert event.data == {"bucket": "raw", "key": KEY, "size_bytes": 12, "version": "0x8D"}


@pytest.mark.parametrize(
    "told",
    [
        blob_created(eventType="Microsoft.Storage.BlobDeleted"),
        blob_created("cloud-events", type="Microsoft.Storage.BlobTierChanged"),
        # With a hierarchical namespace the file is announced while it is still empty.
        blob_created(api="CreateFile"),
    ],
)
def test_other_changes_in_blob_storage_are_no_events(told: dict[str, Any]) -> None:
    assert azure_events(base64_of(told), "azure") == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "{}",
        base64_of([]),
        base64_of("text"),
        base64_of({"specversion": "1.0"}),
        base64_of(blob_created(subject="/blobServices/default/containers/raw")),
        base64_of(blob_created(subject="/somewhere/else/raw/blobs/x")),
        base64_of(blob_created(eventTime="yesterday")),
        base64_of(blob_created(data={})),
    ],
)
def test_another_message_in_the_queue_is_not_understood(body: str) -> None:
    with pytest.raises(Invalid):
        azure_events(body, "azure")
