"""Blob Storage over azure-storage-blob.

A version is the ETag. Large objects are block blobs whose blocks stay invisible until their list is committed; the
service drops blocks that were never committed after a week, or when another list of the same blob is committed.
https://learn.microsoft.com/rest/api/storageservices/put-block-list
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from azure.core import PipelineClient
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, BlobServiceClient, LinearRetry
from requests.adapters import HTTPAdapter

from tasks.core.attributes import PLAIN, Attributes
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import CHUNK_BYTES, rechunk
from tasks.core.errors import NotFound
from tasks.core.ports import Level, ObjectInfo, Origin
from tasks.providers._dialects.answers import readable, told
from tasks.providers._dialects.heads import insist_on_whole_heads
from tasks.providers._dialects.objects import (
    Place,
    address_of,
    check_range,
    exactly,
    part_bytes,
)
from tasks.providers._dialects.patience import timeouts_s
from tasks.providers._dialects.storage_classes import storage_classes
from tasks.providers.azure.describing import Describing, conditions
from tasks.providers.azure.errors import code_of, translated
from tasks.providers.azure.identity import StorageCredential, storage_credential
from tasks.providers.azure.listing import ListedBlob, ListedPrefix, Listing, Pipeline
from tasks.providers.azure.names import require_kept
from tasks.providers.azure.passes import Passes

if TYPE_CHECKING:
    from tasks.core.ports import Store
    from tasks.providers.azure.copy import AzureCopy
    from tasks.providers.azure.direct import AzureDirect

_MOST_BLOCKS = 50_000
_CONNECTIONS = 32
_FEW_TIERED = 1000


def open_store(config: CloudConfig, bucket: str) -> AzureStore:
    """A store for a container; `tasks.providers.azure` says what a cloud's configuration may hold.

    Raises:
        Invalid: The account is missing, `azure.identity` is needed and not installed, or there is only a token and
            no TLS.
        Denied: A credential's reference leads nowhere.
    """
    insist_on_whole_heads()
    account = config.option("account")
    public = f"https://{account}.blob.core.windows.net"
    endpoint = config.endpoint_or_public("objects") or public
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS, max_retries=0))
    credential = storage_credential(config, endpoint, "objects")
    connect_s, read_s = timeouts_s(config)
    transport = RequestsTransport(session=session, connection_timeout=connect_s, read_timeout=read_s)
    retries = LinearRetry(backoff=1, retry_total=2, random_jitter_range=1)
    client = BlobServiceClient(
        endpoint,
        credential=credential,
        transport=transport,
        retry_policy=retries,
        max_single_put_size=CHUNK_BYTES,
        max_single_get_size=CHUNK_BYTES,
        max_chunk_get_size=CHUNK_BYTES,
    )
    particular = config.bucket(bucket)
    classes = storage_classes(Path(__file__).with_name("catalog.yaml"), particular)
    describing = Describing(classes, particular.encryption_key or None)
    pulls = config.options.get("pulls", "").lower() == "true"
    origin = Origin("blob", account, elsewhere=endpoint.rstrip("/") != public)
    pipeline: Pipeline = PipelineClient(endpoint, policies=[retries], transport=transport)
    place = Place(config.name, bucket, address_of(endpoint))
    return AzureStore(client, pipeline, credential, place, describing, pulls, origin)


class AzureStore:
    """A container; implements `tasks.core.ports.Store`, where the methods are described."""

    def __init__(
        self,
        client: BlobServiceClient,
        pipeline: Pipeline,
        credential: StorageCredential,
        place: Place,
        describing: Describing,
        pulls: bool,
        origin: Origin,
    ) -> None:
        self.origin = origin
        self._credential = credential
        self._container = client.get_container_client(place.bucket)
        self._place = place
        self._describing = describing
        self._pulls = pulls
        self._passes = Passes(credential, place)
        url, version = str(self._container.url), str(self._container.api_version)
        self._listing = Listing(pipeline, url, version, place, self._passes)
        self._listed = False
        self._tiered: set[str] = set()

    @property
    def cloud(self) -> str:
        return self._place.cloud

    @property
    def bucket(self) -> str:
        return self._place.bucket

    @cached_property
    def direct(self) -> AzureDirect:
        """What others may send for it; see `tasks.core.ports.Direct`."""
        from tasks.providers.azure.direct import AzureDirect

        return AzureDirect(
            self._container, self._credential, self._place, self._describing, self._tells_tier, self._few_tiered,
            self._passes,
        )  # fmt: skip

    @cached_property
    def server_side(self) -> AzureCopy:
        """What it brings by itself; see `tasks.core.ports.ServerSideCopy`."""
        from tasks.providers.azure.copy import AzureCopy

        def source_url(other: Store, key: str) -> str | None:
            if not isinstance(other, AzureStore) or other._account_url != self._account_url:
                return None
            return other._container.get_blob_client(key or "x").url

        return AzureCopy(self._container, self._place, self._describing, source_url, self._pulls, self.head)

    @property
    def _account_url(self) -> str:
        return self._container.url.partition("?")[0].rpartition("/")[0]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for found in self._listing.entries(prefix):
            if isinstance(found, ListedBlob) and not _is_folder(found):
                yield self._listed_info(found)
        self._listed = True

    def level(self, prefix: str, most: int) -> Level | None:
        level = Level([], [])
        for found in self._listing.entries(prefix, delimiter="/"):
            if isinstance(found, ListedPrefix):
                level.prefixes.append(found.name)
            elif not _is_folder(found):
                level.objects.append(self._listed_info(found))
            if len(level.objects) + len(level.prefixes) > most:
                return None
        return level

    def head(self, key: str) -> ObjectInfo:
        with translated(self._place, key):
            blob = self._container.get_blob_client(key)
            found = blob.get_blob_properties()
            told(found, self.cloud, "etag", "last_modified", "size")
            info = self._info(found)
            if not found.tag_count:
                return info
            return replace(info, attributes=replace(info.attributes, tags=blob.get_blob_tags()))

    def get(
        self, key: str, *, version: str | None = None, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        check_range(key, start, length)
        with translated(self._place, key):
            with readable(self.cloud):
                # One request a piece; each further one is pinned to the ETag of the first.
                download = self._container.get_blob_client(key).download_blob(
                    offset=start if start or length else None,
                    length=length,
                    max_concurrency=1,
                    # An object that is stored compressed is read as it is stored.
                    decompress=False,
                    **conditions(version),
                )
            if download.size < (length or 0):
                raise self._place.beyond_the_end(key)
            seen_bytes = 0
            for piece in download.chunks():
                seen_bytes += len(piece)
                yield piece
        if seen_bytes != download.size:
            raise self._place.cut(key)

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
        require_kept(key, self._place)
        blob = self._container.get_blob_client(key)
        condition = conditions(if_version, if_absent)
        describing: dict[str, Any] = {
            **self._describing.arguments(metadata, attributes),
            **condition,
        }
        pieces = rechunk(exactly(body, size_bytes, self._place, key), part_bytes(size_bytes, _MOST_BLOCKS))
        try:
            if size_bytes <= CHUNK_BYTES:
                data = b"".join(pieces)
                with translated(self._place, key):
                    written = blob.upload_blob(
                        data, length=size_bytes, overwrite=True, validate_content=True, **describing
                    )
            else:
                written = self._put_blocks(blob, pieces, key, describing)
        except NotFound as error:
            # A conditional write that meets no blob answers as a read does.
            if if_version is not None and error.what == self._place.no_object(key).what:
                raise self._place.changed(key) from error
            raise
        written = told(written, self.cloud, "etag", "last_modified")
        version, modified = _version(written["etag"]), written["last_modified"]
        return ObjectInfo(key, size_bytes, version, modified, dict(metadata or {}), attributes)

    def delete(self, key: str) -> None:
        with translated(self._place, key):
            try:
                self._container.get_blob_client(key).delete_blob(delete_snapshots="include")
            except ResourceNotFoundError as error:
                if code_of(error) != "BlobNotFound":
                    raise

    def create_bucket(self) -> None:
        with translated(self._place):
            try:
                self._container.create_container()
            except ResourceExistsError as error:
                if code_of(error) != "ContainerAlreadyExists":
                    raise

    def _info(self, blob: BlobProperties) -> ObjectInfo:
        archived = self._archived(blob.name, str(blob.blob_tier or ""), inferred=bool(blob.blob_tier_inferred))
        kept, version = self._describing.read(blob), _version(blob.etag)
        return ObjectInfo(
            blob.name, blob.size, version, blob.last_modified, kept.metadata, kept.attributes, archived=archived
        )

    def _listed_info(self, blob: ListedBlob) -> ObjectInfo:
        archived = self._archived(blob.name, blob.tier, inferred=blob.tier_inferred)
        kept, version = self._describing.read_listed(blob.metadata, blob.properties), _version(blob.etag)
        return ObjectInfo(
            blob.name, blob.size_bytes, version, blob.modified, kept.metadata, kept.attributes, archived=archived
        )

    def _archived(self, name: str, tier: str, *, inferred: bool) -> bool:
        """Whether a blob of this tier cannot be read; remembers blobs that have a tier of their own."""
        if tier and not inferred:
            self._tiered.add(name)
        return tier in self._describing.classes.unreadable

    def _tells_tier(self, key: str) -> bool:
        """Whether the listing has shown that the blob has no tier of its own, which no answer to a read would tell."""
        return self._listed and key not in self._tiered

    def _few_tiered(self) -> frozenset[str] | None:
        """The blobs that are known to have a tier of their own; None before a listing, or when they are many."""
        return frozenset(self._tiered) if self._listed and len(self._tiered) <= _FEW_TIERED else None

    def _put_blocks(self, blob: BlobClient, pieces: Iterable[bytes], key: str, describing: dict[str, Any]) -> Any:
        # Ids of one length, and of this upload alone: writers of one blob must not mix their blocks.
        upload = uuid.uuid4().hex
        blocks: list[BlobBlock] = []
        for number, piece in enumerate(pieces):
            block_id = base64.b64encode(f"{upload}-{number:06}".encode()).decode()
            with translated(self._place, key):
                blob.stage_block(block_id, piece, length=len(piece), validate_content=True, **self._describing.scoped)
            blocks.append(BlobBlock(block_id))
        with translated(self._place, key):
            return blob.commit_block_list(blocks, **describing)


def _is_folder(blob: ListedBlob) -> bool:
    """Accounts with a hierarchical namespace list directories as empty blobs."""
    return blob.metadata.get("hdi_isfolder") == "true"


def _version(etag: str) -> str:
    return etag.strip('"')
