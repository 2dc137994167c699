"""Where events come from in the tests: each cloud's own way from a write to an event, on its running servers."""

from __future__ import annotations

import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

import boto3
import requests
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient
from google.cloud import storage
from google.oauth2.credentials import Credentials

from deployments.local.event_grid import NewBlobs, announce
from deployments.local.s3_events import FinishedObject
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.ports import EventSource
from tasks.registry import providers
from tests.servers import SqsServer


class EventPlace:
    """A bucket whose new objects are events.

    Args:
        config: The cloud, set up for events; what was not acknowledged comes again after a second.
        memory: Where its source keeps what it must remember.
    """

    not_understood = True
    """Whether something can get in among the events that is none."""

    def __init__(self, config: CloudConfig, memory: Path) -> None:
        self.config, self.memory = config, memory
        self.bucket = f"events-{uuid.uuid4().hex[:12]}"

    def source(self, **changes: Any) -> EventSource:
        """Open the cloud's events, as a process that has just been started."""
        provider = providers()[self.config.provider]
        config = dataclasses.replace(self.config, **changes)
        assert provider.tells_events(self.config)
        assert provider.open_events is not None
        return provider.open_events(config, self.memory)

    def begin(self) -> None:
        """Make the bucket and whatever carries its events."""

    def write(self, key: str, content: bytes = b"x") -> None:
        """Write an object as a producer does, without a line of Lintas where that can be."""
        raise NotImplementedError

    def pass_time(self) -> None:
        """Let what was delivered and not acknowledged be due again, where waiting for it would be long."""

    def disturb(self) -> None:
        """Put something among the events that nobody understands."""

    def disturbances_aside(self) -> int:
        """How many of those are out of the way, where a person finds them."""
        return 0


class Aws(EventPlace):
    """SQS; the messages are those that S3 sends."""

    def __init__(self, server: SqsServer, memory: Path) -> None:
        super().__init__(
            CloudConfig(
                "aws",
                "aws",
                region=server.region,
                endpoints={"events": server.url},
                credentials={
                    "access_key_id": Secret("test:id", lambda _: server.access_key_id),
                    "secret_access_key": Secret("test:key", lambda _: server.secret_access_key),
                },
            ),
            memory,
        )
        self._sqs: Any = boto3.client(
            "sqs",
            endpoint_url=server.url,
            region_name=server.region,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=server.secret_access_key,
        )
        self._writes = 0

    def begin(self) -> None:
        self._aside = self._sqs.create_queue(QueueName=f"{self.bucket}-aside")["QueueUrl"]
        names = {"QueueUrl": self._aside, "AttributeNames": ["QueueArn"]}
        arn = self._sqs.get_queue_attributes(**names)["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
        attributes = {"VisibilityTimeout": "0", "RedrivePolicy": redrive}
        self.queue_url = self._sqs.create_queue(QueueName=self.bucket, Attributes=attributes)["QueueUrl"]
        self.config = dataclasses.replace(self.config, options={"queue": self.bucket})

    def write(self, key: str, content: bytes = b"x") -> None:
        self._writes += 1
        written = FinishedObject(self.bucket, key, len(content), "etag", 1_800_000_000_000_000_000 + self._writes)
        self._sqs.send_message(QueueUrl=self.queue_url, MessageBody=json.dumps(written.message(self.config.region)))

    def disturb(self) -> None:
        self._sqs.send_message(QueueUrl=self.queue_url, MessageBody="for another reader")

    def disturbances_aside(self) -> int:
        return len(self._sqs.receive_message(QueueUrl=self._aside).get("Messages", []))


class Google(EventPlace):
    """Cloud Storage notifications through Pub/Sub."""

    def begin(self) -> None:
        project = self.config.option("project")
        self.topic = f"projects/{project}/topics/{self.bucket}"
        self.config = dataclasses.replace(
            self.config, options={"project": project, "subscription": self.bucket, "redeliver_s": "1"}
        )
        aside = f"{self.topic}-aside"
        self.pubsub("PUT", aside, {})
        self.pubsub("PUT", self._aside, {"topic": aside})
        self.pubsub("PUT", self.topic, {})
        policy = {"deadLetterTopic": aside, "maxDeliveryAttempts": 5}
        self.pubsub(
            "PUT",
            f"projects/{project}/subscriptions/{self.bucket}",
            {
                "topic": self.topic,
                "deadLetterPolicy": policy,
            },
        )
        client = storage.Client(
            project=project,
            credentials=Credentials(self._token),
            client_options={"api_endpoint": self.config.endpoint("objects")},
        )
        self._objects: Any = client.create_bucket(self.bucket)
        self._objects.notification(
            self.bucket, topic_project=project, event_types=["OBJECT_FINALIZE"], payload_format="JSON_API_V1"
        ).create()

    @property
    def _token(self) -> str:
        return self.config.credentials["token"].reveal()

    @property
    def _aside(self) -> str:
        return f"projects/{self.config.option('project')}/subscriptions/{self.bucket}-aside"

    def pubsub(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Call Pub/Sub by plain HTTP."""
        url = f"{self.config.endpoint('events')}/v1/{path}"
        headers = {"authorization": f"Bearer {self._token}"}
        answer = requests.request(method, url, json=body, headers=headers, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def write(self, key: str, content: bytes = b"x") -> None:
        self._objects.blob(key).upload_from_string(content)

    def pass_time(self) -> None:
        self.pubsub("POST", "../_twin/expire", {})

    def disturb(self) -> None:
        self.pubsub("POST", f"{self.topic}:publish", {"messages": [{"attributes": {"for": "another reader"}}]})

    def disturbances_aside(self) -> int:
        wish = {"maxMessages": 10, "returnImmediately": True}
        return len(self.pubsub("POST", f"{self._aside}:pull", wish).get("receivedMessages", []))


class Azure(EventPlace):
    """Event Grid's messages on a storage queue."""

    def begin(self) -> None:
        account, key = self.config.option("account"), self.config.credentials["account_key"].reveal()
        credential = {"account_name": account, "account_key": key}
        self.config = dataclasses.replace(
            self.config, options={"account": account, "queue": self.bucket, "redeliver_s": "1"}
        )
        url = self.config.endpoint("events")
        self.queue = QueueClient(url, self.bucket, credential=credential)
        self._aside = QueueClient(url, f"{self.bucket}-poison", credential=credential)
        self.queue.create_queue()
        self._service = BlobServiceClient(self.config.endpoint("objects"), credential=credential)
        self._container = self._service.create_container(self.bucket)
        self._blobs = NewBlobs(self._service)
        self._blobs.look()

    def write(self, key: str, content: bytes = b"x") -> None:
        self._container.upload_blob(key, content, overwrite=True)
        announce(self._service, self.queue, self._blobs, account=self.config.option("account"), schema="event-grid")

    def disturb(self) -> None:
        self.queue.send_message("for another reader")

    def disturbances_aside(self) -> int:
        try:
            return len(self._aside.peek_messages(10))
        except ResourceNotFoundError:
            return 0


class Coreweave(EventPlace):
    """Buckets that are listed again and again."""

    not_understood = False

    def begin(self) -> None:
        options = {"watch": self.bucket, "poll_s": "0.1", "redeliver_s": "1", "addressing": "path"}
        self.config = dataclasses.replace(self.config, options=options)
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=self.config.endpoint("objects"),
            region_name=self.config.region,
            aws_access_key_id=self.config.credentials["access_key_id"].reveal(),
            aws_secret_access_key=self.config.credentials["secret_access_key"].reveal(),
        )
        self._s3.create_bucket(Bucket=self.bucket)

    def write(self, key: str, content: bytes = b"x") -> None:
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=content)


class Onprem(EventPlace):
    """A directory that is looked at again and again."""

    def begin(self) -> None:
        root = self.config.option("root")
        options = {"root": root, "watch": self.bucket, "poll_s": "0.1", "settle_s": "0", "redeliver_s": "1"}
        self.config = dataclasses.replace(self.config, options=options)
        self.directory = Path(root) / self.bucket
        self.directory.mkdir()

    def write(self, key: str, content: bytes = b"x") -> None:
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def disturb(self) -> None:
        (self.directory / "link").symlink_to("/etc/hostname")

    def disturbances_aside(self) -> int:
        return int((self.directory / "link").is_symlink())
