"""Many exchanges on one thread: coroutines that wait for connections, for time, for each other, or for a blocking call.

The interpreter runs one thread at a time, and handing it from one to another costs more than a small object does. So
one thread serves all connections of a pump, woken by the kernel (epoll, edge-triggered: a connection is registered
once). `asyncio` would do the same at several times the cost an exchange.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SILENCE_TIMEOUT_S = 60
"""How long a connection may neither take nor give a byte, unless told otherwise."""

_BLOCKING_CALLS = 32
_EVENTS = 256
_LOOK_FOR_SILENCE_S = 1.0
_READS = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
_WRITES = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

Work = Coroutine[Any, Any, None]


class Task:
    """A coroutine under way. `background` work does not keep the loop running."""

    __slots__ = ("background", "work")

    def __init__(self, work: Work, background: bool) -> None:
        self.work = work
        self.background = background


_Park = Callable[[Task], None]


@coroutine
def parked(park: _Park) -> Generator[_Park, Any, Any]:
    """Wait until somebody resumes the task that `park` is called with; what they resume it with is the result."""
    return (yield park)


class End:
    """One end of a connection, as the loop watches it."""

    __slots__ = ("_loop", "can_read", "can_write", "number", "reader", "waiting_since", "writer")

    def __init__(self, loop: Loop, number: int) -> None:
        self._loop = loop
        self.number = number
        self.reader: Task | None = None
        self.writer: Task | None = None
        self.can_read = self.can_write = False
        self.waiting_since = 0.0

    def until_readable(self, task: Task) -> None:
        """For `parked`: until something can be read. Raises `TimeoutError` there after the loop's `silence_s`."""
        if self.can_read:
            self.can_read = False
            self._loop.resume(task)
        else:
            self.reader, self.waiting_since = task, self._loop.now

    def until_writable(self, task: Task) -> None:
        """For `parked`: until something can be written. Raises as `until_readable`."""
        if self.can_write:
            self.can_write = False
            self._loop.resume(task)
        else:
            self.writer, self.waiting_since = task, self._loop.now


class Loop:
    """Runs coroutines on the calling thread until all have ended or one has failed.

    Args:
        silence_s: How long a connection may neither take nor give a byte, in seconds.
    """

    def __init__(self, silence_s: float = SILENCE_TIMEOUT_S) -> None:
        self._silence_s = silence_s
        self.now = time.monotonic()
        self._poll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._bell, select.EPOLLIN)
        self._ready: deque[tuple[Task, Any, BaseException | None]] = deque()
        self._timers: list[tuple[float, int, Task]] = []
        self._order = itertools.count()
        self._ends: dict[int, End] = {}
        self._tasks: set[Task] = set()
        self._left = 0
        self._threads: ThreadPoolExecutor | None = None
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bells: dict[int, Callable[[], None]] = {self._bell: self._answer_bell}
        self._leaving: list[Callable[[], None]] = []
        self._bell_lock = threading.Lock()
        self._closed = False

    def spawn(self, work: Work, *, background: bool = False) -> None:
        """Run a coroutine beside the others."""
        task = Task(work, background)
        self._tasks.add(task)
        self._left += not background
        self._ready.append((task, None, None))

    def resume(self, task: Task, result: Any = None, error: BaseException | None = None) -> None:
        """Let a parked task go on, with a result or an error. From the loop's own thread only."""
        self._ready.append((task, result, error))

    def call(self, call: Callable[[], None]) -> None:
        """Run a function on the loop's thread; from any thread."""
        self._calls.put(call)
        with self._bell_lock:
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""
        await parked(lambda task: heapq.heappush(self._timers, (self.now + seconds, next(self._order), task)))

    async def apart(self, call: Callable[[], T]) -> T:
        """Run a blocking call on a thread of its own and wait for it. It is never left behind: see `run`."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_BLOCKING_CALLS, thread_name_prefix="apart")
        return await self.outcome(self._threads.submit(call))

    async def outcome(self, future: Future[T]) -> T:
        """Wait for what another thread does; its result, or its error."""
        if not future.done():

            def park(task: Task) -> None:
                future.add_done_callback(lambda _: self.call(lambda: self.resume(task)))

            await parked(park)
        return future.result()

    def attach(self, bell: int, arrived: Callable[[], None], leaving: Callable[[], None]) -> None:
        """Let another thread have work of this one's.

        Args:
            bell: A descriptor that can be read when there is news.
            arrived: Called then.
            leaving: Called each time before the loop waits.
        """
        self._bells[bell] = arrived
        self._poll.register(bell, select.EPOLLIN)
        self._leaving.append(leaving)

    def watch(self, number: int) -> End:
        """Watch a file descriptor; see `End`."""
        end = self._ends[number] = End(self, number)
        self._poll.register(number, _ALL)
        return end

    def forget(self, end: End) -> None:
        """Stop watching; before the descriptor is closed."""
        if self._ends.pop(end.number, None) is not None and not self._closed:
            self._poll.unregister(end.number)

    def run(self) -> None:
        """Run what was spawned. The first error ends all: the others are closed where they wait, and it is raised.

        Returns or raises only when blocking calls that were under way have ended too.
        """
        looked = self.now
        try:
            while self._left:
                self._step_all()
                if not self._left:
                    return
                self._wait()
                if self.now - looked > _LOOK_FOR_SILENCE_S:
                    looked = self.now
                    self._break_silence()
        finally:
            for task in list(self._tasks):
                task.work.close()
            if self._threads is not None:
                self._threads.shutdown()

    def close(self) -> None:
        """Give the kernel's things back."""
        with self._bell_lock:
            self._closed = True
            self._poll.close()
            os.close(self._bell)

    def _step_all(self) -> None:
        ready = self._ready
        while ready:
            task, result, error = ready.popleft()
            if task not in self._tasks:
                continue
            try:
                park = task.work.send(result) if error is None else task.work.throw(error)
            except StopIteration:
                self._end(task)
            except BaseException:
                self._end(task)
                raise
            else:
                park(task)

    def _end(self, task: Task) -> None:
        self._tasks.discard(task)
        self._left -= not task.background

    def _wait(self) -> None:
        for leave in self._leaving:
            leave()
        timeout = _LOOK_FOR_SILENCE_S
        if self._ready:
            timeout = 0.0
        elif self._timers:
            timeout = max(0.0, min(timeout, self._timers[0][0] - time.monotonic()))
        events = self._poll.poll(timeout, _EVENTS)
        self.now = time.monotonic()
        for number, mask in events:
            bell = self._bells.get(number)
            if bell is not None:
                bell()
                continue
            end = self._ends.get(number)
            if end is None:
                continue
            if mask & _READS:
                reader, end.reader = end.reader, None
                if reader is None:
                    end.can_read = True
                else:
                    self._ready.append((reader, None, None))
            if mask & _WRITES:
                writer, end.writer = end.writer, None
                if writer is None:
                    end.can_write = True
                else:
                    self._ready.append((writer, None, None))
        while self._timers and self._timers[0][0] <= self.now:
            self._ready.append((heapq.heappop(self._timers)[2], None, None))

    def _answer_bell(self) -> None:
        os.eventfd_read(self._bell)
        while not self._calls.empty():
            self._calls.get()()

    def _break_silence(self) -> None:
        for end in self._ends.values():
            if self.now - end.waiting_since < self._silence_s:
                continue
            for waiter in (end.reader, end.writer):
                if waiter is not None:
                    self.resume(waiter, error=TimeoutError("silence"))
            end.reader = end.writer = None
