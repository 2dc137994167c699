"""Scanning a dataset: every object is read once, every column judged over all objects that form a table together.

Objects of one directory (partition values and numbers in its name aside), one format and the same columns are one
table, so that a table may be split into files in any way without a change of its findings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors.candidates import Candidates
from tasks.core.detectors.columns import ColumnState, judge
from tasks.core.detectors.coverage import Mode, Thoroughness
from tasks.core.detectors.detection import EVERYTHING, Detection
from tasks.core.detectors.entities import ENTITIES, UNREADABLE
from tasks.core.detectors.objects import Known, ObjectScan, TableKey, scan_objects
from tasks.core.detectors.patterns import ALL
from tasks.core.detectors.personal_names import directory_of, personal_name, safe_path
from tasks.core.detectors.recall import Recall
from tasks.core.detectors.sampling import Groups, draw
from tasks.core.detectors.tables import METADATA, Unread
from tasks.core.findings import ColumnProfile, Finding, ScanReport
from tasks.core.manifest import Manifest
from tasks.core.retries import OBJECTS_AT_ONCE

if TYPE_CHECKING:
    from tasks.core.ports import Store

NAME_COLUMN = "(name)"
"""The column of findings in the names of objects."""

WHOLE = Thoroughness()

_BY_NAME = 0.6
_LISTED_UNREAD = 50
_LONGEST_NAME = 80


@dataclass
class Table:
    """What was seen of all objects that form a table together."""

    paths: list[str] = field(default_factory=list[str])
    rows: int = 0
    columns: dict[str, ColumnState] = field(default_factory=dict[str, ColumnState])
    personal_names: dict[str, str] = field(default_factory=dict[str, str])
    format: str = ""

    def hides(self, name: str) -> bool:
        """Whether a column's name is not shown: it is a value, or stands in the first line of a CSV beside one."""
        return name in self.personal_names or (self.format == "csv" and bool(self.personal_names))

    def label(self) -> str:
        """The object's path, or a glob for several, without any part that is itself a value."""
        if len(self.paths) == 1:
            return safe_path(self.paths[0])
        first = PurePosixPath(safe_path(self.paths[0]))
        directory = directory_of(str(first))
        suffixes = {PurePosixPath(path).suffix for path in self.paths}
        name = f"*{next(iter(suffixes))}" if len(suffixes) == 1 else "*"
        return f"{directory}/{name}" if directory else name


def scan(
    store: Store,
    uri: DatasetURI,
    manifest: Manifest,
    *,
    detection: Detection = EVERYTHING,
    thoroughness: Thoroughness = WHOLE,
    in_flight: int = OBJECTS_AT_ONCE,
    recall: Recall | None = None,
    keeps: bool = True,
) -> ScanReport:
    """Search a whole dataset for personal data and secrets, and count its columns.

    Args:
        store: The store that holds the bucket of `uri`.
        uri: The dataset.
        manifest: Its objects; each is read at the version given there.
        detection: What is looked for beyond the vocabulary.
        thoroughness: Whether everything is read, a sample, or names alone.
        in_flight: How many objects are read at the same time; memory is bounded by that many batches.
        recall: What other scans counted, which is recalled for columns that are the very same. Every object is read all
            the same.
        keeps: Whether what this one counts is added to it.

    Raises:
        PreconditionFailed: An object changed since the manifest was made; read the manifest again.
        Retryable: The store is throttled or away; scan again later.
    """
    started = time.monotonic()
    drawn = draw(store, uri, manifest, thoroughness)
    by_name = thoroughness.mode is Mode.SCHEMA
    tables, unread = read_tables(
        store, uri, drawn.entries, detection=detection, in_flight=in_flight, by_name=by_name, recall=recall, keeps=keeps
    )
    _join_unseen(tables.values(), manifest, {entry.path for entry, _ in drawn.entries})
    findings = [*_shortened(unread), *_name_findings(manifest)]
    profile: list[ColumnProfile] = []
    for table in tables.values():
        found = [*_named(table, detection)] if by_name else _table_findings(table)
        findings += found
        profile += _profile(table, {each.column for each in found})
    return ScanReport(
        uri=uri,
        manifest_digest=manifest.digest,
        detection=detection,
        coverage=drawn.coverage,
        rows=sum(table.rows for table in tables.values()),
        objects=len(manifest),
        size_bytes=manifest.size_bytes,
        findings=tuple(sorted(findings)),
        profile=tuple(sorted(profile, key=lambda column: (column.path, column.column))),
        elapsed_s=time.monotonic() - started,
    )


def _join_unseen(tables: Iterable[Table], manifest: Manifest, seen: set[str]) -> None:
    """Count objects that a sample left out to the tables that lie beside them, so that treatments reach them too."""
    unseen: dict[tuple[str, str], list[str]] = {}
    for entry in manifest:
        if entry.path not in seen:
            unseen.setdefault(_kind_of_place(entry.path), []).append(entry.path)
    for table in tables:
        table.paths += unseen.get(_kind_of_place(table.paths[0]), [])


def _kind_of_place(path: str) -> tuple[str, str]:
    return directory_of(path), PurePosixPath(path).suffix


def read_tables(
    store: Store,
    uri: DatasetURI,
    entries: Iterable[tuple[Entry, Groups]],
    *,
    detection: Detection,
    in_flight: int,
    by_name: bool = False,
    recall: Recall | None = None,
    keeps: bool = True,
) -> tuple[dict[TableKey, Table], list[Finding]]:
    """Read every object once, or those row groups of it. Answers what was counted, by table, and what was unreadable.

    With `by_name` the columns alone are told, and no value is counted.
    """
    tables: dict[TableKey, Table] = {}
    unread: list[Finding] = []
    known: Known = {}
    told: dict[TableKey, int] = {}
    with closing(
        scan_objects(
            store,
            uri,
            entries,
            detection=detection,
            in_flight=in_flight,
            by_name=by_name,
            recall=recall,
            keeps=keeps,
            known=known,
        )
    ) as scans:
        for seen in scans:
            table = tables.setdefault(seen.key, Table(format=seen.key.format))
            _merge(table, seen)
            # What is kept must be whole.
            if (recall is None or not keeps) and table.rows >= 2 * told.get(seen.key, 0):
                told[seen.key] = table.rows
                known[seen.key] = {name: state.bounds for name, state in table.columns.items()}
            unread += [_unread_finding(seen, each, listed=len(unread) < _LISTED_UNREAD) for each in seen.unread]
    return tables, unread


def _merge(table: Table, seen: ObjectScan) -> None:
    table.paths.append(seen.path)
    table.rows += seen.rows
    table.personal_names |= seen.personal_names
    for name, state in seen.columns.items():
        if name in table.columns:
            table.columns[name].merge(state)
        else:
            table.columns[name] = state


def _table_findings(table: Table) -> list[Finding]:
    label = table.label()
    found: list[Finding] = []
    for shown, state in _shown(table):
        found += [replace(each, column=shown) for each in judge(state, label, table.rows)]
        if state.name in table.personal_names:
            found.append(_header_finding(table, state.name, shown))
    return found


def _named(table: Table, detection: Detection) -> Iterator[Finding]:
    """What the names of columns say that nobody has looked into: taken to hold it in every row."""
    for shown, state in _shown(table):
        for name in (*ENTITIES, *(own.name for own in detection.own)):
            word = detection.speaks_for(name, state.name)
            if word:
                why = f"the column's name says '{word}'; its values were not read"
                yield Finding(name, table.label(), shown, 0, 1.0, _BY_NAME, why)
        if state.name in table.personal_names:
            yield _header_finding(table, state.name, shown)


def _header_finding(table: Table, name: str, shown: str) -> Finding:
    why = "the column's name itself; is a header missing?"
    return Finding(table.personal_names[name], table.label(), shown, 1, 1.0, 0.9, why)


def _profile(table: Table, personal: set[str]) -> Iterator[ColumnProfile]:
    label = table.label()
    for shown, state in _shown(table):
        if state.name == METADATA:
            continue
        numeric = state.kind == "number" and shown not in personal
        yield ColumnProfile(
            path=label,
            column=shown,
            kind=state.kind if state.kinds else "other",
            rows=table.rows,
            nulls=max(0, table.rows - (state.filled - state.unshown)),
            distinct=min(state.cells.distinct, max(state.filled, len(state.cells))),
            minimum=state.minimum if numeric else None,
            maximum=state.maximum if numeric else None,
        )


def _shown(table: Table) -> Iterator[tuple[str, ColumnState]]:
    """The columns with the names that may be shown: a name that may be a value gives way to its position."""
    at = 0
    for name, state in table.columns.items():
        at += name != METADATA
        yield (f"#{at}" if table.hides(name) or len(name) > _LONGEST_NAME else name), state


def _name_findings(manifest: Manifest) -> Iterator[Finding]:
    paths = pl.Series([entry.path for entry in manifest], dtype=pl.String)
    if not len(paths):
        return
    suspects: set[int] = set(np.unique(Candidates.found(paths, ALL).rows).tolist())
    for full_path in (paths[at] for at in sorted(suspects)):
        for part in full_path.split("/"):
            entity = personal_name(part)
            if entity:
                yield Finding(entity, safe_path(full_path), NAME_COLUMN, 1, 1.0, 0.9, "the name of an object")


def _unread_finding(seen: ObjectScan, unread: Unread, *, listed: bool) -> Finding:
    """What could not be read; those that nobody will see by name (see `_shortened`) are not looked at for values."""
    if not listed:
        return Finding(UNREADABLE, "*", "", unread.count, 1.0, 1.0, unread.why)
    share = min(1.0, unread.count / (seen.rows + unread.count)) if seen.rows else 1.0
    hidden = Table(personal_names=seen.personal_names, format=seen.key.format).hides(unread.column)
    shown = "#?" if unread.column and (hidden or personal_name(unread.column)) else unread.column
    return Finding(UNREADABLE, safe_path(seen.path), shown, unread.count, round(share, 6), 1.0, unread.why)


def _shortened(unread: list[Finding]) -> list[Finding]:
    """The findings, with those beyond a number that anyone reads summed up by their reason."""
    listed, rest = unread[:_LISTED_UNREAD], unread[_LISTED_UNREAD:]
    by_reason: Mapping[str, int] = {why: sum(each.why == why for each in rest) for why in {each.why for each in rest}}
    return listed + [
        Finding(UNREADABLE, "*", "", count, 1.0, 1.0, f"{why} (in {count} more places)")
        for why, count in by_reason.items()
    ]
