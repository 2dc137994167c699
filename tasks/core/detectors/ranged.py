"""An object of a store as a seekable file: small ones as a whole, large ones by ranges with a small cache."""

from __future__ import annotations

import io
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from tasks.core.scratch import room

if TYPE_CHECKING:
    from tasks.core.ports import Store

_WHOLE_BYTES = 32 * 1024 * 1024
_BLOCK_BYTES = 4 * 1024 * 1024
_CACHED_BLOCKS = 8


class RangedFile(io.RawIOBase):
    """Reads an object of a store in ranges, for readers that seek (Parquet). Holds at most 32 MiB in memory.

    Args:
        store: The store.
        key: The object's key.
        version: The version that every range must be of.
        size_bytes: The object's size.

    Reading raises what `Store.get` raises.
    """

    def __init__(self, store: Store, key: str, version: str | None, size_bytes: int) -> None:
        super().__init__()
        self._store, self._key, self._version = store, key, version
        self.size_bytes = size_bytes
        self._at = 0
        self._block_bytes = max(size_bytes, 1) if size_bytes <= _WHOLE_BYTES else _BLOCK_BYTES
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._held: IO[bytes] | None = None
        self._held_start = self._held_end = 0

    def hold(self, start: int, length: int) -> None:
        """Fetch a range once, in one go, to a temporary file, because it is about to be read back and forth.

        What was held before is let go. Small objects are in memory anyway. Raises `Terminal` when the disk is full.
        """
        end = min(start + length, self.size_bytes)
        if self.size_bytes <= _WHOLE_BYTES or start >= end or (self._held_start <= start and end <= self._held_end):
            return
        if self._held is not None:
            self._held.close()
            self._held, self._held_end = None, 0
        pieces = self._store.get(self._key, version=self._version, start=start, length=end - start)
        with room():
            held = tempfile.TemporaryFile()  # noqa: SIM115 - it is read until another range is held
            held.writelines(pieces)
            held.flush()
        self._held, self._held_start, self._held_end = held, start, end

    def whole(self) -> bytes | None:
        """All of a small object; None of a large one, which is read in ranges."""
        return self._block(0) if self.size_bytes <= _WHOLE_BYTES else None

    def at(self, offset: int, size: int) -> bytes:
        """Bytes from an offset on, wherever the file stands."""
        self.seek(offset)
        return self.read(size)

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self.size_bytes if size < 0 else min(self.size_bytes, self._at + size)
        if self._held is not None and self._held_start <= self._at < end <= self._held_end:
            self._held.seek(self._at - self._held_start)
            piece = self._held.read(end - self._at)
            self._at += len(piece)
            return piece
        pieces: list[bytes] = []
        while self._at < end:
            number, inside = divmod(self._at, self._block_bytes)
            piece = self._block(number)[inside : inside + end - self._at]
            pieces.append(piece)
            self._at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * self._block_bytes
        length = min(self._block_bytes, self.size_bytes - start)
        block = b"".join(self._store.get(self._key, version=self._version, start=start, length=length))
        self._blocks[number] = block
        while len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return block


class StreamedFile(io.RawIOBase):
    """Pieces of bytes as a file that is read once from the beginning."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        parts = [self._left]
        missing = size - len(self._left)
        while size < 0 or missing > 0:
            piece = next(self._pieces, None)
            if piece is None:
                break
            parts.append(piece)
            missing -= len(piece)
        whole = b"".join(parts)
        end = len(whole) if size < 0 else size
        self._left = whole[end:]
        return whole[:end]
