"""How much memory a process has needed at most.

`ru_maxrss` is no measure of that: it keeps the peak of the process that forked it, through exec. `VmHWM` of proc(5)
does not.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

_LOOK_S = 0.1


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that was resident at a time; 0 when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def children(pid: int, strangers: set[int] | None = None) -> list[int]:
    """The processes that this one has started and that still run.

    Args:
        pid: This one.
        strangers: Processes that are not looked at, since they are known to be none of them. Those that are found to
            be none are added: whoever looks often would otherwise spend most of the time on reading about them again.
    """
    found: list[int] = []
    strangers = set() if strangers is None else strangers
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in strangers:
            continue
        try:
            parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            found.append(int(name))
        else:
            strangers.add(int(name))
    return found


class Peak:
    """The most memory that this process and those that it starts within the block have needed, in bytes.

    Its own peak and the largest sum of the peaks of those that ran at the same time; pages that they share (the
    interpreter, the C library) count once for each.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._others = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.bytes = peak_bytes() + self._others

    def _look(self) -> None:
        strangers: set[int] = set()
        while not self._done.wait(_LOOK_S):
            self._others = max(self._others, sum(peak_bytes(pid) for pid in children(os.getpid(), strangers)))
