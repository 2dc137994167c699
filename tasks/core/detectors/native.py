"""The native kernel: `kernel.c`, `digests.c` and `parquet.c`, compiled once where a compiler is.

The tables of the Python modules are written into the program, so that they exist once.

Where there is no compiler, or the environment variable LINTAS_NATIVE is 0, `kernel` answers None and everything is
searched by polars and numpy alone, with the same answers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.compiled import compiled
from tasks.core.detectors import checks, codes, numbers, patterns
from tasks.core.detectors.candidates import CODE_COUNTS, IBAN_DIGITS, LEAST_IBAN, Bytes, Evidence, Hashes, Ints
from tasks.core.detectors.names import GIVEN_NAMES
from tasks.core.detectors.phones import SHORT
from tasks.core.detectors.plans import Automaton

EVIDENCE = (Evidence.SHAPED, Evidence.BARE, Evidence.CODED, Evidence.CONTEXT)
SHAPED_ENTITIES = ("EMAIL_ADDRESS", "IP_ADDRESS", "MAC_ADDRESS", "DATE_OF_BIRTH", "IBAN_CODE", "CREDIT_CARD")
ENTITIES = tuple(dict.fromkeys((*SHAPED_ENTITIES, *numbers.BY_WIDTH, *(form[0] for form in numbers.FORMS))))
"""The entities that the kernel tells of."""

KEYS: tuple[tuple[str, Evidence], ...] = tuple(product(ENTITIES, EVIDENCE))
"""What the kernel's keys stand for."""

NUMBERS: dict[tuple[str, Evidence], int] = {key: number for number, key in enumerate(KEYS)}

LONGEST_CELL = 60_000
_MOST_HITS = 32
_SLOTS_EACH = 4
_SOURCE = Path(__file__).with_name("kernel.c")
_DIGESTS = Path(__file__).with_name("digests.c")
_PARQUET = Path(__file__).with_name("parquet.c")
_REWRITING = Path(__file__).with_name("rewriting.c")
_BLOCK_BYTES = 64
_BASE32 = b"abcdefghijklmnopqrstuvwxyz234567"
_SPARE_BYTES = 16
TOKEN_CHARACTERS, HASH_CHARACTERS = 30, 64


MARKS = ("NAME", "GIVEN", "ADDRESS", "DATE", "COORDINATE", "FULL_NAME", "BANK", "DOCUMENT")
"""What a cell may look like, each a bit (see `marks`)."""


def source() -> str:
    """The whole program: the tables of `checks`, `codes`, `numbers` and `patterns`, and the files of C."""
    text = _SOURCE.read_text()
    known = set(re.findall(r"\bcheck_(\w+)\(", text))
    head, tail = text.split("/* What a candidate may be. */", 1)
    forms, tail_begin = _forms(known), _by_width(known)
    cut = "static void digit_strings("
    before, after = tail.split(cut, 1)
    return "\n".join(
        (
            _tables(),
            _DIGESTS.read_text(),
            _PARQUET.read_text(),
            _REWRITING.read_text(),
            head,
            forms,
            before,
            tail_begin,
            cut + after,
        )
    )


def unknown_checks() -> set[str]:
    """The names of checks that the kernel has no twin of; it must have them all."""
    known = set(re.findall(r"\bcheck_(\w+)\(", _SOURCE.read_text()))
    used = {check.__name__ for _, check in numbers.BY_WIDTH.values()} | {
        form[-1].__name__ for form in (*numbers.FORMS, *numbers.LOOSE_FORMS)
    }
    return {name.lstrip("_") for name in used} - known


def _list(values: Any) -> str:
    return "{" + ", ".join(str(int(value)) for value in values) + "}"


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _tables() -> str:
    hints = [f"{{{_text(hint)}, {len(hint)}, {_rarest(hint)}}}" for hint in patterns.HINTS]
    leading = {len(form) - len(form.lstrip("9")) for form in patterns.RARE_FORMS} - {0}
    networks = [f"{{{low}, {high}, {sum(1 << width for width in widths)}}}" for low, high, widths in checks.NETWORKS]
    first_networks = [sum(low < digit * 100_000 for low, _, _ in checks.NETWORKS) for digit in range(11)]
    rare = [
        f"{{{_text(form)}, {len(form) - len(form.lstrip('L'))}, {len(form) - len(form.lstrip('9'))}}}"
        for form in patterns.RARE_FORMS
    ]
    ibans = [0] * 26 * 26
    for country, width in codes.IBAN_WIDTHS.items():
        ibans[(ord(country[0]) - 65) * 26 + ord(country[1]) - 65] = width
    pairs = sorted({pair for counts in CODE_COUNTS.values() for pair in counts})
    lines = [
        "#include <stdint.h>",
        "#include <stdlib.h>",
        "#include <string.h>",
        "#if defined __SSE2__",
        "#include <emmintrin.h>",
        "#endif",
        "typedef uint8_t u8; typedef int32_t i32; typedef int64_t i64;",
        f"enum {{ {', '.join(ENTITIES)} }};",
        f"enum {{ HINT_COUNT = {len(hints)}, RARE_FORMS = {len(patterns.RARE_FORMS)},",
        f"       RARE_DIGITS = {sum(1 << count for count in leading)},",
        f"       CODE_COUNT_PAIRS = {len(pairs)}, LEAST_IBAN = {LEAST_IBAN}, IBAN_DIGITS = {IBAN_DIGITS},",
        f"       LONGEST_CELL = {LONGEST_CELL},",
        f"       LEAST_DIGITS = {patterns.LEAST_DIGITS},",
        f"       WIDEST_PHONE = {numbers.WIDEST_PHONE}, SHORT_PHONE = {SHORT},",
        f"       SLOTS_EACH = {_SLOTS_EACH},",
        f"       SPARE = {_SPARE_BYTES}, KEYS = {len(KEYS)}, MOST_HITS = {_MOST_HITS},",
        f"       WIDEST = {max(max(widths) for widths, _ in numbers.BY_WIDTH.values())} }};",
        f"static const struct {{ const char *text; int size, anchor; }} HINTS[] = {{{', '.join(hints)}}};",
        f"static const char HINT_MARKS[] = {_text(patterns.HINT_MARKS)};",
        f"static const struct {{ i32 low, high; i32 widths; }} NETWORKS[] = {{{', '.join(networks)}}};",
        f"static const int NETWORKS_FROM[11] = {_list(first_networks)};",
        f"static const struct {{ const char *form; int letters, digits; }} RARE[] = {{{', '.join(rare)}}};",
        f"static const u8 CODE_COUNTS[][2] = {{{', '.join(map(_list, pairs))}}};",
        f"static const u8 PROVINCES[100] = {_list(checks.PROVINCES)};",
        f"static const u8 CALLING_2[100] = {_list(at in checks.CALLING_2 for at in range(100))};",
        f"static const u8 CALLING_3[1000] = {_list(at in checks.CALLING_3 for at in range(1000))};",
        f"static const u8 IBAN_WIDTHS[676] = {_list(ibans)};",
        f"enum {{ {', '.join(f'MARK_{mark} = {1 << at}' for at, mark in enumerate(MARKS))} }};",
        f"static const char *const GIVEN_NAMES[] = {{{', '.join(map(_text, sorted(GIVEN_NAMES)))}}};",
        f"enum {{ GIVEN_COUNT = {len(GIVEN_NAMES)} }};",
        f"static const u8 BASE32_PAIRS[1024][2] = {{{', '.join(map(_list, product(_BASE32, _BASE32)))}}};",
        f"static const u8 VERHOEFF_D[10][10] = {{{', '.join(map(_list, checks.VERHOEFF_D))}}};",
        f"static const u8 VERHOEFF_P[8][10] = {{{', '.join(map(_list, checks.VERHOEFF_P))}}};",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rarest(hint: str) -> int:
    """Where in a hint the two bytes stand that other cells, numbers above all, have least."""
    common = "-.:/etaoinshrdlcumwfgypbvkxjqz"
    rank = [common.find(byte) if byte in common else len(common) for byte in hint]
    return max(range(len(hint) - 1), key=lambda at: rank[at] + rank[at + 1])


def _name(check: Callable[..., Any], known: set[str]) -> str:
    name = check.__name__.lstrip("_")
    if name not in known:
        raise LookupError(f"kernel.c has no check_{name}")
    return f"check_{name}"


def _forms(known: set[str]) -> str:
    """The written forms in order of their width, and of each width the first."""
    every = (*((form, "SHAPED") for form in numbers.FORMS), *((form, "BARE") for form in numbers.LOOSE_FORMS))
    written = sorted(every, key=lambda each: each[0][1])
    forms = [form for form, _ in written]
    rows = [
        f"    {{{entity}, {evidence}, {width}, {len(places)}, {_list(places)}, {_text(allowed.decode())}, "
        f"{_name(check, known)}}},"
        for (entity, width, places, allowed, check), evidence in written
    ]
    most, widest = max(len(form[2]) for form in forms), forms[-1][1] + 1
    first = [sum(form[1] < width for form in forms) for width in range(widest + 1)]
    return (
        f"static const struct {{ int entity, evidence, width, places, at[{most}]; const char *allowed; "
        "int (*check)(const u8 *, int); } FORMS[] = {\n" + "\n".join(rows) + "\n};\n"
        f"enum {{ WIDEST_FORM = {widest}, MOST_FORMS = {max(Counter(form[1] for form in forms).values())} }};\n"
        f"static const int FORMS_FROM[] = {_list(first)};\n"
    )


def _by_width(known: set[str]) -> str:
    cases: list[str] = []
    for width in sorted({width for widths, _ in numbers.BY_WIDTH.values() for width in widths}):
        hits = " ".join(
            f"hit(f, {entity}, evidence, {_name(check, known)}(d, w));"
            for entity, (widths, check) in numbers.BY_WIDTH.items()
            if width in widths
        )
        cases.append(f"    case {width}: {hits} break;")
    body = "\n".join(cases)
    return (
        f"static void by_width(Found *f, const u8 *d, int w, int evidence) {{\n    switch (w) {{\n{body}\n    }}\n}}\n"
    )


def _library() -> Path | None:
    return compiled("kernel", source())


@dataclass(frozen=True)
class Part:
    """What a call of the kernel found.

    Args:
        done: The first cell that it did not come to.
        rows, ends, text: Of the candidates the cells, and where they end in their joined text.
        candidates, keys, valid: Of the hits the candidates, the entity and evidence, and whether they pass the checks.
        back: The cells that must be searched in Python.
    """

    done: int
    rows: Ints
    ends: Ints
    text: Bytes
    candidates: Ints
    keys: npt.NDArray[np.int16]
    valid: Bytes
    back: Ints


@dataclass(frozen=True)
class Counted:
    """What `Kernel.tally` counted, by key.

    Args:
        cells, whole: Of each key in how many rows valid hits stand, and in how many they fill the cell.
        sampled: Of each key the hashes of a sample, and whether these candidates pass the checks; those with any.
        back: The cells that must be searched in Python.
    """

    cells: Ints
    whole: Ints
    sampled: dict[int, tuple[Hashes, Bytes]]
    back: Ints


@dataclass(frozen=True)
class _Arrays:
    """Where the kernel writes what it finds; memory that is not written to is never claimed."""

    found: tuple[npt.NDArray[Any], ...]

    @classmethod
    def of(cls, room: int) -> _Arrays:
        """For so many candidates."""
        hits, text_bytes = room * _MOST_HITS, max(room * 64, 3 * LONGEST_CELL)
        found = (
            np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64),
            np.empty(text_bytes, np.uint8), np.empty(hits, np.int64), np.empty(hits, np.int16),
            np.empty(hits, np.uint8), np.empty(room, np.int64),
        )  # fmt: skip
        return cls(found)

    @property
    def text(self) -> Bytes:
        return self.found[3]

    @property
    def pointers(self) -> list[int]:
        return [each.ctypes.data for each in self.found]

    @property
    def without_text(self) -> list[int]:
        """Of all but the text and the last, where cells are handed back: those may be more."""
        return [each.ctypes.data for each in self.found[:-1] if each is not self.text]

    def part(self, done: int, counts: Ints) -> Part:
        """What a call wrote."""
        candidates, hits, used, returned = counts[:4].tolist()
        rows, _, ends, text, of, keys, valid, back = self.found
        return Part(
            done, rows[:candidates].copy(), ends[:candidates].copy(), text[:used].copy(), of[:hits].copy(),
            keys[:hits].copy(), valid[:hits].copy(), back[:returned].copy(),
        )  # fmt: skip


@dataclass(frozen=True)
class _Tables:
    """The tables of samples, all zeros between calls, and where a call leaves what they held."""

    table: Hashes
    notes: npt.NDArray[np.uint16]
    hashes: Hashes
    marks: Bytes

    @classmethod
    def of(cls, wanted: int) -> _Tables:
        """For so many hashes."""
        slots, most = _SLOTS_EACH * wanted, 2 * wanted
        return cls(
            np.zeros(slots, np.uint64), np.zeros(slots, np.uint16), np.empty(most, np.uint64), np.empty(most, np.uint8)
        )


class _Own(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.room = 0
        self.arrays: _Arrays | None = None
        self.tables: dict[int, _Tables] = {}


class _Asked(ctypes.Structure):
    """The kernel's struct Ask."""

    _fields_ = (
        ("home", ctypes.c_void_p),
        ("home_plans", ctypes.c_int64),
        ("abroad", ctypes.c_void_p),
        ("words", ctypes.c_void_p),
        ("word_entities", ctypes.c_void_p),
        ("words_with", ctypes.c_void_p),
    )


class Ask:
    """What a scan asks of hits, laid out for the kernel.

    Args:
        home: The numbering plans of numbers without a country's code, as automata (see `plans`).
        abroad: The plan of numbers behind a plus sign.
        words: By entity the words that speak for it: ASCII in lower case, a letter first.
    """

    def __init__(self, home: Sequence[Automaton], abroad: Automaton, words: Mapping[str, tuple[str, ...]]) -> None:
        by_word: dict[bytes, int] = {}
        for at, entity in enumerate(ENTITIES):
            for word in words.get(entity, ()):
                by_word[word.encode()] = by_word.get(word.encode(), 0) | 1 << at
        ordered = sorted(by_word)
        rows, row_abroad = [_in_rows(plan) for plan in home], _in_rows(abroad)
        plans = (ctypes.c_void_p * len(home))(*(plan.ctypes.data for plan in rows))
        texts = (ctypes.c_char_p * len(ordered))(*ordered)
        entities = np.array([by_word[word] for word in ordered], np.uint64)
        begins = np.searchsorted([word[0] for word in ordered], np.arange(97, 124)).astype(np.int64)
        self._kept = (rows, row_abroad, plans, texts, entities, begins)
        self.asked = _Asked(
            ctypes.addressof(plans), len(home), row_abroad.ctypes.data, ctypes.addressof(texts), entities.ctypes.data,
            begins.ctypes.data,
        )  # fmt: skip


def _in_rows(plan: Automaton) -> npt.NDArray[np.uint16]:
    """An automaton as the kernel walks it: rows of sixteen, of small numbers, so that more of them stay at hand."""
    if len(plan) > 2**16:
        raise LookupError("a numbering plan has more states than the kernel counts; name fewer telephone regions")
    rows = np.zeros((len(plan), 16), np.uint16)
    rows[:, : plan.shape[1]] = plan
    return rows


class Kernel:
    """The loaded kernel.

    Args:
        library: The compiled library.
    """

    def __init__(self, library: Path) -> None:
        self._dll = ctypes.CDLL(str(library))
        self._dll.lintas_start()
        self._search = self._dll.lintas_search
        self._search.restype = ctypes.c_int64
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._search.argtypes = [pointer, pointer, number, number, *[pointer] * 8, number, number, pointer]
        self._tally = self._dll.lintas_tally
        self._tally.restype = number
        self._tally.argtypes = [
            pointer, pointer, pointer, number, *[pointer] * 10, number, number, *[pointer] * 7,
        ]  # fmt: skip
        self._hashes = self._dll.lintas_hashes
        self._hashes.restype = None
        self._hashes.argtypes = [pointer, pointer, number, pointer]
        self._sample = self._dll.lintas_sample
        self._sample.restype = number
        self._sample.argtypes = [pointer, pointer, pointer, number, ctypes.c_uint64, number, *[pointer] * 7]
        self._longest = self._dll.lintas_longest
        self._longest.restype = number
        self._longest.argtypes = [pointer, number, number]
        self._plain = self._dll.lintas_plain
        self._plain.restype = ctypes.c_int
        self._plain.argtypes = [pointer, pointer, number]
        self._referred = self._dll.lintas_referred
        self._referred.restype = number
        self._referred.argtypes = [pointer, number, number, ctypes.c_int, pointer, number]
        self._entries = self._dll.lintas_entries
        self._entries.restype = number
        self._entries.argtypes = [pointer, number, number, pointer, pointer, pointer]
        self._texts = self._dll.lintas_texts
        self._texts.restype = number
        self._texts.argtypes = [pointer, number, number, ctypes.c_int, pointer, pointer]
        self._digests = self._dll.lintas_digests
        self._digests.restype = None
        self._digests.argtypes = [pointer, number, pointer, pointer, number, ctypes.c_int, ctypes.c_int, pointer]
        self._numbers = self._dll.lintas_numbers
        self._numbers.restype = number
        self._numbers.argtypes = [pointer, number, ctypes.c_int, number, pointer]
        self._laid = self._dll.lintas_laid
        self._laid.restype = number
        self._laid.argtypes = [pointer, pointer, number, pointer, number, pointer]
        self._replace = self._dll.lintas_replace
        self._replace.restype = number
        self._replace.argtypes = [
            pointer, pointer, number, pointer, pointer, number, ctypes.c_int, pointer, pointer, pointer, number,
            pointer, pointer, number, pointer,
        ]  # fmt: skip
        self._own = _Own()

    def search(self, offsets: Ints, data: Bytes, first: int, room: int) -> Part:
        """Search cells from `first` on, as far as there is room for so many candidates.

        Args:
            offsets, data: A string column of Arrow: where the cells begin, one more than there are, and their bytes.
            first: The first cell.
            room: For how many candidates there is room.
        """
        found = self._arrays(room)
        counts = np.zeros(4, np.int64)
        last = min(len(offsets) - 1, first + room)
        done: int = self._search(
            offsets.ctypes.data, data.ctypes.data, first, last, *found.pointers, room, len(found.text),
            counts.ctypes.data,
        )  # fmt: skip
        return found.part(done, counts)

    def hashes(self, offsets: Ints, data: Bytes) -> Hashes:
        """The hash of each cell, as `candidates.hashed` makes it.

        Args:
            offsets, data: As for `search`.
        """
        made = np.empty(len(offsets) - 1, np.uint64)
        self._hashes(offsets.ctypes.data, data.ctypes.data, len(made), made.ctypes.data)
        return made

    def plain(self, offsets: Ints, data: Bytes) -> bool:
        """Whether all cells are of forms that no entity has, as `patterns.PLAIN` says.

        Args:
            offsets, data: As for `search`.
        """
        return bool(self._plain(offsets.ctypes.data, data.ctypes.data, len(offsets) - 1))

    def tally(
        self, offsets: Ints, data: Bytes, hashes: Hashes, room: int, ask: Ask, rows: Ints | None,
        weights: Ints | None, bounds: Hashes, wanted: int,
    ) -> Counted:  # fmt: skip
        """Search cells, and count what they hold.

        Args:
            offsets, data, room: As for `search`; cells for which there is no room are handed back.
            hashes: Of each cell, as `hashes` answers them.
            ask: What is asked of hits.
            rows: For each cell the row it belongs to; None for a row each.
            weights: For how many rows each cell stands; None for one each.
            bounds: By key, above which hash candidates are not sampled.
            wanted: How many different candidates are sampled of each key, a power of two; a few more may be.
        """
        cells = len(offsets) - 1
        found, tables, back = self._arrays(room), self._tables(len(KEYS) * wanted), np.empty(cells, np.int64)
        tallied, whole, counts = np.zeros(len(KEYS), np.int64), np.zeros(len(KEYS), np.int64), bounds.copy()
        given = [None if each is None else each.ctypes.data for each in (rows, weights)]
        returned: int = self._tally(
            offsets.ctypes.data, data.ctypes.data, hashes.ctypes.data, cells, *given, ctypes.byref(ask.asked),
            *found.without_text, back.ctypes.data, room, wanted, tables.table.ctypes.data, tables.notes.ctypes.data,
            tallied.ctypes.data, whole.ctypes.data, counts.ctypes.data, tables.hashes.ctypes.data,
            tables.marks.ctypes.data,
        )  # fmt: skip
        sampled: dict[int, tuple[Hashes, Bytes]] = {}
        at = 0
        for key in np.flatnonzero(counts).tolist():
            end = at + int(counts[key])
            sampled[key] = tables.hashes[at:end].copy(), tables.marks[at:end].copy()
            at = end
        return Counted(tallied, whole, sampled, back[:returned])

    def sample(
        self, offsets: Ints, data: Bytes, hashes: Hashes, bound: int, wanted: int
    ) -> tuple[Hashes, Bytes, Ints, Hashes]:
        """A sample of the different cells whose hash is not above a bound, with what they look like.

        Args:
            offsets, data: As for `search`.
            hashes: Of each cell, as `hashes` answers them.
            bound: The largest hash that is wanted.
            wanted: How many are wanted, a power of two; a few more may be answered.

        Returns:
            Their hashes and marks, and of those that must be marked in Python the numbers and hashes.
        """
        cells = len(offsets) - 1
        tables = self._tables(wanted)
        unknown, unknown_hashes = np.empty(2 * wanted, np.int64), np.empty(2 * wanted, np.uint64)
        unknowns = np.zeros(1, np.int64)
        sampled: int = self._sample(
            offsets.ctypes.data, data.ctypes.data, hashes.ctypes.data, cells, bound, wanted,
            tables.table.ctypes.data, tables.notes.ctypes.data, tables.hashes.ctypes.data, tables.marks.ctypes.data,
            unknown.ctypes.data, unknown_hashes.ctypes.data, unknowns.ctypes.data,
        )  # fmt: skip
        left = int(unknowns[0])
        return tables.hashes[:sampled].copy(), tables.marks[:sampled].copy(), unknown[:left], unknown_hashes[:left]

    def _tables(self, wanted: int) -> _Tables:
        """This thread's tables for samples of so many."""
        if wanted not in self._own.tables:
            self._own.tables[wanted] = _Tables.of(wanted)
        return self._own.tables[wanted]

    def _arrays(self, room: int) -> _Arrays:
        """This thread's arrays for what is found, with room for at least so many candidates."""
        if self._own.arrays is None or self._own.room < room:
            self._own.room, self._own.arrays = room, _Arrays.of(room)
        return self._own.arrays

    def longest(self, page: Bytes, values: int) -> int | None:
        """The bytes of the longest value in a dictionary page of Parquet with so many texts; None when it is none."""
        found: int = self._longest(page.ctypes.data, len(page), values)
        return found if found >= 0 else None

    def referred(self, page: Bytes, values: int, counts: Ints, *, optional: bool) -> bool:
        """Count how often a page of Parquet refers to each entry of its dictionary. Answers whether it could be read.

        Args:
            page: A data page of the first version.
            values: How many values it has.
            counts: By entry how often it was referred to so far, which is added to.
            optional: Whether values may be missing.
        """
        there: int = self._referred(
            page.ctypes.data, len(page), values, optional, counts.ctypes.data, len(counts)
        )  # fmt: skip
        return there >= 0

    def entries(self, page: Bytes, counts: Ints) -> tuple[Ints, Bytes] | None:
        """The texts of a dictionary page of Parquet to which anything refers, laid out as for `search`.

        Args:
            page: The page.
            counts: By entry how often it is referred to; they become those of the texts that are answered.
        """
        offsets, text = np.empty(len(counts) + 1, np.int64), np.empty(len(page) + _SPARE_BYTES, np.uint8)
        kept: int = self._entries(
            page.ctypes.data, len(page), len(counts), counts.ctypes.data, text.ctypes.data, offsets.ctypes.data
        )  # fmt: skip
        return (offsets[: kept + 1], text) if kept >= 0 else None

    def texts(self, page: Bytes, values: int, *, optional: bool) -> tuple[Ints, Bytes] | None:
        """The texts of a page of Parquet that holds them itself, laid out as for `search`; None when it cannot be read.

        Args:
            page, values, optional: As for `referred`.
        """
        most = min(values, len(page) // 4)
        offsets, text = np.empty(most + 1, np.int64), np.empty(len(page) + _SPARE_BYTES, np.uint8)
        kept: int = self._texts(
            page.ctypes.data, len(page), values, optional, text.ctypes.data, offsets.ctypes.data
        )  # fmt: skip
        return (offsets[: kept + 1], text) if kept >= 0 else None

    def numbers(self, page: Bytes, width: int, count: int) -> Ints | None:
        """So many numbers of so many bits each, written as runs; None when they cannot be read.

        Args:
            page: The runs.
            width: At most 32.
            count: How many there are.
        """
        found = np.empty(count, np.int64)
        odd: int = self._numbers(page.ctypes.data, len(page), width, count, found.ctypes.data)
        return None if odd else found

    def laid(self, offsets: Ints, data: Bytes, which: Ints | None, before: Bytes) -> Bytes:
        """Texts one behind the other, each behind its length in four bytes, as pages of Parquet hold them.

        Args:
            offsets, data: As for `search`.
            which: The numbers of those that are wanted, each less than there are; None for all.
            before: What stands before them.
        """
        sizes = np.diff(offsets) if which is None else np.diff(offsets)[which]
        made = np.empty(len(before) + int(sizes.sum()) + 4 * len(sizes) + _SPARE_BYTES, np.uint8)
        made[: len(before)] = before
        used: int = self._laid(
            offsets.ctypes.data, data.ctypes.data, len(data), None if which is None else which.ctypes.data, len(sizes),
            made.ctypes.data + len(before),
        )  # fmt: skip
        return made[: len(before) + used]

    def replaced(
        self, texts: tuple[Ints, Bytes], pieces: tuple[Ints, Bytes], replacements: tuple[Ints, Bytes]
    ) -> tuple[Ints, Bytes]:
        """Texts in which every piece is replaced, from left to right, the first piece in order that stands at a place.

        Args:
            texts: Laid out as for `search`.
            pieces: The different pieces, none of which is empty.
            replacements: What stands in their places.
        """
        sizes = np.diff(pieces[0])
        width = min(8, int(sizes.min()))
        slots = np.full(1 << int(2 * len(sizes)).bit_length(), -1, np.int32)
        following, ends = np.empty(len(sizes), np.int32), np.zeros(len(texts[0]), np.int64)
        room = 2 * int(texts[0][-1] - texts[0][0]) + 1024
        while True:
            made = np.empty(room, np.uint8)
            used: int = self._replace(
                texts[0].ctypes.data, texts[1].ctypes.data, len(ends) - 1, pieces[0].ctypes.data,
                pieces[1].ctypes.data, len(sizes), width, replacements[0].ctypes.data, replacements[1].ctypes.data,
                slots.ctypes.data, len(slots), following.ctypes.data, made.ctypes.data, room, ends[1:].ctypes.data,
            )  # fmt: skip
            if used >= 0:
                return ends, made[:used]
            room *= 4
            slots[:] = -1

    def digests(self, key: bytes, offsets: Ints, data: Bytes, *, tokens: bool, portable: bool = False) -> Bytes:
        """The HMAC-SHA256 of each string, written as `treatments.token` and `treatments.hashed` write it, joined.

        Args:
            key: The secret.
            offsets, data: A string column of Arrow: where the strings begin, one more than there are, and their bytes.
            tokens: Whether tokens are wanted, of TOKEN_CHARACTERS each; else hashes, of HASH_CHARACTERS each.
            portable: Whether to leave the processor's own instructions for SHA-256 aside.
        """
        if len(key) > _BLOCK_BYTES:
            key = hashlib.sha256(key).digest()
        values = len(offsets) - 1
        out = np.empty(values * (TOKEN_CHARACTERS if tokens else HASH_CHARACTERS), np.uint8)
        self._digests(
            key, len(key), offsets.ctypes.data, data.ctypes.data, values, tokens, portable, out.ctypes.data
        )  # fmt: skip
        return out


_LOADING = threading.Lock()


def kernel() -> Kernel | None:
    """The kernel of this machine; None when it cannot be had or is not wanted."""
    with _LOADING:
        return _kernel()


@functools.cache
def _kernel() -> Kernel | None:
    try:
        library = _library()
        return Kernel(library) if library else None
    except (OSError, LookupError):
        return None
