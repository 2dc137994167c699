"""Releases: one model version, wanted on several clouds, brought about by reconciling and never by a script.

A `Release` records what is wanted and what was last observed. `reconcile` compares the two and makes the smallest
next step; it can be killed anywhere and run again. Aliases in the model registry are written last, as a projection
of the record: the record is the truth.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class ReleaseState(enum.StrEnum):
    """Where a release stands."""

    PENDING = "pending"
    ROLLING_OUT = "rolling_out"
    LIVE = "live"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """What one endpoint should serve.

    Args:
        name: The endpoint's name, the same on every cloud: the model's name.
        model: Registered model name.
        version: Model version in the registry.
        digest: Digest of the model's files; what is served is compared with it.
        model_path: Local directory with the MLflow model.
    """

    name: str
    model: str
    version: str
    digest: str
    model_path: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as it is observed: never what was asked for.

    Args:
        cloud: Where it is.
        name: Its name there.
        url: Where it answers MLflow's scoring protocol.
        weight: Its share of traffic in percent.
        digest: Digest of the model that it serves, by its own word.
        version: Model version that it serves.
        healthy: Whether it answered a probe just now.
        detail: Why it is not healthy, in one line.
    """

    cloud: str
    name: str
    url: str
    weight: int
    digest: str
    version: str
    healthy: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The record of one release.

    Args:
        release_id: Unique, sortable by time.
        model, version, digest: What is released.
        weights: Cloud name and wanted share of traffic in percent; they sum to 100.
        state: Where it stands.
        generation: Grows by one with every write; a writer names the generation it read.
        created: When it was asked for, timezone-aware.
        reason: Why it stands as it does, in one line.
        endpoints: What was last observed.
        previous: The release that it replaced, for rolling back.
    """

    release_id: str
    model: str
    version: str
    digest: str
    weights: tuple[tuple[str, int], ...]
    state: ReleaseState
    generation: int
    created: datetime
    reason: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    previous: str | None = None
