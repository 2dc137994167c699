"""The XML API, as far as object clients need it: buckets, objects, listings, multipart uploads.

Source: Cloud Storage documentation, "XML API reference". Requests name the bucket in the path.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from deployments.local.cloud_storage.bodies import Claims
from deployments.local.cloud_storage.catalog import Catalog, Resource, StoredObject
from deployments.local.cloud_storage.conditions import Conditions
from deployments.local.cloud_storage.faults import Refused, condition_not_met, invalid, not_imitated
from deployments.local.cloud_storage.listing import LARGEST_PAGE, Page, Question, page_of
from deployments.local.cloud_storage.objects import (
    content,
    etag,
    hash_header,
    require_bucket_name,
    require_object_name,
)
from deployments.local.cloud_storage.parts import MultipartUploads

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_SETTINGS = {
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-type": "contentType",
    "x-goog-storage-class": "storageClass",
}
_METADATA = "x-goog-meta-"


class XmlApi:
    """The handlers."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._multipart = MultipartUploads(catalog)

    async def handle(self, request: Request, bucket: str, name: str) -> Response:
        """Answer a request; an empty name means the bucket, an empty bucket the service. Raises `Refused`."""
        if not bucket:
            return self._service(request)
        if not name:
            return await self._bucket(request, bucket)
        query = request.query_params
        if "uploads" in query or "uploadId" in query:
            return await self._upload(request, bucket, name)
        if query.keys() - {"generation"}:
            raise not_imitated(f"the parameters {sorted(query.keys())} of the XML API")
        match request.method:
            case "GET" | "HEAD":
                return self._get(request, bucket, name)
            case "PUT":
                return await self._put(request, bucket, name)
            case "DELETE":
                generation = query.get("generation")
                conditions = Conditions.of_headers(request.headers)
                self._catalog.delete(bucket, name, int(generation) if generation else None, conditions)
                return Response(status_code=204)
            case _:
                raise not_imitated(f"{request.method} on an object in the XML API")

    def _service(self, request: Request) -> Response:
        if request.method != "GET":
            raise not_imitated(f"{request.method} on the service")
        root = _element("ListAllMyBucketsResult")
        buckets = ET.SubElement(root, "Buckets")
        for resource in self._catalog.buckets():
            entry = ET.SubElement(buckets, "Bucket")
            _texts(entry, Name=resource["name"], CreationDate=resource["timeCreated"])
        return _xml(root)

    async def _bucket(self, request: Request, bucket: str) -> Response:
        match request.method:
            case "PUT":
                self._catalog.create_bucket(require_bucket_name(bucket), {})
                return Response()
            case "DELETE":
                self._catalog.delete_bucket(bucket)
                return Response(status_code=204)
            case "HEAD":
                self._catalog.bucket(bucket)
                return Response()
            case "GET" if "uploads" in request.query_params:
                return self._uploads(bucket)
            case "GET":
                return self._list(request, bucket)
            case _:
                raise not_imitated(f"{request.method} on a bucket in the XML API")

    def _list(self, request: Request, bucket: str) -> Response:
        query = request.query_params
        known = {"prefix", "delimiter", "max-keys", "marker", "list-type", "start-after", "continuation-token"}
        if query.keys() - known - {"encoding-type", "fetch-owner"}:
            raise not_imitated(f"the parameters {sorted(query.keys() - known)} of a listing in the XML API")
        limit = query.get("max-keys", str(LARGEST_PAGE))
        if not limit.isdigit():
            raise invalid("Invalid argument: max-keys.")
        second = query.get("list-type") == "2"
        question = Question(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=(query.get("start-after") if second else query.get("marker")) or None,
            token=query.get("continuation-token") or None,
            limit=min(int(limit) or LARGEST_PAGE, LARGEST_PAGE),
        )
        page = page_of(self._catalog, bucket, question)
        root = _element("ListBucketResult")
        _texts(root, Name=bucket, Prefix=question.prefix, MaxKeys=str(question.limit))
        _texts(root, IsTruncated="true" if page.next_token else "false")
        if question.delimiter:
            _texts(root, Delimiter=question.delimiter)
        if second:
            _texts(root, KeyCount=str(len(page.objects) + len(page.prefixes)))
            if page.next_token:
                _texts(root, NextContinuationToken=page.next_token)
        elif page.next_token:
            _texts(root, NextMarker=_last_name(page))
        for stored in page.objects:
            entry = ET.SubElement(root, "Contents")
            resource = stored.resource
            _texts(entry, Key=resource["name"], Generation=resource["generation"])
            _texts(entry, MetaGeneration=resource["metageneration"], LastModified=resource["updated"])
            _texts(entry, ETag=etag(stored), Size=resource["size"], StorageClass=resource["storageClass"])
        for prefix in page.prefixes:
            _texts(ET.SubElement(root, "CommonPrefixes"), Prefix=prefix)
        return _xml(root)

    def _get(self, request: Request, bucket: str, name: str) -> Response:
        generation = request.query_params.get("generation")
        stored = self._catalog.find(bucket, name, int(generation) if generation else None)
        Conditions.of_headers(request.headers).require(stored.generation, stored.metageneration, read=True)
        wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
        if wanted is not None and wanted not in ("*", etag(stored)):
            raise condition_not_met()
        if unwanted is not None and unwanted in ("*", etag(stored)):
            raise Refused(304, "notModified", "")
        metadata: Mapping[str, str] = stored.resource.get("metadata", {})
        return content(request, stored, extra={f"{_METADATA}{key}": value for key, value in metadata.items()})

    async def _put(self, request: Request, bucket: str, name: str) -> Response:
        headers = request.headers
        for header in ("x-goog-copy-source", "x-goog-resumable", "x-goog-encryption-kms-key-name"):
            if header in headers:
                raise not_imitated(f"the header '{header}' of the XML API")
        require_object_name(name)
        self._catalog.bucket(bucket)
        length = headers.get("content-length")
        body = await self._catalog.bodies.receive(request.stream(), int(length) if length else None)
        stored = self._catalog.commit(
            bucket, name, body, _settings(headers), Conditions.of_headers(headers), Claims.of(headers)
        )
        return Response(headers=_identity(stored))

    async def _upload(self, request: Request, bucket: str, name: str) -> Response:
        query = request.query_params
        upload_id = query.get("uploadId", "")
        match request.method:
            case "POST" if "uploads" in query:
                require_object_name(name)
                root = _element("InitiateMultipartUploadResult")
                _texts(root, Bucket=bucket, Key=name)
                _texts(root, UploadId=self._multipart.begin(bucket, name, _settings(request.headers)))
                return _xml(root)
            case "PUT" if query.get("partNumber", "").isdigit():
                length = request.headers.get("content-length")
                part, body = await self._multipart.put(
                    bucket,
                    name,
                    upload_id,
                    int(query["partNumber"]),
                    request.stream(),
                    Claims.of(request.headers),
                    int(length) if length else None,
                )
                hashes = f"crc32c={body.crc32c},md5={body.md5}"
                return Response(headers={"etag": f'"{part.etag}"', "x-goog-hash": hashes})
            case "POST":
                wanted = _completion(await request.body())
                stored = await self._multipart.complete(
                    bucket,
                    name,
                    upload_id,
                    wanted,
                    Conditions.of_headers(request.headers),
                    Claims.of(request.headers),
                )
                root = _element("CompleteMultipartUploadResult")
                _texts(root, Bucket=bucket, Key=name, ETag=etag(stored))
                _texts(root, Location=f"{request.base_url}{bucket}/{name}")
                return _xml(root, _identity(stored))
            case "GET":
                return self._parts(bucket, name, upload_id)
            case "DELETE":
                self._multipart.abort(bucket, name, upload_id)
                return Response(status_code=204)
            case _:
                raise not_imitated(f"{request.method} on a multipart upload")

    def _parts(self, bucket: str, name: str, upload_id: str) -> Response:
        root = _element("ListPartsResult")
        _texts(root, Bucket=bucket, Key=name, UploadId=upload_id, IsTruncated="false")
        for part in self._multipart.parts(bucket, name, upload_id):
            entry = ET.SubElement(root, "Part")
            _texts(entry, PartNumber=str(part.number), ETag=f'"{part.etag}"', Size=str(part.size_bytes))
            _texts(entry, LastModified=part.updated)
        return _xml(root)

    def _uploads(self, bucket: str) -> Response:
        self._catalog.bucket(bucket)
        root = _element("ListMultipartUploadsResult")
        _texts(root, Bucket=bucket, IsTruncated="false")
        for name, upload_id in self._multipart.uploads(bucket):
            _texts(ET.SubElement(root, "Upload"), Key=name, UploadId=upload_id)
        return _xml(root)


def _settings(headers: Mapping[str, str]) -> Resource:
    settings: Resource = {field: headers[header] for header, field in _SETTINGS.items() if header in headers}
    metadata = {key.removeprefix(_METADATA): headers[key] for key in headers if key.startswith(_METADATA)}
    return {**settings, "metadata": metadata} if metadata else settings


def _identity(stored: StoredObject) -> dict[str, str]:
    return {
        "etag": etag(stored),
        "x-goog-generation": stored.resource["generation"],
        "x-goog-metageneration": stored.resource["metageneration"],
        "x-goog-hash": hash_header(stored),
        "x-goog-stored-content-length": stored.resource["size"],
    }


def _completion(body: bytes) -> list[tuple[int, str]]:
    """Number and ETag of the parts that a completion names. Raises `Refused` (400)."""
    try:
        # The sender has shown the token, and this server is a local double.
        root = ET.fromstring(body)  # noqa: S314
        parts = [{child.tag.rpartition("}")[2]: child.text or "" for child in part} for part in root]
        return [(int(part["PartNumber"]), part["ETag"]) for part in parts]
    except (ET.ParseError, KeyError, ValueError) as error:
        raise Refused(400, "malformedXml", "The XML you provided was not well-formed.") from error


def _last_name(page: Page) -> str:
    names = [str(stored.resource["name"]) for stored in page.objects] + page.prefixes
    return max(names, default="")


def _element(name: str) -> ET.Element:
    return ET.Element(name, xmlns=_NAMESPACE)


def _texts(parent: ET.Element, **texts: str) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = text


def _xml(root: ET.Element, headers: Mapping[str, str] | None = None) -> Response:
    body = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return Response(body, headers=dict(headers or {}), media_type="application/xml; charset=UTF-8")


def names_in(path: str) -> tuple[str, str]:
    """Bucket and object name of a request path that is still percent-encoded."""
    bucket, _, name = path.lstrip("/").partition("/")
    return unquote(bucket), unquote(name)
