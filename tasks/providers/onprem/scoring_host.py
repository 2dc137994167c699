"""The scoring host of an on-premises site: serves any number of MLflow models on one port.

    python -m tasks.providers.onprem.scoring_host --port 5001 --root DIR [--token-file FILE]

It listens on 127.0.0.1; for other machines put a proxy with TLS in front. Endpoints and models are kept under the
root and come back when the host starts again.

| request | answer |
| --- | --- |
| `GET /ping` | 200 while the host runs; needs no token |
| `PUT /models/DIGEST` (a tar of an MLflow model's directory) | 200 once it is kept under this digest |
| `PUT /endpoints/NAME` `{"model", "version", "digest"}` | 202 on its way, 200 if so already, 409 without the model |
| `GET /endpoints`, `GET /endpoints/NAME` | what is wanted, what is served, and whether it answers a probe now |
| `DELETE /endpoints/NAME` | 204, also when there is none |
| `POST /endpoints/NAME/invocations` | the prediction, by MLflow's scoring protocol |
| `GET /endpoints/NAME/ping`, `/version` | 200 when it is healthy; the version of MLflow |

Errors have MLflow's shape: `{"error_code", "message"}`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hmac
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks.core.errors import Denied, IntegrityError, Invalid, LintasError, NotFound, Retryable, Terminal
from tasks.providers.onprem.scoring.endpoint import ServedEndpoint
from tasks.providers.onprem.scoring.fork_server import ForkServer
from tasks.providers.onprem.scoring.models import Models
from tasks.providers.onprem.scoring.process import Definition

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REQUEST_LIMIT_BYTES = 16 * 1024 * 1024
_SCORE_TIMEOUT_S = 60.0
_MIB = 1024 * 1024


class ScoringHost:
    """The endpoints of one root directory, and the requests that they take.

    Args:
        root: Directory for models, definitions and logs; one host at a time uses it.
        model_limit_bytes: How large a model may be.

    Raises:
        Invalid: Another host uses the root.
        Terminal: The root cannot be used.
    """

    def __init__(self, root: Path, model_limit_bytes: int) -> None:
        self._directory = root / "endpoints"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = (root / "lock").open("w")
            self.models = Models(root / "models", model_limit_bytes)
        except OSError as error:
            raise Terminal(f"{root} cannot be used ({error.strerror})", "choose another --root") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Invalid(f"another scoring host uses {root}", "stop it, or choose another --root") from error
        self._forks = ForkServer(root / "zygote.log")
        self._endpoints: dict[str, ServedEndpoint] = {}

    @contextlib.asynccontextmanager
    async def running(self, _: object = None) -> AsyncIterator[None]:
        """Restore what was served, serve it while the context lasts, and end all processes after it."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=600)
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=_SCORE_TIMEOUT_S) as self._client:
            forking = asyncio.create_task(self._forks.run())
            self._restore()
            try:
                yield
            finally:
                await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()))
                forking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await forking

    def _restore(self) -> None:
        for file in sorted(self._directory.glob("*.json")):
            endpoint = self._endpoint(file.stem)
            try:
                endpoint.restore()
            except (ValueError, KeyError, TypeError):
                print(f"{file} cannot be read and is left aside: deploy '{file.stem}' again", file=sys.stderr)
                continue
            self._endpoints[file.stem] = endpoint
        self.models.keep_only({digest for endpoint in self._endpoints.values() for digest in endpoint.digests()})

    def _endpoint(self, name: str) -> ServedEndpoint:
        return ServedEndpoint(name, self._directory, self.models, self._forks, self._client, self._model_unused)

    def _model_unused(self, digest: str) -> None:
        if not any(digest in endpoint.digests() for endpoint in self._endpoints.values()):
            self.models.forget(digest)

    def _named(self, request: Request) -> ServedEndpoint:
        name = request.path_params["name"]
        if name not in self._endpoints:
            raise NotFound(f"there is no endpoint '{name}'", "deploy it first")
        return self._endpoints[name]

    async def put_model(self, request: Request) -> Response:
        """Take in a model's archive, unless the model is here."""
        digest = request.path_params["digest"]
        if not self.models.holds(digest):
            try:
                await self.models.receive(digest, request.stream())
            except ClientDisconnect as error:
                raise Invalid("the model's archive was cut off", "send it again") from error
            for endpoint in self._endpoints.values():
                if digest in endpoint.digests():
                    endpoint.try_again()
        return JSONResponse({"digest": digest})

    async def put_endpoint(self, request: Request) -> Response:
        """Want an endpoint to serve a model version."""
        name = request.path_params["name"]
        if not _NAME.fullmatch(name):
            raise Invalid(
                "an endpoint's name has up to 63 lower-case letters, digits and dashes", "choose another name"
            )
        definition = await _definition(request)
        if not self.models.holds(definition.digest):
            return _error(409, "MODEL_MISSING", "the model is not here; put it under /models first")
        endpoint = self._endpoints.get(name)
        if endpoint is not None and endpoint.wanted == definition:
            return JSONResponse(await self._describe(endpoint), status_code=200)
        endpoint = endpoint or self._endpoint(name)
        endpoint.want(definition)
        self._endpoints[name] = endpoint
        return JSONResponse(await self._describe(endpoint), status_code=202)

    async def get_endpoint(self, request: Request) -> Response:
        """Describe an endpoint as it is now."""
        return JSONResponse(await self._describe(self._named(request)))

    async def list_endpoints(self, _: Request) -> Response:
        """Describe all endpoints."""
        found = await asyncio.gather(*(self._describe(endpoint) for endpoint in self._endpoints.values()))
        return JSONResponse({"endpoints": sorted(found, key=lambda described: described["name"])})

    async def delete_endpoint(self, request: Request) -> Response:
        """Remove an endpoint after its last request."""
        endpoint = self._endpoints.pop(request.path_params["name"], None)
        if endpoint is not None:
            await endpoint.remove()
        return Response(status_code=204)

    async def _describe(self, endpoint: ServedEndpoint) -> dict[str, Any]:
        seen = await endpoint.observe()
        process = endpoint.serving
        return {
            "name": endpoint.name,
            "wanted": asdict(endpoint.wanted) if endpoint.wanted else None,
            "served": asdict(seen.definition) if seen.definition else None,
            "healthy": seen.healthy,
            "detail": seen.detail,
            "pid": process.pid if process else None,
        }

    async def invoke(self, request: Request) -> Response:
        """Hand a request to the scoring process of the endpoint."""
        endpoint = self._named(request)
        body = await _body(request)
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        return await self._ask(endpoint, "POST", "/invocations", body, headers)

    async def ping(self, request: Request) -> Response:
        """Tell whether the endpoint predicts."""
        seen = await self._named(request).observe()
        return Response("\n", status_code=200) if seen.healthy else _error(503, "NOT_HEALTHY", seen.detail)

    async def version(self, request: Request) -> Response:
        """The version of MLflow that serves."""
        return await self._ask(self._named(request), "GET", "/version", b"", {})

    async def _ask(
        self, endpoint: ServedEndpoint, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> Response:
        process = endpoint.serving
        if process is None:
            return _unavailable(endpoint)
        with process.request():
            try:
                answer = await self._client.request(method, process.url + path, content=body, headers=headers)
            except httpx.TimeoutException:
                return _error(504, "TIMEOUT", f"no prediction in {_SCORE_TIMEOUT_S:.0f} s")
            except httpx.HTTPError:
                return _unavailable(endpoint)
        served = process.definition
        return Response(
            answer.content,
            answer.status_code,
            headers={"lintas-model-version": served.version, "lintas-model-digest": served.digest},
            media_type=answer.headers.get("content-type"),
        )

    def app(self, token: str | None) -> Starlette:
        """The HTTP application. With a token, every request but `GET /ping` must bear it."""
        app = Starlette(
            lifespan=self.running,
            routes=[
                Route("/ping", lambda _: Response("\n")),
                Route("/models/{digest}", self.put_model, methods=["PUT"]),
                Route("/endpoints", self.list_endpoints),
                Route("/endpoints/{name}", self.put_endpoint, methods=["PUT"]),
                Route("/endpoints/{name}", self.get_endpoint),
                Route("/endpoints/{name}", self.delete_endpoint, methods=["DELETE"]),
                Route("/endpoints/{name}/invocations", self.invoke, methods=["POST"]),
                Route("/endpoints/{name}/ping", self.ping),
                Route("/endpoints/{name}/version", self.version),
            ],
            exception_handlers={
                LintasError: _answer_error,
                HTTPException: _answer_http_error,
                Exception: _answer_unknown_error,
            },
        )
        if token is not None:
            app.add_middleware(BearerToken, token=token)
        return app


class BearerToken:
    """ASGI middleware that asks for the token before anything is read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with 401."""
        if scope["type"] == "http" and scope["path"] != "/ping":
            borne = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(borne, self._expected):
                await _error(401, "UNAUTHENTICATED", "the token is missing or wrong")(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _definition(request: Request) -> Definition:
    try:
        said = await request.json()
        definition = Definition(said["model"], said["version"], said["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid("the body must be JSON with model, version and digest", "send these three") from error
    if not all(isinstance(part, str) and part for part in asdict(definition).values()):
        raise Invalid("model, version and digest must be texts that are not empty", "send these three")
    return definition


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _REQUEST_LIMIT_BYTES:
            raise HTTPException(413, f"a request may have {_REQUEST_LIMIT_BYTES // _MIB} MiB")
    return bytes(body)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error_code": code, "message": message}, status_code=status, headers=headers)


def _unavailable(endpoint: ServedEndpoint) -> Response:
    message = f"endpoint '{endpoint.name}' has no scoring process now"
    return _error(503, "UNAVAILABLE", message, headers={"retry-after": "1"})


_STATUS: tuple[tuple[type[LintasError], int, str], ...] = (
    (NotFound, 404, "NOT_FOUND"),
    (Invalid, 400, "BAD_REQUEST"),
    (Denied, 403, "DENIED"),
    (IntegrityError, 422, "DIGEST_MISMATCH"),
    (Retryable, 503, "UNAVAILABLE"),
    (LintasError, 507, "STORAGE"),
)


async def _answer_error(_: Request, error: Exception) -> Response:
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    return _error(status, code, error.what if isinstance(error, LintasError) else "")


async def _answer_http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    return _error(status, "BAD_REQUEST", detail)


async def _answer_unknown_error(_: Request, error: Exception) -> Response:
    return _error(500, "INTERNAL_ERROR", f"the scoring host failed ({type(error).__name__}); see its log")


def _listen(port: int) -> socket.socket:
    # asyncio switches Nagle's delay (40 ms an answer) off only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise Invalid(f"port {port} cannot be used ({error.strerror})", "choose another --port") from error
    return listener


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text().split("\n", 1)[0].strip()
    except OSError as error:
        raise Denied(f"the token file {file} cannot be read ({error.strerror})", "correct --token-file") from error
    if not token:
        raise Denied(f"the token file {file} is empty", "write the token on its first line")
    return token


def main() -> None:
    """Run the host until SIGTERM or SIGINT; requests under way are finished."""
    parser = argparse.ArgumentParser(prog="scoring_host", description="Serve MLflow models on 127.0.0.1.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True, help="directory for models, definitions and logs")
    parser.add_argument("--token-file", type=Path, help="file whose first line every request must bear")
    parser.add_argument("--model-limit-mib", type=int, default=4096, help="how large a model may be, in MiB")
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        token = _token(arguments.token_file)
        listener = _listen(arguments.port)
        host = ScoringHost(arguments.root.resolve(), arguments.model_limit_mib * _MIB)
    except LintasError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    config = uvicorn.Config(host.app(token), log_level="warning", access_log=False, timeout_graceful_shutdown=30)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
