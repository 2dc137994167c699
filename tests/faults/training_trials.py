"""Training under each kind of fault: what a job or a call ends in, and that the same succeeds without the fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployments.local.faults import put_faults
from tasks.core.errors import LintasError
from tasks.core.ports import Trainer
from tasks.core.training import JobSpec, JobStatus, RunState
from tests.conformance.test_trainer import Site
from tests.faults.outcomes import class_of, outcome_of

SEED = 20
_WRITES = """
    import os, pathlib
    pathlib.Path(os.environ["LINTAS_OUTPUT_DIR"], "result.txt").write_text("sound " * 40)
    print("said")
    """
_WAITS = """
    import os, pathlib, time
    while not pathlib.Path(os.environ["GO"]).exists():
        time.sleep(0.02)
    """
_GOES_ON = """
    import os, pathlib, time
    step = pathlib.Path(os.environ["LINTAS_CHECKPOINT_DIR"]) / "step"
    print("from", step.read_text() if step.exists() else 0)
    if not step.exists():
        draft = step.with_suffix(".draft")
        draft.write_text("7")
        draft.rename(step)
        print("wrote")
        time.sleep(60)
    """


@dataclass
class Training:
    """The training service of one cloud, and its faults.

    Args:
        site: The service.
        done: A job that has succeeded, its output still there.
    """

    site: Site
    done: str

    def meet(self, kind: str, *, seed: int = SEED, **how: Any) -> None:
        """From now on this fault and no other comes about."""
        put_faults(self.site.cloud.endpoint("training"), [{"kind": kind, **how}], seed)

    def calm(self) -> None:
        """No fault any more."""
        put_faults(self.site.cloud.endpoint("training"), [])

    def job(self, script: str, environment: Mapping[str, str] | None = None) -> JobSpec:
        """A job that is no other trial's."""
        return replace(self.site.job(script, run_id=self.site.work.name), environment=environment or {})

    def follow(self, job: JobSpec, trainer: Trainer | None = None) -> JobStatus:
        """Submit a job and wait for its end."""
        trainer = trainer or self.site.trainer
        job_id = trainer.submit(job)
        self.site.submitted.append(job_id)
        deadline = time.monotonic() + 120
        while not (status := trainer.poll(job_id)).state.ended:
            assert time.monotonic() < deadline, f"{status} after 120 s"
            time.sleep(0.05)
        return status

    def require_success(self, job: JobSpec) -> JobStatus:
        """The job succeeds now."""
        self.calm()
        status = self.follow(job)
        assert status.state is RunState.SUCCEEDED, status
        return status


def first_job(site: Site) -> str:
    """A job that writes and says something, run to its end."""
    put_faults(site.cloud.endpoint("training"), [])
    status = site.run(site.job(_WRITES, run_id="done"))
    assert status.state is RunState.SUCCEEDED, status
    site.submitted.clear()
    return status.job_id


def stockout(training: Training) -> Iterator[str]:
    """Where it shows by waiting only, the patience is short."""
    training.meet("stockout")
    impatient = training.site.reopen(queue_timeout_s="0.5", stockout_after_s="0.5")
    job = training.job("print('ran')")
    status = training.follow(job, impatient)
    assert status.detail
    yield status.state.name
    training.require_success(job.next_attempt())


def quota(training: Training) -> Iterator[str]:
    training.meet("quota")
    job = training.job("print('ran')")
    yield outcome_of(lambda: training.site.trainer.submit(job))
    training.require_success(job)


def refused_or_cut_off(kind: str, options: Mapping[str, str] | None = None, **how: Any) -> Trial:
    """Faults that any call may meet: looking at a job, reading its log, submitting another, fetching its output."""

    def trial(training: Training) -> Iterator[str]:
        training.meet(kind, **how)
        trainer = training.site.reopen(**(options or {}))
        job = training.job("print('ran')")
        yield outcome_of(lambda: trainer.poll(training.done))
        yield outcome_of(lambda: list(trainer.logs(training.done)))
        yield outcome_of(lambda: trainer.submit(job))
        yield outcome_of(lambda: trainer.cancel(training.done))
        yield outcome_of(lambda: trainer.fetch_output(training.done, training.site.work / "not-home"))
        assert not (training.site.work / "not-home").exists()
        training.calm()
        assert trainer.poll(training.done).state is RunState.SUCCEEDED
        training.require_success(job)

    return trial


def slow_start(training: Training) -> Iterator[str]:
    training.meet("slow_start", delay_s=1.0)
    began, job = time.monotonic(), training.job("print('ran')")
    waiting = training.site.trainer.poll(training.site.submit(job)).state
    assert waiting in (RunState.QUEUED, RunState.STARTING)
    yield training.follow(job).state.name
    assert time.monotonic() - began >= 1.0
    training.require_success(job.next_attempt())


def preempt(training: Training) -> Iterator[str]:
    """Services that have a machine again go on by themselves; elsewhere the next attempt does."""
    training.meet("preempt", times=1, after_line="wrote")
    job = replace(training.job(_GOES_ON), spot=True)
    status = training.follow(job)
    if status.state is not RunState.SUCCEEDED:
        assert "preempted" in status.detail, status
        yield status.state.name
        job = job.next_attempt()
    status = training.require_success(job)
    assert list(training.site.trainer.logs(status.job_id))[-1] == "from 7"
    yield "goes on from its checkpoint"


def crash(training: Training) -> Iterator[str]:
    training.meet("crash", times=1, delay_s=0.5)
    go = training.site.work / "go"
    job = training.job(_WAITS, {"GO": str(go)})
    status = training.follow(job)
    assert (status.exit_code, bool(status.detail)) == (-9, True), status
    yield status.state.name
    go.touch()
    training.require_success(job.next_attempt())


def lost_logs(training: Training) -> Iterator[str]:
    """Where the log is also kept in object storage, it is not lost."""
    training.meet("lost_logs")
    status = training.follow(training.job(_WRITES))
    lines = list(training.site.trainer.logs(status.job_id))
    assert lines in ([], ["said"])
    yield f"{status.state.name}, {'no log' if not lines else 'log from object storage'}"
    training.calm()
    assert list(training.site.reopen().logs(status.job_id)) == ["said"]


def wrong_bytes(damages: int) -> Trial:
    """One byte of every answer is another: what Lintas holds to be true is true, or it says that something is wrong.

    The service's answers bear no checksum, so a byte inside of a time or a detail goes unseen where TLS does not
    guard it. What must not be: another end than the job had, an output that is not what the job wrote, an exception
    that nobody translated.
    """

    def trial(training: Training) -> Iterator[str]:
        for seed in range(damages):
            training.meet("wrong_bytes", seed=seed)
            trainer = training.site.reopen()
            try:
                state = trainer.poll(training.done).state
                assert state is RunState.SUCCEEDED or not state.ended, f"seed {seed}: {state}"
            except LintasError as error:
                yield class_of(error)
            home = training.site.work / f"home-{seed}"
            try:
                trainer.fetch_output(training.done, home)
                assert _content(home) == {"result.txt": "sound " * 40}, f"seed {seed}"
            except LintasError as error:
                assert not home.exists(), f"seed {seed}"
                yield class_of(error)
            got = outcome_of(lambda: list(trainer.logs(training.done)))  # noqa: B023 - called at once
            if got != "ok":
                yield got
        training.calm()
        training.site.trainer.fetch_output(training.done, training.site.work / "home")
        assert _content(training.site.work / "home") == {"result.txt": "sound " * 40}

    return trial


def _content(directory: Path) -> dict[str, str]:
    return {path.relative_to(directory).as_posix(): path.read_text() for path in directory.rglob("*") if path.is_file()}


Trial = Callable[[Training], Iterator[str]]
"""Yields what comes out, one after the other; raises `AssertionError` when something else is not as promised."""

TRIALS: Mapping[str, Trial] = {
    "stockout": stockout,
    "quota": quota,
    "throttle": refused_or_cut_off("throttle"),
    "deny": refused_or_cut_off("deny"),
    "error": refused_or_cut_off("error", status=500),
    "slow_start": slow_start,
    "preempt": preempt,
    "crash": crash,
    "lost_logs": lost_logs,
    "hang": refused_or_cut_off("hang", {"request_timeout_s": "0.3"}, delay_s=2.0),
    "wrong_bytes": wrong_bytes(12),
    "cut": refused_or_cut_off("cut"),
    "lost": refused_or_cut_off("lost"),
}

PROMISED: Mapping[str, frozenset[str]] = {
    "stockout": frozenset({"STOCKOUT"}),
    "quota": frozenset({"Stockout"}),
    "throttle": frozenset({"Retryable"}),
    "deny": frozenset({"Denied"}),
    "error": frozenset({"Retryable"}),
    "slow_start": frozenset({"SUCCEEDED"}),
    "preempt": frozenset({"FAILED", "STOPPED", "goes on from its checkpoint"}),
    "crash": frozenset({"FAILED"}),
    "lost_logs": frozenset({"SUCCEEDED, no log", "SUCCEEDED, log from object storage"}),
    "hang": frozenset({"Retryable"}),
    "wrong_bytes": frozenset({"Retryable", "Terminal", "NotFound", "Invalid", "Denied", "IntegrityError"}),
    "cut": frozenset({"Retryable"}),
    "lost": frozenset({"Retryable"}),
}
