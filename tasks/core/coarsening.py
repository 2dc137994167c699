"""Copies of tables that are generalised and suppressed until a policy's limits on anonymity hold.

Which levels do is found on the columns that the policy names, over all objects of a table; then the objects are written
again, row group by row group. What comes out is scanned and measured again like any copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import polars as pl

from tasks.core.arrow import csv as arrow_csv
from tasks.core.arrow import pa
from tasks.core.arrow import parquet as arrow_parquet
from tasks.core.copying import Looked, copied_by, unchanged, written
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors import readers
from tasks.core.detectors.leaves import decode, unique_names
from tasks.core.detectors.row_groups import BoundedParquet
from tasks.core.detectors.tables import Source, Unread, format_of
from tasks.core.hierarchies import Coarsening, least_coarse
from tasks.core.manifest import Manifest
from tasks.core.policy import Policy
from tasks.core.rewriters import GROUP_ROWS, LeftOpen, as_arrow, cannot_be_treated, csv_line, leaf_values
from tasks.core.scratch import spooled
from tasks.core.structure import tables_of

if TYPE_CHECKING:
    from tasks.core.ports import Store


def coarsen(
    policy: Policy, source: Store, uri: DatasetURI, manifest: Manifest, into: Store, into_uri: DatasetURI
) -> tuple[Manifest, tuple[Coarsening, ...]]:
    """Write a copy in which the tables keep the limits of a policy's `anonymity`, as far as its hierarchies go.

    A table for which no level does, or that cannot be measured, stays as it is: the gate refuses it with the figures.

    Args:
        policy: Its own limits and those of the policies it extends. A table is changed for the first rule that is about
            it and has hierarchies; the others are checked afterwards, as all are.
        source, uri, manifest: What would leave.
        into, into_uri: Where the copy goes: a prefix at the source's side that nothing else uses.

    Returns:
        The copy's manifest, and what was done to each table.

    Raises:
        PolicyViolation: A table is neither Parquet nor CSV, so that its rows cannot be written again.
        PreconditionFailed: An object changed since the manifest was made; read the manifest again.
    """
    found: list[Coarsening] = []
    of_path: dict[str, Coarsening] = {}
    for rule in policy.anonymity:
        if not rule.is_sought:
            continue
        for table in tables_of(rule, source, uri, manifest)[0]:
            least = least_coarse(table.label, rule, table.rows) if of_path.keys().isdisjoint(table.paths) else None
            if least is not None:
                found.append(least)
                of_path |= dict.fromkeys(table.paths, least)
    work = partial(_copied, into, into_uri, of_path)
    return Manifest.of(copied_by(work, source, uri, manifest, 2)), tuple(found)


def _copied(into: Store, into_uri: DatasetURI, of_path: Mapping[str, Coarsening], looked: Looked) -> Entry:
    change = of_path.get(looked.entry.path)
    if change is None:
        return unchanged(looked, into, into_uri)
    with spooled() as spool:
        _rewrite(looked.source, change, spool)
        return written(into, into_uri, looked.entry.path, spool, looked.attributes)


def _rewrite(source: Source, change: Coarsening, sink: IO[bytes]) -> None:
    kind, _ = format_of(source)
    if kind == "parquet":
        _parquet(source, change, sink)
    elif kind == "csv" and not source.packing:
        _csv(source, change, sink)
    elif kind == "csv":
        with pa.CompressedOutputStream(pa.PythonFile(LeftOpen(sink), mode="w"), source.packing) as packed:
            _csv(source, change, packed)
    else:
        raise cannot_be_treated(source.entry.path, "only Parquet and CSV are generalised to reach a limit")


def _parquet(source: Source, change: Coarsening, sink: IO[bytes]) -> None:
    file = BoundedParquet(source)
    writer: Any = None
    empty = pa.RecordBatch.from_pylist([], schema=file.schema)
    for batch in file.batches(GROUP_ROWS) if file.metadata.num_rows else [empty]:
        made = _changed(batch, unique_names(batch.schema.names), change, source)
        writer = writer or arrow_parquet.ParquetWriter(sink, made.schema, compression="zstd")
        writer.write_batch(made, row_group_size=GROUP_ROWS)
    if writer is not None:
        writer.close()


def _csv(source: Source, change: Coarsening, sink: Any) -> None:
    delimiter = readers.delimiter_of(source)
    options = arrow_csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="needed")
    for number, (header, batch) in enumerate(readers.csv_batches(source)):
        if not number:
            sink.write(csv_line(header, delimiter))
        made = _changed(batch, unique_names(header), change, source)
        arrow_csv.write_csv(pa.RecordBatch.from_arrays(list(_texts(made)), names=made.schema.names), sink, options)


def _texts(batch: Any) -> Iterator[Any]:
    for column in batch.columns:
        yield decode(column)[0] if pa.types.is_binary(column.type) else column


def _changed(batch: Any, names: list[str], change: Coarsening, source: Source) -> Any:
    """A batch with its quasi-identifiers as they become, without the rows that are left out; no notes beside."""
    if isinstance(batch, Unread):
        raise cannot_be_treated(source.entry.path, batch.why)
    columns = list(change.rule.quasi_identifiers)
    rows = pl.DataFrame([leaf_values(batch.column(names.index(name))).alias(name) for name in columns])
    coarse, stays = change.apply(rows)
    arrays: dict[str, Any] = dict(zip(names, batch.columns, strict=True))
    arrays |= {name: as_arrow(coarse[name]) for name, level in change.levels.items() if level}
    shown = pa.RecordBatch.from_arrays(list(arrays.values()), names=batch.schema.names)
    return shown.filter(stays.to_arrow())
