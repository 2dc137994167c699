"""The same stopwatch for both sides; it needs nothing that only one environment has."""

from __future__ import annotations

import time
from collections.abc import Callable


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """What a call answers, and the seconds of processor time it took, all threads together."""
    started = time.process_time()
    answer = float(call())
    return answer, time.process_time() - started
