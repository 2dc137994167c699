"""What the double remembers: resources by name, and long-running operations. All of it is gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments.local.vertex_ai.errors import Refused, invalid, not_found

_TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."
_LARGEST_PAGE = 100

Resource = dict[str, Any]
Work = Callable[[], Awaitable[Mapping[str, Any]]]


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_id() -> str:
    """An id as the service makes one: a number of up to 19 digits."""
    return str(10**18 + secrets.randbelow(8 * 10**18))


@dataclass
class _Operation:
    resource: Resource
    task: asyncio.Task[None] | None = None


@dataclass
class Registry:
    """Resources and operations of one project in one location.

    Args:
        project: The project's id.
        location: The region.
    """

    project: str
    location: str
    resources: dict[str, Resource] = field(default_factory=dict[str, Resource])
    _operations: dict[str, _Operation] = field(default_factory=dict[str, _Operation])

    @property
    def parent(self) -> str:
        """Name of the location: what names of resources begin with."""
        return f"projects/{self.project}/locations/{self.location}"

    def get(self, name: str) -> Resource:
        """The resource. Raises `Refused` (404)."""
        if name not in self.resources:
            raise not_found(name)
        return self.resources[name]

    def page(
        self, kind: str, field_name: str, query: Mapping[str, str], keep: Callable[[Resource], bool]
    ) -> dict[str, Any]:
        """A page of a listing, newest first.

        Args:
            kind: The collection: `customJobs`.
            field_name: The answer's field: `customJobs`.
            query: `pageSize` and `pageToken`.
            keep: Whether the request's filter lets a resource through.
        """
        prefix = f"{self.parent}/{kind}/"
        found = [each for name, each in self.resources.items() if name.startswith(prefix) and keep(each)]
        found.sort(key=lambda each: str(each.get("createTime", "")), reverse=True)
        try:
            begin = int(query.get("pageToken") or 0)
            size = min(int(query.get("pageSize") or _LARGEST_PAGE), _LARGEST_PAGE)
        except ValueError as error:
            raise invalid("The page token or the page size is invalid.") from error
        answer: dict[str, Any] = {field_name: found[begin : begin + size]} if found else {}
        if begin + size < len(found):
            answer["nextPageToken"] = str(begin + size)
        return answer

    def begin(self, owner: str, kind: str, work: Work, answer: str = "") -> Resource:
        """Begin a long-running operation.

        Args:
            owner: Name of the resource that it belongs to.
            kind: Its metadata's type is `KIND` + `OperationMetadata`.
            work: What it does; its result is the operation's response.
            answer: Type of the response; empty: `google.protobuf.Empty`.
        """
        moment = now()
        generic = {"createTime": moment, "updateTime": moment}
        operation = _Operation(
            {
                "name": f"{owner}/operations/{new_id()}",
                "metadata": {"@type": f"{_TYPE}{kind}OperationMetadata", "genericMetadata": generic},
            }
        )

        async def run() -> None:
            try:
                result = await work()
            except Refused as refused:
                self._end(operation.resource, error=refused.as_status())
            except asyncio.CancelledError:
                cancelled = Refused("CANCELLED", "The operation was cancelled.")
                self._end(operation.resource, error=cancelled.as_status())
            except Exception as error:
                broken = Refused("INTERNAL", f"Internal error encountered ({type(error).__name__}).")
                self._end(operation.resource, error=broken.as_status())
                raise
            else:
                kind_of_answer = f"{_TYPE}{answer}" if answer else "type.googleapis.com/google.protobuf.Empty"
                self._end(operation.resource, response={"@type": kind_of_answer, **result})

        self._operations[operation.resource["name"]] = operation
        operation.task = asyncio.create_task(run(), name=operation.resource["name"])
        return operation.resource

    def operation(self, name: str) -> Resource:
        """An operation as it stands. Raises `Refused` (404)."""
        if name not in self._operations:
            raise not_found(name)
        return self._operations[name].resource

    async def cancel(self, name: str) -> None:
        """Cancel an operation; one that is done stays as it is. Raises `Refused` (404)."""
        self.operation(name)
        task = self._operations[name].task
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def close(self) -> None:
        """End all operations."""
        for name in list(self._operations):
            await self.cancel(name)

    @staticmethod
    def _end(resource: Resource, **outcome: Any) -> None:
        resource["metadata"]["genericMetadata"]["updateTime"] = now()
        resource |= {"done": True, **outcome}
