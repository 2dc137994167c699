"""IBANs as people write them: in groups of any size, with blanks, dots or dashes between them.

A country's IBANs have one length, so that where one ends is known where it begins. Right ones are taken out of a cell
before anything else is looked for in it: neither a word behind one nor the digits in it are taken for something else.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tasks.core.detectors import codes
from tasks.core.detectors.candidates import Bytes, Candidates, Evidence, Hits, Ints, Mask, buffers

ENTITY = "IBAN_CODE"

_PERHAPS = r"(?-u:\b)(?:[A-Za-z]{2}|[A-Z]{2} )[0-9]{2}(?:[ .-]?[A-Za-z0-9]){11}"
_WIDTHS = np.zeros(1 << 16, np.int64)
for _country, _width in codes.IBAN_WIDTHS.items():
    _WIDTHS[ord(_country[0]) << 8 | ord(_country[1])] = _width
_WIDEST = max(codes.IBAN_WIDTHS.values())
_SEPARATORS = b" .-"


def _flags(bytes_of: bytes) -> Mask:
    flags = np.zeros(256, bool)
    flags[np.frombuffer(bytes_of, np.uint8)] = True
    return flags


_DIGIT = _flags(b"0123456789")
_UPPER = _flags(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LETTER = _UPPER | _flags(b"abcdefghijklmnopqrstuvwxyz")
_WORD = _LETTER | _DIGIT | _flags(b"_")
_SEPARATOR = _flags(_SEPARATORS)


def written(cells: pl.Series) -> tuple[Hits | None, Candidates]:
    """The IBANs in cells, and what is left of the cells without the right ones.

    Wrong ones are told of when they are digits behind the country's code, as order numbers may be: how many of a
    column's are wrong tells the one from the other. They stay in their cells.

    Args:
        cells: The cells, none of which is null.
    """
    rows = cells.str.contains(_PERHAPS).arg_true().cast(pl.Int64).to_numpy()
    whole = Candidates(np.arange(len(cells)), cells)
    if not len(rows):
        return None, whole
    offsets, data = buffers(cells.gather(rows))
    starts, ends, valid, numeric = _parsed(offsets, data)
    kept: list[int] = []
    free = 0
    for at in np.flatnonzero(valid | numeric).tolist():
        if starts[at] >= free:
            kept.append(at)
            free = int(ends[at]) if valid[at] else free
    if not kept:
        return None, whole
    starts, ends, valid = starts[kept], ends[kept], valid[kept]
    of = np.searchsorted(offsets, starts, side="right") - 1
    content = data.tobytes()
    texts = [content[start:end].decode() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    found = Candidates(rows[of], pl.Series(texts, dtype=pl.String))
    begins = offsets[of]
    pieces = np.column_stack([starts - begins, ends - begins])[valid].tolist()
    hits = Hits(ENTITY, Evidence.SHAPED, found, np.arange(len(kept)), valid)
    return hits, _without(whole, rows[of[valid]].tolist(), pieces)


def _without(cells: Candidates, rows: list[int], pieces: list[tuple[int, int]]) -> Candidates:
    """The cells without pieces of them, in order; a line end stands for each, which nothing reaches across."""
    rest: dict[int, list[bytes]] = {}
    done: dict[int, int] = {}
    texts = {row: cells.text[row].encode() for row in set(rows)}
    for row, (start, end) in zip(rows, pieces, strict=True):
        rest.setdefault(row, []).append(texts[row][done.get(row, 0) : start])
        done[row] = end
    for row, text in texts.items():
        rest[row].append(text[done[row] :])
    keep = np.ones(len(cells), bool)
    keep[list(rest)] = False
    others = cells.where(keep)
    left = {row: b"\n".join(parts).decode() for row, parts in rest.items() if any(parts)}
    joined = np.concatenate([others.rows, np.array(list(left), np.int64)])
    order = np.argsort(joined, kind="stable")
    added = pl.Series(others.text.name, list(left.values()), dtype=pl.String)
    return Candidates(joined[order], pl.concat([others.text, added]).gather(order))


def _parsed(offsets: Ints, data: Bytes) -> tuple[Ints, Ints, Mask, Mask]:
    """Where IBANs may begin and end in the bytes of cells, whether each is right, and whether it has digits alone."""
    data = np.concatenate([data[: offsets[-1]], np.zeros(_WIDEST * 2, np.uint8)])
    word, letter, digit = _WORD[data], _LETTER[data], _DIGIT[data]
    first = np.flatnonzero(letter[:-1] & letter[1:])
    cell = np.searchsorted(offsets, first, side="right") - 1
    last = offsets[cell + 1]
    edge = (first == offsets[cell]) | ~word[first - 1]
    code = (data[first].astype(np.int64) & 0xDF) << 8 | data[first + 1] & 0xDF
    blank = (data[first + 2] == ord(" ")) & _UPPER[data[first]] & _UPPER[data[first + 1]]
    behind = first + 2 + blank
    start = np.flatnonzero(edge & (_WIDTHS[code] > 0) & digit[behind] & digit[behind + 1] & (behind + 2 <= last))
    first, last, at, widths = first[start], last[start], behind[start] + 2, _WIDTHS[code[start]]
    compact = np.zeros((len(first), _WIDEST), np.uint8)
    compact[:, 0], compact[:, 1] = code[start] >> 8, code[start] & 0xFF
    compact[:, 2], compact[:, 3] = data[at - 2], data[at - 1]
    fits, numeric = np.ones(len(first), bool), np.ones(len(first), bool)
    for place in range(4, _WIDEST):
        more = np.flatnonzero(fits & (place < widths))
        here = at[more]
        here = here + (_SEPARATOR[data[here]] & (here < last[more]))
        fits[more] = (here < last[more]) & (letter[here] | digit[here])
        numeric[more] &= digit[here]
        byte = data[here]
        compact[more, place] = np.where(byte >= ord("a"), byte - 32, byte)
        at[more] = here + 1
    fits &= (at >= last) | ~word[at]
    valid = np.zeros(len(first), bool)
    for width in np.unique(widths[fits]):
        which = np.flatnonzero(fits & (widths == width))
        valid[which] = codes.iban(compact[which, :width])
    return first, at, valid & fits, numeric & fits
