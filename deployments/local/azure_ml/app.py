"""The double as an ASGI application: who may ask, which resource is meant, how a refusal is told."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.local.azure_ml.assets import Assets
from deployments.local.azure_ml.endpoints import OnlineEndpoints
from deployments.local.azure_ml.jobs import Jobs
from deployments.local.azure_ml.operations import Operations
from deployments.local.azure_ml.refusals import Refused, not_found
from deployments.local.azure_ml.resources import resource
from deployments.local.azure_ml.storage import Storage
from deployments.local.faults import FaultTable

_PROVIDER = "Microsoft.MachineLearningServices"
_CHALLENGE = {"www-authenticate": 'Bearer authorization_uri="https://login.microsoftonline.com/common"'}
_METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]


class AzureML:
    """One workspace.

    Args:
        workspace: Its id: `/subscriptions/S/resourceGroups/G/providers/Microsoft.MachineLearningServices/workspaces/W`.
        region: Where it is.
        token: The only bearer token that is accepted.
        data: Directory for jobs and models; emptied by whoever starts the double.
        storage: The workspace's storage account.
        faults: What shall go wrong.
    """

    def __init__(
        self, workspace: str, region: str, token: str, data: Path, storage: Storage, faults: FaultTable
    ) -> None:
        self._workspace, self._region, self._token, self._faults = workspace, region, token, faults
        self._storage = storage
        self._locations = f"{workspace.partition('/resourceGroups/')[0]}/providers/{_PROVIDER}/locations/{region}"
        self._operations = Operations(self._locations)
        self._assets = Assets(workspace, storage)
        self._jobs = Jobs(workspace, data / "jobs", storage, self._operations, faults)
        self._endpoints = OnlineEndpoints(
            workspace, data / "endpoints", storage, self._assets, self._operations, faults
        )

    def app(self) -> Starlette:
        """The application."""

        @contextlib.asynccontextmanager
        async def running(_: Starlette) -> AsyncIterator[None]:
            yield
            await self._jobs.close()
            await self._endpoints.close()
            await self._operations.close()

        return Starlette(
            lifespan=running,
            routes=[
                Route("/logs/{job}", self._log),
                Route("/discovery", self._discovery),
                Route("/history/v1.0/{rest:path}", self._history),
                Route("/inference/{endpoint}/score", self._score, methods=["POST"]),
                Route("/{rest:path}", self._arm, methods=_METHODS),
            ],
            exception_handlers={Refused: _refuse},
        )

    async def _log(self, request: Request) -> Response:
        # The URL of a log is itself the permission to read it, as a blob's with a signature is.
        secret, span = request.query_params.get("sig", ""), request.headers.get("range", "")
        return self._jobs.log(request.path_params["job"], secret, span)

    async def _discovery(self, request: Request) -> Response:
        base = _base(request)
        return JSONResponse({"api": base, "history": base, "experimentation": base})

    async def _history(self, request: Request) -> Response:
        self._authorise(request)
        self._require_permission(f"{_PROVIDER}/workspaces/experiments/runs/read")
        place = f"/history/v1.0{self._workspace}/runs/"
        run, _, what = request.url.path.removeprefix(place).partition("/")
        if not request.url.path.startswith(place) or what != "details":
            raise not_found("path", request.url.path)
        return self._jobs.details(run, _base(request))

    async def _score(self, request: Request) -> Response:
        name = request.path_params["endpoint"]
        self._authorise(request)
        self._require_permission(f"{_PROVIDER}/workspaces/onlineEndpoints/score/action")
        if self._faults.take("throttle", operation="score", target=name):
            return Response(status_code=429, headers={"retry-after": "1"})
        if fault := self._faults.take("error", operation="score", target=name):
            return Response(status_code=fault.status)
        return await self._endpoints.score(name, request)

    async def _arm(self, request: Request) -> Response:
        self._authorise(request)
        path = request.url.path.rstrip("/")
        operation = f"{request.method} {path.removeprefix(self._workspace).strip('/')}"
        if self._faults.take("throttle", operation=operation, target=path.rpartition("/")[2]):
            raise Refused(429, "TooManyRequests", "The request is being throttled.", {"retry-after": "1"})
        if fault := self._faults.take("error", operation=operation, target=path.rpartition("/")[2]):
            raise Refused(fault.status, "InternalServerError", "Received an internal server error.")
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(-preview)?", request.query_params.get("api-version", "")):
            raise Refused(
                400, "MissingApiVersionParameter", "The api-version query parameter is required for all requests."
            )
        if path == f"{self._locations}/usages":
            raise Refused(501, "NotImplemented", "The local double does not imitate quotas.")
        if path.startswith(f"{self._locations}/"):
            kind, _, name = path.removeprefix(f"{self._locations}/").partition("/")
            return self._operations.answer(kind, name)
        if path != self._workspace and not path.startswith(f"{self._workspace}/"):
            raise not_found("Resource", path)
        self._require_permission(action_of(request.method, path.removeprefix(self._workspace).strip("/")))
        body = await _body(request)
        return self._resource(request.method, path.removeprefix(self._workspace).strip("/"), body, _base(request))

    def _resource(self, method: str, path: str, body: Any, base: str) -> Response:
        jobs, endpoints, assets = self._jobs, self._endpoints, self._assets
        match method, *path.split("/"):
            case "GET", "":
                return JSONResponse(self._described(base))
            case "GET", "providers", "Microsoft.Authorization", "permissions":
                return JSONResponse(self._permissions())
            case "GET", "datastores", "workspaceblobstore":
                return JSONResponse(self._datastore())
            case "GET", "jobs":
                return jobs.list()
            case "GET", "jobs", name:
                return jobs.get(name)
            case "PUT", "jobs", name:
                return jobs.put(name, body, base)
            case "POST", "jobs", name, "cancel":
                return jobs.cancel(name, base)
            case "GET", "models" | "environments" as kind, name, "versions":
                return assets.list(kind, name)
            case "GET", "models" | "environments" as kind, name, "versions", version:
                return assets.get(kind, name, version)
            case "PUT", "models" | "environments" as kind, name, "versions", version:
                return assets.put(kind, name, version, body)
            case "GET", "onlineEndpoints":
                return endpoints.list()
            case "GET", "onlineEndpoints", name:
                return endpoints.get(name)
            case "PUT", "onlineEndpoints", name:
                return endpoints.put(name, body, base)
            case "DELETE", "onlineEndpoints", name:
                return endpoints.delete(name, base)
            case "GET", "onlineEndpoints", name, "deployments":
                return endpoints.list_deployments(name)
            case "GET", "onlineEndpoints", name, "deployments", deployment:
                return endpoints.get_deployment(name, deployment)
            case "PUT", "onlineEndpoints", name, "deployments", deployment:
                return endpoints.put_deployment(name, deployment, body, base)
            case "DELETE", "onlineEndpoints", name, "deployments", deployment:
                return endpoints.delete_deployment(name, deployment, base)
            case "POST", "onlineEndpoints", name, "deployments", deployment, "getLogs":
                return endpoints.logs(name, deployment)
            case _:
                raise Refused(501, "NotImplemented", f"The local double does not imitate {method} {path}.")

    def _described(self, base: str) -> dict[str, Any]:
        facts = {
            "provisioningState": "Succeeded",
            "discoveryUrl": f"{base}/discovery",
            "publicNetworkAccess": "Enabled",
        }
        return {**resource(self._workspace, "", facts, location=self._region), "type": f"{_PROVIDER}/workspaces"}

    def _permissions(self) -> dict[str, Any]:
        """The one identity's effective permissions: everything but what the fault `deny` takes away."""
        denied = [fault.operation for fault in self._faults.faults if fault.kind == "deny"]
        return {"value": [{"actions": ["*"], "notActions": denied, "dataActions": [], "notDataActions": []}]}

    def _require_permission(self, action: str) -> None:
        if self._faults.take("deny", operation=action):
            raise Refused(
                403,
                "AuthorizationFailed",
                f"The client 'lintas' does not have authorization to perform action '{action}' over scope "
                f"'{self._workspace}' or the scope is invalid.",
            )

    def _datastore(self) -> dict[str, Any]:
        facts = {
            "datastoreType": "AzureBlob",
            "accountName": self._storage.account,
            "containerName": self._storage.default_container,
            "isDefault": True,
        }
        return resource(f"{self._workspace}/datastores/workspaceblobstore", "datastores", facts)

    def _authorise(self, request: Request) -> None:
        """Raises `Refused` (401) without the right bearer token."""
        header = request.headers.get("authorization")
        if header is None:
            raise Refused(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
                _CHALLENGE,
            )
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise Refused(401, "InvalidAuthenticationToken", "The access token is invalid.", _CHALLENGE)


def action_of(method: str, path: str) -> str:
    """The permission that a request needs: `Microsoft.MachineLearningServices/workspaces/jobs/cancel/action`.

    Anybody may ask for his own permissions, which are of no kind below the workspace.
    """
    if path.startswith("providers/"):
        return ""
    kinds = [kind for kind in path.split("/")[::2] if kind]
    verb = {"GET": "read", "DELETE": "delete", "POST": "action"}.get(method, "write")
    return "/".join((_PROVIDER, "workspaces", *kinds, verb))


def operation_of(scope: Any) -> str:
    """The name of a request's operation for the table of faults: `score`, or method and path below the workspace."""
    if scope["path"].startswith("/inference/"):
        return "score"
    return f"{scope['method']} {scope['path'].rpartition('/workspaces/')[2].partition('/')[2]}"


def target_of(scope: Any) -> str:
    """The name of the job or endpoint that a request is about."""
    found = re.search(r"/(?:jobs|runs|onlineEndpoints|inference|logs)/([^/]+)", scope["path"])
    return found.group(1) if found else str(scope["path"])


async def _body(request: Request) -> Any:
    content = await request.body()
    try:
        return json.loads(content) if content else None
    except ValueError as error:
        raise Refused(400, "InvalidRequestContent", "The request content was invalid and could not be read.") from error


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.as_response()
