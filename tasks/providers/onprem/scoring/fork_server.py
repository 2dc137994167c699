"""The host's side of the zygote: starts it, orders scoring processes, and hears when they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tasks
from tasks.core.errors import IntegrityError, Retryable
from tasks.providers.onprem.scoring.process import Definition

_RESTART_PAUSE_S = 1.0
_READY_TIMEOUT_S = 120.0
_KEPT_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "PYTHONPATH",
)  # fmt: skip
"""What a scoring process sees of the host's environment: a model is somebody's code, and gets no secrets."""

_OWN_VARIABLES = {
    # One request is scored on one core; more endpoints, not more threads, use the others.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(eq=False)
class ScoringProcess:
    """One process that serves one definition.

    Args:
        definition: What it serves.
        pid: Its process id.
        port: Where it serves on 127.0.0.1.
        requests: How many requests it has now.
        damaged: Whether it ended because the model's files are not those of the definition.
        idle: Set while it has none.
        ended: Set when it has ended; `reason` says why then.
    """

    definition: Definition
    pid: int
    port: int
    requests: int = 0
    reason: str = ""
    damaged: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Counts one request while it runs, so that the process is not ended under it."""
        self.requests += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.requests -= 1
            if self.requests == 0:
                self.idle.set()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"


class ForkServer:
    """Keeps a zygote running, and knows the scoring processes that live.

    Args:
        log: File for the zygote's own output.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._zygote: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ready = asyncio.Event()
        self._answers: dict[int, Callable[[dict[str, Any] | None], None]] = {}
        self._living: dict[int, ScoringProcess] = {}
        self._orders = 0
        self.started_s = 0.0

    async def run(self) -> None:
        """Keep a zygote running until cancelled. With it end all its processes, and a new one begins empty."""
        while True:
            try:
                await self._run_once()
            except OSError as error:
                print(f"the fork server cannot be started ({error.strerror}); trying again", file=sys.stderr)
            finally:
                self._forget_all()
                await self._stop()
            await asyncio.sleep(_RESTART_PAUSE_S)

    async def spawn(self, definition: Definition, directory: Path, log: Path) -> ScoringProcess:
        """Fork a process; its port takes connections at once and answers them when the model is loaded.

        Raises:
            Retryable: The zygote ended before it could, or does not come up.
        """
        try:
            await asyncio.wait_for(self._ready.wait(), _READY_TIMEOUT_S)
        except TimeoutError as error:
            raise Retryable(
                f"the fork server does not come up (see {self._log})", "mend it; it is tried again"
            ) from error
        self._orders += 1
        order, answered = self._orders, asyncio.get_running_loop().create_future()

        def answer(news: dict[str, Any] | None) -> None:
            # The process is known from the line that names it on, so that its end is never missed.
            if news is None:
                answered.set_exception(Retryable("the fork server ended", "try again"))
            else:
                process = self._living[news["pid"]] = ScoringProcess(definition, news["pid"], news["port"])
                answered.set_result(process)

        self._answers[order] = answer
        what = {"definition": asdict(definition), "directory": str(directory), "log": str(log)}
        self._send({"id": order, "spawn": what})
        # A process that was ordered is waited for even when its caller has lost interest, and ended then.
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:
            answered.add_done_callback(lambda done: None if done.exception() else self.stop(done.result(), kill=True))
            raise

    def stop(self, process: ScoringProcess, *, kill: bool = False) -> None:
        """Tell a process to end; does nothing if it has."""
        if self._living.get(process.pid) is process:
            self._send({"stop": process.pid, "signal": int(signal.SIGKILL if kill else signal.SIGTERM)})

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | _OWN_VARIABLES
        package_root = str(Path(next(iter(tasks.__path__))).parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, environment.get("PYTHONPATH")]))
        with theirs, self._log.open("wb") as log:
            self._zygote = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tasks.providers.onprem.scoring.zygote"),
                *("--control", str(theirs.fileno()), "--parent", str(os.getpid())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_connection(sock=ours)
        while line := await reader.readline():
            self._hear(json.loads(line))

    def _hear(self, news: dict[str, Any]) -> None:
        if "ready" in news:
            self.started_s = news["ready"]
            self._ready.set()
        elif "id" in news:
            self._answers.pop(news["id"])(news)
        elif (process := self._living.pop(news["exited"], None)) is not None:
            process.reason, process.damaged = news["reason"], news["code"] == IntegrityError.exit_code
            process.ended.set()

    def _send(self, order: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(order).encode() + b"\n")

    def _forget_all(self) -> None:
        self._ready.clear()
        for answer in self._answers.values():
            answer(None)
        self._answers.clear()
        for process in self._living.values():
            process.reason = "the fork server ended"
            process.ended.set()
        self._living.clear()

    async def _stop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._zygote is not None:
            if self._zygote.returncode is None:
                self._zygote.kill()
            await self._zygote.wait()
            self._zygote = None
