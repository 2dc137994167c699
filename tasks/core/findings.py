"""What a scan found: entities, places, counts and confidence. Never a value of anybody's data.

These are all that leaves the detectors, so reports, errors, logs and Data Docs can be made from them freely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.coverage import Coverage
from tasks.core.detectors.detection import Detection

Number = int | float


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One entity in one column (or the text) of one table of a dataset.

    Args:
        entity: A name of `tasks.core.detectors.entities`.
        path: The table: an object's path, or a glob where objects of one shape form a table together.
        column: The column, with dots into nested values; `(text)` for plain text. A name that looks like a value
            itself is given by its position, such as `#3`.
        count: Cells with at least one hit.
        share: Those cells' share of all rows of the table, from 0 to 1.
        confidence: From 0 to 1: how sure it is that the hits are what they look like and not chance.
        why: What speaks for it, in one line.
        whole: Share of the hits that fill their cell; the others stand inside longer text.
    """

    entity: str
    path: str
    column: str
    count: int
    share: float
    confidence: float
    why: str
    whole: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible, as `lintas scan --json` prints it."""
        return {
            "entity": self.entity,
            "path": self.path,
            "column": self.column,
            "count": self.count,
            "share": self.share,
            "confidence": self.confidence,
            "why": self.why,
            "whole": self.whole,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of `as_dict`."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"column '{self.column}' of '{self.path}'" if self.column else f"'{self.path}'"


ColumnKind = Literal["text", "number", "date", "flag", "other"]


@dataclass(frozen=True, slots=True, order=True)
class ColumnProfile:
    """Counts about one column of one table.

    Args:
        path, column: As in `Finding`.
        kind: What it holds.
        rows: Rows of the table.
        nulls: Rows without a value.
        distinct: An estimate of the number of different values (within a few per cent).
        minimum, maximum: Of numbers only, and only where nothing personal was found in the column.
    """

    path: str
    column: str
    kind: ColumnKind
    rows: int
    nulls: int
    distinct: int
    minimum: Number | None = None
    maximum: Number | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible; `null_share` is derived."""
        return {
            "path": self.path,
            "column": self.column,
            "kind": self.kind,
            "rows": self.rows,
            "nulls": self.nulls,
            "null_share": self.nulls / self.rows if self.rows else 0.0,
            "distinct": self.distinct,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan of a whole dataset found.

    Args:
        uri: The dataset.
        manifest_digest: Digest of the manifest whose objects were read.
        rows: Rows read, over all tables.
        objects: Objects read, those that could not be understood included.
        size_bytes: Bytes of those objects.
        findings: Sorted. Weak ones are listed too: a policy's thresholds decide what counts.
        profile: One line a column, sorted.
        detection: What was looked for beyond the vocabulary.
        coverage: How much of it was read, and what may have been missed.
        elapsed_s: Wall time.
    """

    uri: DatasetURI
    manifest_digest: str
    rows: int
    objects: int
    size_bytes: int
    findings: tuple[Finding, ...]
    profile: tuple[ColumnProfile, ...] = ()
    detection: Detection = field(default_factory=Detection)
    coverage: Coverage = field(default_factory=Coverage)
    elapsed_s: float = field(default=0.0, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible: what `lintas scan --json` prints, without the verdict."""
        return {
            "uri": str(self.uri),
            "manifest_digest": self.manifest_digest,
            "rows": self.rows,
            "objects": self.objects,
            "size_bytes": self.size_bytes,
            "coverage": self.coverage.as_dict(),
            "findings": [finding.as_dict() for finding in self.findings],
            "profile": [column.as_dict() for column in self.profile],
        }
