"""A local directory as a manifest, so that code and models have a digest by the same rule as datasets."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.dataset import CHUNK_BYTES, Entry, content_digest
from tasks.core.errors import Invalid

if TYPE_CHECKING:
    from tasks.core.manifest import Manifest


def directory_manifest(directory: Path, *, hidden: bool = True, skip: Collection[str] = ()) -> Manifest:
    """List the files below a directory with the digests of their content.

    The result depends on relative paths and contents alone: not on times, modes, owners or the order of listing.

    Args:
        directory: A local directory.
        hidden: Whether files and directories whose name begins with a dot belong to it.
        skip: Names of files and directories that do not belong to it, wherever they are.

    Raises:
        Invalid: There is no such directory, or a link in it leads outside.
    """
    if not directory.is_dir():
        raise Invalid(f"there is no directory '{directory}'", "correct the path")
    # Manifests bring Arrow, 80 MB that whoever only reads specs, prices and releases has no use for.
    from tasks.core.manifest import Manifest

    root = directory.resolve()
    return Manifest.of(_entry(root, path) for path in _files(root, hidden, skip))


def _files(root: Path, hidden: bool, skip: Collection[str]) -> Iterator[Path]:
    def belongs(name: str) -> bool:
        return name not in skip and (hidden or not name.startswith("."))

    for place, directories, names in os.walk(root):
        for name in directories:
            if belongs(name) and Path(place, name).is_symlink():
                raise Invalid(f"'{Path(place, name)}' is a link to a directory", "replace it by the directory itself")
        directories[:] = [name for name in directories if belongs(name)]
        yield from (Path(place, name) for name in names if belongs(name))


def _entry(root: Path, path: Path) -> Entry:
    if not path.resolve().is_relative_to(root):
        raise Invalid(f"'{path}' is a link that leads outside of its directory", "replace it by the file itself")
    with path.open("rb") as file:
        digest, size_bytes = content_digest(iter(lambda: file.read(CHUNK_BYTES), b""))
    return Entry(path.relative_to(root).as_posix(), size_bytes, digest)
