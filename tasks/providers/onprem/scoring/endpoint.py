"""One endpoint of the scoring host: what it should serve, what it serves, and the way from one to the other.

An update starts the new process beside the old one, probes it, switches, and lets the old one finish its requests. A
process that ends is replaced; a version that does not come up leaves the one before it serving, and is tried again at
growing intervals.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tasks.core.errors import LintasError
from tasks.providers.onprem.scoring.fork_server import ForkServer, ScoringProcess
from tasks.providers.onprem.scoring.models import Models, disk_error
from tasks.providers.onprem.scoring.process import Definition

_START_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 5.0
_DRAIN_TIMEOUT_S = 30.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 30.0
"""Seconds that a process must have lived before its end counts as the first failure again."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What an endpoint serves at this moment; `definition` is None while it serves nothing."""

    definition: Definition | None
    healthy: bool
    detail: str


class ServedEndpoint:
    """One endpoint and the task that keeps it as it should be.

    Args:
        name: Its name.
        directory: Where its definition is kept.
        models: Where the models are.
        forks: Makes the processes.
        client: For probes.
        on_unused: Called with the digest of a model that this endpoint no longer needs.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        models: Models,
        forks: ForkServer,
        client: httpx.AsyncClient,
        on_unused: Callable[[str], None],
    ) -> None:
        self.name = name
        self._file = directory / f"{name}.json"
        self._log = directory / f"{name}.log"
        self._models, self._forks, self._client, self._on_unused = models, forks, client, on_unused
        self.wanted: Definition | None = None
        self._proven: Definition | None = None
        self._serving: ScoringProcess | None = None
        self._trouble = ""
        self._failures = 0
        self._adopted = 0.0
        self._wish = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def serving(self) -> ScoringProcess | None:
        """The process that takes requests now."""
        return None if self._serving is None or self._serving.ended.is_set() else self._serving

    def digests(self) -> set[str]:
        """The models that this endpoint needs."""
        return {definition.digest for definition in (self.wanted, self._proven) if definition is not None}

    def restore(self) -> None:
        """Take up the definition that an earlier host kept. Raises `ValueError` when its file cannot be read."""
        kept = json.loads(self._file.read_text())
        self.wanted = Definition(**kept["wanted"])
        self._proven = Definition(**kept["proven"]) if kept["proven"] else None
        self._begin()

    def want(self, definition: Definition) -> None:
        """Serve this from now on; the same wish again changes nothing.

        Raises:
            Terminal: The wish cannot be kept on the disk; nothing has changed.
        """
        if definition == self.wanted:
            return
        before = self.digests()
        self._keep(definition, self._proven)
        self.wanted, self._trouble = definition, ""
        self._begin()
        self.try_again()
        self._release_models(before)

    def try_again(self) -> None:
        """Do not wait any longer before the next attempt: something has changed."""
        self._failures = 0
        self._wish.set()

    async def observe(self) -> Observed:
        """Ask the process itself what it serves, and whether it answers its example request now."""
        process = self.serving
        if process is None:
            return Observed(None, False, self._trouble or "the scoring process is starting")
        detail = await self._probe(process, _PROBE_TIMEOUT_S)
        if process.ended.is_set():
            return Observed(None, False, f"the scoring process {process.reason}")
        if detail is None:
            behind = process.definition != self.wanted
            waiting = self._trouble or "the new version is starting"
            return Observed(process.definition, True, waiting if behind else "")
        return Observed(process.definition, False, detail)

    async def remove(self) -> None:
        """End the processes and forget the definition."""
        before = self.digests()
        self._file.unlink(missing_ok=True)
        self._log.unlink(missing_ok=True)
        await self.close()
        self.wanted = self._proven = None
        self._release_models(before)

    async def close(self) -> None:
        """End the processes; the definition stays for the next host."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._serving is not None:
            await self._drain(self._serving)
        await asyncio.gather(*self._draining)

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_up(), name=f"endpoint {self.name}")

    def _keep(self, wanted: Definition | None, proven: Definition | None) -> None:
        unfinished = self._file.with_suffix(".tmp")
        try:
            with unfinished.open("w") as file:
                json.dump({"wanted": _facts(wanted), "proven": _facts(proven)}, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._file)
        except OSError as error:
            raise disk_error(error) from error

    async def _keep_up(self) -> None:
        while True:
            self._wish.clear()
            target = self._target()
            if target is not None:
                if not await self._switch_to(target):
                    await self._pause()
                continue
            await self._until_something_changes()
            if self.serving is None:
                if time.monotonic() - self._adopted < _STEADY_S:
                    await self._pause()
                else:
                    self._failures = 0

    def _target(self) -> Definition | None:
        """What to start now; None if all is well.

        While nothing serves, what served well before takes turns with what is wanted, which may never come up.
        """
        process = self.serving
        if process is not None:
            return None if process.definition == self.wanted else self.wanted
        if self._proven is not None and (self._failures % 2 == 0 or self._proven == self.wanted):
            return self._proven
        return self.wanted

    async def _until_something_changes(self) -> None:
        """Wait for another wish or for the end of the process."""
        waits = [asyncio.create_task(self._wish.wait())]
        if self._serving is not None:
            waits.append(asyncio.create_task(self._serving.ended.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._serving is not None and self._serving.ended.is_set():
            self._trouble = f"the scoring process {self._serving.reason}"

    async def _pause(self) -> None:
        """Wait before the next attempt, longer each time; another wish ends the wait."""
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        self._failures += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wish.wait(), pause_s)

    async def _switch_to(self, target: Definition) -> bool:
        """Start a process for the target and let it take the requests once it is healthy."""
        process: ScoringProcess | None = None
        try:
            process = await self._forks.spawn(target, self._models.path(target.digest), self._log)
            trouble = await self._first_probe(process)
            if trouble is None:
                self._adopt(process)
                process = None
                return True
            self._trouble = f"version {target.version} does not start: {trouble}"
            if process.damaged:
                # Whoever deploys it again is asked for the model anew.
                self._models.forget(target.digest)
        except LintasError as error:
            self._trouble = error.what
        finally:
            if process is not None:
                self._forks.stop(process, kill=True)
        return False

    def _adopt(self, process: ScoringProcess) -> None:
        before, old = self.digests(), self._serving
        self._serving, self._adopted = process, time.monotonic()
        if process.definition == self.wanted:
            self._trouble = ""
        if self._proven != process.definition:
            self._proven = process.definition
            try:
                self._keep(self.wanted, self._proven)
            except LintasError as error:
                # It serves all the same; only the next host would begin with an older version.
                self._trouble = error.what
        self._release_models(before)
        if old is not None and not old.ended.is_set():
            task = asyncio.create_task(self._drain(old))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def _drain(self, process: ScoringProcess) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.idle.wait(), _DRAIN_TIMEOUT_S)
        self._forks.stop(process)
        try:
            await asyncio.wait_for(process.ended.wait(), _DRAIN_TIMEOUT_S)
        except TimeoutError:
            self._forks.stop(process, kill=True)

    def _release_models(self, before: set[str]) -> None:
        for digest in before - self.digests():
            self._on_unused(digest)

    async def _first_probe(self, process: ScoringProcess) -> str | None:
        """Probe a process that is starting; its end answers before the time is over."""
        probe = asyncio.create_task(self._probe(process, _START_TIMEOUT_S))
        ended = asyncio.create_task(process.ended.wait())
        overtaken = asyncio.create_task(self._wish.wait())
        try:
            await asyncio.wait({probe, ended, overtaken}, return_when=asyncio.FIRST_COMPLETED, timeout=_START_TIMEOUT_S)
            if overtaken.done():
                return "another version is wanted"
            if process.ended.is_set():
                return process.reason
            if probe.done() and probe.result() is not None:
                # A connection that was cut is told before the process's end is known; the end has the reason.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.ended.wait(), 1.0)
                return process.reason if process.ended.is_set() else probe.result()
            return None if probe.done() else f"no answer in {_START_TIMEOUT_S:.0f} s"
        finally:
            probe.cancel()
            ended.cancel()
            overtaken.cancel()

    async def _probe(self, process: ScoringProcess, timeout_s: float) -> str | None:
        """Why the process is not healthy, or None: it serves its definition and predicts for its example."""
        try:
            told = await self._client.get(f"{process.url}/served", timeout=timeout_s)
            if told.status_code != 200 or told.json() != asdict(process.definition):
                return "the scoring process serves another model than it should"
            example = self._models.path(process.definition.digest) / "serving_input_example.json"
            if not example.is_file():
                return None
            headers = {"content-type": "application/json"}
            answer = await self._client.post(
                f"{process.url}/invocations", content=example.read_bytes(), headers=headers, timeout=timeout_s
            )
        except httpx.TimeoutException:
            return f"no answer to a probe in {timeout_s:.0f} s"
        except httpx.HTTPError:
            return "the scoring process does not answer"
        if answer.status_code != 200:
            return f"it refuses its own input example: {_message(answer)}"
        return None


def _facts(definition: Definition | None) -> Mapping[str, Any] | None:
    return None if definition is None else asdict(definition)


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
