"""Signature Version 4 for single requests, a few microseconds each.

The SDK signs too, at several times the cost: a move of small objects would spend its time there. The credentials stay
the SDK's, which renews them. https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
# The body's own checksum is among the signed headers.
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Keys(Protocol):
    """A key pair, with the token of a short-lived one."""

    @property
    def access_key(self) -> str | None: ...
    @property
    def secret_key(self) -> str | None: ...
    @property
    def token(self) -> str | None: ...


class Credentials(Protocol):
    """Where a signer has its keys from, such as `botocore.credentials.Credentials`."""

    def get_frozen_credentials(self) -> Keys:
        """The keys as of now."""
        ...


@dataclass(frozen=True, slots=True)
class LentKeys:
    """Keys as of the moment at which they were lent. Never to be logged."""

    access_key: str | None
    secret_key: str | None = field(repr=False)
    token: str | None = field(repr=False)

    def get_frozen_credentials(self) -> LentKeys:
        """Itself: nobody renews it."""
        return self


class Signer:
    """Signs requests to one host.

    Args:
        credentials: The SDK's, renewed by it when they are about to expire.
        region: The region of the bucket, as the SDK signs for it.
        host: The `Host` header.
    """

    def __init__(self, credentials: Credentials, region: str, host: str) -> None:
        self._credentials = credentials
        self._region = region
        self._host = host
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def lent(self) -> Signer:
        """A signer with the keys as of now, which can be pickled."""
        keys = self._credentials.get_frozen_credentials()
        return Signer(LentKeys(keys.access_key, keys.secret_key, keys.token), self._region, self._host)

    def headers(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        *,
        now_s: float | None = None,
    ) -> dict[str, str]:
        """The headers with those that make a signed request of it.

        Args:
            method: Its method.
            path: Percent-encoded path.
            query: Parameters, decoded.
            headers: Lower-case names; all are signed.
            now_s: Seconds since the epoch; the clock's unless told.
        """
        stamp = _stamp(int(time.time() if now_s is None else now_s))
        frozen = self._credentials.get_frozen_credentials()
        signed = {**headers, "host": self._host, "x-amz-content-sha256": _UNSIGNED, "x-amz-date": stamp}
        if frozen.token:
            signed["x-amz-security-token"] = frozen.token
        names = sorted(signed)
        listed = ";".join(names)
        lines = "\n".join([f"{name}:{signed[name]}" for name in names])
        canonical = f"{method}\n{path}\n{canonical_query(query) if query else ''}\n{lines}\n\n{listed}\n{_UNSIGNED}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        key = self._signing_key(stamp[:8], str(frozen.secret_key))
        signature = hmac.digest(key, f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()
        del signed["host"]
        signed["Authorization"] = (
            f"{_ALGORITHM} Credential={frozen.access_key}/{scope}, SignedHeaders={listed}, Signature={signature}"
        )
        return signed

    def _signing_key(self, day: str, secret: str) -> bytes:
        known_day, known_secret, key = self._key
        if (known_day, known_secret) != (day, secret):
            key = f"AWS4{secret}".encode()
            for step in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), "sha256")
            self._key = (day, secret, key)
        return key


@functools.lru_cache(2)
def _stamp(second: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


def canonical_query(query: Mapping[str, str]) -> str:
    """The parameters as they are signed, and may be sent."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
