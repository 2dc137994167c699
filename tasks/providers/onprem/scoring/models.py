"""The models that a scoring host keeps: each under its digest, verified before it gets that name."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Collection
from pathlib import Path, PurePosixPath

from tasks.core.errors import IntegrityError, Invalid, LintasError, Terminal
from tasks.core.evaluation import model_digest

_MEMBERS_LIMIT = 20_000
_INCOMING = ".incoming-"


class Models:
    """A directory of model directories.

    Args:
        root: Where they are; created, and cleared of unfinished uploads.
        limit_bytes: How large an archive, and what it unpacks to, may be.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        root.mkdir(parents=True, exist_ok=True)
        for unfinished in root.glob(f"{_INCOMING}*"):
            shutil.rmtree(unfinished)

    def path(self, digest: str) -> Path:
        """Where the model of this digest is, or would be. Raises `Invalid` when the text is no digest."""
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise Invalid("a model's digest is 64 hexadecimal characters", "send the digest of the model's directory")
        return self._root / digest

    def holds(self, digest: str) -> bool:
        """Whether the model is here, complete."""
        return self.path(digest).is_dir()

    async def receive(self, digest: str, archive: AsyncIterator[bytes]) -> None:
        """Take in an uncompressed tar of a model's directory.

        Raises:
            IntegrityError: What was unpacked has another digest; nothing of it is kept.
            Invalid: The archive is too large, cannot be read, or would write outside of its directory.
            Terminal: The disk is full.
        """
        place = self.path(digest)
        incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self._root))
        try:
            await self._store(archive, incoming / "archive.tar")
            await asyncio.to_thread(self._unpack, incoming / "archive.tar", incoming / "model", digest)
            if not place.is_dir():  # Another upload of the same model may have come first; the two are equal.
                (incoming / "model").rename(place)
        except OSError as error:
            raise disk_error(error) from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def forget(self, digest: str) -> None:
        """Remove a model; returns silently if it is not here."""
        shutil.rmtree(self.path(digest), ignore_errors=True)

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove every other model, as when the host starts."""
        for directory in self._root.iterdir():
            if directory.name not in digests and not directory.name.startswith(_INCOMING):
                shutil.rmtree(directory, ignore_errors=True)

    async def _store(self, archive: AsyncIterator[bytes], file: Path) -> None:
        size_bytes = 0
        with file.open("wb") as output:
            async for piece in archive:
                size_bytes += len(piece)
                if size_bytes > self._limit_bytes:
                    raise self._too_large()
                output.write(piece)

    def _unpack(self, archive: Path, into: Path, digest: str) -> None:
        into.mkdir()
        try:
            with tarfile.open(archive, mode="r:") as tar:
                members = tar.getmembers()
                self._check(members)
                tar.extractall(into, members=members, filter="data")
        except (tarfile.TarError, UnicodeError, EOFError) as error:
            raise Invalid("the model's archive cannot be read as a plain tar", "send an uncompressed tar") from error
        if model_digest(into) != digest:
            raise IntegrityError("the model that arrived has another digest than was stated", "deploy it again")

    def _check(self, members: list[tarfile.TarInfo]) -> None:
        for member in members:
            path = PurePosixPath(member.name)
            if not (member.isreg() or member.isdir()):
                raise Invalid("the model's archive holds a link or a device", "send plain files and directories")
            if path.is_absolute() or ".." in path.parts:
                raise Invalid("the model's archive would write outside of its directory", "send relative paths")
        if len(members) > _MEMBERS_LIMIT or sum(member.size for member in members) > self._limit_bytes:
            raise self._too_large()

    def _too_large(self) -> Invalid:
        return Invalid(
            f"the model is larger than this host takes ({self._limit_bytes} bytes, {_MEMBERS_LIMIT} files)",
            "start the host with a higher --model-limit-mib",
        )


def disk_error(error: OSError) -> LintasError:
    """What a failed write under the host's root means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Terminal("the disk of the scoring host is full", "free some space there")
    return Terminal(f"the scoring host cannot write to its disk ({error.strerror})", "check its --root directory")
