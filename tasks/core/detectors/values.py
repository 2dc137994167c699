"""Python values, as readers of nested formats make them, as batches of flat columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, cast

import numpy as np
import polars as pl

from tasks.core.detectors.tables import MAX_COLUMNS, TEXT, Batch, Leaf, Unread


def flattened(values: list[Any], first_row: int) -> Iterator[Batch | Unread]:
    """Values of dicts, lists and plain values as a batch of flat columns; `[]` stands for the items of a list."""
    texts: dict[str, list[str]] = {}
    rows: dict[str, list[int]] = {}
    left_out = broken = 0
    for row, value in enumerate(values):
        waiting: list[tuple[str, Any]] = [("", value)]
        while waiting:
            path, item = waiting.pop()
            if isinstance(item, dict):
                fields = cast("dict[str, Any]", item).items()
                waiting += [(f"{path}.{key}" if path else key, child) for key, child in fields]
            elif isinstance(item, list):
                waiting += [(f"{path}[]", child) for child in cast("list[Any]", item)]
            elif item is not None and not isinstance(item, bool):
                if isinstance(item, bytes):
                    item, wrong = _decoded(item)
                    broken += wrong
                if len(texts) >= MAX_COLUMNS and (path or TEXT) not in texts:
                    left_out += 1
                    continue
                texts.setdefault(path or TEXT, []).append(item if isinstance(item, str) else _spelt(item))
                rows.setdefault(path or TEXT, []).append(row)
    found = tuple(Leaf(path, pl.Series(path, of), np.array(rows[path], np.int64)) for path, of in texts.items())
    yield Batch(len(values), first_row, found)
    if broken:
        yield Unread("bytes that are not UTF-8 text", count=broken)
    if left_out:
        yield Unread(f"values in more than {MAX_COLUMNS} columns", count=left_out)


def _spelt(value: Any) -> str:
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, (int, float)) else str(value)


def _decoded(value: bytes) -> tuple[str, int]:
    try:
        return value.decode(), 0
    except UnicodeDecodeError:
        return value.decode(errors="replace"), 1
