"""What all object stores say and check alike: the sentences of their errors and the rules of a put and a get.

Each provider translates its SDK's failures by naming one of the cases here, so that a person reads the same
sentence for the same trouble on every cloud.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import (
    Denied,
    IntegrityError,
    Invalid,
    LintasError,
    NotFound,
    PreconditionFailed,
    Retryable,
    Terminal,
)

_log = logging.getLogger(__name__)

READ_BYTES = 1024 * 1024
"""Size in bytes of the pieces that a body is read in from the network."""

_CLOCK_TOLERANCE_S = 14 * 60
"""What services allow a signature's time to differ is a quarter of an hour; the `Date` of an answer is seconds old."""


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket of a cloud and where it is reached, as errors name it.

    Args:
        cloud: The cloud's name in `lintas.yaml`.
        bucket: The bucket (container, directory).
        address: Host and port of the endpoint.
        noun: What `bucket` names, where it is something else (a queue).
        role: The endpoint's role in `lintas.yaml`.
    """

    cloud: str
    bucket: str
    address: str
    noun: str = "bucket"
    role: str = "objects"

    def __str__(self) -> str:
        return f"{self.cloud}://{self.bucket}"

    def no_bucket(self) -> NotFound:
        """The bucket does not exist."""
        return NotFound(f"{self.noun} '{self.bucket}' does not exist on {self.cloud}", "create it or correct its name")

    def no_object(self, key: str) -> NotFound:
        """The bucket has no object of this key."""
        return NotFound(f"'{key}' does not exist in {self}", "correct the key, or list the bucket to see what is there")

    def missing(self, key: str | None) -> NotFound:
        """The object, or without a key the bucket, does not exist."""
        return self.no_bucket() if key is None else self.no_object(key)

    def denied(self) -> Denied:
        """The credentials are wrong or lack a permission."""
        return Denied(
            f"{self.cloud} refused its credentials for {self.noun} '{self.bucket}'",
            f"check clouds.{self.cloud}.credentials in lintas.yaml and what they are allowed to do",
        )

    def refused(self, headers: Mapping[str, str] | None, otherwise: Denied | None = None) -> Denied:
        """Not let in: because of the clock where the answer's `Date` says so, else `otherwise`, which is `denied`."""
        ahead_s = clock_ahead_s(headers)
        if ahead_s is None or abs(ahead_s) < _CLOCK_TOLERANCE_S:
            return otherwise or self.denied()
        return self.clock_off(ahead_s)

    def clock_off(self, ahead_s: float | None = None) -> Denied:
        """The service refuses what was signed by a wrong clock; how far it is ahead of the service's, if known."""
        how = "differs too much from that"
        if ahead_s is not None:
            how = f"is {_duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} that"
        return Denied(
            f"this machine's clock {how} of {self.cloud} ({self.address}), which refuses what it signs",
            "set the clock by a time server (NTP), then run it again",
        )

    def no_credentials(self) -> Denied:
        """There are no credentials at all, neither configured nor in the environment."""
        return Denied(f"{self.cloud} has no credentials", f"set clouds.{self.cloud}.credentials in lintas.yaml")

    def unreachable(self) -> Retryable:
        """Nothing answers: refused, reset, timed out, an unknown host."""
        return Retryable(
            f"{self.cloud} ({self.address}) is unreachable",
            f"check that it is up and that clouds.{self.cloud}.endpoints.{self.role} is right",
        )

    def busy(self, retry_after_s: float | None = None) -> Retryable:
        """The service throttles or is in trouble of its own."""
        return Retryable(
            f"{self.cloud} ({self.address}) is too busy to answer for {self.noun} '{self.bucket}'",
            "try again later, or let fewer objects travel at the same time",
            retry_after_s=retry_after_s,
        )

    def cut(self, key: str | None) -> Retryable:
        """The connection ended before the body did."""
        what = f"'{key}' of {self}" if key is not None else str(self)
        return Retryable(f"the connection to {self.address} was cut while {what} was on its way", "try again")

    def collided(self, key: str | None) -> Retryable:
        """Another request on the same thing was in the middle of its work."""
        what = f"'{key}' in {self}" if key is not None else str(self)
        return Retryable(f"another writer works on {what} at this moment", "try again")

    def changed(self, key: str | None) -> PreconditionFailed:
        """The object is not the version that was asked for, or exists where none should."""
        what = f"'{key}' in {self}" if key is not None else str(self)
        return PreconditionFailed(
            f"{what} is not what it was when it was last looked at", "read it again and plan again"
        )

    def damaged(self, key: str | None) -> IntegrityError:
        """A checksum did not match; nothing became visible."""
        what = f"'{key}'" if key is not None else "a body"
        return IntegrityError(
            f"the checksum of {what} did not match between here and {self}",
            "check the network and the disks on the way, then run it again",
        )

    def archived(self, key: str | None) -> Invalid:
        """The object's storage class keeps it where it cannot be read."""
        return Invalid(f"'{key}' in {self} is archived and cannot be read", "have its store restore it first")

    def beyond_the_end(self, key: str | None) -> Invalid:
        """A range reaches beyond the object's last byte."""
        return Invalid(f"'{key}' in {self} ends before the bytes that were asked for", "ask for bytes that it has")

    def name_taken(self) -> Invalid:
        """Somebody else owns a bucket of this name."""
        return Invalid(f"the bucket name '{self.bucket}' is taken by somebody else on {self.cloud}", "choose another")

    def rejected(self, why: str) -> Invalid:
        """The service or its SDK says that the request is malformed; `why` is its code, never its text."""
        return Invalid(f"{self.cloud} rejected the request for {self} ({why})", "correct the bucket, key or metadata")

    def not_understood(self, why: str) -> Terminal:
        """Anything else; `why` is a code or a class name, never a text that may hold a secret."""
        return Terminal(
            f"{self.cloud} answered for {self} in a way that is not understood ({why})",
            "look at its status page and logs",
        )


@contextmanager
def giving_up(place: Place, key: str, reason: BaseException) -> Iterator[None]:
    """For giving an upload's parts back: a failure is noted beside the reason, which is what the caller must hear of.

    Args:
        place, key: Where the upload is.
        reason: Why it is given up.
    """
    try:
        yield
    except LintasError as error:
        _log.warning("an unfinished upload of '%s' may remain in %s: %s", key, place, error)
        reason.add_note(f"an unfinished upload may remain in {place}")


def clock_ahead_s(headers: Mapping[str, str] | None) -> float | None:
    """Seconds by which this machine's clock is ahead of the one that wrote an answer's `Date`; None without one."""
    for name, value in (headers or {}).items():
        if name.lower() == "date":
            try:
                return time.time() - parsedate_to_datetime(value).timestamp()
            except ValueError:
                return None
    return None


def _duration(seconds: float) -> str:
    """A length of time in the unit that people would choose.

    >>> _duration(1200), _duration(172_800), _duration(5400)
    ('20 minutes', '2 days', '90 minutes')
    """
    for unit, length_s in (("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def address_of(url: str) -> str:
    """Host and port of a URL: what errors show of an endpoint.

    >>> address_of("https://user:secret@example.com:8443/path?sig=x")
    'example.com:8443'
    """
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def exactly(body: Iterable[bytes], size_bytes: int, place: Place, key: str) -> Iterator[bytes]:
    """The body's pieces as they come. Raises `IntegrityError` as soon as they are more, or in the end fewer, bytes."""
    seen_bytes = 0
    for piece in body:
        seen_bytes += len(piece)
        if seen_bytes > size_bytes:
            break
        yield piece
    if seen_bytes != size_bytes:
        more_or_less = "more" if seen_bytes > size_bytes else f"{size_bytes - seen_bytes} bytes less"
        raise IntegrityError(
            f"the body of '{key}' for {place} has {more_or_less} than its {size_bytes} bytes",
            "check where it comes from, then run it again",
        )


def part_bytes(size_bytes: int, most_parts: int) -> int:
    """Size in bytes of the parts of an upload: 8 MiB, or more MiB where an object would need too many parts.

    >>> part_bytes(20 * 2**20, 10_000) == 8 * 2**20
    True
    >>> part_bytes(2**40, 10_000) // 2**20
    105
    """
    mib = 1024 * 1024
    return max(CHUNK_BYTES, -(-size_bytes // (most_parts * mib)) * mib)


def check_range(key: str, start: int, length: int | None) -> None:
    """Raises `Invalid` for a negative start or an empty range."""
    if start < 0 or (length is not None and length <= 0):
        raise Invalid(f"bytes {start}+{length} of '{key}' are no range", "ask for one byte or more from byte 0 on")


def range_header(start: int, length: int | None) -> str | None:
    """The HTTP Range of these bytes (RFC 9110, 14.2), or None for the whole object.

    >>> range_header(0, None), range_header(5, None), range_header(5, 3)
    (None, 'bytes=5-', 'bytes=5-7')
    """
    if start == 0 and length is None:
        return None
    return f"bytes={start}-" + ("" if length is None else str(start + length - 1))


def retry_after_s(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, or None. A date in it is left to the caller's own back-off."""
    for name, value in (headers or {}).items():
        if name.lower() == "retry-after" and value.strip().isdigit():
            return float(value)
    return None


@dataclass(frozen=True, slots=True)
class Pass:
    """What lets a request through: a signature for its query, or headers. A secret, never to be logged."""

    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def __call__(self) -> Pass:
        """Itself: a pass that nobody renews."""
        return self


class RunningChecksum:
    """A checksum over the pieces of a body; implements `tasks.core.ports.Proof`.

    Args:
        over: Computes it, given the bytes and the value of the bytes before them.
        text: The value as the service's requests carry it.
    """

    __slots__ = ("_over", "_text", "_value")

    def __init__(self, over: Callable[[Any, int], int], text: Callable[[int], str]) -> None:
        self._over, self._text = over, text
        self._value = 0

    def update(self, piece: memoryview) -> None:
        self._value = self._over(piece, self._value)

    def text(self) -> str:
        return self._text(self._value)
