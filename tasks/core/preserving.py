"""Pseudonyms that keep a value's form: as many digits as before, separators in their places, and reversible.

FF1 (`tasks.core.ff1`) under a key for each domain and destination. Equal values stay equal. Unlike what
`tasks.core.sealed_values` writes, nothing in such a pseudonym tells which key made it or whether it was altered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import Invalid
from tasks.core.ff1 import DIGITS, DIGITS_AND_LETTERS, FF1

if TYPE_CHECKING:
    from tasks.core.pseudonym_key import PseudonymKey

_SEPARATORS = re.compile(r"[ +./()\-]+")
_ALPHABETS = (DIGITS, DIGITS_AND_LETTERS, DIGITS_AND_LETTERS.upper())


class Preserving:
    """Exchanges the values of one domain for ones of the same form, and back.

    Args:
        keys: The pseudonym key.
        domain: As in the policy: the entity's name unless the rule says another.
        destination: The cloud that the values leave for.
    """

    def __init__(self, keys: PseudonymKey, domain: str, destination: str) -> None:
        key = keys.derive("format", domain, destination)
        self._ciphers = {alphabet: FF1(key, alphabet, str(len(alphabet)).encode()) for alphabet in _ALPHABETS}

    def encrypt(self, values: Sequence[str]) -> list[str]:
        """The pseudonyms, in order; an empty text stays one.

        Raises:
            Invalid: Values that have fewer digits (or digits and letters) than a domain of a million asks for, or
                characters that are neither these nor separators. It says how many, and shows none.
        """
        return self._changed(values, backwards=False)

    def decrypt(self, texts: Sequence[str]) -> list[str]:
        """The values that these are pseudonyms of, if they are. Raises `Invalid` as `encrypt` does."""
        return self._changed(texts, backwards=True)

    def _changed(self, values: Sequence[str], *, backwards: bool) -> list[str]:
        cores = [_SEPARATORS.sub("", value) for value in values]
        alphabets = [self._alphabet(core) for core in cores]
        wrong = sum(alphabet is None for core, alphabet in zip(cores, alphabets, strict=True) if core)
        wrong += sum(not core and bool(value) for core, value in zip(cores, values, strict=True))
        if wrong:
            raise Invalid(
                f"{wrong} different values have fewer than six digits, or four digits and letters of one case, or "
                "other characters",
                "use encrypt or tokenise for them",
            )
        changed = list(values)
        for alphabet, cipher in self._ciphers.items():
            walking: list[int] = [at for at, found in enumerate(alphabets) if found == alphabet]
            texts = [cores[at] for at in walking]
            # A code of letters and digits may come out as digits alone, whose alphabet is another: then once more,
            # until it is one again (cycle walking; M. Bellare et al., "Format-Preserving Encryption", SAC 2009).
            while walking:
                texts = cipher.decrypt(texts) if backwards else cipher.encrypt(texts)
                for at, text in zip(walking, texts, strict=True):
                    changed[at] = _like(values[at], text)
                again = [pair for pair in zip(walking, texts, strict=True) if self._alphabet(pair[1]) != alphabet]
                walking, texts = [at for at, _ in again], [text for _, text in again]
        return changed

    def _alphabet(self, core: str) -> str | None:
        """The smallest alphabet that a text is of; None when it is too short for it, or of none."""
        found = next((alphabet for alphabet in _ALPHABETS if set(core) <= set(alphabet)), None)
        return found if found and self._ciphers[found].takes(core) else None


def _like(value: str, characters: str) -> str:
    """The characters with the separators of a value where they stand there."""
    if len(value) == len(characters):
        return characters
    rest = iter(characters)
    return "".join(letter if _SEPARATORS.fullmatch(letter) else next(rest) for letter in value)
