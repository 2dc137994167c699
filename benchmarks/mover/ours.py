"""One measured run of the direct plane, as a process of its own; its work comes as JSON on standard input."""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice

from benchmarks.memory import Peak
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.listing import listed_rows
from tasks.core.plane import CopiedObject, Load
from tasks.core.plane.direct import DirectPlane
from tasks.core.ports import DirectStore, Store
from tasks.core.rows import Rows
from tasks.registry import providers

SHARD_OBJECTS = 20_000
"""As many as a move has under way at a time."""


def cloud_of(facts: dict[str, dict[str, str]]) -> CloudConfig:
    """A cloud as the parent describes it."""
    secrets = {name: Secret(f"bench:{name}", lambda _, value=value: value) for name, value in facts["secrets"].items()}
    plain = facts["plain"]
    return CloudConfig(
        plain["name"], plain["provider"], plain["region"], "EU", facts["endpoints"], secrets, facts["options"]
    )


def opened(config: CloudConfig, bucket: str) -> Store:
    """The store of a bucket, with what its SDK loads when it first signs."""
    store = providers()[config.provider].open_store(config, bucket)
    if not isinstance(store, DirectStore):
        raise SystemExit(f"{config.name} cannot sign for others")
    store.direct.get("any", version="", start=0, length=None)
    return store


class Counted:
    """What has arrived, from several threads."""

    def __init__(self) -> None:
        self.objects = self.size_bytes = 0
        self._lock = threading.Lock()

    def add(self, _load: Load, item: CopiedObject) -> None:
        """Count an object."""
        with self._lock:
            self.objects += 1
            self.size_bytes += item.size_bytes


def loads_of(rows: Rows, uri: DatasetURI, digest: str) -> Iterator[Load]:
    """What is listed as loads, of which every object has the same digest."""
    for batch in rows:
        for path, size_bytes, version in zip(*(batch.column(at).to_pylist() for at in range(3)), strict=True):
            yield Load(Entry(path, size_bytes, digest, version), uri.key(path), uri.key(path), None)


def cpu_s() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """List the source, carry everything, print what it took."""
    work = json.load(sys.stdin)
    near, far = (cloud_of(work[side]) for side in ("near", "far"))
    source, destination = opened(near, work["from"]), opened(far, work["to"])
    uri = DatasetURI(near.name, work["from"], "o")
    # What the first listing loads is part of the start of the process.
    next(iter(listed_rows(source, uri)), None)
    arrived = Counted()
    before = cpu_s()
    started = time.monotonic()
    rows = listed_rows(source, uri)
    listed_s, listed = time.monotonic() - started, cpu_s()
    loads = loads_of(rows, uri, work["digest"])
    plane = DirectPlane(in_flight=work["in_flight"], budget_bytes=work["budget_bytes"])
    with Peak() as peak:
        while shard := list(islice(loads, SHARD_OBJECTS)):
            plane.carry(shard, source, destination, arrived.add)
    elapsed_s = time.monotonic() - started
    facts = {
        "elapsed_s": elapsed_s,
        "listed_s": listed_s,
        "listed_cpu_s": listed - before,
        "cpu_s": cpu_s() - before,
        "peak_bytes": peak.bytes,
        "objects": arrived.objects,
        "bytes": arrived.size_bytes,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
