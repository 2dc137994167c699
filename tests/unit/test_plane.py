"""The parts of the direct plane that need no server: memory, pace, fallback, signatures."""

from __future__ import annotations

import pickle
import random
import socketserver
import ssl
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from weakref import ref

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dataset import CHUNK_BYTES, Entry
from tasks.core.errors import Denied, IntegrityError, Invalid, LintasError, PreconditionFailed, Retryable, Terminal
from tasks.core.plane import Load, Recipient, copied, exchanges
from tasks.core.plane.buffers import PIECES_BYTES, Buffers
from tasks.core.plane.direct import PROCESSES, DirectPlane, _Run
from tasks.core.plane.limits import Limits, Rate
from tasks.core.plane.loop import Loop
from tasks.core.plane.pace import Gate, Pace
from tasks.core.plane.routes import FallingBack, plane_for, route_between
from tasks.core.plane.stream import StreamPlane
from tasks.core.plane.wire import _PIECE_BYTES, Room, Wire
from tasks.core.ports import SignedRequest, Write
from tasks.providers._dialects.sigv4 import LentKeys, Signer
from tests.memory_store import MemoryStore

# Memory


def looped(*work: Coroutine[Any, Any, None], loop: Loop) -> None:
    """Run coroutines to their end."""
    try:
        for one in work:
            loop.spawn(one)
        loop.run()
    finally:
        loop.close()


def test_buffers_never_exceed_their_budget_and_are_used_again() -> None:
    loop = Loop()
    buffers = Buffers(loop, 2 * CHUNK_BYTES)
    story: list[str] = []

    async def holder() -> None:
        first, second = await buffers.lease(CHUNK_BYTES), await buffers.lease(CHUNK_BYTES)
        loop.spawn(waiter())
        await loop.sleep(0.02)
        story.append("released")
        buffers.release(first)
        buffers.release(second)

    async def waiter() -> None:
        piece = await buffers.lease(1)
        story.append("leased")
        assert len(piece) == PIECES_BYTES[0]

    looped(holder(), loop=loop)

    assert story == ["released", "leased"]


@pytest.mark.parametrize(("size_bytes", "piece_bytes"), [(0, 32_768), (32_768, 32_768), (32_769, 262_144)])
def test_small_objects_share_a_chunk_and_give_it_back_whole(size_bytes: int, piece_bytes: int) -> None:
    loop = Loop()
    buffers = Buffers(loop, 2 * CHUNK_BYTES)

    async def work() -> None:
        pieces = [await buffers.lease(size_bytes) for _ in range(2 * CHUNK_BYTES // piece_bytes)]
        assert len({id(piece.obj) for piece in pieces}) == 2
        assert {len(piece) for piece in pieces} == {piece_bytes}
        for piece in pieces:
            buffers.release(piece)
        assert len(await buffers.lease(CHUNK_BYTES)) == CHUNK_BYTES

    looped(work(), loop=loop)


def test_a_chunk_that_was_cut_for_others_is_whole_for_who_waits() -> None:
    loop = Loop()
    buffers = Buffers(loop, CHUNK_BYTES)
    story: list[int] = []

    async def small() -> None:
        piece = await buffers.lease(1)
        loop.spawn(larger())
        await loop.sleep(0.01)
        buffers.release(piece)

    async def larger() -> None:
        for size_bytes in (100_000, CHUNK_BYTES, 1):
            leased = await buffers.lease(size_bytes)
            story.append(len(leased))
            loop.spawn(give_back(leased))

    async def give_back(leased: memoryview) -> None:
        await loop.sleep(0.01)
        buffers.release(leased)

    looped(small(), loop=loop)

    assert story == [PIECES_BYTES[1], CHUNK_BYTES, PIECES_BYTES[0]]


def far_buffers(loop: Loop, hold_s: Callable[[int], float], distance_s: float) -> list[int]:
    """How many of 2 to 12 buffers there may be while each is held for as long as that many under way make it."""
    buffers = Buffers(loop, 2 * CHUNK_BYTES, 12 * CHUNK_BYTES)
    most: list[int] = []

    async def carry() -> None:
        out: deque[memoryview] = deque()
        for _ in range(400):
            while len(out) < buffers.most:
                out.append(await buffers.lease(CHUNK_BYTES))
            buffers.follow(hold_s(len(out)), distance_s)
            buffers.release(out.popleft())
            most.append(buffers.most)

    looped(carry(), loop=loop)
    return most


def test_memory_follows_distance_up_to_the_far_budget() -> None:
    assert far_buffers(Loop(), lambda out: 0.12, 0.1)[-1] == 12


def test_near_stores_get_no_more_memory_however_long_a_buffer_is_held() -> None:
    assert set(far_buffers(Loop(), lambda out: 3.0, 0.0)) == {2}


def test_memory_grows_no_further_than_what_the_network_carries_over_the_distance() -> None:
    # A second a buffer is what the network takes: of those that are under way only a tenth waits for the stores.
    assert far_buffers(Loop(), lambda out: 0.1 + out * 1.0, 0.1)[-1] == 2


def test_buffers_beyond_what_is_needed_are_given_back_to_the_system() -> None:
    loop = Loop()
    buffers = Buffers(loop, CHUNK_BYTES, 8 * CHUNK_BYTES)

    async def work() -> None:
        first = await buffers.lease(CHUNK_BYTES)
        buffers.follow(0.1, 0.1)
        out = [first] + [await buffers.lease(CHUNK_BYTES) for _ in range(2)]
        maps = [ref(buffer.obj) for buffer in out]
        for _ in range(200):
            buffers.follow(100.0, 0.1)
        while out:
            buffers.release(out.pop())
        del first
        assert sum(there() is not None for there in maps) == buffers.most == 1

    looped(work(), loop=loop)


def test_reads_go_ahead_of_their_buffers_by_as_many_as_arrive_over_the_distance() -> None:
    loop = Loop()
    buffers = Buffers(loop, 4 * CHUNK_BYTES, 12 * CHUNK_BYTES)

    async def work() -> None:
        out = [await buffers.lease(CHUNK_BYTES) for _ in range(4)]
        assert buffers.ahead == 4
        buffers.follow(0.1, 0.05)
        assert buffers.ahead == 4 + 2
        buffers.release(out[0])

    looped(work(), loop=loop)


# The wire


def into(buffer: memoryview) -> Room:
    """For what is read there is this buffer."""

    async def room() -> memoryview:
        return buffer

    return room


class Clock:
    """Time that passes when a test says so: while a request waits, which looks at it when sent and when answered."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._looks = threading.Semaphore(1)

    def monotonic(self) -> float:
        now = self._now
        self._looks.release()
        return now

    def advance(self, seconds: float) -> None:
        assert self._looks.acquire(timeout=30)
        assert self._looks.acquire(timeout=30)
        self._now += seconds


class Serve(Protocol):
    def __call__(
        self, answer: Callable[[str], str], *, content: bytes = b"", lost: int = 0, tls: Path | None = None
    ) -> str:
        """Serve one request a connection and return the origin.

        Args:
            answer: From method to status, called once all of a request has arrived.
            content: Of every answer.
            lost: How many bytes more are promised and never come.
            tls: Certificate and key.
        """
        ...


@pytest.fixture
def answering() -> Iterator[Serve]:
    """Servers of a few lines."""
    servers: list[socketserver.ThreadingTCPServer] = []

    def serve(answer: Callable[[str], str], *, content: bytes = b"", lost: int = 0, tls: Path | None = None) -> str:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if tls is not None:
            context.load_cert_chain(tls)

        class Server(socketserver.ThreadingTCPServer):
            def get_request(self) -> tuple[Any, Any]:
                plain, address = super().get_request()
                return (plain if tls is None else context.wrap_socket(plain, server_side=True)), address

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                method, *head = iter(lambda: self.rfile.readline().decode().strip(), "")
                sizes = [line.partition(":")[2] for line in head if line.lower().startswith("content-length:")]
                self.rfile.read(int(sizes[0]) if sizes else 0)
                status = answer(method.partition(" ")[0])
                length = len(content) + lost
                self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode())
                self.wfile.write(content)

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_distance_is_the_shortest_wait_of_a_read_that_succeeded_and_the_way_of_a_write(
    answering: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    answers = iter([("200 OK", 0.5), ("503 Busy", 0.0), ("200 OK", 0.0625), ("201 Created", 0.25), ("200 OK", 4.0)])

    def answer(method: str) -> str:
        status, passed_s = next(answers)
        clock.advance(passed_s)
        return status

    origin = answering(answer)
    monkeypatch.setattr("tasks.core.plane.wire.time", clock)
    loop = Loop()
    wire = Wire(loop)
    seen: list[float] = []
    monkeypatch.setattr("tasks.core.plane.wire._round_trip_s", lambda dialled: 0.03125)

    async def work() -> None:
        for method, body in [("GET", None), ("GET", None), ("GET", None), ("PUT", memoryview(b"x")), ("GET", None)]:
            await wire.exchange(SignedRequest(method, origin, "/", {}), body, into(memoryview(bytearray(1))))
            seen.append(wire.distance_s)
        wire.close()

    looped(work(), loop=loop)

    assert seen == [0.5, 0.5, 0.0625, 0.09375, 0.09375]


def test_no_buffer_is_asked_for_before_a_successful_answer_has_begun(answering: Serve) -> None:
    statuses = iter(["404 Missing", "200 OK"])
    story: list[str] = []

    def answer(method: str) -> str:
        story.append(status := next(statuses))
        return status

    origin = answering(answer, content=b"abc")
    loop = Loop()
    wire = Wire(loop)

    async def room() -> memoryview:
        story.append("buffer")
        return memoryview(bytearray(3))

    async def work() -> None:
        for status in (404, 200):
            got = await wire.exchange(SignedRequest("GET", origin, "/", {}), None, room)
            assert (got.status, got.size_bytes) == (status, 3)
        wire.close()

    looped(work(), loop=loop)

    assert story == ["404 Missing", "200 OK", "buffer"]


def fetched(origin: str, size_bytes: int) -> tuple[memoryview, list[int]]:
    """What a read over the wire puts into a buffer of this size, and the sizes of the pieces that were looked at."""
    loop = Loop()
    wire = Wire(loop)
    buffer, pieces = memoryview(bytearray(size_bytes)), list[int]()

    def look(piece: memoryview) -> float:
        pieces.append(len(piece))
        return 0.0

    async def work() -> None:
        await wire.exchange(SignedRequest("GET", origin, "/", {}), None, into(buffer), look)

    try:
        looped(work(), loop=loop)
    finally:
        wire.close()
    return buffer, pieces


def test_what_comes_in_many_records_arrives_whole_and_is_looked_at_in_pieces(answering: Serve, tls: Path) -> None:
    content = random.Random(1).randbytes(1_000_003)
    into, pieces = fetched(answering(lambda _: "200 OK", content=content, tls=tls), len(content))
    assert into == content
    assert max(pieces) <= _PIECE_BYTES
    assert sum(pieces) == len(content)


def test_an_answer_that_ends_early_over_tls_is_no_answer(answering: Serve, tls: Path) -> None:
    content = random.Random(2).randbytes(100_000)
    with pytest.raises(Retryable):
        fetched(answering(lambda _: "200 OK", content=content, lost=1, tls=tls), len(content) + 1)


def test_a_certificate_that_nobody_vouches_for_ends_the_move(
    answering: Serve, tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(Terminal, match="not trusted"):
        fetched(answering(lambda _: "200 OK", tls=tls), 1)


# The loop


def test_the_first_error_ends_everything_that_waits_and_is_raised() -> None:
    loop = Loop()
    ended: list[str] = []

    async def waits(how: str, awaitable: Coroutine[Any, Any, Any]) -> None:
        try:
            await awaitable
        finally:
            ended.append(how)

    async def fails() -> None:
        await loop.sleep(0.01)
        raise LintasError("no more", "stop")

    with pytest.raises(LintasError):
        looped(waits("asleep", loop.sleep(60)), fails(), loop=loop)

    assert ended == ["asleep"]


def test_a_blocking_call_runs_beside_the_loop_and_gives_back_its_result_or_its_error() -> None:
    loop = Loop()
    got: list[object] = []

    async def calls() -> None:
        main = threading.get_ident()
        got.append(await loop.apart(lambda: threading.get_ident() != main))
        try:
            await loop.apart(lambda: [][1])
        except IndexError as error:
            got.append(type(error))

    looped(calls(), loop=loop)

    assert got == [True, IndexError]


# Pace


def run(pace: Pace, rate_at: Callable[[int], float], ticks: int) -> list[int]:
    limits: list[int] = []
    for _ in range(ticks):
        pace.moved(int(rate_at(pace.limit)), 0)
        pace.tick(1.0)
        limits.append(pace.limit)
    return limits


def test_the_pace_grows_while_more_brings_more_and_stays_where_it_does_not() -> None:
    limits = run(Pace(256, first=8), lambda limit: 1e8 * min(limit, 40), ticks=12)
    assert max(limits) >= 64
    assert limits[-1] in (32, 64)


def test_the_pace_halves_when_a_store_asks_for_less() -> None:
    pace = Pace(64, first=32)
    pace.throttled()
    pace.tick(1.0)
    assert pace.limit == 16
    for _ in range(10):
        pace.throttled()
        pace.tick(1.0)
    assert pace.limit == 1


def test_the_pace_never_passes_its_limit() -> None:
    assert max(run(Pace(48), lambda limit: 1e8 * limit, ticks=20)) == 48


def test_what_is_left_to_others_stays_with_them_however_much_more_would_bring() -> None:
    pace = Pace(64)
    pace.at_most(24)

    assert max(run(pace, lambda limit: 1e8 * limit, ticks=20)) == 24


def test_a_gate_lets_in_as_many_as_its_limit_allows() -> None:
    loop = Loop()
    gate = Gate(loop, lambda: 3)
    inside: list[int] = []
    most: list[int] = []

    async def visit(number: int) -> None:
        await gate.enter()
        inside.append(number)
        most.append(len(inside))
        await loop.sleep(0)
        inside.remove(number)
        gate.leave()

    looped(*(visit(number) for number in range(10)), loop=loop)

    assert max(most) == 3
    assert len(most) == 10


# Limits


@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=50), st.floats(1_000, 1e8))
def test_no_more_passes_than_the_rate_allows(pieces: list[int], per_s: float) -> None:
    rate = Rate(per_s)
    now = before = 1000.0
    for size_bytes in pieces:
        now += rate.take(size_bytes, now=now)
    assert sum(pieces) <= (now - before + 0.1) * per_s * (1 + 1e-6)


def test_no_limit_lets_everything_pass_at_once() -> None:
    assert Limits().bytes().take(10**12) == 0.0


# What comes next


class Signs(MemoryStore):
    """A store whose uploads in parts begin, which is all that it can do for others."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.direct = SimpleNamespace(begin=self._begin, most_parts=10_000)

    def _begin(self, write: Write) -> str:
        self.begun.append(write.key)
        return f"upload {write.key}"


@pytest.mark.parametrize(("parts", "begun"), [(1, 0), (2, 8), (15, 2), (16, 1), (40, 1)])
def test_uploads_of_sixteen_parts_have_begun_when_the_first_is_asked_for(parts: int, begun: int) -> None:
    source, far = Signs(), Signs()
    entries = [Entry(f"{at:02}", parts * CHUNK_BYTES, "d" * 64, "") for at in range(20)]
    loads = [Load(entry, entry.path, entry.path, None) for entry in entries]
    for load in loads:
        source.put(load.source_key, [b"x"], size_bytes=1)
    run = _Run(DirectPlane(), source, [Recipient(far, loads, lambda load, item: None)])

    errand = run.take()
    run._beginning.shutdown()

    assert errand is not None
    assert (errand.load.key, errand.number) == ("00", 1 if begun else 0)
    assert sorted(far.begun) == [f"{at:02}" for at in range(begun)]


# Processes


def loads_of(count: int, size_bytes: int) -> list[Load]:
    return [Load(Entry(str(at), size_bytes, "d" * 64, "v"), f"in/{at}", f"out/{at}", None) for at in range(count)]


def test_few_objects_and_moves_under_a_limit_are_carried_by_one_process() -> None:
    assert DirectPlane().processes_for(loads_of(10, 1000)) == 1
    assert DirectPlane(limits=Limits(mb_per_s=10.0)).processes_for(loads_of(10_000, 1000)) == 1


def test_many_bytes_have_a_process_a_core() -> None:
    assert DirectPlane().processes_for(loads_of(1, 64 * 1024**3)) == PROCESSES
    assert DirectPlane(processes=3).processes_for(loads_of(1, 1)) == 3


def test_many_small_objects_have_fewer_processes_where_their_exchanges_need_no_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchanges, "loaded", lambda: None)
    assert DirectPlane().processes_for(loads_of(10_000, 1000)) == PROCESSES
    monkeypatch.setattr(exchanges, "loaded", lambda: object())
    assert DirectPlane().processes_for(loads_of(10_000, 1000)) == max(1, PROCESSES // 2)


# Routes

LOADS = [Load(Entry(name, 1, "d" * 64, "v"), f"in/{name}", f"out/{name}", None) for name in "abc"]


class Closed:
    """A plane that carries one object and then fails."""

    def __init__(self, error: LintasError) -> None:
        self._error = error

    def carry(self, loads, source, destination, arrived) -> None:
        arrived(loads[0], copied(loads[0], "v1", "first", "direct"))
        raise self._error


class Open:
    def __init__(self) -> None:
        self.carried: list[str] = []

    def carry(self, loads, source, destination, arrived) -> None:
        self.carried += [load.key for load in loads]


@pytest.mark.parametrize("error", [Denied("refused"), Invalid("too many parts"), Terminal("not understood")])
def test_a_closed_route_falls_back_for_the_rest_and_says_so(error: LintasError) -> None:
    said: list[str] = []
    second = Open()
    FallingBack(Closed(error), second, said.append).carry(
        LOADS, MemoryStore(), MemoryStore(), lambda _load, _item: None
    )
    assert second.carried == ["out/b", "out/c"]
    assert len(said) == 1
    assert "2 objects" in said[0]


@pytest.mark.parametrize("error", [IntegrityError("wrong"), PreconditionFailed("changed"), Retryable("silent")])
def test_what_another_route_would_meet_too_is_raised(error: LintasError) -> None:
    second = Open()
    with pytest.raises(type(error)):
        FallingBack(Closed(error), second, print).carry(LOADS, MemoryStore(), MemoryStore(), lambda _load, _item: None)
    assert second.carried == []


def test_stores_that_cannot_sign_stream() -> None:
    assert route_between(MemoryStore(), MemoryStore()) == "stream"
    assert isinstance(plane_for("stream"), StreamPlane)


# Signatures


@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize("path", ["/raw/plain.txt", "/raw/a%20b/gr%C3%B6%C3%9Fe%2Bplus~x"])
@pytest.mark.parametrize("query", [{}, {"partNumber": "7", "uploadId": "a/b+c="}])
def test_a_signature_is_the_one_that_botocore_makes(path: str, query: dict[str, str], token: str | None) -> None:
    credentials = Credentials("AKIDEXAMPLE", "secret", token)
    headers = {"if-none-match": "*", "x-amz-meta-lintas-digest": "ab" * 32, "content-type": "application/octet-stream"}
    ours = Signer(credentials, "eu-west-1", "s3.test:8333").headers("PUT", path, query, headers)

    theirs = AWSRequest(
        "PUT", f"http://s3.test:8333{path}", headers={**headers, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    )
    theirs.params = query
    theirs.context["timestamp"] = ours["x-amz-date"]
    signer = S3SigV4Auth(credentials, "s3", "eu-west-1")
    theirs.headers["X-Amz-Date"] = ours["x-amz-date"]
    if token:
        theirs.headers["X-Amz-Security-Token"] = token
    signature = signer.signature(signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs)

    assert ours["Authorization"].endswith(f"Signature={signature}")


def test_rotated_credentials_sign_with_the_new_key() -> None:
    frozen = [SimpleNamespace(access_key="a", secret_key=secret, token=None) for secret in ("one", "two")]
    rotating = SimpleNamespace(get_frozen_credentials=lambda: frozen[0])
    signer = Signer(rotating, "eu-west-1", "host")  # type: ignore[arg-type]
    before = signer.headers("GET", "/b/k", {}, {}, now_s=0.0)["Authorization"]
    frozen.reverse()
    after = signer.headers("GET", "/b/k", {}, {}, now_s=0.0)["Authorization"]
    assert before != after


def test_lent_signatures_are_the_same_and_show_no_secret() -> None:
    signer = Signer(Credentials("AKID", "the-secret-key", "the-token"), "eu-central-1", "s3.example")
    lent = pickle.loads(pickle.dumps(signer.lent()))

    request = ("PUT", "/b/k", {"partNumber": "1"}, {"x-amz-checksum-crc64nvme": "AAAA"})
    assert lent.headers(*request, now_s=0) == signer.headers(*request, now_s=0)
    assert "the-" not in repr(LentKeys("AKID", "the-secret-key", "the-token"))
