"""The S3 dialect copies inside one service by itself; see `tasks.core.ports.ServerSideCopy`.

The source is pinned by its ETag. Up to 5 GiB one CopyObject does it, beyond that UploadPartCopy; both know conditions
on the new object. https://docs.aws.amazon.com/AmazonS3/latest/userguide/copy-object.html
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.ports import ObjectInfo, Write
from tasks.core.retries import in_parallel
from tasks.providers._dialects.s3_describing import conditions
from tasks.providers._dialects.s3_errors import WRITE_CODES, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from tasks.core.ports import Store, UploadNotes
    from tasks.providers._dialects.objects import Place
    from tasks.providers._dialects.s3_checksums import Checksum
    from tasks.providers._dialects.s3_describing import Describing
    from tasks.providers._dialects.s3_uploads import S3Uploads

GIB = 1024**3
_MOST_PARTS = 10_000
_PARTS_IN_FLIGHT = 8


class S3Copy:
    """Copies into one bucket.

    Args:
        client: The SDK's.
        place: The bucket.
        checksum: What the service computes over the new object where the source has none.
        uploads: Begins and ends those of large objects.
        describing: How its objects are described.
        is_ours: Whether another store is of the same service and account.
        head: Describes an object of the bucket.
        most_at_once_bytes: The largest object that one request copies.
        part_bytes: Size in bytes of the parts of larger ones.
    """

    def __init__(
        self,
        client: S3Client,
        place: Place,
        checksum: Checksum,
        uploads: S3Uploads,
        describing: Describing,
        is_ours: Callable[[Store], bool],
        head: Callable[[str], ObjectInfo],
        *,
        most_at_once_bytes: int = 5 * GIB,
        part_bytes: int = GIB,
    ) -> None:
        self._client = client
        self._place = place
        self._checksum = checksum
        self._uploads = uploads
        self._describing = describing
        self._is_ours = is_ours
        self._head = head
        self.most_at_once_bytes = most_at_once_bytes
        self.part_bytes = part_bytes

    def noting(self, notes: UploadNotes) -> S3Copy:
        """The same, which tells of the uploads that it begins."""
        telling = copy.copy(self)
        telling._uploads = self._uploads.noting(notes)
        return telling

    def way(self, source: Store) -> Literal["server-side", "pull"] | None:
        """See `ServerSideCopy.way`: within one account of one service."""
        return "server-side" if self._is_ours(source) else None

    def copy(self, source: Store, key: str, version: str, write: Write) -> ObjectInfo:
        """See `ServerSideCopy.copy`."""
        pinned: dict[str, Any] = {
            "CopySource": {"Bucket": source.bucket, "Key": key},
            "CopySourceIfMatch": f'"{version}"',
            **self._describing.asking,
        }
        described = self._describing.parameters(write.metadata, write.attributes)
        condition = conditions(write.if_version, write.if_absent)
        if write.size_bytes <= self.most_at_once_bytes:
            self._copy_whole(write, pinned, described, condition)
        else:
            self._copy_parts(write, pinned, described, condition)
        return self._head(write.key)

    def _copy_whole(
        self, write: Write, pinned: dict[str, Any], described: dict[str, Any], condition: dict[str, Any]
    ) -> None:
        with translated(self._place, write.key, WRITE_CODES):
            self._client.copy_object(
                Bucket=self._place.bucket,
                Key=write.key,
                MetadataDirective="REPLACE",
                TaggingDirective="REPLACE",
                **pinned,
                **described,
                **condition,
            )

    def _copy_parts(
        self, write: Write, pinned: dict[str, Any], described: dict[str, Any], condition: dict[str, Any]
    ) -> None:
        upload = self._uploads.begin(write.key, described)
        part_bytes = max(self.part_bytes, -(-write.size_bytes // _MOST_PARTS))
        spans = [
            (number, start, min(start + part_bytes, write.size_bytes) - 1)
            for number, start in enumerate(range(0, write.size_bytes, part_bytes), start=1)
        ]

        def copy_part(span: tuple[int, int, int]) -> dict[str, Any]:
            number, first, last = span
            with translated(self._place, write.key, WRITE_CODES):
                made = self._client.upload_part_copy(
                    **upload, PartNumber=number, CopySourceRange=f"bytes={first}-{last}", **pinned
                )["CopyPartResult"]
            stated = f"Checksum{self._checksum.algorithm}"
            proof = {stated: made.get(stated)} if made.get(stated) else {}
            return {"PartNumber": number, "ETag": made.get("ETag"), **proof}

        try:
            parts = in_parallel(copy_part, spans, _PARTS_IN_FLIGHT, threading.Event())
            named: list[Any] = sorted(parts, key=lambda part: part["PartNumber"])
            with translated(self._place, write.key, WRITE_CODES):
                self._client.complete_multipart_upload(
                    **upload,
                    MultipartUpload={"Parts": named},
                    MpuObjectSize=write.size_bytes,
                    ChecksumType="FULL_OBJECT",
                    **self._describing.asking,
                    **condition,
                )
        except BaseException as error:
            self._uploads.abort(upload, error)
            raise
        self._uploads.ended(upload)
