"""The S3 dialect, signed for others to send; see `tasks.core.ports.Direct`."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from botocore.exceptions import ClientError

from tasks.core.attributes import Description
from tasks.core.errors import LintasError
from tasks.core.ports import Answer, Link, SentPart, SignedRequest, Write
from tasks.providers._dialects.objects import Place, RunningChecksum, range_header
from tasks.providers._dialects.s3_describing import Describing, conditions, has_tags
from tasks.providers._dialects.s3_errors import S3_CODES, WRITE_CODES, translate, translated
from tasks.providers._dialects.sigv4 import Signer, canonical_query

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


class S3Direct:
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
        self._client = client
        self._signer = signer
        self._origin = origin
        self._base = base
        self._place = place
        self._checksum = checksum
        self._describing = describing
        self._asking = {"x-amz-request-payer": "requester"} if describing.requester_pays else {}
        self._proof_header = f"x-amz-checksum-{checksum.algorithm.lower()}"

    def get(self, key: str, *, version: str, start: int, length: int | None) -> SignedRequest:
        headers = {**self._asking, **({"if-match": f'"{version}"'} if version else {})}
        span = range_header(start, length)
        if span is not None:
            headers["range"] = span
        return self._signed("GET", key, {}, headers)

    def described(self, key: str, answer: Answer) -> Description | None:
        return None if has_tags(answer.headers) else Description(*self._describing.read(answer.headers))

    def link(self, key: str, *, valid_s: int) -> Link:
        if self._describing.requester_pays:
            # Whoever follows the link would have to say so in a header of its own.
            raise self._place.denied()
        asked = {"Bucket": self._place.bucket, "Key": key}
        with translated(self._place, key):
            return Link(self._client.generate_presigned_url("get_object", Params=asked, ExpiresIn=valid_s))

    def prepare(self, key: str) -> None:
        """Nothing: the dialect says what is verified."""

    def proof(self) -> RunningChecksum:
        return RunningChecksum(self._checksum.over, self._checksum.text)

    def put(self, write: Write, proof: str) -> SignedRequest:
        headers = {
            **self._describing.headers(write.metadata, write.attributes),
            self._proof_header: proof,
        }
        if write.if_absent:
            headers["if-none-match"] = "*"
        elif write.if_version is not None:
            headers["if-match"] = f'"{write.if_version}"'
        return self._signed("PUT", write.key, {}, headers, proof)

    def written(self, write: Write, request: SignedRequest, answer: Answer) -> str:
        return self._etag(write.key, request, answer).strip('"')

    def begin(self, write: Write) -> str:
        with translated(self._place, write.key):
            begun = self._client.create_multipart_upload(
                Bucket=self._place.bucket,
                Key=write.key,
                ChecksumAlgorithm=self._checksum.algorithm,
                ChecksumType="FULL_OBJECT",
                **self._describing.parameters(write.metadata, write.attributes),
            )
        return begun["UploadId"]

    def part(self, write: Write, upload_id: str, number: int, proof: str) -> SignedRequest:
        query = {"partNumber": str(number), "uploadId": upload_id}
        return self._signed("PUT", write.key, query, {**self._asking, self._proof_header: proof}, proof)

    def part_tag(self, request: SignedRequest, answer: Answer) -> str:
        return self._etag("a part", request, answer)

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
        return answer["ETag"].strip('"')

    def abandon(self, write: Write, upload_id: str) -> None:
        with translated(self._place, write.key):
            try:
                self._client.abort_multipart_upload(Bucket=self._place.bucket, Key=write.key, UploadId=upload_id)
            except self._client.exceptions.NoSuchUpload:
                return

    def refused(self, key: str, answer: Answer, *, writing: bool) -> LintasError:
        metadata = {"HTTPStatusCode": answer.status, "HTTPHeaders": dict(answer.headers)}
        response: Any = {"Error": {"Code": _code(answer)}, "ResponseMetadata": metadata}
        return translate(ClientError(response, ""), self._place, key, WRITE_CODES if writing else S3_CODES)

    def _signed(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], proof: str = ""
    ) -> SignedRequest:
        path = self._base + quote(key, safe="/-_.~")
        signed = self._signer.headers(method, path, query, headers)
        return SignedRequest(method, self._origin, f"{path}?{canonical_query(query)}" if query else path, signed, proof)

    def _etag(self, key: str, request: SignedRequest, answer: Answer) -> str:
        confirmed = answer.headers.get(self._proof_header)
        if confirmed is not None and confirmed != request.proof:
            raise self._place.damaged(key)
        if "etag" not in answer.headers:
            raise self._place.not_understood("no ETag")
        return answer.headers["etag"]


def _code(answer: Answer) -> str:
    """The service's own code of a refusal; the status where it gave none."""
    try:
        # The sender is the configured service; entities of its own would be refused by the parser's limits.
        code = ET.fromstring(answer.body).findtext("Code")  # noqa: S314
    except ET.ParseError:
        code = None
    return code or str(answer.status)
