"""How long Lintas waits for a service."""

from __future__ import annotations

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid

_REQUEST_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 20.0


def request_timeout_s(cloud: CloudConfig) -> float:
    """Seconds of silence after which a request is given up: an option, or 60.

    Raises:
        Invalid: `options.request_timeout_s` is not a number above 0.
    """
    return seconds_of(cloud, "request_timeout_s", _REQUEST_TIMEOUT_S)


def seconds_of(cloud: CloudConfig, option: str, otherwise: float) -> float:
    """An option that is a time in seconds, or what counts without it.

    Raises:
        Invalid: It is not a number above 0.
    """
    try:
        seconds = float(cloud.options.get(option, otherwise))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise Invalid(
            f"clouds.{cloud.name}.options.{option} is not a number above 0", "write it in seconds in lintas.yaml"
        )
    return seconds


def timeouts_s(cloud: CloudConfig) -> tuple[float, float]:
    """Seconds to wait for a connection, and for each byte of an answer.

    The SDKs of object stores take the first also as how long one piece may take to be sent. Raises as
    `request_timeout_s`.
    """
    seconds = request_timeout_s(cloud)
    return min(_CONNECT_TIMEOUT_S, seconds), seconds
