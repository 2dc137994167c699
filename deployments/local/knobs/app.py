"""What stands in front of a server: everything passes, until the front's table says that something shall go wrong.

Refusals are in the words of the service that the server behind stands in for. Sources: Amazon S3 API reference, "Error
responses"; Amazon SQS API reference, "Common errors"; Azure Storage REST, "Common REST API error codes"; Cloud
Storage, "HTTP status and error codes"; Google Cloud API design guide, "Errors".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.local.cloud_storage.faults import Refused
from deployments.local.faults import (
    WIRE_KINDS,
    Application,
    Fault,
    FaultTable,
    Receive,
    Send,
    WireFaults,
    by_path,
    cut_off,
)
from deployments.local.knobs.process import Front
from deployments.local.passing import Behind
from deployments.local.vertex_ai.errors import Refused as GoogleRefused

REFUSALS = ("throttle", "deny", "error")
KINDS = (*REFUSALS, *WIRE_KINDS)
"""The kinds of faults that a server without compute can meet."""

_SAID = "The local twin was told to refuse this request."


def _s3(kind: str, fault: Fault, _path: str) -> Response:
    status, code = {"throttle": (503, "SlowDown"), "deny": (403, "AccessDenied")}.get(
        kind, (fault.status, "InternalError")
    )
    body = f"<Error><Code>{code}</Code><Message>{_SAID}</Message><RequestId>twin</RequestId></Error>"
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>{body}', status, media_type="application/xml")


def _azure_storage(kind: str, fault: Fault, _path: str) -> Response:
    status, code = {"throttle": (503, "ServerBusy"), "deny": (403, "AuthorizationPermissionMismatch")}.get(
        kind, (fault.status, "InternalError")
    )
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{_SAID}</Message></Error>'
    return Response(body, status, {"x-ms-error-code": code}, "application/xml")


def _sqs(kind: str, fault: Fault, _path: str) -> Response:
    status, code = {"throttle": (400, "ThrottlingException"), "deny": (400, "AccessDeniedException")}.get(
        kind, (fault.status, "InternalFailure")
    )
    return JSONResponse(
        {"__type": f"com.amazonaws.sqs#{code}", "message": _SAID}, status, media_type="application/x-amz-json-1.0"
    )


def _cloud_storage(kind: str, fault: Fault, path: str) -> Response:
    status, reason = {"throttle": (429, "rateLimitExceeded"), "deny": (403, "forbidden")}.get(
        kind, (fault.status, "backendError")
    )
    refused = Refused(status, reason, _SAID)
    return refused.as_json() if "/storage/v1" in path else refused.as_xml()


def _google_api(kind: str, _fault: Fault, _path: str) -> Response:
    status = {"throttle": "RESOURCE_EXHAUSTED", "deny": "PERMISSION_DENIED"}.get(kind, "INTERNAL")
    return GoogleRefused(status, _SAID).as_response()


DIALECTS: Mapping[str, Callable[[str, Fault, str], Response]] = {
    "s3": _s3,
    "sqs": _sqs,
    "cloud-storage": _cloud_storage,
    "google-api": _google_api,
    "azure-storage": _azure_storage,
}
"""How each kind of service refuses."""


class _Refusing:
    """Refuses what the table says, and passes on everything else."""

    def __init__(self, behind: Behind, table: FaultTable, refusal: Callable[[str, Fault, str], Response]) -> None:
        self._behind, self._table, self._refusal = behind, table, refusal

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        for kind in REFUSALS:
            fault = self._table.take(kind, operation=by_path(scope), target=str(scope["path"]))
            if fault is not None:
                # Whoever is refused in the middle of its body would see a broken pipe and not the refusal.
                async for _ in request.stream():
                    pass
                await self._refusal(kind, fault, str(scope["path"]))(scope, receive, send)
                return
        try:
            answer = await self._behind.answer(request)
        except httpx.TransportError:
            await cut_off(send)
            return
        await answer(scope, receive, send)


class Fronts:
    """All fronts as one application: the port that a request came in by says which is meant."""

    def __init__(self, fronts: Iterable[Front]) -> None:
        self._apps = {front.port: _app(front) for front in fronts}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let the front of the port answer."""
        await self._apps[scope["server"][1]](scope, receive, send)


def _app(front: Front) -> Application:
    table = FaultTable()
    return WireFaults(_Refusing(Behind(front.url), table, DIALECTS[front.dialect]), table, kinds=KINDS)
