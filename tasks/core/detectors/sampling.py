"""Which parts of a dataset a sample consists of, drawn by hash so that the same seed draws the same parts again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors.coverage import Coverage, Mode, Thoroughness
from tasks.core.detectors.readers import ARROW_ERRORS
from tasks.core.detectors.row_groups import BoundedParquet
from tasks.core.detectors.tables import Source, format_of
from tasks.core.manifest import Manifest

if TYPE_CHECKING:
    from tasks.core.ports import Store

Groups = frozenset[int] | None
"""Row groups of an object; None for all of it."""

LARGE_BYTES = 16 * 1024 * 1024
"""From this size on a Parquet file is looked at in shares."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The objects to be read, with the row groups of each, and what part of the dataset they are."""

    entries: tuple[tuple[Entry, Groups], ...]
    coverage: Coverage


def draw(store: Store, uri: DatasetURI, manifest: Manifest, wanted: Thoroughness) -> Drawn:
    """Choose what is read.

    A dataset of more objects than the sample has parts is sampled by objects; otherwise the footers of Parquet files
    are read and their row groups are the parts. So at most `wanted.parts` footers are read before the scan.

    Raises:
        Whatever `Store.get` raises.
    """
    if wanted.mode is not Mode.SAMPLE:
        read = 0 if wanted.mode is Mode.SCHEMA else len(manifest)
        return Drawn(tuple((entry, None) for entry in manifest), Coverage(wanted.mode, read, len(manifest), 0))
    by_objects = len(manifest) > wanted.parts
    parts = [
        (entry, group)
        for entry in manifest
        for group in ((None,) if by_objects else _groups(Source.open(store, uri, entry)))
    ]

    def rank(part: tuple[Entry, int | None]) -> bytes:
        entry, group = part
        return hashlib.sha256(f"{wanted.seed}\0{manifest.digest}\0{entry.path}\0{group}".encode()).digest()

    chosen = sorted(parts, key=rank)[: wanted.parts]
    groups: dict[str, set[int | None]] = {}
    for entry, group in chosen:
        groups.setdefault(entry.path, set()).add(group)
    entries = tuple((entry, _as_groups(groups[entry.path])) for entry in manifest if entry.path in groups)
    return Drawn(entries, Coverage(Mode.SAMPLE, len(chosen), len(parts), wanted.seed))


def shares(source: Source, most: int) -> list[Groups]:
    """A large Parquet file's row groups in up to so many shares of about as many rows; everything else as it is.

    Raises:
        Whatever `Store.get` raises.
    """
    if source.groups is not None or source.entry.size_bytes < LARGE_BYTES or format_of(source)[0] != "parquet":
        return [source.groups]
    try:
        metadata = BoundedParquet(source).metadata
    except ARROW_ERRORS:
        return [None]
    ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
    if not len(ends) or not ends[-1]:
        return [None]
    share = np.maximum(ends - 1, 0) * most // ends[-1]
    found = [frozenset(np.flatnonzero(share == number).tolist()) for number in np.unique(share)]
    return [*found] if len(found) > 1 else [None]


def _groups(source: Source) -> Iterator[int | None]:
    """The parts of one object: its row groups, or the whole of it."""
    groups = 0
    if format_of(source)[0] == "parquet":
        try:
            groups = BoundedParquet(source).metadata.num_row_groups
        except ARROW_ERRORS:
            groups = 0
    yield from range(groups) if groups > 1 else (None,)


def _as_groups(groups: set[int | None]) -> Groups:
    return frozenset(group for group in groups if group is not None) if None not in groups else None
