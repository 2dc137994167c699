"""How the doubles of training services reach their cloud's object store: with the bare SDK, as the services do.

Not Lintas' own stores: what they write is read back here by another hand, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class ObjectAccess(Protocol):
    """The little that a job needs of an object store. Errors are the SDK's own."""

    def keys(self, bucket: str, prefix: str) -> Iterator[str]: ...
    def download(self, bucket: str, key: str, into: Path) -> None: ...
    def upload(self, source: Path, bucket: str, key: str) -> None: ...


class S3Access:
    """An S3 dialect, by boto3.

    Args:
        endpoint: Its URL.
        access_key_id, secret_access_key: The account's.
        region: The account's.
    """

    def __init__(self, endpoint: str, access_key_id: str, secret_access_key: str, region: str) -> None:
        import boto3
        from botocore.config import Config

        session = boto3.Session(access_key_id, secret_access_key, region_name=region)
        settings = Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60)
        self._client: Any = session.client("s3", endpoint_url=endpoint, config=settings)

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from (item["Key"] for item in page.get("Contents", []))

    def download(self, bucket: str, key: str, into: Path) -> None:
        self._client.download_file(bucket, key, str(into))

    def upload(self, source: Path, bucket: str, key: str) -> None:
        self._client.upload_file(str(source), bucket, key)


class CloudStorageAccess:
    """Cloud Storage, by google-cloud-storage.

    Args:
        endpoint: Its URL.
        token: A bearer token.
        project: The project's id.
    """

    def __init__(self, endpoint: str, token: str, project: str) -> None:
        from google.cloud import storage
        from google.oauth2.credentials import Credentials

        self._client: Any = storage.Client(
            project=project, credentials=Credentials(token), client_options={"api_endpoint": endpoint}
        )

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        yield from (blob.name for blob in self._client.list_blobs(bucket, prefix=prefix))

    def download(self, bucket: str, key: str, into: Path) -> None:
        self._client.bucket(bucket).blob(key).download_to_filename(str(into))

    def upload(self, source: Path, bucket: str, key: str) -> None:
        self._client.bucket(bucket).blob(key).upload_from_filename(str(source))


class BlobAccess:
    """Azure Blob Storage, by azure-storage-blob; a bucket is a container.

    Args:
        endpoint: The account's URL.
        account: Its name.
        key: Its key.
    """

    def __init__(self, endpoint: str, account: str, key: str) -> None:
        from azure.core.credentials import AzureNamedKeyCredential
        from azure.storage.blob import BlobServiceClient

        self._client: Any = BlobServiceClient(endpoint, credential=AzureNamedKeyCredential(account, key))

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        yield from self._client.get_container_client(bucket).list_blob_names(name_starts_with=prefix)

    def download(self, bucket: str, key: str, into: Path) -> None:
        with into.open("wb") as file:
            self._client.get_blob_client(bucket, key).download_blob().readinto(file)

    def upload(self, source: Path, bucket: str, key: str) -> None:
        with source.open("rb") as file:
            self._client.get_blob_client(bucket, key).upload_blob(file, overwrite=True)


def download_tree(access: ObjectAccess, bucket: str, prefix: str, into: Path) -> int:
    """Bring every object below a prefix into a directory, by the rest of its key; returns how many there were.

    A prefix without a slash at its end means the folder of this name, and the object of exactly this key.
    """
    count = 0
    into.mkdir(parents=True, exist_ok=True)
    for key in access.keys(bucket, prefix):
        if prefix and key != prefix and not prefix.endswith("/") and not key.startswith(f"{prefix}/"):
            continue
        rest = key.removeprefix(prefix).strip("/") or key.rpartition("/")[2]
        if not rest:
            continue
        place = into / rest
        if not place.resolve().is_relative_to(into.resolve()):
            raise ValueError(f"the key '{key}' leads outside of the job's directory")
        place.parent.mkdir(parents=True, exist_ok=True)
        access.download(bucket, key, place)
        count += 1
    return count


def upload_tree(access: ObjectAccess, source: Path, bucket: str, prefix: str) -> int:
    """Write every file below a directory under a prefix that ends with a slash; returns how many there were."""
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and not path.is_symlink()]
    for path in files:
        access.upload(path, bucket, f"{prefix}{path.relative_to(source).as_posix()}")
    return len(files)
