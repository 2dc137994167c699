"""Refusals in the shape that Google's APIs give them (https://cloud.google.com/apis/design/errors)."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

_STATUS = {
    "INVALID_ARGUMENT": (400, 3),
    "FAILED_PRECONDITION": (400, 9),
    "UNAUTHENTICATED": (401, 16),
    "PERMISSION_DENIED": (403, 7),
    "NOT_FOUND": (404, 5),
    "ALREADY_EXISTS": (409, 6),
    "ABORTED": (409, 10),
    "RESOURCE_EXHAUSTED": (429, 8),
    "CANCELLED": (499, 1),
    "INTERNAL": (500, 13),
    "UNIMPLEMENTED": (501, 12),
    "UNAVAILABLE": (503, 14),
}


class Refused(Exception):
    """A request, or the work of an operation, that ends with an error.

    Args:
        status: Name of a `google.rpc.Code`.
        message: The sentence for people.
        http_status: Where it is not the one that belongs to `status`.
    """

    def __init__(self, status: str, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self._http_status = http_status or _STATUS[status][0]

    def as_response(self) -> Response:
        """The answer to a request."""
        error = {"code": self._http_status, "message": self.message, "status": self.status}
        return JSONResponse({"error": error}, self._http_status)

    def as_status(self) -> dict[str, Any]:
        """A `google.rpc.Status`, as operations and jobs bear it."""
        return {"code": _STATUS[self.status][1], "message": self.message}


def invalid(message: str) -> Refused:
    """400: the request makes no sense."""
    return Refused("INVALID_ARGUMENT", message)


def not_found(name: str) -> Refused:
    """404: no such resource."""
    return Refused("NOT_FOUND", f"Resource {name} is not found.")


def missing_fields(*fields: str) -> Refused:
    """400: what the service requires is not there."""
    found = " ".join(f"{i}.Field: {field}; Message: Required field is not set." for i, field in enumerate(fields, 1))
    return invalid(f"List of found errors:\t{found}\t")
