"""Places: where in a dataset the hits stand, cell by cell, for people who check detectors against labels.

The dataset is read twice: columns are judged as a whole first, and a place is given the confidence of its column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.candidates import Evidence
from tasks.core.detectors.columns import ColumnState, confidences, judge
from tasks.core.detectors.detection import EVERYTHING, Detection
from tasks.core.detectors.marks import ADDRESS, BANK, DATE, DOCUMENT, NAME, text_marks
from tasks.core.detectors.personal_names import safe_path
from tasks.core.detectors.readers import read
from tasks.core.detectors.scan import read_tables
from tasks.core.detectors.search import hits_in
from tasks.core.detectors.tables import METADATA, Batch, Leaf, Source
from tasks.core.detectors.tallies import with_context
from tasks.core.manifest import Manifest
from tasks.core.retries import OBJECTS_AT_ONCE

if TYPE_CHECKING:
    from tasks.core.ports import Store

_LOOKS = {
    "PERSON": NAME,
    "ORGANIZATION": NAME,
    "LOCATION": ADDRESS,
    "DATE_OF_BIRTH": DATE,
    "BIC": BANK,
    "PASSPORT": DOCUMENT,
    "DRIVER_LICENSE": DOCUMENT,
}


def spans(
    store: Store,
    uri: DatasetURI,
    manifest: Manifest,
    *,
    detection: Detection = EVERYTHING,
    min_confidence: float = 0.5,
    in_flight: int = OBJECTS_AT_ONCE,
) -> Iterator[dict[str, Any]]:
    """The places of all hits: `path`, `row` (from 0), `column`, `entity`, `start`, `end` (characters), `score`.

    Args:
        store, uri, manifest, detection, in_flight: As for `scan`, with the same errors.
        min_confidence: Hits whose column makes them less sure are left out.
    """
    tables, _ = read_tables(store, uri, ((entry, None) for entry in manifest), detection=detection, in_flight=in_flight)
    table_of = {path: table for table in tables.values() for path in table.paths}
    for entry in manifest:
        table = table_of[entry.path]
        label, path = table.label(), safe_path(entry.path)
        for part in read(Source.open(store, uri, entry)):
            if isinstance(part, Batch):
                for leaf in part.leaves:
                    if leaf.name in table.columns and leaf.name != METADATA:
                        shown = "#?" if table.hides(leaf.name) else leaf.name
                        state = table.columns[leaf.name]
                        for row, entity, start, end, score in _of_leaf(leaf, state, label, table.rows, min_confidence):
                            yield {
                                "path": path,
                                "row": part.first_row + row,
                                "column": shown,
                                "entity": entity,
                                "start": start,
                                "end": end,
                                "score": round(score, 4),
                            }


def _of_leaf(
    leaf: Leaf, state: ColumnState, label: str, rows: int, least: float
) -> Iterator[tuple[int, str, int, int, float]]:
    scores = {key: score for key, score in confidences(state, label).items() if score >= least}
    looks = {
        finding.entity: finding.confidence
        for finding in judge(state, label, rows)
        if finding.entity in _LOOKS
        and finding.confidence >= least
        and ((finding.entity, Evidence.SHAPED) not in scores or state.detection.speaks_for(finding.entity, state.name))
    }
    if not scores and not looks:
        return
    filled = leaf.values.is_not_null()
    own = np.flatnonzero(filled.to_numpy())
    row_of = own if leaf.rows is None else leaf.rows[own]
    cells = leaf.values.filter(filled)
    if cells.dtype != pl.String:
        cells = cells.cast(pl.String)
    for cell, entity, start, end, score in _hits(cells, scores, state.detection):
        yield int(row_of[cell]), entity, start, end, score
    if looks:
        marks = text_marks(cells)
        for entity, score in looks.items():
            for cell in np.flatnonzero(marks & _LOOKS[entity]):
                yield int(row_of[cell]), entity, 0, len(cells[int(cell)]), score


def _hits(
    cells: pl.Series, scores: Mapping[tuple[str, Evidence], float], detection: Detection
) -> Iterator[tuple[int, str, int, int, float]]:
    lengths = cells.str.len_bytes().cast(pl.Int64).to_numpy()
    after: dict[tuple[int, str], int] = {}
    for each in with_context(hits_in(cells, detection), cells, lengths, detection):
        score = scores.get((each.entity, each.evidence))
        if score is None:
            continue
        which = each.which[each.valid]
        pieces = each.found.text.gather(which).to_list()
        for cell, piece in zip(each.found.rows[which].tolist(), pieces, strict=True):
            start, end = _place(cells[cell], piece, after.get((cell, each.entity), 0))
            after[cell, each.entity] = end
            yield cell, each.entity, start, end, score


def _place(text: str, piece: str, begin: int) -> tuple[int, int]:
    """Where a piece stands as a whole word, from `begin` on; the whole text when it stands there in another form."""
    at = text.find(piece, begin)
    while at >= 0:
        end = at + len(piece)
        before, behind = text[at - 1 : at], text[end : end + 1]
        if not (before.isalnum() and piece[0].isalnum()) and not (behind.isdigit() and piece[-1].isdigit()):
            return at, end
        at = text.find(piece, at + 1)
    return 0, len(text)
