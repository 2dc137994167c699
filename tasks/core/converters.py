"""A converted copy of a dataset: compressed, or as Parquet; see `tasks.core.conversion` for what is asked.

Like a treated copy it is made on this side before the gate looks, so that what is cleared is what leaves, and it has
the same bytes whenever it is made again from the same objects with the same version of pyarrow. An object that is
converted gets another name: `day.csv` becomes `day.csv.zst` or `day.parquet`. Empty objects stay as they are.

A column of CSV gets a type only where every one of its cells can be written again as it was spelt: whole numbers,
decimal numbers of up to 14 digits, days and `true`/`false`. All else stays text; empty cells are null. JSON lines have
the types that they are written in.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from tasks.core.arrow import compute as pc
from tasks.core.arrow import json as arrow_json
from tasks.core.arrow import pa
from tasks.core.arrow import parquet as arrow_parquet
from tasks.core.attributes import Attributes
from tasks.core.conversion import Conversion
from tasks.core.copying import Looked, copied_by, unchanged, written
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.detectors import readers
from tasks.core.detectors.leaves import decode, unique_names
from tasks.core.detectors.personal_names import safe_path
from tasks.core.detectors.tables import Source, Unread, format_of
from tasks.core.detectors.unpacking import UnpackError
from tasks.core.errors import Invalid
from tasks.core.manifest import Manifest
from tasks.core.retries import OBJECTS_AT_ONCE
from tasks.core.rewriters import LeftOpen
from tasks.core.scratch import spooled

if TYPE_CHECKING:
    from tasks.core.ports import Store

_GROUP_ROWS = 131_072
_PACKED = re.compile(
    r"\.(zst|zstd|gz|gzip|bz2|xz|lz4|zip|7z|parquet|pq|orc|avro|jpe?g|png|gif|webp|mp[34]|m4[av]|mkv|npz|whl)$", re.I
)
_TYPES: tuple[tuple[Any, str], ...] = (
    (pa.int64(), r"^(0|-?[1-9][0-9]{0,17})$"),
    (pa.float64(), r"^-?(0|[1-9][0-9]{0,6})\.[0-9]{0,7}[1-9]$|^-?(0|[1-9][0-9]{0,6})\.0$"),
    (pa.date32(), r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"),
    (pa.bool_(), r"^(true|false)$"),
)


def convert(
    source: Store,
    uri: DatasetURI,
    manifest: Manifest,
    conversion: Conversion,
    into: Store,
    into_uri: DatasetURI,
    *,
    in_flight: int = OBJECTS_AT_ONCE,
) -> Manifest:
    """Write the converted copy of a dataset.

    Args:
        source, uri, manifest: The dataset as it is; objects are read once, at the manifest's versions.
        conversion: What to do.
        into, into_uri: Where the copy goes: a prefix at this side that nothing else uses. Objects that are there
            already with the right content are left alone.
        in_flight: How many objects are converted at the same time.

    Returns:
        The copy's manifest.

    Raises:
        Invalid: An object cannot be read as what it is named, or two objects would get one name.
        PreconditionFailed: An object changed since the manifest was made; read the manifest again.
    """
    work = partial(_converted, conversion, into, into_uri)
    return Manifest.of(copied_by(work, source, uri, manifest, in_flight))


def _converted(conversion: Conversion, into: Store, into_uri: DatasetURI, looked: Looked) -> Entry:
    entry, attributes = looked.entry, looked.attributes
    if not entry.size_bytes:
        return unchanged(looked, into, into_uri)
    seen = looked.source
    kind, _ = format_of(seen)
    if conversion.format == "parquet" and kind in _TO_PARQUET:
        path = _renamed(entry.path, seen) + ".parquet"
        made = replace(attributes, content_type="application/vnd.apache.parquet", content_encoding="")
        return _spooled(into, into_uri, path, made, lambda sink: _as_parquet(_TO_PARQUET[kind], seen, sink))
    if conversion.compress and not seen.packing and kind != "parquet" and not _PACKED.search(entry.path):
        made = replace(attributes, content_type="application/zstd")
        return _spooled(into, into_uri, f"{entry.path}.zst", made, partial(_compressed, seen))
    return unchanged(looked, into, into_uri)


def _spooled(
    into: Store, uri: DatasetURI, path: str, attributes: Attributes, write: Callable[[IO[bytes]], None]
) -> Entry:
    with spooled() as spool:
        write(spool)
        return written(into, uri, path, spool, attributes)


def _renamed(path: str, source: Source) -> str:
    """The path without the endings that would no longer be true."""
    stem = path
    if source.packing:
        stem = stem[: stem.rfind(".")] if "." in stem.rpartition("/")[2] else stem
    return stem[: -len(source.suffix)] if source.suffix and stem.lower().endswith(source.suffix) else stem


def _compressed(source: Source, sink: IO[bytes]) -> None:
    with pa.CompressedOutputStream(pa.PythonFile(LeftOpen(sink), mode="w"), "zstd") as packed:
        for piece in source.pieces():
            packed.write(piece)


def _as_parquet(write: Callable[[Source, IO[bytes]], None], source: Source, sink: IO[bytes]) -> None:
    try:
        write(source, sink)
    except (*readers.ARROW_ERRORS, UnpackError) as error:
        raise _cannot(source, type(error).__name__) from None


def _cannot(source: Source, why: str) -> Invalid:
    return Invalid(
        f"'{safe_path(source.entry.path)}' cannot become Parquet: {why}", "mend it, or move it without --format parquet"
    )


def _csv(source: Source, sink: IO[bytes]) -> None:
    """Text first, while it is seen which types hold for every cell; then with those types."""
    with spooled() as spool:
        kinds: dict[str, list[Any]] = {}
        writer: Any = None
        for header, batch in readers.csv_batches(source):
            if isinstance(batch, Unread):
                raise _cannot(source, batch.why)
            names = unique_names(header)
            columns: list[Any] = []
            for name, cells in zip(names, batch.columns, strict=True):
                texts, broken = decode(cells)
                if broken:
                    raise _cannot(source, "text that is not UTF-8")
                texts = texts.cast(pa.string())
                columns.append(texts)
                kinds[name] = [kind for kind in kinds.get(name, list(_TYPES)) if _holds(texts, kind[1])]
            made = pa.RecordBatch.from_arrays(columns, names=names)
            writer = writer or arrow_parquet.ParquetWriter(spool, made.schema, compression="zstd")
            writer.write_batch(made, row_group_size=_GROUP_ROWS)
        if writer is None:
            raise _cannot(source, "it has no header")
        writer.close()
        spool.seek(0)
        file = arrow_parquet.ParquetFile(spool)
        empty = _only_nulls(file)
        fields = [
            pa.field(name, kinds[name][0][0] if kinds[name] and name not in empty else pa.string()) for name in kinds
        ]
        _rewrite(file, pa.schema(fields), sink)


def _holds(texts: Any, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(texts, pattern), min_count=0).as_py() is not False


def _only_nulls(file: Any) -> set[str]:
    """Columns of which nothing can be said: they stay text."""
    found: set[str] = set(file.schema_arrow.names)
    for group in range(file.metadata.num_row_groups):
        for at, name in enumerate(file.schema_arrow.names):
            statistics = file.metadata.row_group(group).column(at).statistics
            if statistics is None or statistics.null_count != file.metadata.row_group(group).num_rows:
                found.discard(name)
    return found


def _rewrite(file: Any, schema: Any, sink: IO[bytes]) -> None:
    with arrow_parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in file.iter_batches(batch_size=_GROUP_ROWS):
            arrays = [array.cast(field.type) for array, field in zip(batch.columns, schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema), row_group_size=_GROUP_ROWS)


def _json_lines(source: Source, sink: IO[bytes]) -> None:
    """The lines are kept while their common schema is found out; then they are read by it."""
    with spooled() as spool:
        schema: Any = pa.schema([])
        lengths: list[int] = []
        for block in readers.lines(source):
            if isinstance(block, Unread):
                raise _cannot(source, block.why)
            if not block.strip():
                continue
            spool.write(block)
            lengths.append(len(block))
            schema = pa.unify_schemas([schema, _spelt(_read_json(block, None).schema)], promote_options="permissive")
        spool.seek(0)
        with arrow_parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
            for length in lengths:
                table = _read_json(spool.read(length), schema)
                writer.write_table(table.select(schema.names).cast(schema), row_group_size=_GROUP_ROWS)


def _read_json(block: bytes, schema: Any) -> Any:
    return arrow_json.read_json(
        io.BytesIO(block),
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, newlines_in_values=False),
    )


def _spelt(schema: Any) -> Any:
    """The schema with times as the text that they are written in."""
    return pa.schema([pa.field(field.name, _spelt_type(field.type)) for field in schema])


def _spelt_type(kind: Any) -> Any:
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_spelt_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _spelt_type(field.type)) for field in kind])
    return kind


_TO_PARQUET: dict[str, Callable[[Source, IO[bytes]], None]] = {"csv": _csv, "jsonl": _json_lines}
