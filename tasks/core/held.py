"""The quarantine list's entries: which object stays at the source, why, and who released it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from tasks.core.detectors.entities import entity_of


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """Why an object stays: an entity in so many of its rows, and the rule that says so. Never a value."""

    entity: str
    column: str
    count: int
    rule: str
    why: str

    def __str__(self) -> str:
        place = f" in column '{self.column}'" if self.column else ""
        return f"{entity_of(self.entity).what}{place} in {self.count} rows ({self.rule})"


@dataclass(frozen=True, slots=True)
class Held:
    """One object that stays at the source.

    Args:
        dataset: URI of the dataset.
        path: The object's path, with a star for every part that is itself a value.
        digest: Of its content.
        policy: Digest of the policy.
        destination: Where it may not go.
        policy_name: For people.
        size_bytes: Its size.
        reasons: What was found in it.
    """

    dataset: str
    path: str
    digest: str
    policy: str
    destination: str
    policy_name: str
    size_bytes: int
    reasons: tuple[Reason, ...]

    @property
    def entry(self) -> str:
        """The name of this entry in the quarantine list: another object, policy or destination has another."""
        about = [self.dataset, self.path, self.digest, self.policy, self.destination]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible."""
        return asdict(self) | {"entry": self.entry, "reasons": [asdict(reason) for reason in self.reasons]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Held:
        """The inverse of `as_dict`."""
        values: dict[str, Any] = {name: data[name] for name in cls.__dataclass_fields__}
        values["reasons"] = tuple(Reason(**reason) for reason in data["reasons"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of the quarantine list: what stays since when, and who released it, when and why (empty: nobody)."""

    held: Held
    since: datetime
    released: datetime | None = None
    reason: str = ""
    by: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The shape that `lintas quarantine list --json` documents."""
        return self.held.as_dict() | {
            "state": "released" if self.released else "held",
            "since": self.since.isoformat(),
            "released": self.released.isoformat() if self.released else None,
            "reason": self.reason,
            "by": self.by,
        }
