"""Objects that are compressed as a whole, unpacked while they are read; and the limit on what may come out of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.core.arrow import pa
from tasks.core.detectors.ranged import StreamedFile

MAX_RATIO = 250
"""How many times its own size an object may become, beyond what any object may."""

_FREE_BYTES = 256 * 1024 * 1024
_STEP_BYTES = 1024 * 1024
_SMALL_STEP_BYTES = 4096
_PACKINGS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bz2"))
_BROKEN: Any = (pa.ArrowException, OSError, ValueError, MemoryError)


class UnpackError(Exception):
    """Bytes that cannot be unpacked, or may not be; the text says why and quotes nothing."""


class Expansion:
    """How much has come out of one object, and how much may.

    Args:
        size_bytes: The object's own size.
    """

    def __init__(self, size_bytes: int) -> None:
        self._left = max(_FREE_BYTES, MAX_RATIO * size_bytes)

    def add(self, size_bytes: int) -> str:
        """Count what comes out next. Answers why it may not; nothing when it may."""
        self._left -= size_bytes
        return f"what expands to more than {MAX_RATIO} times its size" if self._left < 0 else ""

    def counted(self, stream: Any) -> Iterator[bytes]:
        """What a stream to read bytes from gives, piece by piece. Raises `UnpackError` when it is too much."""
        while piece := stream.read(_STEP_BYTES):
            if problem := self.add(len(piece)):
                raise UnpackError(problem)
            yield piece


def packing_of(head: bytes) -> str:
    """How an object is compressed by its first bytes (`gzip`, `zstd`, `bz2`), or nothing."""
    return next((name for magic, name in _PACKINGS if head.startswith(magic)), "")


def unpacked(pieces: Iterator[bytes], packing: str, size_bytes: int) -> Iterator[bytes]:
    """The content of a compressed object. Raises `UnpackError`, and what reading the pieces raises."""
    expansion = Expansion(size_bytes)
    try:
        stream = pa.CompressedInputStream(pa.PythonFile(StreamedFile(pieces), mode="r"), packing)
        yield from expansion.counted(stream)
    except _BROKEN as error:
        raise UnpackError(f"{packing} that is broken ({type(error).__name__})") from error


def unpacked_head(head: bytes, packing: str, length: int, *, whole: bool) -> bytes:
    """The first bytes of a compressed object's content.

    Args:
        head: The object's own first bytes.
        packing: How it is compressed.
        length: How many bytes are wanted at most.
        whole: Whether `head` is the whole object, so that its end is no surprise.

    Raises:
        UnpackError: The object is broken.
    """
    found = b""
    try:
        stream = pa.CompressedInputStream(pa.BufferReader(head), packing)
        while len(found) < length and (piece := stream.read(_SMALL_STEP_BYTES)):
            found += piece
    except _BROKEN as error:
        if whole or not found:
            raise UnpackError(f"{packing} that is broken ({type(error).__name__})") from error
    return found[:length]
