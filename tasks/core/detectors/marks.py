"""What cells look like that have no check digit: names, addresses, dates, coordinates, codes of banks, documents.

The marks of a column's different cells are sampled (`sketch`), and `columns` asks for the share that carries one.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.core.detectors import native
from tasks.core.detectors.cells import Cells
from tasks.core.detectors.names import GIVEN_NAMES
from tasks.core.detectors.sketch import Sketch, smallest

NAME, GIVEN, ADDRESS, DATE, COORDINATE, FULL_NAME, BANK, DOCUMENT = (1 << at for at in range(len(native.MARKS)))
"""In the order of `native.MARKS`."""


def note_texts(sketch: Sketch, cells: Cells) -> None:
    """Add a column's cells to the sample of its different cells."""
    kernel = cells.kernel
    if kernel is None:
        hashes = cells.hashes
        admitted = np.flatnonzero(sketch.admits(hashes))
        new = admitted[smallest(hashes[admitted], sketch.size)]
        sketch.add(hashes[new], text_marks(cells.text.gather(new)) if len(new) else np.zeros(0, np.uint8))
        return
    hashes, marks, unknown, unknown_hashes = kernel.sample(*cells.laid, cells.hashes, sketch.bound, sketch.size)
    sketch.add(hashes, marks)
    if len(unknown):
        sketch.add(unknown_hashes, text_marks(cells.text.gather(unknown)))


_NAME = r"^\pL[\pL\pM'’.-]*(?:,? \pL[\pL\pM'’.-]*){0,5}$"
_FULL_NAME = r"^\p{Lu}[\pL\pM'’.-]+(?:,? \p{Lu}[\pL\pM'’.-]*){1,4}$"
_NO_NAME = r"(?i)^(?:redacted|removed|unknown|anonymous|none|null|nan|n\.?a\.?|test|true|false)$"
_ADDRESS = r"\pL.*[ ,].*[0-9]|[0-9].* .*\pL|\pL+.*,.*\pL"
_DATE = (
    r"^(?:(?:18|19|20)[0-9]{2}[-/.]?[0-9]{2}[-/.]?[0-9]{2}(?:$|[T ])|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:19|20)[0-9]{2}$)"
)
_BANK = r"^[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?$"
_DOCUMENT = r"^[A-Za-z]{0,5}[ -]?[0-9][0-9A-Za-z -]{4,17}$"
_COORDINATE = r"^-?[0-9]{1,3}\.[0-9]{3,}$"


@functools.cache
def _given_names() -> pl.Series:
    return pl.Series(sorted(GIVEN_NAMES)).implode()


def text_marks(cells: pl.Series) -> npt.NDArray[np.uint8]:
    """What short texts look like that has no check digit: names, addresses, dates, coordinates."""
    marks: npt.NDArray[np.uint8] = np.zeros(len(cells), np.uint8)
    patterns = {ADDRESS: _ADDRESS, DATE: _DATE, COORDINATE: _COORDINATE, BANK: _BANK, DOCUMENT: _DOCUMENT}
    for bit, pattern in patterns.items():
        marks |= cells.str.contains(pattern).to_numpy() * np.uint8(bit)
    named = cells.str.contains(_NAME)
    if named.any():
        marks[named.to_numpy()] |= _name_marks(cells.filter(named))
    return marks


def _name_marks(cells: pl.Series) -> npt.NDArray[np.uint8]:
    """What cells that look like names are marked as."""
    cell = pl.col("cell")
    looks = cells.alias("cell").to_frame().select(
        cell.str.contains(_NO_NAME).alias("none"),
        cell.str.contains(_FULL_NAME).alias("full"),
        cell.str.extract(r"(\pL+)(?:[^\pL]|$)", 1).str.to_lowercase().is_in(_given_names()).alias("first"),
        cell.str.extract(r", *(\pL+)", 1).str.to_lowercase().is_in(_given_names()).alias("after_comma"),
    )  # fmt: skip
    name = ~looks["none"]
    given = name & (looks["first"].fill_null(False) | looks["after_comma"].fill_null(False))
    marks: npt.NDArray[np.uint8] = np.zeros(len(cells), np.uint8)
    for mask, bit in ((name, NAME), (given, GIVEN), (looks["full"], FULL_NAME)):
        marks |= mask.to_numpy().astype(np.uint8) * np.uint8(bit)
    return marks


def number_marks(values: pl.Series) -> npt.NDArray[np.uint8]:
    """What numbers look like that have no check digit: coordinates, and dates written as one number."""
    numbers = values.cast(pl.Float64).to_numpy()
    fine = (np.abs(numbers) <= 180) & (np.abs(numbers * 100 - np.round(numbers * 100)) > 1e-6)
    year, month, day = numbers // 10000, numbers // 100 % 100, numbers % 100
    date = (year >= 1880) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    document = (numbers >= 1e5) & (numbers == np.floor(numbers))
    return (
        document.astype(np.uint8) * np.uint8(DOCUMENT)
        | fine.astype(np.uint8) * np.uint8(COORDINATE)
        | date.astype(np.uint8) * np.uint8(DATE)
    )
