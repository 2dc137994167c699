"""`python -m tasks.core.detectors.orc_stripes FILE BYTES`: an ORC file as an Arrow stream, within so much memory."""

from __future__ import annotations

import resource
import sys
from importlib import import_module
from typing import Any

from tasks.core.arrow import ipc

_ROWS = 8192
_PIECE_BYTES = 64 * 1024 * 1024


def main(path: str, memory_bytes: int) -> None:
    """Write the file's rows to standard output. Ends with an error when they need more memory."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    file: Any = import_module("pyarrow.orc").ORCFile(path)
    schema = file.schema.with_metadata(dict(file.metadata or {}))
    with ipc.new_stream(sys.stdout.buffer, schema) as writer:
        for stripe in range(file.nstripes):
            batch = file.read_stripe(stripe)
            rows = max(1, min(_ROWS, _ROWS * _PIECE_BYTES // max(1, batch.nbytes)))
            for at in range(0, batch.num_rows, rows):
                writer.write_batch(batch.slice(at, rows).replace_schema_metadata(schema.metadata))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
