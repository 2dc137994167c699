"""The `Server` port by endpoints of Vertex AI.

An endpoint has the name of the release's endpoint; a model version is a version of the model of the same name in the
registry, and its deployment has an id made from the version's digest, so that the same wish twice is one deployment.
What is wanted and what was begun last stand on the endpoint as labels: nothing is remembered here.

A new version is deployed beside the old one and takes the traffic when it is up, in one operation of the service; one
that does not come up leaves everything as it was. What has lost its traffic is undeployed by whoever looks next.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import requests

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, Retryable, Stockout, Terminal
from tasks.core.release import Endpoint, EndpointSpec
from tasks.providers._dialects.scoring import answered_reason, checked_model
from tasks.providers.google.models import ModelRegistry, Served, deployment_id
from tasks.providers.google.quirks import quirks
from tasks.providers.google.rest import Exists
from tasks.providers.google.vertex import Vertex

_WANTED, _OPERATION, _VERSION = "lintas-wanted", "lintas-operation", "lintas-version"
_SCORED = (200, 400, 413, 415, 422)


def open_server(config: CloudConfig) -> VertexServer:
    """The server of a cloud; `tasks.providers.google` says what its configuration may hold.

    Raises:
        Invalid: An option is missing.
        Denied: There are no credentials.
    """
    for option in ("bucket", "serving_image"):
        config.option(option)
    return VertexServer(config, Vertex(config, "serving"))


class VertexServer:
    """Serves models from endpoints of one project and region. Safe to use from several threads.

    Args:
        config: The cloud.
        vertex: Its API.
    """

    def __init__(self, config: CloudConfig, vertex: Vertex) -> None:
        self._config, self._cloud, self._vertex = config, config.name, vertex
        self._models = ModelRegistry(config, vertex)

    def deploy(self, spec: EndpointSpec) -> Endpoint:
        """See `Server.deploy`.

        Raises:
            Invalid, IntegrityError: The model cannot be served, see `checked_model`.
            Stockout: There was no machine or no quota for it a moment ago.
            Terminal: It was deployed a moment ago and did not come up.
        """
        directory = checked_model(spec)
        endpoint, operation = self._with_operation(self._ensured(spec.name))
        wanted, deployed = deployment_id(spec), _deployed(endpoint)
        labels = endpoint.get("labels", {})
        if operation is not None and not operation.get("done") and labels.get(_WANTED) == wanted:
            return self._described(endpoint, operation)
        if operation is not None and not operation.get("done") and not _is_undeployment(operation):
            # What is no longer wanted must not take the traffic when nobody looks any more.
            self._vertex.post(f"{operation['name']}:cancel", {}, self._named(spec.name))
        if wanted in deployed:
            if endpoint.get("trafficSplit") != {wanted: 100}:
                change = {"trafficSplit": {wanted: 100}}
                self._vertex.patch(str(endpoint["name"]), change, "trafficSplit", self._named(spec.name))
            return self._noted(spec, None)
        if operation is not None and labels.get(_WANTED) == wanted and _failed_lately(operation):
            raise self._failure(operation, spec.version)
        model = self._models.registered(spec, directory)
        body = {
            "deployedModel": {
                "id": wanted,
                "model": model,
                "displayName": spec.name,
                "dedicatedResources": {
                    "machineSpec": {"machineType": self._config.options.get("serving_sku", quirks()["serving_sku"])},
                    "minReplicaCount": self._instances(),
                    "maxReplicaCount": self._instances(),
                },
            },
            "trafficSplit": {"0": 100},
        }
        operation = self._vertex.post(f"{endpoint['name']}:deployModel", body, self._named(spec.name))
        return self._noted(spec, operation)

    def describe(self, name: str) -> Endpoint | None:
        """See `Server.describe`. Health is an answer to the model's own example, through the endpoint.

        Whoever sees that the wanted version has taken over has the one before undeployed, which would cost on.
        """
        endpoint = self._vertex.find(self._path(name), self._named(name))
        return None if endpoint is None else self._looked_at(endpoint)

    def predict(self, name: str, payload: bytes) -> bytes:
        """See `Server.predict`.

        Raises:
            NotFound: There is no such endpoint.
            Invalid: The request does not fit the model's signature; the message names columns and types, no values.
            Retryable: The endpoint has nothing deployed, or its container does not answer.
        """
        answer = self._scored(name, payload, 60.0)
        if answer.status_code == requests.codes.ok:
            return answer.content
        raise Invalid(f"'{self._cloud}' refuses the request: {_reason(answer)}", "correct the request")

    def delete(self, name: str) -> None:
        """See `Server.delete`; waits until the endpoint, its model and the model's files are gone.

        Raises:
            Retryable: It takes longer than the catalogue's `delete_timeout_s`; the next call goes on with it.
        """
        what, timeout_s = self._named(name), float(quirks()["delete_timeout_s"])
        endpoint = self._vertex.find(self._path(name), what)
        if endpoint is not None:
            self._settle(endpoint, what, timeout_s)
            endpoint = self._vertex.find(self._path(name), what) or {}
            while deployed := list(_deployed(endpoint)):
                split = {deployed[-1]: 100} if len(deployed) > 1 else {}
                self._vertex.wait(self._undeploy(endpoint, deployed[0], split), what, timeout_s)
                endpoint = self._vertex.find(self._path(name), what) or {}
            self._gone(self._path(name), what, timeout_s)
        self._gone(f"{self._vertex.parent}/models/{name}", f"model '{name}'", timeout_s)
        self._models.forget_files(name)

    def _path(self, name: str) -> str:
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name):
            raise Invalid(f"'{name}' cannot be an endpoint's name", "use the name that endpoint_name gives")
        return f"{self._vertex.parent}/endpoints/{name}"

    @staticmethod
    def _named(name: str) -> str:
        return f"endpoint '{name}'"

    def _instances(self) -> int:
        try:
            return int(self._config.options.get("serving_instances", 1))
        except ValueError as error:
            raise Invalid(
                f"clouds.{self._cloud}.options.serving_instances is not a number", "correct lintas.yaml"
            ) from error

    def _ensured(self, name: str) -> dict[str, Any]:
        """The endpoint, made if there is none."""
        what = self._named(name)
        found = self._vertex.find(self._path(name), what)
        if found is not None:
            return found
        try:
            operation = self._vertex.post(
                f"{self._vertex.parent}/endpoints", {"displayName": name}, what, endpointId=name
            )
            self._vertex.wait(operation, what, quirks()["create_endpoint_timeout_s"])
        except Exists:
            pass
        return self._vertex.get(self._path(name), what)

    def _tidied(self, endpoint: Mapping[str, Any], operation: dict[str, Any] | None) -> dict[str, Any] | None:
        """Begin to undeploy what the wanted version has replaced; the operation that is under way then."""
        wanted = endpoint.get("labels", {}).get(_WANTED)
        idle = [each for each in _deployed(endpoint) if each != wanted]
        busy = operation is not None and not operation.get("done")
        if busy or not idle or endpoint.get("trafficSplit") != {wanted: 100}:
            return operation
        try:
            operation = self._undeploy(endpoint, idle[0], {})
        except (NotFound, Retryable):
            return operation  # Somebody else was faster, or the next look will do it.
        labels = {**endpoint["labels"], _OPERATION: _number(operation)}
        self._vertex.patch(str(endpoint["name"]), {"labels": labels}, "labels", "the endpoint's labels")
        return operation

    def _undeploy(self, endpoint: Mapping[str, Any], deployed: str, split: Mapping[str, int]) -> dict[str, Any]:
        body: dict[str, Any] = {"deployedModelId": deployed, **({"trafficSplit": dict(split)} if split else {})}
        name = str(endpoint["name"])
        return self._vertex.post(f"{name}:undeployModel", body, self._named(name.rpartition("/")[2]))

    def _noted(self, spec: EndpointSpec, operation: Mapping[str, Any] | None) -> Endpoint:
        """Write on the endpoint what is wanted and what is under way; the endpoint as it is then."""
        what = self._named(spec.name)
        endpoint = self._vertex.get(self._path(spec.name), what)
        labels = {
            **{key: value for key, value in endpoint.get("labels", {}).items() if key != _OPERATION},
            _WANTED: deployment_id(spec),
            _VERSION: re.sub(r"[^a-z0-9_-]", "-", spec.version.lower())[:63],
        }
        if operation is not None:
            labels[_OPERATION] = _number(operation)
        if labels != endpoint.get("labels", {}):
            change = {"labels": labels}
            endpoint = self._vertex.patch(self._path(spec.name), change, "labels", what)
        return self._looked_at(endpoint)

    def _looked_at(self, endpoint: dict[str, Any]) -> Endpoint:
        endpoint, operation = self._with_operation(endpoint)
        return self._described(endpoint, self._tidied(endpoint, operation))

    def _with_operation(self, endpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The endpoint with what was last begun on it, in an order in which the one does not contradict the other."""
        operation = self._operation(endpoint)
        if operation is not None and operation.get("done"):
            # It may have ended after the endpoint was read.
            endpoint = self._vertex.get(str(endpoint["name"]), "endpoint")
        return endpoint, operation

    def _operation(self, endpoint: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was last begun on the endpoint, or None when nothing was or the service has forgotten it."""
        number = endpoint.get("labels", {}).get(_OPERATION)
        return number and self._vertex.find(f"{endpoint['name']}/operations/{number}", "operation")

    def _described(self, endpoint: Mapping[str, Any], operation: Mapping[str, Any] | None) -> Endpoint:
        name = str(endpoint["name"]).rpartition("/")[2]
        split: Mapping[str, int] = endpoint.get("trafficSplit", {})
        labels = endpoint.get("labels", {})
        serving = max(split, key=lambda each: split[each], default="")
        served, trouble, detail = Served("", "", ""), "", ""
        if serving in (deployed := _deployed(endpoint)):
            served = self._models.served(deployed[serving])
            trouble = self._probe(name, served.artifact)
        if labels.get(_WANTED, serving) != serving or not serving:
            detail = self._under_way(labels, operation, deployed)
        return Endpoint(
            cloud=self._cloud,
            name=name,
            url=f"{self._vertex.url}/v1/{endpoint['name']}:rawPredict",
            weight=0,
            digest=served.digest,
            version=served.version,
            healthy=bool(serving) and not trouble,
            detail=trouble or detail,
        )

    def _under_way(
        self, labels: Mapping[str, str], operation: Mapping[str, Any] | None, deployed: Mapping[str, Any]
    ) -> str:
        version = labels.get(_VERSION, "")
        if labels.get(_WANTED) in deployed:
            return f"version {version} is up and has no traffic"
        if operation is not None and not operation.get("done"):
            return f"version {version} is being deployed"
        if operation is not None and "error" in operation:
            return self._failure(operation, version).what
        return f"version {version} waits for its next step" if version else "nothing is deployed"

    def _failure(self, operation: Mapping[str, Any], version: str) -> LintasError:
        """Why a deployment failed."""
        error = self._vertex.meaning(operation["error"], f"version {version}")
        if isinstance(error, (Stockout, Retryable, Denied)):
            return error
        return Terminal(
            f"version {version} does not start on '{self._cloud}': its container never became healthy",
            "read the endpoint's log in Cloud Logging, then promote a version that does",
        )

    def _probe(self, name: str, artifact: str) -> str:
        """Why the endpoint does not predict, or the empty text."""
        example = self._models.example(artifact)
        try:
            answer = self._scored(name, example or b"{}", float(quirks()["probe_timeout_s"]))
        except Retryable as error:
            return error.what
        # Without an example, the container's refusal of an empty request is the best that can be had.
        if answer.status_code == requests.codes.ok or not example:
            return ""
        return f"it refuses its own example: {_reason(answer)}"

    def _scored(self, name: str, payload: bytes, timeout_s: float) -> requests.Response:
        """The container's answer, a refusal of the request included."""
        url = f"{self._vertex.url}/v1/{self._path(name)}:rawPredict"
        try:
            return self._vertex.send(
                "POST", url, self._named(name), data=payload, timeout_s=timeout_s, accept=_from_container
            )
        except (NotFound, Denied, Stockout, Retryable, Invalid):
            raise
        except Terminal as error:
            raise Retryable(f"{self._named(name)} on '{self._cloud}' has nothing deployed", "try again") from error

    def _settle(self, endpoint: Mapping[str, Any], what: str, timeout_s: float) -> None:
        """End what is under way on an endpoint, so that it can be taken apart."""
        operation = self._operation(endpoint)
        if operation is None or operation.get("done"):
            return
        self._vertex.post(f"{operation['name']}:cancel", {}, what)
        self._vertex.finished(operation, what, timeout_s)

    def _gone(self, name: str, what: str, timeout_s: float) -> None:
        try:
            self._vertex.wait(self._vertex.delete(name, what), what, timeout_s)
        except NotFound:
            return


def _deployed(endpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(each["id"]): each for each in endpoint.get("deployedModels", [])}


def _number(operation: Mapping[str, Any]) -> str:
    return str(operation["name"]).rpartition("/")[2]


def _is_undeployment(operation: Mapping[str, Any]) -> bool:
    return "UndeployModel" in str(operation.get("metadata", {}).get("@type"))


def _failed_lately(operation: Mapping[str, Any]) -> bool:
    if "error" not in operation:
        return False
    ended = operation.get("metadata", {}).get("genericMetadata", {}).get("updateTime")
    if not ended:
        return True
    return (datetime.now(UTC) - datetime.fromisoformat(ended)).total_seconds() < quirks()["retry_deploy_s"]


def _from_container(answer: requests.Response) -> bool:
    """Whether a container answered, and not the service in its place."""
    return answer.status_code in _SCORED and not _service_error(answer)


def _service_error(answer: requests.Response) -> bool:
    if answer.ok:
        return False
    try:
        error = answer.json()["error"]
        return str(error["status"]) != "INVALID_ARGUMENT" and "code" in error
    except (ValueError, KeyError, TypeError):
        return False


def _reason(answer: requests.Response) -> str:
    """MLflow's reason, by itself or inside the service's own error."""
    try:
        return answered_reason(str(answer.json()["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return answered_reason(answer.text)
