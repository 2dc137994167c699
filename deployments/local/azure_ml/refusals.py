"""Refusals in the shape of Azure Resource Manager.

https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """A request, or a long-running operation, that ends with an error.

    Args:
        status: HTTP status; an operation's own status is always 200, and this is not shown.
        code: The service's code.
        message: The sentence for people.
        headers: Further headers.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def as_error(self) -> dict[str, object]:
        """The value of `error` in an answer."""
        return {"code": self.code, "message": self.message, "details": [], "additionalInfo": []}

    def as_response(self) -> Response:
        """The answer."""
        return JSONResponse({"error": self.as_error()}, self.status, self.headers)


def not_found(kind: str, name: str) -> Refused:
    """404: no such resource."""
    return Refused(404, "ResourceNotFound", f"The {kind} '{name}' was not found.")


def invalid(message: str) -> Refused:
    """400: the request makes no sense."""
    return Refused(400, "UserError", message)


def out_of_quota() -> Refused:
    """A deployment finds no machine."""
    return Refused(
        400,
        "OutOfQuota",
        "Not enough quota available: due to a lack of capacity in the region, the service failed "
        "to provision the specified VM size.",
    )
