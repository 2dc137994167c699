"""What a provider's SDK raises becomes one error that says what to do next, and never what is secret."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import Any

import azure.core.exceptions as azure
import botocore.exceptions as boto
import pytest
import requests
import urllib3.exceptions
from google.api_core import exceptions as google_api
from google.auth import exceptions as google_auth
from google.cloud.storage.exceptions import DataCorruption

from tasks.core.cloud import CloudConfig, Secret
from tasks.core.errors import (
    Denied,
    IntegrityError,
    Invalid,
    LintasError,
    NotFound,
    PreconditionFailed,
    Retryable,
    Terminal,
)
from tasks.providers._dialects.objects import Place, exactly, part_bytes
from tasks.providers._dialects.s3_errors import WRITE_CODES
from tasks.providers._dialects.s3_errors import translate as translate_s3
from tasks.providers.azure.errors import translate as translate_azure
from tasks.providers.google.errors import translate as translate_google
from tasks.providers.onprem.errors import translate as translate_onprem

PLACE = Place("there", "raw", "objects.example:443")
SECRET = "AKIA-very-secret"


def client_error(code: str, status: int, **headers: str) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": f"refused {SECRET}"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return boto.ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (client_error("NoSuchBucket", 404), NotFound, "bucket 'raw' does not exist on there"),
        (client_error("NoSuchKey", 404), NotFound, "'k' does not exist in there://raw"),
        (client_error("404", 404), NotFound, "'k' does not exist"),
        (client_error("InvalidAccessKeyId", 403), Denied, "refused its credentials"),
        (client_error("SignatureDoesNotMatch", 403), Denied, "refused its credentials"),
        (client_error("SomethingNew", 403), Denied, "refused its credentials"),
        (client_error("ExpiredToken", 400), Denied, "refused its credentials"),
        (client_error("PreconditionFailed", 412), PreconditionFailed, "is not what it was"),
        (client_error("ConditionalRequestConflict", 409), Retryable, "another writer"),
        (client_error("BadDigest", 400), IntegrityError, "checksum of 'k' did not match"),
        (client_error("XAmzContentSHA256Mismatch", 400), IntegrityError, "checksum"),
        (client_error("SlowDown", 503), Retryable, "too busy"),
        (client_error("ThrottlingException", 400), Retryable, "too busy"),
        (client_error("RequestThrottled", 403), Retryable, "too busy"),
        (client_error("Whatever", 500), Retryable, "too busy"),
        (client_error("TooManyRequests", 429), Retryable, "too busy"),
        (client_error("BucketAlreadyExists", 409), Invalid, "taken by somebody else"),
        (client_error("KeyTooLongError", 400), Invalid, "KeyTooLongError"),
        (client_error("NotImplemented", 501), Terminal, "NotImplemented, HTTP 501"),
        (client_error("SomethingNew", 418), Terminal, "SomethingNew, HTTP 418"),
        (boto.EndpointConnectionError(endpoint_url="x"), Retryable, "there (objects.example:443) is unreachable"),
        (boto.ConnectTimeoutError(endpoint_url="x"), Retryable, "is unreachable"),
        (boto.ReadTimeoutError(endpoint_url="x"), Retryable, "is unreachable"),
        (boto.ConnectionClosedError(endpoint_url="x"), Retryable, "is unreachable"),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), Retryable, "was cut"),
        (boto.ResponseStreamingError(error="x"), Retryable, "was cut"),
        (boto.FlexibleChecksumError(error_msg="x"), IntegrityError, "checksum"),
        (boto.NoCredentialsError(), Denied, "has no credentials"),
        (boto.ParamValidationError(report=SECRET), Invalid, "rejected the request"),
        (boto.UnknownSignatureVersionError(signature_version="x"), Terminal, "UnknownSignatureVersionError"),
    ],
)
def test_s3(error: Exception, kind: type[LintasError], says: str) -> None:
    assert_translated(translate_s3(error, PLACE, "k"), kind, says)


def test_a_conditional_s3_write_that_meets_no_object_is_a_failed_precondition() -> None:
    error = translate_s3(client_error("NoSuchKey", 404), PLACE, "k", WRITE_CODES)

    assert_translated(error, PreconditionFailed, "'k' in there://raw")


def answer(status: int, text: str = "", **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = text.encode()
    response.headers.update(headers)
    response.request = requests.Request("GET", f"https://x/?token={SECRET}").prepare()
    return response


def refused(status: int, text: str = "", **headers: str) -> google_api.GoogleAPICallError:
    return google_api.from_http_response(answer(status, text, **headers))


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (refused(404, "The specified bucket does not exist."), NotFound, "bucket 'raw' does not exist"),
        (refused(404, "No such object: raw/k"), NotFound, "'k' does not exist in there://raw"),
        (refused(401, SECRET), Denied, "refused its credentials"),
        (refused(403, "forbidden"), Denied, "refused its credentials"),
        (refused(403, '{"reason": "rateLimitExceeded"}'), Retryable, "too busy"),
        (refused(412, "conditionNotMet"), PreconditionFailed, "is not what it was"),
        (refused(429), Retryable, "too busy"),
        (refused(503), Retryable, "too busy"),
        (refused(400, 'Provided CRC32C "x" doesn\'t match calculated CRC32C "y".'), IntegrityError, "checksum"),
        (refused(400, SECRET), Invalid, "HTTP 400"),
        (refused(416), Invalid, "ends before"),
        (refused(418), Terminal, "HTTP 418"),
        (requests.ConnectionError(SECRET), Retryable, "there (objects.example:443) is unreachable"),
        (requests.ReadTimeout(), Retryable, "is unreachable"),
        (urllib3.exceptions.ReadTimeoutError(None, "", ""), Retryable, "is unreachable"),  # type: ignore[arg-type]
        (urllib3.exceptions.ProtocolError("Connection broken"), Retryable, "was cut"),
        (google_api.RetryError("late", requests.ConnectionError()), Retryable, "is unreachable"),
        (google_auth.RefreshError(SECRET), Denied, "refused its credentials"),
        (google_auth.DefaultCredentialsError(SECRET), Denied, "has no credentials"),
        (google_auth.TransportError("x"), Retryable, "is unreachable"),
        (DataCorruption(answer(200), "x"), IntegrityError, "checksum"),
        (google_api.GoogleAPIError(SECRET), Terminal, "GoogleAPIError"),
    ],
)
def test_google(error: Exception, kind: type[LintasError], says: str) -> None:
    assert_translated(translate_google(error, PLACE, "k"), kind, says)


def http_error(code: str, status: int, kind: type[azure.HttpResponseError] = azure.HttpResponseError) -> Any:
    error: Any = kind(message=f"{code} {SECRET}")
    error.status_code = status
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (http_error("ContainerNotFound", 404), NotFound, "bucket 'raw' does not exist"),
        (http_error("BlobNotFound", 404), NotFound, "'k' does not exist in there://raw"),
        (http_error("AuthenticationFailed", 403, azure.ClientAuthenticationError), Denied, "refused its credentials"),
        (http_error("ConditionNotMet", 412), PreconditionFailed, "is not what it was"),
        (http_error("BlobAlreadyExists", 409), PreconditionFailed, "is not what it was"),
        (http_error("InvalidBlockList", 400), Retryable, "another writer"),
        (http_error("Md5Mismatch", 400), IntegrityError, "checksum"),
        (http_error("ServerBusy", 503), Retryable, "too busy"),
        (http_error("", 429), Retryable, "too busy"),
        (http_error("InvalidResourceName", 400), Invalid, "InvalidResourceName"),
        (http_error("InvalidRange", 416), Invalid, "ends before"),
        (http_error("SomethingNew", 418), Terminal, "SomethingNew, HTTP 418"),
        (azure.ServiceRequestError(SECRET), Retryable, "there (objects.example:443) is unreachable"),
        (azure.ServiceResponseError(SECRET), Retryable, "is unreachable"),
        (azure.IncompleteReadError(SECRET), Retryable, "was cut"),
        (azure.HttpResponseError(error=azure.IncompleteReadError("x")), Retryable, "was cut"),
        (azure.HttpResponseError(error=requests.exceptions.ChunkedEncodingError(SECRET)), Retryable, "was cut"),
        (azure.ClientAuthenticationError(SECRET), Denied, "refused its credentials"),
        (azure.AzureError(SECRET), Terminal, "AzureError"),
    ],
)
def test_azure(error: azure.AzureError, kind: type[LintasError], says: str) -> None:
    assert_translated(translate_azure(error, PLACE, "k"), kind, says)


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOENT, NotFound, "'k' does not exist in there://raw"),
        (errno.EACCES, Denied, "does not let this user reach 'k'"),
        (errno.EROFS, Denied, "mounted read-only"),
        (errno.ENOSPC, Terminal, "the disk of there://raw (objects.example:443) is full; free or add space"),
        (errno.EDQUOT, Terminal, "is full"),
        (errno.ENAMETOOLONG, Invalid, "cannot be a file name"),
        (errno.EISDIR, Invalid, "both an object and objects below its key"),
        (errno.ELOOP, Invalid, "symbolic link"),
        (errno.ESTALE, Retryable, "could not serve"),
        (errno.EIO, Terminal, "EIO"),
    ],
)
def test_onprem(number: int, kind: type[LintasError], says: str) -> None:
    assert_translated(translate_onprem(OSError(number, SECRET), PLACE, "k"), kind, says)


def assert_translated(error: LintasError, kind: type[LintasError], says: str) -> None:
    assert type(error) is kind
    assert says in str(error)
    assert error.mend
    assert SECRET not in repr(error)


@pytest.mark.parametrize("error", [
    translate_s3(client_error("SlowDown", 503, **{"Retry-After": "7"}), PLACE),
    translate_google(refused(503, **{"Retry-After": "7"}), PLACE),
])  # fmt: skip
def test_a_busy_service_says_how_long_to_wait(error: Retryable) -> None:
    assert error.retry_after_s == 7


def test_a_body_that_is_too_long_is_refused_before_its_surplus_is_passed_on() -> None:
    passed: list[bytes] = []

    with pytest.raises(IntegrityError, match="'k'"):
        passed.extend(exactly([b"abc", b"def"], 4, PLACE, "k"))

    assert passed == [b"abc"]


@pytest.mark.parametrize(("size_bytes", "most"), [(0, 10_000), (10**9, 10_000), (5 * 2**40, 10_000), (10**12, 50_000)])
def test_no_upload_needs_more_parts_than_are_allowed(size_bytes: int, most: int) -> None:
    assert -(-size_bytes // part_bytes(size_bytes, most)) <= most


def test_coreweave_names_the_bucket_in_the_host_unless_told_otherwise() -> None:
    secret = Secret("test:key", lambda _: "key")
    credentials = {"access_key_id": secret, "secret_access_key": secret}

    assert url_of("raw", CloudConfig("cw", "coreweave", region="US-EAST-04A", credentials=credentials)).startswith(
        "https://raw.cwobject.com/key?"
    )
    by_path = CloudConfig("cw", "coreweave", credentials=credentials, options={"addressing": "path"})
    assert url_of("raw", by_path).startswith("https://cwobject.com/raw/key?")
    with pytest.raises(Invalid, match=r"clouds\.cw\.options\.addressing"):
        url_of("raw", CloudConfig("cw", "coreweave", credentials=credentials, options={"addressing": "both"}))


def url_of(bucket: str, config: CloudConfig) -> str:
    from tasks.providers.coreweave.store import open_store

    store: Any = open_store(config, bucket)
    return store._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})


def test_azure_without_credentials_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.providers.azure.store import open_store

    monkeypatch.setitem(sys.modules, "azure.identity", None)

    with pytest.raises(Invalid, match=r"clouds\.az\.credentials"):
        open_store(CloudConfig("az", "azure", options={"account": "a"}), "raw")
    with pytest.raises(Invalid, match=r"clouds\.az\.options\.account"):
        open_store(CloudConfig("az", "azure"), "raw")


@pytest.mark.parametrize("key", ["{", "/no/such/file", '{"type": "service_account"}'])
def test_google_with_a_key_file_that_is_none_says_so_without_showing_it(key: str) -> None:
    from tasks.providers.google.store import open_store

    credentials = {"service_account_file": Secret("test:key", lambda _: key)}

    with pytest.raises(Invalid, match=r"clouds\.g\.credentials\.service_account_file") as caught:
        open_store(CloudConfig("g", "google", credentials=credentials), "raw")
    assert key not in str(caught.value)


def test_knowing_the_providers_imports_no_sdk() -> None:
    # What stands in sys.modules before our own import (namespace packages of a .pth file) is not ours.
    code = (
        "import sys; before = set(sys.modules); import tasks.registry; tasks.registry.providers();"
        "print([m for m in set(sys.modules) - before if m.partition('.')[0] in ('boto3', 'botocore', 'awscrt', 'azure')"
        " or m.startswith(('google.cloud', 'google.auth', 'google.api_core'))])"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
