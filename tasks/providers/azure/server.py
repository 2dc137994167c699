"""The `Server` port by managed online endpoints of an Azure ML workspace.

An endpoint holds one deployment a model version, named after the version's content; the one that serves has all of the
traffic. A roll-out has four steps that each take the service minutes: the endpoint, the deployment beside the old one,
the traffic, the old deployment's end. `deploy` makes the step that is due and leaves the others to a thread; each step
follows from what the service says alone, so a roll-out that was interrupted anywhere goes on when it is
asked for again.

https://learn.microsoft.com/azure/machine-learning/concept-endpoints-online
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from azure.core.rest import HttpResponse

from tasks.core.cloud import CloudConfig
from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import Invalid, LintasError, NotFound, Retryable, Stockout, Terminal
from tasks.core.release import Endpoint, EndpointSpec
from tasks.providers._dialects.scoring import EXAMPLE, answered_reason, checked_model
from tasks.providers.azure.arm import Operation, Workspace
from tasks.providers.azure.quirks import quirks
from tasks.providers.azure.roll_out import RollOuts
from tasks.providers.azure.store import AzureStore, open_store

_ENVIRONMENT = "lintas-serving"
BUSY = ("Creating", "Updating", "Scaling", "Deleting")


def open_server(config: CloudConfig) -> AzureServer:
    """The server of a cloud; `tasks.providers.azure` says what its configuration may hold.

    Raises:
        Invalid: An option is missing.
        Denied: A credential's reference leads nowhere.
    """
    return AzureServer(config, Workspace(config, "serving"), open_store(config, config.option("bucket")))


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why a deployment did not come up, as long as this process remembers it."""

    deployment: str
    error: LintasError
    told: bool = False


class AzureServer:
    """Serves models on the online endpoints of one workspace. Safe to use from several threads.

    Args:
        config: The cloud: its storage account, `serving_image`, `serving_sku`, and further options.
        workspace: Where the endpoints are.
        store: Where the models' files are put for it.
    """

    def __init__(self, config: CloudConfig, workspace: Workspace, store: AzureStore) -> None:
        self._config, self._cloud = config, config.name
        self._workspace, self._store = workspace, store
        instances = config.options.get("serving_instances", "1")
        if not instances.isdecimal() or int(instances) < 1:
            raise Invalid(f"clouds.{config.name}.options.serving_instances is no number of machines", "write 1 or more")
        self._instances = int(instances)
        self._roll_outs = RollOuts(self._note)
        self._wanted: dict[str, str] = {}
        self._operations: dict[str, Operation] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._scoring_urls: dict[str, str] = {}
        self._examples: dict[str, bytes] = {}

    def deploy(self, spec: EndpointSpec) -> Endpoint:
        """See `Server.deploy`. A version that did not come up is told once and then tried again.

        Raises:
            Stockout: No quota or no capacity for another machine.
            Invalid: The model cannot be served, or the service refuses what the configuration asks for.
            IntegrityError: The files at `model_path` are not those of the spec's digest.
            Terminal: The version does not start; its log in the workspace says why.
        """
        return self._roll_out(spec, self._step)

    def _roll_out(self, spec: EndpointSpec, step: Callable[[EndpointSpec, str, Mapping[str, Any]], bool]) -> Endpoint:
        """Make the first step of a roll-out of this version now; the others follow."""
        model, wanted = checked_model(spec), _deployment_name(spec)
        with self._roll_outs.exclusively(spec.name):
            trouble = self._troubles.get(spec.name)
            if trouble is not None and trouble.deployment == wanted and not trouble.told:
                self._troubles[spec.name] = replace(trouble, told=True)
                raise trouble.error
            if trouble is not None and trouble.deployment != wanted:
                del self._troubles[spec.name]
            self._wanted[spec.name] = wanted
            body = self._deployment(spec, self._register(spec, model))
            self._roll_outs.begin(spec.name, lambda: step(spec, wanted, body))
        return self._seen(spec.name)

    def _seen(self, name: str) -> Endpoint:
        seen = self.describe(name)
        return seen or Endpoint(self._cloud, name, "", 0, "", "", False, "the endpoint is being created")

    def describe(self, name: str) -> Endpoint | None:
        """See `Server.describe`. Health is what a probe with the model's own example shows."""
        resource = self._resource(name)
        endpoint = self._workspace.find(f"onlineEndpoints/{resource}")
        if endpoint is None or endpoint["properties"]["provisioningState"] == "Deleting":
            return None
        deployments = self._deployments(resource)
        url = str(endpoint["properties"].get("scoringUri") or "")
        serving = _serving(endpoint, deployments)
        pending = self._pending(name, endpoint, deployments, str(serving["name"]) if serving else "")
        if serving is None:
            return Endpoint(self._cloud, name, url, 0, "", "", False, pending or "no deployment has traffic yet")
        trouble, answered = self._probe(url, serving)
        # What answered is what is served: right after the traffic was switched it may still be the one before.
        told = deployments.get(answered, serving)["tags"]
        version, percent = _mirrored(endpoint, deployments)
        return Endpoint(
            self._cloud,
            name,
            url,
            0,
            told["digest"],
            told["version"],
            healthy=trouble is None,
            detail=trouble or pending,
            mirror_version=version,
            mirror_percent=percent,
        )

    def predict(self, name: str, payload: bytes) -> bytes:
        """See `Server.predict`.

        Raises:
            NotFound: There is no such endpoint.
            Invalid: The request does not fit the model's signature; the message names columns and types, no values.
            Retryable: The endpoint has no deployment with traffic at the moment, or too many requests.
        """
        answer = self._workspace.score(self._scoring_url(name), payload)
        if answer.status_code == 404:
            self._scoring_urls.pop(name, None)
            self._scoring_url(name)
            raise Retryable(f"the endpoint '{name}' on '{self._cloud}' has no deployment with traffic", "try again")
        if answer.status_code == 424:
            raise self._refused(answer)
        return answer.read()

    def delete(self, name: str) -> None:
        """See `Server.delete`."""
        with self._roll_outs.exclusively(name):
            self._roll_outs.stop(name)
            self._scoring_urls.pop(name, None)
            self._troubles.pop(name, None)
            self._workspace.delete(f"onlineEndpoints/{self._resource(name)}")

    def _step(self, spec: EndpointSpec, wanted: str, body: Mapping[str, Any]) -> bool:
        """Make the step of a roll-out that is due; true when the wanted deployment alone serves."""
        resource = self._resource(spec.name)
        endpoint = self._workspace.find(f"onlineEndpoints/{resource}")
        state = endpoint["properties"]["provisioningState"] if endpoint else None
        if endpoint is None:
            self._operations[resource] = self._put_endpoint(spec.name, {})
        elif state in ("Failed", "Canceled"):
            self._workspace.delete(f"onlineEndpoints/{resource}")
            raise self._workspace.failure(self._operations.pop(resource, "")) or Terminal(
                f"the endpoint '{spec.name}' on '{self._cloud}' could not be created", "deploy again"
            )
        elif state not in BUSY:
            return self._step_on(endpoint, spec, wanted, body)
        return False

    def _step_on(self, endpoint: Mapping[str, Any], spec: EndpointSpec, wanted: str, body: Mapping[str, Any]) -> bool:
        """The same on an endpoint that is ready for it."""
        resource = str(endpoint["name"])
        deployments = self._deployments(resource)
        if not self._stands(resource, spec, wanted, deployments, body):
            return False
        if shares(endpoint) != ({wanted: 100}, {}):
            self._put_endpoint(spec.name, {wanted: 100})
            return False
        self._troubles.pop(spec.name, None)
        self._remove_others(resource, {wanted}, deployments)
        return True

    def _stands(
        self,
        resource: str,
        spec: EndpointSpec,
        wanted: str,
        deployments: Mapping[str, Mapping[str, Any]],
        body: Mapping[str, Any],
    ) -> bool:
        """Whether the wanted deployment is up; creates it where there is none."""
        made = deployments.get(wanted)
        match made["properties"]["provisioningState"] if made else None:
            case None:
                path = f"onlineEndpoints/{resource}/deployments/{wanted}"
                self._operations[wanted] = self._workspace.put(path, body)
            case "Succeeded":
                return True
            case "Failed" | "Canceled":
                error = self._why(spec, wanted)
                # The service cannot repair one that never came up: it must go before the next attempt.
                self._workspace.delete(f"onlineEndpoints/{resource}/deployments/{wanted}")
                raise error
            case _:
                pass
        return False

    def _remove_others(
        self, resource: str, kept: Collection[str], deployments: Mapping[str, Mapping[str, Any]]
    ) -> None:
        for name, facts in deployments.items():
            if name not in kept and facts["properties"]["provisioningState"] != "Deleting":
                self._workspace.delete(f"onlineEndpoints/{resource}/deployments/{name}")

    def _note(self, name: str, error: LintasError) -> None:
        """Remember why a roll-out ended, for `describe` and for the next `deploy`."""
        self._troubles[name] = _Trouble(self._wanted[name], error)

    def _why(self, spec: EndpointSpec, deployment: str) -> LintasError:
        reason = self._workspace.failure(self._operations.pop(deployment, ""))
        if isinstance(reason, (Stockout, Retryable)):
            return reason
        told = reason.what if reason is not None else "the service does not say why any more"
        what = f"version {spec.version} of '{spec.model}' does not start on '{self._cloud}': {told}"
        return Terminal(what, "read the deployment's log in the workspace, mend the model and deploy again")

    def _put_endpoint(
        self, name: str, traffic: Mapping[str, int], mirrored: Mapping[str, int] | None = None
    ) -> Operation:
        """Create the endpoint, or give it this traffic and let these get copies of it."""
        body = {
            "location": self._workspace.region,
            "identity": {"type": "SystemAssigned"},
            "tags": {"lintas-endpoint": name},
            "properties": {"authMode": "AADToken", "traffic": dict(traffic), "mirrorTraffic": dict(mirrored or {})},
        }
        return self._workspace.put(f"onlineEndpoints/{self._resource(name)}", body)

    def _deployment(self, spec: EndpointSpec, model_id: str) -> dict[str, Any]:
        """A deployment of a registered model, as the service wants it."""
        return {
            "location": self._workspace.region,
            "sku": {"name": "Default", "capacity": self._instances},
            "tags": {"lintas-endpoint": spec.name, "version": spec.version, "digest": spec.digest},
            "properties": {
                "endpointComputeType": "Managed",
                "model": model_id,
                "environmentId": self._environment(),
                "instanceType": self._config.options.get("serving_sku", quirks()["serving_sku"]),
                "requestSettings": {
                    "requestTimeout": f"PT{quirks()['request_timeout_s']}S",
                    "maxConcurrentRequestsPerInstance": quirks()["concurrent_requests"],
                },
            },
        }

    def _register(self, spec: EndpointSpec, model: Path) -> str:
        """Bring the model's files to the store and register them; returns the id. Equal files are one model."""
        path = f"models/{_asset_name(spec.model)}/versions/{spec.digest[:32]}"
        if self._workspace.find(path) is None:
            prefix = self._model_prefix(spec.digest)
            self._store.create_bucket()
            for file in sorted(model.rglob("*")):
                if file.is_file():
                    self._upload(file, f"{prefix}{file.relative_to(model).as_posix()}")
            account, bucket = self._config.option("account"), self._store.bucket
            uri = f"wasbs://{bucket}@{account}.blob.core.windows.net/{prefix}"
            properties = {"modelType": "custom_model", "modelUri": uri, "tags": {"lintas-digest": spec.digest}}
            self._workspace.put(path, {"properties": properties})
        return f"{self._workspace.id}/{path}"

    def _upload(self, file: Path, key: str) -> None:
        with file.open("rb") as content:
            self._store.put(key, iter(lambda: content.read(CHUNK_BYTES), b""), size_bytes=file.stat().st_size)

    def _environment(self) -> str:
        """The environment whose image serves MLflow's scoring protocol; made when it is absent, one an image."""
        image = self._config.option("serving_image")
        version = hashlib.sha256(image.encode()).hexdigest()[:16]
        path = f"environments/{_ENVIRONMENT}/versions/{version}"
        if self._workspace.find(path) is None:
            routes = {"livenessRoute": "/ping", "readinessRoute": "/ping", "scoringRoute": "/invocations"}
            inference = {name: {"path": route, "port": quirks()["serving_port"]} for name, route in routes.items()}
            properties = {"image": image, "osType": "Linux", "inferenceConfig": inference}
            self._workspace.put(path, {"properties": properties})
        return f"{self._workspace.id}/{path}"

    def _deployments(self, resource: str) -> dict[str, dict[str, Any]]:
        """The endpoint's deployments that Lintas made, by name; none when the endpoint is gone meanwhile."""
        try:
            found = list(self._workspace.list(f"onlineEndpoints/{resource}/deployments"))
        except NotFound:
            return {}
        return {each["name"]: each for each in found if "digest" in (each.get("tags") or {})}

    def _pending(
        self,
        name: str,
        endpoint: Mapping[str, Any],
        deployments: Mapping[str, Mapping[str, Any]],
        serving: str,
    ) -> str:
        """What is under way or went wrong, in one line; empty when there is nothing to say."""
        state = str(endpoint["properties"]["provisioningState"])
        for deployment in deployments.values():
            if deployment["properties"]["provisioningState"] == "Creating":
                return f"version {deployment['tags']['version']} is being deployed"
        trouble = self._troubles.get(name)
        if trouble is not None and trouble.deployment != serving:
            return trouble.error.what
        return "" if state == "Succeeded" else f"the endpoint is {state.lower()}"

    def _probe(self, url: str, serving: Mapping[str, Any]) -> tuple[str | None, str]:
        """Why the endpoint is not healthy, or None; and the name of the deployment that answered."""
        example = self._example(str(serving["tags"]["digest"]))
        if example is None:
            state = str(serving["properties"]["provisioningState"])
            return (None if state == "Succeeded" else f"its deployment is {state.lower()}"), ""
        try:
            answer = self._workspace.score(url, example)
        except Retryable as error:
            return error.what, ""
        answered = str(answer.headers.get("azureml-model-deployment", ""))
        if answer.status_code == 404:
            return "its deployment takes no requests", answered
        if answer.status_code == 424:
            return f"it refuses its own input example: {self._refused(answer).what}", answered
        return None, answered

    def _example(self, digest: str) -> bytes | None:
        """The model's own example request; None when it was logged without one."""
        if digest not in self._examples:
            try:
                self._examples[digest] = b"".join(self._store.get(f"{self._model_prefix(digest)}{EXAMPLE}"))
            except NotFound:
                self._examples[digest] = b""
        return self._examples[digest] or None

    def _scoring_url(self, name: str) -> str:
        if name not in self._scoring_urls:
            endpoint = self._workspace.find(f"onlineEndpoints/{self._resource(name)}")
            url = str(endpoint["properties"].get("scoringUri") or "") if endpoint else ""
            if not url:
                raise NotFound(
                    f"there is no endpoint '{name}' on '{self._cloud}'", "promote the model to this cloud first"
                )
            self._scoring_urls[name] = url
        return self._scoring_urls[name]

    def _refused(self, answer: HttpResponse) -> LintasError:
        """What the model's container answered, which the service hands on with 424 and the status in a header."""
        status = str(answer.headers.get("ms-azureml-model-error-statuscode", ""))
        if status.startswith("4"):
            reason = answered_reason(answer.read().decode(errors="replace"))
            return Invalid(f"'{self._cloud}' refuses the request: {reason}", "correct the request")
        return Terminal(f"the model on '{self._cloud}' fails with HTTP {status or 424}", "see the deployment's log")

    def _resource(self, name: str) -> str:
        """The name of the endpoint in Azure: short enough, and unique in the whole region."""
        unique = hashlib.sha256(f"{self._workspace.id.lower()}/{name}".encode()).hexdigest()[:8]
        return f"{name[: quirks()['endpoint_name_limit'] - len(unique) - 1].rstrip('-')}-{unique}"

    def _model_prefix(self, digest: str) -> str:
        folder = self._config.options.get("prefix", "").strip("/")
        return f"{folder}/lintas-models/{digest}/" if folder else f"lintas-models/{digest}/"


def shares(endpoint: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Who gets how many percent of the requests, and who of copies."""
    return tuple(
        {name: share for name, share in (endpoint["properties"].get(kind) or {}).items() if share}
        for kind in ("traffic", "mirrorTraffic")
    )  # pyright: ignore[reportReturnType]


def _mirrored(endpoint: Mapping[str, Any], deployments: Mapping[str, Mapping[str, Any]]) -> tuple[str, int]:
    """Which version gets copies of how many percent of the requests."""
    for name, percent in shares(endpoint)[1].items():
        if name in deployments:
            return deployments[name]["tags"]["version"], percent
    return "", 0


def _serving(endpoint: Mapping[str, Any], deployments: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    traffic: Mapping[str, int] = endpoint["properties"].get("traffic") or {}
    return next((deployments[name] for name, share in traffic.items() if share and name in deployments), None)


def _deployment_name(spec: EndpointSpec) -> str:
    facts = f"{spec.model}\n{spec.version}\n{spec.digest}"
    return f"lintas-{hashlib.sha256(facts.encode()).hexdigest()[:20]}"


def _asset_name(model: str) -> str:
    """A legal name for a model asset: letters, digits, `-`, `_` and dots; unlike models stay unlike.

    https://learn.microsoft.com/azure/machine-learning/reference-yaml-model
    """
    plain = "".join(character if character.isalnum() and character.isascii() else "-" for character in model)
    if plain == model:
        return model
    return f"{plain[:200]}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"
