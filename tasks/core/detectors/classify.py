"""From candidates to hits: what each candidate may be, and how strong its written form speaks for it.

A candidate may be several things at once (sixteen digits may be a card and a NIK); `columns` decides by the whole
column. A hit says in which kind of evidence it stands, for chance differs between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from tasks.core.detectors import codes, forms, patterns
from tasks.core.detectors.candidates import (
    CODE_COUNTS,
    COLON,
    DASH,
    DIGIT,
    DOT,
    LEAST_IBAN,
    LETTER,
    PAREN,
    SPACE,
    Candidates,
    Evidence,
    Hits,
    Ints,
    Mask,
    all_valid,
    buffers,
)
from tasks.core.detectors.ibans import written
from tasks.core.detectors.numbers import digit_strings, phrases

_SECRET_BEGINS = np.zeros(256, bool)
_SECRET_BEGINS[np.frombuffer(b"-AaPpSseghdnrx", np.uint8)] = True


def classified(cells: pl.Series) -> Iterator[Hits]:
    """What cells, none of which is null, may hold; the rows of hits are the cells' numbers."""
    addresses, left = forms.addresses(cells)
    yield from addresses
    cells = cells if len(left) == len(cells) else cells.gather(left)
    alike, others = forms.alike(cells)
    if alike is not None:
        yield from in_cells(classify(alike), left)
        left, cells = left[others], cells.gather(others)
    ibans, rest = written(cells)
    if ibans:
        yield from in_cells(iter([ibans]), left)
    yield from in_cells(classify(Candidates.found(rest.text, patterns.ALL)), left[rest.rows])


def in_cells(found: Iterator[Hits], cells: Ints) -> Iterator[Hits]:
    """Hits with the rows counted in other cells: row n is there `cells[n]`."""
    here = there = None
    for each in found:
        if here is None or there is not each.found:
            here, there = each.found.in_cells(cells), each.found  # Most hits are of the same candidates.
        yield Hits(each.entity, each.evidence, here, each.which, each.valid)


def classify(found: Candidates, *, within: bool = False) -> Iterator[Hits]:
    """What the candidates may be; `within` a web address none of them is another one."""
    if not len(found):
        return
    lettered = found.count(LETTER) > 0
    at_sign = found.contains_where(lettered, patterns.AT_SIGN)
    url = found.contains_where(lettered & (not within), patterns.WEB_ADDRESS)
    secret = found.contains_where(lettered & _SECRET_BEGINS[found.first_byte], patterns.ANY_SECRET)
    email = at_sign & ~url & ~secret
    for entity, pattern in patterns.SECRET_KINDS.items() if secret.any() else ():
        yield from all_valid(entity, found, found.contains_where(secret, pattern))
    yield from all_valid("EMAIL_ADDRESS", found, email)
    if (url & ~secret).any():
        yield from _urls(found.where(url & ~secret))
    extended = found.contains_where(lettered & (found.first_byte <= ord("9")) & ~(url | email), patterns.EXTENSION)
    if extended.any():
        numbers = found.where(extended)
        yield from _numbers(Candidates(numbers.rows, numbers.text.str.replace(patterns.EXTENSION, "")))
    plain = ~(secret | url | email | extended)
    if (plain & lettered).any():
        yield from _codes(found.where(plain & lettered))
    if (plain & ~lettered).any():
        yield from _numbers(found.where(plain & ~lettered))


def _urls(found: Candidates) -> Iterator[Hits]:
    yield from all_valid("URL_CREDENTIALS", found, found.contains(patterns.URL_CREDENTIALS))
    yield from all_valid("URL", found, np.ones(len(found), bool))
    # An address may carry an e-mail or a number in its path or query. A user's name before the host is no e-mail.
    tails = found.text.str.replace(r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/\s@]*@)?", "").str.replace_all("%40", "@")
    inside = Candidates.found(tails, patterns.INSIDE_URL)
    if len(inside):
        yield from classify(Candidates(found.rows[inside.rows], inside.text), within=True)


def _codes(found: Candidates) -> Iterator[Hits]:
    colons = found.count(COLON)
    rest = np.ones(len(found), bool)
    if (colons >= 2).any() or (found.count(DASH) == 5).any() or (found.count(DOT) == 2).any():
        mac = found.contains(patterns.MAC_ADDRESS)
        ipv6 = ~mac & (colons >= 2) & found.contains(patterns.IPV6)
        yield from all_valid("MAC_ADDRESS", found, mac)
        yield from all_valid("IP_ADDRESS", found, ipv6)
        rest &= ~(mac | ipv6)
    if (found.lengths >= 26).any():
        crypto = rest & (found.lengths >= 26) & found.contains(patterns.CRYPTO)
        yield from all_valid("CRYPTO", found, crypto)
        rest &= ~crypto
    letters, digits = found.count(LETTER), found.count(DIGIT)
    for entity, pattern in patterns.CODE_KINDS.items():
        if entity == "IBAN_CODE":
            possible = rest & (letters >= 2) & (letters + digits >= LEAST_IBAN)
        else:
            possible = rest & np.logical_or.reduce([(letters == a) & (digits == n) for a, n in CODE_COUNTS[entity]])
        which = np.flatnonzero(possible)
        if not len(which):
            continue
        compact = found.text.gather(which).str.replace_all("[ -]", "").str.to_uppercase()
        shaped = compact.str.contains(pattern)
        which = which[shaped.to_numpy()]
        if len(which):
            fitting = compact.filter(shaped)
            valid = _by_width(fitting, codes.CHECKS[entity])
            yield Hits(entity, Evidence.SHAPED, found, which, valid)
            rest[which[valid]] = False
    coded = rest & (digits >= 9) & (digits <= 19) & (letters <= 12) & (found.first_byte > ord("9"))
    yield from digit_strings(found, coded, Evidence.CODED)


def _by_width(texts: pl.Series, check: Callable[[codes.Codes], Mask]) -> Mask:
    """Run a check over codes of any width, one width at a time."""
    offsets, data = buffers(texts)
    widths = np.diff(offsets)
    valid = np.zeros(len(texts), bool)
    for width in np.unique(widths):
        which = np.flatnonzero(widths == width)
        valid[which] = check(data[offsets[which][:, None] + np.arange(width)])
    return valid


def _numbers(found: Candidates, *, within: bool = False) -> Iterator[Hits]:
    digits, dots, colons = found.count(DIGIT), found.count(DOT), found.count(COLON)
    separators = dots + found.count(DASH) + found.count(SPACE)
    other = found.lengths - digits - separators - found.count(PAREN) - (found.first_byte == ord("+"))
    rest = np.ones(len(found), bool)
    punctuated = (other > 0) | (separators == 2) | (separators == 5)
    if punctuated.any():
        date = punctuated & found.contains(patterns.DATE)
        pair = punctuated & found.contains(patterns.COORDINATE_PAIR)
        mac = ((colons == 5) | (found.count(DASH) == 5)) & found.contains(patterns.MAC_ADDRESS)
        ipv6 = ~(mac | date) & (colons >= 2) & found.contains(patterns.IPV6)
        yield from all_valid("DATE_OF_BIRTH", found, date, Evidence.BARE)
        yield from all_valid("COORDINATES", found, pair)
        yield from all_valid("MAC_ADDRESS", found, mac)
        yield from all_valid("IP_ADDRESS", found, ipv6)
        rest &= ~(date | pair | mac | ipv6)
    ip = np.flatnonzero(rest & (dots == 3) & (separators == 3) & (other == 0) & (digits <= 12))
    if len(ip):
        valid = _ipv4(found.text.gather(ip))
        yield Hits("IP_ADDRESS", Evidence.SHAPED, found, ip, valid)
        rest[ip[valid]] = False
    rest &= ~((dots == 1) & (separators == 1) & (other == 0))  # a decimal fraction
    settled = ~rest
    for each in phrases(found, rest):
        if each.evidence is Evidence.SHAPED:
            settled[each.which[each.valid]] = True
        yield each
    if not within:
        yield from _inside_phrases(found.where(~settled & (digits > 9) & (found.lengths > digits)))


def _inside_phrases(found: Candidates) -> Iterator[Hits]:
    """Look again at the parts of phrases of digits that are nothing as a whole."""
    inside = Candidates.found(found.text, patterns.INSIDE_PHRASE)
    smaller = inside.where(inside.lengths < found.lengths[inside.rows])
    if len(smaller):
        yield from _numbers(Candidates(found.rows[smaller.rows], smaller.text), within=True)


def _ipv4(texts: pl.Series) -> Mask:
    texts = texts.str.strip_prefix("(")
    parts = texts.str.split_exact(".", 3).struct.unnest()
    in_range = [part.str.contains("^[0-9]{1,3}$") & part.cast(pl.Int64, strict=False).le(255) for part in parts]
    plain = ~texts.str.contains(r"(?:^|\.)0[0-9]")
    return (in_range[0] & in_range[1] & in_range[2] & in_range[3] & plain).to_numpy()
