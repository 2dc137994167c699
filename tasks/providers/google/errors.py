"""What Cloud Storage and its client raise, translated.

https://cloud.google.com/storage/docs/json_api/v1/status-codes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests
import urllib3.exceptions
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from tasks.core.errors import LintasError
from tasks.providers._dialects.objects import Place, retry_after_s

RAISED = (
    api.GoogleAPIError,
    auth.GoogleAuthError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    DataCorruption,
    InvalidResponse,
    ConnectionError,
)
"""Everything that the client library raises when a request fails."""

NO_BUCKET = "bucket does not exist"
"""What tells a missing bucket from a missing object: both are 404 `notFound`."""

_NO_BUCKET_CODE = "<Code>NoSuchBucket</Code>"
_NO_UPLOAD = "<Code>NoSuchUpload</Code>"
_DAMAGED = ("doesn't match calculated", "<Code>BadDigest</Code>")
_BY_CLOCK = "in a reasonable timeframe"
"""What the token service says of a service account's signature whose time is not now."""

_RATE_LIMITED = ("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded")


def translate(error: Exception, place: Place, key: str | None = None) -> LintasError:
    """The error of `tasks.core.errors` for what the client library raised.

    Args:
        error: What was raised.
        place: The bucket it is about.
        key: The object it is about; None for the bucket itself.
    """
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        return translate(error.cause, place, key)
    if isinstance(error, InvalidResponse):
        return _answered(error.response, place, key)
    if isinstance(error, api.GoogleAPICallError) and isinstance(error.response, requests.Response):
        return _answered(error.response, place, key)
    if isinstance(error, DataCorruption):
        return place.damaged(key)
    if isinstance(error, auth.DefaultCredentialsError):
        return place.no_credentials()
    if isinstance(error, auth.TransportError):
        return place.unreachable()
    if isinstance(error, auth.RefreshError) and _BY_CLOCK in str(error):
        return place.clock_off()
    if isinstance(error, auth.GoogleAuthError):
        return place.denied()
    if isinstance(error, (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.ProtocolError)):
        return place.cut(key)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return place.rejected("the endpoint is not a URL")
    if isinstance(error, (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError, ConnectionError)):
        return place.unreachable()
    return place.not_understood(type(error).__name__)


def _answered(response: requests.Response, place: Place, key: str | None) -> LintasError:
    return refusal(response.status_code, response.text, response.headers, place, key)


def refusal(status: int, text: str, headers: Mapping[str, str], place: Place, key: str | None) -> LintasError:
    """The error of `tasks.core.errors` for an answer of the JSON or the XML API.

    Args:
        status: HTTP status, 300 or more.
        text: The body.
        headers: The headers.
        place: The bucket it is about.
        key: The object it is about; None for the bucket itself.
    """
    if status in (408, 429) or (status >= 500 and status != 501):
        return place.busy(retry_after_s(headers))
    if status == 403 and any(reason in text for reason in _RATE_LIMITED):
        return place.busy(retry_after_s(headers))
    if status in (401, 403):
        return place.refused(headers)
    if status == 404 and _NO_UPLOAD in text:
        # Somebody else gave it up (a clean-up rule, say): it can only be begun anew.
        return place.collided(key)
    if status == 404:
        return place.missing(None if any(words in text for words in (NO_BUCKET, _NO_BUCKET_CODE)) else key)
    if status == 409 and key is None:
        return place.name_taken()
    if status in (409, 410):
        return place.collided(key)
    if status in (304, 412):
        return place.changed(key)
    if status == 416:
        return place.beyond_the_end(key)
    if status == 400 and any(words in text for words in _DAMAGED):
        return place.damaged(key)
    if status == 400:
        return place.rejected("HTTP 400")
    return place.not_understood(f"HTTP {status}")


@contextmanager
def translated(place: Place, key: str | None = None) -> Iterator[None]:
    """Raises what the block's error means; see `translate`."""
    try:
        yield
    except RAISED as error:
        raise translate(error, place, key) from error
