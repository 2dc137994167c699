"""How many requests are in flight: more while that brings more, half when a store says that it is too much.

Multiplicative decrease on throttling is TCP's answer to congestion (RFC 5681); growth is by measurement, since an
object store never says how much it would bear.
"""

from __future__ import annotations

import threading

TICK_S = 0.2
_OBJECT_WORTH_BYTES = 256 * 1024
_GAIN = 1.05
_PATIENCE_TICKS = 15


class Pace:
    """The number of workers that may work at a time.

    Workers are numbered; those below the limit work, the others wait. Each counts what it moved for itself, so that
    no lock is taken on the way of an object.

    Args:
        most: The limit's limit.
        first: What to begin with.
    """

    def __init__(self, most: int, first: int = 8) -> None:
        self.most = most
        self.limit = max(1, min(first, most))
        self._moved_bytes = [0] * most
        self._moved_objects = [0] * most
        self._seen = 0
        self._best = 0.0
        self._before = self.limit
        self._waiting_ticks = 0
        self._throttled = False
        self._closed = False
        self._grown = threading.Condition()

    def may_work(self, number: int) -> bool:
        """Wait until this worker may work; False when the move has ended."""
        if number >= self.limit and not self._closed:
            with self._grown:
                while number >= self.limit and not self._closed:
                    self._grown.wait()
        return not self._closed

    def moved(self, number: int, size_bytes: int) -> None:
        """Worker `number` has sent this many bytes."""
        self._moved_bytes[number] += size_bytes
        self._moved_objects[number] += 1

    def throttled(self) -> None:
        """A store asked for fewer requests."""
        self._throttled = True

    def close(self) -> None:
        """Let every waiting worker go home."""
        with self._grown:
            self._closed = True
            self._grown.notify_all()

    def tick(self, elapsed_s: float) -> None:
        """Judge the time since the last tick and set the limit anew."""
        seen = sum(self._moved_bytes) + _OBJECT_WORTH_BYTES * sum(self._moved_objects)
        rate, self._seen = (seen - self._seen) / elapsed_s, seen
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
        with self._grown:
            self.limit = limit
            self._grown.notify_all()
