"""What people see in the Prefect UI: tables, links and progress of a run. Outside a flow run these do nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from tasks.steps import in_flow


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """A table artifact.

    Args:
        key: Lower-case letters, digits and dashes; later tables of the same key are its newer versions.
        rows: One mapping a row; nothing personal.
        description: Its headline.
    """
    if in_flow():
        from prefect.artifacts import create_table_artifact

        create_table_artifact(table=[dict(row) for row in rows], key=key, description=description)


def show_markdown(key: str, text: str) -> None:
    """A markdown artifact."""
    if in_flow():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(markdown=text, key=key)


def show_link(key: str, url: str, text: str) -> None:
    """A link artifact."""
    if in_flow():
        from prefect.artifacts import create_link_artifact

        create_link_artifact(link=url, link_text=text, key=key)


@contextmanager
def show_progress(key: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress artifact that grows as the yielded function is told of amounts; safe from several threads.

    It is written at most once a second: the server is told of progress, not of objects.
    """
    if not in_flow() or total == 0:
        yield lambda _amount: None
        return
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = cast("UUID", create_progress_artifact(progress=0.0, key=key, description=key))
    lock = threading.Lock()
    done = 0
    shown_at = time.monotonic()

    def advance(amount: int) -> None:
        nonlocal done, shown_at
        with lock:
            done += amount
            due = time.monotonic() - shown_at >= 1.0
            if due:
                shown_at = time.monotonic()
                update_progress_artifact(artifact_id=artifact, progress=min(100.0, 100.0 * done / total))

    yield advance
    update_progress_artifact(artifact_id=artifact, progress=min(100.0, 100.0 * done / total))
