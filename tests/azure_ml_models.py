"""A pytest plugin: what is said between any client and the double of Azure ML is held against Microsoft's own models.

    python -m pytest -p tests.azure_ml_models tests/conformance/test_trainer.py -k azure

Microsoft's client azure-ai-ml ships the service's resources as Python classes, generated from its specification
(`azure.ai.ml._restclient.arm_ml_service.models`). Every body that passes, asked or answered, may have their fields
alone, with values of their types and enumerations, and must have those that are required. Whatever has no model here
fails too, so that nothing is left out in silence.
"""

from __future__ import annotations

import datetime
import enum
import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

_WORKSPACE = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.MachineLearningServices(?:/workspaces/[^/]+)?",
    re.I,
)
_MODELS = {
    "": "Workspace",
    "/jobs/*": "JobBase",
    "/models/*": "ModelContainer",
    "/models/*/versions/*": "ModelVersion",
    "/environments/*": "EnvironmentContainer",
    "/environments/*/versions/*": "EnvironmentVersion",
    "/codes/*/versions/*": "CodeVersion",
    "/datastores/*": "Datastore",
    "/computes/*": "ComputeResource",
    "/onlineEndpoints/*": "OnlineEndpoint",
    "/onlineEndpoints/*/deployments/*": "OnlineDeployment",
    "/onlineEndpoints/*/token": "EndpointAuthToken",
    "/onlineEndpoints/*/listKeys": "EndpointAuthKeys",
    "/onlineEndpoints/*/deployments/*/getLogs": "DeploymentLogs",
}
_ASKED = {
    ("PATCH", "/onlineEndpoints/*"): "PartialMinimalTrackedResourceWithIdentity",
    ("PATCH", "/onlineEndpoints/*/deployments/*"): "PartialMinimalTrackedResourceWithSku",
    ("POST", "/onlineEndpoints/*/deployments/*/getLogs"): "DeploymentLogsRequest",
}
_WITHOUT_MODEL = re.compile(r".*/(?:cancel|listSecrets|quotas|usages)|/locations/.*")
"""Bodies that the client reads as it likes: of operations under way, for one."""


class Watch:
    """What was said that Microsoft's models do not have."""

    def __init__(self) -> None:
        self.models: Any = pytest.importorskip("azure.ai.ml._restclient.arm_ml_service.models")
        self.model: Any = self.models._models._Model
        self.wrong: list[str] = []
        self.seen: set[str] = set()

    def look(self, request: requests.PreparedRequest, answer: requests.Response) -> None:
        """Hold a request and its answer against the models."""
        path = urlsplit(str(request.url)).path
        match = _WORKSPACE.match(path)
        if match is None or answer.status_code >= 400:
            return
        rest = path[match.end() :].rstrip("/")
        if _WITHOUT_MODEL.fullmatch(rest):
            return
        parts = rest.split("/")[1:]
        place = "".join(f"/{'*' if at % 2 else part}" for at, part in enumerate(parts))
        where = f"{request.method} {place or '/'}"
        if request.body:
            name = _ASKED.get((str(request.method), place)) or _MODELS.get(place, "")
            self._require(name, json.loads(request.body), f"{where} asked")
        if answer.content and "json" in answer.headers.get("content-type", ""):
            told = answer.json()
            if f"{place}/*" in _MODELS and isinstance(told, dict) and "value" in told:
                for each in told["value"]:
                    self._require(_MODELS[f"{place}/*"], each, f"{where} listed")
            else:
                self._require(_MODELS.get(place, ""), told, f"{where} answered")

    def _require(self, name: str, value: Any, where: str) -> None:
        if not name:
            self.wrong.append(f"{where}: no model is named for it")
            return
        self.seen.add(f"{where} {name}")
        self.wrong += [f"{where}: {name}{each}" for each in self.problems(getattr(self.models, name), value)]

    def problems(self, kind: Any, value: Any, place: str = "") -> Iterator[str]:
        """What is wrong with a value of a type of the models."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any:
            return
        if origin in (typing.Union, types.UnionType):
            yield from self._of_union([each for each in arguments if each is not type(None)], value, place)
        elif value is None:
            # The service leaves out what is not there, and takes null for it.
            return
        elif origin is list:
            for at, each in enumerate(value if isinstance(value, list) else []):
                yield from self.problems(arguments[0], each, f"{place}[{at}]")
            if not isinstance(value, list):
                yield f"{place} is no list"
        elif origin is dict:
            for key, each in value.items() if isinstance(value, dict) else ():
                yield from self.problems(arguments[1], each, f"{place}.{key}")
            if not isinstance(value, dict):
                yield f"{place} is no object"
        elif origin is typing.Literal:
            if value not in arguments:
                yield f"{place} is {value!r}, not one of {arguments}"
        elif isinstance(kind, type) and issubclass(kind, self.model):
            yield from self._of_model(kind, value, place)
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            if value not in {each.value for each in kind}:
                yield f"{place} is {value!r}, which {kind.__name__} does not have"
        elif not isinstance(value, _JSON_TYPES.get(kind, object)):
            yield f"{place} is {value!r}, no {kind.__name__}"

    def _of_union(self, kinds: list[Any], value: Any, place: str) -> Iterator[str]:
        """A value of one of several types; where an enumeration is among them, the text beside it does not count."""
        if value is None:
            return
        strict = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)] or kinds
        found = [list(self.problems(kind, value, place)) for kind in strict]
        if all(found):
            yield from min(found, key=len)

    def _of_model(self, kind: Any, value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{place} is no object"
            return
        kind = self._subtype(kind, value)
        hints = typing.get_type_hints(kind, vars(self.models) | {"_models": self.models})
        kind({})  # Fields are worked out when the first of a class is made.
        fields = {each._rest_name: (name, each) for name, each in kind._attr_to_rest_field.items()}
        for key in value:
            if key not in fields:
                yield f"{place}.{key} is no field of {kind.__name__}"
        for key, (name, each) in fields.items():
            optional = type(None) in typing.get_args(hints[name]) or each._visibility == ["read"]
            if key in value:
                yield from self.problems(hints[name], value[key], f"{place}.{key}")
            elif not optional:
                yield f"{place}.{key} is missing, which {kind.__name__} requires"

    def _subtype(self, kind: Any, value: dict[str, Any]) -> Any:
        kind({})
        for each in kind._attr_to_rest_field.values():
            if each._is_discriminator and value.get(each._rest_name) in kind.__mapping__:
                mapped = kind.__mapping__[value[each._rest_name]]
                return kind if mapped is kind else self._subtype(mapped, value)
        return kind


_JSON_TYPES: dict[Any, Any] = {
    str: str, int: int, float: (int, float), bool: bool, dict: dict, list: list,
    datetime.datetime: str, datetime.timedelta: str, bytes: str,
}  # fmt: skip


@pytest.fixture(scope="session")
def watch() -> Iterator[Watch]:
    """Watches all that `requests` sends and receives."""
    watching, send = Watch(), requests.Session.send

    def watched(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        answer = send(session, request, **options)
        watching.look(request, answer)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", watched)
        yield watching
    print("\nheld against Microsoft's models:", *sorted(watching.seen), sep="\n  ")


@pytest.fixture(autouse=True)
def nothing_but_what_the_models_have(watch: Watch) -> Iterator[None]:
    """Every test ends with it."""
    watch.wrong.clear()
    yield
    assert sorted(set(watch.wrong)) == []
