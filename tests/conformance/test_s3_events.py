"""S3's events on a real queue: delivered until they are acknowledged, and each of them once."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from deployments.local.ports import free_ports
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.errors import Invalid, NotFound, Retryable
from tasks.core.ports import EventSource
from tasks.registry import providers
from tests.servers import SqsServer
from tests.unit.test_s3_events import KEY, direct, record


@pytest.fixture
def client(sqs_server: SqsServer) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=sqs_server.url,
        region_name=sqs_server.region,
        aws_access_key_id=sqs_server.access_key_id,
        aws_secret_access_key=sqs_server.secret_access_key,
    )


@pytest.fixture
def queue_url(client: Any) -> Iterator[str]:
    # An unacknowledged message is visible again after one second.
    url = client.create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}", Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
    yield url
    client.delete_queue(QueueUrl=url)


@pytest.fixture
def config(sqs_server: SqsServer, queue_url: str) -> CloudConfig:
    return CloudConfig(
        "aws",
        "aws",
        region=sqs_server.region,
        endpoints={"events": sqs_server.url},
        credentials={
            "access_key_id": Secret("test:id", lambda _: sqs_server.access_key_id),
            "secret_access_key": Secret("test:key", lambda _: sqs_server.secret_access_key),
        },
        options={"queue": queue_url.rsplit("/", 1)[-1]},
    )


def open_events(config: CloudConfig) -> EventSource:
    opener = providers()["aws"].open_events
    assert opener is not None
    return opener(config)


def left_in(client: Any, queue_url: str) -> int:
    """Messages in the queue, visible or not, as SQS counts them."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(count) for count in counts.values())


def test_an_event_comes_again_until_it_is_acknowledged(config: CloudConfig, client: Any, queue_url: str) -> None:
    source = open_events(config)
    client.send_message(QueueUrl=queue_url, MessageBody=direct(record()))

    ((first, _),) = source.receive(wait_s=5)
    ((again, receipt),) = source.receive(wait_s=5)
    source.acknowledge(receipt)

    assert first == again
    assert first.subject == KEY
    assert left_in(client, queue_url) == 0


def test_a_message_of_several_events_is_gone_when_all_are_acknowledged(
    config: CloudConfig, client: Any, queue_url: str
) -> None:
    source = open_events(config)
    client.send_message(QueueUrl=queue_url, MessageBody=direct(record(), record(sequencer="0055AED7")))

    (_, one), (_, other) = source.receive(wait_s=5)
    source.acknowledge(one)
    assert left_in(client, queue_url) == 1
    source.acknowledge(other)
    assert left_in(client, queue_url) == 0


def test_what_is_no_event_is_taken_out_and_what_is_not_understood_stays(
    config: CloudConfig, client: Any, queue_url: str
) -> None:
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent"}
    client.send_message(QueueUrl=queue_url, MessageBody=json.dumps(test_event))
    client.send_message(QueueUrl=queue_url, MessageBody="for another reader")

    assert open_events(config).receive(wait_s=0) == []

    assert left_in(client, queue_url) == 1


def test_an_empty_queue_is_waited_for_no_longer_than_asked(config: CloudConfig) -> None:
    source, began = open_events(config), time.monotonic()

    assert source.receive(wait_s=1.5) == []

    assert 0.9 < time.monotonic() - began < 2.5


def test_the_queue_may_be_named_by_its_url(config: CloudConfig, client: Any, queue_url: str) -> None:
    client.send_message(QueueUrl=queue_url, MessageBody=direct(record()))
    by_url = dataclasses.replace(config, options={"queue": queue_url})

    assert len(open_events(by_url).receive(wait_s=5)) == 1


def test_a_queue_that_is_missing_or_unnamed_or_unreachable_says_so(config: CloudConfig) -> None:
    (port,) = free_ports(1)
    with pytest.raises(NotFound, match="queue 'nowhere' does not exist on aws"):
        open_events(dataclasses.replace(config, options={"queue": "nowhere"}))
    with pytest.raises(Invalid, match=r"clouds\.aws\.options\.queue is missing"):
        open_events(dataclasses.replace(config, options={}))
    with pytest.raises(Retryable, match=rf"127\.0\.0\.1:{port}\) is unreachable.*endpoints\.events"):
        open_events(dataclasses.replace(config, endpoints={"events": f"http://127.0.0.1:{port}"}))
