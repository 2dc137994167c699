"""What the doubles of training and serving services compute with: real processes, as bare as in a container.

A job gets the environment that its service gives it and nothing of ours, in a directory of its own. Where a service
mounts something at a fixed place (/opt/ml, /gcs/...), `mounts` say where that is here: the paths are rewritten in
arguments and environment, since the twin runs without containers and without being root.

Everything ends with the double: its processes are told so by Linux (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from deployments.local.faults import Fault
from deployments.local.proc import descendants
from tasks.core.evaluation import model_digest
from tasks.providers.onprem.scoring.fork_server import ForkServer, ScoringProcess
from tasks.providers.onprem.scoring.process import Definition

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.05
_LIBC = ctypes.CDLL(None, use_errno=True)
_INHERITED = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "TMPDIR")
# The jobs of the twin report to nobody outside of this machine.
_QUIET = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def image_environment(home: Path) -> dict[str, str]:
    """What a container's image would bring along: a PATH on which `python` is this environment's, and a home."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    programs = Path(sys.executable).parent
    return {**inherited, **_QUIET, "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home)}


def in_place(text: str, mounts: Mapping[str, Path]) -> str:
    """A text with the container's paths replaced by where they are here.

    >>> in_place("--data=/opt/ml/input /opt/mls", {"/opt/ml": Path("/tmp/job")})
    '--data=/tmp/job/input /opt/mls'
    """
    for inside, here in mounts.items():
        text = re.sub(rf"{re.escape(inside)}(?![\w.-])", lambda _, here=here: str(here), text)
    return text


class RunningJob:
    """One command of a job. Made by `JobRunner.start`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, lines_before: int = 0) -> None:
        self._process = process
        self._log = log
        self._lines_before = lines_before

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit code as a container has it (128 + N after signal N), once the job has ended."""
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def stop(self, grace_s: float) -> int:
        """Give notice (SIGTERM), wait `grace_s` seconds, kill everything that is left; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.wait(), grace_s)
        return await self.kill()

    async def kill(self) -> int:
        """End the job and all its processes without notice; returns the exit code."""
        for pid in descendants(self.pid) if self._process.returncode is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return await self.wait()

    async def due(self, fault: Fault) -> None:
        """Wait until it is time for a fault that shall befall this job in the middle."""
        while fault.after_line and fault.after_line not in self.lines()[self._lines_before :]:
            await asyncio.sleep(_LOOK_S)
        await asyncio.sleep(fault.delay_s)

    def lines(self) -> list[str]:
        """What it has written: whole lines, and the last one without an end once it has ended."""
        return log_lines(self._log, ended=self._process.returncode is not None)


def log_lines(log: Path, *, ended: bool) -> list[str]:
    """The lines of a log file; one without an end only when nobody writes any more."""
    text = log.read_text(errors="replace") if log.exists() else ""
    whole, _, rest = text.rpartition("\n")
    lines = [line.rstrip("\r") for line in whole.split("\n")] if whole else []
    return [*lines, rest] if ended and rest else lines


class JobRunner:
    """Starts jobs' commands and knows those that run.

    Args:
        grace_s: How long they are waited for when the double ends.
    """

    def __init__(self, grace_s: float = 1.0) -> None:
        self._grace_s = grace_s
        self._running: set[RunningJob] = set()

    async def start(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        mounts: Mapping[str, Path] | None = None,
    ) -> RunningJob:
        """Start a command.

        Args:
            arguments: Program and arguments; found on the image's PATH.
            environment: All that the service sets; nothing of the double's own is added but `image_environment`.
            directory: Its working directory and home; made if need be.
            log: File that takes its standard output and error, added to what is there.
            mounts: Directory here, by the path that the service promises.

        Raises:
            FileNotFoundError: There is no such program; a container would not start.
        """
        directory.mkdir(parents=True, exist_ok=True)
        places = mounts or {}
        variables = {name: in_place(value, places) for name, value in environment.items()}
        parent = os.getpid()

        def die_with_double() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        lines_before = len(log_lines(log, ended=True))
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(in_place(argument, places) for argument in arguments),
                cwd=directory,
                env={**image_environment(directory), **variables},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_double,
            )
        job = RunningJob(process, log, lines_before)
        self._running.add(job)
        ending = asyncio.create_task(job.wait())
        ending.add_done_callback(lambda _: self._running.discard(job))
        return job

    async def close(self) -> None:
        """End all jobs."""
        await asyncio.gather(*(job.stop(self._grace_s) for job in list(self._running)))


class ModelRunner:
    """Scoring processes: forks of one zygote, which starts when the first model is to be served.

    Args:
        root: Directory for its log.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._forks = ForkServer(root / "zygote.log")
        self._forking: asyncio.Task[None] | None = None
        self._client = httpx.AsyncClient(trust_env=False, timeout=60.0, limits=httpx.Limits(max_connections=None))

    async def start(self, directory: Path, log: Path, definition: Definition | None = None) -> ScoringProcess:
        """Start a process that serves the MLflow model in `directory`; it answers once the model is loaded.

        Args:
            directory: The model's files.
            log: File that takes its output.
            definition: What it is said to be; the process refuses files of another digest. None: whatever it is.

        Raises:
            LintasError: No process can be started.
        """
        if self._forking is None:
            self._forking = asyncio.create_task(self._forks.run())
        known = definition or Definition("", "", await asyncio.to_thread(model_digest, directory))
        return await self._forks.spawn(known, directory, log)

    async def ping(self, process: ScoringProcess, timeout_s: float) -> str | None:
        """Wait for a process to answer its health check. Returns why it does not, or None."""
        asked = asyncio.create_task(self._client.get(f"{process.url}/ping", timeout=timeout_s))
        ended = asyncio.create_task(process.ended.wait())
        try:
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done() and not process.ended.is_set() and asked.exception() is None:
                return (
                    None
                    if asked.result().status_code == httpx.codes.OK
                    else "it answers its health check with an error"
                )
            # A connection that was cut is told before the process's end is known; the end has the reason.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.ended.wait(), 1.0)
            return process.reason or "no answer to a health check"
        finally:
            asked.cancel()
            ended.cancel()

    async def score(self, process: ScoringProcess, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Hand a request to `/invocations`. Raises `httpx.HTTPError` when the process does not answer."""
        with process.request():
            return await self._client.post(f"{process.url}/invocations", content=body, headers=dict(headers))

    async def retire(self, process: ScoringProcess, timeout_s: float = 30.0) -> None:
        """End a process after the requests that it has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.idle.wait(), timeout_s)
        self._forks.stop(process)
        try:
            await asyncio.wait_for(process.ended.wait(), timeout_s)
        except TimeoutError:
            self._forks.stop(process, kill=True)

    async def close(self) -> None:
        """End all processes and the zygote."""
        if self._forking is not None:
            self._forking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._forking
        await self._client.aclose()
