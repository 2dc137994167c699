"""The table cloud x fault -> what came out, written by the run itself: `build/faults.json` and `build/faults.md`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from deployments.local.faults import KINDS
from tasks.core.errors import LintasError

_BUILD = Path("build")
_NOTHING = "-"


def class_of(error: LintasError) -> str:
    """The class by which a caller decides what to do: a provider's own subclass counts as its parent."""
    return next(each.__name__ for each in type(error).__mro__ if each.__module__ == "tasks.core.errors")


def outcome_of(call: Callable[[], object]) -> str:
    """What a call ends in: a class of `tasks.core.errors`, or `ok`. Whatever else it raises passes through."""
    try:
        call()
    except LintasError as error:
        return class_of(error) if error.what else "an error that says nothing"
    return "ok"


class FaultOutcomes:
    """What was seen, by port, kind of fault and cloud."""

    def __init__(self, clouds: tuple[str, ...]) -> None:
        self._clouds = clouds
        self._seen: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)

    def record(self, port: str, kind: str, cloud: str, outcomes: set[str]) -> None:
        """Note the outcomes of one cell."""
        self._seen[port, kind][cloud] = sorted(outcomes)

    def write(self) -> None:
        """Write both files."""
        _BUILD.mkdir(exist_ok=True)
        rows = [
            {"port": port, "kind": kind, "meaning": KINDS[kind], "clouds": by}
            for (port, kind), by in sorted(self._seen.items())
        ]
        (_BUILD / "faults.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (_BUILD / "faults.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """The table for people."""
        lines = [
            "# Faults",
            "",
            "Written by `make faults`: every fault of every double, met through the provider's own client, and what",
            "came out: a class of `tasks.core.errors`, the state of a job, or what an endpoint was seen to be.",
            "`FAILED` at the end of a cell is a promise that was not kept. After every fault the same call succeeded.",
        ]
        for port in ("Trainer", "Server"):
            lines += ["", f"## {port}", "", f"| fault | {' | '.join(self._clouds)} |"]
            lines.append("| --- |" + " --- |" * len(self._clouds))
            for kind in KINDS:
                by = self._seen.get((port, kind), {})
                cells = [", ".join(by.get(cloud, ())) or _NOTHING for cloud in self._clouds]
                lines.append(f"| {kind}: {KINDS[kind]} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"
