"""Showing how far a move is: as a Prefect progress artifact inside a flow, on standard error outside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from tasks.core.plane import CopiedObject
from tasks.core.progress import Tally
from tasks.steps import in_flow

_ARTIFACT_EVERY_S = 2.0
_LINE_EVERY_S = 10.0
_TERMINAL_EVERY_S = 0.25


@contextmanager
def show_moving(key: str, objects: int, size_bytes: int) -> Generator[Callable[[CopiedObject], None]]:
    """Show the progress of so many objects and bytes; the yielded function is called with each that arrives.

    What is shown is written now and then, by a thread of its own: nobody waits for the server or the terminal.
    """
    tally = Tally(objects, size_bytes)
    if not objects:
        yield tally.add
        return
    show, every_s = _prefect(key) if in_flow() else _terminal() if sys.stderr.isatty() else (_line, _LINE_EVERY_S)
    ended = threading.Event()

    def keep_showing() -> None:
        while not ended.wait(every_s):
            show(tally)

    shower = threading.Thread(target=keep_showing, name="progress", daemon=True)
    shower.start()
    try:
        yield tally.add
    finally:
        ended.set()
        shower.join()
        show(tally)
        if sys.stderr.isatty() and not in_flow():
            print(file=sys.stderr)


def _prefect(key: str) -> tuple[Callable[[Tally], None], float]:
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = cast("UUID", create_progress_artifact(progress=0.0, key=key, description=key))

    def show(tally: Tally) -> None:
        update_progress_artifact(artifact_id=artifact, progress=100.0 * tally.share, description=tally.line())

    return show, _ARTIFACT_EVERY_S


def _terminal() -> tuple[Callable[[Tally], None], float]:
    from rich.console import Console

    console: Any = Console(stderr=True)

    def show(tally: Tally) -> None:
        line = f"[bold]{tally.share:4.0%}[/bold] {tally.line()}\x1b[K"
        console.print(line, end="\r", highlight=False, soft_wrap=True)

    return show, _TERMINAL_EVERY_S


def _line(tally: Tally) -> None:
    print(f"{tally.share:.0%}: {tally.line()}", file=sys.stderr)
