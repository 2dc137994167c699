"""The API's messages: which fields there are, and of which kind. What is not among them is refused, as by the service.

`schema.json` was made from the message types of google-cloud-aiplatform: JSON name and kind of every field that the
double's requests and answers can hold. A field may be written in camelCase or snake_case, an enum as name or number
(https://protobuf.dev/programming-guides/json/).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.local.vertex_ai.errors import Refused, invalid

_PACKAGE = "google.cloud.aiplatform.v1"


@functools.cache
def _schema() -> Mapping[str, Any]:
    return json.loads(Path(__file__).with_name("schema.json").read_text())


def normalised(message: str, body: object, where: str = "") -> dict[str, Any]:
    """The body as a message of this type: names in camelCase, enums by name, integers as integers.

    Args:
        message: The message's name, without its package.
        body: Parsed JSON.
        where: Path of the body in the request, for the refusal.

    Raises:
        Refused: A field is unknown or of another kind.
    """
    if not isinstance(body, dict):
        raise _wrong(where or message, f"{_PACKAGE}.{message}")
    fields: Mapping[str, str] = _schema()["messages"][message]
    by_name = {alias: name for name in fields for alias in (name, _snake(name))}
    found: dict[str, Any] = {}
    for key, value in body.items():
        if key not in by_name:
            place = f" at '{where}'" if where else ""
            raise invalid(f'Invalid JSON payload received. Unknown name "{key}"{place}: Cannot find field.')
        name = by_name[key]
        if value is not None:
            found[name] = _value(fields[name], value, f"{where}.{_snake(name)}".lstrip("."))
    return found


class NotOfficial(Exception):
    """The double would have said something that the service's messages do not have: a defect of the double."""


def official(message: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer, which is a message of this type. Raises `NotOfficial` when it is none."""
    try:
        normalised(message, answer)
    except Refused as wrong:
        raise NotOfficial(f"{message}: {wrong}") from wrong
    return answer


def numbered(message: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its enums as numbers: what `enum-encoding=int` asks for."""
    fields: Mapping[str, str] = _schema()["messages"][message]
    return {name: _numbered(fields[name], value) for name, value in body.items()}


def _value(kind: str, value: Any, where: str) -> Any:
    family, _, inner = kind.partition(":")
    if family == "list":
        if not isinstance(value, list):
            raise _wrong(where, "list")
        return [_value(inner, item, f"{where}[{index}]") for index, item in enumerate(value)]
    if family == "map":
        if not isinstance(value, dict):
            raise _wrong(where, "map")
        return {str(key): _value(inner, item, f"{where}[{key}]") for key, item in value.items()}
    if family == "enum":
        return _enum(inner, value, where)
    if kind in _schema()["messages"]:
        return normalised(kind, value, where)
    return _scalar(kind, value, where)


def _scalar(kind: str, value: Any, where: str) -> Any:
    if kind == "integer":
        try:
            if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
                raise ValueError
            return int(value)
        except (TypeError, ValueError) as error:
            raise _wrong(where, "TYPE_INT64") from error
    wrong = (
        (kind == "string" and not isinstance(value, str))
        or (kind == "boolean" and not isinstance(value, bool))
        or (kind == "number" and (isinstance(value, bool) or not isinstance(value, (int, float))))
        or (kind == "duration" and not (isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d{1,9})?s", value)))
    )
    if wrong:
        raise _wrong(where, "google.protobuf.Duration" if kind == "duration" else f"TYPE_{kind.upper()}")
    return value


def _enum(name: str, value: Any, where: str) -> str:
    members: Mapping[str, int] = _schema()["enums"][name]
    if isinstance(value, str) and value in members:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        for member, number in members.items():
            if number == value:
                return member
    raise _wrong(where, f"type.googleapis.com/{_PACKAGE}.{name}", value)


def _numbered(kind: str, value: Any) -> Any:
    family, _, inner = kind.partition(":")
    if family == "list":
        return [_numbered(inner, item) for item in value]
    if family == "map":
        return {key: _numbered(inner, item) for key, item in value.items()}
    if family == "enum":
        return _schema()["enums"][inner][value]
    return numbered(kind, value) if kind in _schema()["messages"] else value


def _wrong(where: str, kind: str, value: object = "") -> Refused:
    said = f', "{value}"' if value != "" else ""
    return invalid(f"Invalid value at '{where}' ({kind}){said}")


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
