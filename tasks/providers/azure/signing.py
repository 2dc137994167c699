"""Blob Storage, authorised without its SDK, so that a process of few megabytes can; see `tasks.core.ports.Signing`.

The service verifies CRC64 (NVME, little-endian), which costs a tenth of MD5; old emulators return it unread.
https://learn.microsoft.com/rest/api/storageservices/put-block
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from awscrt import checksums

from tasks.core.attributes import Description
from tasks.core.ports import Answer, SignedRequest, Write
from tasks.providers._dialects.objects import Pass, Place, RunningChecksum, range_header
from tasks.providers.azure.describing import Describing
from tasks.providers.azure.names import require_kept

STAGED = "staged"
"""What a block that was sent is called: the service gives it no name of its own."""

CRC64 = "x-ms-content-crc64"
_MD5 = "Content-MD5"


@dataclass(frozen=True, slots=True)
class AllBut:
    """Whether a blob has no tier of its own, by those that have one; None: it is not known of any."""

    tiered: frozenset[str] | None

    def __call__(self, key: str) -> bool:
        return self.tiered is not None and key not in self.tiered


class AzureSigning:
    """Implements `tasks.core.ports.Signing`, where the methods are described.

    Args:
        origin, base: Where the container is: scheme and host, and its path.
        api_version: The version of the service's API that requests ask for.
        place: The container, as errors name it.
        describing: How its blobs are described.
        is_plain: Whether a blob has no tier of its own, which no answer to a read would tell.
        authorize: What lets the next request through.
        verifies_crc64: Whether the service is known to refuse a wrong CRC64.
    """

    def __init__(
        self,
        origin: str,
        base: str,
        api_version: str,
        place: Place,
        describing: Describing,
        is_plain: Callable[[str], bool],
        authorize: Callable[[], Pass],
        verifies_crc64: bool | None = None,
    ) -> None:
        self._origin = origin
        self._base = base
        self._api_version = api_version
        self._place = place
        self._describing = describing
        self._is_plain = is_plain
        self._authorize = authorize
        self._verifies_crc64 = verifies_crc64

    def get(self, key: str, *, version: str, start: int, length: int | None) -> SignedRequest:
        headers = {"If-Match": f'"{version}"'} if version else {}
        span = range_header(start, length)
        if span is not None:
            headers["Range"] = span
        return self._authorized("GET", key, "", headers)

    def described(self, key: str, answer: Answer) -> Description | None:
        return self._describing.read_headers(answer.headers) if self._is_plain(key) else None

    def proof(self) -> RunningChecksum | _RunningMd5:
        return RunningChecksum(checksums.crc64nvme, crc64_text) if self._verifies_crc64 else _RunningMd5()

    def put(self, write: Write, proof: str) -> SignedRequest:
        require_kept(write.key, self._place)
        headers = {
            "x-ms-blob-type": "BlockBlob",
            self._proof_header: proof,
            **self._describing.headers(write.metadata, write.attributes),
        }
        if write.if_absent:
            headers["If-None-Match"] = "*"
        elif write.if_version is not None:
            headers["If-Match"] = f'"{write.if_version}"'
        return self._authorized("PUT", write.key, "", headers, proof)

    def written(self, write: Write, request: SignedRequest, answer: Answer) -> str:
        self._confirm(write.key, request, answer)
        if "etag" not in answer.headers:
            raise self._place.not_understood("no ETag")
        return answer.headers["etag"].strip('"')

    def part(self, write: Write, upload_id: str, number: int, proof: str) -> SignedRequest:
        return self._block(write.key, upload_id, number, self._proof_header, proof)

    def part_tag(self, request: SignedRequest, answer: Answer) -> str:
        self._confirm("a block", request, answer)
        return STAGED

    @property
    def _proof_header(self) -> str:
        return CRC64 if self._verifies_crc64 else _MD5

    def _block(self, key: str, upload_id: str, number: int, name: str, proof: str) -> SignedRequest:
        # The SDK encodes the ids that it is given; they must be the same here.
        block_id = base64.b64encode(block_id_of(upload_id, number).encode()).decode()
        query = f"comp=block&blockid={quote(block_id, safe='')}"
        return self._authorized("PUT", key, query, {name: proof, **self._describing.encrypting}, proof)

    def _confirm(self, key: str, request: SignedRequest, answer: Answer) -> None:
        for name in (CRC64, _MD5):
            confirmed = answer.headers.get(name.lower())
            if name in request.headers and confirmed not in (None, request.proof):
                raise self._place.damaged(key)

    def _authorized(self, method: str, key: str, query: str, headers: dict[str, str], proof: str = "") -> SignedRequest:
        passing = self._authorize()
        headers |= {"x-ms-version": self._api_version, **passing.headers}
        target = f"{self._base}/{quote(key, safe='~/')}"
        query = "&".join(filter(None, (query, passing.query)))
        return SignedRequest(method, self._origin, f"{target}?{query}" if query else target, headers, proof)


class _RunningMd5:
    """MD5 of the pieces of a body, as Blob Storage's requests carry it."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)

    def update(self, piece: memoryview) -> None:
        self._hash.update(piece)

    def text(self) -> str:
        return base64.b64encode(self._hash.digest()).decode()


def crc64_text(value: int) -> str:
    """A CRC64 as requests carry it."""
    return base64.b64encode(value.to_bytes(8, "little")).decode()


def block_id_of(upload_id: str, number: int) -> str:
    """The id of a block of an upload; all of one length."""
    return f"{upload_id}-{number:06}"
