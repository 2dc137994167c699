"""Blob Storage, authorised for others to send; see `tasks.core.ports.Direct`.

With an account's key the SDK signs one container for an hour at a time (a shared access signature); otherwise requests
carry the configured signature or a token.

The service verifies CRC64 (NVME, little-endian), which costs a tenth of MD5; Azurite returns it unread. Which of the
two is found out before the first upload in blocks, with a block that is never committed and whose checksum is wrong on
purpose; until then a blob carries MD5.
https://learn.microsoft.com/rest/api/storageservices/put-block
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import requests
from awscrt import checksums
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import (
    BlobBlock,
    BlobSasPermissions,
    ContainerClient,
    ContainerSasPermissions,
    generate_blob_sas,
    generate_container_sas,
)

from tasks.core.attributes import Description
from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import LintasError, NotFound
from tasks.core.ports import Answer, Link, SentPart, SignedRequest, Write
from tasks.providers._dialects.objects import Place, RunningChecksum, range_header
from tasks.providers.azure.describing import Describing, conditions
from tasks.providers.azure.errors import refusal, translated
from tasks.providers.azure.identity import StorageCredential
from tasks.providers.azure.store import require_kept

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_MOST_BLOCKS = 50_000
_SIGNED_FOR_S = 3600
_SCOPE = "https://storage.azure.com/.default"
_TIMEOUT = (20.0, 60.0)
_STAGED = "staged"
_CRC64 = "x-ms-content-crc64"
_MD5 = "Content-MD5"
_WRONG_CRC64 = "Crc64Mismatch"


class AzureDirect:
    """Implements `tasks.core.ports.Direct`, where the methods are described."""

    most_parts = _MOST_BLOCKS

    def __init__(
        self,
        container: ContainerClient,
        credential: StorageCredential,
        place: Place,
        describing: Describing,
        is_plain: Callable[[str], bool],
    ) -> None:
        where = urlsplit(container.url)
        self._origin = f"{where.scheme}://{where.netloc}"
        self._base = where.path
        self._container = container
        self._credential = credential
        self._place = place
        self._describing = describing
        self._is_plain = is_plain
        self._version = {"x-ms-version": container.api_version}
        self._verifies_crc64: bool | None = None
        self._signature = ("", 0.0)
        self._signing = threading.Lock()
        self._probing = threading.Lock()

    def get(self, key: str, *, version: str, start: int, length: int | None) -> SignedRequest:
        headers = {"If-Match": f'"{version}"'} if version else {}
        span = range_header(start, length)
        if span is not None:
            headers["Range"] = span
        return self._authorized("GET", key, "", headers)

    def described(self, key: str, answer: Answer) -> Description | None:
        return self._describing.read_headers(answer.headers) if self._is_plain(key) else None

    def link(self, key: str, *, valid_s: int) -> Link:
        if not isinstance(self._credential, (AzureNamedKeyCredential, AzureSasCredential)):
            raise self._place.denied()
        path = f"{self._base}/{quote(key, safe='~/')}"
        if isinstance(self._credential, AzureSasCredential):
            return Link(f"{self._origin}{path}?{self._credential.signature.lstrip('?')}")
        signature = generate_blob_sas(
            str(self._credential.named_key.name),
            self._place.bucket,
            key,
            account_key=self._credential.named_key.key,
            permission=BlobSasPermissions(read=True),
            start=datetime.now(UTC) - timedelta(minutes=15),
            expiry=datetime.now(UTC) + timedelta(seconds=valid_s),
        )
        return Link(f"{self._origin}{path}?{signature}")

    def prepare(self, key: str) -> None:
        with self._probing:
            if self._verifies_crc64 is None:
                self._verifies_crc64 = self._refuses_wrong_crc64(key)

    def proof(self) -> RunningChecksum | _RunningMd5:
        return RunningChecksum(checksums.crc64nvme, _crc64_text) if self._verifies_crc64 else _RunningMd5()

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

    def begin(self, write: Write) -> str:
        require_kept(write.key, self._place)
        # Ids of one length, and of this upload alone: writers of one blob must not mix their blocks.
        return uuid.uuid4().hex

    def part(self, write: Write, upload_id: str, number: int, proof: str) -> SignedRequest:
        return self._block(write.key, upload_id, number, self._proof_header, proof)

    def part_tag(self, request: SignedRequest, answer: Answer) -> str:
        self._confirm("a block", request, answer)
        return _STAGED

    def sent(self, write: Write, upload_id: str) -> Mapping[int, str] | None:
        with translated(self._place, write.key):
            try:
                _, waiting = self._container.get_blob_client(write.key).get_block_list("uncommitted")
            except ResourceNotFoundError:
                return None
        blocks = {block.id for block in waiting}
        numbers = range(1, -(-write.size_bytes // CHUNK_BYTES) + 1)
        return {number: _STAGED for number in numbers if _block_id(upload_id, number) in blocks}

    def finish(self, write: Write, upload_id: str, parts: Sequence[SentPart]) -> str:
        describing = self._describing.arguments(write.metadata, write.attributes)
        describing |= conditions(write.if_version, write.if_absent)
        blocks = [BlobBlock(_block_id(upload_id, part.number)) for part in parts]
        try:
            with translated(self._place, write.key):
                answer = self._container.get_blob_client(write.key).commit_block_list(blocks, **describing)
        except NotFound as error:
            # A conditional write that meets no blob answers as a read does.
            if write.if_version is not None and error.what == self._place.no_object(write.key).what:
                raise self._place.changed(write.key) from error
            raise
        return str(answer["etag"]).strip('"')

    def abandon(self, write: Write, upload_id: str) -> None:
        """Blocks that are never committed cannot be removed: the service drops them after a week."""

    def refused(self, key: str, answer: Answer, *, writing: bool) -> LintasError:
        code = answer.headers.get("x-ms-error-code", "")
        error = refusal(answer.status, code, answer.headers, self._place, key)
        if writing and isinstance(error, NotFound) and error.what == self._place.no_object(key).what:
            return self._place.changed(key)
        return error

    @property
    def _proof_header(self) -> str:
        return _CRC64 if self._verifies_crc64 else _MD5

    def _refuses_wrong_crc64(self, key: str) -> bool:
        """Whether the service takes the right checksum of a byte and refuses a wrong one."""
        body = b"?"
        right, wrong = (_crc64_text(checksums.crc64nvme(text)) for text in (body, b"!"))
        upload_id = uuid.uuid4().hex
        outcomes: list[tuple[int, str]] = []
        for proof in (wrong, right):
            request = self._block(key, upload_id, 0, _CRC64, proof)
            try:
                answer = requests.put(
                    request.origin + request.target, body, headers=dict(request.headers), timeout=_TIMEOUT
                )
            except requests.RequestException as error:
                raise self._place.unreachable() from error
            outcomes.append((answer.status_code, answer.headers.get("x-ms-error-code", "")))
        return outcomes == [(400, _WRONG_CRC64), (201, "")]

    def _block(self, key: str, upload_id: str, number: int, name: str, proof: str) -> SignedRequest:
        # The SDK encodes the ids that it is given; they must be the same here.
        block_id = base64.b64encode(_block_id(upload_id, number).encode()).decode()
        query = f"comp=block&blockid={quote(block_id, safe='')}"
        return self._authorized("PUT", key, query, {name: proof, **self._describing.encrypting}, proof)

    def _confirm(self, key: str, request: SignedRequest, answer: Answer) -> None:
        for name in (_CRC64, _MD5):
            confirmed = answer.headers.get(name.lower())
            if name in request.headers and confirmed not in (None, request.proof):
                raise self._place.damaged(key)

    def _authorized(self, method: str, key: str, query: str, headers: dict[str, str], proof: str = "") -> SignedRequest:
        headers |= self._version
        target = f"{self._base}/{quote(key, safe='~/')}"
        if isinstance(self._credential, (AzureNamedKeyCredential, AzureSasCredential)):
            query = "&".join(filter(None, (query, self._shared_signature(self._credential))))
        else:
            headers["Authorization"] = f"Bearer {self._token(self._credential)}"
        return SignedRequest(method, self._origin, f"{target}?{query}" if query else target, headers, proof)

    def _shared_signature(self, credential: AzureNamedKeyCredential | AzureSasCredential) -> str:
        if isinstance(credential, AzureSasCredential):
            return credential.signature.lstrip("?")
        signature, renewed_at = self._signature
        if time.monotonic() < renewed_at:
            return signature
        with self._signing:
            signature = generate_container_sas(
                str(credential.named_key.name),
                self._place.bucket,
                account_key=credential.named_key.key,
                permission=ContainerSasPermissions(read=True, write=True, create=True, tag=True),
                # Clocks differ by minutes.
                start=datetime.now(UTC) - timedelta(minutes=15),
                expiry=datetime.now(UTC) + timedelta(seconds=_SIGNED_FOR_S),
            )
            self._signature = (signature, time.monotonic() + _SIGNED_FOR_S / 2)
        return signature

    def _token(self, credential: TokenCredential) -> str:
        text, renewed_at = self._signature
        if time.monotonic() < renewed_at:
            return text
        with self._signing, translated(self._place):
            token = credential.get_token(_SCOPE)
            self._signature = (token.token, time.monotonic() + max(0.0, (token.expires_on - time.time()) / 2))
        return token.token


class _RunningMd5:
    """MD5 of the pieces of a body, as Blob Storage's requests carry it."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)

    def update(self, piece: memoryview) -> None:
        self._hash.update(piece)

    def text(self) -> str:
        return base64.b64encode(self._hash.digest()).decode()


def _crc64_text(value: int) -> str:
    return base64.b64encode(value.to_bytes(8, "little")).decode()


def _block_id(upload_id: str, number: int) -> str:
    return f"{upload_id}-{number:06}"
