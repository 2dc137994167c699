"""Blob Storage brings objects by itself; see `tasks.core.ports.ServerSideCopy`.

Inside an account Copy Blob does it, pinned to the source's ETag. From elsewhere it pulls from a link that the source
has signed for a while: a small blob of another account by Copy Blob From URL, which is one request and pinned too but
takes no other sources; everything else in blocks by Put Block From URL. The service states the CRC64 of each block that
it took; together they are that of the whole. A link is handed to the service alone and stands in no log, error or
record.

https://learn.microsoft.com/rest/api/storageservices/copy-blob
https://learn.microsoft.com/rest/api/storageservices/copy-blob-from-url
https://learn.microsoft.com/rest/api/storageservices/put-block-from-url
"""

from __future__ import annotations

import base64
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from awscrt import checksums
from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient

from tasks.core.errors import NotFound, PreconditionFailed
from tasks.core.ports import DirectStore, ObjectInfo, Write, origin_of
from tasks.core.retries import in_parallel
from tasks.providers.azure.describing import Describing, conditions
from tasks.providers.azure.errors import translated

if TYPE_CHECKING:
    from tasks.core.ports import Link, Store
    from tasks.providers._dialects.objects import Place

_BLOCK_BYTES = 64 * 1024 * 1024
_LARGEST_COPY_BYTES = 256 * 1024 * 1024
_BLOCKS_IN_FLIGHT = 8
_LINK_VALID_S = 3600
_FIRST_LOOK_S = 0.2
_LONGEST_LOOK_S = 10.0


class AzureCopy:
    """Brings objects into one container.

    Args:
        container: The client library's handle of it.
        place: The container.
        describing: How its blobs are described.
        source_url: The URL of a blob of another store of the same account, or None for a store of another one.
        pulls: Whether to pull from other services, which get to see links to the source's objects.
        head: Describes a blob of the container.
        block_bytes: Size in bytes of the blocks that are pulled.
    """

    def __init__(
        self,
        container: ContainerClient,
        place: Place,
        describing: Describing,
        source_url: Callable[[Store, str], str | None],
        pulls: bool,
        head: Callable[[str], ObjectInfo],
        *,
        block_bytes: int = _BLOCK_BYTES,
    ) -> None:
        self._container = container
        self._place = place
        self._describing = describing
        self._source_url = source_url
        self._pulls = pulls
        self._head = head
        self.block_bytes = block_bytes

    def way(self, source: Store) -> Literal["server-side", "pull"] | None:
        """See `ServerSideCopy.way`. Copy Blob knows no encryption scope: with one, only a pull does."""
        if self._source_url(source, "") is not None:
            return None if self._describing.encryption_scope else "server-side"
        return "pull" if self._pulls and hasattr(type(source), "direct") else None

    def copy(self, source: Store, key: str, version: str, write: Write) -> ObjectInfo:
        """See `ServerSideCopy.copy`."""
        blob = self._container.get_blob_client(write.key)
        url = self._source_url(source, key)
        try:
            if url is not None:
                return self._copied(blob, url, version, write)
            if not isinstance(source, DirectStore):
                raise self._place.not_understood("the source signs no links")
            link = source.direct.link(key, valid_s=_LINK_VALID_S)
            if self._is_copied_whole(source, write):
                return self._copied(blob, link.url, version, write, requires_sync=True)
            return self._pull(blob, source, key, link, version, write)
        except NotFound as error:
            # A conditional write that meets no blob answers as a read does.
            if write.if_version is not None and error.what == self._place.no_object(write.key).what:
                raise self._place.changed(write.key) from error
            raise

    def _is_copied_whole(self, source: Store, write: Write) -> bool:
        """Whether Copy Blob From URL takes it; without own metadata a copy would show the source's for a while."""
        origin = origin_of(source)
        is_blob = origin is not None and origin.service == "blob"
        plain = not self._describing.encryption_scope and bool(write.metadata)
        return is_blob and plain and write.size_bytes <= _LARGEST_COPY_BYTES

    def _copied(self, blob: BlobClient, url: str, version: str, write: Write, **how: bool) -> ObjectInfo:
        described = self._describing.arguments(write.metadata, write.attributes)
        # What describes the content comes along with it; without metadata of its own the source's would too.
        settings = described.pop("content_settings")
        labels = described.pop("metadata")
        with translated(self._place, write.key):
            blob.start_copy_from_url(
                url,
                metadata=labels,
                source_etag=f'"{version}"',
                source_match_condition=MatchConditions.IfNotModified,
                **described,
                **how,
                **conditions(write.if_version, write.if_absent),
            )
            pause_s = _FIRST_LOOK_S
            while (state := blob.get_blob_properties().copy.status) == "pending":
                time.sleep(pause_s)
                pause_s = min(_LONGEST_LOOK_S, 2 * pause_s)
            if state != "success":
                raise self._place.not_understood(f"a copy ended as '{state}'")
            if not labels:
                blob.set_blob_metadata({})
            info = self._head(write.key)
            if info.attributes.content_disposition != write.attributes.content_disposition:
                blob.set_http_headers(settings)
                info = self._head(write.key)
        return info

    def _pull(self, blob: BlobClient, source: Store, key: str, link: Link, version: str, write: Write) -> ObjectInfo:
        # Ids of one length, and of this upload alone: writers of one blob must not mix their blocks.
        upload = uuid.uuid4().hex
        starts = list(enumerate(range(0, write.size_bytes, self.block_bytes)))

        def pull_block(span: tuple[int, int]) -> tuple[int, int, int | None]:
            number, start = span
            length = min(self.block_bytes, write.size_bytes - start)
            return number, length, self._pull_block(blob, link, f"{upload}-{number:06}", start, length)

        pulled = sorted(in_parallel(pull_block, starts, _BLOCKS_IN_FLIGHT, threading.Event()))
        if source.head(key).version != version:
            raise PreconditionFailed(
                f"'{key}' on {source.cloud} changed while it was pulled", "read it again and plan again"
            )
        blocks = [BlobBlock(f"{upload}-{number:06}") for number, _, _ in pulled]
        with translated(self._place, write.key):
            blob.commit_block_list(
                blocks,
                **self._describing.arguments(write.metadata, write.attributes),
                **conditions(write.if_version, write.if_absent),
            )
        whole: int | None = 0
        for _, length, crc64 in pulled:
            whole = None if whole is None or crc64 is None else checksums.combine_crc64nvme(whole, crc64, length)
        stated = {} if whole is None else {"crc64nvme": whole.to_bytes(8, "big").hex()}
        return dataclasses.replace(self._head(write.key), checksums=stated)

    def _pull_block(self, blob: BlobClient, link: Link, block_id: str, start: int, length: int) -> int | None:
        """Have the service take a block from the link; its CRC64 as the service states it."""
        with translated(self._place, blob.blob_name):
            answer: dict[str, Any] = blob.stage_block_from_url(
                block_id, link.url, source_offset=start, source_length=length, **self._describing.scoped
            )
        stated = answer.get("content_crc64")
        if stated is None:
            return None
        return int.from_bytes(bytes(stated) if not isinstance(stated, str) else base64.b64decode(stated), "little")
