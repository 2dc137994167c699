"""CloudWatch Logs, as far as SageMaker writes to it: streams of lines, read from their beginning on.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from deployments.local.faults import FaultTable
from deployments.local.sagemaker.wire import Refused

TRAINING_GROUP = "/aws/sagemaker/TrainingJobs"
_MOST_EVENTS = 10_000
_MOST_BYTES = 1024 * 1024


class Logs:
    """Log groups and their streams.

    Args:
        faults: Where `lost_logs` may stand.
    """

    def __init__(self, faults: FaultTable) -> None:
        self._faults = faults
        self._streams: dict[tuple[str, str], tuple[float, Callable[[], list[str]]]] = {}
        self.operations = {"DescribeLogStreams": self.describe_log_streams, "GetLogEvents": self.get_log_events}

    def add(self, group: str, stream: str, lines: Callable[[], list[str]]) -> None:
        """A stream whose lines are asked for whenever somebody reads it."""
        self._streams[group, stream] = (time.time(), lines)

    async def describe_log_streams(self, request: dict[str, Any]) -> dict[str, Any]:
        """The streams of a group by the beginning of their names. A stream without an event does not exist yet."""
        group, prefix = request["logGroupName"], request.get("logStreamNamePrefix", "")
        self._require_group(group)
        found = [
            {"logStreamName": name, "creationTime": int(created * 1000), "arn": f"arn:aws:logs:{group}:{name}"}
            for (of, name), (created, lines) in sorted(self._streams.items())
            if of == group and name.startswith(prefix) and _events(lines)
        ]
        return {"logStreams": found[: request.get("limit", 50)]}

    async def get_log_events(self, request: dict[str, Any]) -> dict[str, Any]:
        """Events of a stream from a token or its beginning on; the token comes back unchanged at the end."""
        group, name = request["logGroupName"], request["logStreamName"]
        self._require_group(group)
        lost = self._faults.take("lost_logs", operation="GetLogEvents", target=name)
        if (group, name) not in self._streams or lost:
            raise Refused("ResourceNotFoundException", "The specified log stream does not exist.")
        created, lines = self._streams[group, name]
        messages = _events(lines)
        if not request.get("startFromHead") and "nextToken" not in request:
            raise Refused("InvalidParameterException", "The local double reads from the head only.")
        begin = _position(request.get("nextToken", "f/0"))
        end, size_bytes = begin, 0
        while end < min(len(messages), begin + request.get("limit", _MOST_EVENTS)):
            size_bytes += len(messages[end].encode()) + 26
            if size_bytes > _MOST_BYTES and end > begin:
                break
            end += 1
        moment = int(created * 1000)
        events = [
            {"timestamp": moment + number, "message": messages[number], "ingestionTime": moment + number}
            for number in range(begin, end)
        ]
        return {"events": events, "nextForwardToken": f"f/{end}", "nextBackwardToken": f"b/{begin}"}

    def _require_group(self, group: str) -> None:
        if not any(of == group for of, _ in self._streams):
            raise Refused("ResourceNotFoundException", "The specified log group does not exist.")


def _events(lines: Callable[[], list[str]]) -> list[str]:
    """An event's message is never empty."""
    return [line for line in lines() if line]


def _position(token: str) -> int:
    direction, _, number = token.partition("/")
    if direction != "f" or not number.isdigit():
        raise Refused("InvalidParameterException", "The specified nextToken is invalid.")
    return int(number)
