"""Values that the holder of the key can read again: `enc_`, the key's id, and the value under AES-SIV.

AES-SIV (RFC 5297) is deterministic here, with no nonce, so that equal values stay equal and joins survive; it tells
nothing else of a value but its length, and a ciphertext that was altered does not open. Every domain and destination
has its own key. Tokens and hashes are one-way: nothing here, and nothing elsewhere, turns one back.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from tasks.core.errors import Denied, IntegrityError, Invalid

if TYPE_CHECKING:
    from tasks.core.pseudonym_key import PseudonymKey

_SEALED = re.compile(r"enc_([a-z2-7]{8})_([a-z2-7]+)", re.ASCII)
_ONE_WAY = re.compile(r"tok_[a-z2-7]{26}|[0-9a-f]{64}", re.ASCII)


class Seal:
    """Encrypts the values of one domain for one destination, and opens them again.

    Args:
        keys: The pseudonym key. Its id stands in every ciphertext, so that after a rotation it is known which one opens
            it.
        domain: As in the policy: the entity's name unless the rule says another.
        destination: The cloud that the values leave for.
    """

    def __init__(self, keys: PseudonymKey, domain: str, destination: str) -> None:
        halves = [keys.derive("encrypt", half, domain, destination) for half in ("authenticate", "encipher")]
        self._cipher = AESSIV(b"".join(halves))
        self._id = _base32(keys.derive("key id")[:5])

    def made(self, text: str) -> bool:
        """Whether the id of this key stands in a text."""
        return text.startswith(f"enc_{self._id}_")

    def seal(self, value: str) -> str:
        """The ciphertext of a value, in letters and digits that no detector takes for anything."""
        # The leading byte is there because the cipher refuses an empty text.
        return f"enc_{self._id}_{_base32(self._cipher.encrypt(b'v' + value.encode(), None))}"

    def open(self, text: str, name: str = "the text") -> str:
        """The value that a text is the ciphertext of.

        Args:
            text: What `seal` made.
            name: What errors call it; neither the text nor a value stands in them.

        Raises:
            Invalid: It is no ciphertext; a token or a hash is one-way, and its value is known at the source alone.
            Denied: It was made with another key: the caller gives that one.
            IntegrityError: It was altered, or made for another domain or destination.
        """
        match = _SEALED.fullmatch(text)
        if match is None and _ONE_WAY.fullmatch(text):
            raise Invalid(f"{name} is a token or a hash, which is one-way", "look its value up in the source dataset")
        if match is None:
            raise Invalid(f"{name} is nothing that 'encrypt' wrote", "give texts that begin with enc_, one a line")
        if match[1] != self._id:
            raise Denied(
                f"{name} was encrypted with the key {match[1]}, and the key at hand is {self._id}",
                "name the key of then under gate.retired_pseudonym_keys in lintas.yaml",
            )
        try:
            data = base64.b32decode(match[2].upper() + "=" * (-len(match[2]) % 8))
            if _base32(data) != match[2]:
                raise InvalidTag  # Bits beyond the last byte are no part of the ciphertext, and altered all the same.
            return self._cipher.decrypt(data, None)[1:].decode()
        except (InvalidTag, ValueError):
            raise IntegrityError(
                f"{name} was altered, or was made for another domain or destination",
                "correct --domain and --to, or take the text from the dataset again",
            ) from None


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
