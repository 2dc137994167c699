"""Cloud Storage over google-cloud-storage.

A version is the object's generation. The client library describes objects, opens upload sessions and signs; bodies
are pumped here over its authorized session, because its own reader and writer either ask for the size first or
cannot be cancelled. https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import google_crc32c
import requests
from google.api_core import exceptions as api
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from tasks.core.attributes import PLAIN, Attributes
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import CHUNK_BYTES, rechunk
from tasks.core.ports import Level, ObjectInfo, Origin
from tasks.providers._dialects.answers import readable, unreadable
from tasks.providers._dialects.heads import insist_on_whole_heads
from tasks.providers._dialects.objects import (
    READ_BYTES,
    Place,
    address_of,
    check_range,
    exactly,
    giving_up,
    range_header,
)
from tasks.providers._dialects.patience import timeouts_s
from tasks.providers._dialects.storage_classes import storage_classes
from tasks.providers.google.describing import Describing, stated_checksums
from tasks.providers.google.errors import NO_BUCKET, translated
from tasks.providers.google.identity import google_credentials

if TYPE_CHECKING:
    from tasks.core.ports import Store
    from tasks.providers.google.copy import GoogleCopy
    from tasks.providers.google.direct import GoogleDirect
    from tasks.providers.google.transfers import GoogleTransfers


_ENDPOINT = "https://storage.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_RETRY = DEFAULT_RETRY.with_delay(initial=0.2, maximum=2.0, multiplier=2.0).with_timeout(3.0)
_CONNECTIONS = 32
_PAGE = 1000
_LISTED = "items(name,size,generation,updated,storageClass),prefixes,nextPageToken"
_INCOMPLETE = 308
_GONE = (404, 410)


def open_store(config: CloudConfig, bucket: str) -> GoogleStore:
    """A store for a bucket; `tasks.providers.google` says what a cloud's configuration may hold.

    Raises:
        Invalid: The service account's key cannot be read, or the bucket's name cannot be one.
        Denied: There are no credentials.
    """
    insist_on_whole_heads()
    endpoint = (config.endpoint_or_public("objects") or _ENDPOINT).rstrip("/")
    place = Place(config.name, bucket, address_of(endpoint))
    with translated(place):
        session = AuthorizedSession(google_credentials(config, _SCOPES))
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS))
        client = storage.Client(
            project=config.options.get("project"),
            credentials=session.credentials,
            client_options={"api_endpoint": endpoint},
            _http=session,
        )
    particular = config.bucket(bucket)
    classes = storage_classes(Path(__file__).with_name("catalog.yaml"), particular)
    project = config.options.get("project") if particular.requester_pays else None
    describing = Describing(classes, particular.encryption_key or None, project)
    return GoogleStore(client, session, endpoint, place, describing, config, timeouts_s(config))


class GoogleStore:
    """A bucket; implements `tasks.core.ports.Store`, where the methods are described."""

    def __init__(
        self,
        client: storage.Client,
        session: AuthorizedSession,
        endpoint: str,
        place: Place,
        describing: Describing,
        config: CloudConfig,
        timeouts_s: tuple[float, float],
    ) -> None:
        self._client = client
        self._session = session
        try:
            self._bucket = client.bucket(place.bucket, user_project=describing.user_project)
        except ValueError as error:
            raise place.rejected("the bucket's name") from error
        self._endpoint = endpoint
        self._place = place
        self._describing = describing
        self._config = config
        self._call: dict[str, Any] = {"retry": _RETRY, "timeout": timeouts_s}

    @property
    def cloud(self) -> str:
        return self._place.cloud

    @property
    def bucket(self) -> str:
        return self._place.bucket

    @property
    def origin(self) -> Origin:
        """How another provider's service would name it; see `tasks.core.ports.OriginStore`."""
        return Origin("cloud-storage", elsewhere=self._endpoint != _ENDPOINT)

    @cached_property
    def direct(self) -> GoogleDirect:
        """What others may send for it; see `tasks.core.ports.Direct`."""
        from tasks.providers.google.direct import GoogleDirect

        return GoogleDirect(self._client, self._session, self._endpoint, self._place, self._describing, self._call)

    @cached_property
    def server_side(self) -> GoogleCopy:
        """What it copies by itself; see `tasks.core.ports.ServerSideCopy`."""
        from tasks.providers.google.copy import GoogleCopy

        def is_ours(other: Store) -> bool:
            return isinstance(other, GoogleStore) and other._endpoint == self._endpoint

        return GoogleCopy(self._client, self._bucket, self._place, self._describing, is_ours, self._call)

    @cached_property
    def pull_jobs(self) -> GoogleTransfers | None:
        """What it has fetched by jobs; see `tasks.core.ports.PullJobs`."""
        from tasks.providers.google.transfers import GoogleTransfers

        if self._config.options.get("pulls", "").lower() != "true":
            return None
        return GoogleTransfers(self._config, self._bucket, self._place, self._call)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for page in self._pages(prefix):
            yield from page.objects

    def level(self, prefix: str, most: int) -> Level | None:
        level = Level([], [])
        for page in self._pages(prefix, delimiter="/"):
            level.objects.extend(page.objects)
            level.prefixes.extend(page.prefixes)
            if len(level.objects) + len(level.prefixes) > most:
                return None
        return level

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[Level]:
        """The pages of a listing. The client library reads times by a format, which is a third of a listing's cost."""
        query = {"projection": "noAcl", "maxResults": str(_PAGE), "fields": _LISTED, "prefix": prefix}
        query |= {"delimiter": delimiter} if delimiter else {}
        if self._describing.user_project:
            query["userProject"] = self._describing.user_project
        url = f"{self._endpoint}/storage/v1/b/{quote(self.bucket, safe='')}/o"
        more: str | None = ""
        while more is not None:
            asked = {**query, "pageToken": more} if more else query
            with translated(self._place):
                answer = self._request("GET", f"{url}?{urlencode(asked)}")
            try:
                page: dict[str, Any] = answer.json()
                found = Level(list(map(self._listed, page.get("items", ()))), page.get("prefixes", []))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise self._place.not_understood("a listing") from error
            yield found
            more = page.get("nextPageToken")

    def _listed(self, item: Mapping[str, Any]) -> ObjectInfo:
        tier = Attributes(tier=self._describing.classes.tier(item.get("storageClass")))
        modified = datetime.fromisoformat(item["updated"])
        return ObjectInfo(item["name"], int(item.get("size", 0)), item["generation"], modified, attributes=tier)

    def head(self, key: str) -> ObjectInfo:
        blob = self._blob(key)
        with translated(self._place, key):
            blob.reload(**self._call)
        with readable(self.cloud):
            kept = self._describing.read(blob)
            version, size_bytes, checksums = str(int(blob.generation)), blob.size or 0, stated_checksums(blob)
        return ObjectInfo(key, size_bytes, version, _written(blob), kept.metadata, kept.attributes, checksums=checksums)

    def get(
        self, key: str, *, version: str | None = None, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        check_range(key, start, length)
        # Asking for gzip keeps an object that is stored compressed as it is stored.
        headers = {"Accept-Encoding": "gzip"}
        span = range_header(start, length)
        if span is not None:
            headers["Range"] = span
        query: dict[str, Any] = {"alt": "media"}
        if version is not None:
            query["ifGenerationMatch"] = self._generation(version, key)
        if self._describing.user_project:
            query["userProject"] = self._describing.user_project
        path = f"/download/storage/v1/b/{quote(self.bucket, safe='')}/o/{quote(key, safe='')}"
        url = f"{self._endpoint}{path}?{urlencode(query)}"
        with translated(self._place, key):
            answer = self._request("GET", url, headers=headers, stream=True)
            with answer:
                if not {"Content-Length", "Transfer-Encoding"}.intersection(map(str.title, answer.headers)):
                    # Python's HTTP takes a head that was cut for a whole one: where would the body end?
                    raise unreadable(self.cloud)
                if length is not None and int(answer.headers.get("Content-Length", length)) < length:
                    raise self._place.beyond_the_end(key)
                seen = google_crc32c.Checksum()
                while piece := answer.raw.read(READ_BYTES, decode_content=False):
                    seen.update(piece)
                    yield piece
                stated = _stated_crc32c(answer)
                if span is None and stated is not None and stated != _text(seen):
                    raise self._place.damaged(key)

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
        labels = dict(metadata or {})
        blob = self._blob(key)
        self._describing.describe(blob, labels, attributes)
        generation = None
        if if_absent:
            generation = 0
        elif if_version is not None:
            generation = self._generation(if_version, key)
        pieces = rechunk(exactly(body, size_bytes, self._place, key))
        if size_bytes <= CHUNK_BYTES:
            data = b"".join(pieces)
            with translated(self._place, key):
                blob.upload_from_string(
                    data,
                    content_type=attributes.content_type,
                    checksum="crc32c",
                    if_generation_match=generation,
                    **self._call,
                )
            return ObjectInfo(key, size_bytes, str(blob.generation), _written(blob), labels, attributes)
        with translated(self._place, key):
            upload_url = blob.create_resumable_upload_session(
                content_type=attributes.content_type,
                size=size_bytes,
                checksum=None,
                if_generation_match=generation,
                **self._call,
            )
        written = self._pump(str(upload_url), pieces, size_bytes, key)
        modified = datetime.fromisoformat(written["updated"])
        return ObjectInfo(key, size_bytes, written["generation"], modified, labels, attributes)

    def delete(self, key: str) -> None:
        with translated(self._place, key):
            try:
                self._blob(key).delete(**self._call)
            except api.NotFound as error:
                if NO_BUCKET in str(error):
                    raise

    def create_bucket(self) -> None:
        with translated(self._place):
            try:
                self._client.create_bucket(self._bucket, location=self._config.region or None, **self._call)
            except api.Conflict as error:
                if "you already own it" not in str(error):
                    raise

    def _blob(self, key: str) -> Any:
        """The client library's handle of an object, whose annotations do not say what it takes."""
        return self._bucket.blob(key, kms_key_name=self._describing.kms_key)

    def _generation(self, version: str, key: str) -> int:
        """The version as a generation. Another store's version can never be the current one here."""
        if not version.isdigit():
            raise self._place.changed(key)
        return int(version)

    def _request(self, method: str, url: str, **arguments: Any) -> requests.Response:
        """An answer with a body, after a few tries. Raises what the client library would raise."""

        def send() -> requests.Response:
            answer = self._session.request(
                method, url, timeout=self._call["timeout"], allow_redirects=False, **arguments
            )
            if answer.status_code not in (200, 206):
                raise api.from_http_response(answer)
            return answer

        return _RETRY(send)()

    def _pump(self, upload_url: str, pieces: Iterator[bytes], size_bytes: int, key: str) -> dict[str, Any]:
        """Send the pieces to an upload session; returns the object's resource.

        The piece that completes the object is sent only when the body has ended, because a body may still refuse
        itself after its last byte.
        """
        checksum = google_crc32c.Checksum()
        try:
            offset, held = 0, next(pieces)
            for piece in pieces:
                checksum.update(held)
                self._send(upload_url, held, offset, size_bytes, key, {})
                offset, held = offset + len(held), piece
            checksum.update(held)
            proof = {"X-Goog-Hash": f"crc32c={_text(checksum)}"}
            answer = self._send(upload_url, held, offset, size_bytes, key, proof)
            if answer.status_code == _INCOMPLETE:
                raise self._place.cut(key)
        except BaseException as error:
            self._cancel(upload_url, key, error)
            raise
        written = answer.json()
        if written.get("crc32c") != _text(checksum):
            # A service that ignores the header has made wrong bytes visible: take them back.
            with translated(self._place, key):
                self._blob(key).delete(if_generation_match=int(written["generation"]), **self._call)
            raise self._place.damaged(key)
        return written

    def _send(
        self, upload_url: str, piece: bytes, offset: int, size_bytes: int, key: str, proof: Mapping[str, str]
    ) -> requests.Response:
        """Send the piece at `offset`; after a failure ask what has arrived and send the rest."""
        end, failed_before = offset + len(piece), False

        def attempt() -> requests.Response:
            nonlocal failed_before
            have = offset
            if failed_before:
                answer = self._exchange(upload_url, b"", f"bytes */{size_bytes}", {}, key)
                if answer.status_code != _INCOMPLETE or _received(answer) >= end:
                    return answer
                have = _received(answer)
            failed_before = True
            if have < offset:
                raise self._place.cut(key)
            while True:
                rest = piece[have - offset :]
                answer = self._exchange(upload_url, rest, f"bytes {have}-{end - 1}/{size_bytes}", proof, key)
                if answer.status_code != _INCOMPLETE or _received(answer) >= end:
                    return answer
                if _received(answer) <= have:
                    raise self._place.cut(key)
                have = _received(answer)

        with translated(self._place, key):
            return _RETRY(attempt)()

    def _exchange(
        self, upload_url: str, data: bytes, span: str, proof: Mapping[str, str], key: str
    ) -> requests.Response:
        headers = {"Content-Range": span, **proof}
        answer = self._session.put(
            upload_url, data=data, headers=headers, timeout=self._call["timeout"], allow_redirects=False
        )
        if answer.status_code in _GONE:
            raise self._place.cut(key)
        if answer.status_code >= 400:
            raise api.from_http_response(answer)
        return answer

    def _cancel(self, upload_url: str, key: str, reason: BaseException) -> None:
        with giving_up(self._place, key, reason), translated(self._place, key):
            # 499 is the answer to a cancelled session.
            answer = self._session.delete(upload_url, timeout=self._call["timeout"])
            if answer.status_code not in (204, 499, *_GONE):
                raise api.from_http_response(answer)


def _received(answer: requests.Response) -> int:
    """How many bytes the session has, by its 308; without a `Range` header it has none."""
    span = answer.headers.get("Range")
    return int(span.rpartition("-")[2]) + 1 if span else 0


def _stated_crc32c(answer: requests.Response) -> str | None:
    for part in answer.headers.get("X-Goog-Hash", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "crc32c":
            return value
    return None


def _text(checksum: Any) -> str:
    return base64.b64encode(checksum.digest()).decode()


def _written(blob: Any) -> datetime:
    return blob.updated or datetime.now(UTC)
