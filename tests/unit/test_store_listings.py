"""Pages of listings that no server of the twin writes: encoded names, properties left out, and what is no listing."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from azure.core import PipelineClient
from azure.core.pipeline.transport import RequestsTransport
from botocore.awsrequest import AWSResponse
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from tasks.core.cloud import BucketConfig, CloudConfig, Secret
from tasks.core.errors import LintasError, NotFound, Terminal
from tasks.providers._dialects.objects import Pass, Place
from tasks.providers._dialects.s3 import S3Store
from tasks.providers.azure.listing import ListedBlob, ListedPrefix, Listing
from tasks.providers.google.store import GoogleStore
from tasks.registry import providers

BLOB = """<Blob><Name{name}</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>
<Etag>0x8D</Etag><Content-Length>{size}</Content-Length><Content-Encoding/></Properties><Metadata>{metadata}</Metadata>
</Blob>"""


class Pages(BaseAdapter):
    """Answers with one page after the other, and keeps what was asked."""

    def __init__(self, *pages: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.asked: list[dict[str, list[str]]] = []
        self._pages, self._status, self._headers = list(pages), status, headers or {}

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.asked.append(parse_qs(str(urlsplit(request.url or "").query)))
        response = requests.Response()
        response.status_code = self._status
        response.headers.update(self._headers)
        response.raw = HTTPResponse(io.BytesIO(self._pages.pop(0).encode()), preload_content=False)
        response.request, response.url = request, str(request.url)
        return response

    def close(self) -> None:
        """Nothing is open."""


def azure(pages: Pages) -> Listing:
    session = requests.Session()
    session.mount("https://", pages)
    pipeline: PipelineClient[Any, Any] = PipelineClient(
        "https://a.test", policies=[], transport=RequestsTransport(session=session, session_owner=False)
    )
    place = Place("azure", "raw", "a.test")
    return Listing(pipeline, "https://a.test/raw", "2025-01-05", place, Pass("sig=s"))


def page(*entries: str, marker: str = "") -> str:
    return (
        '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>'
        f"{''.join(entries)}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    )


def test_azure_reads_every_kind_of_entry_over_its_pages() -> None:
    pages = Pages(
        page(
            BLOB.format(name='  Encoded="true">a%EF%BF%BF%20', size=3, metadata="<Owner>größe</Owner><none/>"),
            "<BlobPrefix><Name>ü &amp; o/</Name></BlobPrefix>",
            marker="2!next+page/",
        ),
        page(BLOB.format(name="> a%20 ", size=0, metadata="")),
    )

    first, prefix, last = azure(pages).entries("a b&c", "/")

    assert first == ListedBlob(
        "a\uffff ",
        3,
        "0x8D",
        datetime(2026, 1, 1, tzinfo=UTC),
        {"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "etag": "0x8D", "content-length": "3"},
        {"Owner": "größe", "none": ""},
    )
    assert prefix == ListedPrefix("ü & o/")
    assert isinstance(last, ListedBlob)
    assert (last.name, last.size_bytes) == (" a%20 ", 0)
    assert [asked.get("marker") for asked in pages.asked] == [None, ["2!next+page/"]]
    assert all(
        (asked["prefix"], asked["delimiter"], asked["sig"]) == (["a b&c"], ["/"], ["s"]) for asked in pages.asked
    )


@pytest.mark.parametrize(
    "text",
    ["", "<html", "<html/>", "<E><Blobs><Blob><Name>a</Name></Blob></Blobs></E>", page("<Blob><Properties/></Blob>")],
)
def test_what_is_no_listing_of_azure_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(Terminal, match="not understood"):
        list(azure(Pages(text)).entries(""))


def test_a_container_that_is_missing_is_told_by_the_services_own_code() -> None:
    pages = Pages("", status=404, headers={"x-ms-error-code": "ContainerNotFound"})

    with pytest.raises(NotFound, match="bucket 'raw'"):
        list(azure(pages).entries(""))


def google(pages: Pages) -> GoogleStore:
    config = CloudConfig(
        "google",
        "google",
        region="europe-west4",
        endpoints={"objects": "https://google.test"},
        credentials={"token": Secret("test:token", lambda _: "token")},
        options={"project": "payer"},
        buckets={"raw": BucketConfig(requester_pays=True)},
    )
    store = providers()["google"].open_store(config, "raw")
    assert isinstance(store, GoogleStore)
    store._session.mount("https://", pages)
    return store


def test_google_reads_its_pages_and_says_who_pays_for_each() -> None:
    item = '{"name":"a/ü","size":"3","generation":"7","updated":"2026-01-01T00:00:00.250Z","storageClass":"NEARLINE"}'
    pages = Pages(f'{{"items":[{item}],"nextPageToken":"t+/"}}', '{"prefixes":["a/b/"]}')

    level = google(pages).level("a/", 10)

    assert level is not None
    (found,), prefixes = level.objects, level.prefixes
    assert (found.key, found.size_bytes, found.version, found.attributes.tier) == ("a/ü", 3, "7", "cool")
    assert found.modified == datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    assert prefixes == ["a/b/"]
    assert [asked.get("pageToken") for asked in pages.asked] == [None, ["t+/"]]
    assert all((asked["prefix"], asked["userProject"]) == (["a/"], ["payer"]) for asked in pages.asked)


@pytest.mark.parametrize("text", ["", "[]", '{"items":[{"name":"a"}]}', '{"items":[{"updated":"then"}]}'])
def test_what_is_no_listing_of_google_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(Terminal, match="not understood"):
        list(google(Pages(text)).list(""))


def test_a_page_that_nobody_asked_for_is_not_fetched() -> None:
    pages = Pages(page(BLOB.format(name=">a", size=1, metadata=""), marker="more"))

    assert isinstance(next(azure(pages).entries("")), ListedBlob)
    assert len(pages.asked) == 1


S3_PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult{space}><Name>raw</Name><Prefix></Prefix><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>
<Contents><Key>a%2Bb+c/%C3%BC%26</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e1&quot;</ETag>
<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><Size>3</Size><StorageClass>GLACIER</StorageClass><RestoreStatus>
<IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>2026-02-01T00:00:00Z</RestoreExpiryDate>
</RestoreStatus></Contents><Contents><Key>b</Key><LastModified>Thu, 01 Jan 2026 00:00:00 GMT</LastModified>
<ETag>"e2"</ETag><Size>0</Size><StorageClass>GLACIER</StorageClass><Owner><ID>o</ID></Owner></Contents>
<CommonPrefixes><Prefix>c%2F/</Prefix></CommonPrefixes></ListBucketResult>"""


def aws(page: str) -> S3Store:
    config = CloudConfig(
        "aws",
        "aws",
        region="eu-central-1",
        endpoints={"objects": "https://aws.test"},
        credentials={name: Secret(f"test:{name}", lambda _: "x") for name in ("access_key_id", "secret_access_key")},
        options={},
    )
    store = providers()["aws"].open_store(config, "raw")
    assert isinstance(store, S3Store)

    def caught(request: Any, **_: object) -> AWSResponse:
        headers: Any = {}
        return AWSResponse(request.url, 200, headers, HTTPResponse(io.BytesIO(page.encode()), preload_content=False))

    events: Any = store._client.meta.events
    events.register("before-send.s3", caught)
    return store


@pytest.mark.parametrize("space", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'])
def test_a_page_of_s3_means_what_its_sdk_reads_in_it(space: str) -> None:
    page = S3_PAGE.format(space=space)
    level = aws(page).level("", 10)
    with patch("tasks.providers._dialects.s3.contents_reader", lambda _moment: lambda **_: None):
        theirs = aws(page).level("", 10)

    assert level == theirs
    assert level is not None
    assert [info.key for info in level.objects] == ["a+b c/ü&", "b"]
    assert [info.archived for info in level.objects] == [False, True]
    assert level.prefixes == ["c//"]


@pytest.mark.parametrize("text", ["<ListBucketResult", "<ListBucketResult><Contents><Size>x</Size></Contents>"])
def test_what_is_no_listing_of_s3_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(LintasError):
        list(aws(text).list(""))
