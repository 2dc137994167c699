"""Bringing objects of a dataset to this machine, each verified before it is visible."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.dataset import CHUNK_BYTES, ContentHasher, DatasetURI, Entry, content_digest
from tasks.core.errors import IntegrityError, Invalid, NotFound
from tasks.core.manifest import Manifest
from tasks.core.retries import in_parallel, with_retries

if TYPE_CHECKING:
    from tasks.core.ports import Store

_ATTEMPTS = 4


def fetch(
    store: Store, uri: DatasetURI, manifest: Manifest, into: Path, *, under: str = "", in_flight: int = 8
) -> Path:
    """Bring objects of a dataset to a local directory, each verified against the manifest before it is visible.

    Args:
        store: The store that holds the dataset.
        uri: The dataset.
        manifest: What it must hold; objects that are in `into` already with this content are not read again.
        into: Local directory; created when absent. Paths below it are the dataset's own.
        under: Only objects whose path starts with this.
        in_flight: How many objects travel at the same time.

    Raises:
        IntegrityError: An object is not what the manifest says.
        NotFound: No object lies under `under`.
        Invalid: A path would lead out of `into`.
    """
    wanted = [entry for entry in manifest if entry.path.startswith(under)]
    if not wanted:
        raise NotFound(f"{uri} holds nothing under '{under}'", "check the dataset and the path in the training spec")
    root = into.resolve()

    def bring(entry: Entry) -> None:
        target = (root / entry.path).resolve()
        if not target.is_relative_to(root):
            raise Invalid(f"'{entry.path}' of {uri} leads out of its directory", "rename the object")
        if target.is_file() and target.stat().st_size == entry.size_bytes and _file_digest(target) == entry.digest:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        hasher = ContentHasher()
        with partial.open("wb") as file:
            for piece in store.get(uri.key(entry.path), version=entry.version or None):
                hasher.update(piece)
                file.write(piece)
        if hasher.hexdigest() != entry.digest:
            partial.unlink()
            raise IntegrityError(f"'{entry.path}' of {uri} is not what its manifest says", "run the move again")
        partial.replace(target)

    stop = threading.Event()
    in_parallel(lambda entry: with_retries(lambda: bring(entry), _ATTEMPTS, stop), wanted, in_flight, stop)
    return into


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return content_digest(iter(lambda: file.read(CHUNK_BYTES), b""))[0]
