"""Format-preserving encryption: a text of an alphabet becomes another text of that alphabet and length, and comes back.

FF1 of NIST SP 800-38G (March 2016), algorithms 7 and 8, with the smallest domain that its revision 1 (draft of February
2025) asks for. Texts of one length are worked through together, one AES call per block and round for all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from tasks.core.errors import Invalid

DIGITS = "0123456789"
DIGITS_AND_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"

MIN_DOMAIN = 10**6
"""How many texts of a length the alphabet must have: with fewer they could all be tried (SP 800-38G rev. 1, 5.2)."""

_ROUNDS = 10
_BLOCK = 16
_LIMB_BITS = 32

_Bytes: TypeAlias = NDArray[np.uint8]
_Numbers: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class FF1:
    """Encrypts and decrypts texts of one alphabet under one key and one tweak.

    Args:
        key: An AES key of 16, 24 or 32 bytes.
        alphabet: The different characters that texts consist of, by the value of the numeral; 2 to 65,536.
        tweak: Public bytes; the same text under another tweak is another ciphertext.

    >>> cipher = FF1(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    >>> cipher.encrypt(["0123456789"])
    ['2433477484']
    >>> cipher.decrypt(["2433477484"])
    ['0123456789']
    """

    key: bytes = field(repr=False)
    alphabet: str = DIGITS
    tweak: bytes = b""

    def __post_init__(self) -> None:
        if len(self.key) not in (16, 24, 32):
            raise Invalid(f"an FF1 key of {len(self.key)} bytes is no AES key", "use one of 16, 24 or 32 bytes")
        if len(set(self.alphabet)) != len(self.alphabet) or not 2 <= len(self.alphabet) <= 2**16:
            raise Invalid("an FF1 alphabet is too short, too long or repeats itself", "use 2 to 65,536 characters")
        if not self.alphabet.isprintable():
            raise Invalid("an FF1 alphabet has a character that cannot be printed", "leave it out")

    @property
    def min_length(self) -> int:
        """The fewest characters that a text may have: of that length there are at least `MIN_DOMAIN` texts."""
        length = 2
        while len(self.alphabet) ** length < MIN_DOMAIN:
            length += 1
        return length

    def takes(self, text: str) -> bool:
        """Whether a text is long enough and of the alphabet."""
        return len(text) >= self.min_length and set(text) <= set(self.alphabet)

    def encrypt(self, texts: Sequence[str]) -> list[str]:
        """The ciphertexts, in order. Raises `Invalid` for a text that `takes` does not."""
        return self._by_length(texts, backwards=False)

    def decrypt(self, texts: Sequence[str]) -> list[str]:
        """The texts that these are the ciphertexts of. Raises `Invalid` as `encrypt` does.

        Every text decrypts to something: FF1 does not tell what was encrypted from what was not.
        """
        return self._by_length(texts, backwards=True)

    def _by_length(self, texts: Sequence[str], *, backwards: bool) -> list[str]:
        places: dict[int, list[int]] = defaultdict(list)
        for at, text in enumerate(texts):
            if not self.takes(text):
                raise Invalid(
                    f"a text of {len(text)} characters is too short for FF1, or not of its alphabet of "
                    f"{len(self.alphabet)} characters",
                    f"give it at least {self.min_length} characters of the alphabet",
                )
            places[len(text)].append(at)
        changed = list(texts)
        for length, which in places.items():
            for at, text in zip(which, self._of_length(length, [texts[at] for at in which], backwards), strict=True):
                changed[at] = text
        return changed

    def _of_length(self, length: int, texts: list[str], backwards: bool) -> list[str]:
        """Algorithms 7 and 8. Halves are numbers: machine words where they fit in 32 bits, else Python's own."""
        radix, left = len(self.alphabet), length // 2
        sizes = (left, length - left)
        dtype = np.dtype(np.uint64 if radix ** sizes[1] <= 2**_LIMB_BITS else object)
        moduli = [radix**size for size in sizes]
        numerals = self._numerals(texts, length).astype(dtype)
        halves = _number(numerals[:, :left], radix), _number(numerals[:, left:], radix)
        rounds = _Rounds(self.key, self.tweak, radix, length)
        for turn in reversed(range(_ROUNDS)) if backwards else range(_ROUNDS):
            modulus = moduli[turn % 2]
            if backwards:
                halves = (halves[1] + modulus - rounds.mask(turn, halves[0], modulus)) % modulus, halves[0]
            else:
                halves = halves[1], (halves[0] + rounds.mask(turn, halves[1], modulus)) % modulus
        changed = np.hstack([_digits(half, size, radix) for half, size in zip(halves, sizes, strict=True)])
        letters = np.array([ord(letter) for letter in self.alphabet], dtype=np.uint32)[changed]
        return np.ascontiguousarray(letters).view(f"<U{length}")[:, 0].tolist()

    def _numerals(self, texts: list[str], length: int) -> NDArray[np.int64]:
        codes = np.array(texts, dtype=f"<U{length}").view(np.uint32).reshape(len(texts), length)
        letters = np.array([ord(letter) for letter in self.alphabet], dtype=np.uint32)
        order = np.argsort(letters)
        return order[np.searchsorted(letters[order], codes)]


class _Rounds:
    """The round function for texts of one length: what is added to one half, worked out from the other."""

    def __init__(self, key: bytes, tweak: bytes, radix: int, length: int) -> None:
        self._ecb = Cipher(AES(key), ECB()).encryptor()  # noqa: S305  (a block at a time is what FF1 builds on)
        left = length // 2
        self._number_bytes = ((radix ** (length - left) - 1).bit_length() + 7) // 8
        self._mask_bytes = 4 * ((self._number_bytes + 3) // 4) + 4
        self._tweak = tweak + bytes(-(len(tweak) + self._number_bytes + 1) % _BLOCK)
        head = bytes([1, 2, 1, *radix.to_bytes(3, "big"), _ROUNDS, left % 256])
        self._start = self._ecb.update(head + length.to_bytes(4, "big") + len(tweak).to_bytes(4, "big"))

    def mask(self, turn: int, numbers: _Numbers, modulus: int) -> _Numbers:
        """Steps 6i to 6v for all numbers, modulo the size of the half that it is added to."""
        shifts = range(8 * (self._number_bytes - 1), -1, -8)
        tail = np.stack([(numbers >> shift & 0xFF).astype(np.uint8) for shift in shifts], axis=1)
        lead = np.frombuffer(self._tweak + bytes([turn]), np.uint8)
        blocks = np.hstack([np.broadcast_to(lead, (len(numbers), len(lead))), tail])
        chained = np.broadcast_to(np.frombuffer(self._start, np.uint8), (len(numbers), _BLOCK))
        for at in range(0, blocks.shape[1], _BLOCK):
            chained = self._encrypted(chained ^ blocks[:, at : at + _BLOCK])
        counters = range(1, -(-self._mask_bytes // _BLOCK))
        more = [self._encrypted(chained ^ np.frombuffer(at.to_bytes(_BLOCK, "big"), np.uint8)) for at in counters]
        kept = np.ascontiguousarray(np.hstack([chained, *more])[:, : self._mask_bytes])
        limbs = kept.view(">u4").astype(numbers.dtype)
        return _number(limbs, 2**_LIMB_BITS, modulus)

    def _encrypted(self, blocks: _Bytes) -> _Bytes:
        return np.frombuffer(self._ecb.update(np.ascontiguousarray(blocks).tobytes()), np.uint8).reshape(-1, _BLOCK)


def _number(numerals: _Numbers, radix: int, modulus: int = 0) -> _Numbers:
    """The number that each row writes, the most significant numeral first; modulo `modulus` unless that is 0."""
    number = numerals[:, 0] % modulus if modulus else numerals[:, 0]
    for at in range(1, numerals.shape[1]):
        number = number * radix + numerals[:, at]
        number = number % modulus if modulus else number
    return number


def _digits(numbers: _Numbers, size: int, radix: int) -> NDArray[np.int64]:
    """The numerals that write each number in `size` places."""
    places: list[_Numbers] = []
    for _ in range(size):
        places.append(numbers % radix)
        numbers = numbers // radix
    return np.stack(places[::-1], axis=1).astype(np.int64)
