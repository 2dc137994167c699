"""Cloud Storage as custom jobs see it: the directory /gcs, in which every bucket is a directory.

The service mounts it with Cloud Storage FUSE. Here the folders that a job names are brought down before it begins, and
files that it wrote go up while it runs and when it has ended. What it deletes stays in the bucket.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

from deployments.local.object_access import CloudStorageAccess, download_tree

MOUNT = "/gcs"
_LOOK_S = 0.25


class Mount:
    """The /gcs of one job.

    Args:
        access: The object store.
        directory: Where it is here.
    """

    def __init__(self, access: CloudStorageAccess, directory: Path) -> None:
        self._access, self._directory = access, directory
        self._known: dict[Path, tuple[int, int]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    async def fill(self, texts: Iterable[str]) -> None:
        """Bring down what these arguments and variables name, with all that is beside a named object."""
        folders = {folder for text in texts for folder in re.findall(rf"{MOUNT}/([^\s:'\",=]+)", text)}
        await asyncio.to_thread(self._fill, folders)

    async def follow(self) -> None:
        """Send up what is written, until cancelled; a file goes when it has not changed for a moment."""
        before: dict[Path, tuple[int, int]] = {}
        while True:
            await asyncio.sleep(_LOOK_S)
            present = self._present()
            await asyncio.to_thread(self._send, {path for path in present if before.get(path) == present[path]})
            before = present

    async def empty(self) -> None:
        """Send up everything that is not there yet."""
        await asyncio.to_thread(self._send, set(self._present()))

    def _fill(self, folders: set[str]) -> None:
        for folder in sorted(folders):
            bucket, _, path = folder.strip("/").partition("/")
            (self._directory / bucket).mkdir(parents=True, exist_ok=True)
            keys = list(self._access.keys(bucket, path))
            if path and path in keys:
                path = path.rpartition("/")[0]
            # What is not there yet may become a file as well as a folder.
            if not path or any(key.startswith(f"{path}/") for key in keys):
                download_tree(self._access, bucket, path, self._directory / bucket / path)
        self._known = self._present()

    def _send(self, paths: set[Path]) -> None:
        for path in sorted(paths):
            try:
                state = _state(path)
                if self._known.get(path) == state:
                    continue
                bucket, *rest = path.relative_to(self._directory).parts
                if rest:
                    self._access.upload(path, bucket, "/".join(rest))
                    self._known[path] = state
            except FileNotFoundError:
                continue  # It was renamed or deleted since the directory was read.

    def _present(self) -> dict[Path, tuple[int, int]]:
        found: dict[Path, tuple[int, int]] = {}
        for path in self._directory.rglob("*"):
            try:
                if path.is_file() and not path.is_symlink():
                    found[path] = _state(path)
            except FileNotFoundError:
                continue
        return found


def _state(path: Path) -> tuple[int, int]:
    described = path.stat()
    return described.st_mtime_ns, described.st_size
