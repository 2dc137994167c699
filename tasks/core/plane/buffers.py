"""The memory of a move: a fixed budget of reusable buffers, whatever the sizes of the objects."""

from __future__ import annotations

import mmap
from collections import deque

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.plane.loop import Loop, Task, parked

SMALL_BYTES = 256 * 1024
"""What is no larger has a piece of a chunk, and is worth a thread that needs no interpreter (`Wire.small`)."""

PIECES_BYTES = (32 * 1024, SMALL_BYTES)
"""What chunks are cut into for small objects: each has the smallest that it fits in, so that hundreds are in memory."""

_FOR_EACH_THAT_WAITS = 2
"""Buffers for each that waits for a distant store; one would fill the way there once it is at its full speed."""
_FORGET = 1 / 16


class Buffers:
    """Buffers of one chunk, some of them cut into pieces for small objects; made when first needed and then reused.

    Args:
        loop: What waits for them.
        budget_bytes: Sum of all buffers while no store is distant; at least one chunk is always there.
        far_bytes: The most that `follow` lets the sum become.
    """

    def __init__(self, loop: Loop, budget_bytes: int, far_bytes: int = 0) -> None:
        self._loop = loop
        self._near = self.most = max(1, budget_bytes // CHUNK_BYTES)
        self._far = max(self._near, far_bytes // CHUNK_BYTES)
        self._distant = 0.0
        self._made = 0
        self._whole: list[memoryview] = []
        self._pieces: dict[int, list[memoryview]] = {size_bytes: [] for size_bytes in PIECES_BYTES}
        # How many pieces of a cut buffer are free; when all are, it is whole again.
        self._free_of: dict[int, int] = {}
        self._home: dict[int, memoryview] = {}
        self._waiting: deque[Task] = deque()

    @property
    def ahead(self) -> int:
        """How many reads may wait for their first byte without a buffer, so that one is there when a buffer is free.

        What arrives for them stays in the kernel meanwhile: as many as there are buffers near by, and what distance
        and throughput ask for; see `follow`.
        """
        return self._near + int(self._distant)

    async def lease(self, size_bytes: int) -> memoryview:
        """A buffer of at least this size (at most a chunk), after waiting for one."""
        while True:
            piece_bytes = next((fits for fits in PIECES_BYTES if size_bytes <= fits), 0)
            found = self._piece(piece_bytes) if piece_bytes else self._take()
            if found is not None:
                return found
            await parked(self._waiting.append)

    def release(self, buffer: memoryview) -> None:
        """Give a leased buffer back."""
        if len(buffer) == CHUNK_BYTES:
            self._put(buffer)
        else:
            self._put_piece(buffer)
        self._wake()

    def follow(self, held_s: float, distance_s: float) -> None:
        """Let there be as many as distance and throughput ask for, when one is given back.

        Of those that are out the share `distance_s / held_s` waits for distant stores (Little's law): that is
        throughput times distance, in buffers. Where the network or a store is what is short, buffers are held for
        longer, the share falls, and there are no more of them than before.

        Args:
            held_s: How long it was held: from the first byte that was read to the end of the last write.
            distance_s: For how much of that no byte of it could have moved, however many were under way.
        """
        distant = (self._made - len(self._whole)) * min(1.0, distance_s / held_s) if held_s > 0 else 0.0
        self._distant = max(distant, self._distant + (distant - self._distant) * _FORGET)
        most = min(self._far, self._near + int(_FOR_EACH_THAT_WAITS * self._distant))
        grown, self.most = most > self.most, most
        if grown:
            self._wake()

    def _wake(self) -> None:
        # All of them: what was given back may suit the last one only.
        while self._waiting:
            self._loop.resume(self._waiting.popleft())

    def _take(self) -> memoryview | None:
        if self._whole:
            return self._whole.pop()
        if self._made < self.most:
            self._made += 1
            # Its pages come into being when they are written to: small objects touch few of them.
            # Memory that no other process shares costs the kernel three fifths of what a page costs otherwise.
            return memoryview(mmap.mmap(-1, CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return None

    def _put(self, whole: memoryview) -> None:
        if self._made > self.most:
            # Its memory goes with the last view of it.
            self._made -= 1
        else:
            self._whole.append(whole)

    def _piece(self, piece_bytes: int) -> memoryview | None:
        pieces = self._pieces[piece_bytes]
        if not pieces:
            whole = self._take()
            if whole is None:
                return None
            self._home[id(whole.obj)] = whole
            self._free_of[id(whole.obj)] = CHUNK_BYTES // piece_bytes
            pieces += [whole[at : at + piece_bytes] for at in range(0, CHUNK_BYTES, piece_bytes)]
        piece = pieces.pop()
        self._free_of[id(piece.obj)] -= 1
        return piece

    def _put_piece(self, piece: memoryview) -> None:
        home, pieces, of_one = id(piece.obj), self._pieces[len(piece)], CHUNK_BYTES // len(piece)
        pieces.append(piece)
        self._free_of[home] += 1
        if self._free_of[home] == of_one and (len(pieces) > of_one or self._waiting):
            self._pieces[len(piece)] = [other for other in pieces if id(other.obj) != home]
            del self._free_of[home]
            self._put(self._home.pop(home))
