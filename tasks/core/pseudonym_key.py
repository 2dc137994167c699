"""The secret that pseudonyms are made with.

Keys are derived with HMAC-SHA256 (RFC 2104) from one secret, so that tokens of another domain or destination tell
nothing about these.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from tasks.core.errors import Invalid

_MIN_SECRET_BYTES = 16


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """The secret that pseudonyms are made with.

    Args:
        key_id: Its name.
        secret: At least 16 random bytes. Whoever has it can open what was encrypted, and test guesses of values
            against tokens and hashes.
    """

    key_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < _MIN_SECRET_BYTES:
            raise Invalid(
                f"the pseudonym key '{self.key_id}' has fewer than {_MIN_SECRET_BYTES} bytes",
                "make one with: python -c 'import secrets; print(secrets.token_hex(32))'",
            )

    def derive(self, *parts: str) -> bytes:
        """The key for one purpose, named by parts that stay apart from each other."""
        label = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.digest(self.secret, b"lintas pseudonyms 1" + label, "sha256")
