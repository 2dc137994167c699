"""Serving on CoreWeave: a Deployment and a Service an endpoint, reached through the Kubernetes API.

MLflow's scoring server asks nobody who they are, so an endpoint is not exposed by itself: requests go through the API
server's service proxy, which checks the token (permission `services/proxy`). Whoever puts a gateway into the cluster
reaches the Service directly.

An update is a rolling one that never takes the last ready pod away; a version that does not come up leaves the one
before it serving (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError, NotFound, Retryable, Terminal
from tasks.core.release import Endpoint, EndpointSpec
from tasks.providers._dialects.kubernetes import Cluster, Json, open_cluster
from tasks.providers._dialects.scoring import answered_reason, checked_model, pack_model
from tasks.providers.coreweave.pods import COURIER, LABEL, WORK_DIR, Pods, read_catalog
from tasks.providers.coreweave.store import open_store

_ENDPOINT = "lintas/endpoint"
_MODEL, _VERSION, _DIGEST = "lintas/model", "lintas/version", "lintas/digest"
_CONTAINER = "serve"
_PORT, _PORT_NAME = 8080, "http"
_PING_TIMEOUT_S = 5.0
_PIECE_BYTES = 1024 * 1024


def open_server(cloud: CloudConfig) -> CoreWeaveServer:
    """The server of a CoreWeave cloud.

    Credentials are those of `tasks.providers.coreweave.trainer.open_trainer`, with `endpoints.serving`. Options:
    `serving_image` (required: has MLflow and what the model needs), `bucket` (required: where models are kept
    for the pods), `serving_instance_type` (any node unless set), `replicas` (1), `drain_s` (how long a pod goes on
    answering after it was taken out, 5), `start_timeout_s` (600).
    """
    return CoreWeaveServer(Pods(cloud, read_catalog()), open_cluster(cloud, "serving"))


class CoreWeaveServer:
    """The `Server` port by Kubernetes Deployments. Safe to use from several threads.

    Args:
        pods: How pods are made.
        cluster: Where they run.
    """

    def __init__(self, pods: Pods, cluster: Cluster) -> None:
        self._pods, self._cluster = pods, cluster
        self._cloud = pods.cloud
        self._image = self._cloud.option("serving_image")
        self._bucket = self._cloud.option("bucket")
        self._replicas = int(pods.number("replicas", 1))
        self._drain_s = int(pods.number("drain_s", 5))
        self._start_timeout_s = int(pods.number("start_timeout_s", 600))

    def deploy(self, spec: EndpointSpec) -> Endpoint:
        """See `Server.deploy`. The model travels only when object storage does not have it.

        Raises:
            IntegrityError: The files at `model_path` are not those of the spec's digest.
            Invalid: They are no MLflow model, or one without a signature.
            Retryable: Somebody else changes the endpoint at the same time.
        """
        found = self._cluster.read("Deployment", spec.name)
        if found is None or _notes(found["spec"]["template"]) != _wanted(spec):
            key, sha256 = self._keep_model(spec)
            courier = self._pods.courier()
            self._cluster.create(courier)
            self._cluster.put(self._pods.keys())
            self._cluster.put(self._deployment(spec, key, sha256, courier["metadata"]["name"]))
        self._cluster.create(_service(spec.name))
        seen = self.describe(spec.name)
        if seen is None:
            raise Retryable(f"the endpoint '{spec.name}' on '{self._cloud.name}' vanished again", "deploy it again")
        return seen

    def describe(self, name: str) -> Endpoint | None:
        """See `Server.describe`. While a rollout goes on, the version that is being replaced is what is served."""
        deployment = self._cluster.read("Deployment", name)
        if deployment is None:
            return None
        wanted = _notes(deployment["spec"]["template"])
        pods = [pod for pod in self._pods_of(name) if not pod["metadata"].get("deletionTimestamp")]
        ready = [pod for pod in pods if _is_ready(pod)]
        served = next((_notes(pod) for pod in ready if _notes(pod) != wanted), _notes(ready[0]) if ready else None)
        version = wanted.get(_VERSION, "")
        trouble = _trouble([pod for pod in pods if _notes(pod) == wanted], version) or _stuck(deployment, version)
        if served is None:
            return self._endpoint(name, {}, False, trouble or "its pod is starting")
        silent = self._silence(name)
        if silent:
            return self._endpoint(name, served, False, silent)
        going_on = trouble or "the new version is starting"
        return self._endpoint(name, served, True, "" if served == wanted else going_on)

    def predict(self, name: str, payload: bytes) -> bytes:
        """See `Server.predict`.

        Raises:
            NotFound: There is no such endpoint.
            Invalid: The request does not fit the model's signature; the message names columns and types, no values.
            Retryable: The endpoint has no ready pod at the moment.
        """
        try:
            status, body = self._cluster.ask_service("POST", name, _PORT_NAME, "/invocations", payload)
        except NotFound as error:
            raise NotFound(
                f"there is no endpoint '{name}' on '{self._cloud.name}'", "promote the model to this cloud first"
            ) from error
        if status < 300:
            return body
        raise self._refusal(name, status, body)

    def delete(self, name: str) -> None:
        """See `Server.delete`."""
        self._cluster.delete("Service", name)
        self._cluster.delete("Deployment", name)

    def _refusal(self, name: str, status: int, body: bytes) -> LintasError:
        here = f"'{name}' on '{self._cloud.name}'"
        reason = answered_reason(body.decode(errors="replace"))
        if status in (400, 413, 415, 422):
            return Invalid(f"{here} refuses the request: {reason}", "correct the request")
        if status in (429, 502, 503, 504):
            return Retryable(f"{here} cannot answer now ({status})", "try again")
        return Terminal(f"{here} answers {status}: {reason}", "see the log of its pod")

    def _keep_model(self, spec: EndpointSpec) -> tuple[str, str]:
        """Have the model in object storage. Returns its key and the archive's SHA-256."""
        directory = checked_model(spec)
        store = open_store(self._cloud, self._bucket)
        prefix = self._pods.option("prefix").strip("/")
        key = f"{prefix}/lintas-models/{spec.digest}.tar.gz".lstrip("/")
        with tempfile.TemporaryFile() as archive:
            pack_model(directory, archive)
            size_bytes = archive.tell()
            archive.seek(0)
            sha256 = hashlib.file_digest(archive, "sha256").hexdigest()
            archive.seek(0)
            pieces = iter(lambda: archive.read(_PIECE_BYTES), b"")
            store.create_bucket()
            with suppress(NotFound):
                # The key tells the model; the bytes of its archive could be those of another version of gzip.
                if store.head(key).metadata.get("sha256") == sha256:
                    return key, sha256
            store.put(key, pieces, size_bytes=size_bytes, metadata={"sha256": sha256})
        return key, sha256

    def _deployment(self, spec: EndpointSpec, key: str, sha256: str, courier_name: str) -> Json:
        pods, model = self._pods, f"{WORK_DIR}/model"
        unpack = ["python3", COURIER, "unpack", self._bucket, key, sha256, model]
        sku = pods.option("serving_instance_type")
        drain = {"lifecycle": {"preStop": {"sleep": {"seconds": self._drain_s}}}} if self._drain_s else {}
        serve = pods.container(
            _CONTAINER,
            self._image,
            [
                *("python3", "-m", "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"),
                *("--host", "0.0.0.0", "--port", str(_PORT)),  # noqa: S104 - inside of its pod
            ],
            ports=[{"name": _PORT_NAME, "containerPort": _PORT}],
            readinessProbe={"httpGet": {"path": "/ping", "port": _PORT}, "periodSeconds": 2, "timeoutSeconds": 5},
            resources=pods.resources(sku),
            **drain,
        )
        template = pods.spec(
            [serve],
            courier_name,
            initContainers=[pods.container("fetch", self._image, unpack, **pods.with_keys())],
            terminationGracePeriodSeconds=self._drain_s + 30,
            **pods.placing(sku, spot=False),
        )
        labels = {LABEL: "lintas", _ENDPOINT: spec.name}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": spec.name, "labels": labels},
            "spec": {
                "replicas": self._replicas,
                "selector": {"matchLabels": {_ENDPOINT: spec.name}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "progressDeadlineSeconds": self._start_timeout_s,
                "template": {"metadata": {"labels": labels, "annotations": _wanted(spec)}, "spec": template},
            },
        }

    def _pods_of(self, name: str) -> list[Json]:
        return self._cluster.list("Pod", labels=f"{_ENDPOINT}={name}")

    def _silence(self, name: str) -> str:
        """Why the endpoint does not answer its health check just now; empty when it does."""
        try:
            status, _ = self._cluster.ask_service("GET", name, _PORT_NAME, "/ping", timeout_s=_PING_TIMEOUT_S)
        except (Retryable, NotFound) as error:
            return error.what
        return "" if status < 300 else f"it answers its health check with {status}"

    def _endpoint(self, name: str, served: Json, healthy: bool, detail: str) -> Endpoint:
        return Endpoint(
            cloud=self._cloud.name,
            name=name,
            url=self._cluster.service_url(name, _PORT_NAME, "/invocations"),
            weight=0,
            digest=served.get(_DIGEST, ""),
            version=served.get(_VERSION, ""),
            healthy=healthy,
            detail=detail,
        )


def _wanted(spec: EndpointSpec) -> dict[str, str]:
    return {_MODEL: spec.model, _VERSION: spec.version, _DIGEST: spec.digest}


def _notes(thing: Json) -> dict[str, str]:
    """What a pod or a pod's template says that it serves."""
    notes: dict[str, Any] = thing["metadata"].get("annotations") or {}
    return {name: str(notes.get(name, "")) for name in (_MODEL, _VERSION, _DIGEST)}


def _service(name: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {LABEL: "lintas"}},
        "spec": {
            "type": "ClusterIP",
            "selector": {_ENDPOINT: name},
            "ports": [{"name": _PORT_NAME, "port": 80, "targetPort": _PORT}],
        },
    }


def _is_ready(pod: Json) -> bool:
    conditions: Sequence[Json] = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _stuck(deployment: Json, version: str) -> str:
    """What the Deployment itself says when its pods say nothing; empty while it makes progress."""
    conditions: Sequence[Json] = (deployment.get("status") or {}).get("conditions") or []
    told = {each["type"]: each for each in conditions}
    failure, progressing = told.get("ReplicaFailure"), told.get("Progressing")
    if failure and failure["status"] == "True":
        return f"version {version} gets no pod: {' '.join(failure.get('message', '').split())[:300]}"
    if progressing and progressing.get("reason") == "ProgressDeadlineExceeded":
        return f"version {version} does not start: no pod became ready in time; see the pod's log"
    return ""


def _trouble(pods: Sequence[Json], version: str) -> str:
    """Why pods that should serve do not come up; empty while there is nothing to say."""
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"version {version} has no node: {' '.join(condition.get('message', '').split())[:300]}"
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            last = {**(container.get("lastState") or {}), **(container.get("state") or {})}.get("terminated") or {}
            if "Image" in waiting.get("reason", ""):
                return f"version {version} does not start: the image '{container['image']}' cannot be pulled"
            if last.get("exitCode"):
                what = "its model could not be fetched" if container["name"] == "fetch" else "its container ended"
                return f"version {version} does not start: {what} with code {last['exitCode']}; see the pod's log"
    return ""
