"""Refusals in the shapes that Cloud Storage gives them: JSON for the JSON API, XML for the XML API.

Sources: Cloud Storage documentation, "HTTP status and error codes" for JSON and for XML.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from starlette.responses import JSONResponse, Response

_XML_CODES = {
    "authError": "AuthenticationRequired",
    "required": "AuthenticationRequired",
    "invalid": "InvalidArgument",
    "badDigest": "BadDigest",
    "notFound": "NoSuchKey",
    "bucketNotFound": "NoSuchBucket",
    "uploadNotFound": "NoSuchUpload",
    "conflict": "BucketAlreadyOwnedByYou",
    "bucketNotEmpty": "BucketNotEmpty",
    "conditionNotMet": "PreconditionFailed",
    "requestedRangeNotSatisfiable": "InvalidRange",
    "invalidPart": "InvalidPart",
    "invalidPartOrder": "InvalidPartOrder",
    "entityTooSmall": "EntityTooSmall",
    "malformedXml": "MalformedCompleteMultipartUpload",
    "incompleteBody": "IncompleteBody",
    "notImplemented": "NotImplemented",
    "insufficientStorage": "InternalError",
    "rateLimitExceeded": "SlowDown",
    "forbidden": "AccessDenied",
    "backendError": "InternalError",
}
_JSON_REASONS = {
    "badDigest": "invalid",
    "bucketNotFound": "notFound",
    "uploadNotFound": "notFound",
    "bucketNotEmpty": "conflict",
    "incompleteBody": "badRequest",
    "insufficientStorage": "backendError",
}


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        reason: Why, in the JSON API's words, or one of the finer words that the tables above translate.
        message: The sentence for people.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    def as_json(self) -> Response:
        """The answer of the JSON API."""
        if self.status == 304:
            return Response(status_code=304)
        reason = _JSON_REASONS.get(self.reason, self.reason)
        detail = {"message": self.message, "domain": "global", "reason": reason}
        if self.status == 401:
            detail |= {"locationType": "header", "location": "Authorization"}
        body = {"error": {"code": self.status, "message": self.message, "errors": [detail]}}
        return JSONResponse(body, self.status, headers=self._headers())

    def as_xml(self) -> Response:
        """The answer of the XML API."""
        if self.status == 304:
            return Response(status_code=304)
        code = _XML_CODES.get(self.reason, "InternalError")
        error = f"<Error><Code>{code}</Code><Message>{escape(self.message)}</Message></Error>"
        body = f"<?xml version='1.0' encoding='UTF-8'?>{error}"
        return Response(body, self.status, headers=self._headers(), media_type="application/xml; charset=UTF-8")

    def _headers(self) -> dict[str, str]:
        if self.status != 401:
            return {}
        return {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="invalid_token"'}


def invalid(message: str) -> Refused:
    """400: the request makes no sense."""
    return Refused(400, "invalid", message)


def not_imitated(what: str) -> Refused:
    """501: the service does this and the double does not."""
    return Refused(501, "notImplemented", f"The local double of Cloud Storage does not imitate {what}.")


def condition_not_met() -> Refused:
    """412: a precondition does not hold."""
    return Refused(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")


def no_bucket() -> Refused:
    """404: no such bucket."""
    return Refused(404, "bucketNotFound", "The specified bucket does not exist.")


def no_object(bucket: str, name: str) -> Refused:
    """404: no such object, or no such generation of it."""
    return Refused(404, "notFound", f"No such object: {bucket}/{name}")
