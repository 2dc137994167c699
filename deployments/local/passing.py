"""Passing requests on to a server, and its answers back, as they are: for doubles that stand in front of one."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from starlette.requests import Request
from starlette.responses import StreamingResponse

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})


class Behind:
    """The server behind.

    Args:
        url: Where it listens, without a path.
        silence_s: Seconds without a byte after which it is given up; None: never.
    """

    def __init__(self, url: str, silence_s: float | None = None) -> None:
        self._url = httpx.URL(url)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = httpx.AsyncClient(timeout=silence_s, limits=limits, trust_env=False)

    async def asked(self, request: Request) -> httpx.Response:
        """Its answer, the body of which has not been read; raises `httpx.HTTPError` when there is none."""
        path, query = request.scope["raw_path"], request.scope["query_string"]
        has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        sent = httpx.Request(
            request.method,
            self._url.copy_with(raw_path=path + b"?" + query if query else path),
            # What is passed on waits for nobody's leave: the body follows at once.
            headers=[(name, value) for name, value in request.headers.raw if name.lower() != b"expect"],
            content=request.stream() if has_body else None,
        )
        return await self._client.send(sent, stream=True)

    async def answer(self, request: Request) -> StreamingResponse:
        """Its answer, to be sent on piece by piece."""
        answer = await self.asked(request)
        return StreamingResponse(answer.aiter_raw(), answer.status_code, passed_headers(answer))


def passed_headers(answer: httpx.Response) -> Mapping[str, str]:
    """The headers of an answer that are not about the connection it came by."""
    return {name: value for name, value in answer.headers.items() if name not in _HOP}
