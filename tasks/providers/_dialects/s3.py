"""The S3 dialect: one store over boto3 for every service that speaks it, with their differences as data.

A version is the ETag: unlike a version id it stands in listings and serves as a precondition of reads and writes,
in versioned buckets and in others. https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html

The client signs and sends; the bodies are pumped by the functions at the end of the module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.utils import parse_timestamp

from tasks.core.attributes import PLAIN, Attributes
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import CHUNK_BYTES, rechunk
from tasks.core.errors import Invalid, NotFound
from tasks.core.ports import Level, ObjectInfo, Origin
from tasks.providers._dialects import answers
from tasks.providers._dialects.boto import core_session, session_of
from tasks.providers._dialects.heads import insist_on_whole_heads
from tasks.providers._dialects.objects import (
    READ_BYTES,
    Place,
    address_of,
    check_range,
    exactly,
    part_bytes,
    range_header,
)
from tasks.providers._dialects.patience import timeouts_s
from tasks.providers._dialects.s3_checksums import CRC64NVME, Checksum
from tasks.providers._dialects.s3_describing import (
    STORAGE_CLASS,
    Describing,
    conditions,
    has_tags,
    is_restored,
    stated_checksums,
)
from tasks.providers._dialects.s3_errors import WRITE_CODES, translated
from tasks.providers._dialects.s3_pages import contents_reader
from tasks.providers._dialects.s3_uploads import S3Uploads
from tasks.providers._dialects.storage_classes import StorageClasses, storage_classes

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

    from tasks.core.ports import PullJobs, Store, UploadNotes
    from tasks.providers._dialects.s3_copy import S3Copy
    from tasks.providers._dialects.s3_direct import S3Direct


_MOST_PARTS = 10_000
_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class S3Dialect:
    """How one service speaks S3.

    Args:
        endpoint: Its public endpoint; None leaves it to the SDK and the region.
        addressing: Where the bucket's name stands in URLs; `options.addressing` of a cloud overrides it.
        checksum: What the service verifies on arrival.
        catalog: The provider's `catalog.yaml` with its storage classes, or None where there is but one.
        region_of_plain_create: The region in which a bucket is created without naming it, or None.
        bucket_ready_timeout_s: How long a new bucket may take until it answers; 0 when it answers at once.
        is_s3: Whether it is S3 itself, which other providers' services know how to read.
    """

    endpoint: str | None = None
    addressing: Literal["auto", "virtual", "path"] = "auto"
    checksum: Checksum = CRC64NVME
    region_of_plain_create: str | None = None
    catalog: Path | None = None
    bucket_ready_timeout_s: int = 0
    is_s3: bool = False


def open_s3(
    config: CloudConfig, bucket: str, dialect: S3Dialect, pulling: Callable[[Store], PullJobs] | None = None
) -> S3Store:
    """A store for a bucket.

    Args:
        config: The cloud. `endpoints.objects` is optional; `credentials` are `access_key_id`, `secret_access_key`
            and, for short-lived ones, `session_token`; without any, the SDK's own chain is asked (environment,
            profile, instance role). `options.addressing` is `virtual` or `path`.
        bucket: Its name.
        dialect: How the service speaks.
        pulling: Makes the service that pulls into the bucket by jobs; None where there is none.

    Raises:
        Invalid: An option is wrong.
        Denied: A credential's reference leads nowhere.
    """
    client, credentials = _client(config, dialect)
    place = Place(config.name, bucket, address_of(client.meta.endpoint_url))
    particular = config.bucket(bucket)
    classes = storage_classes(dialect.catalog, particular) if dialect.catalog else StorageClasses({}, {}, frozenset())
    describing = Describing(classes, particular.encryption_key, particular.requester_pays)
    service = (dialect, config.endpoints.get("objects"), credentials.access_key if credentials else None)
    return S3Store(client, credentials, place, dialect, describing, config.region, service, pulling)


def _client(config: CloudConfig, dialect: S3Dialect) -> tuple[S3Client, Credentials | None]:
    insist_on_whole_heads()
    addressing = config.options.get("addressing", dialect.addressing)
    if addressing not in ("auto", "virtual", "path"):
        raise Invalid(
            f"clouds.{config.name}.options.addressing is '{addressing}'", "set it to 'virtual' or 'path', or remove it"
        )
    connect_s, read_s = timeouts_s(config)
    settings = Config(
        signature_version="s3v4",
        s3={"addressing_style": addressing},
        connect_timeout=connect_s,
        read_timeout=read_s,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=_CONNECTIONS,
        # Every upload names its checksum itself; downloads are checked wherever the service knows one.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_supported",
    )
    core = core_session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    session = session_of(config, core)
    endpoint = config.endpoint_or_public("objects") or dialect.endpoint
    client = session.client("s3", endpoint_url=endpoint, config=settings)
    # The SDK waits for the answer 100 in a way of its own that never ends when the connection is cut in it.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register_first("before-parse.s3.ListObjectsV2", contents_reader(_moment))
    return client, session.get_credentials()


def _moment(value: Any) -> datetime:
    """A time as the SDK returns it. Its own parser guesses the format, which is most of the cost of a listing."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return parse_timestamp(value)


class S3Store:
    """A bucket; implements `tasks.core.ports.Store`, where the methods are described."""

    def __init__(
        self,
        client: S3Client,
        credentials: Credentials | None,
        place: Place,
        dialect: S3Dialect,
        describing: Describing,
        region: str,
        service: tuple[object, ...],
        pulling: Callable[[Store], PullJobs] | None = None,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._place = place
        self._dialect = dialect
        self._describing = describing
        self._region = region
        self._service = service
        self._pulling = pulling
        self._uploads = S3Uploads(client, place, dialect.checksum, lambda: self.direct)

    @property
    def cloud(self) -> str:
        return self._place.cloud

    @property
    def bucket(self) -> str:
        return self._place.bucket

    @property
    def origin(self) -> Origin | None:
        """How another provider's service would name it; see `tasks.core.ports.OriginStore`."""
        host = urlsplit(self._client.meta.endpoint_url).hostname or ""
        return Origin("s3", elsewhere=not host.endswith(".amazonaws.com")) if self._dialect.is_s3 else None

    def noting(self, notes: UploadNotes) -> S3Store:
        """See `tasks.core.ports.NotingStore`."""
        telling = copy.copy(self)
        telling._uploads = self._uploads.noting(notes)
        telling.server_side = self.server_side.noting(notes)
        return telling

    @cached_property
    def direct(self) -> S3Direct:
        """What others may send for it; see `tasks.core.ports.Direct`."""
        from tasks.providers._dialects.s3_direct import open_direct

        return open_direct(self._client, self._credentials, self._place, self._dialect.checksum, self._describing)

    @cached_property
    def server_side(self) -> S3Copy:
        """What it copies by itself; see `tasks.core.ports.ServerSideCopy`."""
        from tasks.providers._dialects.s3_copy import S3Copy

        def is_ours(other: Store) -> bool:
            return isinstance(other, S3Store) and other._service == self._service

        checksum = self._dialect.checksum
        return S3Copy(self._client, self._place, checksum, self._uploads, self._describing, is_ours, self.head)

    @cached_property
    def pull_jobs(self) -> PullJobs | None:
        """What it has fetched by jobs; see `tasks.core.ports.PullJobs`."""
        return self._pulling(self) if self._pulling is not None else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._translated():
            for page in self._pages(prefix):
                for item in page.get("Contents", []):
                    yield self._listed(item)

    def level(self, prefix: str, most: int) -> Level | None:
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        with self._translated():
            for page in self._pages(prefix, Delimiter="/"):
                objects += map(self._listed, page.get("Contents", []))
                prefixes += (found["Prefix"] for found in page.get("CommonPrefixes", []))
                if len(objects) + len(prefixes) > most:
                    return None
        return Level(objects, prefixes)

    def _pages(self, prefix: str, **more: str) -> Iterator[Any]:
        asked: dict[str, Any] = {"Bucket": self.bucket, "Prefix": prefix, **self._describing.asking, **more}
        if self._describing.classes.unreadable:
            asked["OptionalObjectAttributes"] = ["RestoreStatus"]
        return iter(
            self._client.get_paginator("list_objects_v2").paginate(**asked, PaginationConfig={"PageSize": 1000})
        )

    def head(self, key: str) -> ObjectInfo:
        try:
            with self._translated(key):
                found = self._client.head_object(
                    Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **self._describing.asking
                )
        except NotFound:
            self._require_bucket()
            raise
        found = answers.whole(found, self.cloud, "ContentLength", "ETag", "LastModified")
        headers = found["ResponseMetadata"]["HTTPHeaders"]
        labels, attributes = self._describing.read(headers)
        if has_tags(headers):
            attributes = replace(attributes, tags=self._tags(key))
        return ObjectInfo(
            key,
            found["ContentLength"],
            _version(found["ETag"]),
            found["LastModified"],
            labels,
            attributes,
            archived=self._describing.archived(headers.get(STORAGE_CLASS), restored=is_restored(headers)),
            checksums=stated_checksums(headers),
        )

    def get(
        self, key: str, *, version: str | None = None, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        check_range(key, start, length)
        asked: dict[str, Any] = {"Bucket": self.bucket, "Key": key, **self._describing.asking}
        if version is not None:
            asked["IfMatch"] = _etag(version)
        span = range_header(start, length)
        if span is not None:
            asked["Range"] = span
        with self._translated(key):
            answer = answers.whole(self._client.get_object(**asked), self.cloud, "Body", "ContentLength")
            try:
                if length is not None and answer["ContentLength"] < length:
                    raise self._place.beyond_the_end(key)
                # Only the read that meets the end compares length and checksum.
                while piece := answer["Body"].read(READ_BYTES):
                    yield piece
            finally:
                answer["Body"].close()

    def put(
        self,
        key: str,
        body: Iterable[bytes],
        *,
        size_bytes: int,
        metadata: Mapping[str, str] | None = None,
        attributes: Attributes = PLAIN,
        if_version: str | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        describing = self._describing.parameters(metadata, attributes)
        condition = conditions(if_version, if_absent)
        pieces = rechunk(exactly(body, size_bytes, self._place, key), part_bytes(size_bytes, _MOST_PARTS))
        if size_bytes <= CHUNK_BYTES:
            answer = self._put_whole(key, b"".join(pieces), describing, condition)
        else:
            answer = self._put_parts(key, pieces, describing, condition)
        answer = answers.whole(answer, self.cloud, "ETag")
        return ObjectInfo(
            key, size_bytes, _version(answer["ETag"]), _answered(answer), dict(metadata or {}), attributes
        )

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def create_bucket(self) -> None:
        asked: dict[str, Any] = {"Bucket": self.bucket}
        if self._region and self._region != self._dialect.region_of_plain_create:
            asked["CreateBucketConfiguration"] = {"LocationConstraint": self._region}
        with self._translated():
            try:
                self._client.create_bucket(**asked)
            except self._client.exceptions.BucketAlreadyOwnedByYou:
                return
            if self._dialect.bucket_ready_timeout_s:
                self._client.get_waiter("bucket_exists").wait(
                    Bucket=self.bucket, WaiterConfig={"Delay": 1, "MaxAttempts": self._dialect.bucket_ready_timeout_s}
                )

    def _put_whole(self, key: str, data: bytes, describing: dict[str, Any], condition: dict[str, Any]) -> Any:
        checksum = self._dialect.checksum
        with translated(self._place, key, WRITE_CODES):
            return self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=data,
                **checksum.parameter(checksum.over(data, 0)),
                **describing,
                **condition,
            )

    def _put_parts(
        self, key: str, pieces: Iterable[bytes], describing: dict[str, Any], condition: dict[str, Any]
    ) -> Any:
        checksum = self._dialect.checksum
        upload = self._uploads.begin(key, describing)
        try:
            parts, whole, size_bytes = self._send_parts(upload, pieces)
            with translated(self._place, key, WRITE_CODES):
                answer = self._client.complete_multipart_upload(
                    **upload,
                    MultipartUpload={"Parts": parts},
                    MpuObjectSize=size_bytes,
                    **self._describing.asking,
                    ChecksumType="FULL_OBJECT",
                    **checksum.parameter(whole),
                    **condition,
                )
        except BaseException as error:
            self._uploads.abort(upload, error)
            raise
        self._uploads.ended(upload)
        return answer

    def _send_parts(self, upload: dict[str, Any], pieces: Iterable[bytes]) -> tuple[list[Any], int, int]:
        """Send the pieces as parts; returns the parts, the checksum of the whole and its size in bytes."""
        checksum = self._dialect.checksum
        parts: list[Any] = []
        whole = size_bytes = 0
        for number, piece in enumerate(pieces, start=1):
            proof = checksum.parameter(checksum.over(piece, 0))
            with self._translated(upload["Key"]):
                sent = self._client.upload_part(
                    **upload, PartNumber=number, Body=piece, **proof, **self._describing.asking
                )
            parts.append({"PartNumber": number, "ETag": answers.whole(sent, self.cloud, "ETag")["ETag"], **proof})
            whole = checksum.over(piece, whole)
            size_bytes += len(piece)
        return parts, whole, size_bytes

    def _tags(self, key: str) -> dict[str, str]:
        with self._translated(key):
            found = self._client.get_object_tagging(Bucket=self.bucket, Key=key, **self._describing.asking)
        return {tag["Key"]: tag["Value"] for tag in found["TagSet"]}

    def _listed(self, item: Mapping[str, Any]) -> ObjectInfo:
        storage_class = item.get("StorageClass")
        restored = item.get("RestoreStatus", {}).get("RestoreExpiryDate") is not None
        return ObjectInfo(
            item["Key"],
            item["Size"],
            _version(item["ETag"]),
            item["LastModified"],
            attributes=Attributes(tier=self._describing.classes.tier(storage_class)),
            archived=self._describing.archived(storage_class, restored=restored),
        )

    def _require_bucket(self) -> None:
        """Raises `NotFound` for the bucket: an answer to HEAD does not say whether the bucket or the key is missing."""
        with self._translated():
            self._client.head_bucket(Bucket=self.bucket)

    def _translated(self, key: str | None = None) -> AbstractContextManager[None]:
        return translated(self._place, key)


def _version(etag: str) -> str:
    return etag.strip('"')


def _etag(version: str) -> str:
    return f'"{version}"'


def _answered(answer: Mapping[str, Any]) -> datetime:
    """When the service answered, by its own clock."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
