"""One rewriter a format: reads an object as the scan does and writes it again with its columns treated."""

from __future__ import annotations

import csv as csv_module
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

import polars as pl

from tasks.core.arrow import compute as pc
from tasks.core.arrow import csv as arrow_csv
from tasks.core.arrow import pa
from tasks.core.arrow import parquet as arrow_parquet
from tasks.core.chunkwise import Described, NotByChunks, Plan, Texts, write
from tasks.core.detectors import readers
from tasks.core.detectors.leaves import decode, is_binary, is_in, unique_names
from tasks.core.detectors.personal_names import safe_path
from tasks.core.detectors.row_groups import BoundedParquet
from tasks.core.detectors.tables import TEXT, Source, Unread, format_of
from tasks.core.detectors.unpacking import UnpackError
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.policy import Action
from tasks.core.privacy import ColumnTreatment
from tasks.core.treatments import (
    AT_ONCE,
    SAMPLE,
    ObjectTreatment,
    constant_of,
    each_by_itself,
    mostly_different,
    treat_column,
    treat_hits,
    treat_texts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP_ROWS = AT_ONCE


def parquet(source: Source, needed: ObjectTreatment, sink: IO[bytes]) -> bool:
    """A Parquet file: treated columns change their type to text where need be; notes beside the rows are left out.

    It is written column chunk by column chunk, or batch by batch where that cannot be.
    """
    try:
        file = BoundedParquet(source)
        if file.metadata.num_rows:
            described = Described.of(file)
            left = write(described, _plan(described, needed), sink)
            if isinstance(left, Unread):
                raise cannot_be_treated(source.entry.path, left.why)
            return left
    except NotByChunks:
        sink.seek(0)
        sink.truncate()
    except readers.ARROW_ERRORS as error:
        raise _cannot_be_decoded(source, error) from None
    return _by_batches(source, needed, sink)


def _plan(described: Described, needed: ObjectTreatment) -> Plan:
    """What becomes of a Parquet file's columns."""
    in_place = described.texts
    texts: dict[str, Texts] = {}
    rows: set[str] = set()
    names = [column.name for column in described.columns]
    for name in names:
        treatment = needed.columns.get(name)
        if treatment is not None and name in in_place and each_by_itself(treatment):
            constant = constant_of(treatment)
            texts[name] = Texts(
                partial(treat_texts, treatment=treatment, needed=needed),
                None if constant is None else constant.encode(),
            )
        elif _is_concerned(name, needed) and not needed.dropped(name):
            rows.add(name)

    def treat(batch: Any) -> Any:
        treated = _treated_batch(batch, needed)
        return treated.select([name for name in treated.schema.names if name in rows])

    dropped = frozenset(name for name in names if needed.dropped(name))
    read = rows | needed.subject_columns if rows else rows
    return Plan(texts, frozenset(rows), frozenset(read), dropped, treat)


def _by_batches(source: Source, needed: ObjectTreatment, sink: IO[bytes]) -> bool:
    try:
        file = BoundedParquet(source)
        writer: Any = None
        empty = pa.RecordBatch.from_pylist([], schema=file.schema)
        for batch in file.batches(GROUP_ROWS) if file.metadata.num_rows else [empty]:
            if isinstance(batch, Unread):
                raise cannot_be_treated(source.entry.path, batch.why)
            treated = _treated_batch(batch, needed)
            if not treated.num_columns:
                return False
            if writer is None:
                writer = arrow_parquet.ParquetWriter(
                    sink, treated.schema, compression="zstd", use_dictionary=_worth_a_dictionary(file.paths, treated)
                )
            writer.write_batch(treated, row_group_size=GROUP_ROWS)
        if writer is not None:
            writer.close()
    except readers.ARROW_ERRORS as error:
        raise _cannot_be_decoded(source, error) from None
    return True


def _cannot_be_decoded(source: Source, error: Exception) -> PolicyViolation:
    return cannot_be_treated(source.entry.path, f"Parquet that cannot be decoded ({type(error).__name__})")


def _worth_a_dictionary(paths: list[str], batch: Any) -> list[str]:
    """Those of a file's columns that are written by dictionary: not those of which hardly a value comes again."""
    plain = {
        name
        for name, array in zip(batch.schema.names, batch.columns, strict=True)
        if _countable(array.type) and mostly_different(len(array.slice(0, SAMPLE).unique()), len(array))
    }
    return [path for path in paths if path not in plain]


def _countable(kind: Any) -> bool:
    kinds = pa.types
    number = kinds.is_integer(kind) or kinds.is_float32(kind) or kinds.is_float64(kind) or kinds.is_temporal(kind)
    return number or kinds.is_string(kind) or kinds.is_large_string(kind)


def _treated_batch(batch: Any, needed: ObjectTreatment) -> Any:
    fields: list[Any] = []
    arrays: list[Any] = []
    names = unique_names(batch.schema.names)
    needed = needed.with_subjects(
        {name: leaf_values(batch.column(at)) for at, name in enumerate(names) if name in needed.subject_columns}
    )
    for name, field, array in zip(names, batch.schema, batch.columns, strict=True):
        treated = _treated_array(name, array, needed)
        if treated is not None:
            arrays.append(treated)
            fields.append(field if treated is array else pa.field(field.name, treated.type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _is_concerned(name: str, needed: ObjectTreatment) -> bool:
    """Whether a column is treated, or anything that is nested in it."""
    return any(is_in(column, name) for column in needed.columns)


def _treated_array(name: str, array: Any, needed: ObjectTreatment) -> Any:
    """The array with the leaves under `name` treated; None when nothing is left; the array itself when unconcerned."""
    if not _is_concerned(name, needed):
        return array
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _treated_array(name, array.storage, needed)
    if pa.types.is_dictionary(kind):
        return _treated_array(name, array.dictionary_decode(), needed)
    if pa.types.is_struct(kind):
        return _treated_struct(name, array, needed)
    if pa.types.is_map(kind):
        keys = _treated_array(f"{name}.key[]", array.keys, needed)
        items = _treated_array(f"{name}.value[]", array.items, needed)
        if keys is None or items is None:
            return None
        return pa.MapArray.from_arrays(_offsets(array), keys, items)
    if pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        values = _treated_array(f"{name}[]", array.values, needed)
        if values is None:
            return None
        made = pa.LargeListArray if pa.types.is_large_list(array.type) else pa.ListArray
        return made.from_arrays(_offsets(array), values)
    return _treated_leaf(array, needed.columns[name], needed) if name in needed.columns else array


def _offsets(array: Any) -> Any:
    """Offsets in which a null list is null, as `from_arrays` reads them."""
    offsets = array.offsets
    if not array.null_count:
        return offsets
    missing = pa.concat_arrays([pc.is_null(array), pa.array([False])])
    return pc.if_else(missing, pa.scalar(None, offsets.type), offsets)


def _treated_struct(name: str, array: Any, needed: ObjectTreatment) -> Any:
    children: list[Any] = []
    fields: list[Any] = []
    for at, child in enumerate(array.flatten()):
        field = array.type.field(at)
        treated = _treated_array(f"{name}.{field.name}", child, needed)
        if treated is not None:
            children.append(treated)
            fields.append(pa.field(field.name, treated.type))
    if not children:
        return None
    return pa.StructArray.from_arrays(children, fields=fields, mask=pc.is_null(array))


def _treated_leaf(array: Any, treatment: ColumnTreatment, needed: ObjectTreatment) -> Any:
    if treatment.action is Action.DROP:
        return None
    if pa.types.is_null(array.type):
        return array.cast(pa.string())
    return as_arrow(_treated(leaf_values(array), treatment, needed))


def as_arrow(values: pl.Series) -> Any:
    """Treated values as files hold them."""
    untyped: Any = values
    made = untyped.to_arrow(compat_level=pl.CompatLevel.oldest())
    return made.cast(pa.string()) if pa.types.is_large_string(made.type) else made


def leaf_values(array: Any) -> pl.Series:
    """Leaf values as they are treated. Raises `ArrowInvalid` for texts that are not UTF-8."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if is_binary(array.type):
        array, _ = decode(array)
    array.validate(full=True)  # Polars takes it for granted.
    return pl.Series(array.cast(pa.string()) if pa.types.is_decimal(array.type) else array)


def _treated(values: pl.Series, treatment: ColumnTreatment, needed: ObjectTreatment) -> pl.Series:
    if treatment.in_text and values.dtype == pl.String:
        return treat_hits(values, treatment, needed)
    try:
        subjects = needed.subjects.get(treatment.options.by)
        return treat_column(values, treatment, needed.keys, needed.destination, subjects)
    except Invalid as error:
        raise cannot_be_treated(treatment.path, f"in column '{treatment.column}' {error.what}") from None


def csv(source: Source, needed: ObjectTreatment, sink: IO[bytes]) -> bool:
    """Separated values: the header stays as it was, except for columns that are left out."""
    options = arrow_csv.WriteOptions(
        include_header=False, delimiter=readers.delimiter_of(source), quoting_style="needed"
    )
    kept: list[int] | None = None
    for header, batch in readers.csv_batches(source):
        if isinstance(batch, Unread):
            raise cannot_be_treated(source.entry.path, batch.why)
        names = unique_names(header)
        if kept is None:
            kept = [at for at, name in enumerate(names) if not needed.dropped(name)]
            if not kept:
                return False
            sink.write(csv_line([header[at] for at in kept], readers.delimiter_of(source)))
        needed = needed.with_subjects(
            {name: leaf_values(batch.column(at)) for at, name in enumerate(names) if name in needed.subject_columns}
        )
        columns: list[Any] = []
        for at in kept:
            array, broken = decode(batch.column(at))
            if broken:
                raise cannot_be_treated(source.entry.path, "text that is not UTF-8")
            treatment = needed.columns.get(names[at])
            columns.append(array if treatment is None else _treated_leaf(array, treatment, needed))
        arrow_csv.write_csv(pa.RecordBatch.from_arrays(columns, names=[f"f{at}" for at in kept]), sink, options)
    return True


def csv_line(cells: list[str], delimiter: str) -> bytes:
    """One line of separated values, quoted where need be."""
    line = io.StringIO()
    csv_module.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def text(source: Source, needed: ObjectTreatment, sink: IO[bytes]) -> bool:
    """Plain text, line by line."""
    treatment = needed.columns[TEXT]
    if treatment.action is Action.DROP:
        return False
    for part in readers.text(source):
        if isinstance(part, Unread):
            raise cannot_be_treated(source.entry.path, part.why)
        for leaf in part.leaves:
            lines = _treated(leaf.values, treatment, needed)
            sink.write(("\n".join(lines.to_list()) + "\n").encode())
    return True


def json_lines(source: Source, needed: ObjectTreatment, sink: IO[bytes]) -> bool:
    """JSON values, one a line."""
    for block in readers.lines(source):
        if isinstance(block, Unread):
            raise cannot_be_treated(source.entry.path, block.why)
        values: list[Any] = []
        for line in block.splitlines():
            if line.strip():
                value, why = readers.parse(line)
                if why:
                    raise cannot_be_treated(source.entry.path, why)
                values.append(value)
        _treat_json(values, needed)
        for value in values:
            sink.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return True


def json_document(source: Source, needed: ObjectTreatment, sink: IO[bytes]) -> bool:
    """One JSON value, or lines of them under the same name."""
    value, why = readers.document(source)
    if why == readers.NOT_JSON:
        return json_lines(source, needed, sink)
    if why:
        raise cannot_be_treated(source.entry.path, why)
    rows = cast("list[Any]", value) if isinstance(value, list) else [value]
    _treat_json(rows, needed)
    sink.write(json.dumps(rows if isinstance(value, list) else rows[0], ensure_ascii=False).encode() + b"\n")
    return True


Place = tuple[Any, Any]
"""A container (object or list) and the key or index of a leaf in it."""


def _treat_json(values: list[Any], needed: ObjectTreatment) -> None:
    """Treat the leaves of the values in place, a whole path at a time."""
    subjects = _subjects(values, needed.subject_columns)
    places: dict[str, list[Place]] = {}
    for at, value in enumerate(values):
        for path, place in _places(value, (values, at), ""):
            if path in needed.columns:
                places.setdefault(path, []).append(place)
    for path, found in places.items():
        treatment = needed.columns[path]
        if treatment.action is Action.DROP:
            for container, key in found:
                if isinstance(container, dict):
                    del container[key]
                else:
                    container[key] = None
            continue
        texts = pl.Series([_json_text(container[key]) for container, key in found], dtype=pl.String)
        subject = treatment.options.by
        if subject:
            owners = [subjects.get(id(container), {}).get(subject) for container, _ in found]
            needed = needed.with_subjects({subject: pl.Series(owners, dtype=pl.String)})
        for (container, key), changed in zip(found, _treated(texts, treatment, needed).to_list(), strict=True):
            container[key] = changed


def _subjects(values: list[Any], names: frozenset[str]) -> dict[int, dict[str, str]]:
    """Of the objects that are rows, the fields that name a subject, by the identity of the object."""
    rows = [cast("dict[str, Any]", value) for value in values if isinstance(value, dict)] if names else []
    return {id(row): {name: _json_text(row[name]) for name in names if row.get(name) is not None} for row in rows}


def _places(value: Any, place: Place, path: str) -> Iterator[tuple[str, Place]]:
    waiting: list[tuple[str, Any, Place]] = [(path, value, place)]
    while waiting:
        at, item, where = waiting.pop()
        if isinstance(item, dict):
            fields = cast("Mapping[str, Any]", item)
            waiting += [(f"{at}.{key}" if at else key, child, (item, key)) for key, child in fields.items()]
        elif isinstance(item, list):
            waiting += [(f"{at}[]", child, (item, n)) for n, child in enumerate(cast("list[Any]", item))]
        elif item is not None and not isinstance(item, bool):
            yield at or TEXT, where


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def cannot_be_treated(path: str, why: str) -> PolicyViolation:
    """The refusal of an object that must be treated and cannot be read."""
    return PolicyViolation(
        f"'{safe_path(path)}' must be treated and cannot be: {why}", "repair the object or take it out of the dataset"
    )


_REWRITERS: dict[str, Callable[[Source, ObjectTreatment, IO[bytes]], bool]] = {
    "parquet": parquet,
    "csv": csv,
    "jsonl": json_lines,
    "json": json_document,
    "text": text,
}


def rewrite(source: Source, needed: ObjectTreatment, sink: IO[bytes]) -> bool:
    """Write the treated object. Answers whether anything is left of it.

    Raises:
        PolicyViolation: It cannot be read; repair it or take it out of the dataset.
    """
    kind, why = format_of(source)
    if kind == "unknown":
        raise cannot_be_treated(source.entry.path, why)
    if kind not in _REWRITERS:
        raise cannot_be_treated(source.entry.path, f"{kind} files are read and not written; make it Parquet or CSV")
    try:
        if not source.packing:
            return _REWRITERS[kind](source, needed, sink)
        with pa.CompressedOutputStream(pa.PythonFile(LeftOpen(sink), mode="w"), source.packing) as packed:
            return _REWRITERS[kind](source, needed, packed)
    except UnpackError as error:
        raise cannot_be_treated(source.entry.path, str(error)) from None


class LeftOpen(io.RawIOBase):
    """A file that stays open when the stream above it is closed."""

    def __init__(self, sink: IO[bytes]) -> None:
        super().__init__()
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._sink.write(data)
