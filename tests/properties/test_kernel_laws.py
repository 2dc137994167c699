"""The native kernel and the Python modules that it speeds up give the same answers, whatever the cells hold."""

from __future__ import annotations

import random
import shutil
import string
from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.privacy import table
from tasks.core.detectors import forms, native, patterns, phones, search
from tasks.core.detectors.candidates import Hits, Ints, buffers
from tasks.core.detectors.candidates import hashed as hashes_of
from tasks.core.detectors.cells import Cells
from tasks.core.detectors.classify import classified
from tasks.core.detectors.detection import EVERYTHING, PHONE_REGIONS, Detection
from tasks.core.detectors.marks import note_texts
from tasks.core.detectors.sketch import Sketch
from tasks.core.detectors.tallies import Key, Tally, count
from tasks.core.detectors.words import LANGUAGES
from tasks.core.treatments import digests, hashed, token
from tests.unit.test_detectors import INVALID, VALID

COMPILERS = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
needs_kernel = pytest.mark.skipif(not COMPILERS, reason="there is no compiler")
EXAMPLES = [text for _, text in (*VALID, *INVALID)] + [
    "550e8400-e29b-41d4-a716-446655440000", "2013-01-01T10:00:00.123+07:00", "v1.2.3-12345678", "ORD-0123456789",
    "call (021) 555-1234 x12 now", "3.14159265358979", "1.2.3.4.5", "aa:bb:cc:dd:ee:ff", "::1 fe80::1", "12345@1.2",
    "NIK: 3273014507900001", "nomor-hp 0812 3456 7890!", "SSN123456782 ", "phone123456782",
    "no_ktp 3273014507900001", "e-mail12345678902",
    "+1 212 555 0100, telp 021 555 1234", "(021) 555 1234 5", "call 2125550100 or 2125550101",
    "www.it.isn't@example.org", "www.x@example.org", "https://a.org/www.x.y@example.org", "ghp_x@example.org",
    "ghp_" + "a1" * 18 + "@example.org", "xoxb-0123456789@example.org", "DE89370400440532013000@example.org", "ü@ü.ü",
    "AKIA" + "A2" * 8, "1.2.3.256", "01.2.3.4", "12:ab:cd:ef-01:23", "1:2:3:4:5:6:7:8",
    "ab:cd:ef:01:23:45:6789:abcd", "20.10.2013", "2013-01-01 5551234567", "12.345.678.9-012.345.6", "1" * 26,
    "(192.168.10.20 is up", "+(12.34.56.78", "12.(34.56.78", "+12.34.56.78",
    "AB123456", "1Z999AA10123456784", "+62 812-3456-7890, 0812-3456-7890", "x" * 70_000 + " 1",
]  # fmt: skip
DAY = "(19|20)[0-9]{2}[-/.][0-9]{1,2}[-/.][0-9]{1,2}"
MAKERS = [make for _, make in table.ENTITY_COLUMNS.values()] + list(table.LOOK_ALIKES.values())


def irregular(seed: int) -> str:
    draw = random.Random(seed)
    number = table.iban(draw).replace(" ", "")
    return (
        number[:2]
        + draw.choice(["", " "])
        + number[2:4]
        + "".join(draw.choice(["", "", " ", ".", "-", "  "]) + byte for byte in number[4:])
    )


pieces = st.one_of(
    st.sampled_from(EXAMPLES),
    st.builds(lambda make, seed: make(random.Random(seed)), st.sampled_from(MAKERS), st.integers(0, 10**9)),
    st.text("0123456789", min_size=1, max_size=20),
    st.text("0123456789 -./()+:xABCdefZ@_,", max_size=24),
    st.from_regex(r"[A-Z]{2}[0-9]{2}( ?[0-9A-Z]{4}){2,6}( ?[0-9A-Z]{1,3})?", fullmatch=True),
    st.from_regex(r"[(+]{0,2}[0-9]{1,3}([.-][()]?[0-9]{1,4}){2,6}", fullmatch=True),
    st.builds(irregular, st.integers(0, 10**9)),
    st.from_regex(r"(NO|no|DE|XX) ?[0-9]{2}([ .-]?[0-9]){10,19}", fullmatch=True),
    st.from_regex(r"[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{0,4}){2,7}", fullmatch=True),
    st.from_regex(r"[0-9a-fA-F]{3,5}([.:][0-9a-fA-F]{4}){1,3}", fullmatch=True),
    st.from_regex(rf"{DAY}([T ][0-9]{{1,2}}:[0-9]{{2}}(:[0-9]{{2}}([.,][0-9]+)?)?)?(Z|[+-]07:?00)?", fullmatch=True),
    st.text(max_size=8),
    st.from_regex(r"[A-Z]?[a-z.'-]{0,4}((,? )(Budi|test|[A-Z]?[a-z.']{1,3}|[0-9]+)){0,6}", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,4}\.[0-9]{2,5}|[A-Z]{6}[A-Z0-9]{2,5}|[A-Za-z]{0,6}[ -]?[0-9][0-9A-Z -]{3,18}",
                  fullmatch=True),
    st.sampled_from(["N.A.", "na", "None", "Mary, Budi", "12\nMain St", "Jl. Sudirman 5", "1 A,b", "2020.0131",
                     "20200131T"]),
)  # fmt: skip
cells = st.lists(
    st.tuples(pieces, st.sampled_from(["", " ", ", ", "-", "/", "x", "."]), pieces).map("".join), max_size=8
)


def flat(found: Iterable[Hits]) -> list[tuple[str, str, int, str, bool]]:
    return sorted(
        (each.entity, str(each.evidence), int(each.found.rows[at]), each.found.text[int(at)], bool(valid))
        for each in found
        for at, valid in zip(each.which, each.valid, strict=True)
    )


def assert_same(texts: list[str]) -> None:
    column = pl.Series(texts, dtype=pl.String)
    assert flat(search.hits_in(column)) == flat(phones.checked(classified(column), PHONE_REGIONS))
    assert flat(search.hits_in(column)) == flat(by_form(column))
    assert counted(column) == counted_in_python(column)
    weights = np.arange(len(column))
    assert counted(column, weights=weights) == counted_in_python(column, weights=weights)

    assert noted(column) == noted_in_python(column)


def by_form(column: pl.Series) -> list[Hits]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "MANY", 1)
        patch.setattr(forms, "FEW", 1)
        patch.setattr(forms, "OFTEN", 0)
        return list(phones.checked(classified(column), PHONE_REGIONS))


def noted(column: pl.Series) -> tuple[list[int], list[int]]:
    sketch = Sketch()
    note_texts(sketch, Cells.of(column))
    return sketch.hashes.tolist(), sketch.marks.tolist()


def noted_in_python(column: pl.Series) -> tuple[list[int], list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernel", lambda: None)
        return noted(column)


def counted(column: pl.Series, weights: Ints | None = None) -> dict[Key, tuple[int, int, list[int], list[int]]]:
    seen: dict[Key, Tally] = {}
    count(seen, Cells.of(column), EVERYTHING, weights=weights)
    return {
        key: (each.cells, each.whole, each.candidates.hashes.tolist(), each.candidates.marks.tolist())
        for key, each in seen.items()
    }


def counted_in_python(
    column: pl.Series, weights: Ints | None = None
) -> dict[Key, tuple[int, int, list[int], list[int]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernel", lambda: None)
        return counted(column, weights)


@needs_kernel
@settings(max_examples=120, deadline=None)
@given(cells)
def test_the_kernel_and_python_find_the_same(texts: list[str]) -> None:
    assert_same(texts)


def with_others(text: str, seed: int) -> str:
    """The same form: other digits and, now and then, other capitals."""
    draw = random.Random(seed)
    capitals = string.ascii_uppercase if draw.random() < 0.5 else ""
    return "".join(
        draw.choice("0011223456789") if byte in string.digits else draw.choice(capitals) if byte in capitals else byte
        for byte in text
    )


def alike(texts: list[str], seed: int) -> list[str]:
    """Cells of the same forms, which the kernel searches by what it knows of the first of each."""
    return [with_others(text, seed + at) for at in range(6) for text in texts]


@needs_kernel
@settings(max_examples=200, deadline=None)
@given(cells, st.integers(0, 10**9))
def test_they_find_the_same_in_cells_of_the_same_forms(texts: list[str], seed: int) -> None:
    assert_same(alike([text for text in texts if len(text) < 100], seed))


@pytest.mark.parametrize("pattern", patterns.HINTED)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_every_secret_and_web_address_has_a_hint_and_a_mark(pattern: str, data: st.DataObject) -> None:
    text = data.draw(
        st.from_regex(pattern.replace("(?-u:", "(?:"), fullmatch=True, alphabet=st.characters(codec="ascii"))
    )
    assert any(hint in text for hint in patterns.HINTS)
    assert any(mark in text for mark in patterns.HINT_MARKS)


@needs_kernel
def test_capitals_that_may_be_hex_digits_are_looked_at_in_every_cell_of_a_form() -> None:
    assert_same(["GHZ1.XXXX.1234", "ABC1.ABCD.1234", "GHZ1.XXXX.1234", "on ABC1.ABCD.1234"])


@needs_kernel
def test_they_find_the_same_in_the_benchmark_s_table_and_in_parts_of_it() -> None:
    draw = random.Random(3)
    made = [make(draw) for make in MAKERS for _ in range(60)]
    cut = [text[draw.randrange(len(text)) :] + draw.choice(["", " ", "7"]) + draw.choice(made) for text in made]
    assert_same([*made, *cut, *EXAMPLES])
    assert_same(alike([*EXAMPLES[:-1], *made[::20], *cut[::20]], 5))


@needs_kernel
def test_more_candidates_than_there_is_room_for_at_once_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ROOM", 64)
    assert_same([f"person{at}@example.org 4111 1111 1111 1111 https://example.org" for at in range(500)])


@needs_kernel
def test_the_shortest_candidates_one_beside_the_other_stay_within_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ROOM", 64)
    assert_same(["a::b " * 12, "a::b a::b", *["a::b " * 11] * 40])


@needs_kernel
def test_of_many_candidates_the_same_are_sampled() -> None:
    draw = random.Random(4)
    made = pl.Series([make(draw) for make in MAKERS for _ in range(2_500)])
    assert counted(made) == counted_in_python(made)
    assert noted(made) == noted_in_python(made)
    rows = np.sort(np.array([draw.randrange(1_000) for _ in range(len(made))]))
    of_rows: dict[Key, Tally] = {}
    count(of_rows, Cells.of(made), EVERYTHING, parents=rows)
    assert all(each.cells <= 1_000 for each in of_rows.values())
    assert of_rows.keys() == counted(made).keys()


@needs_kernel
@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*map(str, range(200)), *"äöü"]), max_size=400), st.sampled_from([1, 2, 8, 64]))
def test_a_sample_holds_the_least_hashes(texts: list[str], wanted: int) -> None:
    kernel = native.kernel()
    assert kernel
    offsets, data = buffers(pl.Series(texts, dtype=pl.String))
    every = np.unique(hashes_of(offsets, data))
    bound = 2**64 - 1 - 2**62
    of_cells = kernel.hashes(offsets, data)
    assert of_cells.tolist() == hashes_of(offsets, data).tolist()
    hashes, _, unknown, unknown_hashes = kernel.sample(offsets, data, of_cells, bound, wanted)
    least = every[every <= bound][:wanted]
    assert set(least.tolist()) <= set(hashes.tolist()) <= set(every.tolist())
    assert len(hashes) == len(set(hashes.tolist())) <= 2 * wanted
    assert all(texts[at] in "äöü" for at in unknown.tolist())
    strange = {int(each) for each, text in zip(hashes_of(offsets, data), texts, strict=True) if not text.isascii()}
    assert strange & set(hashes.tolist()) == set(unknown_hashes.tolist())


ALMOST_PLAIN = "0123456789-.:TZ tok_abcdefABCDEF\n"


@needs_kernel
@settings(max_examples=400, deadline=None)
@given(st.from_regex(patterns.PLAIN), st.integers(0, 40), st.text(ALMOST_PLAIN, max_size=2), st.booleans())
def test_the_kernel_knows_the_forms_that_no_entity_has(text: str, at: int, other: str, longer: bool) -> None:
    kernel = native.kernel()
    assert kernel
    for each in (text, text[:at] + other + text[at + len(other) * (not longer) :]):
        column = pl.Series([each])
        assert kernel.plain(*buffers(column)) == column.str.contains(patterns.PLAIN).all()
    several = ["12.5", "tok_" + "a2" * 13, text]
    assert kernel.plain(*buffers(pl.Series(several))) == pl.Series(several).str.contains(patterns.PLAIN).all()


@needs_kernel
def test_loading_it_again_changes_nothing() -> None:
    library = native._library()
    assert library
    native.Kernel(library)
    assert_same(["a secretly kept wwwide word", "eyJ sk- password: 1234", "https://example.org", "xoxo"])


def test_every_word_can_be_looked_up_in_the_kernel() -> None:
    words = {word for entity in native.ENTITIES for word in Detection(languages=LANGUAGES).words(entity)}
    assert all(word.isascii() and word.islower() and word[0].isalpha() for word in words)


def test_every_check_has_a_twin_in_the_kernel() -> None:
    assert native.unknown_checks() == set()


def test_without_the_kernel_python_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "kernel", lambda: None)
    found = flat(search.hits_in(pl.Series(["a@example.org"] * 20)))
    assert [(entity, row) for entity, _, row, _, _ in found] == [("EMAIL_ADDRESS", at) for at in range(20)]


LENGTHS = st.sampled_from([0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 128, 1_000])
values = st.lists(
    st.one_of(st.text(max_size=70), st.builds(lambda size: "é" * (size // 2) + "x" * (size % 2), LENGTHS))
)


@needs_kernel
@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=130), values, st.integers(0, 3), st.booleans())
def test_the_kernel_and_python_make_the_same_tokens_and_hashes(
    key: bytes, texts: list[str], skipped: int, portable: bool
) -> None:
    kernel = native.kernel()
    assert kernel is not None
    column = pl.Series(["not asked for"] * skipped + texts, dtype=pl.String).slice(skipped)
    for tokens, change in ((True, token), (False, hashed)):
        made = kernel.digests(key, *buffers(column), tokens=tokens, portable=portable)
        assert made.tobytes().decode() == "".join(change(key, text) for text in texts)
        gaps = pl.Series("c", [None, *texts, None], dtype=pl.String)
        assert digests(key, gaps, tokens=tokens).to_list() == [None, *(change(key, text) for text in texts), None]
