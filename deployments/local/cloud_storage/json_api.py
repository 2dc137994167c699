"""The JSON API, version 1: buckets, objects, notification configurations, the three kinds of upload.

Source: Cloud Storage documentation, "JSON API reference"; paths as google-cloud-storage sends them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.local.cloud_storage.bodies import Claims, RelatedParts
from deployments.local.cloud_storage.catalog import Catalog, Resource, StoredObject
from deployments.local.cloud_storage.conditions import Conditions
from deployments.local.cloud_storage.faults import Refused, invalid, not_imitated
from deployments.local.cloud_storage.listing import LARGEST_PAGE, Question, page_of
from deployments.local.cloud_storage.objects import (
    content,
    patched,
    replaced,
    require_bucket_name,
    require_object_name,
    settings_of,
)
from deployments.local.cloud_storage.resumable import Announced, ResumableUploads, Session

MOST_COMPONENTS = 32

_COMMON = frozenset({"alt", "fields", "key", "prettyPrint", "projection", "quotaUser", "userProject", "uploadType"})
_CONDITIONS = frozenset(
    {"ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch"}
)
_SOURCE_CONDITIONS = frozenset(name.replace("if", "ifSource", 1) for name in _CONDITIONS)
_LISTING = frozenset(
    {
        "delimiter",
        "endOffset",
        "includeTrailingDelimiter",
        "maxResults",
        "pageToken",
        "prefix",
        "startOffset",
        "versions",
    }
)


class JsonApi:
    """The handlers; each gets the decoded path below `/storage/v1` in segments."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._resumable = ResumableUploads(catalog)

    async def handle(self, request: Request, path: list[str]) -> Response:
        """Answer a request for metadata or content. Raises `Refused`."""
        match path:
            case ["b"]:
                return await self._buckets(request)
            case ["b", bucket]:
                return await self._bucket(request, bucket)
            case ["b", bucket, "iam", "testPermissions"] if request.method == "GET":
                return self._test_permissions(request, bucket)
            case ["b", bucket, "notificationConfigs", *rest]:
                return await self._notifications(request, bucket, rest)
            case ["b", bucket, "o"] if request.method == "GET":
                return self._list(request, bucket)
            case ["b", bucket, "o", name]:
                return await self._object(request, bucket, name)
            case ["b", bucket, "o", name, "compose"] if request.method == "POST":
                return await self._compose(request, bucket, name)
            case ["b", bucket, "o", name, ("rewriteTo" | "copyTo") as verb, "b", to_bucket, "o", to_name]:
                return await self._copy(request, (bucket, name), (to_bucket, to_name), rewrite=verb == "rewriteTo")
            case _:
                raise not_imitated(f"{request.method} on this path of the JSON API")

    async def upload(self, request: Request, bucket: str) -> Response:
        """Answer `POST /upload/storage/v1/b/BUCKET/o`. Raises `Refused`."""
        query = _query(request, _CONDITIONS | {"name", "contentEncoding", "predefinedAcl", "upload_id"})
        conditions = Conditions.of_query(query)
        match query.get("uploadType"):
            case "media":
                resource: Resource = {"contentType": request.headers.get("content-type")}
                return await self._insert(request, bucket, query, resource, conditions, request.stream())
            case "multipart":
                parts = RelatedParts(request.headers.get("content-type", ""), request.stream())
                head, media_type = await parts.head()
                resource = {"contentType": media_type, **_json(head)}
                return await self._insert(request, bucket, query, resource, conditions, parts.media(), exact=False)
            case "resumable":
                return await self._begin(request, bucket, query, conditions)
            case _:
                raise invalid("Invalid upload type.")

    def session(self, upload_id: str) -> Session:
        """The resumable upload of this id. Raises `Refused` (404)."""
        return self._resumable.find(upload_id)

    async def continue_upload(self, request: Request, session: Session) -> Response:
        """Answer a chunk, a status query or a cancellation of a resumable upload. Raises `Refused`."""
        if request.method == "DELETE":
            self._resumable.cancel(session)
            return Response(status_code=499)
        announced = Announced.of(request.headers.get("content-range"))
        finished = await self._resumable.take(session, announced, request.stream(), request.headers)
        if finished is not None:
            return JSONResponse(_rendered(request, finished))
        kept = session.size_bytes()
        headers = {"range": f"bytes=0-{kept - 1}"} if kept else {}
        if request.headers.get("x-guploader-no-308") == "yes":
            # Google's Go client asks for this, since its HTTP library takes 308 for a redirect.
            return Response(headers={**headers, "x-http-status-code-override": "308"})
        return Response(status_code=308, headers=headers)

    async def _insert(
        self,
        request: Request,
        bucket: str,
        query: Mapping[str, str],
        resource: Resource,
        conditions: Conditions,
        pieces: AsyncIterator[bytes],
        *,
        exact: bool = True,
    ) -> Response:
        """Take an object in one request; `exact`: the request's length is the content's."""
        self._catalog.bucket(bucket)
        name = require_object_name(resource.get("name") or query.get("name"))
        settings = settings_of(resource)
        claims = Claims.of(request.headers, resource)
        length = request.headers.get("content-length") if exact else None
        body = await self._catalog.bodies.receive(pieces, int(length) if length else None)
        stored = self._catalog.commit(bucket, name, body, settings, conditions, claims)
        return JSONResponse(_rendered(request, stored.resource))

    async def _begin(self, request: Request, bucket: str, query: Mapping[str, str], conditions: Conditions) -> Response:
        resource = _json(await request.body())
        name = require_object_name(resource.get("name") or query.get("name"))
        resource.setdefault("contentType", request.headers.get("x-upload-content-type"))
        length = request.headers.get("x-upload-content-length", "")
        session = self._resumable.begin(
            bucket,
            name,
            settings_of(resource),
            conditions,
            Claims.of(request.headers, resource),
            int(length) if length.isdigit() else None,
        )
        path = f"upload/storage/v1/b/{quote(bucket, safe='')}/o?uploadType=resumable&upload_id={session.id}"
        headers = {"location": f"{request.base_url}{path}", "x-guploader-uploadid": session.id}
        return Response(headers=headers)

    async def _buckets(self, request: Request) -> Response:
        if request.method == "GET":
            query = _query(request, frozenset({"project", "prefix", "maxResults", "pageToken"}))
            _require(query, "project")
            prefix = query.get("prefix", "")
            items = [bucket for bucket in self._catalog.buckets() if bucket["name"].startswith(prefix)]
            return JSONResponse({"kind": "storage#buckets", "items": items})
        if request.method == "POST":
            query = _query(request, frozenset({"project", "predefinedAcl", "predefinedDefaultObjectAcl"}))
            _require(query, "project")
            resource = _json(await request.body())
            name = require_bucket_name(resource.get("name"))
            return JSONResponse(self._catalog.create_bucket(name, resource))
        raise not_imitated(f"{request.method} on buckets")

    async def _bucket(self, request: Request, name: str) -> Response:
        query = _query(request, _CONDITIONS)
        metageneration = int(self._catalog.bucket(name)["metageneration"])
        Conditions.of_query(query).require(0, metageneration, read=request.method == "GET")
        if request.method == "GET":
            return JSONResponse(self._catalog.bucket(name))
        if request.method in ("PATCH", "PUT"):
            return JSONResponse(self._catalog.update_bucket(name, _json(await request.body())))
        if request.method == "DELETE":
            self._catalog.delete_bucket(name)
            return Response(status_code=204)
        raise not_imitated(f"{request.method} on a bucket")

    def _test_permissions(self, request: Request, bucket: str) -> Response:
        """Whoever has the token may do everything."""
        _require(_query(request, frozenset({"permissions"})), "permissions")
        self._catalog.bucket(bucket)
        held = request.query_params.getlist("permissions")
        return JSONResponse({"kind": "storage#testIamPermissionsResponse", "permissions": held})

    async def _notifications(self, request: Request, bucket: str, rest: list[str]) -> Response:
        _query(request, frozenset())
        self._catalog.bucket(bucket)
        notifications = self._catalog.notifications
        match request.method, rest:
            case "GET", []:
                return JSONResponse({"kind": "storage#notifications", "items": notifications.of(bucket)})
            case "POST", []:
                return JSONResponse(notifications.add(bucket, _json(await request.body())))
            case "GET", [number]:
                for resource in notifications.of(bucket):
                    if resource["id"] == number:
                        return JSONResponse(resource)
                raise Refused(404, "notFound", f"Notification {number} of bucket {bucket} does not exist.")
            case "DELETE", [number]:
                notifications.remove(bucket, number)
                return Response(status_code=204)
            case _:
                raise not_imitated(f"{request.method} on notification configurations")

    def _list(self, request: Request, bucket: str) -> Response:
        query = _query(request, _LISTING)
        limit = query.get("maxResults", str(LARGEST_PAGE))
        if not limit.isdigit():
            raise invalid("Invalid value for: maxResults.")
        question = Question(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            start=query.get("startOffset", ""),
            end=query.get("endOffset") or None,
            token=query.get("pageToken") or None,
            limit=min(int(limit) or LARGEST_PAGE, LARGEST_PAGE),
            versions=query.get("versions", "").lower() == "true",
            trailing_delimiter=query.get("includeTrailingDelimiter", "").lower() == "true",
        )
        page = page_of(self._catalog, bucket, question)
        answer: Resource = {"kind": "storage#objects"}
        if page.objects:
            answer["items"] = [_rendered(request, stored.resource) for stored in page.objects]
        if page.prefixes:
            answer["prefixes"] = page.prefixes
        if page.next_token:
            answer["nextPageToken"] = page.next_token
        return JSONResponse(answer)

    async def _object(self, request: Request, bucket: str, name: str) -> Response:
        query = _query(request, _CONDITIONS | {"generation"})
        conditions = Conditions.of_query(query)
        generation = _generation(query, "generation")
        if request.method == "DELETE":
            self._catalog.delete(bucket, name, generation, conditions)
            return Response(status_code=204)
        stored = self._catalog.find(bucket, name, generation)
        conditions.require(stored.generation, stored.metageneration, read=request.method == "GET")
        if request.method == "GET":
            if query.get("alt") == "media":
                return content(request, stored)
            return JSONResponse(_rendered(request, stored.resource))
        if request.method in ("PATCH", "PUT"):
            changes = _json(await request.body())
            change = patched if request.method == "PATCH" else replaced
            changed = self._catalog.update(stored, change(stored.resource, changes))
            return JSONResponse(_rendered(request, changed.resource))
        raise not_imitated(f"{request.method} on an object")

    async def _compose(self, request: Request, bucket: str, name: str) -> Response:
        query = _query(request, _CONDITIONS | {"destinationPredefinedAcl"})
        wish = _json(await request.body())
        components: list[dict[str, Any]] = wish.get("sourceObjects") or []
        if not 1 <= len(components) <= MOST_COMPONENTS:
            raise invalid(f"The number of source components provided must be between 1 and {MOST_COMPONENTS}.")
        sources: list[StoredObject] = []
        for component in components:
            numbers = {key: str(value) for key, value in component.items() if key == "generation"}
            source = self._catalog.find(bucket, str(component.get("name")), _generation(numbers, "generation"))
            wanted = {key: str(value) for key, value in (component.get("objectPreconditions") or {}).items()}
            Conditions.of_query(wanted).require(source.generation, source.metageneration)
            sources.append(source)
        destination = wish.get("destination") or {}
        conditions = Conditions.of_query(query)
        self._catalog.check(bucket, name, conditions)
        body = await anyio.to_thread.run_sync(self._catalog.bodies.join, [source.path for source in sources])
        count = sum(int(source.resource.get("componentCount", 1)) for source in sources)
        settings = {**settings_of(destination), "componentCount": count}
        claims = Claims.of({}, destination)
        stored = self._catalog.commit(bucket, require_object_name(name), body, settings, conditions, claims)
        return JSONResponse(_rendered(request, stored.resource))

    async def _copy(
        self, request: Request, source: tuple[str, str], target: tuple[str, str], *, rewrite: bool
    ) -> Response:
        allowed = _CONDITIONS | _SOURCE_CONDITIONS | {"sourceGeneration", "rewriteToken", "destinationPredefinedAcl"}
        query = _query(request, allowed)
        stored = self._catalog.find(*source, _generation(query, "sourceGeneration"))
        Conditions.of_query(query, source=True).require(stored.generation, stored.metageneration)
        changes = _json(await request.body())
        settings = settings_of(changes) or settings_of(stored.resource)
        if "componentCount" in stored.resource:
            settings["componentCount"] = stored.resource["componentCount"]
        conditions = Conditions.of_query(query)
        body = self._catalog.bodies.copy(stored.body)
        name = require_object_name(target[1])
        copied = self._catalog.commit(target[0], name, body, settings, conditions, Claims.of({}, changes))
        resource = _rendered(request, copied.resource)
        if not rewrite:
            return JSONResponse(resource)
        sizes = {"totalBytesRewritten": resource["size"], "objectSize": resource["size"]}
        return JSONResponse({"kind": "storage#rewriteResponse", **sizes, "done": True, "resource": resource})


def _query(request: Request, allowed: frozenset[str]) -> Mapping[str, str]:
    """The query's parameters. Raises `Refused` (501) for one that would have an effect which is not imitated."""
    for name in request.query_params:
        if name not in allowed and name not in _COMMON:
            raise not_imitated(f"the parameter '{name}' of {request.method} here")
    return request.query_params


def _require(query: Mapping[str, str], name: str) -> None:
    if not query.get(name):
        raise Refused(400, "required", f"Required parameter: {name}")


def _generation(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise invalid(f"Invalid value for: {name}.")
    return int(text)


def _json(body: bytes) -> Resource:
    if not body:
        return {}
    try:
        parsed: object = json.loads(body)
    except ValueError as error:
        raise Refused(400, "parseError", "Parse Error") from error
    if not isinstance(parsed, dict):
        raise Refused(400, "parseError", "Parse Error")
    return {str(key): value for key, value in parsed.items()}


def _rendered(request: Request, resource: Resource) -> Resource:
    """The resource as it is answered, with its links and its entity tag."""
    bucket, name = quote(resource["bucket"], safe=""), quote(resource["name"], safe="")
    path = f"storage/v1/b/{bucket}/o/{name}"
    media = f"{request.base_url}download/{path}?generation={resource['generation']}&alt=media"
    tag = f"{resource['generation']}/{resource['metageneration']}"
    return {**resource, "selfLink": f"{request.base_url}{path}", "mediaLink": media, "etag": tag}
