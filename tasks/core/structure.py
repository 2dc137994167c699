"""Whether the tables that would leave are as anonymous as a policy wants; what cannot be measured is not.

Objects form tables as in a scan (`tasks.core.detectors.scan`), so that splitting one into files changes nothing. Only
the columns that the policy names are kept in memory. Reasons hold the policy's own words, places and figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from tasks.core.anonymity import Anonymity, measure
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors.objects import TableKey
from tasks.core.detectors.personal_names import directory_of, safe_path
from tasks.core.detectors.readers import read
from tasks.core.detectors.scan import Table
from tasks.core.detectors.tables import METADATA, Batch, Source, Unread, format_of
from tasks.core.manifest import Manifest
from tasks.core.policy import AnonymityRule, Policy

if TYPE_CHECKING:
    from tasks.core.ports import Store

_ROUNDING = 1e-9
"""Two equally frequent values have an entropy of 2 but for rounding."""


@dataclass
class _Columns:
    """The named columns of one table, piece by piece, and the objects they came from."""

    paths: list[str] = field(default_factory=list[str])
    pieces: list[pl.DataFrame] = field(default_factory=list[pl.DataFrame])


def check_anonymity(policy: Policy, store: Store, uri: DatasetURI, manifest: Manifest) -> tuple[str, ...]:
    """Check the limits of a policy's `anonymity` on exactly what would leave.

    Args:
        policy: Its own limits and those of the policies it extends.
        store: The store that holds the bucket of `uri`.
        uri, manifest: What would leave, after treatment.

    Returns:
        Every limit that is not kept, and everything that could not be measured, in words; `decide` refuses on any.

    Raises:
        PreconditionFailed: An object changed since the manifest was made; read the manifest again.
        Retryable: The store is throttled or away; check again later.
    """
    return tuple(reason for rule in policy.anonymity for reason in _broken(rule, store, uri, manifest))


def _broken(rule: AnonymityRule, store: Store, uri: DatasetURI, manifest: Manifest) -> Iterator[str]:
    tables, wrong = tables_of(rule, store, uri, manifest)
    yield from wrong
    for each in tables:
        try:
            found = measure(_with_numbers(each.rows, rule.sensitive), rule.quasi_identifiers, rule.sensitive)
        except pl.exceptions.PolarsError as error:
            yield f"{each.label}: anonymity cannot be measured: {type(error).__name__} ({rule.name})"
            continue
        yield from (f"{each.label}: {words} ({rule.name})" for words in _too_little(rule, found))


@dataclass(frozen=True)
class NamedColumns:
    """The columns that a rule names, of one table: what findings call it, its objects' paths, its rows."""

    label: str
    paths: tuple[str, ...]
    rows: pl.DataFrame


def tables_of(
    rule: AnonymityRule, store: Store, uri: DatasetURI, manifest: Manifest
) -> tuple[list[NamedColumns], list[str]]:
    """The tables that a rule is about, and why others cannot be measured, in words.

    Args:
        rule: Names objects and columns.
        store, uri, manifest: As for `check_anonymity`.
    """
    entries = [entry for entry in manifest if rule.holds_for(entry.path)]
    wrong = [] if entries else [f"no object matches {', '.join(rule.paths)} ({rule.name})"]
    tables: dict[TableKey, _Columns] = {}
    for entry in entries:
        why = _gather(tables, Source.open(store, uri, entry), entry, (*rule.quasi_identifiers, *rule.sensitive))
        if why:
            wrong.append(f"{safe_path(entry.path)}: anonymity cannot be measured: {why} ({rule.name})")
    found: list[NamedColumns] = []
    for columns in tables.values():
        label = Table(columns.paths).label()
        try:
            rows = pl.concat(columns.pieces, how="vertical_relaxed")
        except pl.exceptions.PolarsError as error:
            wrong.append(f"{label}: anonymity cannot be measured: {type(error).__name__} ({rule.name})")
            continue
        found.append(NamedColumns(label, tuple(columns.paths), rows))
    return found, wrong


def _gather(tables: dict[TableKey, _Columns], source: Source, entry: Entry, names: Sequence[str]) -> str:
    """Put an object's columns to those of its table. Answers why that cannot be done; nothing when it can."""
    kind, _ = format_of(source)
    key: TableKey | None = None
    for part in read(source):
        if isinstance(part, Unread):
            return part.why
        if not part.rows:
            continue
        by_name = {leaf.name: leaf for leaf in part.leaves}
        absent = [name for name in names if name not in by_name]
        if absent:
            return f"no column {', '.join(absent)}" + (" in some of its rows" if key else "")
        # Values that do not come one a row are of lists, or of lines that only a parser of odd JSON understood.
        uneven = [name for name in names if by_name[name].rows is not None]
        if uneven:
            return f"not one value a row in {', '.join(uneven)}"
        if key is None:
            key = _key(entry, kind, part)
            tables.setdefault(key, _Columns()).paths.append(entry.path)
        tables[key].pieces.append(pl.DataFrame([_plain(by_name[name].values).alias(name) for name in names]))
    return ""


def _key(entry: Entry, kind: str, batch: Batch) -> TableKey:
    columns = tuple(leaf.name for leaf in batch.leaves if leaf.name != METADATA)
    return TableKey(directory_of(entry.path), kind, columns if kind in ("parquet", "csv") else ())


def _plain(values: pl.Series) -> pl.Series:
    """A piece of nulls alone has no type, so that it goes with pieces of any."""
    return values.cast(pl.Null) if values.null_count() == len(values) else values


def _with_numbers(table: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The table with those columns as numbers in which every text is one, as in CSV, where everything is text."""
    for name in names:
        texts = table[name]
        if texts.dtype == pl.String:
            numbers = texts.cast(pl.Float64, strict=False)
            if numbers.null_count() == texts.null_count() and numbers.is_finite().all():
                table = table.with_columns(numbers)
    return table


def _too_little(rule: AnonymityRule, found: Anonymity) -> Iterator[str]:
    """The limits that are not kept."""
    over = f"over {', '.join(rule.quasi_identifiers)}"
    if found.k < rule.k:
        yield f"k is {found.k} {over}, and at least {rule.k} is wanted"
    for each in found.sensitive:
        of = f"of {each.column} {over}"
        if each.distinct < rule.distinct_l:
            yield f"l is {each.distinct} {of}, and at least {rule.distinct_l} is wanted"
        if each.entropy < rule.entropy_l - _ROUNDING:
            yield f"l by entropy is {each.entropy:.3f} {of}, and at least {rule.entropy_l:g} is wanted"
        if each.closeness > rule.t + _ROUNDING:
            yield f"t is {each.closeness:.3f} {of}, and at most {rule.t:g} is wanted"
