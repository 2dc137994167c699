"""One scoring process: verifies a model, loads it and serves MLflow's scoring protocol on a socket it was given.

The protocol, the parsing and the enforcement of the signature are MLflow's own (`mlflow.pyfunc.scoring_server`,
https://mlflow.org/docs/latest/genai/serving/). Two things differ: the model must have a signature, and an error's
body never repeats the request, which MLflow's own does.
"""

from __future__ import annotations

import json
import re
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import IntegrityError, Invalid
from tasks.core.evaluation import model_digest

_DRAIN_S = 30

_KNOWN_REASONS = (
    r"Model is missing inputs \[[^\]]*\]",
    r"Incompatible input types for column [\w .-]+\. Can not safely convert [\w\[\],. ]+ to [\w\[\], ]+",
    r"Failed to convert column [\w .-]+ to type '[\w ]+'",
    r"The input column '[^']*' is required by the model signature but missing from the input data",
    r"Model inference is missing inputs\. The model signature declares \d+ inputs +but .{1,20} only has \d+",
    r"Dataframe (?:split|records) format must [a-z ]+",
)
"""What MLflow says about names and types of the model's own signature. Anything else may quote the request."""

_OTHER_REASONS = (
    (
        "must be a JSON dictionary",
        "the body must be a JSON object with exactly one of dataframe_split, dataframe_records, instances and inputs",
    ),
    ("valid JSON formatted string", "the body is not JSON"),
    ("only supports", "the content type is not one that MLflow's scoring protocol knows"),
    ("unexpected error while evaluating", "the model failed on this input"),
)


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


def plain_reason(text: str) -> str:
    r"""MLflow's reason in one line that holds names and types of the signature and no value of the request.

    >>> plain_reason("Failed to predict data '  a\n0 1'. \nError: Model is missing inputs ['b']. Note: extra ['c'].")
    "Model is missing inputs ['b']"
    >>> plain_reason("Failed to convert value `secret`")
    "the request does not fit the model's signature"
    """
    # The reason comes last, after the data that MLflow quotes; the data could hold a text that looks like one.
    for pattern in _KNOWN_REASONS:
        found = re.findall(pattern, text)
        if found:
            return " ".join(found[-1].split())
    for part, reason in _OTHER_REASONS:
        if part in text:
            return reason
    return "the request does not fit the model's signature"
