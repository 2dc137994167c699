"""Training: what should run, under which contract, and what became of it.

The training contract is the environment that every provider gives the user's command, so that one script runs
unchanged everywhere:

| variable | meaning |
| --- | --- |
| `LINTAS_DATA_DIR` | directory with the dataset, read-only by agreement |
| `LINTAS_OUTPUT_DIR` | what is written here comes home: an MLflow model in `model/`, further files as the user likes |
| `LINTAS_CHECKPOINT_DIR` | survives a preemption: what is written here is there again when the job resumes |
| `LINTAS_RUN_ID` | id of the MLflow run that this job belongs to (also as `MLFLOW_RUN_ID`) |
| `MLFLOW_TRACKING_URI` | where metrics go while it runs, when that is reachable from the provider |

Exit code 0 is success; anything else is failure.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.core.dataset import DatasetURI


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
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

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
