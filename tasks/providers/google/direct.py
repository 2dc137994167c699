"""Cloud Storage, authorised for others to send; see `tasks.core.ports.Direct`.

Small objects are written by the XML API's single PUT, large ones by its multipart uploads, whose parts are independent
of each other. Those know no preconditions, so that the parts make an object under a reserved name, which becomes the
destination by a conditional rewrite: within one bucket and storage class that moves no bytes.

https://cloud.google.com/storage/docs/multipart-uploads
https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
"""

from __future__ import annotations

import base64
import hashlib
import threading
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit
from xml.sax.saxutils import escape

import requests
from awscrt import checksums
from google.api_core import exceptions as api
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage

from tasks.core.dataset import RESERVED_PREFIX
from tasks.core.errors import LintasError
from tasks.core.ports import Answer, Link, SentPart, Write
from tasks.providers._dialects.objects import Pass, Place
from tasks.providers.google.describing import Describing
from tasks.providers.google.errors import refusal, translated
from tasks.providers.google.signing import GoogleSigning, crc32c_text

_MOST_PARTS = 10_000
_GONE = 404


class GoogleDirect(GoogleSigning):
    """Implements `tasks.core.ports.Direct`, where the methods are described."""

    most_parts = _MOST_PARTS

    def __init__(
        self,
        client: storage.Client,
        session: AuthorizedSession,
        endpoint: str,
        place: Place,
        describing: Describing,
        call: Mapping[str, Any],
    ) -> None:
        where = urlsplit(endpoint)
        super().__init__(f"{where.scheme}://{where.netloc}", where.path, place, describing, self._pass)
        self._session = session
        self._credentials = session.credentials
        self._renewing = threading.Lock()
        self._bucket: Any = client.bucket(place.bucket, user_project=describing.user_project)
        self._endpoint = endpoint
        self._call = dict(call)

    def lent(self) -> GoogleSigning:
        return GoogleSigning(self._origin, self._base, self._place, self._describing, self._pass())

    def link(self, key: str, *, valid_s: int) -> Link:
        with translated(self._place, key):
            try:
                url = self._bucket.blob(key).generate_signed_url(version="v4", expiration=timedelta(seconds=valid_s))
            except (AttributeError, TypeError):
                # A bare token cannot sign: only the key of a service account can.
                raise self._place.denied() from None
        return Link(str(url))

    def prepare(self, key: str) -> None:
        """Nothing: Cloud Storage always verifies CRC32C."""

    def begin(self, write: Write) -> str:
        self._condition(write)
        name = f"{_uploads_of(write.key)}{uuid.uuid4().hex}"
        encrypting, repeated = self._describing.encrypting, list[bool]()
        answer = self._request(
            "POST", self._path(name) + "?uploads", write.key, headers=encrypting, again=lambda: repeated.append(True)
        )
        upload_id = _text_of(answer.content, "UploadId")
        if upload_id is None:
            raise self._place.not_understood("no upload id")
        if repeated:
            # Each time may have begun one.
            self._give_up(name, {f"{name}#{upload_id}"}, write.key)
        return f"{name}#{upload_id}"

    def sent(self, write: Write, upload_id: str) -> Mapping[int, str] | None:
        name, _, upload = upload_id.partition("#")
        found: dict[int, str] = {}
        marker = 0
        while True:
            query = urlencode({"uploadId": upload, "part-number-marker": marker})
            answer = self._request("GET", f"{self._path(name)}?{query}", write.key, gone=True)
            if answer.status_code == _GONE:
                return None
            page = {
                int(part.get("PartNumber", "0")): part.get("ETag", "") for part in _children(answer.content, "Part")
            }
            found |= page
            if _text_of(answer.content, "IsTruncated") != "true" or not page:
                return found
            marker = max(page)

    def finish(self, write: Write, upload_id: str, parts: Sequence[SentPart]) -> str:
        name, _, upload = upload_id.partition("#")
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.tag)}</ETag></Part>" for part in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
        self._request("POST", f"{self._path(name)}?{urlencode({'uploadId': upload})}", write.key, data=body.encode())
        whole = 0
        for part in parts:
            whole = checksums.combine_crc32c(whole, _value(part.proof), part.size_bytes)
        made = self._bucket.blob(name)
        with translated(self._place, write.key):
            made.reload(**self._call)
        if made.crc32c != crc32c_text(whole) or made.size != write.size_bytes:
            raise self._place.damaged(write.key)
        target = self._bucket.blob(write.key, kms_key_name=self._describing.kms_key)
        self._describing.describe(target, write.metadata, write.attributes)
        condition = {"if_generation_match": self._condition(write), "if_source_generation_match": made.generation}
        with translated(self._place, write.key):
            token, _, _ = target.rewrite(made, **condition, **self._call)
            while token is not None:
                token, _, _ = target.rewrite(made, token=token, **condition, **self._call)
        with translated(self._place, write.key), suppress(api.NotFound):
            made.delete(**self._call)
        return str(target.generation)

    def abandon(self, write: Write, upload_id: str) -> None:
        name, _, upload = upload_id.partition("#")
        self._request("DELETE", f"{self._path(name)}?{urlencode({'uploadId': upload})}", write.key, gone=True)
        with translated(self._place, write.key), suppress(api.NotFound):
            self._bucket.blob(name).delete(**self._call)

    def sweep(self, key: str, but: Collection[str]) -> None:
        self._give_up(_uploads_of(key), but, key)

    def refused(self, key: str, answer: Answer, *, writing: bool) -> LintasError:
        del writing  # A conditional write that meets no object answers 412 here.
        return refusal(answer.status, answer.body.decode("utf-8", "replace"), answer.headers, self._place, key)

    def _give_up(self, prefix: str, but: Collection[str], key: str) -> None:
        """Give up the uploads of names that begin so, except those."""
        marker: dict[str, str] = {}
        while True:
            query = urlencode({"uploads": "", "prefix": prefix, **marker})
            page = self._request("GET", f"{self._path('').rstrip('/')}?{query}", key).content
            for upload in _children(page, "Upload"):
                found = f"{upload.get('Key', '')}#{upload.get('UploadId', '')}"
                if found.startswith(prefix) and found not in but:
                    self.abandon(Write(key, 0, {}, None, False), found)
            if _text_of(page, "IsTruncated") != "true":
                return
            marker = {
                "key-marker": _text_of(page, "NextKeyMarker") or "",
                "upload-id-marker": _text_of(page, "NextUploadIdMarker") or "",
            }

    def _pass(self) -> Pass:
        headers: dict[str, str] = {}
        with translated(self._place):
            if not self._credentials.valid:
                with self._renewing:
                    if not self._credentials.valid:
                        self._credentials.refresh(Request(session=requests.Session()))
            self._credentials.apply(headers)
        return Pass(headers=headers)

    def _request(
        self,
        method: str,
        target: str,
        key: str,
        *,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        gone: bool = False,
        again: Callable[[], None] = lambda: None,
    ) -> requests.Response:
        """A call that the client library does not have, by its session.

        Raises what the answer means; that there is no such thing is an answer like others where `gone` is True. Calls
        `again` before it is sent once more.
        """
        sent = False

        def send() -> requests.Response:
            nonlocal sent
            if sent:
                again()
            sent = True
            answer = self._session.request(
                method,
                self._origin + target,
                data=data,
                headers={**self._asking, **(headers or {})},
                timeout=self._call["timeout"],
                allow_redirects=False,
            )
            if answer.status_code >= 300 and not (gone and answer.status_code == _GONE):
                raise api.from_http_response(answer)
            return answer

        with translated(self._place, key):
            return self._call["retry"](send)()


def _uploads_of(key: str) -> str:
    """What the names of a key's uploads begin with. A name has no room for a key."""
    return f"{RESERVED_PREFIX}uploads/{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}-"


def _value(text: str) -> int:
    return int.from_bytes(base64.b64decode(text), "big")


def _children(document: bytes, name: str) -> list[dict[str, str]]:
    # The sender is the configured service; entities of its own would be refused by the parser's limits.
    root = ET.fromstring(document)  # noqa: S314
    return [
        {child.tag.rpartition("}")[2]: child.text or "" for child in element}
        for element in root
        if element.tag.rpartition("}")[2] == name
    ]


def _text_of(document: bytes, name: str) -> str | None:
    for element in ET.fromstring(document):  # noqa: S314  (as above)
        if element.tag.rpartition("}")[2] == name:
            return element.text
    return None
