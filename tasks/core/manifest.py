"""The list of a dataset's objects and one digest of the whole.

The digest is BLAKE3 over one canonical JSON line an object: `["PATH",SIZE,"DIGEST"]`, in order of paths. The
published form is JSON lines too, so that anyone can check it without Lintas; docs/manifest.md says how, and
docs/decisions/0070-columnar-manifests.md why it is not Parquet. In between, a manifest is columns: see
`tasks.core.rows`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from blake3 import blake3

from tasks.core.arrow import compute, pa
from tasks.core.arrow import json as arrow_json
from tasks.core.dataset import Entry
from tasks.core.errors import IntegrityError, Invalid
from tasks.core.rows import Batch, Rows, batches_of, in_order
from tasks.core.selection import Selection

SCHEMA: Any = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("digest", pa.string()),
        ("version", pa.string()),
        ("assumed", pa.bool_()),
        ("modified", pa.timestamp("us", "UTC")),
    ]
)
"""An entry's columns, and when the store wrote the object (null when nobody knows)."""

_PUBLISHED: Any = pa.schema([*list(SCHEMA)[:5]])
_ESCAPED = r"[^ !#-\[\]-~]"
"""What stands in a JSON string as something else: quotes, backslashes, controls, and all beyond ASCII."""

_BLOCK_BYTES = 4 * 1024 * 1024
_FORMAT = 1


class Manifest:
    """The immutable list of a dataset's objects, in order of their paths, each path once.

    Two manifests are equal when they name the same contents, wherever those are.

    Args:
        rows: Its rows, ordered, of `SCHEMA`. Use `Manifest.of` or `ManifestWriter` to make one.
        digest: The dataset's identity.
        size_bytes: Sum of the objects' sizes.
        assumed: How many entries nobody has verified; see `Entry.assumed`.
        selection: What of the dataset it lists.
    """

    def __init__(
        self, rows: Rows, digest: str, size_bytes: int, assumed: int = 0, selection: Selection | None = None
    ) -> None:
        self.rows = rows
        self.digest = digest
        self.size_bytes = size_bytes
        self.assumed = assumed
        self.selection = selection or Selection()

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """Sort the entries. Raises `Invalid` when two of them have the same path."""
        rows = ((e.path, e.size_bytes, e.digest, e.version, e.assumed, None) for e in entries)
        return cls.sorted_from(batches_of(SCHEMA, rows))

    @classmethod
    def sorted_from(cls, batches: Iterable[Batch]) -> Manifest:
        """A manifest of batches of `SCHEMA` in any order. Raises `Invalid` when two rows have the same path."""
        writer = ManifestWriter()
        for batch in in_order(batches, SCHEMA):
            writer.append(batch)
        return writer.done()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Entry]:
        for batch in self.rows:
            columns = [
                batch.column(name).to_pylist() for name in ("path", "size_bytes", "digest", "version", "assumed")
            ]
            yield from map(Entry, *columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and (self.digest, len(self)) == (other.digest, len(other))

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<manifest of {len(self)} objects, {self.size_bytes} bytes, digest {self.digest[:16]}>"

    def by_path(self) -> dict[str, Entry]:
        """The entries, keyed by path. For datasets that fit into memory."""
        return {entry.path: entry for entry in self}

    def to_jsonl(self) -> Iterator[bytes]:
        """The published form in pieces: a header line, then one line an entry with its version in its store."""
        header: dict[str, Any] = {
            "lintas_manifest": _FORMAT,
            "digest": self.digest,
            "objects": len(self),
            "size_bytes": self.size_bytes,
        }
        if self.assumed:
            header["assumed"] = self.assumed
        yield json.dumps(header | self.selection.as_dict()).encode() + b"\n"
        for batch in self.rows:
            yield bytes(_published_lines(batch))

    @classmethod
    def from_jsonl(cls, pieces: Iterable[bytes]) -> Manifest:
        """Read the published form, of this version of Lintas or any before.

        Raises:
            IntegrityError: It does not hold what its own header says.
        """
        try:
            lines = _blocks_of_lines(pieces)
            header = json.loads(next(lines, b""))
            stated = (header["digest"], header["objects"])
            manifest = cls.sorted_from(_parsed(block) for block in lines)
            manifest.selection = Selection.from_dict(header)
        except (ValueError, KeyError, TypeError, Invalid) as error:  # pyarrow's errors are ValueErrors
            raise IntegrityError("a published manifest cannot be read", "move the dataset again") from error
        if (manifest.digest, len(manifest)) != stated:
            raise IntegrityError("a published manifest does not match its own digest", "move the dataset again")
        return manifest


class ManifestWriter:
    """Makes a manifest of batches that come in order, in the memory of one."""

    def __init__(self, selection: Selection | None = None) -> None:
        self._rows = Rows(SCHEMA)
        self._selection = selection
        self._digest = blake3()
        self._size_bytes = self._assumed = 0
        self._last: str | None = None

    def append(self, batch: Batch) -> None:
        """Add the next rows. Raises `Invalid` when a path comes twice."""
        if not len(batch):
            return
        self._require_ascending(batch.column("path"))
        self._digest.update(_canonical_lines(batch))
        self._size_bytes += compute.sum(batch.column("size_bytes")).as_py()
        self._assumed += compute.sum(batch.column("assumed")).as_py()
        self._rows.append(batch)

    def done(self) -> Manifest:
        """The manifest of everything that was appended."""
        return Manifest(self._rows, self._digest.hexdigest(), self._size_bytes, self._assumed, self._selection)

    def _require_ascending(self, paths: Any) -> None:
        joined = pa.concat_arrays([pa.array([self._last], pa.string()), paths]) if self._last is not None else paths
        wrong = compute.index(compute.less(joined[:-1], joined[1:]), value=False).as_py()
        if wrong >= 0:
            raise Invalid(f"'{joined[wrong + 1].as_py()}' is listed twice in a manifest", "list every object once")
        self._last = paths[-1].as_py()


def _canonical_lines(batch: Batch) -> memoryview:
    """The lines that the digest is over."""
    path, digest = _json_text(batch.column("path")), _json_text(batch.column("digest"))
    return _bytes_of(_joined("[", path, ",", _decimal(batch), ",", digest, "]\n"))


def _published_lines(batch: Batch) -> memoryview:
    path, digest, version = (_json_text(batch.column(name)) for name in ("path", "digest", "version"))
    end = compute.if_else(batch.column("assumed"), ', "assumed": true}\n', "}\n")
    return _bytes_of(
        _joined(
            '{"path": ',
            path,
            ', "size_bytes": ',
            _decimal(batch),
            ', "digest": ',
            digest,
            ', "version": ',
            version,
            end,
        )
    )


def _joined(*parts: Any) -> Any:
    return compute.binary_join_element_wise(*parts, "")


def _decimal(batch: Batch) -> Any:
    return compute.cast(batch.column("size_bytes"), pa.string())


def _json_text(texts: Any) -> Any:
    """Every text as `json.dumps` writes it."""
    if compute.any(compute.match_substring_regex(texts, _ESCAPED)).as_py():
        return pa.array([json.dumps(text) for text in texts.to_pylist()], pa.string())
    return _joined('"', texts, '"')


def _bytes_of(texts: Any) -> memoryview:
    """All texts of a new array, one after the other: its own buffer."""
    length = compute.sum(compute.binary_length(texts)).as_py() or 0
    return memoryview(texts.buffers()[2])[:length] if length else memoryview(b"")


def _blocks_of_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The first line, then whole lines in blocks of some megabytes."""
    held = b""
    first = True
    for piece in pieces:
        held += piece
        if first and b"\n" in held:
            line, _, held = held.partition(b"\n")
            first = False
            yield line
        if not first and len(held) >= _BLOCK_BYTES:
            block, end, held = held.rpartition(b"\n")
            yield block + end
    if held:
        yield held


def _parsed(block: bytes) -> Batch:
    table = arrow_json.read_json(
        io.BytesIO(block),
        read_options=arrow_json.ReadOptions(block_size=len(block) + 1),
        parse_options=arrow_json.ParseOptions(explicit_schema=_PUBLISHED, unexpected_field_behavior="ignore"),
    ).combine_chunks()
    if any(table.column(name).null_count for name in ("path", "size_bytes", "digest", "version")):
        raise ValueError("a line lacks a key")
    assumed = compute.fill_null(table.column("assumed"), False)
    table = table.set_column(4, "assumed", assumed).append_column(
        SCHEMA.field(5), pa.nulls(len(table), SCHEMA.field(5).type)
    )
    return pa.concat_batches(table.to_batches()) if len(table) else pa.RecordBatch.from_pylist([], schema=SCHEMA)
