"""The application: who may ask, which API is meant, how a refusal is told."""

from __future__ import annotations

import secrets
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.local.cloud_storage.catalog import Catalog
from deployments.local.cloud_storage.faults import Refused, not_imitated
from deployments.local.cloud_storage.json_api import JsonApi
from deployments.local.cloud_storage.notifications import Publisher
from deployments.local.cloud_storage.xml_api import XmlApi, names_in


class CloudStorage:
    """The double as an ASGI application.

    Args:
        catalog: What it remembers.
        token: The only bearer token that is accepted.
        publisher: Takes the notifications to Pub/Sub; without one they are kept for a start that has one.
    """

    def __init__(self, catalog: Catalog, token: str, publisher: Publisher | None = None) -> None:
        self._json = JsonApi(catalog)
        self._xml = XmlApi(catalog)
        self._token = token
        self._publisher = publisher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.decode("ascii").partition("?")[0]
        try:
            response = await self._answer(request, path)
        except Refused as refused:
            response = refused.as_json() if "/storage/v1" in path else refused.as_xml()
        except ClientDisconnect:
            return
        finally:
            if self._publisher is not None:
                self._publisher.wake()
        await response(scope, receive, send)

    async def _answer(self, request: Request, path: str) -> Response:
        match [unquote(segment) for segment in path.strip("/").split("/")]:
            case ["upload", "storage", "v1", "b", bucket, "o"]:
                return await self._upload(request, bucket)
            case ["storage", "v1", *rest] | ["download", "storage", "v1", *rest]:
                self._authorise(request)
                return await self._json.handle(request, rest)
            case ["upload" | "batch" | "resumable", *_]:
                raise not_imitated("this path of the JSON API")
            case _:
                self._authorise(request)
                return await self._xml.handle(request, *names_in(path))

    async def _upload(self, request: Request, bucket: str) -> Response:
        upload_id = request.query_params.get("upload_id")
        if upload_id is not None:
            # The address of a resumable upload is itself the permission to continue it.
            return await self._json.continue_upload(request, self._json.session(upload_id))
        self._authorise(request)
        if request.method != "POST":
            raise not_imitated(f"{request.method} on uploads")
        return await self._json.upload(request, bucket)

    def _authorise(self, request: Request) -> None:
        """Raises `Refused` (401) without the right bearer token."""
        header = request.headers.get("authorization")
        if header is None:
            raise Refused(401, "required", "Anonymous caller does not have storage access to this resource.")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise Refused(401, "authError", "Invalid Credentials")
