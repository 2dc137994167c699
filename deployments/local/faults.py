"""Faults on demand: one small table in every double, and the requests that fill it.

| request | meaning |
| --- | --- |
| `GET /_twin/faults` | the table, with how often each fault was met |
| `PUT /_twin/faults` `{"seed": 7, "faults": [{"kind": "stockout", "times": 1}, ...]}` | replace it |
| `DELETE /_twin/faults` | forget all faults |

A double asks the table where something may go wrong (`take`); `WireFaults` around its application does those that are
the same on every wire. With the same seed the same requests meet the same faults.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import random
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

KINDS = {
    "stockout": "a job or endpoint finds no capacity",
    "quota": "a request is refused because a quota is used up",
    "throttle": "a request is refused because there are too many",
    "deny": "a request is refused for want of a permission; `operation` is the permission in the provider's words",
    "error": "a request is answered with `status` (500)",
    "slow_start": "a job or endpoint takes `delay_s` longer to begin",
    "preempt": "a running job is taken off its machine `delay_s` after it began, with notice",
    "crash": "a running job is killed `delay_s` after it began",
    "lost_logs": "a job's log cannot be read",
    "unhealthy": "an endpoint never becomes healthy",
    "hang": "a request is answered `delay_s` later, or never within an hour",
    "wrong_bytes": "one byte of an answer's body, which the seed decides, is another",
    "cut": "the connection is cut in the middle of an answer",
    "lost": "the cloud is gone: every connection is cut before an answer",
}
WIRE_KINDS = ("lost", "hang", "wrong_bytes", "cut")
"""Those that are the same on every wire."""
ADMIN_PATH = "/_twin/faults"
_ONE_HOUR_S = 3600.0

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass
class Fault:
    """Something that shall go wrong.

    Args:
        kind: One of `KINDS`.
        operation: Pattern (fnmatch) of the operation it befalls, in the provider's words: `CreateTrainingJob`, or
            method and path (`GET /v1/*`) where operations have no names.
        target: Pattern of the name of the job, endpoint or object it befalls.
        probability: How likely, from 0 to 1.
        times: How often; None for always.
        delay_s: Seconds, for the kinds that take some.
        after_line: A line of the job's log from which `preempt` and `crash` count their seconds; empty: from its
            beginning.
        status: HTTP status of an `error`.
        met: How often it came about.
    """

    kind: str
    operation: str = "*"
    target: str = "*"
    probability: float = 1.0
    times: int | None = None
    delay_s: float = 0.0
    after_line: str = ""
    status: int = 500
    met: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"'{self.kind}' is no kind of fault; use one of {', '.join(KINDS)}")


@dataclass
class FaultTable:
    """The faults of one double.

    Args:
        seed: Of the draws.
    """

    seed: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])
    _draws: random.Random = field(default_factory=lambda: random.Random(0), repr=False)  # noqa: S311

    def replace(self, faults: list[Fault], seed: int = 0) -> None:
        """Other faults from now on; the draws begin anew."""
        self.seed, self.faults, self._draws = seed, faults, random.Random(seed)  # noqa: S311

    def take(self, kind: str, *, operation: str = "", target: str = "") -> Fault | None:
        """The fault that is to come about here and now, counted, or None.

        Args:
            kind: What could go wrong at this point.
            operation: The operation under way; a fault that names one matches only with it.
            target: Name of the job, endpoint or object.
        """
        for fault in self.faults:
            if fault.kind != kind or (fault.times is not None and fault.met >= fault.times):
                continue
            if not (fnmatch.fnmatchcase(operation, fault.operation) and fnmatch.fnmatchcase(target, fault.target)):
                continue
            if fault.probability < 1 and self._draws.random() >= fault.probability:
                continue
            fault.met += 1
            return fault
        return None

    def holds(self, fault: Fault) -> bool:
        """Whether a fault that was met is still to last."""
        return any(each is fault for each in self.faults)

    def place_in(self, body: bytes) -> int:
        """Which byte of a body is to be another, drawn like everything else."""
        return self._draws.randrange(len(body))

    def described(self) -> dict[str, Any]:
        """The table as JSON."""
        return {"seed": self.seed, "faults": [asdict(fault) for fault in self.faults]}


async def administer(table: FaultTable, request: Request, kinds: Collection[str] = KINDS) -> Response:
    """Answer a request to `ADMIN_PATH`; a fault of another kind than these is refused."""
    if request.method == "DELETE":
        table.replace([])
    elif request.method == "PUT":
        try:
            wanted = await request.json()
            known = {each.name for each in fields(Fault)} - {"met"}
            stray = {key for fault in wanted["faults"] for key in fault} - known
            if stray:
                raise ValueError(f"a fault has no '{min(stray)}'; it has {', '.join(sorted(known))}")
            faults = [Fault(**fault) for fault in wanted["faults"]]
            for fault in faults:
                if fault.kind not in kinds:
                    raise ValueError(f"'{fault.kind}' cannot happen here; use one of {', '.join(kinds)}")
            table.replace(faults, int(wanted.get("seed", 0)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return JSONResponse({"error": f"not a table of faults: {error}"}, 400)
    elif request.method != "GET":
        return Response(status_code=405, headers={"allow": "GET, PUT, DELETE"})
    return JSONResponse(table.described())


def by_path(scope: MutableMapping[str, Any]) -> str:
    """Method and path: an operation's name where a protocol has no better one."""
    return f"{scope['method']} {scope['path']}"


class WireFaults:
    """ASGI middleware: answers `ADMIN_PATH`, and does the faults of the wire to everything else.

    Args:
        application: The double.
        table: Its faults.
        operation: Names the operation of a request.
        target: Names what it is about; the whole path by default.
        kinds: The kinds of faults that the double can meet.
    """

    def __init__(
        self,
        application: Application,
        table: FaultTable,
        operation: Callable[[MutableMapping[str, Any]], str] = by_path,
        target: Callable[[MutableMapping[str, Any]], str] = lambda scope: str(scope["path"]),
        kinds: Collection[str] = KINDS,
    ) -> None:
        self._application, self._table, self._kinds = application, table, kinds
        self._operation, self._target = operation, target

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request through, or not."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        if scope["path"] == ADMIN_PATH:
            await (await administer(self._table, Request(scope, receive), self._kinds))(scope, receive, send)
            return
        operation, target = self._operation(scope), self._target(scope)
        met = {kind: self._table.take(kind, operation=operation, target=target) for kind in WIRE_KINDS}
        uncut = send
        if met["lost"]:
            await cut_off(uncut)
            return
        if met["hang"]:
            await asyncio.sleep(met["hang"].delay_s or _ONE_HOUR_S)
        if met["wrong_bytes"]:
            send = _damaging(send, self._table.place_in)
        if met["cut"]:
            send = _cutting(send, uncut)
        await self._application(scope, receive, send)


def _damaging(send: Send, place_in: Callable[[bytes], int]) -> Send:
    done = False

    async def damage(message: Message) -> None:
        nonlocal done
        body = message.get("body", b"")
        if not done and message["type"] == "http.response.body" and body:
            place = place_in(body)
            message = {**message, "body": body[:place] + bytes([body[place] ^ 0x01]) + body[place + 1 :]}
            done = True
        await send(message)

    return damage


def _cutting(send: Send, uncut: Send) -> Send:
    over = False

    async def cut(message: Message) -> None:
        nonlocal over
        if over:
            return
        if message["type"] != "http.response.body":
            await send(message)
            return
        body = message.get("body", b"")
        if len(body) > 1:
            await send({**message, "body": body[: len(body) // 2], "more_body": True})
        over = True
        await cut_off(uncut)

    return cut


async def cut_off(send: Any) -> None:
    """Close a connection without a word: uvicorn's own `send` is a method of the cycle that owns the transport."""
    send.__self__.transport.abort()
    # Only in the next round does the server learn of it; before that it would answer 500.
    await asyncio.sleep(0.01)


def put_faults(url: str, faults: list[dict[str, Any]], seed: int = 0) -> None:
    """Replace the faults of the double at `url`; raises `OSError` when it refuses or does not answer."""
    import urllib.request

    body = json.dumps({"seed": seed, "faults": faults}).encode()
    request = urllib.request.Request(f"{url}{ADMIN_PATH}", body, {"content-type": "application/json"}, method="PUT")
    with urllib.request.urlopen(request, timeout=30):
        pass
