"""The beginnings of many objects, read ahead of whoever looks at them; small objects are all beginning.

Looking at an object costs a millisecond, and asking a store for it some, or a hundred where it is far. So many are
asked for at a time: over connections of our own where the store signs for others, on threads through its SDK elsewhere.
What the first way cannot do (a refusal, an answer that nobody expects) is asked for by the second, whose errors count.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tasks.core.errors import LintasError
from tasks.core.plane.loop import Loop, Task, parked
from tasks.core.plane.wire import Wire
from tasks.core.ports import DirectStore
from tasks.core.retries import with_retries

if TYPE_CHECKING:
    from tasks.core.ports import Signing, Store

T = TypeVar("T")

AHEAD = 64
"""So many objects are asked for at a time."""

_THREADS = 16
_CLOSED_AFTER = 3
"""So many failures in a row are the way's, not the objects'."""


class Beginning(NamedTuple):
    """What is wanted of an object.

    Args:
        key: The object.
        version: Its version; empty for any.
        length: So many bytes from its first on.
        size_bytes: Its size.
    """

    key: str
    version: str
    length: int
    size_bytes: int


def beginnings(
    store: Store, items: Iterable[T], wanted: Callable[[T], Beginning], attempts: int = 1
) -> Generator[tuple[T, bytes]]:
    """Each item with the beginning of its object, in order. Memory is bounded by `AHEAD` of them.

    Args:
        store: The store that holds the objects.
        items: What they are to the caller, from whose thread they are taken, `AHEAD` ahead.
        wanted: What is wanted of an item.
        attempts: How often an object is tried when the store answers `Retryable`.

    Raises:
        LintasError: What `Store.get` raises, when it is the object's turn.
    """
    stop = threading.Event()

    def by_sdk(want: Beginning) -> bytes:
        whole = want.length == want.size_bytes
        length = None if whole else want.length
        return with_retries(
            lambda: b"".join(store.get(want.key, version=want.version or None, length=length)), attempts, stop
        )

    with (
        ThreadPoolExecutor(_THREADS, thread_name_prefix="read") as threads,
        _asking(store, by_sdk, threads) as ask,
    ):
        try:
            under_way: deque[tuple[T, Future[bytes]]] = deque()
            for item in items:
                under_way.append((item, ask(wanted(item))))
                if len(under_way) == AHEAD:
                    first, future = under_way.popleft()
                    yield first, future.result()
            for item, future in under_way:
                yield item, future.result()
        finally:
            # Whoever leaves early waits for what is under way, but not for its pauses.
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)


_Ask = Callable[[Beginning], "Future[bytes]"]


@contextmanager
def _asking(store: Store, by_sdk: Callable[[Beginning], bytes], threads: ThreadPoolExecutor) -> Generator[_Ask]:
    if not isinstance(store, DirectStore):
        yield lambda want: threads.submit(by_sdk, want)
        return
    reader = _Reader(store.direct, by_sdk, threads)
    thread = threading.Thread(target=reader.run, name="reader", daemon=True)
    thread.start()
    try:
        yield reader.ask
    finally:
        reader.end()
        thread.join()


class _Reader:
    """Reads over connections of its own, on one thread.

    Args:
        signing: Signs what it asks for.
        by_sdk: The other way.
        threads: Where that is gone.
    """

    def __init__(self, signing: Signing, by_sdk: Callable[[Beginning], bytes], threads: ThreadPoolExecutor) -> None:
        self._signing, self._by_sdk, self._threads = signing, by_sdk, threads
        self._loop = Loop()
        self._wire = Wire(self._loop)
        self._failures = 0
        self._waiting: Task | None = None
        self._ended = False
        self._out: set[Future[bytes]] = set()
        self._over: BaseException | None = None
        self._entering = threading.Lock()

    def run(self) -> None:
        """Read what is asked for until the end."""
        self._loop.spawn(self._stay())
        failure: BaseException = RuntimeError("the reader has ended")
        try:
            self._loop.run()
        except BaseException as error:  # noqa: BLE001  (raised by whoever waits for what it read)
            failure = error
        finally:
            self._wire.close()
            self._loop.close()
            with self._entering:
                self._over = failure
            for future in self._out:
                future.set_exception(failure)

    def ask(self, want: Beginning) -> Future[bytes]:
        """Have it read; from the thread of the caller."""
        future: Future[bytes] = Future()
        if not want.length:
            future.set_result(b"")
        elif self._failures >= _CLOSED_AFTER:
            return self._threads.submit(self._by_sdk, want)
        else:
            with self._entering:
                if self._over is not None:
                    raise self._over
                self._out.add(future)
                self._loop.call(lambda: self._loop.spawn(self._read(want, future), background=True))
        return future

    def end(self) -> None:
        """Leave what is under way, and end."""

        def leave() -> None:
            self._ended = True
            if self._waiting is not None:
                self._loop.resume(self._waiting)

        self._loop.call(leave)

    async def _stay(self) -> None:
        def wait(task: Task) -> None:
            self._waiting = task

        if not self._ended:
            await parked(wait)

    async def _read(self, want: Beginning, future: Future[bytes]) -> None:
        content = await self._directly(want)
        try:
            if content is None:
                content = await self._loop.apart(lambda: self._by_sdk(want))
        except LintasError as error:
            self._out.discard(future)
            future.set_exception(error)
        else:
            self._out.discard(future)
            future.set_result(content)

    async def _directly(self, want: Beginning) -> bytes | None:
        """The bytes; None when this way has none to give."""
        if self._failures >= _CLOSED_AFTER:
            return None
        length = None if want.length == want.size_bytes else want.length
        room = memoryview(bytearray(want.length))
        try:
            request = self._signing.get(want.key, version=want.version, start=0, length=length)
            answer = await self._wire.small(request, None, room)
        except LintasError:
            self._failures += 1
            return None
        if answer.status not in (200, 206) or answer.size_bytes != want.length:
            self._failures += 1
            return None
        self._failures = 0
        return bytes(room)
