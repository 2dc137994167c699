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
    uvicorn.Server(config).run(sockets=[listening(port) for port in ports])


def listening(port: int) -> socket.socket:
    """A socket that listens on the port of 127.0.0.1, for asyncio."""
    # asyncio switches Nagle's delay (40 ms an answer) off only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(2048)
    return listener
