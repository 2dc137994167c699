"""Processes of the local twin: started on free ports, watched until they are ready, gone when their parent is gone.

Every child gets `PR_SET_PDEATHSIG`, so that it dies with the process that started it, also when that one is killed
(prctl(2), Linux). Output goes to a log file a process; when a process does not come up, the error shows its tail.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.errors import Invalid, Terminal

_PR_SET_PDEATHSIG = 1
HOST = "127.0.0.1"
_LIBC = ctypes.CDLL(None, use_errno=True)


def require_free(port: int) -> int:
    """The port itself. Raises `Invalid` when something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Invalid(f"port {port} is in use", "stop what listens there or choose another port") from error
    return port


def http_ready(url: str) -> Callable[[], bool]:
    """A readiness check: the URL answers over HTTP with anything below 500."""

    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    return check


def answers(url: str, status: int) -> Callable[[], bool]:
    """A readiness check: the URL answers over HTTP with exactly this status (say, 403: it knows its keys)."""

    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return response.status == status
        except urllib.error.HTTPError as error:
            return error.code == status
        except OSError:
            return False

    return check


def log_says(log: Path, text: str) -> Callable[[], bool]:
    """A readiness check: the process has written this text into its log."""

    def check() -> bool:
        return log.exists() and text in log.read_text(errors="replace")

    return check


def port_ready(port: int) -> Callable[[], bool]:
    """A readiness check: something accepts connections on the port of 127.0.0.1."""

    def check() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((HOST, port)) == 0

    return check


@dataclass
class Process:
    """One server of the twin.

    Args:
        name: For messages and the log file.
        command: Program and arguments.
        ready: Tells whether it serves yet.
        log: File that takes its output.
        environment: Variables added to this process's own.
        start_timeout_s: How long it may take to be ready. Generous: one that ended is noticed at once, and a
            busy machine is no reason to give up.
        stop_signal: What asks it to end.
        working_directory: Where it runs; None: where its parent runs.
        without: Beginnings of the names of inherited variables that it does not get.
        needs: Names of the processes that must be ready before it starts.
        port: The port that it is known by.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    start_timeout_s: float = 300.0
    stop_signal: signal.Signals = signal.SIGTERM
    working_directory: Path | None = None
    without: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    port: int | None = None
    started_s: float | None = None
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _began: float = field(default=0.0, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id once it was started."""
        return self._child.pid if self._child else None

    def start(self) -> Process:
        """Start it without waiting. The log is begun anew."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        stop_signal = int(self.stop_signal)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(self.without)}

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, stop_signal)
            if os.getppid() != parent:  # The parent died between fork and prctl.
                os._exit(1)

        self._began = time.monotonic()
        self.started_s = None
        with self.log.open("wb") as output:
            self._child = subprocess.Popen(
                list(self.command),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**inherited, **self.environment},
                cwd=self.working_directory,
                preexec_fn=die_with_parent,
            )
        return self

    def poll_ready(self) -> bool:
        """Whether it serves. Raises `Terminal` with the log's tail when it has ended or takes too long."""
        if self._child is None:
            raise Terminal(f"{self.name} was not started", "call start first")
        if self.started_s is not None:
            return True
        if self.ready():
            self.started_s = time.monotonic() - self._began
            return True
        if self._child.poll() is not None:
            code = self._child.returncode
            raise Terminal(f"{self.name} ended with code {code}: {self.tail()}", f"see {self.log}")
        if time.monotonic() - self._began > self.start_timeout_s:
            self.stop()
            late = f"{self.name} was not ready in {self.start_timeout_s:.0f} s"
            raise Terminal(f"{late}: {self.tail()}", f"see {self.log}")
        return False

    def wait_ready(self) -> Process:
        """Wait until it serves. Raises `Terminal` as `poll_ready` does."""
        while not self.poll_ready():
            time.sleep(0.05)
        return self

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child is not None and self._child.poll() is None

    def ask_to_stop(self) -> None:
        """Send it the signal that ends it, without waiting; silent if it is gone."""
        if self.alive() and self._child is not None:
            self._child.send_signal(self.stop_signal)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ask it to end and kill it when it does not within `timeout_s` seconds; silent if it is gone."""
        self.ask_to_stop()
        if self._child is None:
            return
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def tail(self, lines: int = 5) -> str:
        """The last lines of the log, joined."""
        if not self.log.exists():
            return ""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:])
