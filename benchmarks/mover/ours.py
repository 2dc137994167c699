"""One measured run of the direct plane, as a process of its own; its work comes as JSON on standard input."""

from __future__ import annotations

import json
import resource
import sys
import time

from benchmarks.memory import Peak
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.listing import listed_rows
from tasks.core.plane import CopiedObject, Load
from tasks.core.plane.direct import DirectPlane
from tasks.core.ports import DirectStore, Store
from tasks.registry import providers


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
    arrived: list[CopiedObject] = []
    before = cpu_s()
    started = time.monotonic()
    loads = [
        Load(Entry(path, size_bytes, work["digests"][uri.key(path)], version), uri.key(path), uri.key(path), None)
        for batch in listed_rows(source, uri)
        for path, size_bytes, version in zip(*(batch.column(at).to_pylist() for at in range(3)), strict=True)
    ]
    listed_s = time.monotonic() - started
    listed = cpu_s()
    plane = DirectPlane(in_flight=work["in_flight"], budget_bytes=work["budget_bytes"])
    with Peak() as peak:
        plane.carry(loads, source, destination, lambda _load, item: arrived.append(item))
    elapsed_s = time.monotonic() - started
    facts = {
        "elapsed_s": elapsed_s,
        "listed_s": listed_s,
        "listed_cpu_s": listed - before,
        "cpu_s": cpu_s() - before,
        "peak_bytes": peak.bytes,
        "objects": len(arrived),
        "bytes": sum(item.size_bytes for item in arrived),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
