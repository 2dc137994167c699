"""Live views on standard error: services that start, and the lifecycle step by step."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from deployments.cli.show import progress
from deployments.demo import LifecycleSeen
from deployments.local.stack import StackStatus


class _Shown:
    """A live region; on something that is no terminal it prints its last state once."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._live = Live(console=progress, refresh_per_second=8, transient=False)

    def __enter__(self) -> _Shown:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()
        if not progress.is_terminal:
            progress.print()

    def _draw(self, body: RenderableType) -> None:
        elapsed_s = time.monotonic() - self._began
        self._live.update(Group(Text(f"{self._title}  {elapsed_s:.0f} s", style="bold"), body))


class Services(_Shown):
    """The twin's processes and how long each took."""

    def __enter__(self) -> Services:
        super().__enter__()
        return self

    def update(self, status: StackStatus) -> None:
        """Show how the twin stands."""
        rows = Table.grid(padding=(0, 2))
        for service in status.services:
            if service.ready:
                rows.add_row(Text("●", style="green"), service.name, f"{service.started_s or 0:.1f} s", service.url)
            elif service.alive:
                rows.add_row(Spinner("dots"), service.name, "", "")
            else:
                rows.add_row(Text("·", style="dim"), Text(service.name, style="dim"), "", "")
        self._draw(rows)


_MARKS = {"COMPLETED": ("●", "green"), "FAILED": ("✗", "red"), "CRASHED": ("✗", "red"), "CANCELLED": ("✗", "yellow")}


class Steps(_Shown):
    """The lifecycle's steps as Prefect tells them."""

    def __enter__(self) -> Steps:
        super().__enter__()
        return self

    def update(self, seen: LifecycleSeen) -> None:
        """Show the run at this moment."""
        rows = Table.grid(padding=(0, 2))
        if seen.run_id is None:
            rows.add_row(Spinner("dots"), "the dataset has landed; its event is on the way", "")
        elif not seen.steps:
            rows.add_row(Spinner("dots"), f"the event started run {seen.run_id[:8]}; its process starts", "")
        for step in seen.steps:
            mark = _MARKS.get(step.state)
            shown = Text(mark[0], style=mark[1]) if mark else Spinner("dots")
            rows.add_row(shown, step.name, f"{step.seconds:.1f} s")
        self._draw(rows)
