"""How much memory a process has needed at most.

`ru_maxrss` is no measure of that: it keeps the peak of the process that forked it, through exec. `VmHWM` of proc(5)
does not.
"""

from __future__ import annotations

import re
from pathlib import Path


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that was resident at a time; 0 when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
