"""S3's events to SQS, which SeaweedFS does not send by itself.

SeaweedFS's filer tells a webhook of every change of its tree; this process keeps those that finish an object and puts
the message on the queue that S3 would put there. Run it with `python -m deployments.local.s3_events`; the secrets
come as files. The webhook is answered only when SQS has taken the message, so that the filer tries again otherwise.

Sources: Amazon S3 User Guide, "Event message structure"; SeaweedFS wiki, "Filer Notification Webhook".
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from deployments.local.serve import serve

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_BUCKETS = "/buckets/"
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class FinishedObject:
    """An object that was written as a whole.

    Args:
        bucket: Where.
        key: Its key, not encoded.
        size_bytes: Its size.
        etag: Its ETag without quotes; one of a multipart upload has a hyphen.
        written_ns: When it was written, nanoseconds since 1970.
    """

    bucket: str
    key: str
    size_bytes: int
    etag: str
    written_ns: int

    @classmethod
    def of(cls, change: dict[str, Any]) -> FinishedObject | None:
        """The object that a change of the filer's tree finishes; None for parts, folders, tags and the filer's own."""
        path = str(change.get("key", ""))
        message: dict[str, Any] = change.get("message") or {}
        entry: dict[str, Any] = message.get("new_entry") or {}
        bucket, _, key = path.removeprefix(_BUCKETS).partition("/")
        folder = key.rpartition("/")[0]
        hidden = bucket.startswith(".") or key.startswith(".uploads/") or folder.endswith(".versions")
        if not path.startswith(_BUCKETS) or not key or not entry or hidden or entry.get("is_directory"):
            return None
        if _content(entry) == _content(message.get("old_entry") or {}):
            return None
        attributes: dict[str, Any] = entry.get("attributes") or {}
        stored_etag = (entry.get("extended") or {}).get("Seaweed-X-Amz-ETag", "")
        chunks: list[dict[str, Any]] = entry.get("chunks") or []
        written_ns = max((int(chunk["modified_ts_ns"]) for chunk in chunks), default=0)
        return cls(
            bucket,
            key,
            int(attributes.get("file_size", 0)),
            base64.b64decode(stored_etag).decode() or base64.b64decode(attributes.get("md5", "")).hex(),
            written_ns or int(attributes.get("mtime", 0)) * 1_000_000_000,
        )

    def message(self, region: str) -> dict[str, Any]:
        """The message that S3 sends for it, version 2.1 of the structure."""
        request = secrets.token_hex(8).upper()
        written = datetime.fromtimestamp(self.written_ns / 1e9, UTC)
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": region,
            "eventTime": written.strftime("%Y-%m-%dT%H:%M:%S.") + f"{written.microsecond // 1000:03d}Z",
            "eventName": "ObjectCreated:CompleteMultipartUpload" if "-" in self.etag else "ObjectCreated:Put",
            "userIdentity": {"principalId": "AWS:local"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"},
            "responseElements": {"x-amz-request-id": request, "x-amz-id-2": request},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "lintas",
                "bucket": {
                    "name": self.bucket,
                    "ownerIdentity": {"principalId": "local"},
                    "arn": f"arn:aws:s3:::{self.bucket}",
                },
                "object": {
                    "key": quote_plus(self.key, safe="/"),
                    "size": self.size_bytes,
                    "eTag": self.etag,
                    "sequencer": f"{self.written_ns:018X}",
                },
            },
        }
        return {"Records": [record]}


def _content(entry: dict[str, Any]) -> tuple[object, ...]:
    """What differs between two entries exactly when the content was written again."""
    attributes: dict[str, Any] = entry.get("attributes") or {}
    # `fid` and `file_id` name the same chunk in two notations; the time of its writing is in both entries.
    chunks = [(chunk.get("offset", 0), chunk["modified_ts_ns"]) for chunk in entry.get("chunks") or []]
    return attributes.get("crtime") and chunks, attributes.get("mtime"), attributes.get("file_size", 0)


def notification_settings(url: str, token: str) -> str:
    """SeaweedFS's `notification.toml` that makes its filer call this process."""
    return f"""[notification.webhook]
enabled = true
endpoint = "{url}"
bearer_token = "{token}"
timeout_seconds = 10
max_retries = 10
backoff_seconds = 1
max_backoff_seconds = 30
# One worker keeps the order in which objects were written.
workers = 1
event_types = ["create", "update", "rename"]
path_prefixes = ["{_BUCKETS}"]
"""


def application(
    *, sqs_url: str, queue: str, region: str, access_key_id: str, secret_access_key: str, token: str
) -> Starlette:
    """The webhook as an ASGI application; creates the queue.

    Args:
        sqs_url: Endpoint of SQS.
        queue: Name of the queue.
        region: Region of the queue and of the bucket.
        access_key_id: Key for SQS.
        secret_access_key: Its secret.
        token: The bearer token that the filer sends.
    """
    import boto3
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    sqs = boto3.client(
        "sqs",
        endpoint_url=sqs_url,
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
    )
    queue_url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    sent: OrderedDict[FinishedObject, None] = OrderedDict()

    async def ready(request: Request) -> Response:
        return PlainTextResponse("ready")

    async def changed(request: Request) -> Response:
        if not secrets.compare_digest(request.headers.get("authorization", ""), f"Bearer {token}"):
            return PlainTextResponse("wrong token", 401)
        finished = FinishedObject.of(await request.json())
        # The filer repeats a call whose answer it did not get.
        if finished is not None and finished not in sent:
            body = json.dumps(finished.message(region))
            await run_in_threadpool(sqs.send_message, QueueUrl=queue_url, MessageBody=body)
            sent[finished] = None
            if len(sent) > _REMEMBERED:
                sent.popitem(last=False)
        return PlainTextResponse("", 200)

    return Starlette(routes=[Route("/ready", ready), Route("/changes", changed, methods=["POST"])])


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="s3_events", description="S3 events of SeaweedFS to SQS.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1 for the filer's webhook")
    parser.add_argument("--sqs", required=True, help="endpoint of SQS")
    parser.add_argument("--queue", required=True, help="name of the queue")
    parser.add_argument("--region", required=True, help="region of the queue")
    for secret in ("access-key-id", "secret-access-key", "token"):
        parser.add_argument(f"--{secret}-file", type=Path, required=True, help=f"file with the {secret}")
    chosen = parser.parse_args()
    app = application(
        sqs_url=chosen.sqs,
        queue=chosen.queue,
        region=chosen.region,
        access_key_id=chosen.access_key_id_file.read_text().strip(),
        secret_access_key=chosen.secret_access_key_file.read_text().strip(),
        token=chosen.token_file.read_text().strip(),
    )
    serve(app, chosen.port)


if __name__ == "__main__":
    main()
