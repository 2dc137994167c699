"""How every server of the twin that speaks HTTP listens."""

from __future__ import annotations

import socket
from typing import Any

from deployments.local.processes import HOST


def serve(app: Any, *ports: int, **settings: Any) -> None:
    """Serve an ASGI application on 127.0.0.1 until a signal ends it.

    Args:
        app: The application.
        ports: Its TCP ports; the scope of a request says by which it came.
        settings: What else uvicorn is told.
    """
    import uvicorn

    # A client that keeps its connection open, or waits for a fault to pass, must not keep a stopped server alive.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, **settings)
    uvicorn.Server(config).run(sockets=[socket.create_server((HOST, port), backlog=2048) for port in ports])
