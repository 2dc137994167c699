"""What the double remembers: topics, subscriptions, and messages until somebody acknowledges them.

In memory, and called from the server's event loop only. The clock is a parameter, and leases can be ended by hand.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments.local.vertex_ai.errors import Refused, invalid

Resource = dict[str, Any]

SMALLEST_DEADLINE_S, LARGEST_DEADLINE_S = 10, 600
FEWEST_ATTEMPTS, MOST_ATTEMPTS = 5, 100
MOST_MESSAGES = 1000


@dataclass
class Delivery:
    """A message in a subscription: when it may be delivered (again), how often it was, and by which id last."""

    message: Resource
    due: float = 0.0
    attempts: int = 0
    ack_id: str = ""


@dataclass
class Subscription:
    """A subscription with the messages that nobody has acknowledged."""

    resource: Resource
    waiting: list[Delivery] = field(default_factory=list[Delivery])

    @property
    def deadline_s(self) -> int:
        """Seconds in which a delivery must be acknowledged."""
        return int(self.resource["ackDeadlineSeconds"])


class Broker:
    """Topics and subscriptions.

    Args:
        now: Seconds that only grow.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._topics: dict[str, Resource] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._numbers: Iterator[int] = itertools.count(time.time_ns() // 1000)
        self._changed = asyncio.Event()

    def create_topic(self, resource: Resource) -> Resource:
        """A new topic. Raises `Refused` (409)."""
        name = resource["name"]
        if name in self._topics:
            raise Refused("ALREADY_EXISTS", f"Resource already exists in the project (resource={_short(name)}).")
        self._topics[name] = resource
        return resource

    def topic(self, name: str) -> Resource:
        """A topic. Raises `Refused` (404)."""
        if name not in self._topics:
            raise _missing(name)
        return self._topics[name]

    def topics(self, project: str) -> list[Resource]:
        """The topics of a project, by name."""
        return [each for name, each in sorted(self._topics.items()) if name.startswith(f"{project}/")]

    def delete_topic(self, name: str) -> None:
        """Remove a topic; its subscriptions stay, with the messages that they have. Raises `Refused` (404)."""
        self.topic(name)
        del self._topics[name]
        for subscription in self._subscriptions.values():
            if subscription.resource["topic"] == name:
                subscription.resource["topic"] = "_deleted-topic_"

    def create_subscription(self, resource: Resource) -> Resource:
        """A new subscription, for what is published from now on. Raises `Refused` (400, 404, 409)."""
        name = resource["name"]
        self.topic(resource.get("topic", ""))
        if name in self._subscriptions:
            raise Refused("ALREADY_EXISTS", f"Resource already exists in the project (resource={_short(name)}).")
        whole = {"pushConfig": {}, "messageRetentionDuration": "604800s", "state": "ACTIVE", **resource}
        whole["ackDeadlineSeconds"] = resource.get("ackDeadlineSeconds") or SMALLEST_DEADLINE_S
        if not SMALLEST_DEADLINE_S <= whole["ackDeadlineSeconds"] <= LARGEST_DEADLINE_S:
            raise invalid("Invalid ack deadline given: it must be between 10 and 600 seconds.")
        if "deadLetterPolicy" in whole:
            whole["deadLetterPolicy"] = self._dead_letter_policy(whole["deadLetterPolicy"])
        self._subscriptions[name] = Subscription(whole)
        return whole

    def subscription(self, name: str) -> Subscription:
        """A subscription. Raises `Refused` (404)."""
        if name not in self._subscriptions:
            raise _missing(name)
        return self._subscriptions[name]

    def subscriptions(self, project: str) -> list[Resource]:
        """The subscriptions of a project, by name."""
        found = sorted(self._subscriptions.items())
        return [each.resource for name, each in found if name.startswith(f"{project}/")]

    def delete_subscription(self, name: str) -> None:
        """Remove a subscription and its messages. Raises `Refused` (404)."""
        self.subscription(name)
        del self._subscriptions[name]
        self._wake()

    def publish(self, topic: str, messages: Sequence[Resource]) -> list[str]:
        """Give messages to every subscription of the topic; their ids. Raises `Refused` (400, 404)."""
        self.topic(topic)
        for message in messages:
            if not message.get("data") and not message.get("attributes"):
                raise invalid("The value for message is invalid: it must have data or at least one attribute.")
            _check_data(message.get("data", ""))
        published: list[Resource] = []
        for message in messages:
            stamped = {"messageId": str(next(self._numbers)), "publishTime": _timestamp(), **message}
            for subscription in self._subscriptions.values():
                if subscription.resource["topic"] == topic:
                    subscription.waiting.append(Delivery(stamped))
            published.append(stamped)
        self._wake()
        return [message["messageId"] for message in published]

    def pull(self, name: str, most: int) -> list[Resource]:
        """Deliver messages that are due, and move those that were delivered too often to the dead-letter topic.

        Raises:
            Refused: 404 without the subscription, 400 for a number of messages that cannot be.
        """
        subscription = self.subscription(name)
        if not most >= 1:
            raise invalid("The value for max_messages is too small; it must be at least 1.")
        delivered: list[Resource] = []
        now = self._now()
        policy: Mapping[str, Any] = subscription.resource.get("deadLetterPolicy", {})
        for delivery in [each for each in subscription.waiting if each.due <= now]:
            if policy and delivery.attempts >= policy["maxDeliveryAttempts"]:
                self._bury(subscription, delivery)
                continue
            if len(delivered) == min(most, MOST_MESSAGES):
                break
            delivery.attempts += 1
            delivery.ack_id = _ack_id()
            delivery.due = now + subscription.deadline_s
            told: Resource = {"ackId": delivery.ack_id, "message": delivery.message}
            # Attempts are counted for people only where there is a dead-letter policy.
            delivered.append({**told, "deliveryAttempt": delivery.attempts} if policy else told)
        return delivered

    async def wait(self, timeout_s: float) -> None:
        """Wait until something was published or becomes due, at most this long."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    def acknowledge(self, name: str, ack_ids: Sequence[str]) -> None:
        """Remove deliveries. An id whose deadline is over has no effect. Raises `Refused` (400, 404)."""
        subscription = self.subscription(name)
        _check_ack_ids(ack_ids)
        now = self._now()
        subscription.waiting = [
            each for each in subscription.waiting if not (each.ack_id in ack_ids and each.due > now)
        ]

    def modify_ack_deadline(self, name: str, ack_ids: Sequence[str], deadline_s: int) -> None:
        """Give deliveries another deadline; 0 gives them back at once. Raises `Refused` (400, 404)."""
        subscription = self.subscription(name)
        _check_ack_ids(ack_ids)
        if not 0 <= deadline_s <= LARGEST_DEADLINE_S:
            raise invalid("Invalid ack deadline given: it must be between 0 and 600 seconds.")
        now = self._now()
        for delivery in subscription.waiting:
            if delivery.ack_id in ack_ids and delivery.due > now:
                delivery.due = now + deadline_s
        self._wake()

    def expire(self) -> None:
        """End every lease, as if the deadlines of all deliveries were over."""
        for subscription in self._subscriptions.values():
            for delivery in subscription.waiting:
                delivery.due = 0.0
        self._wake()

    def _bury(self, subscription: Subscription, delivery: Delivery) -> None:
        subscription.waiting.remove(delivery)
        source = subscription.resource["name"]
        told = {
            "CloudPubSubDeadLetterSourceSubscription": source.rpartition("/")[2],
            "CloudPubSubDeadLetterSourceSubscriptionProject": source.split("/")[1],
            "CloudPubSubDeadLetterSourceDeliveryCount": str(delivery.attempts),
            "CloudPubSubDeadLetterSourceTopicPublishTime": delivery.message["publishTime"],
        }
        kept = {key: value for key, value in delivery.message.items() if key in ("data", "attributes")}
        attributes = {**kept.get("attributes", {}), **told}
        self.publish(subscription.resource["deadLetterPolicy"]["deadLetterTopic"], [{**kept, "attributes": attributes}])

    def _dead_letter_policy(self, policy: Mapping[str, Any]) -> Resource:
        attempts = policy.get("maxDeliveryAttempts") or FEWEST_ATTEMPTS
        if not FEWEST_ATTEMPTS <= attempts <= MOST_ATTEMPTS:
            raise invalid("Invalid dead letter policy: max_delivery_attempts must be between 5 and 100.")
        self.topic(policy.get("deadLetterTopic", ""))
        return {**policy, "maxDeliveryAttempts": attempts}

    def _wake(self) -> None:
        self._changed.set()


def _missing(name: str) -> Refused:
    return Refused("NOT_FOUND", f"Resource not found (resource={_short(name)}).")


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ack_id() -> str:
    return base64.urlsafe_b64encode(b"ack:" + secrets.token_bytes(24)).decode()


def _check_ack_ids(ack_ids: Sequence[str]) -> None:
    if not ack_ids:
        raise invalid("No ack ids specified.")
    for ack_id in ack_ids:
        try:
            ours = base64.urlsafe_b64decode(ack_id.encode()).startswith(b"ack:")
        except ValueError:
            ours = False
        if not ours:
            raise invalid("You have passed an invalid ack ID to the service.")


def _check_data(data: object) -> None:
    try:
        base64.b64decode(str(data), validate=True)
    except ValueError as error:
        raise invalid("Invalid value at 'messages[0].data' (TYPE_BYTES), Base64 decoding failed.") from error
