"""What is done to single values: ciphertexts, tokens, hashes, masks, replacements, coarser dates and numbers.

Everything works on whole columns: different values are worked out once and the rest is looked up, but for tokens and
hashes of columns in which hardly a value comes again: the native kernel makes them faster than they could be looked up.
Keys are derived from one secret; see `tasks.core.pseudonym_key`.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from tasks.core.detectors import native
from tasks.core.detectors.candidates import Bytes, Ints, buffers, strings
from tasks.core.detectors.detection import Detection
from tasks.core.errors import Invalid
from tasks.core.policy import Action
from tasks.core.preserving import Preserving
from tasks.core.privacy import ColumnTreatment
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.sealed_values import Seal
from tasks.core.shifting import days_of, shifted

_TOKEN_BYTES = 16
AT_ONCE = 131_072
"""How many values are treated at a time where each is a Python object for a while."""

SAMPLE = 1024
"""How many values of a column tell whether they come again."""

_DIFFERENT = 0.9
"""From this share of different values in a sample on, looking a value up costs as much as making its token again."""

_DIGESTED = (Action.TOKENISE, Action.HASH)
_EACH_BY_ITSELF = (Action.GENERALISE, Action.MASK, Action.REPLACE, Action.ENCRYPT, *_DIGESTED)


@dataclass(frozen=True, slots=True)
class ObjectTreatment:
    """What has to be done to one object.

    Args:
        columns: Treatment by column, as the scan names columns.
        keys: For ciphertexts, tokens and hashes.
        destination: The cloud that ciphertexts and tokens are made for.
        detection: What counts as a hit inside longer text.
        subjects: Of the rows at hand, the columns that name a subject.
    """

    columns: dict[str, ColumnTreatment]
    keys: PseudonymKey
    destination: str
    detection: Detection = field(default_factory=Detection)
    subjects: Mapping[str, pl.Series] = field(default_factory=dict[str, pl.Series])

    @property
    def subject_columns(self) -> frozenset[str]:
        """The columns that must be known besides those that are treated."""
        return frozenset(each.options.by for each in self.columns.values() if each.action is Action.SHIFT_DATES)

    def with_subjects(self, subjects: Mapping[str, pl.Series]) -> ObjectTreatment:
        """The same for some rows."""
        return replace(self, subjects={name: as_text(values) for name, values in subjects.items()})

    def dropped(self, column: str) -> bool:
        """Whether the column is left out."""
        return column in self.columns and self.columns[column].action is Action.DROP


def token(key: bytes, value: str) -> str:
    """The token of a value: `tok_` and 128 bits of its HMAC in lower-case base32.

    >>> token(bytes(32), "jane@example.org")
    'tok_a4veepf4xwabu5pesdqs7l63ee'
    """
    digest = hmac.digest(key, value.encode(), "sha256")[:_TOKEN_BYTES]
    return "tok_" + base64.b32encode(digest).decode().rstrip("=").lower()


def hashed(key: bytes, value: str) -> str:
    """The hash of a value: its HMAC in lower-case hexadecimal digits."""
    return hmac.digest(key, value.encode(), "sha256").hex()


def digests(key: bytes, values: pl.Series, *, tokens: bool) -> pl.Series:
    """The tokens, or else the hashes, of a column of strings; nulls stay null.

    The native kernel makes them where there is one, `token` and `hashed` elsewhere.
    """
    kernel = native.kernel()
    if kernel is None:
        change = token if tokens else hashed
        made = [None if value is None else change(key, value) for value in values.to_list()]
        return pl.Series(values.name, made, dtype=pl.String)
    text = kernel.digests(key, *buffers(values), tokens=tokens)
    width = native.TOKEN_CHARACTERS if tokens else native.HASH_CHARACTERS
    made = strings(np.arange(1, len(values) + 1, dtype=np.int64) * width, text).alias(values.name)
    return made.set(values.is_null(), None) if values.null_count() else made


def treat_column(
    values: pl.Series,
    treatment: ColumnTreatment,
    keys: PseudonymKey,
    destination: str,
    subjects: pl.Series | None = None,
) -> pl.Series:
    """The column with every value treated; nulls stay null.

    Args:
        values: A column of any type.
        treatment: What to do; not `drop`, which leaves no column.
        keys: For ciphertexts, tokens and hashes.
        destination: The cloud that ciphertexts and tokens are made for.
        subjects: Whose dates they are, as text; for `shift_dates`.

    Raises:
        Invalid: Values have no form that can be kept, or are no dates; it says how many and shows none.
    """
    if treatment.action is Action.GENERALISE:
        return _generalised(values, treatment)
    if treatment.action is Action.SHIFT_DATES:
        return _shifted(values, treatment, keys, destination, subjects)
    if treatment.action is Action.REPLACE:
        return _constant(_replacement(treatment), values)
    texts = values if values.dtype == pl.String else as_text(values)
    fast = treatment.action in _DIGESTED and native.kernel() is not None
    if fast and mostly_different(texts.head(SAMPLE).n_unique(), len(texts)):
        return _all_changed(texts, treatment, keys, destination)
    untyped: Any = texts
    coded = untyped.to_arrow().dictionary_encode()
    different = pl.Series(texts.name, coded.dictionary)
    return _all_changed(different, treatment, keys, destination).gather(pl.Series(coded.indices)).alias(texts.name)


def each_by_itself(treatment: ColumnTreatment) -> bool:
    """Whether what becomes of a text follows from the text alone, and there is something for every text."""
    return treatment.in_text or treatment.action in _EACH_BY_ITSELF


def constant_of(treatment: ColumnTreatment) -> str | None:
    """The text that every value becomes; None when they differ."""
    return _replacement(treatment) if treatment.action is Action.REPLACE and not treatment.in_text else None


def treat_texts(
    parts: Sequence[tuple[Ints, Bytes]], treatment: ColumnTreatment, needed: ObjectTreatment
) -> list[tuple[Ints, Bytes]]:
    """Texts of a column, each treated by itself.

    Args:
        parts: Where texts begin in their bytes, one more than there are, and the bytes.
        treatment: One that is `each_by_itself`.
        needed: What else is known of the treatment.
    """
    kernel = native.kernel()
    if kernel is not None and treatment.action in _DIGESTED and not treatment.in_text:
        key, tokens = _digest_key(treatment, needed.keys, needed.destination), treatment.action is Action.TOKENISE
        width = native.TOKEN_CHARACTERS if tokens else native.HASH_CHARACTERS
        return [
            (np.arange(len(offsets), dtype=np.int64) * width, kernel.digests(key, offsets, data, tokens=tokens))
            for offsets, data in parts
        ]
    counts = [len(offsets) - 1 for offsets, _ in parts]
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(offsets) for offsets, _ in parts)])
    joined = np.concatenate([np.zeros(0, np.uint8), *(data[offsets[0] : offsets[-1]] for offsets, data in parts)])
    values = strings(np.cumsum(sizes), joined)

    def treated(some: pl.Series) -> pl.Series:
        if treatment.in_text:
            return treat_hits(some, treatment, needed)
        return treat_column(some, treatment, needed.keys, needed.destination)

    made = [treated(values.slice(start, AT_ONCE)) for start in range(0, len(values), AT_ONCE)]
    offsets, data = buffers(pl.concat(made) if made else values)
    ends = np.cumsum([0, *counts]).tolist()
    return [(offsets[start : end + 1], data) for start, end in pairwise(ends)]


def mostly_different(different: int, values: int) -> bool:
    """Whether hardly a value comes again, so that looking values up would gain nothing.

    Args:
        different: How many different values the first `SAMPLE` of a column are.
        values: How many values it has.
    """
    return different > _DIFFERENT * min(values, SAMPLE)


def _constant(text: str, values: pl.Series) -> pl.Series:
    """The text in every place that holds a value."""
    made = pl.Series(values.name, [text], dtype=pl.String).new_from_index(0, len(values))
    return made.set(values.is_null(), None) if values.null_count() else made


def _replacement(treatment: ColumnTreatment) -> str:
    return treatment.options.replacement or f"<{treatment.entities[0]}>"


def _all_changed(values: pl.Series, treatment: ColumnTreatment, keys: PseudonymKey, destination: str) -> pl.Series:
    if treatment.action in _DIGESTED:
        key = _digest_key(treatment, keys, destination)
        return digests(key, values, tokens=treatment.action is Action.TOKENISE)
    if treatment.action is Action.FORMAT_PRESERVE:
        changed = Preserving(keys, treatment.domain, destination).encrypt(values.to_list())
    else:
        change = text_change(treatment, keys, destination)
        changed = [change(value) for value in values.to_list()]
    return pl.Series(changed, dtype=pl.String)


def _digest_key(treatment: ColumnTreatment, keys: PseudonymKey, destination: str) -> bytes:
    """The key of tokens, which differ from destination to destination, or of hashes, which do not."""
    if treatment.action is Action.TOKENISE:
        return keys.derive("token", treatment.domain, destination)
    return keys.derive("hash", treatment.domain)


def _shifted(
    values: pl.Series, treatment: ColumnTreatment, keys: PseudonymKey, destination: str, subjects: pl.Series | None
) -> pl.Series:
    options = treatment.options
    if subjects is None or len(subjects) != len(values):
        raise Invalid(f"there is no column '{options.by}' with one subject a row", "correct the rule's option 'by'")
    return shifted(values, days_of(subjects, shift_key(keys, treatment.domain, destination), options.max_days))


def shift_key(keys: PseudonymKey, domain: str, destination: str) -> bytes:
    """The key that tells by how many days a subject's dates move."""
    return keys.derive("shift", domain, destination)


def treat_hits(cells: pl.Series, treatment: ColumnTreatment, needed: ObjectTreatment) -> pl.Series:
    """Texts with the hits of the treatment's entities changed wherever they stand, and the rest left as it is."""
    from tasks.core.detectors.named import CONFIDENCE, without_names

    entities, vocabulary = set(treatment.entities), replace(needed.detection, names_in_text=False)
    change = text_change(treatment, needed.keys, needed.destination)
    hits = _hits(cells, entities, vocabulary)
    if len(hits):
        if treatment.action in _DIGESTED:
            changed = _all_changed(hits, treatment, needed.keys, needed.destination)
        else:
            changed = pl.Series([change(hit) for hit in hits.to_list()], dtype=pl.String)
        cells = replaced(cells, hits, changed)
    names = entities.intersection(CONFIDENCE) if needed.detection.names_in_text else set[str]()
    return without_names(cells, names, change) if names else cells


def replaced(cells: pl.Series, pieces: pl.Series, replacements: pl.Series) -> pl.Series:
    """Texts in which every piece is replaced wherever it stands, from left to right; nulls stay null.

    Args:
        cells: The texts.
        pieces: Different ones; where several fit it is the first.
        replacements: What stands in their places.
    """
    kernel = native.kernel()
    if kernel is None or not pieces.str.len_bytes().min():
        return cells.str.replace_many(pieces.to_list(), replacements.to_list(), leftmost=True)
    ends, text = kernel.replaced(buffers(cells), buffers(pieces), buffers(replacements))
    made = strings(ends[1:], text).alias(cells.name)
    return made.set(cells.is_null(), None) if cells.null_count() else made


def text_change(treatment: ColumnTreatment, keys: PseudonymKey, destination: str) -> Callable[[str], str]:
    """The function that changes one text as the treatment wants.

    `format_preserve` encrypts: inside a sentence nothing would tell a pseudonym that looks like a value from one.
    """
    options = treatment.options
    if treatment.action in _DIGESTED:
        key = _digest_key(treatment, keys, destination)
        digest = token if treatment.action is Action.TOKENISE else hashed
        return lambda value: digest(key, value)
    if treatment.action in (Action.ENCRYPT, Action.FORMAT_PRESERVE):
        return Seal(keys, treatment.domain, destination).seal
    if treatment.action is Action.MASK:
        return lambda value: _masked(value, options.keep_last)
    replacement = _replacement(treatment)
    return lambda _value: replacement


def _masked(value: str, keep_last: int) -> str:
    shown = keep_last if len(value) >= 2 * keep_last else 0
    return "*" * (len(value) - shown) + value[len(value) - shown :]


def as_text(values: pl.Series) -> pl.Series:
    """Numbers as people write them: whole floats, which hold ids where a table has gaps, without a fraction."""
    if values.dtype.is_float():
        whole = values.is_finite() & (values == values.floor()) & (values.abs() < 2**63)
        if whole.fill_null(True).all():
            return values.cast(pl.Int64).cast(pl.String)
    return values.cast(pl.String)


def _hits(cells: pl.Series, entities: set[str], detection: Detection) -> pl.Series:
    """The different pieces of the texts that are valid instances of one of the entities, longest first."""
    from tasks.core.detectors.search import hits_in

    pieces = [
        each.found.text.gather(each.which[each.valid])
        for each in hits_in(cells.drop_nulls(), detection)
        if each.entity in entities and each.valid.any()
    ]
    different = pl.concat([pl.Series([], dtype=pl.String), *pieces]).unique()
    return different.to_frame("piece").sort(-pl.col("piece").str.len_bytes().cast(pl.Int64), "piece").to_series()


def _generalised(values: pl.Series, treatment: ColumnTreatment) -> pl.Series:
    options = treatment.options
    dtype = values.dtype
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return values.dt.strftime("%Y" if options.date_to == "year" else "%Y-%m")
    if dtype.is_integer() and "DATE_OF_BIRTH" in treatment.entities:
        return values // (10000 if options.date_to == "year" else 100)
    if dtype.is_numeric():
        steps = (values.cast(pl.Float64) / options.number_step).floor()
        return (steps * options.number_step).round(9)
    if dtype == pl.String:
        return _generalised_text(values, treatment)
    return _constant(f"<{treatment.entities[0]}>", values)


def _generalised_text(values: pl.Series, treatment: ColumnTreatment) -> pl.Series:
    options = treatment.options
    year_first = values.str.extract(r"^((?:18|19|20)[0-9]{2})[-/.]?[0-9]{2}[-/.]?[0-9]{2}(?:$|[T ])", 1)
    month = values.str.extract(r"^[0-9]{4}[-/.]?([0-9]{2})[-/.]?[0-9]{2}(?:$|[T ])", 1)
    year_last = values.str.extract(r"^[0-9]{1,2}[-/.][0-9]{1,2}[-/.]((?:19|20)[0-9]{2})$", 1)
    number = values.cast(pl.Float64, strict=False)
    stepped = ((number / options.number_step).floor() * options.number_step).round(9).cast(pl.String)
    # Where day and month cannot be told apart (03/02/1980), the year is all that is left.
    dated = (year_first if options.date_to == "year" else year_first + "-" + month).fill_null(year_last)
    fallback = pl.Series([f"<{treatment.entities[0]}>"], dtype=pl.String)
    coarse = dated.fill_null(stepped).fill_null(fallback.new_from_index(0, len(values)))
    return coarse.set(values.is_null(), None)
