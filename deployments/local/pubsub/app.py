"""The REST API, version 1: who may ask, which method is meant, which fields a request may have.

A field that the service does not have is refused with 400, one with an effect that is not imitated with 501.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.local.pubsub.broker import Broker, Resource
from deployments.local.vertex_ai.errors import Refused, invalid

FIELDS: Mapping[str, frozenset[str]] = {
    "Topic": frozenset({"name", "labels", "messageRetentionDuration"}),
    "Subscription": frozenset({"name", "topic", "ackDeadlineSeconds", "labels", "deadLetterPolicy", "pushConfig"}),
    "DeadLetterPolicy": frozenset({"deadLetterTopic", "maxDeliveryAttempts"}),
    "PublishRequest": frozenset({"topic", "messages"}),
    "PubsubMessage": frozenset({"data", "attributes"}),
    "PullRequest": frozenset({"subscription", "maxMessages", "returnImmediately"}),
    "AcknowledgeRequest": frozenset({"subscription", "ackIds"}),
    "ModifyAckDeadlineRequest": frozenset({"subscription", "ackIds", "ackDeadlineSeconds"}),
}
"""What the double understands of each message."""

NOT_IMITATED: Mapping[str, frozenset[str]] = {
    "Topic": frozenset(
        {
            "messageStoragePolicy",
            "kmsKeyName",
            "schemaSettings",
            "satisfiesPzs",
            "state",
            "ingestionDataSourceSettings",
            "messageTransforms",
            "tags",
        }
    ),
    "Subscription": frozenset(
        {
            "bigqueryConfig",
            "bigtableConfig",
            "cloudStorageConfig",
            "retainAckedMessages",
            "messageRetentionDuration",
            "enableMessageOrdering",
            "expirationPolicy",
            "filter",
            "retryPolicy",
            "detached",
            "enableExactlyOnceDelivery",
            "topicMessageRetentionDuration",
            "state",
            "analyticsHubSubscriptionInfo",
            "messageTransforms",
            "tags",
        }
    ),
    "PubsubMessage": frozenset({"messageId", "publishTime", "orderingKey"}),
}
"""What the service has besides."""

_NAME = r"projects/[^/:]+/%s/[A-Za-z][A-Za-z0-9._~+%%-]{2,254}"
_PATHS = {
    "topic": re.compile(rf"/v1/(?P<name>{_NAME % 'topics'})(?::(?P<verb>\w+))?"),
    "subscription": re.compile(rf"/v1/(?P<name>{_NAME % 'subscriptions'})(?::(?P<verb>\w+))?"),
    "topics": re.compile(r"/v1/(?P<name>projects/[^/:]+)/topics"),
    "subscriptions": re.compile(r"/v1/(?P<name>projects/[^/:]+)/subscriptions"),
}
_LONGEST_POLL_S = 20.0
_LOOK_S = 0.5


class PubSub:
    """The double; `app` is its ASGI application.

    Args:
        broker: What it remembers.
        token: The only bearer token that is accepted.
    """

    def __init__(self, broker: Broker, token: str) -> None:
        self._broker = broker
        self._token = token

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/ready", lambda _: Response("ready\n")),
                Route("/{path:path}", self._handle, methods=["GET", "PUT", "POST", "PATCH", "DELETE"]),
            ]
        )

    async def _handle(self, request: Request) -> Response:
        try:
            self._authorise(request)
            return JSONResponse(await self._answer(request))
        except Refused as refused:
            return refused.as_response()

    async def _answer(self, request: Request) -> Resource:
        path, method = request.url.path, request.method
        if (method, path) == ("POST", "/_twin/expire"):
            self._broker.expire()
            return {}
        for kind, pattern in _PATHS.items():
            found = pattern.fullmatch(path)
            if found is None:
                continue
            verb = found.groupdict().get("verb") or ""
            match kind, method, verb:
                case "topics", "GET", "":
                    return {"topics": self._broker.topics(found["name"])}
                case "subscriptions", "GET", "":
                    return {"subscriptions": self._broker.subscriptions(found["name"])}
                case _, "POST", "testIamPermissions":
                    return await self._test_permissions(request, kind, found["name"])
                case "topic", _, _:
                    return await self._topic(request, found["name"], verb)
                case "subscription", _, _:
                    return await self._subscription(request, found["name"], verb)
                case _:
                    break
        raise Refused("UNIMPLEMENTED", f"The local double of Pub/Sub does not imitate {method} {path}.")

    async def _topic(self, request: Request, name: str, verb: str) -> Resource:
        match request.method, verb:
            case "PUT", "":
                return self._broker.create_topic({**_message("Topic", await _json(request)), "name": name})
            case "GET", "":
                return self._broker.topic(name)
            case "DELETE", "":
                self._broker.delete_topic(name)
                return {}
            case "POST", "publish":
                wish = _message("PublishRequest", await _json(request))
                messages = [_message("PubsubMessage", each) for each in wish.get("messages", ())]
                if not messages:
                    raise invalid("The value for message_count is too small. You passed 0 in the request.")
                return {"messageIds": self._broker.publish(name, messages)}
            case _:
                raise Refused("UNIMPLEMENTED", f"The local double of Pub/Sub does not imitate '{verb}' of a topic.")

    async def _subscription(self, request: Request, name: str, verb: str) -> Resource:
        match request.method, verb:
            case "PUT", "":
                resource = _message("Subscription", await _json(request))
                if resource.get("pushConfig"):
                    raise Refused("UNIMPLEMENTED", "The local double of Pub/Sub does not push.")
                if "deadLetterPolicy" in resource:
                    resource["deadLetterPolicy"] = _message("DeadLetterPolicy", resource["deadLetterPolicy"])
                return self._broker.create_subscription({**resource, "name": name})
            case "GET", "":
                return self._broker.subscription(name).resource
            case "DELETE", "":
                self._broker.delete_subscription(name)
                return {}
            case "POST", "pull":
                return await self._pull(request, name)
            case "POST", "acknowledge":
                wish = _message("AcknowledgeRequest", await _json(request))
                self._broker.acknowledge(name, wish.get("ackIds", ()))
                return {}
            case "POST", "modifyAckDeadline":
                wish = _message("ModifyAckDeadlineRequest", await _json(request))
                deadline_s = int(wish.get("ackDeadlineSeconds", 0))
                self._broker.modify_ack_deadline(name, wish.get("ackIds", ()), deadline_s)
                return {}
            case _:
                raise Refused("UNIMPLEMENTED", f"The local double of Pub/Sub does not imitate '{verb}' here.")

    async def _pull(self, request: Request, name: str) -> Resource:
        wish = _message("PullRequest", await _json(request))
        most, deadline = int(wish.get("maxMessages", 0)), time.monotonic() + _LONGEST_POLL_S
        while True:
            delivered = self._broker.pull(name, most)
            if delivered:
                return {"receivedMessages": delivered}
            if wish.get("returnImmediately") or time.monotonic() > deadline or await request.is_disconnected():
                return {}
            # Deadlines end without a word.
            await self._broker.wait(_LOOK_S)

    async def _test_permissions(self, request: Request, kind: str, name: str) -> Resource:
        """Whoever has the token may do everything."""
        (self._broker.topic if kind == "topic" else self._broker.subscription)(name)
        asked = (await _json(request)).get("permissions")
        if not isinstance(asked, list) or not asked:
            raise invalid("Permissions are required.")
        return {"permissions": asked}

    def _authorise(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise Refused("UNAUTHENTICATED", "Request had invalid authentication credentials.")


def _message(name: str, body: object) -> Resource:
    """The body as a message of this type, without what is null. Raises `Refused` for fields that it does not have."""
    if not isinstance(body, dict):
        raise invalid(f"Invalid value (google.pubsub.v1.{name})")
    found: Resource = {}
    for key, value in body.items():
        if key in FIELDS[name]:
            if value is not None:
                found[key] = value
        elif key in NOT_IMITATED.get(name, ()):
            raise Refused("UNIMPLEMENTED", f"The local double of Pub/Sub does not imitate '{key}'.")
        else:
            raise invalid(f'Invalid JSON payload received. Unknown name "{key}": Cannot find field.')
    return found


async def _json(request: Request) -> dict[str, Any]:
    body = await request.body()
    try:
        parsed: object = json.loads(body) if body else {}
    except ValueError as error:
        raise invalid("Invalid JSON payload received.") from error
    if not isinstance(parsed, dict):
        raise invalid("Invalid JSON payload received.")
    return {str(key): value for key, value in parsed.items()}
