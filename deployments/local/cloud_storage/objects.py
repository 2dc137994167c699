"""What JSON and XML requests have in common: names, an object's settings, sending its content."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deployments.local.cloud_storage.bodies import Span, send
from deployments.local.cloud_storage.catalog import Resource, StoredObject
from deployments.local.cloud_storage.faults import Refused, invalid, no_object, not_imitated

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_WRITABLE = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "metadata",
    "storageClass",
)
_NOT_IMITATED = ("contexts", "eventBasedHold", "kmsKeyName", "retention", "temporaryHold")
_LARGEST_NAME_BYTES = 1024


def require_bucket_name(name: object) -> str:
    """A valid name for a new bucket. Raises `Refused` (400)."""
    if not isinstance(name, str) or _BUCKET_NAME.fullmatch(name) is None or ".." in name or name.startswith("goog"):
        raise invalid(f"Invalid bucket name: '{name}'")
    return name


def require_object_name(name: object) -> str:
    """A valid object name. Raises `Refused` (400)."""
    if not isinstance(name, str) or not name:
        raise Refused(400, "required", "Required parameter: name")
    if len(name.encode()) > _LARGEST_NAME_BYTES:
        raise invalid("The specified object name is too long.")
    if name in (".", "..") or "\r" in name or "\n" in name or name.startswith(".well-known/acme-challenge/"):
        raise invalid(f"Invalid object name: '{name}'")
    return name


def settings_of(resource: Mapping[str, Any]) -> Resource:
    """The fields of a client's object resource that a client may write. Raises `Refused` (400, 501)."""
    for field in _NOT_IMITATED:
        if resource.get(field):
            raise not_imitated(f"the object field '{field}'")
    metadata = resource.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str | None) for value in metadata.values()):
        raise invalid("Invalid value for: metadata values must be strings.")
    settings = {field: resource[field] for field in _WRITABLE if resource.get(field) is not None}
    if metadata:
        settings["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    return settings


def patched(resource: Resource, changes: Mapping[str, Any]) -> Resource:
    """The resource with a client's changes: None removes a field, or one key of the metadata (RFC 7396)."""
    settings_of(changes)
    result = dict(resource)
    for field in _WRITABLE:
        if field not in changes:
            continue
        value = changes[field]
        if field == "metadata" and value is not None:
            merged = {**resource.get("metadata", {}), **value}
            value = {key: text for key, text in merged.items() if text is not None}
        if value in (None, {}):
            result.pop(field, None)
        else:
            result[field] = value
    return result


def replaced(resource: Resource, settings: Mapping[str, Any]) -> Resource:
    """The resource with all of a client's settings in place of those it has."""
    kept = {key: value for key, value in resource.items() if key not in _WRITABLE}
    return {"storageClass": resource["storageClass"], **kept, **settings_of(settings)}


def etag(stored: StoredObject) -> str:
    """The XML API's ETag: the MD5 in hexadecimal where the object has one, else an opaque value."""
    md5 = stored.resource.get("md5Hash")
    if md5 is None:
        return f'"{stored.generation:x}-{stored.resource.get("componentCount", 1)}"'
    return f'"{base64.b64decode(md5).hex()}"'


def hash_header(stored: StoredObject) -> str:
    """The value of `x-goog-hash`."""
    hashes = [f"crc32c={stored.resource['crc32c']}"]
    if "md5Hash" in stored.resource:
        hashes.append(f"md5={stored.resource['md5Hash']}")
    return ",".join(hashes)


def content(request: Request, stored: StoredObject, *, extra: Mapping[str, str] | None = None) -> Response:
    """The object's content, or the part of it that the request's `Range` names."""
    span = Span.of(request.headers.get("range"), stored.size_bytes)
    resource = stored.resource
    updated = format_datetime(datetime.fromisoformat(resource["updated"]), usegmt=True)
    headers = {
        "accept-ranges": "bytes",
        "content-type": resource.get("contentType", "application/octet-stream"),
        "etag": etag(stored),
        "last-modified": updated,
        "x-goog-generation": resource["generation"],
        "x-goog-hash": hash_header(stored),
        "x-goog-metageneration": resource["metageneration"],
        "x-goog-storage-class": resource["storageClass"],
        "x-goog-stored-content-encoding": resource.get("contentEncoding", "identity"),
        "x-goog-stored-content-length": resource["size"],
        **(extra or {}),
    }
    optional = {
        "cache-control": "cacheControl",
        "content-disposition": "contentDisposition",
        "content-encoding": "contentEncoding",
        "content-language": "contentLanguage",
    }
    headers |= {header: resource[field] for header, field in optional.items() if field in resource}
    whole = span or Span(0, stored.size_bytes)
    headers["content-length"] = str(whole.length)
    status = 200
    if span is not None:
        status = 206
        headers["content-range"] = f"bytes {span.start}-{span.start + span.length - 1}/{stored.size_bytes}"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    try:
        file = stored.path.open("rb")
    except FileNotFoundError as error:
        raise no_object(resource["bucket"], resource["name"]) from error
    return StreamingResponse(send(file, whole), status, headers)
