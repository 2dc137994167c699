"""FF1: NIST's own sample vectors, and what has to hold for every text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import Invalid
from tasks.core.ff1 import DIGITS, DIGITS_AND_LETTERS, FF1

KEY = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3CEF4359D8D580AA4F7F036D6F04FC6A94")
TEXT, LONG_TEXT = "0123456789", "0123456789abcdefghi"
NO_TWEAK, TWEAK, LONG_TWEAK = "", "39383736353433323130", "3737373770717273373737"

# NIST, "Block Cipher Modes of Operation: FF1 Samples", which accompany SP 800-38G: samples 1 to 9.
SAMPLES = [
    (16, NO_TWEAK, TEXT, "2433477484"),
    (16, TWEAK, TEXT, "6124200773"),
    (16, LONG_TWEAK, LONG_TEXT, "a9tv40mll9kdu509eum"),
    (24, NO_TWEAK, TEXT, "2830668132"),
    (24, TWEAK, TEXT, "2496655549"),
    (24, LONG_TWEAK, LONG_TEXT, "xbj3kv35jrawxv32ysr"),
    (32, NO_TWEAK, TEXT, "6657667009"),
    (32, TWEAK, TEXT, "1001623463"),
    (32, LONG_TWEAK, LONG_TEXT, "xs8a0azh2avyalyzuwd"),
]


@pytest.mark.parametrize(("key_bytes", "tweak", "text", "expected"), SAMPLES)
def test_nists_sample_vectors_hold_both_ways(key_bytes: int, tweak: str, text: str, expected: str) -> None:
    alphabet = DIGITS if text == TEXT else DIGITS_AND_LETTERS
    cipher = FF1(KEY[:key_bytes], alphabet, bytes.fromhex(tweak))
    assert cipher.encrypt([text]) == [expected]
    assert cipher.decrypt([expected]) == [text]


# From ubiq-security-fpe 2.0.1.1, an implementation by others: halves beyond a machine word, and odd lengths.
OTHERS = [
    (
        DIGITS,
        "1234567890123456789012345678901234567890123456789012345678901234567890",
        "9567977983741688063144252516542407161740421598852473338770357158430497",
    ),
    (DIGITS, "000000", "889031"),
    (DIGITS_AND_LETTERS, "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "vh9kwbgumqmgbygjyh9d6nuvu59jh9zd9z6su4ll"),
    (DIGITS_AND_LETTERS, "zzzz1", "3mrve"),
]


@pytest.mark.parametrize(("alphabet", "text", "expected"), OTHERS)
def test_long_and_short_texts_are_encrypted_as_others_do(alphabet: str, text: str, expected: str) -> None:
    assert FF1(KEY, alphabet, b"tweak").encrypt([text]) == [expected]


alphabets = st.sampled_from([DIGITS, DIGITS_AND_LETTERS, "ab", "aàéß€😀"])


@settings(max_examples=200, deadline=None)
@given(st.data(), alphabets, st.binary(max_size=40), st.sampled_from([16, 24, 32]))
def test_what_was_encrypted_comes_back_with_its_length_and_alphabet(
    data: st.DataObject, alphabet: str, tweak: bytes, key_bytes: int
) -> None:
    cipher = FF1(KEY[:key_bytes], alphabet, tweak)
    texts = data.draw(st.lists(st.text(alphabet, min_size=cipher.min_length, max_size=70), max_size=6))
    changed = cipher.encrypt(texts)
    assert cipher.decrypt(changed) == texts
    assert [len(text) for text in changed] == [len(text) for text in texts]
    assert all(set(text) <= set(alphabet) for text in changed)
    assert changed == [cipher.encrypt([text])[0] for text in texts]


@pytest.mark.parametrize(("alphabet", "least"), [(DIGITS, 6), (DIGITS_AND_LETTERS, 4), ("ab", 20)])
def test_texts_of_which_there_are_too_few_are_refused(alphabet: str, least: int) -> None:
    cipher = FF1(KEY, alphabet)
    assert cipher.min_length == least
    assert len(cipher.encrypt([alphabet[0] * least])[0]) == least
    for change in (cipher.encrypt, cipher.decrypt):
        with pytest.raises(Invalid):
            change([alphabet[1] * (least - 1)])


def test_a_refusal_and_a_representation_hold_neither_text_nor_key() -> None:
    with pytest.raises(Invalid) as refused:
        FF1(KEY).encrypt(["4111-1111-1111"])
    assert "4111" not in str(refused.value)
    assert "43, 126" not in repr(FF1(KEY))
    assert KEY[:4].decode("latin-1") not in repr(FF1(KEY))


@pytest.mark.parametrize("alphabet", ["", "a", "aba", "ab\0"])
def test_an_alphabet_that_is_none_is_refused(alphabet: str) -> None:
    with pytest.raises(Invalid, match="alphabet"):
        FF1(KEY, alphabet)


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="15 bytes"):
        FF1(bytes(15))
