"""The application: who may ask, which method of the API is meant, how it is answered."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.local.faults import FaultTable, WireFaults
from deployments.local.object_access import CloudStorageAccess
from deployments.local.vertex_ai.endpoints import Endpoints
from deployments.local.vertex_ai.errors import Refused, invalid, not_found
from deployments.local.vertex_ai.jobs import Jobs
from deployments.local.vertex_ai.logs import list_entries
from deployments.local.vertex_ai.models import Models
from deployments.local.vertex_ai.quotas import PERMISSION as QUOTAS_PERMISSION
from deployments.local.vertex_ai.quotas import list_quotas, quotas_path
from deployments.local.vertex_ai.resources import Registry
from deployments.local.vertex_ai.schema import numbered, official

_LARGEST_BODY_BYTES = 10 * 1024 * 1024
# Google's clients poll operations below /ui.
_PATH = re.compile(
    r"/(?P<version>v1|ui)/projects/(?P<project>[^/:]+)/locations/(?P<location>[^/:]+)/(?P<rest>[^:]+)(?::(?P<verb>\w+))?"
)
_TEST = re.compile(r"/v1/projects/(?P<project>[^/:]+)(?:/serviceAccounts/[^/:]+)?:testIamPermissions")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, taken apart.

    Args:
        name: The resource or collection, from `projects/` on.
        body: Its JSON; None without one.
        query: Its query.
    """

    name: str
    body: Any
    query: Mapping[str, str]


class VertexAI:
    """The double of one project in one region.

    Args:
        project: The project's id.
        location: The region.
        token: The only bearer token that is accepted.
        objects: The project's object store.
        root: Directory for jobs and models; emptied.
    """

    def __init__(self, project: str, location: str, token: str, objects: CloudStorageAccess, root: Path) -> None:
        self._project, self._location, self._token = project, location, token
        self._faults = FaultTable()
        self._registry = Registry(project, location)
        self._jobs = Jobs(self._registry, self._faults, objects, root / "jobs")
        self._models = Models(self._registry, objects, root / "models")
        self._endpoints = Endpoints(self._registry, self._models, self._faults, root / "endpoints")
        jobs, models, endpoints = self._jobs, self._models, self._endpoints
        # Method, collection, whether one of it is meant, verb; the answer's message; what answers.
        self._methods: dict[tuple[str, str, bool, str], tuple[str, Callable[[Call], Any]]] = {
            ("POST", "customJobs", False, ""): ("CustomJob", lambda call: jobs.create(call.body)),
            ("GET", "customJobs", False, ""): ("ListCustomJobsResponse", lambda call: jobs.list(call.query)),
            ("GET", "customJobs", True, ""): ("CustomJob", lambda call: self._registry.get(call.name)),
            ("POST", "customJobs", True, "cancel"): ("", lambda call: jobs.cancel(call.name)),
            ("DELETE", "customJobs", True, ""): ("", lambda call: jobs.delete(call.name)),
            ("POST", "models", False, "upload"): ("", lambda call: models.upload(call.body)),
            ("GET", "models", False, ""): ("ListModelsResponse", lambda call: models.list(call.query)),
            ("GET", "models", True, ""): ("Model", lambda call: models.get(call.name)),
            ("GET", "models", True, "listVersions"): (
                "ListModelVersionsResponse",
                lambda call: models.list_versions(call.name),
            ),
            ("DELETE", "models", True, ""): ("", lambda call: models.delete(call.name, endpoints.deployed_models())),
            ("POST", "endpoints", False, ""): (
                "",
                lambda call: endpoints.create(call.body, call.query.get("endpointId", "")),
            ),
            ("GET", "endpoints", False, ""): ("ListEndpointsResponse", lambda call: endpoints.list(call.query)),
            ("GET", "endpoints", True, ""): ("Endpoint", lambda call: self._registry.get(call.name)),
            ("PATCH", "endpoints", True, ""): (
                "Endpoint",
                lambda call: endpoints.patch(call.name, call.body, call.query.get("updateMask", "")),
            ),
            ("DELETE", "endpoints", True, ""): ("", lambda call: endpoints.delete(call.name)),
            ("POST", "endpoints", True, "deployModel"): ("", lambda call: endpoints.deploy(call.name, call.body)),
            ("POST", "endpoints", True, "undeployModel"): ("", lambda call: endpoints.undeploy(call.name, call.body)),
        }

    def app(self) -> Any:
        """The ASGI application, with the faults around it."""
        routes = [
            Route("/ready", lambda _: Response("\n")),
            Route("/{path:path}", self._handle, methods=["GET", "POST", "PATCH", "DELETE"]),
        ]
        return WireFaults(Starlette(routes=routes, lifespan=self._running), self._faults)

    @contextlib.asynccontextmanager
    async def _running(self, _: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._jobs.close()
            await self._endpoints.close()
            await self._registry.close()

    async def _handle(self, request: Request) -> Response:
        try:
            self._authorise(request)
            self._meet_faults(request)
            return await self._answer(request)
        except Refused as refused:
            return refused.as_response()

    async def _answer(self, request: Request) -> Response:
        if request.url.path == "/v2/entries:list" and request.method == "POST":
            return JSONResponse(list_entries(self._jobs, self._project, await _json(request)))
        if request.method == "POST" and (tested := _TEST.fullmatch(request.url.path)) is not None:
            return self._test_permissions(tested["project"], await _json(request))
        if request.method == "GET" and request.url.path == quotas_path(self._project):
            return JSONResponse(self._quotas(request.query_params))
        if request.method == "GET" and request.url.path == f"/v1/{self._registry.parent}":
            return JSONResponse({"name": self._registry.parent, "locationId": self._location})
        found = _PATH.fullmatch(request.url.path)
        if found is None:
            raise not_found(request.url.path)
        self._require_place(found["project"], found["location"])
        name = f"{self._registry.parent}/{found['rest']}"
        if found["version"] == "ui" and "/operations/" not in name:
            raise not_found(request.url.path)
        if "/operations/" in name:
            return await self._operation(request.method, name, found["verb"] or "")
        collection, *rest = found["rest"].split("/")
        verb = found["verb"] or ""
        if collection == "endpoints" and len(rest) == 1 and request.method == "POST":
            if verb == "rawPredict":
                content_type = request.headers.get("content-type", "application/json")
                return await self._endpoints.raw_predict(name, await _body(request), content_type)
            if verb == "predict":
                return JSONResponse(await self._endpoints.predict(name, await _json(request)))
        method = self._methods.get((request.method, collection, len(rest) == 1, verb))
        if method is None or len(rest) > 1:
            raise Refused("UNIMPLEMENTED", f"The local double of Vertex AI does not imitate {request.url.path}.")
        message, answer = method
        body = await _json(request) if request.method in ("POST", "PATCH") else None
        found_answer = answer(Call(name, body, request.query_params))
        if message:
            official(message, found_answer)
        as_numbers = "enum-encoding=int" in request.query_params.get("$alt", "")
        return JSONResponse(numbered(message, found_answer) if message and as_numbers else found_answer)

    async def _operation(self, method: str, name: str, verb: str) -> Response:
        if (method, verb) == ("GET", ""):
            return JSONResponse(self._registry.operation(name))
        if (method, verb) == ("POST", "cancel"):
            await self._registry.cancel(name)
            return JSONResponse({})
        raise Refused("UNIMPLEMENTED", "The local double of Vertex AI reads and cancels operations only.")

    def _test_permissions(self, project: str, body: Any) -> Response:
        """Resource Manager's and IAM's `testIamPermissions`: the caller may do everything that no `deny` takes away."""
        asked = body.get("permissions") if isinstance(body, dict) else None
        if not isinstance(asked, list) or not asked:
            raise invalid("Permissions are required.")
        # IAM takes '-' for whatever project an account is of.
        if project not in (self._project, "-"):
            raise Refused("PERMISSION_DENIED", "The caller does not have permission")
        held = [each for each in asked if self._faults.take("deny", operation=str(each)) is None]
        return JSONResponse({"permissions": held} if held else {})

    def _quotas(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Service Usage's list of quotas; with the fault `quota` every limit is 0."""
        if self._faults.take("deny", operation=QUOTAS_PERMISSION) is not None:
            words = f"Permission denied to list quota metrics for project [{self._project}]"
            raise Refused("PERMISSION_DENIED", words)
        used_up = self._faults.take("quota", operation="consumerQuotaMetrics.list") is not None
        return list_quotas(self._project, self._location, query, used_up=used_up)

    def _meet_faults(self, request: Request) -> None:
        operation, target = f"{request.method} {request.url.path}", request.url.path
        if self._faults.take("deny", operation=operation, target=target) is not None:
            words = f"Permission denied on resource '/{target}' (or it may not exist)."
            raise Refused("PERMISSION_DENIED", words)
        if self._faults.take("throttle", operation=operation, target=target) is not None:
            raise Refused(
                "RESOURCE_EXHAUSTED",
                "Quota exceeded for quota metric 'Resource management (CRUD) requests' and limit 'Resource management "
                "(CRUD) requests per minute per region' of service 'aiplatform.googleapis.com'.",
            )
        fault = self._faults.take("error", operation=operation, target=target)
        if fault is not None:
            status = "UNAVAILABLE" if fault.status == 503 else "INTERNAL"
            raise Refused(status, "Internal error encountered.", http_status=fault.status)

    def _authorise(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise Refused(
                "UNAUTHENTICATED",
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
                "valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-"
                "project.",
            )

    def _require_place(self, project: str, location: str) -> None:
        if project != self._project:
            place = f"//aiplatform.googleapis.com/projects/{project}/locations/{location}"
            permission = "aiplatform.locations.get"
            raise Refused(
                "PERMISSION_DENIED", f"Permission '{permission}' denied on resource '{place}' (or it may not exist)."
            )
        if location != self._location:
            raise invalid(f"The double serves the region {self._location}, not {location}.")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _LARGEST_BODY_BYTES:
            raise invalid("Request payload size exceeds the limit.")
    return bytes(body)


async def _json(request: Request) -> Any:
    content = await _body(request)
    try:
        return json.loads(content) if content else {}
    except ValueError as error:
        raise invalid("Invalid JSON payload received. Unexpected token.") from error
