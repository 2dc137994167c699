"""Looking at objects one by one: what is counted in each, and which table it is part of."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors.columns import Bounds, ColumnState
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.personal_names import directory_of, personal_names
from tasks.core.detectors.readers import names_of, read
from tasks.core.detectors.recall import FIRST, Ledger, Recall
from tasks.core.detectors.sampling import Groups, shares
from tasks.core.detectors.tables import MAX_COLUMNS, METADATA, Batch, Leaf, Source, Unread, beginning_of, format_of
from tasks.core.plane.reading import Beginning, beginnings
from tasks.core.retries import OBJECTS_AT_ONCE, in_turn

if TYPE_CHECKING:
    from tasks.core.ports import Store

_SEARCH_ERRORS = (pl.exceptions.PolarsError, ArithmeticError, ValueError, TypeError, LookupError)
"""Whatever a batch makes the detectors stumble over is a finding that does not pass."""


@dataclass(frozen=True, slots=True)
class TableKey:
    """What objects must share to be one table."""

    directory: str
    format: str
    columns: tuple[str, ...]


Known = dict[TableKey, dict[str, Bounds]]
"""Of each table and column, above which hashes nothing enters the samples of what was counted so far."""


@dataclass
class ObjectScan:
    """What was seen of one object: counts and hashes, never values."""

    path: str
    key: TableKey
    joins: TableKey | None = None
    """The table whose samples need not be gathered again, where that was known before its values were read."""
    rows: int = 0
    columns: dict[str, ColumnState] = field(default_factory=dict[str, ColumnState])
    unread: list[Unread] = field(default_factory=list[Unread])
    personal_names: dict[str, str] = field(default_factory=dict[str, str])
    digests: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def join(self, other: ObjectScan) -> None:
        """Add what was seen of another share of the object; the notes beside its rows are the same in each."""
        self.unread += [each for each in other.unread if other.rows or each not in self.unread]
        self.rows += other.rows
        self.personal_names |= other.personal_names
        for name, state in other.columns.items():
            if name not in self.columns:
                self.columns[name] = state
            elif name != METADATA:
                self.columns[name].merge(state)


def scan_objects(
    store: Store,
    uri: DatasetURI,
    entries: Iterable[tuple[Entry, Groups]],
    *,
    detection: Detection,
    in_flight: int = OBJECTS_AT_ONCE,
    by_name: bool = False,
    recall: Recall | None = None,
    keeps: bool = True,
    known: Known | None = None,
) -> Generator[ObjectScan]:
    """Read objects of a manifest, or some row groups of them, and count what is in each, in order.

    Large Parquet files are read in as many shares as there are threads.

    Args:
        store, uri, entries, detection, in_flight, by_name, recall, keeps: As for `read_tables`.
        known: Of tables, which may become more meanwhile, what their samples have no use for; objects of these tables
            gather the rest alone.
    """

    def parts(looked: Iterable[tuple[tuple[Entry, Groups], bytes]]) -> Iterator[tuple[Source, bool]]:
        for (entry, groups), head in looked:
            source = replace(Source.of(store, uri, entry, head), groups=groups)
            for number, share in enumerate([groups] if by_name else shares(source, in_flight)):
                yield replace(source, groups=share), number > 0

    def look(part: tuple[Source, bool]) -> tuple[ObjectScan, bool]:
        source, goes_on = part
        return _scan_source(source, detection, by_name, recall, keeps, known), goes_on

    def beginning(part: tuple[Entry, Groups]) -> Beginning:
        return beginning_of(uri, part[0])

    with (
        closing(beginnings(store, entries, beginning)) as looked,
        closing(in_turn(look, parts(looked), in_flight)) as scans,
    ):
        yield from _joined(scans)


def _joined(scans: Iterable[tuple[ObjectScan, bool]]) -> Iterator[ObjectScan]:
    """Whole objects of their shares, each with whether it goes on with the object before."""
    whole: ObjectScan | None = None
    for seen, goes_on in scans:
        if whole is not None and goes_on:
            whole.join(seen)
            continue
        if whole is not None:
            yield whole
        whole = seen
    if whole is not None:
        yield whole


def _scan_source(
    source: Source, detection: Detection, by_name: bool, recall: Recall | None, keeps: bool, known: Known | None
) -> ObjectScan:
    entry = source.entry
    kind, _ = format_of(source)
    seen = ObjectScan(entry.path, TableKey(directory_of(entry.path), kind, ()))
    ledger = Ledger(recall, detection, seen.columns, keeps=keeps) if recall is not None and kind == "parquet" else None
    by_values = None if ledger else recall
    for batch in names_of(source) if by_name else read(source, counted=by_values is None, ledger=ledger):
        if isinstance(batch, Unread):
            seen.unread.append(batch)
        elif not _add(seen, batch, detection, by_values, keeps):
            seen.unread.append(Unread(f"values in more than {MAX_COLUMNS} columns", count=batch.rows))
            break
        elif batch.is_header and known:
            _join_later(seen, known)
        if ledger and seen.unread:
            ledger.spoil()
    if kind in ("parquet", "csv"):
        seen.key = replace(seen.key, columns=_names_in(seen))
    if seen.joins is not None and seen.joins != seen.key:
        return _scan_source(source, detection, by_name, recall, keeps, None)
    return seen


def _names_in(seen: ObjectScan) -> tuple[str, ...]:
    return tuple(name for name in seen.columns if name != METADATA)


def _join_later(seen: ObjectScan, known: Known) -> None:
    """Gather nothing that the samples of the object's table have no use for, if that table is known."""
    table = replace(seen.key, columns=_names_in(seen))
    bounds = known.get(table)
    if bounds is not None:
        seen.joins = table
        for name in table.columns:
            seen.columns[name].join_later(bounds[name])


def _add(seen: ObjectScan, batch: Batch, detection: Detection, recall: Recall | None, keeps: bool) -> bool:
    """Count a batch. Answers whether the object still has a bearable number of columns."""
    seen.rows += batch.rows
    new = [leaf.name for leaf in batch.leaves if leaf.name not in seen.columns]
    if len(seen.columns) + len(new) > MAX_COLUMNS:
        return False
    seen.personal_names |= personal_names(new)
    seen.columns |= {name: ColumnState(name, detection) for name in new}
    for leaf in batch.leaves:
        try:
            _count(seen, leaf, recall, keeps)
        except _SEARCH_ERRORS as error:
            seen.unread.append(
                Unread(f"values that cannot be searched ({type(error).__name__})", leaf.name, batch.rows)
            )
    return True


def _count(seen: ObjectScan, leaf: Leaf, recall: Recall | None, keeps: bool) -> None:
    """Count a column's part of a batch, or recall what was counted of the same values."""
    state = seen.columns[leaf.name]
    if recall is None:
        state.add_leaf(leaf)
        return
    digest = recall.digest(seen.digests.get(leaf.name, FIRST), leaf)
    seen.digests[leaf.name] = b""  # Nothing is recalled or kept any more after a batch that cannot be counted.
    same = recall.of(leaf.name, state.detection, digest)
    if same is None:
        state.add_leaf(leaf)
        if keeps:
            recall.keep(state, digest)
    else:
        seen.columns[leaf.name] = same
    seen.digests[leaf.name] = digest
