"""What a move may take of the network and of the stores' patience, however many pumps carry it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

_MB = 1_000_000
_BURST_S = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a move may take; None for as much as there is.

    Args:
        mb_per_s: Millions of bytes a second that are read from the source (and sent to the destination).
        requests_per_s: Requests a second, of both stores together.
    """

    mb_per_s: float | None = None
    requests_per_s: float | None = None

    def shared(self, among: int) -> Limits:
        """What each of so many may take who know nothing of each other, so that all of them keep to this.

        >>> Limits(mb_per_s=100).shared(4)
        Limits(mb_per_s=25.0, requests_per_s=None)
        """
        return Limits(self.mb_per_s and self.mb_per_s / among, self.requests_per_s and self.requests_per_s / among)

    def bytes(self) -> Rate:
        """The rate of bytes."""
        return Rate(None if self.mb_per_s is None else self.mb_per_s * _MB)

    def requests(self) -> Rate:
        """The rate of requests."""
        return Rate(self.requests_per_s)


NO_LIMITS = Limits()


class Rate:
    """A token bucket that holds a tenth of a second's worth, safe between threads.

    Whoever takes more than there is goes into debt and is told how long to wait; those who come later wait longer, so
    that the average holds whatever is taken at once.

    Args:
        per_s: Tokens a second; None for no limit.

    >>> Rate(None).take(1_000_000)
    0.0
    """

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, tokens: float, *, now: float | None = None) -> float:
        """Take tokens; returns the seconds to wait before using them.

        Args:
            tokens: How many.
            now: Seconds of a monotonic clock; the system's unless told.
        """
        if self._per_s is None:
            return 0.0
        moment = time.monotonic() if now is None else now
        with self._lock:
            self._free_at = max(moment - _BURST_S, self._free_at) + tokens / self._per_s
            return max(0.0, self._free_at - moment)
