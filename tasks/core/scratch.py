"""What is being made and is held meanwhile: in memory, and beyond some size in the directory for temporary files."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any

from tasks.core.errors import Terminal

_IN_MEMORY_BYTES = 32 * 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def spooled(in_memory_bytes: int = _IN_MEMORY_BYTES) -> Generator[IO[bytes]]:
    """A file that is gone at the end of the block.

    Args:
        in_memory_bytes: Beyond this size it is on the disk.

    Raises:
        Terminal: The disk is full. Said where it is met, so that nobody takes it for trouble with what is read.
    """
    with room(), _Spool(max_size=in_memory_bytes) as spool:
        yield spool


class _Spool(tempfile.SpooledTemporaryFile[bytes]):
    def write(self, s: Any) -> int:
        with room():
            return super().write(s)


@contextmanager
def room() -> Generator[None]:
    """Around what writes temporary files. Raises `Terminal` when their disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Terminal(
            f"the disk of {tempfile.gettempdir()} is full",
            "free or add space, or set TMPDIR to a directory with more, then run it again",
        ) from error
