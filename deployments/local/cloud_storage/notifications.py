"""Notifications of a bucket's changes: which are wanted, and those that Pub/Sub has not taken yet.

What is to be published is written in the transaction of the change itself, so that a change and its notification are
one; the publisher takes it from there, again and again until Pub/Sub has it.

Source: Cloud Storage documentation, "Pub/Sub notifications for Cloud Storage".
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from deployments.local.cloud_storage.faults import Refused, invalid

Resource = dict[str, Any]

EVENTS = ("OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE", "OBJECT_DELETE", "OBJECT_ARCHIVE")
SCHEMA = """
CREATE TABLE IF NOT EXISTS notifications (bucket TEXT, id INTEGER, resource TEXT NOT NULL, PRIMARY KEY (bucket, id));
CREATE TABLE IF NOT EXISTS unpublished (
    number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, message TEXT NOT NULL
);
"""

_FORMATS = ("JSON_API_V1", "NONE")
_TOPIC = "//pubsub.googleapis.com/"
_AT_ONCE = 100
_LONGEST_PAUSE_S = 5.0
_log = logging.getLogger(__name__)


class Notifications:
    """The notification configurations of all buckets, and what is still to be published.

    Args:
        database: The catalog's, with `SCHEMA`; its transactions are the catalog's.
        default_topic: Topic (`projects/P/topics/T`) that every new bucket is configured for; '' for none, as in the
            service.
    """

    def __init__(self, database: sqlite3.Connection, default_topic: str = "") -> None:
        self._database = database
        self._default_topic = default_topic

    def of(self, bucket: str) -> list[Resource]:
        """The bucket's configurations."""
        rows = self._database.execute("SELECT resource FROM notifications WHERE bucket = ? ORDER BY id", (bucket,))
        return [json.loads(row[0]) for row in rows]

    def add(self, bucket: str, wish: Mapping[str, Any]) -> Resource:
        """One more configuration. Raises `Refused` (400)."""
        if not str(wish.get("topic", "")).startswith(f"{_TOPIC}projects/"):
            raise invalid("Invalid Cloud Pub/Sub topic.")
        if wish.get("payload_format") not in _FORMATS:
            raise invalid("Invalid payload format.")
        if any(event not in EVENTS for event in wish.get("event_types") or ()):
            raise invalid("Invalid event type.")
        query = "SELECT coalesce(max(id), 0) + 1 FROM notifications WHERE bucket = ?"
        (number,) = self._database.execute(query, (bucket,)).fetchone()
        whole = {**wish, "kind": "storage#notification", "id": str(number), "etag": str(number)}
        self._database.execute("INSERT INTO notifications VALUES (?, ?, ?)", (bucket, number, json.dumps(whole)))
        return whole

    def bucket_created(self, bucket: str) -> None:
        """Configure a new bucket for the default topic, if there is one."""
        if self._default_topic:
            self.add(bucket, {"topic": f"{_TOPIC}{self._default_topic}", "payload_format": "JSON_API_V1"})

    def remove(self, bucket: str, number: str) -> None:
        """Remove a configuration. Raises `Refused` (404)."""
        query = "DELETE FROM notifications WHERE bucket = ? AND id = ?"
        if not self._database.execute(query, (bucket, number)).rowcount:
            raise Refused(404, "notFound", f"Notification {number} of bucket {bucket} does not exist.")

    def changed(self, event: str, resource: Mapping[str, Any], **more: str) -> None:
        """Write down what is to be published of a change; call it in the change's transaction.

        Args:
            event: One of `EVENTS`.
            resource: The object's, as it is after the change (as it was, of one that is gone).
            more: Further attributes, such as `overwroteGeneration`.
        """
        for wanted in self.of(resource["bucket"]):
            is_wanted = event in (wanted.get("event_types") or EVENTS)
            if is_wanted and resource["name"].startswith(wanted.get("object_name_prefix", "")):
                self._database.execute(
                    "INSERT INTO unpublished (topic, message) VALUES (?, ?)",
                    (wanted["topic"].removeprefix(_TOPIC), json.dumps(_message(wanted, event, resource, more))),
                )

    def unpublished(self) -> list[tuple[int, str, Resource]]:
        """Number, topic and message of what Pub/Sub has not taken, in its order."""
        rows = self._database.execute(
            "SELECT number, topic, message FROM unpublished ORDER BY number LIMIT ?", (_AT_ONCE,)
        )
        return [(number, topic, json.loads(message)) for number, topic, message in rows]

    def published(self, number: int) -> None:
        """Forget one that was taken, or whose topic is gone."""
        self._database.execute("DELETE FROM unpublished WHERE number = ?", (number,))


def _message(wanted: Mapping[str, Any], event: str, resource: Mapping[str, Any], more: Mapping[str, str]) -> Resource:
    described = wanted["payload_format"] == "JSON_API_V1"
    attributes = {
        **(wanted.get("custom_attributes") or {}),
        "notificationConfig": f"projects/_/buckets/{resource['bucket']}/notificationConfigs/{wanted['id']}",
        "eventType": event,
        "payloadFormat": wanted["payload_format"],
        "bucketId": resource["bucket"],
        "objectId": resource["name"],
        "objectGeneration": resource["generation"],
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        **more,
    }
    content = {"data": base64.b64encode(json.dumps(resource).encode()).decode()} if described else {}
    return {**content, "attributes": attributes}


class Publisher:
    """Publishes what is written down, in its order, for as long as something is.

    Args:
        notifications: What is to be published.
        url: Where Pub/Sub is.
        token: The bearer token for it.
    """

    def __init__(self, notifications: Notifications, url: str, token: str) -> None:
        self._notifications = notifications
        self._client = httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=10, trust_env=False
        )
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Publish what there is, in the background; call it after every change."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        pause_s = 0.1
        while waiting := self._notifications.unpublished():
            for number, topic, message in waiting:
                if not await self._take(topic, message):
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                    break
                self._notifications.published(number)
                pause_s = 0.1

    async def _take(self, topic: str, message: Resource) -> bool:
        """Whether Pub/Sub has it, or has no such topic: the service drops notifications for a topic that is gone."""
        try:
            answer = await self._client.post(f"/v1/{topic}:publish", json={"messages": [message]})
        except httpx.HTTPError:
            return False
        if answer.status_code == 404:
            _log.warning("a notification for %s was dropped: there is no such topic", topic)
        return answer.is_success or answer.status_code == 404
