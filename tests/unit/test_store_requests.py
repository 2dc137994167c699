"""What stores ask for on the wire where no server of the twin answers it: customers' keys, who pays, storage classes.

The SDKs make the requests; they are caught before they leave, so that no socket is opened.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from awscrt import checksums
from botocore.awsrequest import AWSResponse
from requests.adapters import BaseAdapter

from tasks.core.attributes import TIERS, Attributes
from tasks.core.cloud import BucketConfig, CloudConfig, Secret
from tasks.core.errors import Denied, Invalid, PreconditionFailed
from tasks.core.ports import DirectStore, Store, Write
from tasks.providers._dialects.s3 import S3Store
from tasks.providers.azure.store import AzureStore
from tasks.providers.google.store import GoogleStore
from tasks.registry import providers

KMS = "arn:aws:kms:eu-central-1:111122223333:key/1234"
CLOUD_KMS = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"
SECRETS = {
    "aws": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"},
    "google": {"token": "token"},
    "azure": {"account_key": "a2V5a2V5a2V5"},
}
OPTIONS = {"google": {"project": "payer"}, "azure": {"account": "acct"}}

Seen = list[dict[str, str]]
Canned = tuple[Mapping[str, str], bytes]
DESCRIBED = {"ETag": '"e"', "Content-Length": "1", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


def open_store(cloud: str, bucket: BucketConfig) -> Store:
    config = CloudConfig(
        cloud,
        cloud,
        region="eu-central-1",
        endpoints={"objects": f"https://{cloud}.test" + ("/acct" if cloud == "azure" else "")},
        credentials={name: Secret(f"test:{name}", lambda _, v=value: v) for name, value in SECRETS[cloud].items()},
        options=OPTIONS.get(cloud, {}),
        buckets={"raw": bucket},
    )
    return providers()[cloud].open_store(config, "raw")


def s3(
    bucket: BucketConfig, answers: Mapping[str, tuple[Mapping[str, str], bytes]] | None = None
) -> tuple[S3Store, Seen]:
    """S3 with every request of its SDK caught: the headers, with the operation's name under ''."""
    store, seen = open_store("aws", bucket), Seen()
    assert isinstance(store, S3Store)

    def caught(request: Any, event_name: str, **_: object) -> AWSResponse:
        operation = event_name.rpartition(".")[2]
        texts = {
            str(name).lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        seen.append({"": operation, "url": request.url, **texts})
        headers, body = (answers or {}).get(operation, ({"ETag": '"e"'}, b""))
        return AWSResponse(request.url, 200, dict(headers), Raw(body))

    store._client.meta.events.register("before-send.s3", caught)
    return store, seen


class Raw(io.BytesIO):
    """A body as botocore reads it."""

    def stream(self, **_: object) -> list[bytes]:
        return [self.read()]


class Caught(BaseAdapter):
    """Catches the requests of a session."""

    def __init__(self, answer: Callable[[requests.PreparedRequest], bytes]) -> None:
        super().__init__()
        self.seen: list[requests.PreparedRequest] = []
        self._answer = answer

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.seen.append(request)
        response = requests.Response()
        response.status_code = 200
        response.headers["Content-Type"] = "application/json"
        response._content = self._answer(request)
        response.request, response.url = request, str(request.url)
        return response

    def close(self) -> None:
        """Nothing is open."""


def google(bucket: BucketConfig) -> tuple[GoogleStore, Caught]:
    store = open_store("google", bucket)
    assert isinstance(store, GoogleStore)
    caught = Caught(
        lambda _request: (
            b'{"generation":"7","size":"1","crc32c":"kdX2rQ==","md5Hash":"nQ9OO2uLJQpOgbcVqUBmHA==",'
            b'"updated":"2026-01-01T00:00:00Z","done":true,"totalBytesRewritten":"1","objectSize":"1","resource":{"generation":"8","size":"1","crc32c":"kdX2rQ=="}}'
        )
    )
    store._session.mount("https://", caught)
    return store, caught


def write(**attributes: Any) -> Write:
    return Write("k", 1, {"origin": "x"}, None, True, Attributes(**attributes))


def direct_headers(store: Store, wanted: Write) -> Mapping[str, str]:
    assert isinstance(store, DirectStore)
    return {name.lower(): value for name, value in store.direct.put(wanted, memoryview(b"x")).headers.items()}


# SSE-KMS


def test_s3_encrypts_every_new_object_with_the_customers_key() -> None:
    begun = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    finished = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
    store, seen = s3(
        BucketConfig(encryption_key=KMS),
        {
            "CreateMultipartUpload": ({}, begun),
            "CompleteMultipartUpload": ({}, finished),
            "HeadObject": (
                {"ETag": '"e"', "Content-Length": "1", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"},
                b"",
            ),
        },
    )
    large = 8 * 1024 * 1024 + 1
    store.put("k", [b"x"], size_bytes=1)
    store.put("k", [b"x" * large], size_bytes=large)
    store.direct.begin(write())
    store.server_side.copy(store, "from", "v", write())

    asked = [item for item in seen if item[""] in ("PutObject", "CreateMultipartUpload", "CopyObject")]
    assert [item[""] for item in asked] == ["PutObject", "CreateMultipartUpload", "CreateMultipartUpload", "CopyObject"]
    for item in (*asked, direct_headers(store, write())):
        assert item["x-amz-server-side-encryption"] == "aws:kms"
        assert item["x-amz-server-side-encryption-aws-kms-key-id"] == KMS


def test_the_etag_of_an_object_under_a_key_of_kms_is_not_taken_for_its_md5() -> None:
    facts = {**DESCRIBED, "ETag": f'"{"a" * 32}"'}
    for encryption, known in ((None, {"md5": "a" * 32}), ("AES256", {"md5": "a" * 32}), ("aws:kms", {})):
        stated = {**facts, **({"x-amz-server-side-encryption": encryption} if encryption else {})}
        store, _ = s3(BucketConfig(), {"HeadObject": (stated, b"")})
        assert store.head("k").checksums == known


def test_a_checksum_of_checksums_is_not_one_of_the_whole() -> None:
    facts = {**DESCRIBED, "ETag": f'"{"a" * 32}-2"'}
    composite = {**facts, "x-amz-checksum-crc32c": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"}
    whole = {**facts, "x-amz-checksum-crc32c": "AAAAAA==", "x-amz-checksum-type": "FULL_OBJECT"}
    for stated, known in ((composite, {}), (whole, {"crc32c": "00000000"})):
        store, _ = s3(BucketConfig(), {"HeadObject": (stated, b"")})
        assert store.head("k").checksums == known


# Who pays


def test_every_request_for_objects_of_s3_says_that_the_requester_pays() -> None:
    listing = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
    facts = DESCRIBED
    store, seen = s3(
        BucketConfig(requester_pays=True),
        {"ListObjectsV2": ({}, listing), "HeadObject": (facts, b""), "GetObject": (facts, b"x")},
    )
    list(store.list(""))
    store.head("k")
    list(store.get("k"))

    assert [item[""] for item in seen] == ["ListObjectsV2", "HeadObject", "GetObject"]
    signed = store.direct.get("k", version="v", start=0, length=None)
    for item in (*seen, signed.headers):
        assert item["x-amz-request-payer"] == "requester"
    with pytest.raises(Denied):
        # Whoever follows a link would have to send the header too, which pullers do not.
        store.direct.link("k", valid_s=60)


def test_every_request_for_objects_of_google_names_the_project_that_pays() -> None:
    store, caught = google(BucketConfig(requester_pays=True))
    store.head("k")
    store.put("k", [b"x"], size_bytes=1)

    # The client library looks the bucket up besides, by a thread of its own, for its traces.
    asked = [request for request in caught.seen if "/b/raw/o" in str(request.url)]
    assert [request.method for request in asked] == ["GET", "POST"]
    for request in asked:
        assert parse_qs(urlsplit(str(request.url)).query)["userProject"] == ["payer"]
    assert store.direct.get("k", version="7", start=0, length=None).headers["x-goog-user-project"] == "payer"


# CMEK and encryption scopes


def test_google_encrypts_every_new_object_with_the_customers_key() -> None:
    store, caught = google(BucketConfig(encryption_key=CLOUD_KMS))
    store.put("k", [b"x"], size_bytes=1)
    store.server_side.copy(store, "from", "7", write())

    uploaded, rewritten = (
        parse_qs(urlsplit(str(request.url)).query) for request in caught.seen if request.method == "POST"
    )
    assert uploaded["kmsKeyName"] == [CLOUD_KMS]
    assert rewritten["destinationKmsKeyName"] == [CLOUD_KMS]
    assert direct_headers(store, write())["x-goog-encryption-kms-key-name"] == CLOUD_KMS


@pytest.mark.parametrize(
    ("right", "wrong", "bytes_of_proof"),
    [((201, ""), (400, "Crc64Mismatch"), 8), ((201, ""), (201, ""), 16), ((400, "Other"), (400, "Other"), 16)],
)
def test_azure_is_asked_at_once_whether_it_takes_a_right_checksum_and_refuses_a_wrong_one(
    monkeypatch: pytest.MonkeyPatch, right: tuple[int, str], wrong: tuple[int, str], bytes_of_proof: int
) -> None:
    store, both = open_store("azure", BucketConfig()), threading.Barrier(2, timeout=30)
    assert isinstance(store, DirectStore)
    right_proof = base64.b64encode(checksums.crc64nvme(b"?").to_bytes(8, "little")).decode()

    def put(url: str, body: bytes, *, headers: Mapping[str, str], timeout: tuple[float, float]) -> requests.Response:
        assert body == b"?"
        both.wait()
        answer = requests.Response()
        answer.status_code, code = right if headers["x-ms-content-crc64"] == right_proof else wrong
        answer.headers["x-ms-error-code"] = code
        return answer

    monkeypatch.setattr(requests, "put", put)
    store.direct.prepare("in/a")

    assert len(base64.b64decode(store.direct.proof().text())) == bytes_of_proof


def test_azure_encrypts_every_blob_and_block_in_the_customers_scope() -> None:
    store = open_store("azure", BucketConfig(encryption_key="scope"))
    assert isinstance(store, AzureStore)

    assert direct_headers(store, write())["x-ms-encryption-scope"] == "scope"
    assert store.direct.part(write(), "u", 1, memoryview(b"x")).headers["x-ms-encryption-scope"] == "scope"
    assert store._describing.arguments({}, Attributes())["encryption_scope"] == "scope"
    assert store.server_side.way(store) is None


# Storage classes


@pytest.mark.parametrize(
    ("cloud", "header", "by_tier"),
    [
        ("aws", "x-amz-storage-class", [None, "STANDARD_IA", "GLACIER_IR", "DEEP_ARCHIVE"]),
        ("google", "x-goog-storage-class", [None, "NEARLINE", "COLDLINE", "ARCHIVE"]),
        ("azure", "x-ms-access-tier", [None, "Cool", "Cold", "Archive"]),
    ],
)
def test_a_tier_is_written_as_the_class_that_the_catalogue_names(
    cloud: str, header: str, by_tier: Sequence[str | None]
) -> None:
    store = open_store(cloud, BucketConfig())
    for tier, expected in zip(TIERS, by_tier, strict=True):
        assert direct_headers(store, write(tier=tier)).get(header) == expected


def test_lintas_yaml_goes_before_the_catalogue() -> None:
    store = open_store("aws", BucketConfig(storage_classes={"hot": "INTELLIGENT_TIERING", "cool": "ONEZONE_IA"}))

    assert direct_headers(store, write(tier="hot"))["x-amz-storage-class"] == "INTELLIGENT_TIERING"
    assert direct_headers(store, write(tier="cool"))["x-amz-storage-class"] == "ONEZONE_IA"
    assert direct_headers(store, write(tier="cold"))["x-amz-storage-class"] == "GLACIER_IR"


def test_a_class_that_azure_does_not_have_is_refused_by_name() -> None:
    store = open_store("azure", BucketConfig(storage_classes={"cool": "Lukewarm"}))
    with pytest.raises(Invalid, match="Lukewarm"):
        store.put("k", [b"x"], size_bytes=1, attributes=Attributes(tier="cool"))


# Archived objects


def test_an_archived_object_is_known_by_its_listing_until_it_is_restored() -> None:
    fixed = "<Size>1</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>"
    item = f"<Contents><Key>{{}}</Key>{fixed}{{}}</Contents>"
    contents = [
        item.format("plain", "<StorageClass>STANDARD</StorageClass>"),
        item.format("readable", "<StorageClass>GLACIER_IR</StorageClass>"),
        item.format("archived", "<StorageClass>GLACIER</StorageClass>"),
        item.format(
            "asked-for",
            "<StorageClass>GLACIER</StorageClass>"
            "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>",
        ),
        item.format(
            "restored",
            "<StorageClass>DEEP_ARCHIVE</StorageClass><RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
            "<RestoreExpiryDate>2026-12-01T00:00:00Z</RestoreExpiryDate></RestoreStatus>",
        ),
    ]
    listing = f"<ListBucketResult>{''.join(contents)}</ListBucketResult>".encode()
    store, seen = s3(BucketConfig(), {"ListObjectsV2": ({}, listing)})

    found = {info.key: info.archived for info in store.list("")}

    assert found == {"plain": False, "readable": False, "archived": True, "asked-for": True, "restored": False}
    assert seen[0]["x-amz-optional-object-attributes"] == "RestoreStatus"


def test_an_archived_object_is_known_by_its_description_until_it_is_restored() -> None:
    facts = DESCRIBED
    for restore, archived in (
        ({}, True),
        ({"x-amz-restore": 'ongoing-request="true"'}, True),
        ({"x-amz-restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2026 00:00:00 GMT"'}, False),
    ):
        store, _ = s3(BucketConfig(), {"HeadObject": ({**facts, "x-amz-storage-class": "GLACIER", **restore}, b"")})
        assert store.head("k").archived == archived


def test_a_copy_in_parts_that_cannot_be_given_up_still_says_why_it_failed() -> None:
    store, asked = open_store("aws", BucketConfig()), list[str]()
    assert isinstance(store, S3Store)
    answers = {
        "CreateMultipartUpload": (200, b"<R><UploadId>u</UploadId></R>"),
        "UploadPartCopy": (412, b"<Error><Code>PreconditionFailed</Code></Error>"),
        "AbortMultipartUpload": (403, b"<Error><Code>AccessDenied</Code></Error>"),
    }

    def answered(request: Any, event_name: str, **_: object) -> AWSResponse:
        asked.append(event_name.rpartition(".")[2])
        status, body = answers[asked[-1]]
        return AWSResponse(request.url, status, {}, Raw(body))

    store._client.meta.events.register("before-send.s3", answered)
    store.server_side.most_at_once_bytes = 1
    with pytest.raises(PreconditionFailed) as failed:
        store.server_side.copy(store, "from", "v", Write("to", 2, {}, None, False))
    assert failed.value.__notes__ == ["an unfinished upload may remain in aws://raw"]
    assert asked == list(answers)
