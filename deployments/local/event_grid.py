"""Event Grid's events of new blobs on a storage queue, which Azurite does not send by itself.

It lists all containers again and again and puts a message on the queue for each blob that was written since, encoded in
base64 as Event Grid does. Run it with `python -m deployments.local.event_grid`; the account's key comes as a file.

Sources: Event Grid documentation, "Azure Blob Storage as an Event Grid source", "Storage queue as an event handler",
"CloudEvents v1.0 schema with Azure Event Grid".
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobProperties, BlobServiceClient
from azure.storage.queue import QueueClient

SCHEMAS = ("event-grid", "cloud-events")
_PAUSE_S = 0.5
_GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/lintas"


class NewBlobs:
    """What was written since the last look. The first look only learns what there is.

    Args:
        service: The account's blobs.
    """

    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service
        self._known: dict[tuple[str, str], str] = {}

    def look(self) -> list[tuple[str, BlobProperties]]:
        """Containers and blobs, in the order of their writing."""
        found = dict(self._listed())
        new = [(place[0], blob) for place, blob in found.items() if self._known.get(place) != blob.etag]
        self._known = {place: str(blob.etag) for place, blob in found.items()}
        return sorted(new, key=lambda each: each[1].last_modified)

    def forget(self, container: str, name: str) -> None:
        """Find this blob again: it could not be announced."""
        self._known.pop((container, name), None)

    def _listed(self) -> Iterator[tuple[tuple[str, str], BlobProperties]]:
        for container in self._service.list_containers():
            try:
                for blob in self._service.get_container_client(container.name).list_blobs():
                    yield (container.name, blob.name), blob
            except ResourceNotFoundError:
                continue  # Deleted since the containers were listed.


def event(account: str, url: str, container: str, blob: BlobProperties, *, schema: str, api: str) -> dict[str, Any]:
    """The event of one blob's creation.

    Args:
        account: The storage account.
        url: The blob's URL.
        container: Its container.
        blob: What the listing says of it.
        schema: One of `SCHEMAS`.
        api: The operation that made it, `PutBlob` or `PutBlockList`.
    """
    topic = f"{_GROUP}/providers/Microsoft.Storage/storageAccounts/{account}"
    written = blob.last_modified.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    etag = str(blob.etag).strip('"')
    # The same write is the same event, however often it is announced.
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{url}#{etag}"))
    data = {
        "api": api,
        "requestId": identity,
        "eTag": etag,
        "contentType": blob.content_settings.content_type,
        "contentLength": blob.size,
        "blobType": "BlockBlob",
        "url": url,
        "sequencer": f"{int(blob.last_modified.timestamp()):032X}{etag.removeprefix('0x'):0>16}",
        "storageDiagnostics": {"batchId": identity},
    }
    subject = f"/blobServices/default/containers/{container}/blobs/{blob.name}"
    common = {"id": identity, "subject": subject, "data": data}
    if schema == "cloud-events":
        kind = {"specversion": "1.0", "type": "Microsoft.Storage.BlobCreated", "source": topic}
        return {**kind, **common, "time": written}
    kind = {"topic": topic, "eventType": "Microsoft.Storage.BlobCreated", "eventTime": written}
    return {**kind, **common, "dataVersion": "", "metadataVersion": "1"}


def main() -> None:
    """Watch until a signal ends it."""
    parser = argparse.ArgumentParser(prog="event_grid", description="Event Grid's events of Azurite's blobs.")
    parser.add_argument("--blob-url", required=True, help="where the account's blobs are")
    parser.add_argument("--queue-url", required=True, help="where its queues are")
    parser.add_argument("--account", required=True, help="the storage account")
    parser.add_argument("--account-key-file", type=Path, required=True, help="file with its key")
    parser.add_argument("--queue", required=True, help="queue for the events; created if it is missing")
    parser.add_argument("--schema", choices=SCHEMAS, default=SCHEMAS[0], help="form of the events")
    chosen = parser.parse_args()
    credential = {"account_name": chosen.account, "account_key": chosen.account_key_file.read_text().strip()}
    service = BlobServiceClient(chosen.blob_url, credential=credential)
    queue = QueueClient(chosen.queue_url, chosen.queue, credential=credential)
    with contextlib.suppress(ResourceExistsError):
        queue.create_queue()
    blobs = NewBlobs(service)
    blobs.look()
    print("watching", flush=True)
    while True:
        time.sleep(_PAUSE_S)
        try:
            announce(service, queue, blobs, account=chosen.account, schema=chosen.schema)
        except AzureError as error:
            print(f"{type(error).__name__} while looking for new blobs; looking again", flush=True)


def announce(service: BlobServiceClient, queue: QueueClient, blobs: NewBlobs, *, account: str, schema: str) -> None:
    """Put the events of what was written since the last look on the queue. Raises `AzureError`; call it again."""
    new = blobs.look()
    for number, (container, found) in enumerate(new):
        client = service.get_blob_client(container, found.name)
        try:
            committed, _ = client.get_block_list("committed")
            api = "PutBlockList" if committed else "PutBlob"
            told = event(account, client.url, container, found, schema=schema, api=api)
            queue.send_message(base64.b64encode(json.dumps(told).encode()).decode())
        except ResourceNotFoundError:
            continue  # Gone since it was listed.
        except AzureError:
            for missed_container, missed in new[number:]:
                blobs.forget(missed_container, missed.name)
            raise


if __name__ == "__main__":
    main()
