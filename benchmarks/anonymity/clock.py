"""The same stopwatch for both sides; it needs nothing that only one environment has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

AGAIN = 7
"""How often a call is made after its first time."""


def timed(call: Callable[[], float]) -> tuple[float, float, float]:
    """What a call answers, and the seconds of processor time, all threads together, of the first and of later calls.

    The first one also loads what the libraries load when they are first used; of the later ones it is the median.
    """
    spent: list[float] = []
    answer = 0.0
    for _ in range(1 + AGAIN):
        started = time.process_time()
        answer = float(call())
        spent.append(time.process_time() - started)
    return answer, spent[0], statistics.median(spent[1:])
