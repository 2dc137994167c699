"""Long-running operations: what a client polls after a request was accepted.

https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Coroutine
from typing import Any

from starlette.responses import JSONResponse, Response

from deployments.local.azure_ml.refusals import Refused, not_found


class Operations:
    """The operations of one region.

    Args:
        place: Path below which they are told.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._states: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, base: str, work: Coroutine[Any, Any, None]) -> dict[str, str]:
        """Let work go on, and return the headers that lead to its state."""
        name = str(uuid.uuid4())
        self._states[name] = {"id": f"{self._place}/mfeOperationsStatus/{name}", "name": name, "status": "InProgress"}
        self.keep(self._follow(name, work))
        return {
            "azure-asyncoperation": f"{base}{self._place}/mfeOperationsStatus/{name}?api-version=2024-10-01",
            "location": f"{base}{self._place}/mfeOperationResults/{name}?api-version=2024-10-01",
            "retry-after": "0",
        }

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let work go on that nobody asks for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def answer(self, kind: str, name: str) -> Response:
        """The state (`mfeOperationsStatus`) or the result (`mfeOperationResults`) of an operation."""
        if name not in self._states:
            raise not_found("operation", name)
        state = self._states[name]
        if kind == "mfeOperationsStatus":
            return JSONResponse(state)
        return Response(status_code=202 if state["status"] == "InProgress" else 204)

    async def close(self) -> None:
        """Give up whatever is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refused as refused:
            self._states[name] |= {"status": "Failed", "error": refused.as_error()}
        except Exception as error:
            print(f"operation {name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed = Refused(500, "InternalServerError", f"The local double failed ({type(error).__name__}).")
            self._states[name] |= {"status": "Failed", "error": failed.as_error()}
            raise
        else:
            self._states[name] |= {"status": "Succeeded", "percentComplete": 100}
