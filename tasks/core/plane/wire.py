"""HTTP/1.1 for bulk bytes: kept-alive connections, bodies sent from and received into the caller's buffers.

Only what object stores need (RFC 9112): a body of a known length goes out; one of a known length, in chunks, or up to
the end of the connection comes back. Proxies are those of the environment, certificates those that the environment
and OpenSSL trust.
"""

from __future__ import annotations

import base64
import functools
import os
import socket
import ssl
import struct
import threading
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

from tasks.core.errors import Retryable, Terminal
from tasks.core.ports import Answer, SignedRequest

CONNECT_TIMEOUT_S = 20
SILENCE_TIMEOUT_S = 60
"""How long a connection may neither take nor give a byte."""

_HEAD_BYTES = 64 * 1024
_MOST_UNASKED_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_ONE_RECORD_BYTES = 16 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_TRUSTED = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


class Torn(OSError):
    """The connection ended, or what came over it is not HTTP."""


class Wire:
    """The connections of one move: each thread has its own, one an origin."""

    def __init__(self) -> None:
        self._mine = threading.local()
        self._open: set[Connection] = set()
        self._closed = False
        self._lock = threading.Lock()

    def exchange(self, request: SignedRequest, body: memoryview | None, into: memoryview | None) -> Answer:
        """Send a request and take its answer.

        Args:
            request: What to send.
            body: Its body; None for none. It is not copied.
            into: Where the content of a successful answer goes; a longer one is refused.

        Raises:
            Retryable: No connection, or it was cut or fell silent. The request may or may not have been carried out.
            Terminal: The server's certificate is not trusted.
        """
        connection, reused = self._connection(request.origin)
        try:
            return connection.exchange(request, body, into)
        except OSError as error:
            self._drop(connection)
            if not (reused and connection.silent):
                raise _cut(request.origin, error) from error
        # Servers close idle connections at any time, also at the moment when one is used again.
        connection, _ = self._connection(request.origin)
        try:
            return connection.exchange(request, body, into)
        except OSError as error:
            self._drop(connection)
            raise _cut(request.origin, error) from error

    def close(self) -> None:
        """Cut every connection; calls that are under way raise `Retryable`."""
        with self._lock:
            self._closed = True
            for connection in self._open:
                connection.shut_down()

    def _connection(self, origin: str) -> tuple[Connection, bool]:
        mine: dict[str, Connection] = self._mine.__dict__
        connection = mine.get(origin)
        if connection is not None and connection.usable:
            return connection, True
        if connection is not None:
            self._drop(connection)
        try:
            connection = Connection(origin)
        except ssl.SSLCertVerificationError as error:
            raise Terminal(f"the certificate of {origin} is not trusted", "install its authority's") from error
        except OSError as error:
            raise _cut(origin, error) from error
        mine[origin] = connection
        with self._lock:
            self._open.add(connection)
            if self._closed:
                connection.shut_down()
        return connection, False

    def _drop(self, connection: Connection) -> None:
        self._mine.__dict__.pop(connection.origin, None)
        with self._lock:
            self._open.discard(connection)
        connection.close()


class Connection:
    """One connection to an origin, through the environment's proxy if there is one. Not safe between threads.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.usable = True
        self.silent = True
        """Whether nothing came back for the last request."""
        where = urlsplit(origin)
        self._head = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._head)
        self._got = 0
        self._target_prefix = ""
        self._extra = ""
        self._secure = where.scheme == "https"
        # One call for a piece instead of one for each of its packets; TLS has records of its own.
        self._whole = 0 if self._secure else socket.MSG_WAITALL
        self._host = where.netloc
        self._socket = self._connected(where)

    def exchange(self, request: SignedRequest, body: memoryview | None, into: memoryview | None) -> Answer:
        """See `Wire.exchange`. Raises `OSError` when the connection is of no use any more."""
        self.silent = True
        lines = [f"{request.method} {self._target_prefix}{request.target} HTTP/1.1\r\nHost: {self._host}{self._extra}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        if body is not None or request.method in ("PUT", "POST"):
            lines.append(f"Content-Length: {0 if body is None else len(body)}")
        try:
            self._send("\r\n".join(lines).encode("latin-1") + _END_OF_HEAD, body)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses may answer and close before it has read the body.
            self.usable = False
        return self._receive(into)

    def shut_down(self) -> None:
        """Wake the thread that waits on this connection; it will see the end of it."""
        self.usable = False
        try:
            # Not the TLS socket's own way, which would take the session from the thread that uses it.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # It is gone already.

    def close(self) -> None:
        """Close it."""
        self.usable = False
        self._socket.close()

    def _send(self, head: bytes, body: memoryview | None) -> None:
        if body is None or not len(body):
            self._socket.sendall(head)
        elif not self._secure:
            sent = self._socket.sendmsg([head, body])
            if sent < len(head):
                self._socket.sendall(head[sent:])
                sent = len(head)
            if sent - len(head) < len(body):
                self._socket.sendall(body[sent - len(head) :])
        elif len(body) <= _ONE_RECORD_BYTES:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)

    def _receive(self, into: memoryview | None) -> Answer:
        self._got = 0
        status, headers = self._read_head()
        while status < 200:
            status, headers = self._read_head()
        if headers.get("connection", "").lower() == "close":
            self.usable = False
        wanted = into if status in (200, 206) else None
        if status in (204, 304):
            return Answer(status, headers, b"", 0)
        if "chunked" in headers.get("transfer-encoding", "").lower():
            content = self._chunks()
        elif "content-length" in headers:
            size_bytes = _length(headers["content-length"])
            if wanted is not None and size_bytes <= len(wanted):
                self._fill(wanted[:size_bytes])
                return Answer(status, headers, b"", size_bytes)
            content = self._exactly(size_bytes)
        else:
            content = self._rest()
        if wanted is None:
            return Answer(status, headers, content, len(content))
        if len(content) > len(wanted):
            raise Torn("an answer is longer than what was asked for")
        wanted[: len(content)] = content
        return Answer(status, headers, b"", len(content))

    def _read_head(self) -> tuple[int, dict[str, str]]:
        end = self._head.find(_END_OF_HEAD, 0, self._got)
        while end < 0:
            if self._got == _HEAD_BYTES:
                raise Torn("an answer's head is too long")
            self._more()
            end = self._head.find(_END_OF_HEAD, 0, self._got)
        first, *lines = self._head[:end].decode("latin-1").split("\r\n")
        self._consume(end + len(_END_OF_HEAD))
        if not first.startswith("HTTP/1.") or not first[9:12].isdigit():
            raise Torn("an answer is not HTTP")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(first[9:12]), headers

    def _more(self) -> None:
        received = self._socket.recv_into(self._view[self._got :])
        if not received:
            raise Torn("the connection was closed")
        self.silent = False
        self._got += received

    def _consume(self, size_bytes: int) -> None:
        rest = self._got - size_bytes
        self._view[:rest] = bytes(self._view[size_bytes : self._got])
        self._got = rest

    def _fill(self, target: memoryview) -> None:
        """Receive exactly as many bytes as the target holds."""
        at = min(self._got, len(target))
        target[:at] = self._view[:at]
        self._consume(at)
        while at < len(target):
            piece = target[at : at + _PIECE_BYTES]
            received = self._socket.recv_into(piece, 0, self._whole)
            if not received:
                raise Torn("the connection was closed in the middle of a body")
            at += received

    def _exactly(self, size_bytes: int) -> bytes:
        if size_bytes > _MOST_UNASKED_BYTES:
            raise Torn("an answer is longer than what was asked for")
        content = bytearray(size_bytes)
        self._fill(memoryview(content))
        return bytes(content)

    def _chunks(self) -> bytes:
        content = bytearray()
        while True:
            line = self._line().partition(b";")[0].strip()
            try:
                size_bytes = int(line, 16)
            except ValueError as error:
                raise Torn("an answer's chunk has no size") from error
            if size_bytes == 0:
                while self._line():
                    pass
                return bytes(content)
            if len(content) + size_bytes > 2 * _MOST_UNASKED_BYTES + _HEAD_BYTES:
                raise Torn("an answer is longer than what was asked for")
            content += self._exactly(size_bytes)
            self._line()

    def _line(self) -> bytes:
        while (end := self._head.find(b"\r\n", 0, self._got)) < 0:
            self._more()
        line = bytes(self._head[:end])
        self._consume(end + 2)
        return line

    def _rest(self) -> bytes:
        self.usable = False
        content = bytearray(self._view[: self._got])
        while received := self._socket.recv(_HEAD_BYTES):
            content += received
            if len(content) > _MOST_UNASKED_BYTES:
                raise Torn("an answer is longer than what was asked for")
        return bytes(content)

    def _connected(self, where: SplitResult) -> socket.socket:
        host, port = str(where.hostname), where.port or (443 if self._secure else 80)
        proxy = _proxy_of(where.scheme, host)
        if proxy is None:
            plain = _dialled(host, port)
            return _trusting().wrap_socket(plain, server_hostname=host) if self._secure else plain
        plain = _dialled(str(proxy.hostname), proxy.port or 80)
        introduction = _introduction(proxy)
        if not self._secure:
            self._target_prefix, self._extra = self.origin, introduction
            return plain
        self._socket = plain
        plain.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}{introduction}\r\n\r\n".encode("latin-1"))
        status, _ = self._read_head()
        if status != 200:
            plain.close()
            raise Torn(f"the proxy refused to connect (HTTP {status})")
        return _trusting().wrap_socket(plain, server_hostname=host)


def _length(text: str) -> int:
    if not text.isdigit():
        raise Torn("an answer's length is not a number")
    return int(text)


def _dialled(host: str, port: int) -> socket.socket:
    dialled = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S)
    # The kernel watches for silence: Python's own timeouts cost a poll before every call.
    dialled.settimeout(None)
    limit = struct.pack("ll", SILENCE_TIMEOUT_S, 0)
    dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    dialled.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dialled


def _proxy_of(scheme: str, host: str) -> SplitResult | None:
    proxies = urllib.request.getproxies()
    if scheme not in proxies or urllib.request.proxy_bypass(host):
        return None
    text = proxies[scheme]
    return urlsplit(text if "://" in text else f"http://{text}")


def _introduction(proxy: SplitResult) -> str:
    if proxy.username is None:
        return ""
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"\r\nProxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}"


@functools.cache
def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    for name in _TRUSTED:
        path = os.environ.get(name)
        if path and os.path.isfile(path):
            context.load_verify_locations(cafile=path)
    return context


def _cut(origin: str, error: OSError) -> Retryable:
    return Retryable(f"the connection to {urlsplit(origin).netloc} was cut ({type(error).__name__})", "try again")
