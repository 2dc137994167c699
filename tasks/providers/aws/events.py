"""Events of S3 as they arrive on an SQS queue.

A bucket's notifications reach the queue directly, through an SNS topic, or through EventBridge; all three shapes
are read, and one write has the same event id in each of them.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import boto3
from botocore.config import Config

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid
from tasks.core.ports import CloudEvent
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers.aws.errors import translated

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_log = logging.getLogger(__name__)

OBJECT_CREATED = "lintas.object.created"

_LONGEST_POLL_S = 20
_AT_ONCE = 10


def open_events(config: CloudConfig) -> SqsEvents:
    """The cloud's event queue.

    Args:
        config: The cloud. `options.queue` is the queue's name or URL; `endpoints.events` is optional.

    Raises:
        Invalid: No queue is configured.
        NotFound: There is no queue of this name.
    """
    queue = config.option("queue")
    secrets = {name: secret.reveal() for name, secret in config.credentials.items()}
    session = boto3.Session(
        aws_access_key_id=secrets.get("access_key_id"),
        aws_secret_access_key=secrets.get("secret_access_key"),
        aws_session_token=secrets.get("session_token"),
        region_name=config.region or None,
    )
    client = session.client(
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
    return SqsEvents(client, place, url)


class SqsEvents:
    """A queue; implements `tasks.core.ports.EventSource`.

    A message may carry several records; it is deleted when all of its events were acknowledged. A message that is
    not understood stays in the queue, where the queue's redrive policy moves it aside for a person.
    """

    def __init__(self, client: SQSClient, place: Place, url: str) -> None:
        self._client = client
        self._place = place
        self._url = url
        self._lock = threading.Lock()
        self._shared: dict[str, set[str]] = {}

    def receive(self, *, wait_s: float) -> list[tuple[CloudEvent, str]]:
        """See `EventSource.receive`; up to ten messages at once, which hold one event each as S3 sends them."""
        deadline = time.monotonic() + wait_s
        while True:
            poll_s = max(0, min(_LONGEST_POLL_S, int(deadline - time.monotonic())))
            with translated(self._place):
                answer = self._client.receive_message(
                    QueueUrl=self._url, MaxNumberOfMessages=_AT_ONCE, WaitTimeSeconds=poll_s
                )
            found = [pair for message in answer.get("Messages", []) for pair in self._events_in(message)]
            if found or time.monotonic() + 1 > deadline:
                return found

    def acknowledge(self, receipt: str) -> None:
        handle = receipt.partition("#")[2]
        with self._lock:
            waiting = self._shared.get(handle, set())
            waiting.discard(receipt)
            if waiting:
                return
            self._shared.pop(handle, None)
        self._delete(handle)

    def _events_in(self, message: Mapping[str, Any]) -> list[tuple[CloudEvent, str]]:
        handle = message["ReceiptHandle"]
        try:
            events = events_of(message["Body"], self._place.cloud)
        except Invalid:
            _log.warning(
                "message %s in queue '%s' is not understood and stays there", message["MessageId"], self._place.bucket
            )
            return []
        if not events:
            self._delete(handle)
            return []
        pairs = [(event, f"{number}#{handle}") for number, event in enumerate(events)]
        if len(pairs) > 1:
            with self._lock:
                self._shared[handle] = {receipt for _, receipt in pairs}
        return pairs

    def _delete(self, handle: str) -> None:
        with translated(self._place):
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=handle)


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
    return CloudEvent(
        id=f"{cloud}://{bucket}/{key}#{write}",
        type=OBJECT_CREATED,
        source=f"{cloud}://{bucket}",
        subject=key,
        time=datetime.fromisoformat(time_text),
        data={"bucket": bucket, "key": key, "size_bytes": thing.get("size", 0), "version": etag or ""},
    )
