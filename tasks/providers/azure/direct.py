"""Blob Storage, authorised for others to send; see `tasks.core.ports.Direct`.

The service verifies CRC64 (NVME, little-endian), which costs a tenth of MD5; old emulators return it unread. Which of
the two is found out before the first upload in blocks, with a block that is never committed and whose checksum is wrong
on purpose; until then a blob carries MD5.
https://learn.microsoft.com/rest/api/storageservices/put-block
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import requests
from awscrt import checksums
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import (
    BlobBlock,
    BlobSasPermissions,
    ContainerClient,
    generate_blob_sas,
)

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import LintasError, NotFound
from tasks.core.ports import Answer, Link, SentPart, Write
from tasks.providers._dialects.answers import told
from tasks.providers._dialects.objects import Pass, Place
from tasks.providers.azure.describing import Describing, conditions
from tasks.providers.azure.errors import refusal, translated
from tasks.providers.azure.identity import StorageCredential
from tasks.providers.azure.names import require_kept
from tasks.providers.azure.signing import CRC64, STAGED, AllBut, AzureSigning, block_id_of, crc64_text

_MOST_BLOCKS = 50_000
_TIMEOUT = (20.0, 60.0)
_WRONG_CRC64 = "Crc64Mismatch"


class AzureDirect(AzureSigning):
    """Implements `tasks.core.ports.Direct`, where the methods are described."""

    most_parts = _MOST_BLOCKS

    def __init__(
        self,
        container: ContainerClient,
        credential: StorageCredential,
        place: Place,
        describing: Describing,
        is_plain: Callable[[str], bool],
        tiered: Callable[[], frozenset[str] | None],
        authorize: Callable[[], Pass],
    ) -> None:
        where = urlsplit(container.url)
        origin, version = f"{where.scheme}://{where.netloc}", str(container.api_version)
        super().__init__(origin, where.path, version, place, describing, is_plain, authorize)
        self._container = container
        self._credential = credential
        self._tiered = tiered
        self._probing = threading.Lock()

    def lent(self) -> AzureSigning:
        return AzureSigning(
            self._origin, self._base, self._api_version, self._place, self._describing,
            AllBut(self._tiered()), self._authorize(), self._verifies_crc64,
        )  # fmt: skip

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

    def begin(self, write: Write) -> str:
        require_kept(write.key, self._place)
        # Ids of one length, and of this upload alone: writers of one blob must not mix their blocks.
        return uuid.uuid4().hex

    def sent(self, write: Write, upload_id: str) -> Mapping[int, str] | None:
        with translated(self._place, write.key):
            try:
                _, waiting = self._container.get_blob_client(write.key).get_block_list("uncommitted")
            except ResourceNotFoundError:
                return None
        blocks = {block.id for block in waiting}
        numbers = range(1, -(-write.size_bytes // CHUNK_BYTES) + 1)
        return {number: STAGED for number in numbers if block_id_of(upload_id, number) in blocks}

    def finish(self, write: Write, upload_id: str, parts: Sequence[SentPart]) -> str:
        describing = self._describing.arguments(write.metadata, write.attributes)
        describing |= conditions(write.if_version, write.if_absent)
        blocks = [BlobBlock(block_id_of(upload_id, part.number)) for part in parts]
        try:
            with translated(self._place, write.key):
                answer = self._container.get_blob_client(write.key).commit_block_list(blocks, **describing)
        except NotFound as error:
            # A conditional write that meets no blob answers as a read does.
            if write.if_version is not None and error.what == self._place.no_object(write.key).what:
                raise self._place.changed(write.key) from error
            raise
        return str(told(answer, self._place.cloud, "etag")["etag"]).strip('"')

    def abandon(self, write: Write, upload_id: str) -> None:
        """Blocks that are never committed cannot be removed: the service drops them after a week."""

    def sweep(self, key: str, but: Collection[str]) -> None:
        """Nothing: as `abandon`."""

    def refused(self, key: str, answer: Answer, *, writing: bool) -> LintasError:
        code = answer.headers.get("x-ms-error-code", "")
        error = refusal(answer.status, code, answer.headers, self._place, key)
        if writing and isinstance(error, NotFound) and error.what == self._place.no_object(key).what:
            return self._place.changed(key)
        return error

    def _refuses_wrong_crc64(self, key: str) -> bool:
        """Whether the service takes the right checksum of a byte and refuses a wrong one."""
        body = b"?"
        right, wrong = (crc64_text(checksums.crc64nvme(text)) for text in (body, b"!"))
        upload_id = uuid.uuid4().hex

        def outcome(proof: str) -> tuple[int, str]:
            request = self._block(key, upload_id, 0, CRC64, proof)
            try:
                answer = requests.put(
                    request.origin + request.target, body, headers=dict(request.headers), timeout=_TIMEOUT
                )
            except requests.RequestException as error:
                raise self._place.unreachable() from error
            return answer.status_code, answer.headers.get("x-ms-error-code", "")

        # At once: nothing of the move is under way before both are answered.
        with ThreadPoolExecutor(2, thread_name_prefix="probe") as asking:
            outcomes = list(asking.map(outcome, (wrong, right)))
        return outcomes == [(400, _WRONG_CRC64), (201, "")]
