"""Training on premises: the user's command as a process of this machine, under a supervisor that outlives us.

A job is the directory `ROOT/.jobs/JOB_NAME`, which comes into being at once and once only, so that the same spec
submitted twice is one job. Its supervisor (supervise.py) is detached: any later process can poll, follow or cancel
the job by what stands in that directory. Datasets are directories of the same root and are read in place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Denied, Invalid, NotFound, Retryable, Stockout, Terminal
from tasks.core.training import JobSpec, JobStatus, RunState, code_digest
from tasks.providers.onprem.supervise import is_alive, read_json, stop_group, write_verdict

_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "DO_NOT_TRACK",
    "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_TRACKING_URI",
)  # fmt: skip
"""Everything of our own environment that a job may see. What a worker holds in secret is not among it."""

_START_TIMEOUT_S = 30.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_PACKAGE_ROOT = Path(__file__).resolve().parents[3]


def open_trainer(cloud: CloudConfig) -> OnPremTrainer:
    """The trainer of an on-premises cloud.

    Options: `root` (required, the directory of the site), `python` (interpreter for commands that begin with
    `python`; this one by default), `grace_s` (seconds between asking and killing, 10), `slots` (jobs at the same
    time; no limit by default). Credential `mlflow_token`, if there, is the job's `MLFLOW_TRACKING_TOKEN`.
    """
    try:
        grace_s = float(cloud.options.get("grace_s", 10.0))
        slots = int(cloud.options["slots"]) if "slots" in cloud.options else None
    except ValueError as error:
        raise Invalid(f"clouds.{cloud.name}.options.grace_s or slots is not a number", "correct lintas.yaml") from error
    token = cloud.credentials.get("mlflow_token")
    return OnPremTrainer(
        cloud=cloud.name,
        root=Path(cloud.option("root")),
        python=cloud.options.get("python", sys.executable),
        grace_s=grace_s,
        slots=slots,
        credentials={"MLFLOW_TRACKING_TOKEN": token.reveal()} if token else {},
    )


class OnPremTrainer:
    """The `Trainer` port by processes of this machine.

    Args:
        cloud: The cloud's name.
        root: Directory of the site: `ROOT/BUCKET/PREFIX` are datasets, `ROOT/.jobs` the jobs.
        python: Interpreter for commands that begin with `python`.
        grace_s: Seconds between asking a job to end and killing it.
        slots: How many jobs may run at the same time; None for no limit.
        credentials: Variables for the job that must not be written down.
    """

    def __init__(
        self,
        cloud: str,
        root: Path,
        *,
        python: str = sys.executable,
        grace_s: float = 10.0,
        slots: int | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self._cloud = cloud
        self._root = root.resolve()
        self._jobs = self._root / ".jobs"
        self._python = python
        self._grace_s = grace_s
        self._slots = slots
        self._credentials = dict(credentials or {})
        self._read_up_to: dict[str, tuple[int, int]] = {}

    def submit(self, job: JobSpec) -> str:
        """Start the job; see `Trainer.submit`. A job of this name that exists is returned, whatever its state."""
        job_dir = self._jobs / job.job_name
        with self._translated("start a job"):
            if not job_dir.exists():
                self._jobs.mkdir(parents=True, exist_ok=True)
                with _held(self._jobs / ".lock", wait=True):
                    self._create(job, job_dir)
            self._launch(job_dir)
        return job.job_name

    def poll(self, job_id: str) -> JobStatus:
        """The state now; a supervisor that died without a verdict is a failure."""
        job_dir = self._job_dir(job_id)
        with self._translated("look at a job"):
            supervisor = read_json(job_dir / "supervisor.json")
            alive = supervisor is not None and is_alive(supervisor["process"])
            # Read after the supervisor was looked at: one that has just ended has left its verdict by now.
            verdict = read_json(job_dir / "verdict.json")
            child = read_json(job_dir / "child.json")
        if verdict is not None:
            state = RunState(verdict["state"])
            return JobStatus(job_id, state, verdict["exit_code"], verdict["detail"], verdict["running_s"])
        if supervisor is None:
            return JobStatus(job_id, RunState.QUEUED, detail="not started yet; submit it again if this lasts")
        if not alive:
            running_s = (job_dir / "log.txt").stat().st_mtime - child["began"] if child else 0.0
            detail = "its supervisor died without a verdict (killed, or the machine was restarted)"
            return JobStatus(
                job_id, RunState.FAILED, detail=f"{detail}; submit the next attempt", running_s=max(0.0, running_s)
            )
        running_s = time.time() - child["began"] if child else 0.0
        return JobStatus(job_id, RunState.RUNNING if child else RunState.STARTING, running_s=running_s)

    def logs(self, job_id: str, *, after_line: int = 0) -> Iterator[str]:
        """Whole lines from number `after_line` on; the last one without an end comes when the job has ended."""
        ended = self.poll(job_id).state.ended
        log = self._job_dir(job_id) / "log.txt"
        if not log.exists():
            return
        line_number, offset = self._read_up_to.get(job_id, (0, 0))
        if line_number > after_line:
            line_number, offset = 0, 0
        with log.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n") and not ended:
                    break
                offset, line_number = offset + len(line), line_number + 1
                if line_number > after_line:
                    self._read_up_to[job_id] = (line_number, offset)
                    yield line.decode(errors="replace").rstrip("\r\n")

    def cancel(self, job_id: str) -> None:
        """Ask the supervisor to stop the job, or stop it ourselves when there is none; silent if it has ended."""
        try:
            job_dir = self._job_dir(job_id)
        except NotFound:
            return
        with self._translated("cancel a job"):
            (job_dir / "cancel").touch()
            supervisor = read_json(job_dir / "supervisor.json")
            if supervisor is not None and is_alive(supervisor["process"]):
                return
            with _held(job_dir / "lock") as ours:
                if not ours:
                    return  # A supervisor is on its way; it reads the wish before it begins.
                child = read_json(job_dir / "child.json")
                if child is not None:
                    stop_group(child["process"], self._grace_s)
                if supervisor is None:
                    write_verdict(job_dir, RunState.STOPPED, None, "cancelled before it began", 0.0)

    def fetch_output(self, job_id: str, into: Path) -> None:
        """Copy what the job wrote to its output directory into `into`."""
        output = self._job_dir(job_id) / "output"
        with self._translated("copy a job's output"):
            shutil.copytree(output, into, dirs_exist_ok=True)

    def _job_dir(self, job_id: str) -> Path:
        job_dir = self._jobs / job_id
        if job_dir.parent != self._jobs or job_id.startswith(".") or not job_dir.is_dir():
            raise NotFound(f"there is no job '{job_id}' on '{self._cloud}'", "list the runs and use one's job id")
        return job_dir

    def _create(self, job: JobSpec, job_dir: Path) -> None:
        """Make the job's directory complete beside its place and move it there, so that it is whole or absent."""
        if job_dir.exists():
            return
        data_dir = self._data_dir(job)
        checkpoints = self._root / ".checkpoints" / job.family
        if self._slots is not None and self._running() >= self._slots:
            raise Stockout(f"'{self._cloud}' runs {self._slots} jobs already", "wait for one to end or place elsewhere")
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=self._jobs))
        try:
            (draft / "output").mkdir()
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(job.code_dir, draft / "code", ignore=ignored)
            if code_digest(draft / "code") != job.code_digest:
                raise Invalid(f"the code in '{job.code_dir}' changed since the job was planned", "plan the job again")
            contract = {
                "LINTAS_DATA_DIR": str(data_dir),
                "LINTAS_OUTPUT_DIR": str(job_dir / "output"),
                "LINTAS_CHECKPOINT_DIR": str(checkpoints),
                "LINTAS_RUN_ID": job.run_id,
                "MLFLOW_RUN_ID": job.run_id,
                "PYTHONUNBUFFERED": "1",
            }
            facts = {
                "command": list(job.command),
                "python": self._python,
                "environment": {**job.environment, **contract},
                "timeout_s": job.timeout_s,
                "grace_s": self._grace_s,
                "checkpoint_dir": str(checkpoints),
                "spec": {
                    "digest": job.digest,
                    "name": job.name,
                    "code_digest": job.code_digest,
                    "data": str(job.data),
                    "data_digest": job.data_digest,
                    "attempt": job.attempt,
                },
            }
            (draft / "job.json").write_text(json.dumps(facts))
            checkpoints.mkdir(parents=True, exist_ok=True)
            draft.rename(job_dir)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _data_dir(self, job: JobSpec) -> Path:
        if job.data.cloud != self._cloud:
            raise Invalid(f"the dataset {job.data} is not on '{self._cloud}'", "move it there first")
        data_dir = (self._root / job.data.bucket / job.data.prefix).resolve()
        if not data_dir.is_relative_to(self._root) or job.data.bucket.startswith("."):
            raise Invalid(f"the dataset {job.data} leads outside of the site", "correct the URI")
        if not data_dir.is_dir():
            raise Invalid(f"there is no dataset at {job.data}", "move it there first")
        return data_dir

    def _running(self) -> int:
        names = [path.name for path in self._jobs.iterdir() if not path.name.startswith(".")]
        return sum(not self.poll(name).state.ended for name in names)

    def _launch(self, job_dir: Path) -> None:
        """Start the supervisor unless there is or was one. It inherits the lock, so there is never a second one."""
        with _held(job_dir / "lock") as ours:
            if ours is None or (job_dir / "supervisor.json").exists() or (job_dir / "verdict.json").exists():
                return
            inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            started = subprocess.run(
                [sys.executable, "-m", "tasks.providers.onprem.supervise", str(job_dir)],
                cwd=_PACKAGE_ROOT,
                env={**inherited, **self._credentials},
                pass_fds=(ours,),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_START_TIMEOUT_S,
                check=False,
            )
        if started.returncode != 0:
            raise Terminal(
                f"the supervisor of job '{job_dir.name}' could not be started (code {started.returncode})",
                f"check the interpreter {sys.executable}",
            )

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn the operating system's errors into ours."""
        try:
            yield
        except subprocess.TimeoutExpired as error:
            raise Retryable(f"'{self._cloud}' was too slow to {doing}", "try again when it is less busy") from error
        except PermissionError as error:
            raise Denied(f"'{self._cloud}' may not {doing} below {self._root}", "correct its owner or mode") from error
        except OSError as error:
            # copytree tells its errors as one with the texts of all of them.
            if error.errno in _NO_SPACE or any(os.strerror(number) in str(error) for number in _NO_SPACE):
                what = f"the disk with {self._root} is full, so '{self._cloud}' cannot {doing}"
                raise Terminal(what, "free some space and try again") from error
            raise Terminal(f"'{self._cloud}' cannot {doing} below {self._root}", "check that directory") from error


@contextlib.contextmanager
def _held(path: Path, *, wait: bool = False) -> Iterator[int | None]:
    """A lock, as a file descriptor that can be handed on; None when somebody else has it and we do not wait."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield lock
    finally:
        os.close(lock)
