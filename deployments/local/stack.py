"""Starting, watching and stopping the local twin: in this process, or detached under a supervisor.

    with running_stack(Path(".lintas/local")) as stack: ...       # gone with this process
    up(Path(".lintas/local")); status(...); down(...)             # stays

The supervisor is `python -m deployments.local.stack --state DIR`: it owns all processes, so that they end with it even
when it is killed, and tells how things stand in `<state>/stack.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from deployments.local.configuration import CLOUDS
from deployments.local.object_stores import MODULES
from deployments.local.proc import is_same_process, resident_mb, start_ticks
from deployments.local.processes import HOST, Process, port_ready
from deployments.local.record import Record, ServiceStatus, StackStatus
from deployments.local.twin import LEVELS, Twin, Wanted, prepare
from tasks.core.errors import Invalid, LintasError, Terminal

_POLL_S = 0.1
_WATCH_S = 5.0
_STOP_TIMEOUT_S = 15.0
_START_TIMEOUT_S = 420.0


Progress = Callable[[StackStatus], None]


class Stack:
    """The twin's processes, owned by this one. Use it from the main thread: a child ends with the thread that
    started it (prctl(2), PR_SET_PDEATHSIG).

    Args:
        twin: What to run.
    """

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self._state = "starting"
        self._began = time.monotonic()
        self._elapsed_s = 0.0

    def start(self, on_progress: Progress | None = None) -> Stack:
        """Start everything as soon as what it needs is ready, and wait until all is.

        Args:
            on_progress: Called after each process that became ready.

        Raises:
            Terminal: A process ended or was too late; all are stopped again.
        """
        report = on_progress or (lambda _: None)
        waiting, starting, ready = list(self.twin.processes), list[Process](), set[str]()
        try:
            while waiting or starting:
                for process in [process for process in waiting if ready.issuperset(process.needs)]:
                    waiting.remove(process)
                    starting.append(process.start())
                    report(self.status())
                for process in [process for process in starting if process.poll_ready()]:
                    starting.remove(process)
                    ready.add(process.name)
                    report(self.status())
                if not starting and not any(ready.issuperset(process.needs) for process in waiting) and waiting:
                    names = ", ".join(process.name for process in waiting)
                    raise Terminal(f"{names} need processes that are not part of the twin", "start those too")
                time.sleep(_POLL_S)
        except BaseException:
            self.stop()
            raise
        self._state, self._elapsed_s = "ready", time.monotonic() - self._began
        report(self.status())
        return self

    def stop(self) -> None:
        """End all processes; silent if they are gone."""
        for process in self.twin.processes:
            process.ask_to_stop()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for process in self.twin.processes:
            process.stop(max(deadline - time.monotonic(), 0.1))

    def status(self) -> StackStatus:
        """How it stands now."""
        return StackStatus(
            state=self._state,
            supervisor_pid=os.getpid(),
            services=tuple(_describe(process) for process in self.twin.processes),
            elapsed_s=round(self._elapsed_s or time.monotonic() - self._began, 2),
            config=str(self.twin.config),
        )


@contextlib.contextmanager
def running_stack(state: Path, wanted: Wanted | None = None, on_progress: Progress | None = None) -> Iterator[Stack]:
    """The twin for as long as the block runs, owned by this process.

    Args:
        state: The twin's directory.
        wanted: What of it is to run; everything by default.
        on_progress: Called after each process that became ready.

    Raises:
        Invalid: It runs already, something is not installed, or a demanded port is in use.
        Terminal: A process did not start.
    """
    with _only_one(state):
        record = Record(state)

        def report(status: StackStatus) -> None:
            record.write(status)
            if on_progress is not None:
                on_progress(status)

        try:
            stack = Stack(prepare(state, wanted or Wanted())).start(report)
        except LintasError as error:
            record.write(StackStatus(), error)
            raise
        try:
            yield stack
        finally:
            stack.stop()
            record.remove()


def up(
    state: Path,
    wanted: Wanted | None = None,
    on_progress: Progress | None = None,
    timeout_s: float = _START_TIMEOUT_S,
) -> StackStatus:
    """Start the twin detached from this process and wait until it is ready; one that runs already is left as it is.

    Args:
        state: The twin's directory.
        wanted: What of it is to run; everything by default.
        on_progress: Called whenever something became ready.
        timeout_s: How long the start may take.

    Raises:
        Invalid: Something is not installed, or a demanded port is in use.
        Terminal: A process did not start, or not in time.
    """
    state, wanted = state.resolve(), wanted or Wanted()
    record = Record(state)
    if status(state).state == "down":
        record.remove()
        supervisor = _spawn(state, wanted)
    else:
        supervisor = None
    deadline, seen = time.monotonic() + timeout_s, 0
    while True:
        now = record.read()
        ready = sum(service.ready for service in now.services)
        if on_progress is not None and ready > seen:
            seen = ready
            on_progress(now)
        if now.state == "ready":
            return status(state)
        if now.state == "failed":
            raise record.failure()
        if supervisor is not None and supervisor.poll() is not None:
            if now.supervisor_pid in (None, supervisor.pid):
                raise record.failure()
            # Another one was faster; this one has found its lock taken.
            supervisor = None
        if time.monotonic() > deadline:
            down(state)
            raise Terminal(f"the twin was not ready in {timeout_s:.0f} s", f"see the logs in {state / 'logs'}")
        time.sleep(_POLL_S)


def down(state: Path) -> bool:
    """End the detached twin. Its data stay.

    Returns:
        Whether it ran.

    Raises:
        Terminal: It does not end.
    """
    record = Record(state.resolve())
    pid, started = record.supervisor()
    if pid is None or not is_same_process(pid, started):
        record.remove()
        return False
    for number, patience_s in ((signal.SIGTERM, _STOP_TIMEOUT_S + 5), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not is_same_process(pid, started):
                record.remove()
                return True
            time.sleep(_POLL_S)
    raise Terminal(f"the twin's supervisor (process {pid}) does not end", "end it by hand")


def status(state: Path) -> StackStatus:
    """How the twin stands, looked at now: which processes live, which answer, how much memory they take."""
    record = Record(state.resolve())
    pid, started = record.supervisor()
    if pid is None or not is_same_process(pid, started):
        return StackStatus()
    told = record.read()
    services = tuple(_look_at(service) for service in told.services)
    return replace(told, services=services)


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Hold the twin's lock. Raises `Invalid` when another process holds it."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise Terminal(f"{state} cannot be written ({error.strerror})", "free some space or mend its rights") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Invalid(f"the twin in {state} runs already", "use it, or end it with 'lintas down'") from error
        yield


def _spawn(state: Path, wanted: Wanted) -> subprocess.Popen[bytes]:
    """Start the supervisor in a session of its own, so that a terminal that closes does not end it."""
    logs = state / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        output = (logs / "supervisor.log").open("wb")
    except OSError as error:
        raise Terminal(f"{logs} cannot be written ({error.strerror})", "free some space or mend its rights") from error
    ports = [f"--port={name}={port}" for name, port in wanted.ports.items()]
    command = [sys.executable, "-m", "deployments.local.stack", "--state", str(state), "--level", wanted.level]
    with output:
        return subprocess.Popen(
            [*command, "--clouds", *wanted.clouds, "--worker-limit", str(wanted.worker_limit), *ports],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **MODULES},
        )


def _describe(process: Process) -> ServiceStatus:
    pid, alive = process.pid, process.alive()
    return ServiceStatus(
        name=process.name,
        pid=pid,
        port=process.port,
        url=f"http://{HOST}:{process.port}" if process.port else "",
        alive=alive,
        ready=alive and process.started_s is not None,
        started_s=None if process.started_s is None else round(process.started_s, 2),
        rss_mb=resident_mb(pid) if alive and pid else 0.0,
    )


def _look_at(told: ServiceStatus) -> ServiceStatus:
    if told.pid is None:
        return told
    if start_ticks(told.pid) == 0:
        return replace(told, alive=False, ready=False, rss_mb=0.0)
    ready = told.ready and (told.port is None or port_ready(told.port)())
    return replace(told, ready=ready, rss_mb=resident_mb(told.pid))


def _supervise(state: Path, wanted: Wanted) -> int:
    """Run the twin until a signal ends it; the exit code."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        # During the start there is a loop to leave; afterwards somebody waits for the event.
        if not stop.is_set():
            stop.set()
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    record = Record(state)
    try:
        with running_stack(state, wanted) as stack:
            while not stop.wait(_WATCH_S):
                record.write(stack.status())
    except KeyboardInterrupt:
        return 0
    except LintasError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _arguments(arguments: Sequence[str] | None) -> tuple[Path, Wanted]:
    parser = argparse.ArgumentParser(prog="stack", description="Run the local twin until a signal ends it.")
    parser.add_argument("--state", type=Path, required=True, help="the twin's directory")
    parser.add_argument("--level", choices=LEVELS, default="all", help="how much of it")
    parser.add_argument("--clouds", nargs="*", default=list(CLOUDS), help="whose servers")
    parser.add_argument("--worker-limit", type=int, default=Wanted().worker_limit, help="flow runs at a time")
    parser.add_argument("--port", action="append", default=[], metavar="NAME=PORT", help="insist on a port")
    chosen = parser.parse_args(arguments)
    ports = {name: int(port) for name, _, port in (text.partition("=") for text in chosen.port)}
    wanted = Wanted(chosen.level, tuple(chosen.clouds), ports, chosen.worker_limit)
    return chosen.state.resolve(), wanted


if __name__ == "__main__":
    sys.exit(_supervise(*_arguments(None)))
