"""Listing a large dataset side by side: its prefixes one level down are listed by several threads at once.

A listing comes in pages of a thousand objects, each of which can only be asked for when the one before has answered;
prefixes do not wait for each other. A small dataset is listed plainly: its first page is its last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from queue import Queue

from tasks.core.ports import Level, LevelledStore, ObjectInfo, Store

_PAGE = 1000
_AT_ONCE = 8
_WIDE_ENOUGH = 4 * _AT_ONCE
_DEEPEST = 4
_MOST_PREFIXES = 2_000

_Batch = list[ObjectInfo]


def listed(store: Store, prefix: str) -> Iterator[ObjectInfo]:
    """All objects whose key starts with the prefix, in any order; in bounded memory, however many there are.

    Args:
        store: Where; one that is no `LevelledStore` is listed plainly.
        prefix: A beginning of keys.

    Raises:
        NotFound: There is no such bucket.
        LintasError: Whatever a page raises; the other prefixes are given up.
    """
    plainly = store.list(prefix)
    first, deeper = _first(plainly, prefix)
    if not deeper or not isinstance(store, LevelledStore):
        yield from first
        yield from plainly
        return
    above = _spread(store, prefix)
    if len(above.prefixes) < 2:
        yield from first
        yield from plainly
        return
    yield from above.objects
    yield from _side_by_side(store, above.prefixes)


def _first(plainly: Iterator[ObjectInfo], prefix: str) -> tuple[list[ObjectInfo], bool]:
    """The first pages, up to one that is full and shows a prefix; and whether there is such a page.

    Where so many objects lie directly below the prefix that they are listed plainly anyway, that is known from here.
    """
    first: list[ObjectInfo] = []
    while len(first) <= _MOST_PREFIXES:
        page = list(islice(plainly, _PAGE))
        first += page
        if len(page) < _PAGE:
            break
        if any("/" in info.key[len(prefix) :] for info in page):
            return first, True
    return first, False


def _spread(store: LevelledStore, prefix: str) -> Level:
    """The objects above some prefixes, and prefixes enough to keep all threads at work, where there are."""
    objects: list[ObjectInfo] = []
    prefixes = [prefix]
    for _ in range(_DEEPEST):
        below: list[str] = []
        for at, each in enumerate(prefixes):
            level = store.level(each, _MOST_PREFIXES)
            if level is None:
                # Too much lies directly below it: it is listed as it is.
                below.append(each)
                continue
            objects += level.objects
            below += level.prefixes
            if len(below) + len(prefixes) - at > _WIDE_ENOUGH:
                return Level(objects, [*below, *prefixes[at + 1 :]])
        if below == prefixes or len(objects) > _MOST_PREFIXES:
            return Level(objects, below)
        prefixes = below
    return Level(objects, prefixes)


def _side_by_side(store: Store, prefixes: list[str]) -> Iterator[ObjectInfo]:
    ready: Queue[_Batch | BaseException | None] = Queue(2 * _AT_ONCE)
    stop = threading.Event()

    def bring(prefix: str) -> None:
        infos = store.list(prefix)
        while not stop.is_set() and (some := list(islice(infos, _PAGE))):
            ready.put(some)

    def bring_all() -> None:
        try:
            with ThreadPoolExecutor(_AT_ONCE, "listing") as threads:
                for done in [threads.submit(bring, prefix) for prefix in prefixes]:
                    try:
                        done.result()
                    except BaseException:
                        stop.set()
                        raise
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by who reads
            ready.put(error)

    feeding = threading.Thread(target=bring_all, name="listings", daemon=True)
    feeding.start()
    try:
        while (some := ready.get()) is not None:
            if isinstance(some, BaseException):
                raise some
            yield from some
    finally:
        stop.set()
        # Whoever waits for room in the queue is let go.
        while feeding.is_alive():
            while not ready.empty():
                ready.get()
            feeding.join(0.05)
