"""Paths inside a directory, walked part by part through open directories, so that no link leads out of it.

Each step opens one name relative to the directory before it and refuses symbolic links (openat(2), O_NOFOLLOW);
what another process changes in between cannot redirect the walk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tasks.core.errors import Invalid, LintasError
from tasks.providers._dialects.objects import Place
from tasks.providers.onprem.errors import escapes

RESERVED = ".lintas-partial"
"""Directory in a bucket that holds uploads until they are whole, and the lock of its writers."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def key_parts(place: Place, key: str) -> list[str]:
    """The file names that a key is made of.

    Raises:
        Invalid: The key leads out of the bucket, is Lintas' own, or has a part that no file can be named.
    """
    parts = key.split("/")
    if ".." in parts:
        raise escapes(place, key)
    if any(part in ("", ".") or "\0" in part for part in parts) or parts[0] == RESERVED:
        raise Invalid(f"'{key}' in {place} cannot be a file name", "choose another key")
    return parts


def require_bucket_name(place: Place) -> None:
    """Raises `Invalid` when the bucket's name is not that of a visible directory."""
    if "/" in place.bucket or place.bucket.startswith(".") or not place.bucket:
        raise escapes(place, None)


def _open(path: str, inside: int | None) -> int:
    try:
        return os.open(path, _DIRECTORY, dir_fd=inside)
    except NotADirectoryError as error:
        # The system gives the same answer for a link: the two are told apart by a second look.
        if stat.S_ISLNK(os.stat(path, dir_fd=inside, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
        raise


@contextmanager
def opened(path: str, inside: int | None = None) -> Iterator[int]:
    """A directory as a descriptor, closed at the end. Raises `OSError` when it is not one, ELOOP when it is a link."""
    descriptor = _open(path, inside)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def walked(top: int, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """The directory at `parts` below the open directory `top`, as a descriptor; missing ones are made on request."""
    current = os.dup(top)
    try:
        for part in parts:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=current)
                    os.fsync(current)
            below = _open(part, current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def prune(top: int, parts: Sequence[str]) -> None:
    """Remove the directories at `parts` below `top`, innermost first, as far as they are empty."""
    for depth in range(len(parts), 0, -1):
        with walked(top, parts[: depth - 1]) as parent:
            try:
                os.rmdir(parts[depth - 1], dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return
                raise


def refuse(error: LintasError) -> None:
    """Raise it."""
    raise error


def files_below(
    directory: int, base: str, place: Place, *, unfit: Callable[[LintasError], None] = refuse
) -> Iterator[tuple[str, os.stat_result]]:
    """Key and description of every regular file below an open directory whose keys start with `base`.

    Args:
        directory: The open directory.
        base: What its keys start with.
        place: The bucket, for errors.
        unfit: Told of everything that cannot be an object; passing over it in silence is no dataset's way.

    Raises:
        Invalid: There is a symbolic link, which is neither followed nor silently left out of a dataset; or a name
            that is not UTF-8. Only where `unfit` is left as it is.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            key = base + entry.name
            if key == RESERVED:
                continue
            if not key.isprintable() and _is_not_text(entry.name):
                unfit(Invalid(f"a file name below '{base}' in {place} is not UTF-8", "rename the file"))
                continue
            try:
                described = entry.stat(follow_symlinks=False)
                if stat.S_ISLNK(described.st_mode):
                    unfit(escapes(place, key))
                elif stat.S_ISDIR(described.st_mode):
                    with opened(entry.name, directory) as below:
                        yield from files_below(below, f"{key}/", place, unfit=unfit)
                elif stat.S_ISREG(described.st_mode):
                    yield key, described
            except FileNotFoundError:
                continue  # Removed since the directory was read: not in the listing.


def _is_not_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False
