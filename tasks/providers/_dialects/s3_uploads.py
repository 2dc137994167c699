"""Uploads in parts that the S3 dialect begins by itself: whoever wants to know is told, so that none is forgotten."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.providers._dialects import answers
from tasks.providers._dialects.objects import giving_up
from tasks.providers._dialects.s3_errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from tasks.core.ports import UploadNotes
    from tasks.providers._dialects.objects import Place
    from tasks.providers._dialects.s3_checksums import Checksum
    from tasks.providers._dialects.s3_direct import S3Direct


class S3Uploads:
    """Begins and ends uploads in one bucket.

    Args:
        client: The SDK's.
        place: The bucket.
        checksum: What the service verifies over the whole object.
        direct: What the bucket's store signs, which can give up uploads that nobody has heard of.
    """

    def __init__(self, client: S3Client, place: Place, checksum: Checksum, direct: Callable[[], S3Direct]) -> None:
        self._client = client
        self._place = place
        self._checksum = checksum
        self._direct = direct
        self._notes: UploadNotes | None = None

    def noting(self, notes: UploadNotes) -> S3Uploads:
        """The same, which tells of them."""
        telling = copy.copy(self)
        telling._notes = notes
        return telling

    def begin(self, key: str, described: dict[str, Any]) -> dict[str, Any]:
        """Open an upload of an object that is described by these parameters; the parameters that name the upload."""
        if self._notes is not None:
            self._notes.asking(key)
        with translated(self._place, key):
            begun = self._client.create_multipart_upload(
                Bucket=self._place.bucket,
                Key=key,
                ChecksumAlgorithm=self._checksum.algorithm,
                ChecksumType="FULL_OBJECT",
                **described,
            )
        begun = answers.whole(begun, self._place.cloud, "UploadId")
        upload = {"Bucket": self._place.bucket, "Key": key, "UploadId": begun["UploadId"]}
        if self._notes is not None:
            try:
                self._direct().sweep_retried(begun, key, upload["UploadId"])
                self._notes.begun(key, upload["UploadId"])
            except BaseException as error:
                self.abort(upload, error)
                raise
        return upload

    def abort(self, upload: dict[str, Any], reason: BaseException) -> None:
        """Give an upload up. A failure is noted beside the reason."""
        with giving_up(self._place, upload["Key"], reason):
            with translated(self._place, upload["Key"]), suppress(self._client.exceptions.NoSuchUpload):
                self._client.abort_multipart_upload(**upload)
            self.ended(upload)

    def ended(self, upload: dict[str, Any]) -> None:
        """It was finished or given up."""
        if self._notes is not None:
            self._notes.ended(upload["Key"], upload["UploadId"])
