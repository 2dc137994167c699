"""Avro object container files, block by block (https://avro.apache.org/docs/1.12.0/specification/).

The container is read here, so that every block is unpacked within bounds; its records are fastavro's to decode. A
schema that refers to itself (records nested without end) or whose values need no bytes (a billion of them in a few
bytes) is not read.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any, cast

import polars as pl

from tasks.core.arrow import pa
from tasks.core.detectors.tables import BATCH_ROWS, METADATA, Batch, Leaf, Source, Unread
from tasks.core.detectors.unpacking import Expansion, UnpackError
from tasks.core.detectors.values import flattened

_MAX_HEADER_BYTES = 8 * 1024 * 1024
_MAX_BLOCK_BYTES = 64 * 1024 * 1024
_SYNC_BYTES = 16
_CRC_BYTES = 4
_BATCH_BYTES = 8 * 1024 * 1024


class AvroError(Exception):
    """Bytes that are no Avro, or that are not read; the text says why and quotes nothing."""


def avro(source: Source) -> Iterator[Batch | Unread]:
    """The records of a container file, nested values at their path, and its notes as text."""
    row = 0
    try:
        file = source.buffered()
        notes = _header(file)
        schema, codec = _schema(notes), notes.pop("avro.codec", b"null").decode(errors="replace")
        texts = [f"{key}: {value.decode(errors='replace')}" for key, value in sorted(notes.items())]
        yield Batch(0, 0, (Leaf(METADATA, pl.Series(METADATA, texts, dtype=pl.String)),))
        sync = _exactly(file, _SYNC_BYTES)
        expansion = Expansion(source.entry.size_bytes)
        while (count := _long(file, at_end=True)) is not None:
            block = _block(file, codec, expansion)
            if _exactly(file, _SYNC_BYTES) != sync:
                raise AvroError("an Avro file with a block that does not end where it says")
            for values in _records(block, count, schema):
                yield from flattened(values, row)
                row += len(values)
    except AvroError as error:
        yield Unread(f"{error}, after {row} rows")
    except UnpackError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a decoder stumbles over in foreign bytes does not pass
        yield Unread(f"Avro that cannot be decoded after {row} rows ({type(error).__name__})")


def _header(file: io.BufferedReader) -> dict[str, bytes]:
    """The file's metadata. Raises `AvroError` when it is none."""
    _exactly(file, 4)
    notes: dict[str, bytes] = {}
    total = 0
    while count := _long(file):
        if count < 0:
            count, _ = -count, _long(file)
        for _ in range(count):
            key, value = _exactly(file, _long(file) or 0), _exactly(file, _long(file) or 0)
            total += len(key) + len(value)
            if total > _MAX_HEADER_BYTES:
                raise AvroError("an Avro file with a giant header")
            notes[key.decode(errors="replace")] = value
    return notes


def _schema(notes: dict[str, bytes]) -> Any:
    schema: Any = json.loads(notes.get("avro.schema", b"null"))
    if _least_bytes(schema, {}) == 0:
        raise AvroError("an Avro schema whose records need no bytes")
    return import_module("fastavro").parse_schema(schema)


def _least_bytes(schema: Any, names: dict[str, int | None]) -> int:
    """How many bytes a value needs at least, up to 1. Raises `AvroError` for schemas that are not read."""
    if isinstance(schema, list):
        for branch in cast("list[Any]", schema):
            _least_bytes(branch, names)
        return 1
    if isinstance(schema, str):
        known = names.get(schema, names.get(schema.rpartition(".")[2], 1))
        if known is None:
            raise AvroError("an Avro schema that refers to itself")
        return 0 if schema == "null" else known
    described = cast("dict[str, Any]", schema)
    kind = described["type"]
    if kind in ("array", "map"):
        if _least_bytes(described["items" if kind == "array" else "values"], names) == 0 and kind == "array":
            raise AvroError("an Avro schema with lists of what needs no bytes")
        return 1
    if kind not in ("record", "error", "fixed", "enum"):
        return _least_bytes(kind, names)
    name = str(described["name"]).rpartition(".")[2]
    names[name] = None
    if kind in ("record", "error"):
        least = max((_least_bytes(field["type"], names) for field in described["fields"]), default=0)
    else:
        least = 1 if kind == "enum" else min(1, int(described["size"]))
    names[name] = least
    return least


def _block(file: io.BufferedReader, codec: str, expansion: Expansion) -> bytes:
    size = _long(file) or 0
    packed = _exactly(file, size)
    block = _unpacked(packed, codec)
    problem = expansion.add(len(block))
    if problem:
        raise UnpackError(problem)
    return block


def _unpacked(packed: bytes, codec: str) -> bytes:
    most = _MAX_BLOCK_BYTES
    if codec == "null":
        return packed
    if codec == "deflate":
        block = zlib.decompressobj(-15).decompress(packed, most + 1)
    elif codec == "bzip2":
        block = bz2.BZ2Decompressor().decompress(packed, most + 1)
    elif codec == "xz":
        block = lzma.LZMADecompressor(memlimit=256 * 1024 * 1024).decompress(packed, most + 1)
    elif codec == "zstandard":
        block = cast("bytes", pa.CompressedInputStream(pa.BufferReader(packed), "zstd").read(most + 1))
    elif codec == "snappy":
        content = io.BytesIO(packed[:-_CRC_BYTES])
        size = _varint(content)
        if size > most:
            raise AvroError(f"an Avro block of more than {most // 1024**2} MiB")
        block = pa.decompress(packed[:-_CRC_BYTES], decompressed_size=size, codec="snappy", asbytes=True)
    else:
        raise AvroError("an Avro file in a compression that is not known")
    if len(block) > most:
        raise AvroError(f"an Avro block of more than {most // 1024**2} MiB")
    return block


def _records(block: bytes, count: int, schema: Any) -> Iterator[list[Any]]:
    read: Any = import_module("fastavro").schemaless_reader
    content = io.BytesIO(block)
    values: list[Any] = []
    begun = 0
    for _ in range(count):
        values.append(read(content, schema, None))
        if len(values) == BATCH_ROWS or content.tell() - begun > _BATCH_BYTES:
            yield values
            values, begun = [], content.tell()
    if content.tell() != len(block):
        raise AvroError("an Avro block that its records do not fill")
    if values:
        yield values


def _exactly(file: io.BufferedReader, size: int) -> bytes:
    if not 0 <= size <= _MAX_BLOCK_BYTES:
        raise AvroError(f"an Avro block of more than {_MAX_BLOCK_BYTES // 1024**2} MiB")
    content = file.read(size)
    if len(content) < size:
        raise AvroError("an Avro file that is cut short")
    return content


def _long(file: io.BufferedReader, *, at_end: bool = False) -> int | None:
    """The next number; None at the end of the file where it may end."""
    if at_end and not file.peek(1):
        return None
    value = _varint(file)
    return (value >> 1) ^ -(value & 1)


def _varint(file: io.BufferedReader | io.BytesIO) -> int:
    value = shift = 0
    while shift < 70:
        byte = file.read(1)
        if not byte:
            raise AvroError("an Avro file that is cut short")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
        shift += 7
    raise AvroError("an Avro file with a number that is too long")
