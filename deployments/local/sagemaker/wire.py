"""The wire: who signed, whether the request has the official shape, and how answers and refusals look.

Sources: the service models inside botocore (protocols `json` 1.1 and `rest-json`), and "Signature Version 4":
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import hmac
import json
import re
import time
import uuid
from calendar import timegm
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.validate import ParamValidator
from starlette.requests import Request
from starlette.responses import Response

_JSON = "application/x-amz-json-1.1"
_SKEW_S = 300
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        code: The service's word for it.
        message: Its sentence.
        status: HTTP status.
        more: Further members of the error's shape.
    """

    def __init__(self, code: str, message: str, status: int = 400, **more: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.more = code, message, status, more

    def response(self) -> Response:
        """The answer, as all services of the two protocols give it."""
        member = "message" if self.code.endswith("Exception") else "Message"
        body = {"__type": self.code, member: self.message, **self.more}
        return _answer(json.dumps(body), self.status, {"x-amzn-ErrorType": self.code})


def invalid(message: str) -> Refused:
    """ValidationException: what SageMaker says of almost every request that it does not like."""
    return Refused("ValidationException", message)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose requests are taken.

    Args:
        access_key_id, secret_access_key: The only key.
        region: Where the service is.
        number: The account's id, as it stands in ARNs.
    """

    access_key_id: str
    secret_access_key: str
    region: str
    number: str = "123456789012"

    def arn(self, kind: str, name: str) -> str:
        """The ARN of something in SageMaker."""
        return f"arn:aws:sagemaker:{self.region}:{self.number}:{kind}/{name}"


def verify(request: Request, body: bytes, account: Account, service: str) -> None:
    """Check the signature by computing it with botocore's own signer.

    Raises:
        Refused: No signature, an unknown key, another scope, a wrong signature, or one that has expired.
    """
    header = request.headers.get("authorization")
    if header is None:
        raise Refused("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
    told = _AUTHORIZATION.fullmatch(header)
    if told is None:
        raise Refused("IncompleteSignatureException", "Authorization header is not a signature of version 4.", 403)
    if told["key"] != account.access_key_id:
        raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.", 403)
    date = request.headers.get("x-amz-date", "")
    scope_ok = (told["region"], told["service"], told["date"]) == (account.region, service, date[:8])
    if not scope_ok:
        raise Refused("InvalidSignatureException", f"Credential should be scoped to a valid region, '{service}'.", 403)
    try:
        age_s = abs(time.time() - timegm(time.strptime(date, "%Y%m%dT%H%M%SZ")))
    except ValueError:
        age_s = float("inf")
    if age_s > _SKEW_S:
        raise Refused("InvalidSignatureException", f"Signature expired: {date} is too far from the present.", 403)
    if not hmac.compare_digest(_signature(request, body, account, service, told["headers"], date), told["signature"]):
        raise Refused(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method.",
            403,
        )


def _signature(request: Request, body: bytes, account: Account, service: str, headers: str, date: str) -> str:
    path = request.scope.get("raw_path", request.url.path.encode()).decode("ascii").partition("?")[0]
    query = request.scope["query_string"].decode("ascii")
    url = f"http://{request.headers['host']}{path}" + (f"?{query}" if query else "")
    signed = {name: request.headers.get(name, "") for name in headers.split(";")}
    again = AWSRequest(request.method, url, headers=signed, data=body)
    again.context["timestamp"] = date
    signer = SigV4Auth(Credentials(account.access_key_id, account.secret_access_key), service, account.region)
    return str(signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again))


def parsed(body: bytes, model: Any) -> dict[str, Any]:
    """A JSON request, checked against the operation's input shape.

    Raises:
        Refused: It is no JSON, or breaks the shape: unknown or missing members, types, lengths, patterns, enumerations.
    """
    try:
        said = json.loads(body or b"{}")
    except ValueError as error:
        raise Refused("SerializationException", "The request is no JSON.") from error
    report = ParamValidator().validate(said, model.input_shape)
    wrong = [report.generate_report()] if report.has_errors() else list(_broken(model.input_shape, said, ""))
    if wrong:
        plural = "error" if len(wrong) == 1 else "errors"
        raise invalid(f"{len(wrong)} validation {plural} detected: {'; '.join(wrong)}")
    return said


def _broken(shape: Any, value: Any, place: str) -> Iterator[str]:
    """Patterns, enumerations and greatest lengths, which botocore leaves to the service."""
    match shape.type_name:
        case "structure":
            for name, inner in value.items():
                yield from _broken(shape.members[name], inner, f"{place}.{_camel(name)}" if place else _camel(name))
        case "list":
            for number, inner in enumerate(value, 1):
                yield from _broken(shape.member, inner, f"{place}.{number}.member")
        case "map":
            for name, inner in value.items():
                yield from _broken(shape.key, name, f"{place}.key")
                yield from _broken(shape.value, inner, f"{place}.{name}.member")
        case "string":
            yield from _broken_text(shape, value, place)
        case _:
            return


def _broken_text(shape: Any, value: str, place: str) -> Iterator[str]:
    told = f"Value '{value}' at '{place}' failed to satisfy constraint: Member must"
    pattern, longest = shape.metadata.get("pattern"), shape.metadata.get("max")
    if shape.enum and value not in shape.enum:
        yield f"{told} satisfy enum value set: [{', '.join(shape.enum)}]"
    # Python's expressions know no Unicode classes.
    if pattern is not None and r"\p{" not in pattern and not re.fullmatch(pattern, value):
        yield f"{told} satisfy regular expression pattern: {pattern}"
    if longest is not None and len(value) > longest:
        yield f"{told} have length less than or equal to {longest}"


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


_UNTIL_LATER: Mapping[str, Mapping[str, Any]] = {
    # Required by the model. A job that has written no artifact has none to name, and clients must do without.
    "DescribeTrainingJobResponse": {"ModelArtifacts": {"S3ModelArtifacts": "s3://later/"}},
}


class NotOfficial(Exception):
    """The double would have said something that the service's model does not have: a defect of the double."""


def official(shape: Any, value: Any, place: str = "") -> Any:
    """A value as the official shape has it; members that are None are absent.

    Raises:
        NotOfficial: A member is unknown or missing, a type is another, or a text breaks its pattern or enumeration.
    """
    told = _present(shape, value, place)
    report = ParamValidator().validate({**_UNTIL_LATER.get(shape.name, {}), **told}, shape)
    wrong = [report.generate_report()] if report.has_errors() else list(_broken(shape, told, ""))
    if wrong:
        raise NotOfficial(f"{shape.name}: {'; '.join(wrong)}")
    return told


def _present(shape: Any, value: Any, place: str) -> Any:
    match shape.type_name:
        case "structure":
            unknown = sorted(set(value) - set(shape.members))
            if unknown:
                raise NotOfficial(f"{shape.name}{place} has no {', '.join(unknown)}")
            return {
                name: _present(shape.members[name], inner, f"{place}.{name}")
                for name, inner in value.items()
                if inner is not None
            }
        case "list":
            return [_present(shape.member, inner, f"{place}[]") for inner in value]
        case "map":
            return {name: _present(shape.value, inner, f"{place}.{name}") for name, inner in value.items()}
        case _:
            return value


def answered(model: Any, result: Mapping[str, Any]) -> Response:
    """The answer to an operation of the JSON protocol."""
    body = json.dumps(official(model.output_shape, result)) if model.output_shape is not None else ""
    return _answer(body, 200, {})


def _answer(body: str, status: int, headers: Mapping[str, str]) -> Response:
    request_id = {"x-amzn-RequestId": str(uuid.uuid4())}
    return Response(body, status, headers={**request_id, **headers}, media_type=_JSON)
