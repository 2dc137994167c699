"""Content on disk: received in pieces with its checksums, joined, sent in pieces. No body is in memory as a whole."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
from starlette.requests import ClientDisconnect

from deployments.local.cloud_storage.faults import Refused, invalid

PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """Content that was received and is not yet anybody's.

    Args:
        path: The file.
        size_bytes: Its size.
        crc32c: CRC32C, big-endian, in base64, as `x-goog-hash` has it.
        md5: MD5 in base64; None for content joined from parts, which has none in Cloud Storage.
    """

    path: Path
    size_bytes: int
    crc32c: str
    md5: str | None


@dataclass(frozen=True, slots=True)
class Claims:
    """The checksums that a client says its content has, in base64."""

    crc32c: str | None = None
    md5: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], resource: Mapping[str, object] | None = None) -> Claims:
        """From `x-goog-hash` and `Content-MD5`, and from the `crc32c` and `md5Hash` of an object's resource."""
        hashes: dict[str, str] = {}
        for part in headers.get("x-goog-hash", "").split(","):
            name, found, value = part.strip().partition("=")
            if found:
                hashes[name] = value
        resource = resource or {}
        crc32c = resource.get("crc32c") or hashes.get("crc32c")
        md5 = resource.get("md5Hash") or hashes.get("md5") or headers.get("content-md5")
        return cls(str(crc32c) if crc32c else None, str(md5) if md5 else None)

    def merged(self, later: Claims) -> Claims:
        """These, completed by what a later request of the same upload claims."""
        return Claims(later.crc32c or self.crc32c, later.md5 or self.md5)

    def require(self, body: Body) -> None:
        """Raises `Refused` (400) when the content does not have a claimed checksum."""
        if self.crc32c is not None and self.crc32c != body.crc32c:
            message = f'Provided CRC32C "{self.crc32c}" doesn\'t match calculated CRC32C "{body.crc32c}".'
            raise Refused(400, "badDigest", message)
        if self.md5 is not None and body.md5 is not None and self.md5 != body.md5:
            message = f'Provided MD5 hash "{self.md5}" doesn\'t match calculated MD5 hash "{body.md5}".'
            raise Refused(400, "badDigest", message)


class _Checksums:
    def __init__(self) -> None:
        self._crc32c = google_crc32c.Checksum()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, piece: bytes) -> None:
        self._crc32c.update(piece)
        self._md5.update(piece)

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc32c.digest()).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(self._md5.digest()).decode()


def _no_space() -> Refused:
    return Refused(503, "insufficientStorage", "The double's disk takes no more.")


class Bodies:
    """The directory of contents."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def new(self) -> Path:
        """A path for another content."""
        return self.directory / uuid.uuid4().hex

    async def receive(self, pieces: AsyncIterable[bytes], expected_bytes: int | None = None) -> Body:
        """Write a request's content to disk.

        Raises:
            Refused: The content has another size than announced, or the disk is full. No file is left.
        """
        path = self.new()
        sums = _Checksums()
        size_bytes = 0
        try:
            with path.open("wb") as file:
                async for piece in pieces:
                    file.write(piece)
                    sums.update(piece)
                    size_bytes += len(piece)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _no_space() from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if expected_bytes is not None and size_bytes != expected_bytes:
            path.unlink()
            raise Refused(400, "incompleteBody", f"Received {size_bytes} bytes of {expected_bytes} announced.")
        return Body(path, size_bytes, sums.crc32c, sums.md5)

    async def append(self, path: Path, pieces: AsyncIterable[bytes], skip_bytes: int) -> int:
        """Append a request's content to a file, without its first `skip_bytes` bytes.

        A connection that is cut ends it early; what came before stays.

        Returns:
            How many bytes came, the skipped ones included.
        """
        received = 0
        with path.open("ab") as file:
            try:
                async for piece in pieces:
                    surplus = min(max(skip_bytes - received, 0), len(piece))
                    file.write(piece[surplus:])
                    received += len(piece)
            except ClientDisconnect:
                return received
            except OSError as error:
                raise _no_space() from error
        return received

    def describe(self, path: Path) -> Body:
        """The checksums of a file that is complete."""
        sums = _Checksums()
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                sums.update(piece)
        return Body(path, path.stat().st_size, sums.crc32c, sums.md5)

    def join(self, parts: Iterable[Path]) -> Body:
        """The contents one after another, as another content, which has no MD5."""
        path = self.new()
        with path.open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    while piece := file.read(PIECE_BYTES):
                        joined.write(piece)
        whole = self.describe(path)
        return Body(path, whole.size_bytes, whole.crc32c, None)

    def copy(self, body: Body) -> Body:
        """The same content once more, on the same blocks of the disk."""
        duplicate = self.new()
        os.link(body.path, duplicate)
        return dataclasses.replace(body, path=duplicate)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a content: from byte `start`, `length` bytes."""

    start: int
    length: int

    @classmethod
    def of(cls, header: str | None, size_bytes: int) -> Span | None:
        """The `Range` header of a request (RFC 9110, 14.2); None when the whole is asked for.

        Raises:
            Refused: The range begins behind the end (416).
        """
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip()) if header else None
        if match is None or match[0] == "bytes=-":
            return None
        first, last = match[1], match[2]
        start = int(first) if first else max(size_bytes - int(last), 0)
        end = min(int(last), size_bytes - 1) if first and last else size_bytes - 1
        if start >= size_bytes:
            message = f"The requested range cannot be satisfied: {header} of {size_bytes} bytes."
            raise Refused(416, "requestedRangeNotSatisfiable", message)
        if end < start:
            return None
        return cls(start, end - start + 1)


async def send(file: BinaryIO, span: Span) -> AsyncIterator[bytes]:
    """The bytes of an open file that `span` names; closes the file."""
    with file:
        file.seek(span.start)
        left = span.length
        while left:
            piece = file.read(min(PIECE_BYTES, left))
            if not piece:
                raise OSError("the content is shorter than its record says")
            left -= len(piece)
            yield piece


class RelatedParts:
    """A `multipart/related` body: a JSON resource, then the media, which is streamed (RFC 2387).

    Args:
        content_type: The request's header with the boundary.
        pieces: The request's body.
    """

    _LARGEST_HEAD_BYTES = 1024 * 1024

    def __init__(self, content_type: str, pieces: AsyncIterator[bytes]) -> None:
        boundary = re.search(r'boundary=(?:"([^"]+)"|\'([^\']+)\'|([^;\s]+))', content_type)
        if boundary is None:
            raise invalid("A multipart upload needs a Content-Type with a boundary.")
        self._delimiter = b"--" + next(group for group in boundary.groups() if group).encode()
        self._pieces = pieces
        self._buffer = b""

    async def head(self) -> tuple[bytes, str | None]:
        """The first part's content, and the media's content type."""
        await self._until(self._delimiter)
        await self._until(b"\r\n\r\n")
        resource = await self._until(b"\r\n" + self._delimiter)
        headers = (await self._until(b"\r\n\r\n")).decode("latin-1")
        media_type = re.search(r"(?im)^content-type:\s*([^\r\n]+)", headers)
        return resource, media_type[1].strip() if media_type else None

    async def media(self) -> AsyncIterator[bytes]:
        """The second part's content in pieces."""
        end = b"\r\n" + self._delimiter + b"--"
        while True:
            found = self._buffer.find(end)
            if found >= 0:
                yield self._buffer[:found]
                async for _ in self._pieces:
                    continue
                return
            ready = len(self._buffer) - len(end) + 1
            if ready > 0:
                yield self._buffer[:ready]
                self._buffer = self._buffer[ready:]
            await self._more()

    async def _until(self, mark: bytes) -> bytes:
        while (found := self._buffer.find(mark)) < 0:
            if len(self._buffer) > self._LARGEST_HEAD_BYTES:
                raise invalid("The multipart upload's first part is too large.")
            await self._more()
        before = self._buffer[:found]
        self._buffer = self._buffer[found + len(mark) :]
        return before

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._pieces)
        except StopAsyncIteration:
            raise Refused(400, "incompleteBody", "The multipart upload's last boundary is missing.") from None
