"""Small exchanges, by the thread that needs no interpreter and by Python: a server that plays what it is told."""

from __future__ import annotations

import gc
import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import LintasError, Retryable, Terminal
from tasks.core.plane import exchanges
from tasks.core.plane.loop import Loop
from tasks.core.plane.wire import Wire
from tasks.core.ports import Answer, SignedRequest

COMPILER = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
WAYS = [
    pytest.param("native", marks=pytest.mark.skipif(not COMPILER, reason="there is no compiler")),
    "python",
]

Play = Sequence[bytes]
"""What is sent for a request, piece by piece."""


@dataclass
class Server:
    """Plays one answer after the other.

    Args:
        plays: For each connection what it answers to its requests; then it closes, or waits for more that it ignores.
        reads: Whether bodies are read before they are answered.
        stays: Whether it waits, silently, instead of closing.
        resets: Whether it closes by a reset.
        tls: Certificate and key, if it speaks TLS.
    """

    plays: list[list[Play]]
    reads: bool = True
    stays: bool = False
    resets: bool = False
    tls: Path | None = None
    requests: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        scheme = "http" if self.tls is None else "https"
        self.origin = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"

    def _serve(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if self.tls is not None:
            context.load_cert_chain(self.tls)
        for plays in self.plays:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(plain)
            with suppress(OSError):
                connection = plain if self.tls is None else context.wrap_socket(plain, server_side=True)
                self._open.append(connection)
                for play in plays:
                    self._read(connection)
                    for piece in play:
                        connection.sendall(piece)
                if self.resets:
                    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if not self.stays:
                    if not self.reads:
                        # What was not read would make the kernel reset the connection, and take the answer along.
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass
                    connection.close()

    def _read(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += (piece := connection.recv(65536))
            if not piece:
                raise ConnectionResetError
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        left = int(lengths[0]) - len(body) if lengths and self.reads else 0
        while left > 0:
            body += (piece := connection.recv(65536))
            left -= len(piece)
        self.requests.append(head + b"\r\n\r\n" + body)

    def close(self) -> None:
        """Stop, whatever is under way."""
        # Closing alone would not wake the thread that accepts.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who exchanges."""
    if request.param == "python":
        monkeypatch.setattr(exchanges, "loaded", lambda: None)
    else:
        assert exchanges.loaded() is not None
    return request.param


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    """Starts servers."""
    servers: list[Server] = []

    def serve(*plays: list[Play], **how: Any) -> Server:
        servers.append(Server(list(plays), **how))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


Got = tuple[Answer, bytes] | LintasError


def carried(
    origin: str, count: int = 1, *, room_bytes: int = 64, body: bytes | None = None, silence_s: float = 60
) -> list[Got]:
    """What so many exchanges, one after the other, bring: the answer and what came into the room, or the error."""
    loop = Loop(silence_s)
    wire = Wire(loop, silence_s)
    found: list[Got] = []

    async def work() -> None:
        for _ in range(count):
            room = memoryview(bytearray(room_bytes))
            request = SignedRequest("GET" if body is None else "PUT", origin, "/o?x=1", {"x-name": "value"})
            view = None if body is None else memoryview(bytearray(body))
            try:
                answer = await wire.small(request, view, room if body is None else None)
            except LintasError as error:
                found.append(error)
            else:
                found.append((answer, bytes(room[: answer.size_bytes])))

    loop.spawn(work())
    try:
        loop.run()
    finally:
        wire.close()
        loop.close()
    return found


def one(origin: str) -> tuple[int, dict[str, str], bytes, bytes, int]:
    """An exchange that succeeds: status, headers, unasked content, asked content and its size."""
    (got,) = carried(origin)
    assert not isinstance(got, LintasError)
    answer, content = got
    return answer.status, dict(answer.headers), answer.body, content, answer.size_bytes


def fails(origin: str) -> None:
    """An exchange that fails in a way that may pass."""
    (got,) = carried(origin)
    assert isinstance(got, Retryable)


def test_content_of_a_known_length_arrives_where_it_was_asked_for(way: str, serving: Callable[..., Server]) -> None:
    server = serving([[b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag:  "a b" \r\nX-Odd\r\n\r\nhello']])
    headers = {"content-length": "5", "etag": '"a b"', "x-odd": ""}
    assert one(server.origin) == (200, headers, b"", b"hello", 5)
    assert server.requests == [
        f"GET /o?x=1 HTTP/1.1\r\nHost: {server.origin.removeprefix('http://')}\r\nx-name: value\r\n\r\n".encode()
    ]


def test_a_body_is_sent_whole_and_the_answer_to_it_has_no_room(way: str, serving: Callable[..., Server]) -> None:
    body = bytes(range(256)) * 1000
    server = serving([[b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"]])
    (got,) = carried(server.origin, body=body)
    assert not isinstance(got, LintasError)
    assert (got[0].status, got[0].body) == (201, b"ok")
    (sent,) = server.requests
    assert sent.partition(b"\r\n\r\n")[2] == body
    assert b"PUT /o?x=1 HTTP/1.1" in sent
    assert b"Content-Length: 256000\r\n" in sent


def test_what_was_not_asked_for_comes_beside(way: str, serving: Callable[..., Server]) -> None:
    error = b"<Error>" + b"x" * 300_000
    server = serving([[b"HTTP/1.1 404 Missing\r\nContent-Length: %d\r\n\r\n" % len(error), error]])
    assert one(server.origin)[::2] == (404, error, len(error))


@pytest.mark.parametrize(("status", "place"), [("206 Partial", 3), ("500 Oh", 2)])
def test_chunks_are_joined(way: str, serving: Callable[..., Server], status: str, place: int) -> None:
    head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: Chunked\r\nContent-Length: 1\r\n\r\n".encode()
    pieces = [
        head[:20],
        head[20:],
        b"5;name=value\r\nhel",
        b"lo\r",
        b"\n1",
        b"0\r\n",
        b"0123456789abcdef\r\n0\r\nTrailer: x\r\n",
        b"\r\n",
    ]
    server = serving([pieces, [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]])
    first, second = carried(server.origin, 2)
    assert not isinstance(first, LintasError)
    assert (first[0].body, first[1])[place - 2].startswith(b"hello0123456789abcdef")
    assert first[0].size_bytes == 21
    # It was over where it ended: the connection serves another one.
    assert not isinstance(second, LintasError)
    assert len(server.requests) == 2


def test_an_answer_without_a_length_ends_with_its_connection(way: str, serving: Callable[..., Server]) -> None:
    server = serving([[b"HTTP/1.1 200 OK\r\n\r\n", b"one", b" two"]], [[b"HTTP/1.0 404 No\r\n\r\n"]])
    first, second = carried(server.origin, 2)
    assert not isinstance(first, LintasError)
    assert not isinstance(second, LintasError)
    assert first[1] == b"one two"
    assert second[0].status == 404


@pytest.mark.parametrize("status", ["204 Nothing", "304 Same"])
def test_an_answer_without_content_is_over_with_its_head(way: str, serving: Callable[..., Server], status: str) -> None:
    play = [f"HTTP/1.1 {status}\r\nX: y\r\n\r\n".encode()]
    server = serving([play, play])
    found = carried(server.origin, 2)
    assert [got[0].size_bytes for got in found if not isinstance(got, LintasError)] == [0, 0]


def test_what_is_only_provisional_is_passed_over(way: str, serving: Callable[..., Server]) -> None:
    server = serving([[b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"]])
    assert one(server.origin) == (200, {"content-length": "1"}, b"", b"a", 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n" + b"x" * 65 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n" + b"x" * 65,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 65,
        b"HTTP/1.1 404 No\r\nContent-Length: 5000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"SSH-2.0-server\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 70_000,
    ],
)
def test_what_is_cut_or_too_long_or_no_http_is_no_answer(
    way: str, serving: Callable[..., Server], answer: bytes
) -> None:
    # A second connection, for what is tried again when nothing came.
    fails(serving([[answer]], [[answer]]).origin)


def test_a_connection_that_was_closed_while_idle_is_replaced(way: str, serving: Callable[..., Server]) -> None:
    play = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"]
    server = serving([play], [play])
    assert [isinstance(got, LintasError) for got in carried(server.origin, 2)] == [False, False]
    assert len(server.requests) == 2


def test_a_connection_that_is_announced_to_close_is_not_used_again(way: str, serving: Callable[..., Server]) -> None:
    play = [b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\na"]
    server = serving([play], [play], stays=True)
    found = carried(server.origin, 2)
    assert [isinstance(got, LintasError) for got in found] == [False, False]


def test_a_server_that_refuses_before_it_has_read_is_heard(way: str, serving: Callable[..., Server]) -> None:
    server = serving([[b"HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"]], reads=False)
    (got,) = carried(server.origin, body=b"x" * 200_000)
    assert not isinstance(got, LintasError)
    assert (got[0].status, got[0].body) == (403, b"no")


def test_silence_ends_an_exchange(way: str, serving: Callable[..., Server]) -> None:
    server = serving([[b"HTTP/1.1 200 OK\r\nContent-Le"]], stays=True)
    began = time.monotonic()
    (got,) = carried(server.origin, silence_s=1)
    assert isinstance(got, Retryable)
    assert time.monotonic() - began < 30


def test_a_reset_is_no_answer(way: str, serving: Callable[..., Server]) -> None:
    fails(serving([[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"]], resets=True).origin)


def test_over_tls_bodies_go_and_come(way: str, serving: Callable[..., Server], tls: Path) -> None:
    content = bytes(range(256)) * 500
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    server = serving([[head + content[:100], content[100:]], [head, content]], tls=tls)
    found = carried(server.origin, 2, room_bytes=len(content))
    assert [got[1] == content for got in found if not isinstance(got, LintasError)] == [True, True]
    uploading = serving([[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]], tls=tls)
    (got,) = carried(uploading.origin, body=content)
    assert not isinstance(got, LintasError)
    assert uploading.requests[0].partition(b"\r\n\r\n")[2] == content


def test_over_tls_too_what_is_cut_is_no_answer(way: str, serving: Callable[..., Server], tls: Path) -> None:
    fails(serving([[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"]], tls=tls).origin)


def test_a_certificate_that_nobody_vouches_for_is_refused(
    way: str, serving: Callable[..., Server], tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    (got,) = carried(serving([[]], tls=tls).origin)
    assert isinstance(got, Terminal)
    assert "not trusted" in str(got)


@pytest.mark.skipif(not COMPILER, reason="there is no compiler")
def test_tls_is_spoken_by_the_openssl_of_python_where_it_can_be_found(
    serving: Callable[..., Server], tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving([[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]], tls=tls)
    joined: list[int | None] = []
    join = exchanges.Exchanges.join

    def noted(self: exchanges.Exchanges, number: int, tls: ssl.SSLSocket | None) -> int | None:
        joined.append(join(self, number, tls))
        return joined[-1]

    monkeypatch.setattr(exchanges.Exchanges, "join", noted)
    one(server.origin)
    library = exchanges.loaded()
    assert library is not None
    assert joined == [0 if library.openssl.read else None]


@pytest.mark.skipif(not COMPILER, reason="there is no compiler")
def test_where_openssl_is_not_found_python_speaks_tls(
    serving: Callable[..., Server], tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "_openssl_of", lambda tls: None)
    play = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"]
    server = serving([play, play], tls=tls)
    found = carried(server.origin, 2)
    assert [got[1] for got in found if not isinstance(got, LintasError)] == [b"a", b"a"]


@pytest.mark.skipif(not COMPILER, reason="there is no compiler")
def test_where_no_thread_is_to_be_had_python_exchanges(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = exchanges.loaded()
    assert library is not None
    monkeypatch.setattr(library, "open", lambda *_: None)
    assert one(serving([[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"]]).origin)[3] == b"a"


class Room(bytearray):
    """Memory that can be watched."""


@pytest.mark.skipif(not COMPILER, reason="there is no compiler")
def test_memory_that_is_under_way_outlives_whoever_waits_and_is_left_alone_after_the_end(
    serving: Callable[..., Server],
) -> None:
    play = [b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"]
    server = serving([play], [play], stays=True)
    loop = Loop()
    wire = Wire(loop)
    kept = memoryview(bytearray(8))
    rooms: list[ref[Room]] = []

    async def read(room: memoryview) -> None:
        await wire.small(SignedRequest("GET", server.origin, "/", {}), None, room)

    async def read_into_own() -> None:
        room = Room(8)
        rooms.append(ref(room))
        await read(memoryview(room))

    async def fail() -> None:
        while len(server.requests) < 2:
            await loop.sleep(0.001)
        raise KeyboardInterrupt

    loop.spawn(read_into_own())
    loop.spawn(read(kept))
    loop.spawn(fail())
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    gc.collect()
    assert rooms[0]() is not None
    wire.close()
    loop.close()
    gc.collect()
    assert rooms[0]() is None
    kept[:] = b"........"
    for connection in server._open:
        with suppress(OSError):
            connection.sendall(b"more")
    assert bytes(kept) == b"........"


names = st.text("abcXYZ-", min_size=1, max_size=8)
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0"), max_size=12)


@st.composite
def plays(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """An answer, and where it is cut into pieces."""
    status = draw(st.sampled_from([200, 206, 404, 500, 204]))
    content = draw(st.binary(max_size=80))
    fields = draw(st.lists(st.tuples(names, values), max_size=4))
    head = [f"HTTP/1.1 {status} Words", *(f"{name}: {value}" for name, value in fields)]
    if draw(st.booleans()):
        head.append("Transfer-Encoding: chunked")
        cut = draw(st.integers(0, len(content)))
        chunks = [chunk for chunk in (content[:cut], content[cut:]) if chunk]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        head.append(f"CONTENT-LENGTH: {len(content)}")
        body = content
    if status == 204:
        body = b""
    answer = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body
    answer = answer[: draw(st.one_of(st.just(len(answer)), st.integers(0, len(answer))))]
    return answer, sorted(draw(st.lists(st.integers(0, len(answer)), max_size=3)))


@pytest.mark.skipif(not COMPILER, reason="there is no compiler")
@settings(max_examples=150)
@given(plays())
def test_both_ways_bring_the_same(play: tuple[bytes, list[int]]) -> None:
    answer, cuts = play
    pieces = [answer[first:last] for first, last in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    found: list[object] = []
    for by_python in (False, True):
        with pytest.MonkeyPatch.context() as patched:
            if by_python:
                patched.setattr(exchanges, "loaded", lambda: None)
            server = Server([[pieces], [pieces]])
            try:
                (got,) = carried(server.origin, room_bytes=80)
            finally:
                server.close()
        found.append(type(got) if isinstance(got, LintasError) else got)
    assert found[0] == found[1]
