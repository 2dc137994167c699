"""ORC files, decoded in a process of their own that may use so much memory and no more.

Arrow's ORC reader decodes a stripe at once, whatever the stripe becomes; so it does that beside the scan, and what it
cannot do within its memory, or dies of, is unreadable.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import polars as pl

from tasks.core.arrow import ipc, pa
from tasks.core.detectors.leaves import leaves
from tasks.core.detectors.tables import METADATA, Batch, Leaf, Source, Unread
from tasks.core.detectors.unpacking import Expansion, UnpackError
from tasks.core.scratch import room

_MEMORY_BYTES = 4 * 1024**3
_CHILD = "tasks.core.detectors.orc_stripes"
_ARROW_ERRORS: Any = (pa.ArrowException, OSError, ValueError)


def orc(source: Source) -> Iterator[Batch | Unread]:
    """The rows of an ORC file, and its notes as text."""
    with tempfile.NamedTemporaryFile(suffix=".orc") as file:
        with room():
            shutil.copyfileobj(source.streamed(), file)
            file.flush()
        command = [sys.executable, "-m", _CHILD, file.name, str(_MEMORY_BYTES)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as decoder:
            try:
                if decoder.stdout is not None:
                    yield from _batches(decoder.stdout, Expansion(source.entry.size_bytes))
                if decoder.wait():
                    yield Unread("ORC that cannot be decoded, or not within bounds")
            except _ARROW_ERRORS:
                yield Unread("ORC that cannot be decoded, or not within bounds")
            finally:
                decoder.kill()


def _batches(stream: IO[bytes], expansion: Expansion) -> Iterator[Batch | Unread]:
    row = 0
    reader = ipc.open_stream(stream)
    metadata: dict[bytes, bytes] = reader.schema.metadata or {}
    notes = [f"{key.decode(errors='replace')}: {value.decode(errors='replace')}" for key, value in metadata.items()]
    if notes:
        yield Batch(0, 0, (Leaf(METADATA, pl.Series(METADATA, notes)),))
    for batch in reader:
        problem = expansion.add(batch.nbytes)
        if problem:
            raise UnpackError(problem)
        found = list(leaves(batch))
        yield from (each for each in found if isinstance(each, Unread))
        yield Batch(batch.num_rows, row, tuple(each for each in found if isinstance(each, Leaf)))
        row += batch.num_rows
