"""What the operating system says about files, translated."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import Denied, Invalid, LintasError, Retryable, Terminal
from tasks.providers._dialects.objects import Place

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BUSY = (errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NOT_A_KEY = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_BLOCKED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)
# What opening with O_NOFOLLOW answers for a symbolic link.
_LINK = (errno.ELOOP, errno.EMLINK)


def translate(error: OSError, place: Place, key: str | None = None) -> LintasError:
    """The error of `tasks.core.errors` for what the operating system said.

    Args:
        error: What was raised.
        place: The bucket; its address is the root directory.
        key: The object it is about; None for the bucket itself.
    """
    what = f"'{key}' in {place}" if key is not None else str(place)
    if error.errno in _FULL:
        return Terminal(f"the disk of {place} ({place.address}) is full", "free or add space, then run it again")
    if error.errno == errno.EFBIG:
        return Terminal(f"{what} is larger than the file system of {place.address} allows", "use another file system")
    if error.errno == errno.EROFS:
        return Denied(f"{place.address} is mounted read-only", "mount it for writing")
    if isinstance(error, PermissionError):
        return Denied(
            f"the file system does not let this user reach {what}", f"check the permissions in {place.address}"
        )
    if isinstance(error, FileNotFoundError):
        return place.missing(key)
    if error.errno in _LINK:
        return escapes(place, key)
    if error.errno in _BLOCKED:
        return Invalid(
            f"{what} cannot be an object: a directory cannot hold both an object and objects below its key",
            "rename one of them",
        )
    if error.errno in _NOT_A_KEY:
        return Invalid(f"{what} cannot be a file name", "choose another key")
    if error.errno in _BUSY:
        return Retryable(f"the file system of {place.address} could not serve {what} now", "try again")
    return place.not_understood(errno.errorcode.get(error.errno or 0, type(error).__name__))


def escapes(place: Place, key: str | None) -> Invalid:
    """The key leads out of the bucket, by `..` or by a symbolic link."""
    what = f"'{key}'" if key is not None else f"bucket '{place.bucket}'"
    return Invalid(f"{what} leads out of {place.address} or through a symbolic link", "name a plain path inside it")


@contextmanager
def translated(place: Place, key: str | None = None) -> Iterator[None]:
    """Raises what the block's `OSError` means; see `translate`."""
    try:
        yield
    except OSError as error:
        raise translate(error, place, key) from error
