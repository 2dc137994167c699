"""One measured plan, as a process of its own; its work comes as arguments: `prepare|first|again OBJECTS DIRECTORY`.

The stores list in order of keys, as object stores do, without a network: what is measured is Lintas. The journal is
the real one.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_bytes
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.errors import NotFound
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.planning import plan_transfer
from tasks.core.ports import ObjectInfo
from tasks.records import Records

SOURCE, TARGET = DatasetURI("near", "b", "data"), DatasetURI("far", "b", "lake")
WRITTEN = datetime(2026, 11, 1, tzinfo=UTC)


class Listed:
    """A bucket that lists so many objects, and keeps one: the published manifest, as a file."""

    def __init__(self, uri: DatasetURI, objects: int, kept: Path) -> None:
        self.cloud, self.bucket = uri.cloud, uri.bucket
        self._uri, self._objects, self._kept = uri, objects, kept

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects, in order of their keys."""
        for number in range(self._objects):
            key = self._uri.key(f"day={number // 1000:05}/part-{number:08}.parquet")
            yield ObjectInfo(key, 100_000 + number, f"{number:016x}", WRITTEN)

    def get(self, key: str, **_: Any) -> Iterator[bytes]:
        """The manifest."""
        if not self._kept.exists():
            raise NotFound(f"no object '{key}'")
        with self._kept.open("rb") as file:
            while piece := file.read(1024 * 1024):
                yield piece

    def entries(self, *, changed_each: int) -> Iterator[Entry]:
        """What it lists with digests, another one for each so-many-th object."""
        for number, info in enumerate(self.list("")):
            digest = number if (number + 1) % changed_each else number + 1
            yield Entry(self._uri.path(info.key), info.size_bytes, f"{digest:064x}", info.version)


def prepare(near: Listed, far: Listed, records: Records, published: Path) -> dict[str, float]:
    """Fill the journal with the source, and publish the destination's manifest: 1 in 1,000 objects is another one."""
    entries = near.entries(changed_each=10**9)
    rows = (("near", "b", SOURCE.key(e.path), e.version, e.size_bytes, e.digest) for e in entries)
    while batch := list(islice(rows, 50_000)):
        records.journal.record_all(batch)
    with published.open("wb") as file:
        file.writelines(Manifest.of(far.entries(changed_each=1000)).to_jsonl())
    return {}


def plan(near: Any, far: Any, records: Records) -> dict[str, float]:
    """Read both manifests, compare them, cut the plan into shards, and write the manifest that would be published."""
    marks = [time.monotonic()]
    wanted = read_manifest(near, SOURCE, records.journal)
    marks.append(time.monotonic())
    present = read_manifest(far, TARGET, records.journal, trust_labels=True)
    marks.append(time.monotonic())
    planned = plan_transfer(SOURCE, wanted, TARGET, present)
    marks.append(time.monotonic())
    shards = sum(1 for _ in planned.shards())
    published_bytes = sum(map(len, wanted.to_jsonl()))
    marks.append(time.monotonic())
    source_s, destination_s, compare_s, shards_s = (after - before for before, after in pairwise(marks))
    return {
        "objects": len(wanted),
        "to_send": planned.objects_to_send,
        "shards": shards,
        "source_s": source_s,
        "destination_s": destination_s,
        "compare_s": compare_s,
        "shards_and_manifest_s": shards_s,
        "all_s": marks[-1] - marks[0],
        "published_mb": published_bytes / 1e6,
    }


def main() -> None:
    """Do one thing and print what it took."""
    what, objects, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    published = directory / "published.jsonl"
    near = Listed(SOURCE, objects, directory / "none")
    far = Listed(TARGET, 0 if what == "first" else objects, directory / "none" if what == "first" else published)
    with Records(directory / "records.sqlite") as records:
        before_bytes = peak_bytes()
        before = resource.getrusage(resource.RUSAGE_SELF)
        facts = prepare(near, far, records, published) if what == "prepare" else plan(near, far, records)
        after = resource.getrusage(resource.RUSAGE_SELF)
    facts["cpu_s"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    facts["peak_mb"] = peak_bytes() / 1e6
    facts["before_mb"] = before_bytes / 1e6
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
