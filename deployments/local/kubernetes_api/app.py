"""The HTTP of the Kubernetes API: https://kubernetes.io/docs/reference/using-api/api-concepts/."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import hmac
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from deployments.local.faults import FaultTable, WireFaults
from deployments.local.kubernetes_api.checks import check
from deployments.local.kubernetes_api.controllers import Controllers, is_ready
from deployments.local.kubernetes_api.nodes import nodes_from_catalog
from deployments.local.kubernetes_api.objects import (
    RESOURCES,
    Change,
    Json,
    Key,
    Objects,
    Refused,
    Resource,
    fields_match,
    labels_match,
    merged,
    strategically_merged,
)
from deployments.local.kubernetes_api.pods import Kubelet

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_POLL_S = 0.1
# What a deletion is answered with; for everything else it is a Status.
_ANSWERED_WITH_THEMSELVES = ("services", "resourcequotas")


class ApiServer:
    """The API and everything behind it.

    Args:
        root: Directory of objects, volumes and logs.
        token: The only bearer token that is accepted.
        catalog: What nodes there are: CoreWeave's catalogue.
    """

    def __init__(self, root: Path, token: str, catalog: Mapping[str, Any]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._expected = f"Bearer {token}".encode()
        self._catalog = catalog
        self.faults = FaultTable()
        self._objects = Objects(root / "objects.json")
        self._kubelet = Kubelet(self._objects, root / "pods", self.faults)
        self._controllers = Controllers(self._objects, self._kubelet)
        self._objects.on_delete = self._delete_owned
        self._turns = itertools.count()
        self._client = httpx.AsyncClient(trust_env=False, timeout=60.0)

    @contextlib.asynccontextmanager
    async def running(self, _: object = None) -> AsyncIterator[None]:
        """Restore what was kept, and control it while the context lasts."""
        self._objects.restore()
        for node in nodes_from_catalog(self._catalog):
            self._objects.create("nodes", "", node)
        for name in ("default",):
            self._objects.create("namespaces", "", {"metadata": {"name": name}, "status": {"phase": "Active"}})
        for plural in ("jobs", "deployments"):
            for key, _found in self._objects.all(plural):
                self._controllers.control(key)
        try:
            yield
        finally:
            await self._controllers.close()
            await self._kubelet.close()
            await self._client.aclose()

    def app(self) -> ASGIApp:
        """The application with its faults."""
        routes = [
            Route("/readyz", lambda _: PlainTextResponse("ok")),
            Route("/version", self.version),
            Route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self.review_access, methods=["POST"]),
            Route("/{path:path}", self.handle, methods=_METHODS),
        ]
        return WireFaults(Starlette(lifespan=self.running, routes=routes), self.faults)

    async def version(self, _: Request) -> Response:
        """Which Kubernetes this stands for."""
        return JSONResponse({"major": "1", "minor": "34", "gitVersion": "v1.34.0-lintas-twin", "platform": "linux"})

    async def review_access(self, request: Request) -> Response:
        """Whether the caller may do something: all but what the fault `deny` takes away (`create jobs.batch`)."""
        try:
            self._authenticate(request)
        except Refused as error:
            return JSONResponse(error.status(), error.code)
        review = await request.json()
        asked = review.get("spec", {}).get("resourceAttributes") or {}
        below = f"/{asked['subresource']}" if asked.get("subresource") else ""
        group = f".{asked['group']}" if asked.get("group") else ""
        denied = self.faults.take("deny", operation=f"{asked.get('verb')} {asked.get('resource')}{below}{group}")
        return JSONResponse({**review, "status": {"allowed": denied is None}}, 201)

    async def handle(self, request: Request) -> Response:
        """Answer one request, or refuse it with a `Status`."""
        try:
            self._authenticate(request)
            self._meet_faults(request)
            return await self._dispatch(request)
        except Refused as error:
            details = {"name": request.url.path.rpartition("/")[2]}
            return JSONResponse(error.status(details), error.code, headers=error.headers)

    def _authenticate(self, request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected):
            raise Refused(401, "Unauthorized", "Unauthorized")

    def _meet_faults(self, request: Request) -> None:
        operation, target = f"{request.method} {request.url.path}", request.url.path.rpartition("/")[2]
        if self.faults.take("throttle", operation=operation, target=target):
            text = "the server has received too many requests and has asked us to try again later"
            raise Refused(429, "TooManyRequests", text, {"Retry-After": "1"})
        failing = self.faults.take("error", operation=operation, target=target)
        if failing:
            raise Refused(failing.status, "InternalError", "an error on the server has prevented the request")

    def _require_permission(self, request: Request, resource: Resource, namespace: str, rest: list[str]) -> None:
        verb = _VERBS[request.method]
        if request.method == "GET" and not rest:
            verb = "watch" if request.query_params.get("watch") in ("true", "True", "1") else "list"
        below = f"/{rest[1]}" if len(rest) > 1 else ""
        group = f".{resource.group}" if resource.group else ""
        if self.faults.take("deny", operation=f"{verb} {resource.plural}{below}{group}", target="/".join(rest[:1])):
            user = 'User "lintas" cannot'
            text = f'{resource.full_name} is forbidden: {user} {verb} resource "{resource.plural}{below}" '
            raise Refused(403, "Forbidden", f'{text}in API group "{resource.group}" in the namespace "{namespace}"')

    async def _dispatch(self, request: Request) -> Response:
        parts = [part for part in request.url.path.split("/") if part]
        resource, namespace, rest = _addressed(parts)
        self._require_permission(request, resource, namespace, rest)
        body = await _body(request)
        if not rest:
            return await self._collection(request, resource, namespace, body)
        name, below = rest[0], rest[1:]
        if resource.plural == "services" and below[:1] == ["proxy"]:
            path = request.url.path.split("/proxy", 1)[1]
            return await self._proxy(request, namespace, name, path)
        key = (resource.plural, namespace if resource.namespaced else "", name)
        found = self._objects.get(key)
        if below == ["log"] and resource.plural == "pods":
            return self._log(request, key, found)
        if below not in ([], ["status"]):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        match request.method:
            case "GET":
                return JSONResponse(found)
            case "PUT":
                return self._change(resource, key, body)
            case "PATCH":
                return self._change(resource, key, _patched(request, found, body))
            case "DELETE":
                return self._delete(resource, key, found)
            case _:
                raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the resource")

    async def _collection(self, request: Request, resource: Resource, namespace: str, body: Any) -> Response:
        if request.method == "POST":
            return self._create(request, resource, namespace, body)
        if request.method != "GET":
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        asked = request.query_params
        if asked.get("watch") in ("true", "True", "1"):
            return StreamingResponse(self._watch(request, resource, namespace), media_type="application/json")
        chosen = [found for _, found in self._objects.all(resource.plural, namespace) if _chosen(asked, found)]
        return JSONResponse(
            {
                "kind": f"{resource.kind}List",
                "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": str(self._objects.version)},
                "items": chosen,
            }
        )

    def _create(self, request: Request, resource: Resource, namespace: str, body: Any) -> Response:
        if not isinstance(body, dict) or body.get("kind", resource.kind) != resource.kind:
            raise Refused(400, "BadRequest", f"the object provided is not a {resource.kind}")
        if resource.namespaced and self._objects.find(("namespaces", "", namespace)) is None:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        manifest = _prepared(resource, body)
        check(resource.kind, manifest)
        name = manifest["metadata"].get("name", "")
        if resource.plural in ("jobs", "deployments") and self.faults.take("quota", target=name):
            kind = {"jobs": "jobs.batch", "deployments": "deployments.apps"}[resource.plural]
            text = f'{kind} "{name}" is forbidden: exceeded quota: gpus, requested: count/{kind}=1, '
            raise Refused(403, "Forbidden", text + f"used: count/{kind}=4, limited: count/{kind}=4")
        if request.query_params.get("dryRun") == "All":
            return JSONResponse(manifest, 201)
        key, found = self._objects.create(resource.plural, namespace, manifest)
        self._controllers.control(key)
        if resource.plural == "pods":
            self._kubelet.start(key)
        return JSONResponse(found, 201)

    def _change(self, resource: Resource, key: Key, wanted: Any) -> Response:
        before = copy.deepcopy(self._objects.get(key))
        if not isinstance(wanted, dict) or (wanted.get("metadata") or {}).get("name", key[2]) != key[2]:
            raise Refused(400, "BadRequest", "the name of the object does not match the name on the URL")
        prepared = _prepared(resource, wanted)
        check(resource.kind, prepared, before)
        return JSONResponse(self._objects.update(key, prepared))

    def _delete(self, resource: Resource, key: Key, found: Json) -> Response:
        if resource.plural == "pods":
            self._kubelet.delete(key)
            return JSONResponse(found)
        self._objects.remove(key)
        if resource.plural in _ANSWERED_WITH_THEMSELVES:
            return JSONResponse(found)
        details = {"name": key[2], "kind": resource.plural, "uid": found["metadata"]["uid"]}
        return JSONResponse({"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details})

    def _delete_owned(self, key: Key, _: Json) -> None:
        if key[0] == "pods":
            self._kubelet.delete(key)
        else:
            self._objects.remove(key)

    async def _watch(self, request: Request, resource: Resource, namespace: str) -> AsyncIterator[bytes]:
        asked = request.query_params
        queue = self._objects.watching()
        patience_s = float(asked.get("timeoutSeconds", 3600))
        until = asyncio.get_running_loop().time() + patience_s
        try:
            if asked.get("resourceVersion", "0") in ("", "0"):
                for _, found in self._objects.all(resource.plural, namespace):
                    if _chosen(asked, found):
                        yield _event("ADDED", found)
            else:
                for change in self._objects.since(int(asked["resourceVersion"])):
                    if _concerns(change, resource, namespace, asked):
                        yield _event(change.kind, change.object)
            while (left_s := until - asyncio.get_running_loop().time()) > 0:
                try:
                    change = await asyncio.wait_for(queue.get(), left_s)
                except TimeoutError:
                    return
                if _concerns(change, resource, namespace, asked):
                    yield _event(change.kind, change.object)
        except Refused as error:
            yield _event("ERROR", error.status())
        finally:
            self._objects.unwatch(queue)

    def _log(self, request: Request, key: Key, pod: Json) -> Response:
        container = request.query_params.get("container") or pod["spec"]["containers"][0]["name"]
        owner = next((each["name"] for each in pod["metadata"].get("ownerReferences", [])), key[2])
        if self.faults.take("lost_logs", target=owner):
            raise Refused(404, "NotFound", f'the log of container "{container}" in pod "{key[2]}" is gone')
        text = self._kubelet.log(key, container)
        if text is None:
            waits = f'container "{container}" in pod "{key[2]}" is waiting to start: ContainerCreating'
            raise Refused(400, "BadRequest", waits)
        if request.query_params.get("follow") in ("true", "True"):
            return StreamingResponse(self._follow(key, container), media_type="text/plain")
        tail = request.query_params.get("tailLines")
        return PlainTextResponse("".join(text.splitlines(keepends=True)[-int(tail) :]) if tail else text)

    async def _follow(self, key: Key, container: str) -> AsyncIterator[str]:
        sent = 0
        while True:
            pod = self._objects.find(key)
            ended = pod is None or pod["status"]["phase"] in ("Succeeded", "Failed")
            text = self._kubelet.log(key, container) or "" if pod is not None else ""
            yield text[sent:]
            sent = max(sent, len(text))
            if ended:
                return
            await asyncio.sleep(_POLL_S)

    async def _proxy(self, request: Request, namespace: str, name: str, path: str) -> Response:
        service_name = name.split(":")[0]
        service = self._objects.get(("services", namespace, service_name))
        selector = service["spec"].get("selector") or {}
        ready = [
            key
            for key, pod in self._objects.all("pods", namespace)
            if is_ready(pod) and all(pod["metadata"]["labels"].get(label) == value for label, value in selector.items())
        ]
        processes = [process for key in ready if (process := self._kubelet.scoring_process(key)) is not None]
        if not processes:
            raise Refused(503, "ServiceUnavailable", f'no endpoints available for service "{service_name}"')
        process = processes[next(self._turns) % len(processes)]
        # As the API server does, the caller's own credentials stay here.
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        try:
            if request.method == "POST" and path == "/invocations":
                answer = await self._kubelet.models.score(process, await request.body(), headers)
            else:
                answer = await self._client.request(request.method, process.url + path, content=await request.body())
        except httpx.HTTPError as error:
            text = f"error trying to reach service: {type(error).__name__}"
            raise Refused(503, "ServiceUnavailable", text) from error
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


def _addressed(parts: list[str]) -> tuple[Resource, str, list[str]]:
    """Resource, namespace and what follows, by the path of a request."""
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        rest, group, version = [], "", ""
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource = RESOURCES.get((group, version, rest[0])) if rest else None
    if resource is None:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    return resource, namespace, rest[1:]


async def _body(request: Request) -> Any:
    raw = await request.body()
    if not raw or request.url.path.split("/")[-1] == "invocations":
        return {}
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Refused(400, "BadRequest", "the object provided is unrecognized") from error


def _prepared(resource: Resource, body: Json) -> Json:
    """An object with the defaults that the API server fills in."""
    found = copy.deepcopy(body)
    found.setdefault("metadata", {})
    if resource.plural == "secrets":
        for name, value in (found.pop("stringData", None) or {}).items():
            found.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
    if resource.plural in ("jobs", "pods", "deployments"):
        found.setdefault("status", {"phase": "Pending"} if resource.plural == "pods" else {})
    return found


def _patched(request: Request, found: Json, change: Any) -> Any:
    kind = request.headers.get("content-type", "").split(";")[0]
    match kind:
        case "application/merge-patch+json":
            return merged(found, change)
        case "application/strategic-merge-patch+json":
            return strategically_merged(found, change)
        case _:
            raise Refused(415, "UnsupportedMediaType", f"the twin does not imitate patches of type '{kind}'")


def _chosen(asked: Mapping[str, str], found: Json) -> bool:
    labels = found["metadata"].get("labels") or {}
    return labels_match(asked.get("labelSelector", ""), labels) and fields_match(asked.get("fieldSelector", ""), found)


def _concerns(change: Change, resource: Resource, namespace: str, asked: Mapping[str, str]) -> bool:
    plural, where, _ = change.key
    return plural == resource.plural and namespace in ("", where) and _chosen(asked, change.object)


def _event(kind: str, found: Json) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"
