"""What an account has in SageMaker: things by kind and name, and their tags. In memory: gone with the double."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from deployments.local.sagemaker.wire import Account, Refused, invalid

Thing = dict[str, Any]

_CHANGING = ("training-job", "endpoint")
_SUMMARIES = {
    "training-job": (
        "TrainingJobName",
        "TrainingJobArn",
        "CreationTime",
        "TrainingEndTime",
        "LastModifiedTime",
        "TrainingJobStatus",
        "SecondaryStatus",
        "WarmPoolStatus",
    ),
    "model": ("ModelName", "ModelArn", "CreationTime"),
    "endpoint-config": ("EndpointConfigName", "EndpointConfigArn", "CreationTime"),
    "endpoint": ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus"),
}
"""What a listing tells of each."""


class Resources:
    """The account's things.

    Args:
        account: Whose they are.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self._things: dict[tuple[str, str], Thing] = {}
        self._tags: dict[str, dict[str, str]] = {}

    def add(self, kind: str, name: str, thing: Thing, taken: Refused) -> str:
        """Enter a thing with the tags of its request; returns its ARN. Raises `taken` when there is one."""
        if (kind, name) in self._things:
            raise taken
        arn = self.account.arn(kind, name)
        thing["CreationTime"] = time.time()
        if kind in _CHANGING:
            thing["LastModifiedTime"] = thing["CreationTime"]
        self._tags[arn] = {tag["Key"]: tag["Value"] for tag in thing.pop("Tags", [])}
        self._things[kind, name] = thing
        return arn

    def find(self, kind: str, name: str) -> Thing | None:
        """The thing of this name, if there is one."""
        return self._things.get((kind, name))

    def named(self, kind: str, name: str) -> Thing:
        """The thing of this name. Raises `Refused` in SageMaker's words when there is none."""
        thing = self.find(kind, name)
        if thing is None:
            raise invalid(f'Could not find {kind.replace("-", " ")} "{self.account.arn(kind, name)}".')
        return thing

    def remove(self, kind: str, name: str) -> None:
        """Forget a thing. Raises `Refused` when there is none."""
        self.named(kind, name)
        del self._things[kind, name]
        self._tags.pop(self.account.arn(kind, name), None)

    def all(self, kind: str) -> Iterator[tuple[str, Thing]]:
        """Every thing of a kind, newest first."""
        yield from reversed([(name, thing) for (of, name), thing in self._things.items() if of == kind])

    def listed(self, kind: str, request: Thing, *, status: str | None = None) -> list[Thing]:
        """The summaries of a kind's things that a listing asks for, newest first."""
        part = request.get("NameContains", "")
        found = [
            {name: thing[name] for name in _SUMMARIES[kind] if name in thing}
            for name, thing in self.all(kind)
            if part in name and status in (None, thing.get("TrainingJobStatus"))
        ]
        return found[: request.get("MaxResults", 100)]

    async def add_tags(self, request: Thing) -> Thing:
        """AddTags."""
        tags = self._tags_of(request)
        tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        return {"Tags": _listed(tags)}

    async def list_tags(self, request: Thing) -> Thing:
        """ListTags, all on one page."""
        return {"Tags": _listed(self._tags_of(request))}

    async def delete_tags(self, request: Thing) -> Thing:
        """DeleteTags."""
        tags = self._tags_of(request)
        for key in request["TagKeys"]:
            tags.pop(key, None)
        return {}

    def _tags_of(self, request: Thing) -> dict[str, str]:
        arn = request["ResourceArn"]
        if arn not in self._tags:
            raise invalid(f"Could not find resource with ARN {arn}.")
        return self._tags[arn]


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
