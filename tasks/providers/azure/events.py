"""Events of Blob Storage as Event Grid puts them on a storage queue.

Both of Event Grid's forms are read, its own and CloudEvents 1.0. The service has no dead letters for queues: what is
not understood goes to the queue `NAME-poison`, as Azure Functions do it.

https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage
https://learn.microsoft.com/azure/event-grid/handler-storage-queues
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import LinearRetry, QueueClient

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError
from tasks.core.events import object_created
from tasks.core.ports import CloudEvent, EventSource
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers._dialects.polling import seconds
from tasks.providers._dialects.queues import AT_ONCE, Message, QueueSource
from tasks.providers.azure.errors import code_of, translated
from tasks.providers.azure.identity import storage_credential

POISON = "-poison"

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0
_REDELIVER_S = 60.0
_CREATED = "Microsoft.Storage.BlobCreated"
# With a hierarchical namespace an empty file is announced before anything is written into it (`CreateFile`).
_WHOLE = ("PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit")
_SUBJECT = "/blobServices/default/containers/"


def queue_place(config: CloudConfig) -> Place:
    """How errors name the queue."""
    return Place(config.name, config.option("queue"), address_of(queue_endpoint(config)), "queue", "events")


def queue_endpoint(config: CloudConfig) -> str:
    """Where the account's queues are."""
    return config.endpoint_or_public("events") or f"https://{config.option('account')}.queue.core.windows.net"


def open_queue(config: CloudConfig, name: str) -> QueueClient:
    """A client of one queue.

    Raises:
        Invalid: The account is missing, or a token would travel in the clear.
        Denied: A credential's reference leads nowhere.
    """
    return QueueClient(
        queue_endpoint(config),
        name,
        credential=storage_credential(config, queue_endpoint(config), "events"),
        retry_policy=LinearRetry(backoff=1, retry_total=2, random_jitter_range=1),
        connection_timeout=10,
        read_timeout=30,
    )


def open_events(config: CloudConfig, memory: Path) -> EventSource:
    """The cloud's queue.

    Args:
        config: The cloud. `options.queue` is the queue's name in the account; `options.redeliver_s` is after how many
            seconds a message that was not acknowledged comes again (60); `endpoints.events` is optional.
        memory: Of no use here: the queue remembers.

    Raises:
        Invalid: No queue is configured, or what `open_queue` raises.
        Denied: A credential's reference leads nowhere.
    """
    del memory
    place, name = queue_place(config), config.option("queue")
    redeliver_s = max(1, round(seconds(config, "redeliver_s", _REDELIVER_S)))
    return QueueSource(StorageQueue(open_queue(config, name), open_queue(config, name + POISON), place, redeliver_s))


class StorageQueue:
    """A queue; implements `tasks.providers._dialects.queues.MessageQueue`.

    A receipt names the message and this delivery of it; one of an earlier delivery removes nothing.
    """

    def __init__(self, queue: QueueClient, poison: QueueClient, place: Place, redeliver_s: int) -> None:
        self._queue = queue
        self._poison = poison
        self._place = place
        self._redeliver_s = redeliver_s

    @property
    def name(self) -> str:
        return self._place.bucket

    def take(self, wait_s: float) -> list[Message]:
        with translated(self._place):
            found = list(
                self._queue.receive_messages(
                    messages_per_page=AT_ONCE, max_messages=AT_ONCE, visibility_timeout=self._redeliver_s
                )
            )
        if not found:
            # The service answers at once, whether there is a message or not.
            time.sleep(min(_PAUSE_S, wait_s))
        return [Message(each.id, f"{each.id}/{each.pop_receipt}", each.content) for each in found]

    def remove(self, receipt: str) -> None:
        message_id, _, pop_receipt = receipt.partition("/")
        with translated(self._place):
            try:
                self._queue.delete_message(message_id, pop_receipt)
            except ResourceNotFoundError as error:
                if code_of(error) not in ("MessageNotFound", "PopReceiptMismatch"):
                    raise

    def set_aside(self, message: Message) -> None:
        try:
            with translated(self._place):
                try:
                    self._poison.send_message(message.body)
                except ResourceNotFoundError:
                    self._make_poison_queue()
                    self._poison.send_message(message.body)
        except LintasError as error:
            # It stays in the queue and comes again; the others are not to wait for it.
            _log.warning("message %s of '%s' stays where it is: %s", message.id, self.name, error)
            return
        self.remove(message.receipt)

    def read(self, message: Message) -> list[CloudEvent]:
        return events_of(message.body, self._place.cloud)

    def _make_poison_queue(self) -> None:
        try:
            self._poison.create_queue()
        except ResourceExistsError:
            return


def events_of(body: str, cloud: str) -> list[CloudEvent]:
    """The event of a blob that was created, in the body of one message; none for another kind of event.

    Args:
        body: The message: JSON in one of the two forms, in base64 as Event Grid writes it, or plain.
        cloud: The cloud's name, for the event's source.

    Raises:
        Invalid: The body has neither of the forms; the caller sets it aside.
    """
    try:
        told: Mapping[str, Any] = json.loads(body if body.lstrip().startswith("{") else _decoded(body))
        kind, moment = (told["type"], told["time"]) if "specversion" in told else (told["eventType"], told["eventTime"])
        if kind != _CREATED or told["data"]["api"] not in _WHOLE:
            return []
        data: Mapping[str, Any] = told["data"]
        subject = str(told["subject"])
        container, slash, key = subject.removeprefix(_SUBJECT).partition("/blobs/")
        if not (subject.startswith(_SUBJECT) and slash and key):
            raise ValueError
        return [
            object_created(
                cloud,
                container,
                key,
                write=str(data.get("sequencer") or told["id"]),
                time=datetime.fromisoformat(moment),
                size_bytes=int(data.get("contentLength", 0)),
                version=str(data.get("eTag", "")).strip('"'),
            )
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid("a message is no event of Blob Storage", "look at who writes to the queue") from error


def _decoded(body: str) -> bytes:
    return base64.b64decode(body, validate=True)
