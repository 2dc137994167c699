"""Endpoints: deployed models are real scoring processes, and traffic is split among them.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.responses import Response

from deployments.local.compute import ModelRunner
from deployments.local.faults import FaultTable
from deployments.local.vertex_ai.errors import Refused, invalid, missing_fields
from deployments.local.vertex_ai.jobs import check_labels, matching
from deployments.local.vertex_ai.models import Models
from deployments.local.vertex_ai.resources import Registry, Resource, new_id, now
from deployments.local.vertex_ai.schema import normalised
from tasks.core.errors import LintasError
from tasks.providers.onprem.scoring.fork_server import ScoringProcess

_ENDPOINT_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|\d{1,10}")
_UPDATABLE = ("displayName", "description", "labels", "trafficSplit")
_START_TIMEOUT_S = 60.0
_RESTART_PAUSE_S = 0.5


@dataclass
class _Deployed:
    """A deployed model's process; replaced by another when it ends without having been told to."""

    resource: Resource
    model: Resource
    directory: Path
    process: ScoringProcess
    keeper: asyncio.Task[None] | None = None


class Endpoints:
    """The endpoints of one location.

    Args:
        registry: Where their resources are.
        models: What can be deployed.
        faults: What shall go wrong.
        root: Directory for logs.
    """

    def __init__(self, registry: Registry, models: Models, faults: FaultTable, root: Path) -> None:
        self._registry, self._models, self._faults, self._root = registry, models, faults, root
        self._runner = ModelRunner(root)
        self._deployed: dict[tuple[str, str], _Deployed] = {}
        self._underway: set[tuple[str, str]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._draws = random.Random(0)  # noqa: S311 - a split of traffic is no secret

    def create(self, body: object, endpoint_id: str) -> Resource:
        """`projects.locations.endpoints.create`."""
        endpoint = normalised("Endpoint", body, "endpoint")
        if not endpoint.get("displayName"):
            raise missing_fields("endpoint.display_name")
        check_labels(endpoint.get("labels", {}))
        endpoint_id = endpoint_id or new_id()[:10]
        if not _ENDPOINT_ID.fullmatch(endpoint_id):
            raise invalid(f"Endpoint ID {endpoint_id} is not valid.")
        name = f"{self._registry.parent}/endpoints/{endpoint_id}"
        if name in self._registry.resources:
            raise Refused("ALREADY_EXISTS", f"Resource {name} already exists.")
        kept = {
            **{key: value for key, value in endpoint.items() if key in (*_UPDATABLE, "encryptionSpec", "network")},
            "name": name,
            "createTime": now(),
        }
        self._touch(kept)
        self._registry.resources[name] = kept

        async def work() -> dict[str, Any]:
            return kept

        return self._registry.begin(name, "CreateEndpoint", work, "Endpoint")

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`projects.locations.endpoints.list`."""
        return self._registry.page("endpoints", "endpoints", query, matching(query.get("filter", "")))

    def patch(self, name: str, body: object, mask: str) -> Resource:
        """`projects.locations.endpoints.patch`: what the mask names; a stale `etag` is refused."""
        endpoint = self._registry.get(name)
        change = normalised("Endpoint", body, "endpoint")
        if "etag" in change and change["etag"] != endpoint["etag"]:
            raise Refused("ABORTED", "The Endpoint was changed by another request: its etag is another.")
        paths = [re.sub(r"_([a-z])", lambda found: found[1].upper(), path) for path in mask.split(",") if path]
        if not paths or set(paths) - set(_UPDATABLE):
            raise invalid(f"Update mask '{mask}' names fields that cannot be updated.")
        if "trafficSplit" in paths:
            split = change.get("trafficSplit", {})
            _check_split(split, {each["id"] for each in endpoint.get("deployedModels", [])})
        check_labels(change.get("labels", {}))
        for path in paths:
            endpoint[path] = change.get(path, {} if path in ("labels", "trafficSplit") else "")
        return self._touch(endpoint)

    def delete(self, name: str) -> Resource:
        """`projects.locations.endpoints.delete`: refused while anything is deployed."""
        endpoint = self._registry.get(name)
        if endpoint.get("deployedModels") or any(owner == name for owner, _ in self._underway):
            raise Refused("FAILED_PRECONDITION", f"Endpoint {name} has deployed or being-deployed DeployedModel(s).")

        async def remove() -> dict[str, Any]:
            self._registry.resources.pop(name, None)
            return {}

        return self._registry.begin(self._registry.parent, "Delete", remove)

    def deploy(self, name: str, body: object) -> Resource:
        """`projects.locations.endpoints.deployModel`."""
        endpoint = self._registry.get(name)
        request = normalised("DeployModelRequest", body)
        deployed = request.get("deployedModel", {})
        if not deployed.get("model"):
            raise missing_fields("deployed_model.model")
        if not {"dedicatedResources", "automaticResources"} & deployed.keys():
            raise missing_fields("deployed_model.prediction_resources")
        dedicated = deployed.get("dedicatedResources", {"minReplicaCount": 1})
        if not dedicated.get("minReplicaCount"):
            raise missing_fields("deployed_model.dedicated_resources.min_replica_count")
        model = self._models.get(deployed["model"])
        deployed["id"] = deployed.get("id") or new_id()[:10]
        if not re.fullmatch(r"\d{1,10}", deployed["id"]):
            raise invalid(f"The DeployedModel's id {deployed['id']} is not valid.")
        present = {each["id"] for each in endpoint.get("deployedModels", [])}
        if deployed["id"] in present or (name, deployed["id"]) in self._underway:
            raise Refused("ALREADY_EXISTS", f"The Endpoint has a DeployedModel with id {deployed['id']} already.")
        split = {deployed["id"] if key == "0" else key: value for key, value in request.get("trafficSplit", {}).items()}
        _check_split(split, present | {deployed["id"]})
        quota = self._faults.take("quota", operation="endpoints.deployModel", target=name.rpartition("/")[2])
        if quota is not None:
            metric = "aiplatform.googleapis.com/custom_model_serving_cpus"
            raise Refused("RESOURCE_EXHAUSTED", f"The following quota metrics exceed quota limits: {metric}")
        self._underway.add((name, deployed["id"]))

        async def work() -> dict[str, Any]:
            try:
                return await self._bring_up(endpoint, deployed, model, split)
            finally:
                self._underway.discard((name, deployed["id"]))

        return self._registry.begin(name, "DeployModel", work, "DeployModelResponse")

    def undeploy(self, name: str, body: object) -> Resource:
        """`projects.locations.endpoints.undeployModel`: without traffic, or with a split that takes it away."""
        endpoint = self._registry.get(name)
        request = normalised("UndeployModelRequest", body)
        gone = request.get("deployedModelId", "")
        left = [each for each in endpoint.get("deployedModels", []) if each["id"] != gone]
        if len(left) == len(endpoint.get("deployedModels", [])):
            raise Refused("NOT_FOUND", f"The DeployedModel {gone} is not found.")
        split = request.get("trafficSplit") or endpoint.get("trafficSplit", {})
        split = {key: value for key, value in split.items() if value} if left else {}
        if gone in split:
            raise Refused("FAILED_PRECONDITION", f"The DeployedModel {gone} has traffic assigned to it.")
        _check_split(split, {each["id"] for each in left})
        endpoint |= {"deployedModels": left, "trafficSplit": split}
        self._touch(endpoint)
        deployed = self._deployed.pop((name, gone))

        async def work() -> dict[str, Any]:
            await self._retire(deployed)
            return {}

        return self._registry.begin(name, "UndeployModel", work, "UndeployModelResponse")

    def deployed_models(self) -> set[str]:
        """Names of the models that are deployed somewhere."""
        return {str(each.model["name"]) for each in self._deployed.values()}

    async def predict(self, name: str, body: object) -> dict[str, Any]:
        """`projects.locations.endpoints.predict`: JSON instances."""
        request = normalised("PredictRequest", body)
        if not request.get("instances"):
            raise missing_fields("instances")
        deployed = self._chosen(name)
        given = {"instances": request["instances"]}
        answer = await self._score(deployed, json.dumps(given).encode(), "application/json")
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise invalid(answer.text[:1000])
        return {
            "predictions": answer.json()["predictions"],
            "deployedModelId": deployed.resource["id"],
            "model": deployed.model["name"],
            "modelDisplayName": deployed.model["displayName"],
            "modelVersionId": deployed.model["versionId"],
        }

    async def raw_predict(self, name: str, content: bytes, content_type: str) -> Response:
        """`projects.locations.endpoints.rawPredict`: body and status of the container, as they are."""
        deployed = self._chosen(name)
        answer = await self._score(deployed, content, content_type)
        return Response(
            answer.content,
            answer.status_code,
            headers={
                "X-Vertex-AI-Endpoint-Id": name.rpartition("/")[2],
                "X-Vertex-AI-Deployed-Model-Id": deployed.resource["id"],
            },
            media_type=answer.headers.get("content-type"),
        )

    async def close(self) -> None:
        """End all processes."""
        for deployed in self._deployed.values():
            if deployed.keeper is not None:
                deployed.keeper.cancel()
        await self._runner.close()

    async def _bring_up(
        self, endpoint: Resource, deployed: Resource, model: Resource, split: dict[str, int]
    ) -> dict[str, Any]:
        target = str(endpoint["name"]).rpartition("/")[2]
        slow = self._faults.take("slow_start", operation="endpoints.deployModel", target=target)
        if slow is not None:
            await asyncio.sleep(slow.delay_s)
        if self._faults.take("stockout", operation="endpoints.deployModel", target=target) is not None:
            raise Refused(
                "RESOURCE_EXHAUSTED",
                "Machine type temporarily unavailable, please deploy with a different machine type or retry. Resources "
                f"are insufficient in region: {self._registry.location}.",
            )
        directory = await self._models.bring(model)
        process = await self._start(directory, str(deployed["id"]))
        unhealthy = self._faults.take("unhealthy", operation="endpoints.deployModel", target=target)
        trouble = "no answer" if unhealthy else await self._runner.ping(process, _START_TIMEOUT_S)
        if trouble is not None:
            await self._runner.retire(process)
            raise Refused(
                "FAILED_PRECONDITION",
                "Model server never became ready. Please validate that your model file or container configuration are "
                "valid. Model server logs can be found in Cloud Logging.",
            )
        deployed |= {"createTime": now(), "modelVersionId": model["versionId"]}
        deployed["model"] = model["name"]
        deployed.setdefault("displayName", model["displayName"])
        made = _Deployed(deployed, model, directory, process)
        made.keeper = asyncio.create_task(self._keep(made))
        self._deployed[(str(endpoint["name"]), str(deployed["id"]))] = made
        endpoint["deployedModels"] = [*endpoint.get("deployedModels", []), deployed]
        if split:
            endpoint["trafficSplit"] = {key: value for key, value in split.items() if value}
        self._touch(endpoint)
        return {"deployedModel": deployed}

    async def _start(self, directory: Path, deployed_id: str) -> ScoringProcess:
        try:
            return await self._runner.start(directory, self._root / f"{deployed_id}.log")
        except LintasError as error:
            raise Refused("UNAVAILABLE", "The service is currently unavailable.") from error

    async def _keep(self, deployed: _Deployed) -> None:
        """Start another process when this one has ended, as a replica's container is restarted."""
        while True:
            await deployed.process.ended.wait()
            await asyncio.sleep(_RESTART_PAUSE_S)
            try:
                process = await self._start(deployed.directory, str(deployed.resource["id"]))
            except Refused:
                continue
            if await self._runner.ping(process, _START_TIMEOUT_S) is None:
                deployed.process = process

    async def _retire(self, deployed: _Deployed) -> None:
        if deployed.keeper is not None:
            deployed.keeper.cancel()
        await self._runner.retire(deployed.process)

    def _chosen(self, name: str) -> _Deployed:
        """Whom a request goes to, by the split."""
        split: dict[str, int] = self._registry.get(name).get("trafficSplit", {})
        if not split:
            raise Refused("FAILED_PRECONDITION", f"Endpoint {name} doesn't have traffic_split.")
        chosen = self._draws.choices(list(split), list(split.values()))[0]
        return self._deployed[(name, chosen)]

    async def _score(self, deployed: _Deployed, content: bytes, content_type: str) -> httpx.Response:
        try:
            return await self._runner.score(deployed.process, content, {"content-type": content_type})
        except httpx.HTTPError as error:
            raise Refused("UNAVAILABLE", "The model server is not available.") from error

    @staticmethod
    def _touch(endpoint: Resource) -> Resource:
        endpoint |= {"updateTime": now(), "etag": f"AMEw9y{new_id()}"}
        return endpoint


def _check_split(split: Mapping[str, int], known: set[str]) -> None:
    if split and sum(split.values()) != 100:
        raise invalid("The sum of all traffic split percentages must be 100.")
    if set(split) - known:
        raise invalid(f"Traffic split names a DeployedModel that is not there: {min(set(split) - known)}.")
