"""Trying again what may succeed later, and doing many things at a time until the first failure."""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from tasks.core.errors import Retryable

T = TypeVar("T")
R = TypeVar("R")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 20.0


def with_retries(call: Callable[[], R], attempts: int, stop: threading.Event) -> R:
    """Call until it succeeds, at most `attempts` times.

    Args:
        call: What to do; `Retryable` from it means that it may be done again.
        attempts: At least 1.
        stop: Ends the waiting at once; the last `Retryable` is raised then.

    Raises:
        Retryable: The last attempt failed too. Everything else passes through at once.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Retryable as error:
            if attempt == attempts or stop.wait(pause_s(error, attempt)):
                raise
    raise AssertionError("unreachable: attempts is at least 1")


def pause_s(error: Retryable, attempt: int) -> float:
    """Seconds to wait after attempt number `attempt`: what the service asked for, or else twice as long each time.

    Callers that failed together do not come back together: the pause is drawn from its upper half.
    """
    if error.retry_after_s is not None:
        return error.retry_after_s
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


def in_parallel(work: Callable[[T], R], items: Iterable[T], in_flight: int, stop: threading.Event) -> list[R]:
    """Run `work` over the items, at most `in_flight` at a time; the first failure stops the rest and is raised."""
    results: list[R] = []
    waiting = iter(items)
    with ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="carry") as pool:
        running: set[Future[R]] = {pool.submit(work, item) for item in islice(waiting, in_flight)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                results += [future.result() for future in done]
                running |= {pool.submit(work, item) for item in islice(waiting, len(done))}
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


OBJECTS_AT_ONCE = max(2, min(4, len(os.sched_getaffinity(0))))
"""How many objects are looked at or treated at the same time: one a processor, but memory is bounded by each."""


def in_turn(work: Callable[[T], R], items: Iterable[T], in_flight: int) -> Generator[R]:
    """The results of `work` over the items, in their order, at most `in_flight` at a time and twice as many ahead.

    Unlike `Executor.map` it takes no more items than that. Whoever leaves early waits for those that have begun.
    """
    with ThreadPoolExecutor(in_flight, thread_name_prefix="turn") as pool:
        under_way: deque[Future[R]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) == 2 * in_flight:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
