"""The staging area: treated copies wait there to leave, and go when the move that needed them has ended.

A copy that is used is locked by its users (flock(2) on a file of its own, which the system lets go when a process
dies), so that nobody removes what another move reads. A move that failed leaves its copy for the next one, which goes
on with it; what nobody came back for is removed a day later, by whatever move ends then.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tasks.core.dataset import DatasetURI
from tasks.core.errors import PolicyViolation
from tasks.registry import STAGING, installation
from tasks.steps import say

if TYPE_CHECKING:
    from tasks.core.detectors.recall import Recall
    from tasks.core.findings import ScanReport
    from tasks.core.manifest import Manifest
    from tasks.core.policy import Policy
    from tasks.core.ports import Store

_FORGOTTEN_S = 24 * 3600.0
"""How long a copy that nobody uses waits for the move that failed."""

_LOCKS = "staging-locks"


@dataclass
class Staged:
    """The copies that a move uses, each with the file that is locked for it, and what its scans counted."""

    in_use: dict[DatasetURI, IO[str]] = field(default_factory=dict["DatasetURI", "IO[str]"])
    recall: Recall | None = None
    kept: bool = False

    def keep(self) -> None:
        """Leave the copies for the next move of the same dataset, which will go on with them."""
        self.kept = True


_staged: ContextVar[Staged | None] = ContextVar("staged", default=None)


@contextlib.contextmanager
def staged_copies() -> Iterator[Staged]:
    """While it is entered, copies that are staged stay; when it ends well, or by a refusal, they are removed."""
    staged = Staged()
    before = _staged.set(staged)
    try:
        yield staged
    except BaseException as error:
        staged.kept = staged.kept or not isinstance(error, PolicyViolation)
        raise
    finally:
        _staged.reset(before)
        for uri, lock in staged.in_use.items():
            with lock:
                if not staged.kept:
                    _remove_unused(uri, lock)
        _remove_forgotten()


def recall_of_move() -> Recall | None:
    """What the scans of this move counted, for those of its copies; None outside of a move: all is counted then."""
    staged = _staged.get()
    if staged is None:
        return None
    if staged.recall is None:
        from tasks.core.detectors.recall import Recall

        staged.recall = Recall()
    return staged.recall


def scan_copy(store: Store, copy: DatasetURI, manifest: Manifest, policy: Policy) -> ScanReport:
    """Search a copy that may leave as the source was searched; what the move counted of the same values is recalled."""
    from tasks.core.detectors.scan import scan

    return scan(
        store,
        copy,
        manifest,
        detection=policy.detection,
        thoroughness=policy.thoroughness,
        recall=recall_of_move(),
        keeps=False,
    )


def stage(bucket: str, prefix: str) -> tuple[DatasetURI, Store]:
    """A place for a copy, and its store; the copy is in use until the move ends.

    Args:
        bucket: What kind of copy it is, or for which cloud.
        prefix: Two names with a slash between them, which tell what it is made of and how.
    """
    uri = DatasetURI(STAGING, bucket, prefix)
    use(uri)
    store = installation().store_of(uri)
    store.create_bucket()
    return uri, store


def use(uri: DatasetURI) -> None:
    """Keep a copy that is perhaps there from being removed until the move ends."""
    staged = _staged.get()
    if staged is not None and uri not in staged.in_use:
        staged.in_use[uri] = _locked(_lock_of(uri), fcntl.LOCK_SH)


def _lock_of(uri: DatasetURI) -> Path:
    folder = installation().settings.state_dir / _LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.sha256(str(uri).encode()).hexdigest()[:32]


def _locked(path: Path, how: int) -> IO[str]:
    """The file, opened and locked. Raises `BlockingIOError` when another has it and `how` says not to wait."""
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, how)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    os.utime(file.fileno())
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # Whoever had it has removed it meanwhile.


def _remove_unused(uri: DatasetURI, lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # Another move uses it, and removes it when it ends.
    _remove(uri)


def _remove(uri: DatasetURI) -> None:
    store = installation().store_of(uri)
    keys = [found.key for found in store.list(uri.key_prefix)]
    for key in keys:
        store.delete(key)
    _lock_of(uri).unlink()
    if keys:
        say(f"removed the staged copy {uri}")


def _remove_forgotten() -> None:
    area = installation().settings.state_dir / STAGING
    for folder in area.glob("*/[!.]*/*"):
        bucket, *prefix = folder.relative_to(area).parts
        uri = DatasetURI(STAGING, bucket, "/".join(prefix))
        lock = _lock_of(uri)
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            used = lock.stat().st_mtime if lock.exists() else folder.stat().st_mtime
            if used < time.time() - _FORGOTTEN_S:
                with _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    _remove(uri)
