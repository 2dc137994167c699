"""What Linux tells of a process under /proc (proc(5))."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since the machine did; 0 when there is no such process.

    Process ids are used again; id and start time together name one process.
    """
    fields = _stat(pid)
    # A zombie has ended; only its parent has not looked yet.
    return int(fields[19]) if fields and fields[0] != "Z" else 0


def is_same_process(pid: int, ticks: int) -> bool:
    """Whether the process of this id is still the one that started then."""
    return ticks != 0 and start_ticks(pid) == ticks


def descendants(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found, pending = list[int](), [pid]
    while pending:
        process = pending.pop()
        found.append(process)
        pending += _children(process)
    return found


def resident_mb(pid: int) -> float:
    """Resident memory of the process and all its descendants, in MB of 10**6 bytes; 0 when it is gone.

    A page that several processes share counts once in each.
    """
    return round(sum(_resident_kb(process) for process in descendants(pid)) * 1024 / 1e6, 1)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name, which may hold blanks and parentheses."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for children in (_PROC / str(pid) / "task").glob("*/children"):
        try:
            found += [int(child) for child in children.read_text().split()]
        except OSError:
            continue
    return found


def _resident_kb(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)
