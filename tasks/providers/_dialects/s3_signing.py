"""The S3 dialect, signed without its SDK, so that a process of few megabytes can; see `tasks.core.ports.Signing`."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from tasks.core.attributes import Description
from tasks.core.ports import Answer, SignedRequest, Write
from tasks.providers._dialects.objects import Place, RunningChecksum, range_header
from tasks.providers._dialects.s3_checksums import Checksum
from tasks.providers._dialects.s3_describing import Describing, has_tags
from tasks.providers._dialects.sigv4 import Signer, canonical_query


class S3Signing:
    """Implements `tasks.core.ports.Signing`, where the methods are described."""

    def __init__(
        self, signer: Signer, origin: str, base: str, place: Place, checksum: Checksum, describing: Describing
    ) -> None:
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

    def part(self, write: Write, upload_id: str, number: int, proof: str) -> SignedRequest:
        query = {"partNumber": str(number), "uploadId": upload_id}
        return self._signed("PUT", write.key, query, {**self._asking, self._proof_header: proof}, proof)

    def part_tag(self, request: SignedRequest, answer: Answer) -> str:
        return self._etag("a part", request, answer)

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
