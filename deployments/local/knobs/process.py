"""The process of the knobs, as part of the twin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.local.faults import ADMIN_PATH
from deployments.local.object_stores import MODULES
from deployments.local.processes import HOST, Process, answers


@dataclass(frozen=True, slots=True)
class Front:
    """What stands in front of one server.

    Args:
        port: Where clients find it.
        dialect: How the service refuses: one of `deployments.local.knobs.app.DIALECTS`.
        url: The server behind, without a path.
    """

    port: int
    dialect: str
    url: str

    @property
    def argument(self) -> str:
        """As the command line has it."""
        return f"{self.port}={self.dialect}={self.url}"

    @classmethod
    def of(cls, text: str) -> Front:
        """The inverse of `argument`."""
        port, dialect, url = text.split("=", 2)
        return cls(int(port), dialect, url)


def knobs(log: Path, fronts: Sequence[Front]) -> Process:
    """The fronts, at least one, in one process.

    Args:
        log: File that takes its output.
        fronts: What it stands in front of; the servers may start later.
    """
    arguments = [argument for front in fronts for argument in ("--front", front.argument)]
    return Process(
        name="knobs",
        command=[sys.executable, "-m", "deployments.local.knobs", *arguments],
        ready=answers(f"http://{HOST}:{fronts[0].port}{ADMIN_PATH}", 200),
        log=log,
        environment=MODULES,
        port=fronts[0].port,
    )
