"""How the local twin stands, and the file `stack.json` in which its owner tells others."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.local.proc import start_ticks
from tasks.core import errors
from tasks.core.errors import LintasError, Terminal


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One process of the twin.

    Args:
        name: Its name; its log is `<state>/logs/NAME.log`.
        pid: Its process id; None before it was started.
        port: The port it is known by, if it has one.
        url: Where it answers, if anywhere.
        alive: Whether the process runs.
        ready: Whether it serves.
        started_s: Seconds from its start until it served; None before.
        rss_mb: Resident memory with all its children, in MB.
    """

    name: str
    pid: int | None = None
    port: int | None = None
    url: str = ""
    alive: bool = False
    ready: bool = False
    started_s: float | None = None
    rss_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class StackStatus:
    """How the twin stands.

    Args:
        state: `down`, `starting`, `ready` or `failed`.
        supervisor_pid: The process that owns the others; None when the twin is down.
        services: Its processes.
        elapsed_s: Seconds until all were ready, or so far.
        config: The `lintas.yaml` that points at it.
        error: What went wrong, when `failed`.
    """

    state: str = "down"
    supervisor_pid: int | None = None
    services: tuple[ServiceStatus, ...] = ()
    elapsed_s: float = 0.0
    config: str = ""
    error: str = ""

    @property
    def rss_mb(self) -> float:
        """Resident memory of all services, in MB."""
        return sum(service.rss_mb for service in self.services)


class Record:
    """`stack.json` of a twin.

    Args:
        state: The twin's directory.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "stack.json"
        self._config = state / "lintas.yaml"

    def write(self, told: StackStatus, failure: LintasError | None = None) -> None:
        """Tell how it stands, and which error ended its start if one did."""
        content = {"started_ticks": start_ticks(os.getpid()), **asdict(told)}
        if failure is not None:
            content |= {"state": "failed", "error": str(failure)}
            content["failure"] = {"kind": type(failure).__name__, "what": failure.what, "mend": failure.mend}
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text(json.dumps(content, indent=1))
        unfinished.replace(self._path)

    def read(self) -> StackStatus:
        """What was told last; `down` when nothing was."""
        content = self._content()
        if not content:
            return StackStatus()
        services = tuple(ServiceStatus(**service) for service in content["services"])
        known = {key: content[key] for key in ("state", "supervisor_pid", "elapsed_s", "config", "error")}
        return StackStatus(**known, services=services)

    def supervisor(self) -> tuple[int | None, int]:
        """Process id and start time of the process that wrote this."""
        content = self._content()
        return content.get("supervisor_pid"), content.get("started_ticks", 0)

    def failure(self) -> LintasError:
        """The error that ended the start, of the class it had."""
        told = self._content().get("failure")
        if told is None:
            log = self._path.parent / "logs" / "supervisor.log"
            return Terminal("the twin's supervisor ended before it said why", f"see {log}")
        kind: type[LintasError] = getattr(errors, told["kind"], Terminal)
        return kind(told["what"], told["mend"])

    def remove(self) -> None:
        """Forget the twin: what points at it would only lead into the void."""
        for path in (self._config, self._path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()

    def _content(self) -> dict:
        try:
            return json.loads(self._path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
