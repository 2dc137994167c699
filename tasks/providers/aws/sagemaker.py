"""What training and serving on SageMaker have in common: the client, its errors, the bucket for what travels.

Error codes: https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html. SageMaker says nearly
everything in `ValidationException`, so that its sentence decides what was meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import botocore.exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError, NotFound, Retryable, Stockout
from tasks.providers._dialects.boto import core_session, session_of
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers._dialects.patience import request_timeout_s
from tasks.providers._dialects.s3_errors import S3_CODES, Sentence, translate
from tasks.providers.aws.store import open_store

if TYPE_CHECKING:
    from tasks.core.ports import Store

DIGEST_TAG = "lintas:digest"
RUN_TAG = "lintas:run"

_DENIED = (
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
)
_BUSY = ("ThrottlingException", "TooManyRequestsException", "InternalFailure", "InternalDependencyException",
         "ModelNotReadyException", "ServiceUnavailableException", "ResourceInUse", "ConflictException")  # fmt: skip
_CAPACITY = ("CapacityError", "InsufficientInstanceCapacity", "InsufficientCapacityError")
_CODES: Mapping[str, Sentence] = MappingProxyType(
    {**S3_CODES, **dict.fromkeys(_DENIED, lambda place, _key: place.denied())}
)
_MISSING = re.compile(r"not found|Could not find|does not exist|Cannot find", re.IGNORECASE)
_IN_PROGRESS = re.compile(r"in-progress|already existing endpoint ", re.IGNORECASE)
_QUOTED = re.compile(r"Value '.*?' at '", re.DOTALL)
_LONGEST_WORDS = 240


@dataclass(frozen=True)
class Clients:
    """The clients of one cloud's training or serving service.

    Args:
        place: How errors name the service.
        control: SageMaker's control plane.
        session: For further clients of the same account.
        endpoint: The configured URL, or None for the public one.
        timeout_s: Seconds of silence after which a request is given up.
    """

    place: Place
    control: Any
    session: Any
    endpoint: str | None
    timeout_s: float

    def open(self, service: str, *, read_timeout_s: float | None = None) -> Any:
        """A client of another service of the account at the same endpoint."""
        return self.session.client(
            service, endpoint_url=self.endpoint, config=_settings(read_timeout_s or self.timeout_s)
        )


def open_clients(config: CloudConfig, role: str) -> Clients:
    """The clients of `training` or `serving`.

    Raises:
        Invalid: The region is missing, or `options.request_timeout_s` is wrong.
        Denied: A credential's reference leads nowhere.
    """
    if not config.region:
        raise Invalid(f"clouds.{config.name}.region is missing", "set it in lintas.yaml")
    core = core_session()
    for service in ("sagemaker", "cloudwatch-logs"):
        core.register(f"before-parse.{service}.*", _require_json)
    session = session_of(config, core)
    endpoint = config.endpoint_or_public(role)
    timeout_s = request_timeout_s(config)
    control = session.client("sagemaker", endpoint_url=endpoint, config=_settings(timeout_s))
    place = Place(config.name, "SageMaker", address_of(control.meta.endpoint_url), "service", role)
    return Clients(place, control, session, endpoint, timeout_s)


def _require_json(operation_model: Any, response_dict: Mapping[str, Any], **_: object) -> None:
    """Raises what botocore does not: it takes a body that is cut off or damaged for an answer without a field."""
    body: Any = response_dict["body"]
    if operation_model.has_streaming_output or not body or response_dict["status_code"] >= 300:
        return
    try:
        json.loads(body)
    except ValueError as error:
        raise ResponseParserError("the body is no JSON") from error


def _settings(read_timeout_s: float) -> Config:
    return Config(
        connect_timeout=5,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=16,
    )


@dataclass(frozen=True)
class Depot:
    """The bucket and prefix for what travels between here and SageMaker.

    Args:
        store: The bucket.
        prefix: `options.prefix`, without slashes at its ends.
    """

    store: Store
    prefix: str

    def put(self, key: str, content: bytes) -> None:
        """Write a small object; the first one creates the bucket if need be."""
        try:
            self.store.put(key, [content], size_bytes=len(content))
        except NotFound:
            self.store.create_bucket()
            self.store.put(key, [content], size_bytes=len(content))

    def uri(self, key: str) -> str:
        """The key as SageMaker names it."""
        return f"s3://{self.store.bucket}/{key}"


def open_depot(config: CloudConfig) -> Depot:
    """The depot of a cloud: `options.bucket` and `options.prefix`. Raises `Invalid` when the bucket is missing."""
    return Depot(open_store(config, config.option("bucket")), config.options.get("prefix", "").strip("/"))


def number(config: CloudConfig, name: str, default: float, *, least: float = 0.0) -> float:
    """An option that is a number. Raises `Invalid` naming it otherwise."""
    try:
        value = float(config.options.get(name, default))
    except ValueError:
        value = least - 1
    if not value >= least:
        raise Invalid(f"clouds.{config.name}.options.{name} is not a number from {least:g} on", "correct lintas.yaml")
    return value


def meaning(error: Exception, place: Place) -> LintasError:
    """The error of `tasks.core.errors` for what botocore raised about SageMaker or CloudWatch Logs."""
    if isinstance(error, boto.ParamValidationError):
        return Invalid(
            f"{place.cloud} cannot express this in a request to SageMaker", "correct the spec or lintas.yaml"
        )
    if isinstance(error, ResponseParserError):
        return place.cut(None)
    if not isinstance(error, boto.ClientError):
        return translate(error, place, None, _CODES)
    code, words = error.response.get("Error", {}).get("Code", ""), plain(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _CAPACITY or any(name in words for name in _CAPACITY):
        return Stockout(f"{place.cloud} has no capacity: {words}", "place again without this offer")
    if code == "ResourceLimitExceeded":
        return Stockout(f"{place.cloud} has no quota: {words}", "ask for more in Service Quotas, or place elsewhere")
    if code in ("ResourceNotFound", "ResourceNotFoundException") or (_is_validation(code) and _MISSING.search(words)):
        return NotFound(f"{place.cloud}: {words}", "check the name, and what was deleted")
    if _is_validation(code) and _IN_PROGRESS.search(words):
        return Retryable(f"{place.cloud} is still at work: {words}", "try again when it is done")
    if code == "400":
        # botocore takes the status for a code when the body ends before it can be read.
        return place.cut(None)
    if code in _BUSY or status >= 500:
        return Retryable(f"SageMaker of {place.cloud} ({place.address}) is too busy ({code})", "try again later")
    if _is_validation(code):
        return Invalid(f"{place.cloud} refuses the request: {words}", "correct the spec or lintas.yaml")
    return translate(error, place, None, _CODES)


def plain(error: boto.ClientError) -> str:
    """SageMaker's own sentence in one line, without the values that it quotes."""
    said = _QUOTED.sub("the value at '", error.response.get("Error", {}).get("Message", ""))
    return one_line(said) or "no reason given"


def one_line(text: str) -> str:
    """A service's sentence in one short line without a full stop."""
    return " ".join(text.split())[:_LONGEST_WORDS].rstrip(". ")


def _is_validation(code: str) -> bool:
    return code in ("ValidationException", "ValidationError")


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Raises what the block's botocore error means."""
    try:
        yield
    except (boto.BotoCoreError, boto.ClientError, ResponseParserError) as error:
        raise meaning(error, place) from error
