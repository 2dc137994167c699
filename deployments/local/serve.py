"""How every server of the twin that speaks HTTP listens."""

from __future__ import annotations

from typing import Any

from deployments.local.processes import HOST


def serve(app: Any, port: int, **settings: Any) -> None:
    """Serve an ASGI application on 127.0.0.1 until a signal ends it.

    Args:
        app: The application.
        port: Its TCP port.
        settings: What else uvicorn is told.
    """
    import uvicorn

    # A client that keeps its connection open, or waits for a fault to pass, must not keep a stopped server alive.
    uvicorn.run(app, host=HOST, port=port, log_level="warning", timeout_graceful_shutdown=2, **settings)
