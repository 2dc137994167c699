"""One write in S3 is one event, in whichever of the three shapes its message comes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.core.errors import Invalid
from tasks.providers.aws.events import events_of

KEY = "flights/März 2013+part=1.parquet"


def record(event_name: str = "ObjectCreated:Put", **thing: Any) -> dict[str, Any]:
    described = {"key": "flights/M%C3%A4rz+2013%2Bpart%3D1.parquet", "size": 12, "eTag": "abc", "sequencer": "0055AED6"}
    return {
        "eventSource": "aws:s3",
        "eventName": event_name,
        "eventTime": "2026-11-23T10:00:00.000Z",
        "s3": {"bucket": {"name": "raw"}, "object": {**described, **thing}},
    }


def direct(*records: dict[str, Any]) -> str:
    return json.dumps({"Records": list(records)})


def through_sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": body})


def through_event_bridge(detail_type: str = "Object Created") -> str:
    thing = {"key": KEY, "size": 12, "etag": "abc", "sequencer": "0055AED6"}
    detail = {"bucket": {"name": "raw"}, "object": thing, "reason": "PutObject"}
    shape = {"version": "0", "source": "aws.s3", "time": "2026-11-23T10:00:00Z"}
    return json.dumps({**shape, "detail-type": detail_type, "detail": detail})


@pytest.mark.parametrize("body", [direct(record()), through_sns(direct(record())), through_event_bridge()])
def test_a_write_is_the_same_event_in_every_shape(body: str) -> None:
    (event,) = events_of(body, "aws")

    assert event.id == f"aws://raw/{KEY}#0055AED6"
    assert event.type == "lintas.object.created"
    assert event.source == "aws://raw"
    assert event.subject == KEY
    assert event.time == datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert event.data == {"bucket": "raw", "key": KEY, "size_bytes": 12, "version": "abc"}


def test_every_record_of_a_message_is_an_event() -> None:
    body = direct(record(), record("ObjectCreated:CompleteMultipartUpload", sequencer="0055AED7"))

    assert len({event.id for event in events_of(body, "aws")}) == 2


def test_writes_without_a_sequencer_are_still_told_apart() -> None:
    (versioned,) = events_of(direct(record(sequencer=None, versionId="v1")), "aws")
    (plain,) = events_of(direct(record(sequencer=None)), "aws")

    assert versioned.id.endswith("#v1")
    assert plain.id.endswith("#abc@2026-11-23T10:00:00.000Z")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "raw"}),
        through_sns(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})),
        direct(record("ObjectRemoved:Delete")),
        through_event_bridge("Object Deleted"),
        direct(),
    ],
)
def test_what_is_no_new_object_is_no_event(body: str) -> None:
    assert events_of(body, "aws") == []


@pytest.mark.parametrize("body", ["", "not json", "{}", "[]", '{"Records": [{}]}', '{"Type": "Notification"}', "1"])
def test_a_message_of_no_known_shape_is_an_error_for_the_caller_to_leave_alone(body: str) -> None:
    with pytest.raises(Invalid):
        events_of(body, "aws")
