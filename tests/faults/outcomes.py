"""The table cloud x fault -> what came out, written by the run itself: `build/faults.json` and `build/faults.md`.

With `LINTAS_FAULTS_TABLE=PATH` the Markdown goes to PATH as well: `make faults` keeps docs/faults.md so.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deployments.local.faults import KINDS
from tasks.core.errors import LintasError

PORTS = ("Trainer", "Server", "Store", "EventSource")
"""The ports of the table, in its order."""

_BUILD = Path("build")
_NOTHING = "-"
_BROKEN = "PROMISE BROKEN"


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


@dataclass
class Cell:
    """What was seen of one kind of fault on one cloud."""

    seen: set[str] = field(default_factory=set[str])

    def require(self, observed: Iterable[str], promised: Collection[str]) -> None:
        """Everything that is observed is one of the things that were promised, and there is something."""
        for outcome in observed:
            self.seen.add(outcome)
            assert outcome in promised, outcome
        assert self.seen, "nothing was seen of the fault"


class FaultOutcomes:
    """What was seen, by port, kind of fault and cloud."""

    def __init__(self, clouds: tuple[str, ...]) -> None:
        self._clouds = clouds
        self._seen: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)

    @contextmanager
    def cell(self, port: str, kind: str, cloud: str) -> Iterator[Cell]:
        """What the block sees is one cell of the table; if it raises, the cell says so."""
        cell = Cell()
        try:
            yield cell
        except BaseException:
            cell.seen.add(_BROKEN)
            raise
        finally:
            self._seen[port, kind][cloud] = sorted(cell.seen)

    def write(self) -> None:
        """Write both files."""
        _BUILD.mkdir(exist_ok=True)
        rows = [
            {"port": port, "kind": kind, "meaning": KINDS[kind], "clouds": by}
            for (port, kind), by in sorted(self._seen.items())
        ]
        (_BUILD / "faults.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (_BUILD / "faults.md").write_text(self.markdown(), encoding="utf-8")
        if os.environ.get("LINTAS_FAULTS_TABLE"):
            Path(os.environ["LINTAS_FAULTS_TABLE"]).write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """The table for people."""
        lines = [
            "# Faults",
            "",
            "Written by `make faults`: every fault of every double, met through the provider's own client, and what",
            "came out: a class of `tasks.core.errors`, the state of a job, or what an endpoint was seen to be.",
            f"`{_BROKEN}` would be a promise that was not kept. After every fault the same call succeeded. `ok`: an",
            "answer that has no body cannot be cut in its middle, and half a second of silence is waited out. Blob",
            "Storage sends no checksum with a body, so that a wrong byte is left to the manifest's digest.",
        ]
        for port in PORTS:
            lines += ["", f"## {port}", "", f"| fault | {' | '.join(self._clouds)} |"]
            lines.append("| --- |" + " --- |" * len(self._clouds))
            for kind in KINDS:
                by = self._seen.get((port, kind), {})
                cells = [", ".join(by.get(cloud, ())) or _NOTHING for cloud in self._clouds]
                lines.append(f"| {kind}: {KINDS[kind]} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"
