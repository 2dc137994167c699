"""S3's events of the twin: each finished object is announced once on the queue, as S3 does, and nothing else is."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import boto3
import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from deployments.local.configuration import QUEUE
from deployments.local.s3_events import FinishedObject
from deployments.local.stack import Stack, running_stack
from deployments.local.twin import Wanted
from tasks.core.cloud import CloudConfig
from tasks.settings import load_settings

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("twin"), Wanted(level="objects", clouds=("aws",))) as stack:
        yield stack


@pytest.fixture(scope="module")
def aws(stack: Stack) -> CloudConfig:
    return load_settings(stack.twin.config).cloud("aws")


def client(aws: CloudConfig, service: str, endpoint: str) -> Any:
    return boto3.client(  # pyright: ignore
        service,  # pyright: ignore
        endpoint_url=aws.endpoint(endpoint),
        region_name=aws.region,
        aws_access_key_id=aws.credentials["access_key_id"].reveal(),
        aws_secret_access_key=aws.credentials["secret_access_key"].reveal(),
        config=Config(retries={"max_attempts": 1}),
    )


@pytest.fixture(scope="module")
def s3(aws: CloudConfig) -> Any:
    return client(aws, "s3", "objects")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"events-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def announced(aws: CloudConfig, s3: Any, bucket: str) -> Callable[[], list[dict[str, Any]]]:
    """Takes the events of the bucket from the queue, up to a mark that is written last: the filer keeps the order."""
    sqs = client(aws, "sqs", "events")
    queue = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]

    def take() -> list[dict[str, Any]]:
        s3.put_object(Bucket=bucket, Key="mark")
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
            for message in answer.get("Messages", []):
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                (record,) = json.loads(message["Body"])["Records"]
                found.append(record)
            if any(record["s3"]["object"]["key"] == "mark" for record in found):
                return [record for record in found if record["s3"]["object"]["key"] != "mark"]
        raise AssertionError("the mark was not announced")

    return take


def test_an_object_is_announced_once_in_the_form_of_s3(
    s3: Any, bucket: str, announced: Callable[[], list[dict[str, Any]]]
) -> None:
    etag = s3.put_object(Bucket=bucket, Key="dir/with space+ä.csv", Body=b"content")["ETag"]
    (record,) = announced()
    assert (record["eventVersion"], record["eventSource"], record["eventName"]) == (
        "2.1",
        "aws:s3",
        "ObjectCreated:Put",
    )
    described = record["s3"]["object"]
    assert record["s3"]["bucket"]["name"] == bucket
    assert described["key"] == "dir/with+space%2B%C3%A4.csv"
    assert unquote_plus(described["key"]) == "dir/with space+ä.csv"
    assert (described["size"], described["eTag"]) == (7, etag.strip('"'))


def test_a_multipart_upload_is_announced_once_and_its_parts_never(
    s3: Any, bucket: str, announced: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(17 * MIB))
    parts = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=6 * MIB)
    s3.upload_file(str(tmp_path / "large"), bucket, "dir/large", Config=parts)
    (record,) = announced()
    assert record["eventName"] == "ObjectCreated:CompleteMultipartUpload"
    assert record["s3"]["object"]["size"] == 17 * MIB
    assert record["s3"]["object"]["eTag"] == s3.head_object(Bucket=bucket, Key="dir/large")["ETag"].strip('"')


def test_every_writing_of_a_key_is_announced_in_its_order(
    s3: Any, bucket: str, announced: Callable[[], list[dict[str, Any]]]
) -> None:
    for content in (b"one", b"three", b"three", b""):
        s3.put_object(Bucket=bucket, Key="object", Body=content)
    records = announced()
    assert [record["s3"]["object"]["size"] for record in records] == [3, 5, 5, 0]
    sequence = [record["s3"]["object"]["sequencer"] for record in records[:3]]
    assert sequence == sorted(set(sequence))


def test_folders_tags_aborted_uploads_and_deletions_are_not_announced(
    s3: Any, bucket: str, announced: Callable[[], list[dict[str, Any]]]
) -> None:
    s3.put_object(Bucket=bucket, Key="object", Body=b"content")
    s3.put_object(Bucket=bucket, Key="folder/")
    s3.put_object_tagging(Bucket=bucket, Key="object", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    upload = s3.create_multipart_upload(Bucket=bucket, Key="unfinished")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="unfinished", UploadId=upload, PartNumber=1, Body=b"x" * MIB)
    s3.abort_multipart_upload(Bucket=bucket, Key="unfinished", UploadId=upload)
    s3.delete_object(Bucket=bucket, Key="object")
    assert [record["s3"]["object"]["key"] for record in announced()] == ["object"]


def test_a_call_without_the_filers_token_is_refused(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.twin.ports['aws-notifications']}/changes"
    assert httpx.post(url, json={}, headers={"authorization": "Bearer wrong"}).status_code == 401


def test_a_key_that_the_server_does_not_know_is_refused(aws: CloudConfig, s3: Any) -> None:
    stranger = boto3.client(
        "s3",
        endpoint_url=aws.endpoint("objects"),
        region_name=aws.region,
        aws_access_key_id=aws.credentials["access_key_id"].reveal(),
        aws_secret_access_key="wrong",
        config=Config(retries={"max_attempts": 1}),
    )
    with pytest.raises(stranger.exceptions.ClientError, match="SignatureDoesNotMatch"):
        stranger.list_buckets()
    assert "Buckets" in s3.list_buckets()


@pytest.mark.parametrize(
    "path",
    [
        "/buckets/raw",
        "/buckets/.system/owners/x",
        "/buckets/raw/.uploads/1/0001.part",
        "/buckets/raw/object.versions/v_1",
        "/etc/iam/identity.json",
    ],
)
def test_the_filers_own_files_finish_no_object(path: str) -> None:
    entry = {"name": path.rpartition("/")[2], "attributes": {"file_size": 1, "mtime": 1}}
    assert FinishedObject.of({"key": path, "message": {"new_entry": entry}}) is None
