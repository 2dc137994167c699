"""Arrow batches as flat columns: nested values become leaves with a path, odd types become text or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.core.arrow import compute as pc
from tasks.core.arrow import pa
from tasks.core.detectors.tables import Leaf, Unread

Rows = npt.NDArray[np.int64]
_MAX_DEPTH = 64


def leaves(batch: Any) -> Iterator[Leaf | Unread]:
    """The leaves of every column of a record batch. Columns of the same name are told apart by their position."""
    names = unique_names(batch.schema.names)
    for name, array in zip(names, batch.columns, strict=True):
        yield from flatten(name, array, None, 0)


def unique_names(names: list[str]) -> list[str]:
    """The names, with `#` and the position behind every repeated or empty one."""
    seen: set[str] = set()
    result: list[str] = []
    for at, name in enumerate(names, 1):
        unique = name if name and name not in seen else f"{name}#{at}"
        seen.add(unique)
        result.append(unique)
    return result


def flatten(name: str, array: Any, rows: Rows | None, depth: int) -> Iterator[Leaf | Unread]:
    """The leaves of one Arrow array.

    Args:
        name: The path so far.
        array: Any Arrow array.
        rows: For each element the row of the batch; None for the identity.
        depth: How deep it is nested.
    """
    kind = array.type
    if depth > _MAX_DEPTH:
        yield Unread(f"nested deeper than {_MAX_DEPTH}", name, len(array))
    elif isinstance(kind, pa.BaseExtensionType):
        yield from flatten(name, array.storage, rows, depth)
    elif pa.types.is_dictionary(kind):
        yield from flatten(name, array.dictionary_decode(), rows, depth)
    elif pa.types.is_struct(kind):
        # `flatten` of a struct array passes the parents' nulls on to the fields.
        for at, child in enumerate(array.flatten()):
            yield from flatten(f"{name}.{kind.field(at).name}", child, rows, depth + 1)
    elif pa.types.is_map(kind):
        as_list = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        parents = parents_of(as_list, rows)
        for name_of, child in zip(("key", "value"), pc.list_flatten(as_list).flatten(), strict=True):
            yield from flatten(f"{name}.{name_of}[]", child, parents, depth + 1)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        parents = parents_of(array, rows)
        yield from flatten(f"{name}[]", pc.list_flatten(array), parents, depth + 1)
    else:
        yield from _leaf(name, array, rows)


def is_in(leaf: str, column: str) -> bool:
    """Whether a leaf is a column, or nested in it."""
    return leaf == column or leaf.startswith((f"{column}.", f"{column}[]"))


def parents_of(lists: Any, rows: Rows | None) -> Rows:
    """For each item of lists the row of the batch, when `rows` tells that of each list (None: its own)."""
    own = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), dtype=np.int64)
    return own if rows is None else rows[own]


def _leaf(name: str, array: Any, rows: Rows | None) -> Iterator[Leaf | Unread]:
    kind = array.type
    if pa.types.is_null(kind):
        yield Leaf(name, pl.Series(name, [None] * len(array), dtype=pl.String), rows)
        return
    if is_binary(kind):
        array, broken = decode(array)
        if broken:
            yield Unread("bytes that are not UTF-8 text", name, broken)
    elif pa.types.is_decimal(kind):
        array = array.cast(pa.string())
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield Leaf(name, None, rows, array)
        return
    try:
        values = pl.Series(name, array)
    except (pl.exceptions.PolarsError, ValueError, TypeError, pa.ArrowException):
        yield Unread(f"a type that is not looked into ({kind})", name, len(array))
        return
    if isinstance(values.dtype, (pl.Categorical, pl.Enum)):
        values = values.cast(pl.String)
    yield Leaf(name, values, rows, array)


def is_binary(kind: Any) -> bool:
    """Whether an Arrow type holds bytes that may be text."""
    types = pa.types
    fixed = types.is_fixed_size_binary(kind) and not types.is_decimal(kind)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind) or fixed


def decode(array: Any) -> tuple[Any, int]:
    """Bytes as UTF-8 text, and how many of them are none (their odd bytes are replaced)."""
    if pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    try:
        return array.cast(pa.large_binary()).cast(pa.large_string()), 0
    except pa.ArrowInvalid:
        pass
    texts: list[str | None] = []
    broken = 0
    for value in array.to_pylist():
        text = None if value is None else bytes(value).decode(errors="replace")
        broken += text is not None and text.encode() != value
        texts.append(text)
    return pa.array(texts, pa.large_string()), broken
