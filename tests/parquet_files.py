"""Parquet files as tests write them, and as the gate opens them."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.tables import Source
from tasks.core.listing import read_manifest
from tests.memory_store import MemoryStore

_URI = DatasetURI("memory", "b", "d")


def written(table: pa.Table, **how: Any) -> bytes:
    """The table as a file; `how` as for `pyarrow.parquet.write_table`."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **how)
    return sink.getvalue()


def opened(content: bytes) -> Source:
    """A file as it lies in a store."""
    store = MemoryStore()
    store.put(_URI.key("t.parquet"), [content], size_bytes=len(content))
    (entry,) = read_manifest(store, _URI)
    return Source.open(store, _URI, entry)
