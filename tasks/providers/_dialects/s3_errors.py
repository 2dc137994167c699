"""What botocore raises, translated once for every service that speaks the S3 dialect.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. HEAD answers carry no body, so that
their code is only the HTTP status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from types import MappingProxyType

import botocore.exceptions as boto

from tasks.core.errors import Denied, LintasError
from tasks.providers._dialects.objects import Place, retry_after_s

Sentence = Callable[[Place, str | None], LintasError]


def _bucket(sentence: Callable[[Place], LintasError]) -> Sentence:
    return lambda place, _key: sentence(place)


S3_CODES: Mapping[str, Sentence] = MappingProxyType(
    {
        "NoSuchBucket": _bucket(Place.no_bucket),
        **dict.fromkeys(("NoSuchKey", "404", "NotFound"), Place.missing),
        **dict.fromkeys(
            (
                "AccessDenied",
                "AllAccessDisabled",
                "AuthorizationHeaderMalformed",
                "ExpiredToken",
                "InvalidAccessKeyId",
                "InvalidToken",
                "SignatureDoesNotMatch",
                "401",
                "403",
            ),
            _bucket(Place.denied),
        ),
        "RequestTimeTooSkewed": _bucket(Place.clock_off),
        **dict.fromkeys(("PreconditionFailed", "412"), Place.changed),
        # An upload that was aborted by somebody else (a clean-up rule, say) can only be begun anew.
        **dict.fromkeys(("ConditionalRequestConflict", "NoSuchUpload", "OperationAborted"), Place.collided),
        **dict.fromkeys(
            ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"), Place.damaged
        ),
        **dict.fromkeys(("IncompleteBody", "RequestTimeout"), Place.cut),
        **dict.fromkeys(("InvalidRange", "416"), Place.beyond_the_end),
        "InvalidObjectState": Place.archived,
        "BucketAlreadyExists": _bucket(Place.name_taken),
        **{
            code: lambda place, _key, code=code: place.rejected(code)
            for code in (
                "EntityTooLarge",
                "IllegalLocationConstraintException",
                "InvalidArgument",
                "InvalidBucketName",
                "InvalidLocationConstraint",
                "KeyTooLongError",
                "MetadataTooLarge",
                "PermanentRedirect",
            )
        },
    }
)

WRITE_CODES: Mapping[str, Sentence] = MappingProxyType(
    # A conditional write that meets no object answers as a read does.
    {**S3_CODES, **dict.fromkeys(("NoSuchKey", "404"), Place.changed)}
)

_BUSY_CODES = frozenset(
    {
        "InternalError",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)

_CUT = (boto.IncompleteReadError, boto.ResponseStreamingError)
_UNREACHABLE = (
    boto.ConnectionClosedError,
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.ReadTimeoutError,
)
_NO_CREDENTIALS = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)


def translate(
    error: Exception, place: Place, key: str | None = None, codes: Mapping[str, Sentence] = S3_CODES
) -> LintasError:
    """The error of `tasks.core.errors` for what botocore raised.

    Args:
        error: What was raised.
        place: The bucket it is about.
        key: The object it is about; None for the bucket itself.
        codes: The service's error codes: `S3_CODES` and its own.
    """
    if isinstance(error, boto.ClientError):
        return _by_answer(error, place, key, codes)
    if isinstance(error, boto.WaiterError):
        return place.busy()
    if isinstance(error, boto.FlexibleChecksumError):
        return place.damaged(key)
    if isinstance(error, _CUT):
        return place.cut(key)
    if isinstance(error, _UNREACHABLE):
        return place.unreachable()
    if isinstance(error, _NO_CREDENTIALS):
        return place.no_credentials()
    if isinstance(error, boto.ParamValidationError):
        return place.rejected("a parameter is not valid")
    return place.not_understood(type(error).__name__)


def _by_answer(error: boto.ClientError, place: Place, key: str | None, codes: Mapping[str, Sentence]) -> LintasError:
    code = error.response.get("Error", {}).get("Code", "")
    answer = error.response.get("ResponseMetadata", {})
    status, headers = answer.get("HTTPStatusCode", 0), answer.get("HTTPHeaders")
    if code in _BUSY_CODES or status == 429 or (status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED):
        return place.busy(retry_after_s(headers))
    sentence = codes.get(code) or codes.get(str(status))
    if sentence is not None:
        meant = sentence(place, key)
        return place.refused(headers, meant) if isinstance(meant, Denied) else meant
    return place.not_understood(f"{code or 'no code'}, HTTP {status}")


@contextmanager
def translated(place: Place, key: str | None, codes: Mapping[str, Sentence] = S3_CODES) -> Iterator[None]:
    """Raises what the block's botocore error means; see `translate`."""
    try:
        yield
    except (boto.BotoCoreError, boto.ClientError) as error:
        raise translate(error, place, key, codes) from error
