"""What one scan counted, for another scan of a copy: recalled for values that are proven to be the same, nothing else.

A scan keeps what it had counted of a column after each batch under a digest of all values until then. A later scan
reads its own object, digests the values that it decoded, and takes over the counts of the same digest; so what was
counted is exactly what would be counted again. Values of any other digest or kind are counted anew.

Of Parquet the digest is that of the column's chunks as they are stored, with all that says how they are decoded:
whoever finds the same bytes need not decode them to know what is in them (`Ledger`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from tasks.core.arrow import compute as pc
from tasks.core.arrow import pa
from tasks.core.detectors.columns import ColumnState
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.leaves import is_in
from tasks.core.detectors.tables import METADATA, Leaf

_MOST_BYTES = 64 * 1024 * 1024
"""About 4,000 columns of a batch; what is scanned beyond them is scanned again in full."""

_Key = tuple[str, Detection, bytes]


@dataclass(frozen=True)
class Counted:
    """What was counted of a column of Parquet, with all that is nested in it, up to some row groups.

    Args:
        states: By leaf.
        rows: How many rows these row groups have.
    """

    states: dict[str, ColumnState]
    rows: int


class Recall:
    """Counts of columns by their content: hashes and counts, never values, and never outside of the process.

    Args:
        most_bytes: How much is kept, about; what comes later is not.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._room = most_bytes
        self._secret = os.urandom(32)  # So that a digest tells nothing of the values to anyone who may see it.
        self._kept: dict[_Key, ColumnState] = {}
        self._chunks: dict[_Key, Counted] = {}
        self._lock = threading.Lock()
        self.recalled = 0

    def digest(self, before: bytes, leaf: Leaf) -> bytes:
        """The digest of a column's values up to and with a batch; empty when they are of a kind that has none.

        Args:
            before: That of the batches before; of none, the digest of nothing (`FIRST`).
            leaf: The batch's values.
        """
        array = leaf.array
        if not before or array is None or len(array) != len(leaf):
            return b""
        parts = _parts(array)
        if not parts:
            return b""
        rows = leaf.rows
        hasher = blake3(before, key=self._secret)
        hasher.update(f"{array.type}\0{len(array)}\0{array.null_count}\0{rows is not None}\0".encode())
        for part in parts if rows is None else [*parts, rows.tobytes()]:
            hasher.update(part)
        return hasher.digest()

    def of(self, name: str, detection: Detection, digest: bytes) -> ColumnState | None:
        """What was counted of a column of this name with these values, to go on with; None when nothing was."""
        kept = self._kept.get((name, detection, digest)) if digest else None
        if kept is not None:
            with self._lock:
                self.recalled += 1
        return None if kept is None else kept.copy()

    def keep(self, state: ColumnState, digest: bytes) -> None:
        """Keep what was counted of the values with this digest, while there is room."""
        key = state.name, state.detection, digest
        if not digest or self._room <= 0 or key in self._kept:
            return
        kept = state.copy()
        with self._lock:
            self._room -= kept.size_bytes
            self._kept[key] = kept

    def digest_stored(self, before: bytes, about: str, pieces: Iterable[bytes]) -> bytes:
        """The digest of a column's chunks up to and with those of some row groups.

        Args:
            before: That of the row groups before; of none, `FIRST`.
            about: Everything that says how the bytes are decoded.
            pieces: The bytes as they are stored.
        """
        hasher = blake3(before, key=self._secret)
        hasher.update(len(about).to_bytes(8, "little") + about.encode())
        for piece in pieces:
            hasher.update(piece)
        return hasher.digest()

    def of_stored(self, name: str, detection: Detection, digest: bytes) -> Counted | None:
        """What was counted of a column of this name with these chunks; None when nothing was."""
        kept = self._chunks.get((name, detection, digest))
        if kept is not None:
            with self._lock:
                self.recalled += 1
        return kept

    def keep_stored(self, name: str, detection: Detection, digest: bytes, counted: Counted) -> None:
        """Keep what was counted of the column with these chunks, while there is room."""
        key = name, detection, digest
        if self._room <= 0 or key in self._chunks:
            return
        kept = Counted({leaf: state.copy() for leaf, state in counted.states.items()}, counted.rows)
        with self._lock:
            self._room -= sum(state.size_bytes for state in kept.states.values())
            self._chunks[key] = kept


class Ledger:
    """What the columns of one Parquet file are counted as, row group by row group.

    Args:
        recall: What other scans counted.
        detection: What is looked for.
        states: The file's leaves as they are counted, which are replaced by what is recalled.
        keeps: Whether what is counted is kept for later scans.
    """

    def __init__(
        self, recall: Recall, detection: Detection, states: dict[str, ColumnState], *, keeps: bool = True
    ) -> None:
        self._recall, self._detection, self._states, self._keeps = recall, detection, states, keeps
        self._digests: dict[str, bytes] = {}
        self._taken: dict[str, Counted] = {}
        self._spoilt = False

    def takes_over(self, name: str, about: str, pieces: Iterable[bytes]) -> bool:
        """Whether what was counted of the same chunks is recalled, so that nobody need decode them.

        Args:
            name: The column.
            about, pieces: As for `Recall.digest_stored`.
        """
        if self._spoilt or name == METADATA:
            return False
        digest = self._recall.digest_stored(self._digests.get(name, FIRST), about, pieces)
        self._digests[name] = digest
        found = self._recall.of_stored(name, self._detection, digest)
        if found is not None:
            self._taken[name] = found
        return found is not None

    @property
    def rows(self) -> int | None:
        """How many rows the row groups at hand have, by what is recalled of them; None when nothing is."""
        return next((counted.rows for counted in self._taken.values()), None)

    def close(self, rows: int) -> None:
        """Take over what is recalled, and keep what was counted, now that so many rows of row groups have been read."""
        for counted in self._taken.values():
            self._states.update({leaf: state.copy() for leaf, state in counted.states.items()})
        if self._keeps and not self._spoilt:
            for name, digest in self._digests.items():
                if name not in self._taken:
                    states = {leaf: state for leaf, state in self._states.items() if is_in(leaf, name)}
                    if states:
                        self._recall.keep_stored(name, self._detection, digest, Counted(states, rows))
        self._taken = {}

    def spoil(self) -> None:
        """Keep and recall nothing from here on: something could not be read or counted."""
        self._spoilt = True


FIRST = bytes(32)
"""Stands for the batches before the first one."""


def _parts(array: Any) -> list[bytes | memoryview]:
    """What, with type, length and number of nulls, tells an array from any other; nothing for kinds left alone.

    Slices begin anywhere in their buffers, so that offsets are counted from the first value; what readers leave where
    a number is missing is any number.
    """
    kind, start, end = array.type, array.offset, array.offset + len(array)
    missing = [np.packbits(pc.is_null(array).to_numpy(zero_copy_only=False)).tobytes()] if array.null_count else []
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        _, offsets, data = array.buffers()
        if offsets is None or not len(array):
            return []
        ends = np.frombuffer(offsets, np.int64 if pa.types.is_large_string(kind) else np.int32)[start : end + 1]
        text = [_bytes(data)[ends[0] : ends[-1]]] if data is not None else []
        return [*missing, (ends - ends[0]).tobytes(), *text]
    if pa.types.is_primitive(kind) and kind.bit_width % 8 == 0 and len(array):
        width = kind.bit_width // 8
        if array.null_count:
            filled = array.view(f"int{kind.bit_width}").fill_null(0)
            return [
                *missing,
                _bytes(filled.buffers()[1])[filled.offset * width : (filled.offset + len(filled)) * width],
            ]
        return [_bytes(array.buffers()[1])[start * width : end * width]]
    return []


def _bytes(buffer: Any) -> memoryview:
    return memoryview(buffer).cast("B")
