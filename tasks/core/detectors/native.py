"""The native kernel: `kernel.c` and `digests.c`, compiled once where a compiler is.

The tables of the Python modules are written into the program, so that they exist once.

Where there is no compiler, or the environment variable LINTAS_NATIVE is 0, `kernel` answers None and everything is
searched by polars and numpy alone, with the same answers. The library lies in a directory that only the user may
write to, under a name that holds the digest of its source, so that a new version never meets an old library.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.detectors import checks, codes, numbers, patterns
from tasks.core.detectors.candidates import CODE_COUNTS, LEAST_IBAN, Bytes, Evidence, Ints

EVIDENCE = (Evidence.SHAPED, Evidence.BARE, Evidence.CODED)
SHAPED_ENTITIES = ("EMAIL_ADDRESS", "IP_ADDRESS", "MAC_ADDRESS", "DATE_OF_BIRTH", "IBAN_CODE", "CREDIT_CARD")
ENTITIES = tuple(dict.fromkeys((*SHAPED_ENTITIES, *numbers.BY_WIDTH, *(form[0] for form in numbers.FORMS))))
"""The entities that the kernel tells of; a hit's key is four times the position, and the evidence's position."""

LONGEST_CELL = 60_000
_CELL_HITS = 32
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC", "-fno-strict-aliasing")
_SOURCE = Path(__file__).with_name("kernel.c")
_DIGESTS = Path(__file__).with_name("digests.c")
_BLOCK_BYTES = 64
TOKEN_CHARACTERS, HASH_CHARACTERS = 30, 64


def source() -> str:
    """The whole program: the tables of `checks`, `codes`, `numbers` and `patterns`, `digests.c` and `kernel.c`."""
    text = _SOURCE.read_text()
    known = set(re.findall(r"\bcheck_(\w+)\(", text))
    head, tail = text.split("/* What a candidate may be. */", 1)
    forms, tail_begin = _forms(known), _by_width(known)
    cut = "static void digit_strings("
    before, after = tail.split(cut, 1)
    return "\n".join((_tables(), _DIGESTS.read_text(), head, forms, before, tail_begin, cut + after))


def unknown_checks() -> set[str]:
    """The names of checks that the kernel has no twin of; it must have them all."""
    known = set(re.findall(r"\bcheck_(\w+)\(", _SOURCE.read_text()))
    used = {check.__name__ for _, check in numbers.BY_WIDTH.values()} | {form[-1].__name__ for form in numbers.FORMS}
    return {name.lstrip("_") for name in used} - known


def _list(values: Any) -> str:
    return "{" + ", ".join(str(int(value)) for value in values) + "}"


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _tables() -> str:
    by_anchor = sorted(patterns.HINTS, key=lambda hint: hint[_rarest(hint)])
    hints = [f"{{{_text(hint)}, {len(hint)}, {_rarest(hint)}}}" for hint in by_anchor]
    leading = {len(form) - len(form.lstrip("9")) for form in patterns.RARE_FORMS} - {0}
    networks = [f"{{{low}, {high}, {sum(1 << width for width in widths)}}}" for low, high, widths in checks.NETWORKS]
    ibans = [0] * 26 * 26
    for country, width in codes.IBAN_WIDTHS.items():
        ibans[(ord(country[0]) - 65) * 26 + ord(country[1]) - 65] = width
    pairs = sorted({pair for counts in CODE_COUNTS.values() for pair in counts})
    lines = [
        "#include <stdint.h>",
        "#include <string.h>",
        "typedef uint8_t u8; typedef int32_t i32; typedef int64_t i64;",
        f"enum {{ {', '.join(ENTITIES)} }};",
        f"enum {{ HINT_COUNT = {len(hints)}, NETWORK_COUNT = {len(networks)}, RARE_FORMS = {len(patterns.RARE_FORMS)},",
        f"       RARE_DIGITS = {sum(1 << count for count in leading)},",
        f"       CODE_COUNT_PAIRS = {len(pairs)}, LEAST_IBAN = {LEAST_IBAN}, LONGEST_CELL = {LONGEST_CELL},",
        f"       FORM_COUNT = {len(numbers.FORMS)}, LEAST_DIGITS = {patterns.LEAST_DIGITS},",
        f"       WIDEST_PHONE = {numbers.WIDEST_PHONE},",
        f"       WIDEST = {max(max(widths) for widths, _ in numbers.BY_WIDTH.values())} }};",
        f"static const struct {{ const char *text; int size, anchor; }} HINTS[] = {{{', '.join(hints)}}};",
        f"static const struct {{ i32 low, high; i32 widths; }} NETWORKS[] = {{{', '.join(networks)}}};",
        f"static const char *const RARE[] = {{{', '.join(map(_text, patterns.RARE_FORMS))}}};",
        f"static const u8 CODE_COUNTS[][2] = {{{', '.join(map(_list, pairs))}}};",
        f"static const u8 PROVINCES[100] = {_list(checks.PROVINCES)};",
        f"static const u8 CALLING_2[100] = {_list(at in checks.CALLING_2 for at in range(100))};",
        f"static const u8 CALLING_3[1000] = {_list(at in checks.CALLING_3 for at in range(1000))};",
        f"static const u8 IBAN_WIDTHS[676] = {_list(ibans)};",
        f"static const u8 VERHOEFF_D[10][10] = {{{', '.join(map(_list, checks.VERHOEFF_D))}}};",
        f"static const u8 VERHOEFF_P[8][10] = {{{', '.join(map(_list, checks.VERHOEFF_P))}}};",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rarest(hint: str) -> int:
    """Where in a hint the byte stands that other texts have least."""
    common = "etaoinshrdlcumwfgypbvkxjqz-/."
    return min(range(len(hint)), key=lambda at: -common.find(hint[at]) if hint[at] in common else -100)


def _name(check: Callable[..., Any], known: set[str]) -> str:
    name = check.__name__.lstrip("_")
    if name not in known:
        raise LookupError(f"kernel.c has no check_{name}")
    return f"check_{name}"


def _forms(known: set[str]) -> str:
    rows = [
        f"    {{{entity}, {width}, {len(places)}, {_list(places)}, {_text(allowed.decode())}, {_name(check, known)}}},"
        for entity, width, places, allowed, check in numbers.FORMS
    ]
    most = max(len(form[2]) for form in numbers.FORMS)
    kind = f"static const struct {{ int entity, width, places, at[{most}]; const char *allowed; "
    return kind + "int (*check)(const u8 *, int); } FORMS[] = {\n" + "\n".join(rows) + "\n};\n"


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


def _cache() -> Path:
    """Where libraries are kept. Raises OSError when it is not the user's alone."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base) / "lintas"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = directory.stat()
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o022):
        raise PermissionError(f"others may write to {directory}")
    return directory


def _library() -> Path | None:
    program = source()
    machine = f"{platform.system()}-{platform.machine()}"
    digest = hashlib.sha256("\n".join((program, *_FLAGS, machine)).encode()).hexdigest()[:24]
    path = _cache() / f"kernel-{digest}.so"
    if path.exists():
        return path
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        text, made = Path(scratch, "kernel.c"), Path(scratch, "kernel.so")
        text.write_text(program)
        done = subprocess.run([compiler, *_FLAGS, "-o", made, text], capture_output=True, check=False, timeout=120)
        if done.returncode:
            return None
        made.replace(path)
    return path


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
        self._search.argtypes = [pointer, pointer, number, number, *[pointer] * 7, number, number, pointer]
        self._digests = self._dll.lintas_digests
        self._digests.restype = None
        self._digests.argtypes = [pointer, number, pointer, pointer, number, ctypes.c_int, ctypes.c_int, pointer]
        self._own = threading.local()

    def search(self, offsets: Ints, data: Bytes, first: int, room: int) -> Part:
        """Search cells from `first` on, as far as there is room for so many candidates.

        Args:
            offsets, data: A string column of Arrow: where the cells begin, one more than there are, and their bytes.
            first: The first cell.
            room: For how many candidates there is room.
        """
        own = self._own
        if getattr(own, "room", 0) < room:
            own.room, own.arrays = room, _arrays(room)
        arrays: tuple[npt.NDArray[Any], ...] = own.arrays
        counts = np.zeros(4, np.int64)
        last = min(len(offsets) - 1, first + own.room)
        done: int = self._search(
            offsets.ctypes.data, data.ctypes.data, first, last, *(each.ctypes.data for each in arrays), room,
            len(arrays[2]), counts.ctypes.data,
        )  # fmt: skip
        found, hits, used, returned = counts.tolist()
        sizes = (found, found, used, hits, hits, hits, returned)
        return Part(done, *(array[:size].copy() for array, size in zip(arrays, sizes, strict=True)))

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


def _arrays(room: int) -> tuple[npt.NDArray[Any], ...]:
    hits, text_bytes = room * _CELL_HITS, max(room * 64, 2 * LONGEST_CELL)
    return (
        np.empty(room, np.int64), np.empty(room, np.int64), np.empty(text_bytes, np.uint8), np.empty(hits, np.int64),
        np.empty(hits, np.int16), np.empty(hits, np.uint8), np.empty(room, np.int64),
    )  # fmt: skip


@functools.cache
def kernel() -> Kernel | None:
    """The kernel of this machine; None when it cannot be had or is not wanted."""
    if os.environ.get("LINTAS_NATIVE") == "0":
        return None
    try:
        library = _library()
        return Kernel(library) if library else None
    except (OSError, subprocess.SubprocessError, LookupError):
        return None
