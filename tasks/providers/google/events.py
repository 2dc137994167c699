"""Events of Cloud Storage as they arrive at a Pub/Sub subscription that is pulled.

Over REST by google-auth's session and not by google-cloud-pubsub, for the reasons in
docs/decisions/0040-pubsub-rest.md. The subscription, its acknowledgement deadline and its dead-letter topic are the
account's: Lintas pulls and acknowledges.

https://cloud.google.com/storage/docs/pubsub-notifications
https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from google.auth.transport.requests import AuthorizedSession

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid
from tasks.core.events import object_created
from tasks.core.ports import CloudEvent, EventSource
from tasks.providers._dialects.answers import readable
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers._dialects.queues import AT_ONCE, Message, QueueSource
from tasks.providers.google.errors import refusal, translated
from tasks.providers.google.identity import google_credentials

PUBSUB = "https://pubsub.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/pubsub",)

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 20.0


def subscription_path(config: CloudConfig) -> str:
    """The subscription's full name, `projects/PROJECT/subscriptions/NAME`; `options.subscription` may be the NAME."""
    name = config.option("subscription")
    return name if name.startswith("projects/") else f"projects/{config.option('project')}/subscriptions/{name}"


def subscription_place(config: CloudConfig) -> Place:
    """How errors name the subscription."""
    endpoint = config.endpoint_or_public("events") or PUBSUB
    return Place(
        config.name, subscription_path(config).rpartition("/")[2], address_of(endpoint), "subscription", "events"
    )


def open_events(config: CloudConfig, memory: Path) -> EventSource:
    """The cloud's subscription. Whether it is there and may be pulled, the first pull tells.

    Args:
        config: The cloud. `options.subscription` is its name; `endpoints.events` is optional.
        memory: Of no use here: the queue remembers.

    Raises:
        Invalid: No subscription is configured, or no project to find it in.
        Denied: There are no credentials.
    """
    del memory
    place = subscription_place(config)
    url = f"{(config.endpoint_or_public('events') or PUBSUB).rstrip('/')}/v1/{subscription_path(config)}"
    with translated(place):
        queue = PubSubQueue(AuthorizedSession(google_credentials(config, SCOPES)), place, url)
    return QueueSource(queue)


class PubSubQueue:
    """A subscription; implements `tasks.providers._dialects.queues.MessageQueue`."""

    def __init__(self, session: AuthorizedSession, place: Place, url: str) -> None:
        self._session = session
        self._place = place
        self._url = url

    @property
    def name(self) -> str:
        return self._place.bucket

    def take(self, wait_s: float) -> list[Message]:
        # The service waits a while of its own choice for the first message. A message that is on its way when
        # nobody listens any more comes again after the acknowledgement deadline.
        wish = {"maxMessages": AT_ONCE} | ({} if wait_s >= 1 else {"returnImmediately": True})
        answer = self._post("pull", wish, wait_s if wait_s >= 1 else _READ_TIMEOUT_S) or {}
        with readable(self._place.cloud):
            return [
                Message(str(each["message"]["messageId"]), str(each["ackId"]), each["message"])
                for each in answer.get("receivedMessages", ())
            ]

    def remove(self, receipt: str) -> None:
        if self._post("acknowledge", {"ackIds": [receipt]}, _READ_TIMEOUT_S) is None:
            raise self._place.unreachable()

    def set_aside(self, message: Message) -> None:
        """It comes again until the subscription's dead-letter policy moves it to its topic."""

    def read(self, message: Message) -> list[CloudEvent]:
        return events_of(message.body, self._place.cloud)

    def _post(self, verb: str, body: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any] | None:
        """Call a method; None when it did not answer in time. Raises what its answer means."""
        with translated(self._place):
            try:
                answer = self._session.post(
                    f"{self._url}:{verb}",
                    json=dict(body),
                    timeout=(_CONNECT_TIMEOUT_S, timeout_s),  # pyright: ignore[reportArgumentType]
                    allow_redirects=False,
                )
            except requests.ReadTimeout:
                return None
        if not answer.ok:
            raise refusal(answer.status_code, answer.text, answer.headers, self._place, None)
        with readable(self._place.cloud):
            return dict(answer.json())


def events_of(message: Mapping[str, Any], cloud: str) -> list[CloudEvent]:
    """The event of an object that was created, in one Pub/Sub message; none for another kind of event.

    Args:
        message: A `PubsubMessage` as REST spells it, its data in base64.
        cloud: The cloud's name, for the event's source.

    Raises:
        Invalid: It is no notification of Cloud Storage; the caller sets it aside.
    """
    try:
        told: Mapping[str, str] = message["attributes"]
        kind, bucket, key, generation = (
            told[name] for name in ("eventType", "bucketId", "objectId", "objectGeneration")
        )
        if kind != "OBJECT_FINALIZE":
            return []
        described: Mapping[str, Any] = (
            json.loads(base64.b64decode(message["data"], validate=True))
            if told.get("payloadFormat") == "JSON_API_V1"
            else {}
        )
        return [
            object_created(
                cloud,
                bucket,
                key,
                write=generation,
                time=datetime.fromisoformat(told.get("eventTime") or message["publishTime"]),
                size_bytes=int(described.get("size", 0)),
                version=generation,
            )
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid("a message is no notification of Cloud Storage", "look at who publishes to the topic") from error
