"""A process that is killed while a service pulls for it; its arguments come as JSON on standard input."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.dataset import Entry
from tasks.core.plane import Load
from tasks.core.plane.jobs import JobPlane, jobs_of
from tasks.core.ports import Store
from tasks.records import Records
from tests.conformance.stores import open_store
from tests.faults.mover_process import cloud_of


def main() -> None:
    work: dict[str, Any] = json.load(sys.stdin)
    near, far = (open_store(cloud_of(work[role]), work[f"{role}_bucket"]) for role in ("near", "far"))
    service: Any = jobs_of(far)
    real = service.running

    @contextmanager
    def running(source: Store, keys: Sequence[str], root: str) -> Iterator[Callable[[], str | None]]:
        with real(source, keys, root) as look:
            for _ in range(2):
                look()
            os.kill(os.getpid(), signal.SIGKILL)
            yield look

    service.running = running
    loads = [Load(Entry(*entry), source_key, key, None) for entry, source_key, key in work["loads"]]
    with Records(Path(work["records"])) as records:
        plane = JobPlane(uploads=records.uploads, key_prefix=work["prefix"])
        plane.carry(loads, near, far, lambda _load, _item: None)


if __name__ == "__main__":
    main()
