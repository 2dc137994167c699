"""Entities of a policy's own: a regular expression, and perhaps a check and words that must speak for it.

The expression is RE2's (https://github.com/google/re2/wiki/Syntax), as Arrow has it: no pattern makes it search longer
than in proportion to the text, so that nobody's pattern can stop the gate. What RE2 refuses does not load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import polars as pl

from tasks.core.arrow import compute as pc
from tasks.core.arrow import pa
from tasks.core.detectors import checks
from tasks.core.detectors.candidates import DIGIT, Bytes, Candidates, Evidence, Hits, Ints, Mask, buffers, strings
from tasks.core.detectors.detection import OwnEntity

LONGEST_PATTERN = 1000
_ROUNDS = 64


def pattern_problem(pattern: str) -> str:
    """Why a regular expression cannot be an entity's; nothing when it can.

    >>> pattern_problem("BK-[0-9]{8}"), pattern_problem("(?=x)"), pattern_problem("x*")
    ('', 'is not a regular expression of RE2 (no look-around, no back-references)', 'matches an empty text')
    """
    if len(pattern) > LONGEST_PATTERN:
        return f"is longer than {LONGEST_PATTERN} characters"
    try:
        empty = pc.match_substring_regex(pa.array([""]), pattern)[0].as_py()
    except pa.ArrowException:
        return "is not a regular expression of RE2 (no look-around, no back-references)"
    return "matches an empty text" if empty else ""


def own_hits(cells: pl.Series, own: OwnEntity) -> Iterator[Hits]:
    """Where the entity stands in the cells, none of which is null; the rows of hits are cells' numbers, in order.

    A cell in which it stands very often is a hit as a whole from the 65th time on, so that the work stays in
    proportion to the text.
    """
    rows: list[Ints] = []
    texts: list[pl.Series] = []
    left = np.arange(len(cells))
    array: Any = cast("Any", cells).to_arrow(compat_level=pl.CompatLevel.oldest())
    for _ in range(_ROUNDS):
        starts = pc.find_substring_regex(array, own.pattern).to_numpy(zero_copy_only=False)
        there = np.flatnonzero(starts >= 0)
        if not len(there):
            break
        left, array = left[there], array.take(there)
        without = pc.replace_substring_regex(array, own.pattern, "\n", max_replacements=1)
        offsets, data = buffers(pl.Series(array))
        lengths = np.diff(offsets) - (pc.binary_length(without).to_numpy(zero_copy_only=False) - 1)
        begins = np.where(lengths > 0, offsets[:-1] + starts[there], offsets[:-1])
        texts.append(_cut(data, begins, np.where(lengths > 0, lengths, np.diff(offsets))))
        rows.append(left)
        whole = lengths <= 0  # Nothing but an edge was matched, and would be again.
        left, array = left[~whole], without.filter(pa.array(~whole))
    often = len(left) if len(rows) == _ROUNDS else 0
    if often:
        rows.append(left)
        texts.append(cells.gather(left))
    if not rows:
        return
    joined = np.concatenate(rows)
    order = np.argsort(joined, kind="stable")
    found = Candidates(joined[order], pl.concat(texts).gather(order))
    valid = CHECKS[own.check](found) if own.check else np.ones(len(found), bool)
    if often:
        valid |= order >= len(joined) - often
    evidence = Evidence.BARE if own.words else Evidence.SHAPED
    yield Hits(own.name, evidence, found, np.arange(len(found)), valid)


def _cut(data: Bytes, begins: Ints, lengths: Ints) -> pl.Series:
    ends = np.cumsum(lengths)
    places = np.arange(int(ends[-1])) + np.repeat(begins - (ends - lengths), lengths)
    return strings(ends, data[places])


def _by_digits(check: Callable[[checks.Digits], Mask]) -> Callable[[Candidates], Mask]:
    def passes(found: Candidates) -> Mask:
        valid = np.zeros(len(found), bool)
        widths = found.count(DIGIT)
        for width in np.unique(widths[widths > 1]):
            which = np.flatnonzero(widths == width)
            valid[which] = check(found.digits(which, int(width)))
        return valid

    return passes


def _mod97(found: Candidates) -> Mask:
    """Letters and digits, A being 10, are 1 modulo 97 (ISO 7064, MOD 97-10)."""
    compact = found.text.str.replace_all("[^0-9A-Za-z]", "").str.to_uppercase()
    offsets, data = buffers(compact)
    widths = np.diff(offsets)
    rest = np.zeros(len(found), np.int64)
    for at in range(int(widths.max())):
        more = np.flatnonzero(widths > at)
        byte = data[offsets[more] + at].astype(np.int64)
        rest[more] = np.where(byte <= 57, rest[more] * 10 + byte - 48, rest[more] * 100 + byte - 55) % 97
    return rest == 1


CHECKS: dict[str, Callable[[Candidates], Mask]] = {
    "luhn": _by_digits(checks.luhn),
    "verhoeff": _by_digits(checks.verhoeff),
    "mod97": _mod97,
}
"""The checks of `OWN_CHECKS`."""
