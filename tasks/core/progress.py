"""How far a move is: objects, bytes, rate and time left, by route."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.core.plane import CopiedObject

_UNITS = ("B", "kB", "MB", "GB", "TB")


class Tally:
    """Counts what arrives, from several threads.

    Args:
        objects, size_bytes: What has to arrive.
        clock: Seconds, from anywhere.
    """

    def __init__(self, objects: int, size_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.objects, self.size_bytes = objects, size_bytes
        self.objects_done = self.bytes_done = 0
        self._by_route: Counter[str] = Counter()
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()

    def add(self, item: CopiedObject) -> None:
        """Count an object that has arrived."""
        with self._lock:
            self.objects_done += 1
            self.bytes_done += item.size_bytes
            self._by_route[item.route] += item.size_bytes

    @property
    def share(self) -> float:
        """How much of the work is done, from 0 to 1: of the bytes, or of the objects where none has any."""
        done, all_of_it = (self.bytes_done, self.size_bytes) if self.size_bytes else (self.objects_done, self.objects)
        return done / all_of_it if all_of_it else 1.0

    def left_s(self) -> float | None:
        """Seconds that the rest takes at the rate so far; None before anything arrived."""
        share, elapsed_s = self.share, self._clock() - self._started
        return elapsed_s * (1 - share) / share if share else None

    def line(self) -> str:
        """All of it in one line for people."""
        elapsed_s = max(self._clock() - self._started, 1e-9)
        routes = ", ".join(f"{route} {size(count)}" for route, count in sorted(self._by_route.items()))
        left_s = self.left_s()
        left = "" if left_s is None else f", {duration(left_s)} left"
        return (
            f"{self.objects_done:,} of {self.objects:,} objects, {size(self.bytes_done)} of {size(self.size_bytes)},"
            f" {size(self.bytes_done / elapsed_s)}/s{left}" + (f" ({routes})" if routes else "")
        )


def size(size_bytes: float) -> str:
    """Bytes for people.

    >>> size(999), size(1_500_000)
    ('999 B', '1.5 MB')
    """
    for unit in _UNITS:
        if size_bytes < 1000 or unit == _UNITS[-1]:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError("unreachable: the last unit takes everything")


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(59), duration(3 * 3600 + 125)
    ('59 s', '3 h 2 min')
    """
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if hours < 1 else f"{int(hours)} h {int(minutes) % 60} min"
