"""How the command shows things to people: tables on standard output, progress on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

_WIDE = 160


def _console(*, stderr: bool) -> Console:
    """A console; where there is no terminal to measure (a file, a pipe) lines may be wide."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


out = _console(stderr=False)
progress = _console(stderr=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print one table; numbers are aligned to the right."""
    shown = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    listed = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[index], int | float) for row in listed)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        shown.add_row(*(_text(value) for value in row))
    out.print(shown)


def size(size_bytes: float) -> str:
    """A size for people: `12.3 MB` (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value)
