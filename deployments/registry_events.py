"""The model registry's events: a small HTTP server that MLflow's webhook posts to, and an inbox on disk behind it.

A delivery is answered when it lies in the inbox, and stays there until Prefect took it: neither a crash of the bridge
nor Prefect's absence loses one. While the bridge itself is away MLflow tries again for some seconds and then gives up.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import Denied, Invalid, Retryable, Terminal
from tasks.core.ports import CloudEvent
from tasks.core.webhooks import SUBSCRIBED, registry_event

if TYPE_CHECKING:
    import httpx

WEBHOOK = "lintas-event-bridge"
"""Name of the webhook in MLflow."""

_LARGEST_BODY = 1 << 20
_TIMEOUT_S = 10.0
_AT_ONCE = 100


class Inbox:
    """Events of the registry that Prefect has not taken yet: a file each, an `EventSource`.

    Args:
        directory: Where they lie; made when missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._arrived = threading.Event()
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, event: CloudEvent) -> None:
        """Keep an event, for good when this returns; one that lies there already stays as it is."""
        draft, kept = self._directory / f"{event.id}.draft", self._directory / f"{event.id}.json"
        with draft.open("w", encoding="utf-8") as file:
            json.dump({**asdict(event), "time": event.time.isoformat()}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(kept)
        self._arrived.set()

    def receive(self, *, wait_s: float) -> list[tuple[CloudEvent, str]]:
        """The oldest events, with what acknowledges them; waits for the first one."""
        if not (names := self._waiting()) and self._arrived.wait(wait_s):
            names = self._waiting()
        self._arrived.clear()
        return [(self._read(name), name) for name in names]

    def acknowledge(self, receipt: str) -> None:
        """Forget an event that Prefect took."""
        (self._directory / receipt).unlink(missing_ok=True)

    def _waiting(self) -> list[str]:
        files = sorted(self._directory.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [path.name for path in files[:_AT_ONCE]]

    def _read(self, name: str) -> CloudEvent:
        told = json.loads((self._directory / name).read_text(encoding="utf-8"))
        return CloudEvent(**{**told, "time": datetime.fromisoformat(told["time"])})


def application(inbox: Inbox, secret: str) -> Callable[..., Awaitable[None]]:
    """The webhook's ASGI application.

    Args:
        inbox: Where deliveries go.
        secret: The webhook's.
    """

    async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]):
        if scope["type"] != "http":
            return
        status, text = 405, "POST what MLflow tells"
        if scope["method"] == "POST":
            status, text = _taken(await _body(receive), scope["headers"])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": text.encode()})

    def _taken(body: bytes | None, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, str]:
        if body is None:
            return 413, "larger than any webhook of the registry"
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        try:
            inbox.put(registry_event(body, named, secret, now=datetime.now(UTC)))
        except Denied as error:
            return 401, str(error)
        except Invalid as error:
            return 400, str(error)
        except OSError as error:
            return 503, f"the inbox cannot be written ({error.strerror})"
        return 202, ""

    return app


async def _body(receive: Callable[[], Awaitable[Any]]) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return body


def listen(address: str, app: Callable[..., Awaitable[None]]) -> Callable[[], None]:
    """Serve the application from a thread of its own.

    Args:
        address: `HOST:PORT`.
        app: The application.

    Returns:
        Ends it.

    Raises:
        Invalid: The address is none, or something listens there already.
    """
    import uvicorn

    host, _, port = address.rpartition(":")
    try:
        listener = socket.create_server((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise Invalid(
            f"services.registry_webhook.listen: '{address}' cannot be listened on",
            "name a free HOST:PORT of this machine",
        ) from error
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, lifespan="off")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="registry-webhook", daemon=True)
    thread.start()

    def end() -> None:
        server.should_exit = True
        thread.join(_TIMEOUT_S)

    return end


def subscribe(mlflow_url: str, url: str, secret: str) -> None:
    """Have MLflow post to this URL; a webhook of an earlier start is brought up to date.

    MLflow's REST API is asked as it stands: its client would bring all of MLflow into the bridge.

    Args:
        mlflow_url: The tracking server.
        url: Where the webhook is reached from there.
        secret: What it signs with.

    Raises:
        Denied: MLflow refuses the bridge; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
            MLFLOW_TRACKING_TOKEN, of somebody who may make webhooks.
        Retryable: MLflow is away; try again.
        Terminal: It knows no webhooks, or refuses this one.
    """
    import httpx

    events = [{"entity": entity, "action": action} for entity, action in SUBSCRIBED]
    wanted = {"name": WEBHOOK, "url": url, "events": events, "secret": secret, "status": "ACTIVE"}
    webhooks = f"{mlflow_url}/api/2.0/mlflow/webhooks"
    try:
        with httpx.Client(timeout=_TIMEOUT_S, **_credentials()) as client:
            there = _webhook_id(client, webhooks)
            _answer(client.patch(f"{webhooks}/{there}", json=wanted) if there else client.post(webhooks, json=wanted))
    except httpx.HTTPError as error:
        raise Retryable(
            f"MLflow at {mlflow_url} does not answer", "start it: 'lintas status' shows what runs"
        ) from error


def _webhook_id(client: httpx.Client, webhooks: str) -> str:
    """The id of the bridge's webhook; nothing when MLflow has none."""
    page: dict[str, str] = {}
    while True:
        listed = _answer(client.get(webhooks, params=page))
        for hook in listed.get("webhooks", ()):
            if hook["name"] == WEBHOOK:
                return str(hook["webhook_id"])
        if not listed.get("next_page_token"):
            return ""
        page = {"page_token": listed["next_page_token"]}


def _credentials() -> dict[str, Any]:
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"headers": {"authorization": f"Bearer {token}"}}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return {"auth": (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))} if user else {}


def _answer(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code in (401, 403):
        raise Denied("MLflow refuses to make a webhook", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Retryable(f"MLflow answers {answer.status_code} about its webhooks", "look at its log")
    if answer.status_code >= 400:
        raise Terminal(
            f"MLflow refuses the webhook ({answer.status_code})",
            "check services.registry_webhook.url and MLFLOW_WEBHOOK_ALLOWED_SCHEMES at the server",
        )
    return answer.json()
