"""One scoring process: verifies a model, loads it and serves MLflow's scoring protocol on a socket it was given.

The protocol, the parsing and the enforcement of the signature are MLflow's own (`mlflow.pyfunc.scoring_server`,
https://mlflow.org/docs/latest/genai/serving/). Two things differ: the model must have a signature, and an error's
body never repeats the request, which MLflow's own does.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import IntegrityError, Invalid
from tasks.core.evaluation import model_digest
from tasks.providers._dialects.scoring import plain_reason

_DRAIN_S = 30


@dataclass(frozen=True, slots=True)
class Definition:
    """What a scoring process serves: a model version, and the digest that its files must have."""

    model: str
    version: str
    digest: str


def serve(definition: Definition, directory: Path, listener: socket.socket) -> None:
    """Serve the model in `directory` until the process is told to end; requests under way are finished then.

    Raises:
        IntegrityError: The files are not those of the definition.
        Invalid: The model has no signature.
    """
    import mlflow.pyfunc
    import mlflow.pyfunc.scoring_server as scoring_server
    import uvicorn

    if model_digest(directory) != definition.digest:
        raise IntegrityError(f"the files of '{definition.model}' {definition.version} were altered", "deploy it again")
    # With its warnings MLflow reads the metadata of every installed package, for 0.5 s.
    model = mlflow.pyfunc.load_model(str(directory), suppress_warnings=True)
    if model.metadata.signature is None:
        raise Invalid(
            f"'{definition.model}' {definition.version} has no signature",
            "log the model with a signature, then deploy it",
        )
    app: Any = scoring_server.init(model)
    app.get("/served")(lambda: asdict(definition))
    config = uvicorn.Config(
        PlainErrors(app),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        # The host keeps its connections: one that this side closed could meet a request on its way.
        timeout_keep_alive=24 * 3600,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    uvicorn.Server(config).run(sockets=[listener])


class PlainErrors:
    """ASGI middleware that puts one line in the place of MLflow's error bodies, which quote the request."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything through but the bodies of errors."""
        failed: dict[str, Any] | None = None
        body = bytearray()

        async def watch(message: Any) -> None:
            nonlocal failed
            if message["type"] == "http.response.start" and message["status"] >= 400:
                failed = message
            elif failed is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    await _send_error(send, failed["status"], bytes(body))

        await self._app(scope, receive, watch)


async def _send_error(send: Any, status: int, body: bytes) -> None:
    code, text = "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST", body.decode(errors="replace")
    try:
        said = json.loads(text)
        code, text = str(said.get("error_code", code)), str(said.get("message", ""))
    except (ValueError, AttributeError):
        pass
    plain = json.dumps({"error_code": code, "message": plain_reason(text)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(plain)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": plain})
