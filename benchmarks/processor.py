"""How much processor time processes have taken."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12
"""Where they stand behind the name of the program, in /proc/PID/stat of proc(5)."""


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds that these processes have run so far, all their threads together; to a hundredth for each.

    Raises:
        OSError: One of them is gone.
    """
    ticks = 0
    for pid in pids:
        behind_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(behind_name[_USER]) + int(behind_name[_SYSTEM])
    return ticks / _TICKS_PER_S
