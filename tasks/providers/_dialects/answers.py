"""Answers that lack what they must have, or have it in another form: damaged on the way, or of a service in trouble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.core.errors import Retryable


def unreadable(cloud: str) -> Retryable:
    """The answer came and cannot be read; the same question again may get a sound one."""
    return Retryable(
        f"'{cloud}' gave an answer that cannot be read",
        "try again; if it stays so, check the network on the way and the service's status page",
    )


@contextmanager
def readable(cloud: str) -> Iterator[None]:
    """For a block that does nothing but take an answer apart.

    Raises:
        Retryable: A field is missing, or is no time or number where it must be one.
    """
    try:
        yield
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise unreadable(cloud) from error


def whole(answer: Mapping[str, Any], cloud: str, *fields: str) -> Mapping[str, Any]:
    """The answer, after a look at the fields that it cannot be without. Raises `Retryable` when one is missing."""
    with readable(cloud):
        for field in fields:
            answer[field]
    return answer


def told(answer: Any, cloud: str, *fields: str) -> Any:
    """`whole` for a client library that has None for what an answer does not tell."""
    with readable(cloud):
        if any(answer[field] is None for field in fields):
            raise unreadable(cloud)
    return answer
