"""Events of S3 as they arrive on an SQS queue.

A bucket's notifications reach the queue directly, through an SNS topic, or through EventBridge; all three shapes
are read, and one write has the same event id in each of them.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from botocore.config import Config

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid
from tasks.core.events import object_created
from tasks.core.ports import CloudEvent, EventSource
from tasks.providers._dialects.boto import session_of
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers._dialects.queues import AT_ONCE, Message, QueueSource
from tasks.providers.aws.errors import translated

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_LONGEST_POLL_S = 20


def open_events(config: CloudConfig, memory: Path) -> EventSource:
    """The cloud's event queue.

    Args:
        config: The cloud. `options.queue` is the queue's name or URL; `endpoints.events` is optional.
        memory: Of no use here: the queue remembers.

    Raises:
        Invalid: No queue is configured.
        NotFound: There is no queue of this name.
    """
    del memory
    queue = config.option("queue")
    client = session_of(config).client(
        "sqs",
        endpoint_url=config.endpoint_or_public("events"),
        config=Config(
            connect_timeout=5,
            read_timeout=_LONGEST_POLL_S + 10,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
    )
    place = Place(config.name, queue.rsplit("/", 1)[-1], address_of(client.meta.endpoint_url), "queue", "events")
    with translated(place):
        url = queue if "://" in queue else client.get_queue_url(QueueName=queue)["QueueUrl"]
    return QueueSource(SqsQueue(client, place, url))


class SqsQueue:
    """A queue; implements `tasks.providers._dialects.queues.MessageQueue`."""

    def __init__(self, client: SQSClient, place: Place, url: str) -> None:
        self._client = client
        self._place = place
        self._url = url

    @property
    def name(self) -> str:
        return self._place.bucket

    def take(self, wait_s: float) -> list[Message]:
        with translated(self._place):
            answer = self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=AT_ONCE, WaitTimeSeconds=int(min(_LONGEST_POLL_S, wait_s))
            )
        return [
            Message(message.get("MessageId", ""), message.get("ReceiptHandle", ""), message.get("Body", ""))
            for message in answer.get("Messages", [])
        ]

    def remove(self, receipt: str) -> None:
        with translated(self._place):
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=receipt)

    def set_aside(self, message: Message) -> None:
        """It stays where it is: the queue's redrive policy moves it aside after some deliveries."""

    def read(self, message: Message) -> list[CloudEvent]:
        return events_of(message.body, self._place.cloud)


def events_of(body: str, cloud: str) -> list[CloudEvent]:
    """The events of objects that were created, in the body of one message; none for a test or another kind of event.

    Args:
        body: The message, in one of the three shapes.
        cloud: The cloud's name, for the events' source.

    Raises:
        Invalid: The body has none of the shapes; the caller leaves the message alone.
    """
    try:
        content = json.loads(body)
        if content.get("Type") == "Notification":
            content = json.loads(content["Message"])
        if content.get("Event") == "s3:TestEvent":
            return []
        if content.get("source") == "aws.s3":
            return list(_from_event_bridge(content, cloud))
        return list(_from_notification(content["Records"], cloud))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid("a message has none of the shapes of S3's events", "look at who writes to the queue") from error


def _from_notification(records: list[Any], cloud: str) -> Iterator[CloudEvent]:
    for record in records:
        if record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
            thing = record["s3"]["object"]
            key = unquote_plus(thing["key"])
            yield _created(cloud, record["s3"]["bucket"]["name"], key, record["eventTime"], thing, thing.get("eTag"))


def _from_event_bridge(event: Mapping[str, Any], cloud: str) -> Iterator[CloudEvent]:
    if event["detail-type"] == "Object Created":
        detail = event["detail"]
        thing = detail["object"]
        # EventBridge does not URL-encode keys.
        yield _created(cloud, detail["bucket"]["name"], thing["key"], event["time"], thing, thing.get("etag"))


def _created(
    cloud: str, bucket: str, key: str, time_text: str, thing: Mapping[str, Any], etag: str | None
) -> CloudEvent:
    # The sequencer differs between the writes of a key; services that have none still tell them apart by the rest.
    write = thing.get("sequencer") or thing.get("versionId") or thing.get("version-id") or f"{etag}@{time_text}"
    return object_created(
        cloud,
        bucket,
        key,
        write=write,
        time=datetime.fromisoformat(time_text),
        size_bytes=thing.get("size", 0),
        version=etag or "",
    )
