"""What Blob Storage and its client raise, translated.

https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from azure.core import exceptions as azure
from requests import RequestException

from tasks.core.errors import LintasError, Terminal
from tasks.providers._dialects.objects import Place, retry_after_s

_NO_BUCKET = frozenset({"ContainerNotFound", "ContainerDisabled", "ResourceNotFound"})
_CHANGED = frozenset({"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"})
_SOURCE_UNREAD = "CannotVerifyCopySource"
_ARCHIVED = "BlobArchived"
_BUSY = frozenset({"ServerBusy", "InternalError", "OperationTimedOut"})
# Writers of one blob share its uncommitted blocks: whoever commits first drops those of the others.
_COLLIDED = frozenset(
    {"ContainerBeingDeleted", "InvalidBlockList", "InvalidBlobOrBlock", "SnapshotOperationRateExceeded"}
)
_DAMAGED = frozenset({"Md5Mismatch", "Crc64Mismatch", "InvalidMd5"})
_REJECTED = frozenset(
    {
        "ContainerAlreadyExists",
        "InvalidHeaderValue",
        "InvalidMetadata",
        "InvalidResourceName",
        "InvalidUri",
        "MetadataTooLarge",
        "OutOfRangeInput",
        "RequestBodyTooLarge",
    }
)


def translate(error: azure.AzureError, place: Place, key: str | None = None) -> LintasError:
    """The error of `tasks.core.errors` for what the client library raised.

    Args:
        error: What was raised.
        place: The container it is about.
        key: The blob it is about; None for the container itself.
    """
    if isinstance(error, azure.IncompleteReadError):
        return place.cut(key)
    if isinstance(error, (azure.ServiceRequestError, azure.ServiceResponseError)):
        return place.unreachable()
    if isinstance(error, azure.HttpResponseError) and error.status_code is not None:
        return _by_answer(error, error.status_code, place, key)
    inner = error.inner_exception
    if isinstance(error, azure.HttpResponseError) and isinstance(inner, azure.AzureError):
        return translate(inner, place, key)
    if isinstance(inner, RequestException):
        # What azure-core makes of an answer in chunks that ended before its last one.
        return place.cut(key)
    if isinstance(error, azure.ClientAuthenticationError):
        return place.denied()
    return place.not_understood(type(error).__name__)


def code_of(error: azure.HttpResponseError) -> str:
    """The service's own code of an error, or '' where it gave none. The client library leaves it untyped."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _by_answer(error: azure.HttpResponseError, status: int, place: Place, key: str | None) -> LintasError:
    return refusal(status, code_of(error), getattr(error.response, "headers", None), place, key)


def refusal(status: int, code: str, headers: Mapping[str, str] | None, place: Place, key: str | None) -> LintasError:
    """The error of `tasks.core.errors` for an answer of the service.

    Args:
        status: HTTP status, 300 or more.
        code: The service's own code, or ''.
        headers: The headers.
        place: The container it is about.
        key: The blob it is about; None for the container itself.
    """
    if status == 429 or code in _BUSY or (status >= 500 and status != 501):
        return place.busy(retry_after_s(headers))
    if code == _SOURCE_UNREAD:
        return Terminal(
            f"{place.cloud} cannot read what it was to bring into {place}", "let it reach the source, or turn pulls off"
        )
    if status in (401, 403):
        return place.refused(headers)
    if status == 404:
        return place.missing(None if code in _NO_BUCKET else key)
    if code == _ARCHIVED:
        return place.archived(key)
    if code in _COLLIDED:
        return place.collided(key)
    if code in _CHANGED or status in (304, 412):
        return place.changed(key)
    if code in _DAMAGED:
        return place.damaged(key)
    if status == 416:
        return place.beyond_the_end(key)
    if code in _REJECTED or (status == 400 and not code):
        return place.rejected(code or "HTTP 400")
    return place.not_understood(f"{code or 'no code'}, HTTP {status}")


@contextmanager
def translated(place: Place, key: str | None = None) -> Iterator[None]:
    """Raises what the block's error means; see `translate`."""
    try:
        yield
    except azure.AzureError as error:
        raise translate(error, place, key) from error
