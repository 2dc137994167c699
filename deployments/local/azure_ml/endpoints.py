"""Online endpoints and their deployments: the control plane, and who gets which share of the requests.

https://learn.microsoft.com/azure/machine-learning/concept-endpoints-online
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.local.azure_ml.assets import Assets
from deployments.local.azure_ml.operations import Operations
from deployments.local.azure_ml.refusals import Refused, invalid, not_found, out_of_quota
from deployments.local.azure_ml.resources import properties_of, resource
from deployments.local.azure_ml.storage import Storage
from deployments.local.compute import ModelRunner, log_lines
from deployments.local.faults import FaultTable
from tasks.core.errors import LintasError
from tasks.providers.onprem.scoring.fork_server import ScoringProcess

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")
_STEP_S = 0.05
_START_TIMEOUT_S = 60.0
_BUSY = ("Creating", "Updating", "Deleting")
_DEFAULTS = {
    "scaleSettings": {"scaleType": "Default"},
    "requestSettings": {"requestTimeout": "PT5S", "maxConcurrentRequestsPerInstance": 1, "maxQueueWait": "PT0.5S"},
    "appInsightsEnabled": False,
    "egressPublicNetworkAccess": "Enabled",
}
"""What the service fills in; the official client reads it back."""

_CRASHED = "User container has crashed or terminated. Please see troubleshooting guide, available here: aka.ms/oe-tsg"


@dataclass
class Deployment:
    """One deployment: its resource, its process, its files."""

    facts: dict[str, Any]
    directory: Path
    process: ScoringProcess | None = None

    @property
    def state(self) -> str:
        """Its provisioning state."""
        return str(self.facts["properties"]["provisioningState"])

    @state.setter
    def state(self, state: str) -> None:
        self.facts["properties"]["provisioningState"] = state


@dataclass
class OnlineEndpoint:
    """One endpoint: its resource and its deployments."""

    facts: dict[str, Any]
    deployments: dict[str, Deployment] = field(default_factory=dict[str, Deployment])

    @property
    def properties(self) -> dict[str, Any]:
        """Its resource's properties."""
        return self.facts["properties"]


class OnlineEndpoints:
    """The online endpoints of a workspace.

    Args:
        workspace: Its id.
        root: Directory for models and logs.
        storage: Where models come from.
        assets: Models and environments.
        operations: Long-running operations.
        faults: What shall go wrong.
    """

    def __init__(
        self,
        workspace: str,
        root: Path,
        storage: Storage,
        assets: Assets,
        operations: Operations,
        faults: FaultTable,
    ) -> None:
        self._workspace, self._root = workspace, root
        self._storage, self._assets = storage, assets
        self._operations, self._faults = operations, faults
        self._models = ModelRunner(root)
        self._endpoints: dict[str, OnlineEndpoint] = {}

    def list(self) -> Response:
        """All endpoints."""
        return JSONResponse({"value": [endpoint.facts for endpoint in self._endpoints.values()]})

    def get(self, name: str) -> Response:
        """An endpoint's resource."""
        return JSONResponse(self._named(name).facts)

    def put(self, name: str, body: Any, base: str) -> Response:
        """Create an endpoint, or change its traffic."""
        if not _NAME.fullmatch(name):
            raise invalid("The endpoint name must be 3 to 32 letters, digits and '-', and begin with a letter.")
        properties = properties_of(body, "onlineEndpoints", "authMode")
        if not body.get("location"):
            raise Refused(400, "LocationRequired", "The location property is required for this definition.")
        endpoint = self._endpoints.get(name)
        traffic, mirrored = properties.get("traffic") or {}, properties.get("mirrorTraffic") or {}
        _check_shares(endpoint, traffic, mirrored)
        if endpoint is not None and endpoint.properties["provisioningState"] in _BUSY:
            raise Refused(409, "ConflictingOperation", f"The endpoint '{name}' is busy with another operation.")
        path = f"{self._workspace}/onlineEndpoints/{name}"
        new = endpoint is None
        facts = resource(
            path,
            "onlineEndpoints",
            {
                **properties,
                "traffic": {} if endpoint is None else endpoint.properties["traffic"],
                "mirrorTraffic": {} if endpoint is None else endpoint.properties["mirrorTraffic"],
                "scoringUri": f"{base}/inference/{name}/score",
                "provisioningState": "Creating" if new else "Updating",
            },
            location=body["location"],
            tags=body.get("tags") or {},
            identity={"type": "SystemAssigned"},
        )
        if endpoint is None:
            endpoint = self._endpoints[name] = OnlineEndpoint(facts)
        endpoint.facts = facts
        headers = self._operations.begin(base, self._settle(endpoint, traffic, mirrored))
        return JSONResponse(facts, 201 if new else 200, headers)

    def delete(self, name: str, base: str) -> Response:
        """Remove an endpoint with its deployments."""
        if name not in self._endpoints:
            return Response(status_code=204)
        endpoint = self._endpoints[name]
        endpoint.properties["provisioningState"] = "Deleting"
        return Response(status_code=202, headers=self._operations.begin(base, self._remove(name, endpoint)))

    def list_deployments(self, name: str) -> Response:
        """All deployments of an endpoint."""
        return JSONResponse({"value": [each.facts for each in self._named(name).deployments.values()]})

    def get_deployment(self, name: str, deployment: str) -> Response:
        """A deployment's resource."""
        return JSONResponse(self._deployment(name, deployment).facts)

    def put_deployment(self, name: str, deployment: str, body: Any, base: str) -> Response:
        """Create or update a deployment."""
        endpoint = self._named(name)
        if not _NAME.fullmatch(deployment):
            raise invalid("The deployment name must be 3 to 32 letters, digits and '-', and begin with a letter.")
        properties = properties_of(body, "deployments", "endpointComputeType", "model", "instanceType")
        if not (body.get("sku") or {}).get("capacity"):
            raise Refused(400, "ValidationError", "The sku with its capacity is required.")
        before = endpoint.deployments.get(deployment)
        if endpoint.properties["provisioningState"] == "Creating":
            raise Refused(409, "ConflictingOperation", f"The endpoint '{name}' is still being created.")
        if before is not None and before.state in _BUSY:
            raise Refused(409, "ConflictingOperation", f"The deployment '{deployment}' is busy.")
        if before is not None and before.state == "Failed":
            raise invalid(
                f"Specified deployment [{deployment}] failed during initial provisioning and is in an unrecoverable "
                "state. Delete and re-create."
            )
        self._assets.named(properties["model"])
        if properties.get("environmentId", "").startswith(self._workspace):
            self._assets.named(properties["environmentId"])
        path = f"{self._workspace}/onlineEndpoints/{name}/deployments/{deployment}"
        facts = resource(
            path,
            "onlineEndpoints/deployments",
            {**_DEFAULTS, **properties, "provisioningState": "Creating" if before is None else "Updating"},
            location=body.get("location"),
            tags=body.get("tags") or {},
            sku=body["sku"],
        )
        made = Deployment(facts, self._root / name / uuid.uuid4().hex)
        if before is not None:
            made.process = before.process
        endpoint.deployments[deployment] = made
        headers = self._operations.begin(base, self._provision(name, made))
        return JSONResponse(facts, 201 if before is None else 200, headers)

    def delete_deployment(self, name: str, deployment: str, base: str) -> Response:
        """Remove a deployment that gets no traffic."""
        endpoint = self._named(name)
        if deployment not in endpoint.deployments:
            return Response(status_code=204)
        if endpoint.properties["traffic"].get(deployment):
            raise invalid(f"Deployment {deployment} cannot be deleted: it has traffic assigned. Set it to 0 first.")
        made = endpoint.deployments[deployment]
        made.state = "Deleting"
        return Response(
            status_code=202, headers=self._operations.begin(base, self._remove_deployment(endpoint, deployment, made))
        )

    def logs(self, name: str, deployment: str) -> Response:
        """What a deployment's container wrote."""
        lines = log_lines(self._deployment(name, deployment).directory / "log", ended=True)
        return JSONResponse({"content": "\n".join(lines)})

    async def score(self, name: str, request: Request) -> Response:
        """Hand a request to one deployment, by the shares or by the header that names one."""
        endpoint = self._endpoints.get(name)
        shares: dict[str, int] = endpoint.properties["traffic"] if endpoint is not None else {}
        named = request.headers.get("azureml-model-deployment")
        if endpoint is None or (named or "") not in {"", *endpoint.deployments} or not (named or sum(shares.values())):
            return Response(status_code=404)
        chosen = named or random.choices(list(shares), list(shares.values()))[0]  # noqa: S311
        body, kind = await request.body(), request.headers.get("content-type", "application/json")
        mirrored: dict[str, int] = endpoint.properties["mirrorTraffic"]
        for other, percent in mirrored.items():
            if random.random() * 100 < percent:  # noqa: S311
                self._operations.keep(self._mirror(endpoint.deployments[other], body, kind))
        return await self._ask(chosen, endpoint.deployments[chosen], body, kind)

    async def close(self) -> None:
        """End all processes."""
        await self._models.close()

    def _named(self, name: str) -> OnlineEndpoint:
        if name not in self._endpoints:
            raise not_found("endpoint", name)
        return self._endpoints[name]

    def _deployment(self, name: str, deployment: str) -> Deployment:
        found = self._named(name).deployments.get(deployment)
        if found is None:
            raise not_found("deployment", deployment)
        return found

    async def _settle(self, endpoint: OnlineEndpoint, traffic: dict[str, int], mirrored: dict[str, int]) -> None:
        await asyncio.sleep(_STEP_S)
        if endpoint.properties["provisioningState"] != "Deleting":
            endpoint.properties.update(traffic=traffic, mirrorTraffic=mirrored, provisioningState="Succeeded")

    async def _provision(self, name: str, made: Deployment) -> None:
        if slow := self._faults.take("slow_start", operation="PUT deployments", target=name):
            await asyncio.sleep(slow.delay_s)
        before = made.process
        try:
            for kind in ("stockout", "quota"):
                if self._faults.take(kind, operation="PUT deployments", target=name):
                    raise out_of_quota()
            process = await self._start(name, made)
        except (Refused, LintasError) as error:
            made.state = "Failed"
            if isinstance(error, Refused):
                raise
            raise Refused(400, "ResourceNotReady", _CRASHED) from error
        if made.state == "Deleting":
            await self._models.retire(process)
            return
        made.process, made.state = process, "Succeeded"
        if before is not None:
            await self._models.retire(before)

    async def _start(self, name: str, made: Deployment) -> ScoringProcess:
        model = self._assets.named(made.facts["properties"]["model"])
        files = made.directory / "model"
        await self._storage.download(model["properties"]["modelUri"], files)
        found = (
            files if (files / "MLmodel").is_file() else next((each.parent for each in files.glob("*/MLmodel")), None)
        )
        if found is None or self._faults.take("unhealthy", operation="PUT deployments", target=name):
            raise Refused(400, "ResourceNotReady", _CRASHED)
        process = await self._models.start(found, made.directory / "log")
        if await self._models.ping(process, _START_TIMEOUT_S) is not None:
            await self._models.retire(process, timeout_s=1.0)
            raise Refused(400, "ResourceNotReady", _CRASHED)
        return process

    async def _remove(self, name: str, endpoint: OnlineEndpoint) -> None:
        for deployment, made in list(endpoint.deployments.items()):
            await self._remove_deployment(endpoint, deployment, made)
        self._endpoints.pop(name, None)

    async def _remove_deployment(self, endpoint: OnlineEndpoint, name: str, made: Deployment) -> None:
        await asyncio.sleep(_STEP_S)
        if made.process is not None:
            await self._models.retire(made.process)
        await asyncio.to_thread(shutil.rmtree, made.directory, ignore_errors=True)
        if endpoint.deployments.get(name) is made:
            del endpoint.deployments[name]

    async def _mirror(self, deployment: Deployment, body: bytes, kind: str) -> None:
        await self._ask("", deployment, body, kind)

    async def _ask(self, name: str, deployment: Deployment, body: bytes, kind: str) -> Response:
        headers = {"azureml-model-deployment": name, "x-ms-request-id": str(uuid.uuid4())}
        if deployment.process is None:
            return Response(status_code=404, headers=headers)
        try:
            answer = await self._models.score(deployment.process, body, {"content-type": kind})
        except httpx.TimeoutException:
            return Response(status_code=408, headers=headers)
        except httpx.HTTPError:
            return Response(status_code=503, headers=headers)
        status = answer.status_code
        if status != httpx.codes.OK:
            told = {"ms-azureml-model-error-statuscode": str(status), "ms-azureml-model-error-reason": "model_error"}
            headers, status = headers | told, 424
        return Response(answer.content, status, headers, answer.headers.get("content-type"))


def _check_shares(endpoint: OnlineEndpoint | None, traffic: dict[str, int], mirrored: dict[str, int]) -> None:
    known = {} if endpoint is None else endpoint.deployments
    for name in (*traffic, *mirrored):
        if name not in known:
            raise invalid(f"Deployment {name} does not exist, and cannot have traffic.")
    if sum(traffic.values()) not in (0, 100):
        raise invalid("Traffic percentages must sum to 0 or 100.")
    if len(mirrored) > 1 or any(not 0 < percent <= 50 for percent in mirrored.values()):
        raise invalid("Traffic can be mirrored to one deployment, and 50 percent of it at most.")
