"""Servers in trouble: they refuse requests before they have done anything, each cloud in its own words.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
https://cloud.google.com/storage/docs/json_api/v1/status-codes
https://cloud.google.com/storage/docs/xml-api/reference-status
https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
"""

from __future__ import annotations

import calendar
import contextlib
import json
import random
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate
from http import HTTPStatus
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

_END_OF_HEAD = b"\r\n\r\n"
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Words:
    """How a service refuses: its status and its code, in the body of an S3 or Azure answer and of Google's two APIs."""

    status: int
    code: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}"

    def answer(self, head: bytes, date: str) -> bytes:
        """The whole refusal of a request with this head."""
        if b" /storage/v1/" in head or b" /upload/storage/v1/" in head or b" /download/storage/v1/" in head:
            error = {"code": self.status, "message": "Refused.", "errors": [{"reason": self.code}]}
            kind, body = "application/json", json.dumps({"error": error}).encode()
        else:
            text = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>Refused.</Message></Error>"
            kind, body = "application/xml", b"" if head.startswith(b"HEAD ") else text.encode()
        headers = {**self.headers, "Date": date, "Content-Type": kind, "Content-Length": len(body)}
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in (headers | {"Connection": "close"}).items()]
        return "\r\n".join([*lines, "\r\n"]).encode() + body


def _azure(status: int, code: str, **headers: str) -> Words:
    return Words(status, code, {"x-ms-error-code": code, **headers})


BUSY = Words(503, "ServerBusy", {"x-ms-error-code": "ServerBusy", "Retry-After": "0"})
"""Understood as busy by the clients of all clouds, at once."""

BUSY_BY_CLOUD = {
    "aws": (Words(503, "SlowDown"), Words(503, "ServiceUnavailable"), Words(500, "InternalError")),
    "coreweave": (Words(503, "SlowDown"), Words(429, "TooManyRequests")),
    "google": (Words(429, "rateLimitExceeded"), Words(503, "backendError"), Words(429, "userRateLimitExceeded")),
    "azure": (
        _azure(503, "ServerBusy", **{"Retry-After": "1"}),
        _azure(503, "ServerBusy"),
        _azure(500, "OperationTimedOut"),
    ),
}


class Guard(ABC):
    """Stands before a server until it is left, and lets through what it does not refuse. Each connection carries one
    request.

    Args:
        url: The server's.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.refused = 0
        self.sent_bytes = 0
        self.received_bytes = 0

    @abstractmethod
    def refusal(self, head: bytes) -> Words | None:
        """What a request with this head is answered; None lets it through. Called under a lock."""

    def loses(self, head: bytes) -> bool:
        """Whether the answer to a request that was let through is lost. Called under a lock."""
        del head
        return False

    def date(self) -> str:
        """The `Date` of a refusal."""
        return formatdate(usegmt=True)

    def __enter__(self) -> Guard:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake a thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            data = b""
            while _END_OF_HEAD not in data:
                more = client.recv(_PIECE_BYTES)
                if not more:
                    return
                data += more
            head, _, begun = data.partition(_END_OF_HEAD)
            with self._lock:
                words = self.refusal(head)
                self.refused += words is not None
                loses = words is None and self.loses(head)
            if words is not None:
                client.sendall(words.answer(head, self.date()))
                return
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            with socket.create_connection(self._server) as server:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + _END_OF_HEAD + begun)
                self._count(len(data), 0)
                sending = threading.Thread(target=self._pump, args=(client, server), daemon=True)
                sending.start()
                while piece := server.recv(_PIECE_BYTES):
                    self._count(0, len(piece))
                    if loses:
                        # Closing alone waits for the thread that receives from it.
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    client.sendall(piece)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(_PIECE_BYTES):
                self._count(len(piece), 0)
                server.sendall(piece)

    def _count(self, sent: int, received: int) -> None:
        with self._lock:
            self.sent_bytes += sent
            self.received_bytes += received


class Loss(Guard):
    """The first request to begin an upload in parts is carried out, and its answer is lost."""

    lost = False

    def refusal(self, head: bytes) -> Words | None:
        del head
        return None

    def loses(self, head: bytes) -> bool:
        is_first = not self.lost and re.match(rb"POST \S*\?uploads", head) is not None
        self.lost |= is_first
        return is_first


class Storm(Guard):
    """Refuses a share of all requests.

    Args:
        url: The server's.
        share: Of the requests that are refused, from 0 to 1.
        seed: Of the draws.
        words: The refusal.
    """

    def __init__(self, url: str, *, share: float, seed: int, words: Words = BUSY) -> None:
        super().__init__(url)
        self._share, self._words = share, words
        self._draws = random.Random(seed)

    def refusal(self, head: bytes) -> Words | None:
        del head
        return self._words if self._draws.random() < self._share else None


class Clock(Guard):
    """A service whose clock is not this machine's, and which checks the time of what is signed, as S3 and Azure do.

    S3 lets the time of a signature differ by 15 minutes, and so does Azure for a request that is signed by the
    account's key; a shared access signature is good from its start to its expiry.

    Args:
        url: The server's.
        ahead_s: How far this machine's clock is ahead of the service's.
        after_requests: How many requests pass before that.
    """

    _TOLERANCE_S = 15 * 60

    def __init__(self, url: str, *, ahead_s: float, after_requests: int = 0) -> None:
        super().__init__(url)
        self.ahead_s = ahead_s
        self._left = after_requests

    def date(self) -> str:
        return formatdate(time.time() - self.ahead_s, usegmt=True)

    def refusal(self, head: bytes) -> Words | None:
        if self._left:
            self._left -= 1
            return None
        now_s = time.time() - self.ahead_s
        if signed := re.search(rb"(?i)^x-amz-date: *(\S+)", head, re.MULTILINE):
            at_s = calendar.timegm(time.strptime(signed[1].decode(), "%Y%m%dT%H%M%SZ"))
            return Words(403, "RequestTimeTooSkewed") if abs(at_s - now_s) > self._TOLERANCE_S else None
        query = parse_qs(urlsplit(head.split(b" ", 2)[1].decode()).query)
        if "sig" in query:
            begins_s, ends_s = (datetime.fromisoformat(query[name][0]).timestamp() for name in ("st", "se"))
            return None if begins_s <= now_s <= ends_s else _azure(403, "AuthenticationFailed")
        if signed := re.search(rb"(?i)^x-ms-date: *([^\r\n]+)", head, re.MULTILINE):
            at_s = calendar.timegm(time.strptime(signed[1].decode(), "%a, %d %b %Y %H:%M:%S GMT"))
            return _azure(403, "AuthenticationFailed") if abs(at_s - now_s) > self._TOLERANCE_S else None
        return None
