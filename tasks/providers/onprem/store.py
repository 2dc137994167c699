"""A directory as an object store: `<options.root>/<bucket>/<key>`.

Objects are written beside the bucket's files, under a reserved name, and appear whole by a link or a rename; a
lock of the bucket makes conditional writes of several processes one after the other. A version is inode, time of
writing in nanoseconds and size: every write makes a new file, so that it changes with the content.

Metadata is kept in extended attributes (`user.lintas.*`) where the file system has them, and is absent elsewhere; so
is everything else that is kept with an object, as JSON in `user.lintas:attributes`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Literal

from tasks.core.attributes import PLAIN, Attributes
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import ContentHasher
from tasks.core.errors import Invalid, LintasError, NotFound
from tasks.core.ports import ObjectInfo, Store, Write
from tasks.providers._dialects.labels import checked_metadata
from tasks.providers._dialects.objects import READ_BYTES, Place, check_range, exactly
from tasks.providers.onprem.errors import escapes, translated
from tasks.providers.onprem.paths import (
    RESERVED,
    files_below,
    key_parts,
    opened,
    prune,
    refuse,
    require_bucket_name,
    walked,
)

_LABEL = "user.lintas."
_ATTRIBUTES = "user.lintas:attributes"
_LOCK = "lock"
_NO_LABELS = (errno.ENOTSUP, errno.EOPNOTSUPP)


def open_store(config: CloudConfig, bucket: str) -> DirectoryStore:
    """A store for a directory below `options.root`, which must exist: it may be a mount that is missing just now.

    Raises:
        Invalid: `options.root` is missing, or the bucket's name is not that of a visible directory.
    """
    place = Place(config.name, bucket, config.option("root"))
    require_bucket_name(place)
    return DirectoryStore(place)


class DirectoryStore:
    """A bucket; implements `tasks.core.ports.Store`, where the methods are described."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._swept = False
        self._sweeping = threading.Lock()

    @property
    def cloud(self) -> str:
        return self._place.cloud

    @property
    def bucket(self) -> str:
        return self._place.bucket

    @property
    def server_side(self) -> DirectoryStore:
        """It copies from other directories of this machine by itself; see `tasks.core.ports.ServerSideCopy`."""
        return self

    def way(self, source: Store) -> Literal["server-side", "pull"] | None:
        """See `ServerSideCopy.way`."""
        return "server-side" if isinstance(source, DirectoryStore) else None

    def copy(self, source: Store, key: str, version: str, write: Write) -> ObjectInfo:
        """See `ServerSideCopy.copy`.

        The kernel copies, by reference where the file system can (copy_file_range(2)); what is on the disk then is
        read back before it is visible, and its digest is among the checksums.
        """
        if not isinstance(source, DirectoryStore):
            raise self._place.not_understood("the source is no directory")
        parts, labels = key_parts(self._place, write.key), dict(write.metadata)
        checked_metadata(labels)
        with (
            source._reading(key) as (origin, described),
            self._opened() as top,
            self._partial(top, write.key) as (partials, name, file),
        ):
            if _version(described) != version:
                raise source._place.changed(key)
            with translated(self._place, write.key):
                left = described.st_size
                while left and (done := os.copy_file_range(origin, file, left)):
                    left -= done
                if left or _version(os.fstat(origin)) != version:
                    raise source._place.changed(key)
                digest = self._settle(partials, name, file, labels, write.attributes, write.key)
                with self._locked(partials):
                    self._publish(top, partials, name, parts, if_version=write.if_version, if_absent=write.if_absent)
                info = _info(write.key, os.fstat(file), labels)
            return replace(info, attributes=write.attributes, checksums={"content": digest})

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.files(prefix)

    def files(self, prefix: str, unfit: Callable[[LintasError], None] = refuse) -> Iterator[ObjectInfo]:
        """`list`, with a word about what cannot be an object in place of a refusal; see `files_below`."""
        above, _, _ = prefix.rpartition("/")
        parts = key_parts(self._place, above) if above else []
        with translated(self._place), self._opened() as top:
            try:
                with walked(top, parts) as directory:
                    base = f"{above}/" if above else ""
                    for key, described in files_below(directory, base, self._place, unfit=unfit):
                        if key.startswith(prefix):
                            yield _info(key, described, {})
            except (FileNotFoundError, NotADirectoryError):
                return

    def head(self, key: str) -> ObjectInfo:
        with self._reading(key) as (file, described):
            return replace(_info(key, described, _labels(file)), attributes=_attributes(file))

    def get(
        self, key: str, *, version: str | None = None, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        check_range(key, start, length)
        with self._reading(key) as (file, described):
            if version not in (None, _version(described)):
                raise self._place.changed(key)
            end = described.st_size if length is None else start + length
            if end > described.st_size or (start and start >= end):
                raise self._place.beyond_the_end(key)
            while start < end:
                piece = os.pread(file, min(READ_BYTES, end - start), start)
                if not piece:
                    raise self._place.cut(key)
                start += len(piece)
                yield piece
            if _version(os.fstat(file)) != _version(described):
                # Another program wrote into the file itself: what was read may be half old and half new.
                raise self._place.changed(key)

    def put(
        self,
        key: str,
        body: Iterable[bytes],
        *,
        size_bytes: int,
        metadata: Mapping[str, str] | None = None,
        attributes: Attributes = PLAIN,
        if_version: str | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        labels, parts = dict(metadata or {}), key_parts(self._place, key)
        checked_metadata(labels)
        with self._opened() as top, self._partial(top, key) as (partials, name, file):
            digest = self._write(file, exactly(body, size_bytes, self._place, key), key)
            with translated(self._place, key):
                if self._settle(partials, name, file, labels, attributes, key) != digest:
                    raise self._place.damaged(key)
                with self._locked(partials):
                    self._publish(top, partials, name, parts, if_version=if_version, if_absent=if_absent)
                return replace(_info(key, os.fstat(file), labels), attributes=attributes)

    def delete(self, key: str) -> None:
        parts = key_parts(self._place, key)
        with (
            self._opened() as top,
            translated(self._place, key),
            self._reserved(top) as partials,
            self._locked(partials),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            with walked(top, parts[:-1]) as directory:
                if not stat.S_ISDIR(os.stat(parts[-1], dir_fd=directory, follow_symlinks=False).st_mode):
                    os.unlink(parts[-1], dir_fd=directory)
                    os.fsync(directory)
            prune(top, parts[:-1])

    def create_bucket(self) -> None:
        root = self._place.address
        with translated(self._place):
            if not os.path.isdir(root):
                raise NotFound(
                    f"{root} of {self.cloud} does not exist", f"mount it, or correct clouds.{self.cloud}.options.root"
                )
            with suppress(FileExistsError):
                os.mkdir(os.path.join(root, self.bucket))
            with self._opened():
                pass

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The bucket's directory. Raises `NotFound` when there is none."""
        with ExitStack() as held:
            with translated(self._place):
                top = held.enter_context(opened(os.path.join(self._place.address, self.bucket)))
            yield top

    @contextmanager
    def _reading(self, key: str) -> Iterator[tuple[int, os.stat_result]]:
        """An object's file, open for reading, and its description."""
        parts = key_parts(self._place, key)
        with self._opened() as top, translated(self._place, key):
            try:
                with walked(top, parts[:-1]) as directory:
                    # Without O_NONBLOCK a named pipe would wait for a writer.
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    file = os.open(parts[-1], flags, dir_fd=directory)
            except NotADirectoryError as error:
                raise self._place.no_object(key) from error
            try:
                described = os.fstat(file)
                if not stat.S_ISREG(described.st_mode):
                    raise self._place.no_object(key)
                yield file, described
            finally:
                os.close(file)

    @contextmanager
    def _reserved(self, top: int) -> Iterator[int]:
        with suppress(FileExistsError):
            os.mkdir(RESERVED, dir_fd=top)
        with opened(RESERVED, top) as partials:
            yield partials

    @contextmanager
    def _locked(self, partials: int) -> Iterator[None]:
        """The lock of the bucket's writers, between processes and threads alike."""
        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666, dir_fd=partials)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _partial(self, top: int, key: str) -> Iterator[tuple[int, str, int]]:
        """A new file for an upload, gone at the end unless it was published. Its lock says that its writer lives."""
        name = uuid.uuid4().hex
        with ExitStack() as held:
            with translated(self._place, key):
                partials = held.enter_context(self._reserved(top))
                with self._locked(partials):
                    self._sweep(partials)
                    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=partials)
                    held.callback(os.close, file)
                    held.callback(_unlink, name, partials)
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield partials, name, file

    def _sweep(self, partials: int) -> None:
        """Remove, once a store, what killed writers left behind: files that nobody holds a lock on."""
        with self._sweeping:
            if self._swept:
                return
            self._swept = True
        for name in os.listdir(partials):
            if name == _LOCK:
                continue
            file = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=partials)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                os.unlink(name, dir_fd=partials)
            finally:
                os.close(file)

    def _write(self, file: int, body: Iterable[bytes], key: str) -> str:
        """Write the body; returns its digest. What the body itself raises passes through untranslated."""
        hasher = ContentHasher()
        for piece in body:
            hasher.update(piece)
            with translated(self._place, key):
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(file, rest) :]
        return hasher.hexdigest()

    def _settle(
        self, partials: int, name: str, file: int, labels: Mapping[str, str], attributes: Attributes, key: str
    ) -> str:
        """Describe a written file and bring it to the disk; its digest as it is read back."""
        _set_labels(file, labels, attributes, key)
        # File systems stamp writes by a coarse clock; versions need a fine one.
        now = time.time_ns()
        os.utime(file, ns=(now, now))
        os.fsync(file)
        return _digest_on_disk(partials, name)

    def _publish(
        self, top: int, partials: int, name: str, parts: list[str], *, if_version: str | None, if_absent: bool
    ) -> None:
        """Let the file appear under its key, if the condition holds. The bucket's lock is held."""
        key = "/".join(parts)
        try:
            with walked(top, parts[:-1], create=if_version is None) as directory:
                there = _described(parts[-1], directory)
                if there is not None and stat.S_ISLNK(there.st_mode):
                    raise escapes(self._place, key)
                if there is not None and stat.S_ISDIR(there.st_mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                if if_absent:
                    try:
                        os.link(name, parts[-1], src_dir_fd=partials, dst_dir_fd=directory, follow_symlinks=False)
                    except FileExistsError as error:
                        raise self._place.changed(key) from error
                else:
                    if if_version is not None and (there is None or _version(there) != if_version):
                        raise self._place.changed(key)
                    os.rename(name, parts[-1], src_dir_fd=partials, dst_dir_fd=directory)
                os.fsync(directory)
        except FileNotFoundError as error:
            if if_version is None:
                raise
            raise self._place.changed(key) from error


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _described(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _digest_on_disk(partials: int, name: str) -> str:
    """The digest of the file as it is read back, past the page cache where the system allows it."""
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=partials)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        hasher = ContentHasher()
        while piece := os.read(file, READ_BYTES):
            hasher.update(piece)
        return hasher.hexdigest()
    finally:
        os.close(file)


def _version(described: os.stat_result) -> str:
    return f"{described.st_ino}-{described.st_mtime_ns}-{described.st_size}"


def _info(key: str, described: os.stat_result, labels: Mapping[str, str]) -> ObjectInfo:
    modified = datetime.fromtimestamp(described.st_mtime_ns / 1e9, UTC)
    return ObjectInfo(key, described.st_size, _version(described), modified, labels)


def _set_labels(file: int, labels: Mapping[str, str], attributes: Attributes, key: str) -> None:
    kept = {_LABEL + name: value for name, value in labels.items()}
    if attributes != PLAIN:
        kept[_ATTRIBUTES] = json.dumps(asdict(attributes))
    for name, value in kept.items():
        try:
            os.setxattr(file, name, value.encode())
        except OSError as error:
            if error.errno in _NO_LABELS:
                return
            if error.errno in (errno.E2BIG, errno.ENOSPC, errno.ERANGE):
                raise Invalid(f"the metadata of '{key}' is larger than the file system keeps", "shorten it") from error
            raise


def _attributes(file: int) -> Attributes:
    try:
        return Attributes(**json.loads(os.getxattr(file, _ATTRIBUTES)))
    except (OSError, ValueError, TypeError):
        return PLAIN  # None were kept, or another program has written there.


def _labels(file: int) -> dict[str, str]:
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno in _NO_LABELS:
            return {}
        raise
    return {name.removeprefix(_LABEL): os.getxattr(file, name).decode() for name in names if name.startswith(_LABEL)}
