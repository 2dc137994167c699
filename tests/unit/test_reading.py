"""Beginnings of objects, read ahead: in order, whole, bounded, with the errors of the store."""

from __future__ import annotations

import socketserver
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tasks.core.errors import NotFound, PreconditionFailed, Retryable
from tasks.core.plane.reading import AHEAD, Beginning, beginnings
from tasks.core.ports import SignedRequest
from tests.memory_store import MemoryStore


class Signs:
    """The reads of a store, signed."""

    def __init__(self, store: Served) -> None:
        self._store = store

    def get(self, key: str, *, version: str, start: int, length: int | None) -> SignedRequest:
        return self._store.sign(key, length)


class Served(MemoryStore):
    """A store that signs reads of what it holds, which a server beside it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.status = 200
        store = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    key = line.split()[1].decode()[1:]
                    head: dict[str, str] = {}
                    while field := self.rfile.readline().decode().strip():
                        name, _, value = field.partition(": ")
                        head[name] = value
                    store.asked[key] += 1
                    content = store.objects[key][0]
                    if "range" in head:
                        content = content[: int(head["range"].rpartition("-")[2]) + 1]
                    self.wfile.write(f"HTTP/1.1 {store.status} x\r\nContent-Length: {len(content)}\r\n\r\n".encode())
                    self.wfile.write(content)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 2 * AHEAD

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.direct = Signs(self)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sign(self, key: str, length: int | None) -> SignedRequest:
        origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        return SignedRequest("GET", origin, f"/{key}", {} if length is None else {"range": f"bytes=0-{length - 1}"})


@pytest.fixture
def served() -> Iterator[Served]:
    store = Served()
    yield store
    store.close()


@pytest.fixture(params=["direct", "by the SDK"])
def store(request: pytest.FixtureRequest, served: Served) -> MemoryStore:
    return served if request.param == "direct" else MemoryStore()


def filled(store: MemoryStore, count: int) -> list[str]:
    """So many objects, each of other bytes."""
    keys = [f"o/{at:04}" for at in range(count)]
    for at, key in enumerate(keys):
        content = b"%d " % at * (at % 5)
        store.put(key, [content], size_bytes=len(content))
    return keys


def wanted(store: MemoryStore, key: str, most: int = 1000) -> Beginning:
    info = store.objects[key][1]
    return Beginning(key, info.version, min(most, info.size_bytes), info.size_bytes)


@pytest.mark.parametrize("count", [0, 1, AHEAD - 1, AHEAD, 3 * AHEAD + 5])
def test_every_object_comes_in_its_turn(store: MemoryStore, count: int) -> None:
    keys = filled(store, count)
    found = list(beginnings(store, keys, lambda key: wanted(store, key)))
    assert found == [(key, store.objects[key][0]) for key in keys]


def test_of_what_is_longer_the_beginning_comes(store: MemoryStore) -> None:
    keys = filled(store, 30)
    found = list(beginnings(store, keys, lambda key: wanted(store, key, most=4)))
    assert found == [(key, store.objects[key][0][:4]) for key in keys]


def test_no_more_are_taken_than_are_under_way(store: MemoryStore) -> None:
    keys, taken = filled(store, 4 * AHEAD), list[str]()

    def each() -> Iterator[str]:
        for key in keys:
            taken.append(key)
            yield key

    found = beginnings(store, each(), lambda key: wanted(store, key))
    for at in range(10):
        next(found)
        assert len(taken) == at + AHEAD
    found.close()


def test_what_can_be_read_directly_is_asked_for_once(served: Served) -> None:
    keys = filled(served, 100)
    served.before = lambda call, key: pytest.fail(f"{call} of {key} by the SDK")
    found = list(
        beginnings(
            served, keys, lambda key: Beginning(key, "", len(served.objects[key][0]), len(served.objects[key][0]))
        )
    )
    assert len(found) == 100
    assert set(served.asked.values()) == {1}


def test_what_is_refused_directly_is_read_by_the_sdk_and_soon_not_asked_for_any_more(served: Served) -> None:
    keys = filled(served, 4 * AHEAD)
    served.status = 403
    found = list(beginnings(served, keys, lambda key: wanted(served, key)))
    assert found == [(key, served.objects[key][0]) for key in keys]
    assert sum(served.asked.values()) <= 2 * AHEAD


def test_an_object_that_changed_or_is_gone_ends_it_when_its_turn_comes(store: MemoryStore) -> None:
    keys = filled(store, 20)
    wants = [wanted(store, key) for key in keys]
    wants[9] = wants[9]._replace(version="another", length=wants[9].length + 1)
    found = beginnings(store, wants, lambda want: want)
    assert [next(found)[0].key for _ in range(9)] == keys[:9]
    with pytest.raises(PreconditionFailed):
        next(found)


def test_a_store_that_is_away_is_asked_as_often_as_told(store: MemoryStore) -> None:
    (key,) = filled(store, 1)
    want = Beginning(key, "", 5, 5)
    calls: list[str] = []

    def away(call: str, key: str) -> None:
        if call == "head":
            calls.append(key)
            raise Retryable("away", "wait", retry_after_s=0.0)

    store.before = away
    with pytest.raises(Retryable):
        list(beginnings(store, [want], lambda want: want, attempts=3))
    assert len(calls) == 3


def test_who_leaves_early_does_not_wait_for_pauses(store: MemoryStore) -> None:
    keys = filled(store, 10)
    asked = threading.Event()

    def away(call: str, key: str) -> None:
        if call == "head" and key == keys[-1]:
            asked.set()
            raise Retryable("away", "wait", retry_after_s=600.0)

    store.before = away
    wants = [Beginning(key, "", 1, 1) for key in keys[:1] + keys[-1:]]
    wants[0] = wanted(store, keys[1])
    found = beginnings(store, wants, lambda want: want, attempts=2)
    next(found)
    assert asked.wait(60)
    found.close()


def test_an_object_that_was_never_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        list(beginnings(MemoryStore(), ["x"], lambda key: Beginning(key, "", 1, 1)))
