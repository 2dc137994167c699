"""Names of columns and objects that are themselves somebody's data, and how objects are named where that may be so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
import polars as pl

from tasks.core.detectors.candidates import Evidence
from tasks.core.detectors.classify import classified
from tasks.core.detectors.marks import FULL_NAME, GIVEN, text_marks


def personal_name(name: str) -> str:
    """The entity that a name (of a column, of a part of a path) is itself an instance of, or nothing.

    >>> personal_name("contact_email"), personal_name("jane@example.org")
    ('', 'EMAIL_ADDRESS')
    """
    return personal_names([name]).get(name, "")


def personal_names(names: Sequence[str]) -> dict[str, str]:
    """Those of the names that are themselves instances of an entity, with the entity."""
    return dict(_personal_names(tuple(names))) if names else {}


@lru_cache(maxsize=8)
def _personal_names(names: tuple[str, ...]) -> Mapping[str, str]:
    """The same, remembered for the next object of the table."""
    texts = pl.Series(names, dtype=pl.String)
    marks = text_marks(texts)
    people: list[int] = np.flatnonzero((marks & FULL_NAME > 0) & (marks & GIVEN > 0)).tolist()
    found = {names[at]: "PERSON" for at in people}
    for each in reversed(list(classified(texts))):
        strong = each.evidence is Evidence.SHAPED or each.entity in ("CREDIT_CARD", "ID_NIK")
        if strong and each.entity != "URL":
            rows: list[int] = each.found.rows[each.which][each.valid].tolist()
            found |= {names[at]: each.entity for at in rows}
    return found


def safe_path(path: str) -> str:
    """The path with a star for every part that is itself a value."""
    return "/".join("*" if personal_name(part) else part for part in path.split("/"))


def may_be_of(path: str, label: str) -> bool:
    """Whether an object may be part of the table of this label; it may say yes once too often.

    A table of several objects has a glob of their real names, one of a single object what is shown of its name.
    """
    glob = label.replace("[", "[[]")
    return path == label or fnmatchcase(path, glob) or fnmatchcase(safe_path(path), glob)


def directory_of(path: str) -> str:
    """The directory with stars for partition values and numbers: what all parts of a table share."""
    parent = str(PurePosixPath(path).parent)
    if parent == ".":
        return ""
    return re.sub(r"[0-9]+", "*", re.sub(r"=[^/]*", "=*", parent))
