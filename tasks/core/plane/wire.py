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
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from tasks.core.errors import Retryable, Terminal
from tasks.core.plane import exchanges
from tasks.core.plane.exchanges import Ended, Exchanges
from tasks.core.plane.loop import SILENCE_TIMEOUT_S, Loop, parked
from tasks.core.ports import Answer, SignedRequest

CONNECT_TIMEOUT_S = 20

Room = Callable[[], Awaitable[memoryview]]
"""Called when a successful answer has begun to arrive; where its content goes. Until then it waits in the kernel."""

Seen = Callable[[memoryview], float]
"""Called with each run of bytes as it has been received; returns for how many seconds not to receive more."""

_HEAD_BYTES = 64 * 1024
_MOST_UNASKED_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 512 * 1024
"""What is received before it is looked at: it is in the core's own cache then, which halves the cost of a checksum."""

_ONE_RECORD_BYTES = 16 * 1024
_RTT_AT = 68
_END_OF_HEAD = b"\r\n\r\n"
_FIRST = threading.Lock()
_TRUSTED = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


class Torn(OSError):
    """The connection ended, or what came over it is not HTTP."""


class Wire:
    """The connections of one pump, kept alive between requests.

    Args:
        loop: What they wait in.
        silence_s: How long a connection may neither take nor give a byte, in seconds.
    """

    def __init__(self, loop: Loop, silence_s: float = SILENCE_TIMEOUT_S) -> None:
        self._loop = loop
        self._idle: dict[str, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._silence_s = silence_s
        self._exchanges: Exchanges | None = None
        self._looked = False
        self._lent: dict[str, list[_Lent]] = {}
        # Origins whose connections only Python can use.
        self._apart: set[str] = set()
        # The shortest of each origin.
        self._reads_s: dict[str, float] = {}
        self._writes_s: dict[str, float] = {}

    @property
    def distance_s(self) -> float:
        """How long a read and a write wait together while nothing moves, at the least; 0 before the first answer.

        Of a read, from the last byte that was sent to the first that came back: what the network and the store need.
        Of a write, the kernel's round trip when it connected. The wait for its answer tells nothing: much of a part is
        still in the sockets of this machine or of a proxy then, which looks like distance wherever bandwidth is short.
        """
        return sum(max(kind.values(), default=0.0) for kind in (self._reads_s, self._writes_s))

    async def exchange(
        self, request: SignedRequest, body: memoryview | None, into: Room | None, seen: Seen | None = None
    ) -> Answer:
        """Send a request and take its answer.

        Args:
            request: What to send.
            body: Its body; None for none. It is not copied.
            into: Where the content of a successful answer goes; a longer one is refused.
            seen: Called with the content as it arrives; from the beginning again when the request is tried again.

        Raises:
            Retryable: No connection, or it was cut or fell silent. The request may or may not have been carried out.
            Terminal: The server's certificate is not trusted.
        """
        idle = self._idle.get(request.origin)
        if idle:
            connection = idle.pop()
            try:
                return await self._with(connection, request, body, into, seen)
            except OSError as error:
                # Servers close idle connections at any time, also at the moment when one is used again.
                if not connection.silent:
                    raise _cut(request.origin, error) from error
        connection = await self._connected(request.origin)
        connection.join(self._loop)
        try:
            return await self._with(connection, request, body, into, seen)
        except OSError as error:
            raise _cut(request.origin, error) from error

    async def small(
        self, request: SignedRequest, body: memoryview | None, room: memoryview | None, seen: Seen | None = None
    ) -> Answer:
        """As `exchange`, where little is sent or comes: by a thread that needs no interpreter, if there is one.

        Args:
            request: What to send.
            body: Its body of `buffers.SMALL_BYTES` at most; None for none. It is not copied.
            room: Where the content of a successful answer goes.
            seen: Called with the content.

        Raises:
            Retryable, Terminal: As `exchange`.
        """
        engine = self._engine(request.origin)
        done = None
        if engine is not None:
            done = await self._again(engine, request, body, room) or await self._anew(engine, request, body, room)
        if engine is None or done is None:
            return await self.exchange(request, body, None if room is None else _there(room), seen)
        lent, ended = done
        if ended.usable:
            self._lent.setdefault(request.origin, []).append(lent)
        else:
            self._take_back(engine, lent)
        if ended.error:
            error = TimeoutError("silence") if ended.error == exchanges.SILENT else Torn("the answer ended")
            raise _cut(request.origin, error) from error
        if seen is not None and room is not None and (pause_s := seen(room[: ended.size_bytes])) > 0:
            await self._loop.sleep(pause_s)
        return Answer(ended.status, ended.headers, ended.body, ended.size_bytes)

    def close(self) -> None:
        """Close every connection."""
        if self._exchanges is not None:
            self._exchanges.close()
        for connection in list(self._open):
            self._drop(connection)
        self._idle.clear()
        self._lent.clear()

    def _engine(self, origin: str) -> Exchanges | None:
        if not self._looked:
            self._looked, self._exchanges = True, Exchanges.begun(self._loop, self._silence_s)
        return None if origin in self._apart else self._exchanges

    async def _again(
        self, engine: Exchanges, request: SignedRequest, body: memoryview | None, room: memoryview | None
    ) -> tuple[_Lent, Ended] | None:
        """Over a connection that was used before; None where there is none, or its server had closed it meanwhile."""
        idle = self._lent.get(request.origin)
        if not idle:
            return None
        lent = idle.pop()
        ended = await engine.exchange(lent.slot, lent.connection.head(request, body), body, room)
        if ended.error and not ended.begun:
            self._take_back(engine, lent)
            return None
        return lent, ended

    async def _anew(
        self, engine: Exchanges, request: SignedRequest, body: memoryview | None, room: memoryview | None
    ) -> tuple[_Lent, Ended] | None:
        """Over a new connection; None where only Python can use those to this origin."""
        connection = await self._connected(request.origin)
        slot = connection.lend(engine)
        if slot is None:
            self._apart.add(request.origin)
            connection.join(self._loop)
            self._idle.setdefault(request.origin, []).append(connection)
            return None
        return _Lent(connection, slot), await engine.exchange(slot, connection.head(request, body), body, room)

    def _take_back(self, engine: Exchanges, lent: _Lent) -> None:
        engine.leave(lent.slot)
        self._drop(lent.connection)

    async def _connected(self, origin: str) -> Connection:
        try:
            connection = await self._loop.apart(lambda: Connection(origin))
        except ssl.SSLCertVerificationError as error:
            raise Terminal(f"the certificate of {origin} is not trusted", "install its authority's") from error
        except OSError as error:
            raise _cut(origin, error) from error
        self._open.add(connection)
        return connection

    async def _with(
        self,
        connection: Connection,
        request: SignedRequest,
        body: memoryview | None,
        into: Room | None,
        seen: Seen | None,
    ) -> Answer:
        try:
            answer = await connection.exchange(request, body, into, seen)
        except BaseException:
            self._drop(connection)
            raise
        if answer.status < 300:
            known, wait_s = (
                (self._reads_s, connection.waited_s) if body is None else (self._writes_s, connection.round_trip_s)
            )
            known[request.origin] = min(known.get(request.origin, wait_s), wait_s)
        if connection.usable:
            self._idle.setdefault(request.origin, []).append(connection)
        else:
            self._drop(connection)
        return answer

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()


class _Lent(NamedTuple):
    """A connection that `Exchanges` uses, and the slot by which it names it."""

    connection: Connection
    slot: int


def _there(room: memoryview) -> Room:
    async def ready() -> memoryview:
        return room

    return ready


class Connection:
    """One connection to an origin, through the environment's proxy if there is one.

    Made by a blocking call; used by one task at a time, from the loop that it joins, or by what it is lent to.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.usable = True
        self.silent = True
        """Whether nothing came back for the last request."""
        self.waited_s = 0.0
        """How long its answer took to begin, from the last byte that was sent."""
        self._sent_at = 0.0
        where = urlsplit(origin)
        self._head = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._head)
        self._got = 0
        self._target_prefix = ""
        self._extra = ""
        self._secure = where.scheme == "https"
        self._joined = False
        self._host = where.netloc
        self._socket = self._connected(where)
        self.round_trip_s = _round_trip_s(self._socket)

    def join(self, loop: Loop) -> None:
        """Be watched by a loop from now on."""
        self._socket.setblocking(False)
        self._loop = loop
        self._end = loop.watch(self._socket.fileno())
        self._joined = True

    def lend(self, engine: Exchanges) -> int | None:
        """Be used by another thread from now on; see `Exchanges.join`."""
        self._socket.setblocking(False)
        return engine.join(self._socket.fileno(), self._socket if isinstance(self._socket, ssl.SSLSocket) else None)

    def head(self, request: SignedRequest, body: memoryview | None) -> bytes:
        """The head of a request, as it travels here."""
        lines = [f"{request.method} {self._target_prefix}{request.target} HTTP/1.1\r\nHost: {self._host}{self._extra}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        if body is not None or request.method in ("PUT", "POST"):
            lines.append(f"Content-Length: {0 if body is None else len(body)}")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1")

    async def exchange(
        self, request: SignedRequest, body: memoryview | None, into: Room | None, seen: Seen | None
    ) -> Answer:
        """See `Wire.exchange`. Raises `OSError` when the connection is of no use any more."""
        self.silent = True
        try:
            await self._send(self.head(request, body), body)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses may answer and close before it has read the body.
            self.usable = False
        self._sent_at = time.monotonic()
        return await self._receive(into, seen)

    def close(self) -> None:
        """Close it."""
        self.usable = False
        if self._joined:
            self._loop.forget(self._end)
        self._socket.close()

    async def _send(self, head: bytes, body: memoryview | None) -> None:
        if body is None or not len(body):
            await self._send_all(memoryview(head))
        elif self._secure:
            if len(body) <= _ONE_RECORD_BYTES:
                await self._send_all(memoryview(head + body))
            else:
                await self._send_all(memoryview(head))
                await self._send_all(body)
        else:
            try:
                sent = self._socket.sendmsg([head, body])
            except BlockingIOError:
                sent = 0
            if sent < len(head):
                await self._send_all(memoryview(head)[sent:])
                sent = len(head)
            if sent - len(head) < len(body):
                await self._send_all(body[sent - len(head) :])

    async def _send_all(self, data: memoryview) -> None:
        at = 0
        while at < len(data):
            try:
                at += self._socket.send(data[at : at + _PIECE_BYTES] if self._secure else data[at:])
            except (BlockingIOError, ssl.SSLWantWriteError):
                await parked(self._end.until_writable)
            except ssl.SSLWantReadError:
                await parked(self._end.until_readable)

    async def _some(self, into: memoryview) -> int:
        """Receive something; the number of bytes. Raises `Torn` at the end of the connection."""
        while True:
            try:
                received = self._socket.recv_into(into)
            except (BlockingIOError, ssl.SSLWantReadError):
                await parked(self._end.until_readable)
                continue
            except ssl.SSLWantWriteError:
                await parked(self._end.until_writable)
                continue
            if not received:
                raise Torn("the connection was closed")
            if self.silent:
                self.silent = False
                self.waited_s = time.monotonic() - self._sent_at
            return received

    def _records(self, into: memoryview) -> int:
        """Receive what is there without waiting; the number of bytes. TLS gives one record at a time, of 16 KiB."""
        at = 0
        while at < len(into):
            try:
                received = self._socket.recv_into(into[at:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not received:
                raise Torn("the connection was closed")
            at += received
        return at

    async def _receive(self, into: Room | None, seen: Seen | None) -> Answer:
        self._got = 0
        status, headers = await self._read_head()
        while status < 200:
            status, headers = await self._read_head()
        if headers.get("connection", "").lower() == "close":
            self.usable = False
        wanted = into if status in (200, 206) else None
        if status in (204, 304):
            return Answer(status, headers, b"", 0)
        if "content-length" in headers and "transfer-encoding" not in headers:
            size_bytes = _length(headers["content-length"])
            if wanted is not None and size_bytes <= len(room := await wanted()):
                await self._fill(room[:size_bytes], seen)
                return Answer(status, headers, b"", size_bytes)
            content = await self._exactly(size_bytes)
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            content = await self._chunks()
        else:
            content = await self._rest()
        if wanted is None:
            return Answer(status, headers, content, len(content))
        room = await wanted()
        if len(content) > len(room):
            raise Torn("an answer is longer than what was asked for")
        room[: len(content)] = content
        if seen is not None:
            seen(room[: len(content)])
        return Answer(status, headers, b"", len(content))

    async def _read_head(self) -> tuple[int, dict[str, str]]:
        end = self._head.find(_END_OF_HEAD, 0, self._got)
        while end < 0:
            if self._got == _HEAD_BYTES:
                raise Torn("an answer's head is too long")
            await self._more()
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

    async def _more(self) -> None:
        self._got += await self._some(self._view[self._got :])

    def _consume(self, size_bytes: int) -> None:
        rest = self._got - size_bytes
        if rest:
            self._view[:rest] = bytes(self._view[size_bytes : self._got])
        self._got = rest

    async def _fill(self, target: memoryview, seen: Seen | None = None) -> None:
        """Receive exactly as many bytes as the target holds."""
        at = min(self._got, len(target))
        target[:at] = self._view[:at]
        self._consume(at)
        shown = 0
        while True:
            if seen is not None and (at - shown >= _PIECE_BYTES or (at == len(target) and shown < at)):
                pause_s = seen(target[shown:at])
                shown = at
                if pause_s > 0:
                    await self._loop.sleep(pause_s)
            if at == len(target):
                return
            end = len(target) if seen is None else min(len(target), shown + _PIECE_BYTES)
            at += await self._some(target[at:end])
            if self._secure:
                at += self._records(target[at:end])

    async def _exactly(self, size_bytes: int) -> bytes:
        if size_bytes > _MOST_UNASKED_BYTES:
            raise Torn("an answer is longer than what was asked for")
        content = bytearray(size_bytes)
        await self._fill(memoryview(content))
        return bytes(content)

    async def _chunks(self) -> bytes:
        content = bytearray()
        while True:
            line = (await self._line()).partition(b";")[0].strip()
            try:
                size_bytes = int(line, 16)
            except ValueError as error:
                raise Torn("an answer's chunk has no size") from error
            if size_bytes == 0:
                while await self._line():
                    pass
                return bytes(content)
            if len(content) + size_bytes > 2 * _MOST_UNASKED_BYTES + _HEAD_BYTES:
                raise Torn("an answer is longer than what was asked for")
            content += await self._exactly(size_bytes)
            await self._line()

    async def _line(self) -> bytes:
        while (end := self._head.find(b"\r\n", 0, self._got)) < 0:
            if self._got == _HEAD_BYTES:
                raise Torn("a line of an answer is too long")
            await self._more()
        line = bytes(self._head[:end])
        self._consume(end + 2)
        return line

    async def _rest(self) -> bytes:
        self.usable = False
        content = bytearray(self._view[: self._got])
        piece = bytearray(_HEAD_BYTES)
        while len(content) <= _MOST_UNASKED_BYTES:
            try:
                received = await self._some(memoryview(piece))
            except Torn:
                return bytes(content)
            content += piece[:received]
        raise Torn("an answer is longer than what was asked for")

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
        plain.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}{introduction}\r\n\r\n".encode("latin-1"))
        status = _tunnelled(plain)
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
    dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dialled


def _round_trip_s(dialled: socket.socket) -> float:
    # The smoothed round trip in microseconds, at its place in `struct tcp_info` of linux/tcp.h.
    information = dialled.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + 4)
    return struct.unpack_from("=I", information, _RTT_AT)[0] / 1e6


def _tunnelled(plain: socket.socket) -> int:
    """The status of a proxy's answer to CONNECT, which has no body."""
    head = b""
    while _END_OF_HEAD not in head and len(head) < _HEAD_BYTES:
        # A byte at a time: what follows the head belongs to TLS.
        received = plain.recv(1)
        if not received:
            raise Torn("the proxy closed the connection")
        head += received
    return int(head[9:12]) if head[9:12].isdigit() else 0


def _proxy_of(scheme: str, host: str) -> SplitResult | None:
    if not any(name.lower().endswith("_proxy") and value for name, value in os.environ.items()):
        return None
    # Loading it takes a tenth of the time in which a further process begins.
    import urllib.request

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


def _trusting() -> ssl.SSLContext:
    # Reading the system's authorities takes longer than all handshakes of a pump: one connection does it for all.
    with _FIRST:
        return _context()


@functools.cache
def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    for name in _TRUSTED:
        path = os.environ.get(name)
        if path and os.path.isfile(path):
            context.load_verify_locations(cafile=path)
    return context


def _cut(origin: str, error: OSError) -> Retryable:
    return Retryable(f"the connection to {urlsplit(origin).netloc} was cut ({type(error).__name__})", "try again")
