"""How many requests are in flight: more while that brings more, half when a store says that it is too much.

Multiplicative decrease on throttling is TCP's answer to congestion (RFC 5681); growth is by measurement, since an
object store never says how much it would bear.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tasks.core.plane.loop import Loop, Task, parked

TICK_S = 0.2
FIRST = 64
_OBJECT_WORTH_BYTES = 256 * 1024
_GAIN = 1.25
"""What twice as many must bring: at a distance they bring nearly twice as much, near by only noise and more memory."""

_PATIENCE_TICKS = 15


class Pace:
    """The number of requests that may be in flight on either side.

    Args:
        most: The limit's limit.
        first: What to begin with.

    Attributes:
        limit: How many may be in flight now.
    """

    def __init__(self, most: int, first: int = FIRST) -> None:
        self.most = most
        self.limit = max(1, min(first, most))
        self._moved = 0
        self._seen = 0
        self._best = 0.0
        self._before = self.limit
        self._waiting_ticks = 0
        self._throttled = False

    def moved(self, size_bytes: int, objects: int) -> None:
        """So many bytes and whole objects have been sent."""
        self._moved += size_bytes + _OBJECT_WORTH_BYTES * objects

    def at_most(self, most: int) -> None:
        """Others need some of what was this one's: from now on its limit is at most so many."""
        self.most = most
        self.limit, self._before = min(self.limit, most), min(self._before, most)

    def throttled(self) -> None:
        """A store asked for fewer requests."""
        self._throttled = True

    def tick(self, elapsed_s: float) -> None:
        """Judge the time since the last tick and set the limit anew."""
        rate, self._seen = (self._moved - self._seen) / elapsed_s, self._moved
        if self._throttled:
            self._throttled = False
            self._set(max(1, self.limit // 2), patience=_PATIENCE_TICKS)
            self._before, self._best = self.limit, 0.0
        elif self._waiting_ticks:
            self._waiting_ticks -= 1
            if not self._waiting_ticks:
                # Try again how much more would bring: the network may have changed.
                self._best = rate
                self._grow()
        elif rate > self._best * _GAIN:
            self._best = rate
            self._grow()
        else:
            self._set(self._before, patience=_PATIENCE_TICKS)

    def _grow(self) -> None:
        if self.limit < self.most:
            self._before = self.limit
            self._set(min(self.most, self.limit * 2), patience=0)

    def _set(self, limit: int, *, patience: int) -> None:
        self._waiting_ticks = patience
        self.limit = limit


class Gate:
    """Lets as many tasks through at a time as the limit allows.

    Args:
        loop: What the others wait in.
        limit: Tells how many may be inside now.
    """

    def __init__(self, loop: Loop, limit: Callable[[], int]) -> None:
        self._loop, self._limit = loop, limit
        self._inside = 0
        self._waiting: deque[Task] = deque()

    async def enter(self) -> None:
        """Wait for room."""
        while self._inside >= self._limit():
            await parked(self._waiting.append)
        self._inside += 1

    def leave(self) -> None:
        """Make room."""
        self._inside -= 1
        self.wake()

    def wake(self) -> None:
        """Let those in who have room now; to be called when the limit has grown."""
        for _ in range(min(len(self._waiting), self._limit() - self._inside)):
            self._loop.resume(self._waiting.popleft())
