"""The list of a dataset's objects and one digest of the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from blake3 import blake3

from tasks.core.dataset import Entry
from tasks.core.errors import IntegrityError, Invalid


@dataclass(frozen=True)
class Manifest:
    """The immutable list of a dataset's objects. Entries are sorted by path (by code point) and paths are unique."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """Sort the entries. Raises `Invalid` when two of them have the same path."""
        ordered = tuple(sorted(entries, key=lambda entry: entry.path))
        for before, after in pairwise(ordered):
            if before.path == after.path:
                raise Invalid(f"'{after.path}' is listed twice in a manifest", "list every object once")
        return cls(ordered)

    @cached_property
    def digest(self) -> str:
        """The dataset's identity: BLAKE3 over one canonical JSON line (path, size, digest) an entry."""
        whole = blake3()
        for entry in self.entries:
            whole.update(_canonical_line(entry))
        return whole.hexdigest()

    @property
    def size_bytes(self) -> int:
        """Sum of the objects' sizes."""
        return sum(entry.size_bytes for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def by_path(self) -> dict[str, Entry]:
        """The entries, keyed by path."""
        return {entry.path: entry for entry in self.entries}

    def to_jsonl(self) -> bytes:
        """The published form: a header line, then one line an entry with the version it has in its store."""
        header = {"lintas_manifest": 1, "digest": self.digest, "objects": len(self), "size_bytes": self.size_bytes}
        lines = [json.dumps(header)]
        lines += [
            json.dumps({"path": e.path, "size_bytes": e.size_bytes, "digest": e.digest, "version": e.version})
            for e in self.entries
        ]
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def from_jsonl(cls, text: bytes) -> Manifest:
        """Read the published form. Raises `IntegrityError` when it does not hold what its own header says."""
        try:
            header, *rows = (json.loads(line) for line in text.splitlines())
            manifest = cls.of(Entry(r["path"], r["size_bytes"], r["digest"], r["version"]) for r in rows)
            stated = header["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError("a published manifest cannot be read", "move the dataset again") from error
        if manifest.digest != stated:
            raise IntegrityError("a published manifest does not match its own digest", "move the dataset again")
        return manifest


def _canonical_line(entry: Entry) -> bytes:
    return json.dumps([entry.path, entry.size_bytes, entry.digest], separators=(",", ":")).encode() + b"\n"
