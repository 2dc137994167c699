"""The gate on the same table: how fast, beside decoding alone, and what it finds cell by cell."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.columns import ColumnState
from tasks.core.detectors.leaves import leaves
from tasks.core.detectors.row_groups import BoundedParquet
from tasks.core.detectors.scan import scan
from tasks.core.detectors.spans import spans
from tasks.core.detectors.tables import BATCH_ROWS, Leaf, Source
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tests.memory_store import MemoryStore

URI = DatasetURI("memory", "bench", "table")
ROUNDS = 3


def stored(table: pa.Table, objects: int) -> tuple[MemoryStore, Manifest, int]:
    """The table as Parquet objects in a store, its manifest, and how many bytes they have."""
    store = MemoryStore()
    each = -(-table.num_rows // objects)
    total = 0
    for at in range(objects):
        sink = io.BytesIO()
        pq.write_table(table.slice(at * each, each), sink, compression="zstd", row_group_size=50_000)
        store.put(URI.key(f"part-{at}.parquet"), [sink.getvalue()], size_bytes=sink.tell())
        total += sink.tell()
    return store, read_manifest(store, URI), total


def column_seconds(table: pa.Table) -> dict[str, float]:
    """The processor time that searching each column takes, from Arrow in memory; medians."""
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name in table.column_names:
            batches = table.select([name]).combine_chunks().to_batches(BATCH_ROWS)
            state = ColumnState(name)
            started = time.process_time()
            for batch in batches:
                for leaf in leaves(batch):
                    if isinstance(leaf, Leaf):
                        state.add_leaf(leaf)
            took.setdefault(name, []).append(time.process_time() - started)
    return {name: statistics.median(times) for name, times in took.items()}


@dataclass(frozen=True)
class Spent:
    """How long some work took, in seconds of a clock and of all processors together."""

    wall_s: float
    cpu_s: float


def decode_and_scan(store: MemoryStore, manifest: Manifest) -> tuple[Spent, Spent, Spent, ScanReport]:
    """Decoding by Arrow's reader, decoding within bounds, scanning: two objects at a time, interleaved; medians."""

    def by_arrow(entry: Any) -> int:
        content = b"".join(store.get(URI.key(entry.path), version=entry.version or None))
        file = pq.ParquetFile(pa.BufferReader(content))
        return sum(batch.num_rows for batch in file.iter_batches(BATCH_ROWS, use_threads=False))

    def bounded(entry: Any) -> int:
        return sum(batch.num_rows for batch in BoundedParquet(Source.open(store, URI, entry)).batches())

    def of_all(decode: Callable[[Any], int]) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(decode, manifest))

    reports: list[ScanReport] = []
    arrow: list[Spent] = []
    alone: list[Spent] = []
    both: list[Spent] = []
    for _ in range(ROUNDS):
        arrow.append(_spent(lambda: of_all(by_arrow)))
        alone.append(_spent(lambda: of_all(bounded)))
        both.append(_spent(lambda: reports.append(scan(store, URI, manifest, in_flight=2))))
    return _median(arrow), _median(alone), _median(both), reports[-1]


def _spent(work: Callable[[], object]) -> Spent:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def _median(rounds: list[Spent]) -> Spent:
    return Spent(statistics.median(each.wall_s for each in rounds), statistics.median(each.cpu_s for each in rounds))


def cells_found(table: pa.Table, columns: list[str]) -> dict[str, list[set[str]]]:
    """By column, for each row the entities that `lintas scan --spans` tells of."""
    store, manifest, _ = stored(table, 1)
    found: dict[str, list[set[str]]] = {name: [set() for _ in range(table.num_rows)] for name in columns}
    for span in spans(store, URI, manifest):
        if span["column"] in found:
            found[span["column"]][span["row"]].add(span["entity"])
    return found
