"""Training: what should run, under which contract, and what became of it.

The training contract is the environment that every provider gives the user's command, so that one script runs
unchanged everywhere:

| variable | meaning |
| --- | --- |
| `LINTAS_DATA_DIR` | directory with the dataset, read-only by agreement |
| `LINTAS_OUTPUT_DIR` | what is written here comes home: an MLflow model in `model/`, further files as the user likes |
| `LINTAS_CHECKPOINT_DIR` | survives a preemption: what is written here is there again when the job resumes |
| `LINTAS_RUN_ID` | id of the MLflow run that this job belongs to (also as `MLFLOW_RUN_ID`) |
| `LINTAS_PARAMETERS` | JSON object with the spec's parameters |
| `LINTAS_TRAIN_PATH` | path of the training rows inside `LINTAS_DATA_DIR` |
| `MLFLOW_TRACKING_URI` | where metrics go while it runs, when that is reachable from the provider |

Exit code 0 is success; anything else is failure. A job that was preempted or failed is submitted again as its next
`attempt`: all attempts of one spec in one MLflow run share the checkpoint directory.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.directory import directory_manifest
from tasks.core.errors import Invalid, Retryable
from tasks.core.evaluation import EvaluationSpec
from tasks.core.fields import Fields
from tasks.core.placement import Offer, Requirements

if TYPE_CHECKING:
    from tasks.core.dataset import DatasetURI
    from tasks.core.ports import Trainer

_NAME = re.compile(r"^[a-z]([a-z0-9-]*[a-z0-9])?$")
_SECRET_NAME = re.compile(r"password|passwd|secret|credential|api_?key|access_?key|private_?key", re.IGNORECASE)


class RunState(enum.StrEnum):
    """The states of a job, the same for every provider."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    STOCKOUT = "stockout"

    @property
    def ended(self) -> bool:
        """Whether the job will never change its state again."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED, RunState.STOCKOUT)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One training job, complete: two equal specs are one job.

    Args:
        name: Short name, lower-case letters, digits and dashes.
        command: The program and its arguments. `python` means the interpreter that the provider runs.
        code_dir: Local directory with the user's code; becomes the working directory (a copy of it elsewhere).
        code_digest: Digest of that directory's content, so that changed code is another job.
        data: The dataset, on the cloud that runs the job.
        data_digest: Its manifest's digest.
        run_id: The MLflow run that the job belongs to.
        environment: Further variables for the command; never secrets.
        timeout_s: The job is stopped after this many seconds.
        sku: The provider's name of the machine, from the chosen offer.
        spot: Whether it may be preempted.
        attempt: Which try this is, from 1 on; the next try of the same spec continues from its checkpoints.
        keep_warm_s: A wish: how long the machine should wait for the next job after this one, at its price. Providers
            that keep no machines do not, and no job computes another thing for it.
    """

    name: str
    command: tuple[str, ...]
    code_dir: str
    code_digest: str
    data: DatasetURI
    data_digest: str
    run_id: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = 3600.0
    sku: str = ""
    spot: bool = False
    attempt: int = 1
    keep_warm_s: float = 0.0

    @property
    def digest(self) -> str:
        """The identity of the job: SHA-256 over everything that could change what it computes."""
        facts = [
            self.name,
            list(self.command),
            self.code_digest,
            str(self.data),
            self.data_digest,
            self.run_id,
            sorted(self.environment.items()),
            self.sku,
            self.spot,
            self.attempt,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def family(self) -> str:
        """What all attempts of one spec in one MLflow run have in common, on whichever machine or cloud they run.

        Checkpoints are kept by it: 32 hexadecimal characters of SHA-256.
        """
        facts = [
            self.name,
            list(self.command),
            self.code_digest,
            self.data_digest,
            self.run_id,
            sorted(self.environment.items()),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def next_attempt(self) -> JobSpec:
        """The same job once more, after one that did not succeed."""
        return replace(self, attempt=self.attempt + 1)

    @property
    def job_name(self) -> str:
        """A name that is legal with every provider and unique to the digest."""
        return f"{self.name[:24]}-{self.digest[:16]}"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a provider says of a job now.

    Args:
        job_id: The provider's id.
        state: On the common scale.
        exit_code: Of the user's command once it has ended, where the provider tells.
        detail: The provider's own words, cut to one line.
        running_s: Seconds billed or spent running so far.
    """

    job_id: str
    state: RunState
    exit_code: int | None = None
    detail: str = ""
    running_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What a user asks for in YAML: what to run, on what it can run, and how good the result must be.

    Args:
        name: Name of the job and of the registered model: lower-case letters, digits and dashes.
        command: The program and its arguments; `python` means the interpreter that the provider runs.
        code_dir: Local directory with the user's code.
        requirements: What the machine must have, where it may be, what it may cost.
        evaluation: How the model is judged.
        data: URI of the dataset; may be given when it is started instead.
        train_path: Path of the training rows inside the dataset.
        holdout_path: Path of the held-out rows inside the dataset, which training never reads.
        parameters: Handed to the command as JSON and recorded with the run; never secrets.
        timeout_s: The job is stopped after this many seconds.
        keep_warm_s: See `JobSpec`.
    """

    name: str
    command: tuple[str, ...]
    code_dir: str
    requirements: Requirements
    evaluation: EvaluationSpec
    data: str = ""
    train_path: str = "train"
    holdout_path: str = "holdout"
    parameters: Mapping[str, str | float | int | bool] = field(default_factory=dict[str, "str | float | int | bool"])
    timeout_s: float = 3600.0
    keep_warm_s: float = 0.0

    @classmethod
    def from_mapping(cls, data: object, origin: str = "training spec") -> TrainingSpec:
        """Read it from YAML that was parsed already.

        Args:
            data: The mapping; `code_dir` is absolute or relative to the working directory.
            origin: The file it came from, for messages.

        Raises:
            Invalid: A key is unknown, missing, of the wrong kind, or looks like a secret; the key is named.
        """
        fields = Fields(data, origin)
        paths = fields.fields("data")
        spec = cls(
            name=fields.text("name"),
            command=fields.texts("command"),
            code_dir=fields.text("code_dir"),
            requirements=Requirements.from_mapping(fields.raw("requirements", {}), fields.key("requirements")),
            evaluation=EvaluationSpec.from_mapping(fields.raw("evaluation"), fields.key("evaluation")),
            data=paths.text("uri", ""),
            train_path=_inside(paths, "train"),
            holdout_path=_inside(paths, "holdout"),
            parameters=_parameters(fields.fields("parameters")),
            timeout_s=fields.number("timeout_s", 3600.0, minimum=1.0),
            keep_warm_s=fields.number("keep_warm_s", 0.0, minimum=0.0),
        )
        paths.finish()
        fields.finish()
        if not _NAME.match(spec.name):
            raise Invalid(f"{fields.key('name')} is '{spec.name}'", "use lower-case letters, digits and dashes")
        if not spec.command:
            raise Invalid(f"{fields.key('command')} is empty", "write the program and its arguments as a list")
        if spec.train_path == spec.holdout_path:
            raise Invalid(f"{paths.key('train')} and {paths.key('holdout')} are the same", "hold other rows out")
        return spec

    def on(self, clouds: Iterable[str]) -> TrainingSpec:
        """The same, allowed on these clouds only; unchanged when none is named."""
        only = tuple(clouds)
        return replace(self, requirements=replace(self.requirements, clouds=only)) if only else self

    def job(self, *, data: DatasetURI, data_digest: str, run_id: str, offer: Offer, attempt: int = 1) -> JobSpec:
        """The job that runs this spec on an offer.

        Args:
            data: The dataset, on the offer's cloud.
            data_digest: Its manifest's digest.
            run_id: The MLflow run.
            offer: The chosen offer.
            attempt: Which try this is, from 1 on.

        Raises:
            Invalid: The code directory cannot be read.
        """
        return JobSpec(
            name=self.name,
            command=self.command,
            code_dir=self.code_dir,
            code_digest=code_digest(Path(self.code_dir)),
            data=data,
            data_digest=data_digest,
            run_id=run_id,
            environment={
                "LINTAS_PARAMETERS": json.dumps(dict(self.parameters), sort_keys=True),
                "LINTAS_TRAIN_PATH": self.train_path,
            },
            timeout_s=self.timeout_s,
            sku=offer.sku,
            spot=offer.spot,
            attempt=attempt,
            keep_warm_s=self.keep_warm_s,
        )


def code_digest(directory: Path) -> str:
    """The identity of the user's code: the manifest digest of its files.

    Hidden files and `__pycache__` are not code: they are neither part of the digest nor taken along.

    Raises:
        Invalid: There is no such directory, it holds no code, or a link in it leads outside.
    """
    manifest = directory_manifest(directory, hidden=False, skip=("__pycache__",))
    if not len(manifest):
        raise Invalid(f"the code directory '{directory}' is empty", "correct code_dir")
    return manifest.digest


def run_job(
    trainer: Trainer,
    job: JobSpec,
    *,
    poll_s: float = 1.0,
    queue_timeout_s: float | None = None,
    unreachable_s: float = 120.0,
    on_log: Callable[[str], None] | None = None,
    on_status: Callable[[JobStatus], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JobStatus:
    """Submit a job and follow it until it has ended.

    Run again with the same job it follows the same job: submitting is idempotent. An interrupt (Ctrl-C, a cancelled
    flow) cancels the job; an error leaves it running, to be followed again.

    Args:
        trainer: Where it runs.
        job: What runs.
        poll_s: Seconds between two looks.
        queue_timeout_s: Seconds after which a job that is still queued is cancelled and counts as a stock-out.
        unreachable_s: Seconds for which a provider that cannot be reached is asked again.
        on_log: Called with each line that the job writes.
        on_status: Called with the status whenever its state or detail changes.
        clock: Seconds, monotonic.
        sleep: Waits for some seconds.

    Returns:
        The status at the end, whatever it is.

    Raises:
        Stockout: No capacity or quota, known at once: place again without this offer.
        Retryable: The provider could not be reached for `unreachable_s` seconds; the job may still be running.
    """
    job_id = trainer.submit(job)
    follower = _Follower(trainer, job_id, on_log, on_status)
    began = answered = clock()
    try:
        while True:
            try:
                status = follower.look()
                answered = clock()
            except Retryable:
                if clock() - answered > unreachable_s:
                    raise
                sleep(poll_s)
                continue
            if status.state.ended:
                return status
            if queue_timeout_s is not None and status.state is RunState.QUEUED and clock() - began > queue_timeout_s:
                trainer.cancel(job_id)
                return replace(status, state=RunState.STOCKOUT, detail=f"still queued after {queue_timeout_s:.0f} s")
            sleep(poll_s)
    except BaseException as error:
        if not isinstance(error, Exception):
            trainer.cancel(job_id)
        raise


class _Follower:
    """What was already seen of a job, so that each line and each change is told once."""

    def __init__(
        self,
        trainer: Trainer,
        job_id: str,
        on_log: Callable[[str], None] | None,
        on_status: Callable[[JobStatus], None] | None,
    ) -> None:
        self._trainer, self._job_id, self._on_log, self._on_status = trainer, job_id, on_log, on_status
        self._told: tuple[RunState, str] | None = None
        self._lines = 0

    def look(self) -> JobStatus:
        status = self._trainer.poll(self._job_id)
        if self._on_log is not None:
            for line in self._trainer.logs(self._job_id, after_line=self._lines):
                self._lines += 1
                self._on_log(line)
        if self._on_status is not None and self._told != (status.state, status.detail):
            self._told = (status.state, status.detail)
            self._on_status(status)
        return status


def _inside(paths: Fields, key: str) -> str:
    text = paths.text(key, key).strip("/")
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise Invalid(f"{paths.key(key)} is '{text}'", "write a plain path inside the dataset")
    return text


def _parameters(fields: Fields) -> dict[str, str | float | int | bool]:
    found: dict[str, Any] = {}
    for name in fields.names():
        value = fields.raw(name)
        if _SECRET_NAME.search(name):
            raise Invalid(
                f"{fields.key(name)} looks like a secret",
                "parameters are recorded: give secrets to the provider instead",
            )
        if not isinstance(value, (str, int, float, bool)):
            raise Invalid(f"{fields.key(name)} is not a plain value", "write a text, a number, true or false")
        found[name] = value
    return found
