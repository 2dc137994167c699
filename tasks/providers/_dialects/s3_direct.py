"""The S3 dialect, signed for others to send; see `tasks.core.ports.Direct`."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from tasks.core.errors import LintasError
from tasks.core.ports import Answer, Link, SentPart, Write
from tasks.providers._dialects import answers
from tasks.providers._dialects.objects import Place
from tasks.providers._dialects.s3_describing import Describing, conditions
from tasks.providers._dialects.s3_errors import S3_CODES, WRITE_CODES, translate, translated
from tasks.providers._dialects.s3_signing import S3Signing
from tasks.providers._dialects.sigv4 import Signer

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

    from tasks.providers._dialects.s3_checksums import Checksum

_MOST_PARTS = 10_000


def open_direct(
    client: S3Client, credentials: Credentials | None, place: Place, checksum: Checksum, describing: Describing
) -> S3Direct:
    """The signer of a bucket. Raises `Denied` without credentials, `Invalid` for a name that cannot be a bucket's."""
    if credentials is None:
        raise place.no_credentials()
    with translated(place, None):
        # The SDK decides how the bucket is addressed.
        example = client.generate_presigned_url("get_object", Params={"Bucket": place.bucket, "Key": "x"})
    where = urlsplit(example)
    signer = Signer(credentials, client.meta.region_name, where.netloc)
    return S3Direct(client, signer, f"{where.scheme}://{where.netloc}", where.path[:-1], place, checksum, describing)


class S3Direct(S3Signing):
    """Implements `tasks.core.ports.Direct`, where the methods are described."""

    most_parts = _MOST_PARTS

    def __init__(
        self,
        client: S3Client,
        signer: Signer,
        origin: str,
        base: str,
        place: Place,
        checksum: Checksum,
        describing: Describing,
    ) -> None:
        super().__init__(signer, origin, base, place, checksum, describing)
        self._client = client

    def lent(self) -> S3Signing:
        return S3Signing(self._signer.lent(), self._origin, self._base, self._place, self._checksum, self._describing)

    def link(self, key: str, *, valid_s: int) -> Link:
        if self._describing.requester_pays:
            # Whoever follows the link would have to say so in a header of its own.
            raise self._place.denied()
        asked = {"Bucket": self._place.bucket, "Key": key}
        with translated(self._place, key):
            return Link(self._client.generate_presigned_url("get_object", Params=asked, ExpiresIn=valid_s))

    def prepare(self, key: str) -> None:
        """Nothing: the dialect says what is verified."""

    def begin(self, write: Write) -> str:
        with translated(self._place, write.key):
            begun = self._client.create_multipart_upload(
                Bucket=self._place.bucket,
                Key=write.key,
                ChecksumAlgorithm=self._checksum.algorithm,
                ChecksumType="FULL_OBJECT",
                **self._describing.parameters(write.metadata, write.attributes),
            )
        upload_id = answers.whole(begun, self._place.cloud, "UploadId")["UploadId"]
        self.sweep_retried(begun, write.key, upload_id)
        return upload_id

    def sent(self, write: Write, upload_id: str) -> Mapping[int, str] | None:
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._place.bucket, Key=write.key, UploadId=upload_id
        )
        with translated(self._place, write.key):
            try:
                parts = [part for page in pages for part in page.get("Parts", [])]
            except self._client.exceptions.NoSuchUpload:
                return None
        return {part.get("PartNumber", 0): part.get("ETag", "") for part in parts}

    def finish(self, write: Write, upload_id: str, parts: Sequence[SentPart]) -> str:
        whole = 0
        for part in parts:
            whole = self._checksum.joined(whole, self._checksum.value(part.proof), part.size_bytes)
        named: list[Any] = [
            {"PartNumber": part.number, "ETag": part.tag, f"Checksum{self._checksum.algorithm}": part.proof}
            for part in parts
        ]
        with translated(self._place, write.key, WRITE_CODES):
            answer = self._client.complete_multipart_upload(
                Bucket=self._place.bucket,
                Key=write.key,
                UploadId=upload_id,
                MultipartUpload={"Parts": named},
                MpuObjectSize=write.size_bytes,
                ChecksumType="FULL_OBJECT",
                **self._checksum.parameter(whole),
                **conditions(write.if_version, write.if_absent),
            )
        return answers.whole(answer, self._place.cloud, "ETag")["ETag"].strip('"')

    def abandon(self, write: Write, upload_id: str) -> None:
        with translated(self._place, write.key):
            try:
                self._client.abort_multipart_upload(Bucket=self._place.bucket, Key=write.key, UploadId=upload_id)
            except self._client.exceptions.NoSuchUpload:
                return

    def sweep(self, key: str, but: Collection[str]) -> None:
        found = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._place.bucket, Prefix=key)
        with translated(self._place, key):
            uploads = [upload for page in found for upload in page.get("Uploads", [])]
        for upload_id in {upload.get("UploadId", "") for upload in uploads if upload.get("Key") == key}.difference(but):
            self.abandon(Write(key, 0, {}, None, False), upload_id)

    def sweep_retried(self, begun: Mapping[str, Any], key: str, upload_id: str) -> None:
        """After an upload has begun: if the SDK had to ask more than once, each time may have begun one."""
        if begun["ResponseMetadata"].get("RetryAttempts"):
            self.sweep(key, {upload_id})

    def refused(self, key: str, answer: Answer, *, writing: bool) -> LintasError:
        metadata = {"HTTPStatusCode": answer.status, "HTTPHeaders": dict(answer.headers)}
        response: Any = {"Error": {"Code": _code(answer)}, "ResponseMetadata": metadata}
        return translate(ClientError(response, ""), self._place, key, WRITE_CODES if writing else S3_CODES)


def _code(answer: Answer) -> str:
    """The service's own code of a refusal; the status where it gave none."""
    try:
        # The sender is the configured service; entities of its own would be refused by the parser's limits.
        code = ET.fromstring(answer.body).findtext("Code")  # noqa: S314
    except ET.ParseError:
        code = None
    return code or str(answer.status)
