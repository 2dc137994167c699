"""Training on Amazon SageMaker.

One job is one training job of the spec's name: SageMaker never gives a name twice, so that submitting is idempotent,
and a tag with the spec's digest tells a job of ours from somebody else's. The launcher and the code come in by the
channel `code`, the dataset by the channel `data`; the output leaves as `model.tar.gz`, checkpoints are synchronised by
SageMaker itself.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.core.cloud import CloudConfig
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, LintasError, NotFound, Retryable, Terminal
from tasks.core.ports import Store
from tasks.core.training import JobSpec, JobStatus, RunState
from tasks.providers._dialects.answers import readable, whole
from tasks.providers._dialects.jobs import (
    adopt_output,
    checkpoint_prefix,
    job_prefix,
    pack_job,
    unpack_output,
    verdict,
)
from tasks.providers.aws.quirks import quirks
from tasks.providers.aws.sagemaker import (
    DIGEST_TAG,
    RUN_TAG,
    Clients,
    Depot,
    number,
    one_line,
    open_clients,
    open_depot,
    translated,
)
from tasks.providers.aws.store import open_store

_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_INPUT = "/opt/ml/input/data"
_FAILURE = re.compile(r"^AlgorithmError: (?P<why>.*?),? exit code: (?P<code>\d+)", re.DOTALL)
_NO_CAPACITY = re.compile(
    r"CapacityError|InsufficientInstanceCapacity|Unable to provision requested ML compute capacity"
)
_Position = tuple[int, str, str | None]
"""How far a job's log was read: lines so far, the stream they ended in, the token to go on from."""

_BEGINNING: _Position = (0, "", None)
_QUEUED = ("Pending", "Interrupted", "Restarting")
_RUNNING = ("Training", "Uploading", "Stopping", "Updating")


def open_trainer(cloud: CloudConfig) -> SageMakerTrainer:
    """The trainer of an AWS account in one region.

    Options: `role_arn` (the role that jobs take on), `image` (with Python 3.8 or newer and what the script imports),
    `bucket` (for code and output), `prefix` in it, `instance_type` (for jobs without a SKU, `ml.m5.large`),
    `volume_gib` (30), `grace_s` (seconds between asking a command to end and killing it, 60, less than 120),
    `spot_wait_s` (how long a spot job may wait for machines besides running, 3600).

    Raises:
        Invalid: An option is missing or wrong.
    """
    known = quirks()
    grace_s = number(cloud, "grace_s", known["launcher_grace_s"])
    if grace_s >= known["service_grace_s"]:
        raise Invalid(
            f"clouds.{cloud.name}.options.grace_s is not below {known['service_grace_s']}", "correct lintas.yaml"
        )
    return SageMakerTrainer(
        cloud.name,
        open_clients(cloud, "training"),
        open_depot(cloud),
        lambda bucket: open_store(cloud, bucket),
        role_arn=cloud.option("role_arn"),
        image=cloud.option("image"),
        instance_type=cloud.options.get("instance_type", known["training_sku"]),
        volume_gib=int(number(cloud, "volume_gib", known["volume_gib"], least=1)),
        grace_s=grace_s,
        spot_wait_s=number(cloud, "spot_wait_s", known["spot_wait_s"]),
    )


class SageMakerTrainer:
    """The `Trainer` port by SageMaker training jobs; see `open_trainer` for the options."""

    def __init__(
        self,
        cloud: str,
        clients: Clients,
        depot: Depot,
        store_of: Callable[[str], Store],
        *,
        role_arn: str,
        image: str,
        instance_type: str,
        volume_gib: int,
        grace_s: float,
        spot_wait_s: float,
    ) -> None:
        self._cloud, self._clients, self._depot = cloud, clients, depot
        self._role_arn, self._image, self._instance_type = role_arn, image, instance_type
        self._volume_gib, self._grace_s, self._spot_wait_s = volume_gib, grace_s, spot_wait_s
        self._logs = clients.open("logs")
        self._store_of = store_of
        self._positions: dict[str, _Position] = {}

    def submit(self, job: JobSpec) -> str:
        """See `Trainer.submit`.

        Raises:
            Stockout: The account's quota for the machine is used up.
            Invalid: SageMaker cannot run this spec, the dataset is not there, or the name belongs to another job.
        """
        name = job.job_name
        if self._is_ours(name, job.digest):
            return name
        if job.timeout_s > quirks()["longest_timeout_s"]:
            days = quirks()["longest_timeout_s"] // 86400
            raise Invalid(f"'{self._cloud}' runs no job for longer than {days} days", "shorten timeout_s")
        files = pack_job(job, self._cloud, grace_s=self._grace_s)
        self._require_dataset(job)
        prefix = job_prefix(self._depot.prefix, name)
        for file, content in files.items():
            self._depot.put(f"{prefix}code/{file}", content)
        try:
            with translated(self._clients.place):
                self._create(job, prefix)
        except Retryable:
            # Somebody else may have submitted the same spec meanwhile, or only the answer was lost.
            if self._is_ours(name, job.digest):
                return name
            raise
        except LintasError:
            self._remove_code(prefix, files)
            raise
        return name

    def poll(self, job_id: str) -> JobStatus:
        """See `Trainer.poll`."""
        job = self._describe(job_id)
        status, secondary = job["TrainingJobStatus"], job.get("SecondaryStatus", "")
        running_s = _running_s(job)
        match status:
            case "Completed":
                return JobStatus(job_id, RunState.SUCCEEDED, 0, "", running_s)
            case "Failed":
                return _failed(job_id, job.get("FailureReason") or "", running_s)
            case "Stopped" if secondary == "MaxWaitTimeExceeded":
                detail = "no spot machine was free for as long as the job may wait"
                return JobStatus(job_id, RunState.STOCKOUT, detail=detail, running_s=running_s)
            case "Stopped":
                detail = "stopped after its timeout" if secondary == "MaxRuntimeExceeded" else "cancelled"
                return JobStatus(job_id, RunState.STOPPED, detail=detail, running_s=running_s)
            case _ if secondary in _QUEUED:
                return JobStatus(job_id, RunState.QUEUED, detail=_last_message(job), running_s=running_s)
            case _ if secondary in _RUNNING:
                return JobStatus(job_id, RunState.RUNNING, running_s=running_s)
            case _:
                return JobStatus(job_id, RunState.STARTING, running_s=running_s)

    def logs(self, job_id: str, *, after_line: int = 0) -> Iterator[str]:
        """See `Trainer.logs`. Lines are CloudWatch's events, which are never empty and may come seconds late."""
        self._describe(job_id)
        line, begin, token = self._positions.get(job_id, _BEGINNING)
        if line > after_line:
            line, begin, token = _BEGINNING
        for stream in self._streams(job_id):
            if stream < begin:
                continue
            token = token if stream == begin else None
            while True:
                page = self._events(stream, token)
                for event in page["events"]:
                    line += 1
                    if line > after_line:
                        yield event.get("message", "")
                if page["nextForwardToken"] == token:
                    break
                token = page["nextForwardToken"]
                self._positions[job_id] = (line, stream, token)

    def cancel(self, job_id: str) -> None:
        """See `Trainer.cancel`."""
        try:
            if self._describe(job_id)["TrainingJobStatus"] != "InProgress":
                return
            with translated(self._clients.place):
                self._clients.control.stop_training_job(TrainingJobName=job_id)
        except NotFound:
            return
        except Invalid:
            # It may have ended between the two calls, which SageMaker refuses; anything else is an error.
            if self._describe(job_id)["TrainingJobStatus"] == "InProgress":
                raise

    def fetch_output(self, job_id: str, into: Path) -> None:
        """See `Trainer.fetch_output`.

        Raises:
            NotFound: The job left no output (yet).
            IntegrityError: The output is not what the job wrote.
        """
        uri = self._describe(job_id).get("ModelArtifacts", {}).get("S3ModelArtifacts", "")
        place = f"s3://{self._depot.store.bucket}/"
        if not uri:
            raise NotFound(f"job '{job_id}' on '{self._cloud}' left no output", "wait for its end, or read its log")
        if not uri.startswith(place):
            raise Terminal(f"the output of job '{job_id}' is in another bucket than options.bucket", "correct it")
        with tempfile.TemporaryDirectory() as folder:
            archive, arrived = Path(folder, "model.tar.gz"), Path(folder, "output")
            with archive.open("wb") as file:
                for piece in self._depot.store.get(uri.removeprefix(place)):
                    file.write(piece)
            unpack_output(archive, arrived, job_id)
            adopt_output(arrived, into, job_id)

    def _create(self, job: JobSpec, prefix: str) -> None:
        # The launcher stops the command in time; SageMaker's own limit is for a launcher that cannot.
        limit_s = math.ceil(job.timeout_s + self._grace_s) + quirks()["spare_s"]
        places = ["--data", f"{_INPUT}/data", "--output", "/opt/ml/model", "--checkpoints", "/opt/ml/checkpoints"]
        stopping = {"MaxRuntimeInSeconds": limit_s}
        if job.spot:
            stopping["MaxWaitTimeInSeconds"] = limit_s + math.ceil(self._spot_wait_s)
        self._clients.control.create_training_job(
            TrainingJobName=job.job_name,
            RoleArn=self._role_arn,
            AlgorithmSpecification={
                "TrainingImage": self._image,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", f"{_INPUT}/code/lintas_launch.py"],
                "ContainerArguments": [*places, "--failure", "/opt/ml/output/failure"],
            },
            InputDataConfig=[
                _channel("code", self._depot.uri(f"{prefix}code/")),
                _channel("data", f"s3://{job.data.bucket}/{_folder(job.data)}"),
            ],
            OutputDataConfig={"S3OutputPath": self._depot.uri(prefix.rstrip("/").rpartition("/")[0])},
            CheckpointConfig={
                "S3Uri": self._depot.uri(checkpoint_prefix(self._depot.prefix, job.family)),
                "LocalPath": "/opt/ml/checkpoints",
            },
            ResourceConfig={
                "InstanceType": job.sku or self._instance_type,
                "InstanceCount": 1,
                "VolumeSizeInGB": self._volume_gib,
                **self._kept_warm(job),
            },
            EnableManagedSpotTraining=job.spot,
            StoppingCondition=stopping,
            Tags=[{"Key": DIGEST_TAG, "Value": job.digest}, {"Key": RUN_TAG, "Value": job.run_id}],
        )

    def _kept_warm(self, job: JobSpec) -> dict[str, int]:
        """A warm pool, which spot machines cannot be: https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html."""
        kept_s = min(int(job.keep_warm_s), quirks()["longest_warm_s"])
        return {"KeepAlivePeriodInSeconds": kept_s} if kept_s and not job.spot else {}

    def _is_ours(self, name: str, digest: str) -> bool:
        """Whether the job exists. Raises `Invalid` when it is another one of the same name."""
        try:
            arn = self._describe(name)["TrainingJobArn"]
        except NotFound:
            return False
        with translated(self._clients.place):
            tags = whole(self._clients.control.list_tags(ResourceArn=arn), self._cloud, "Tags")["Tags"]
        if {"Key": DIGEST_TAG, "Value": digest} not in tags:
            raise Invalid(f"'{self._cloud}' has another training job '{name}'", "choose another name for the spec")
        return True

    def _describe(self, job_id: str) -> Mapping[str, Any]:
        try:
            if re.fullmatch(quirks()["name_pattern"], job_id) is None:
                raise NotFound("SageMaker does not give such names", "")
            with translated(self._clients.place):
                job = self._clients.control.describe_training_job(TrainingJobName=job_id)
            return whole(job, self._cloud, "TrainingJobStatus", "TrainingJobArn")
        except NotFound as error:
            raise NotFound(
                f"there is no job '{job_id}' on '{self._cloud}'", "list the runs and use one's job id"
            ) from error

    def _require_dataset(self, job: JobSpec) -> None:
        try:
            found = next(iter(self._store_of(job.data.bucket).list(_folder(job.data))), None)
        except NotFound:
            found = None
        if found is None:
            raise Invalid(f"there is no dataset at {job.data}", "move it there first")

    def _remove_code(self, prefix: str, files: Mapping[str, bytes]) -> None:
        for file in files:
            # What is left over costs little, and the error under way is what the caller must hear of.
            with suppress(LintasError):
                self._depot.store.delete(f"{prefix}code/{file}")

    def _streams(self, job_id: str) -> list[str]:
        """The log streams of the job's containers, oldest first; a job has none before its first line."""
        with suppress(NotFound), translated(self._clients.place):
            answer = self._logs.describe_log_streams(logGroupName=_LOG_GROUP, logStreamNamePrefix=f"{job_id}/")
            with readable(self._cloud):
                return sorted(stream["logStreamName"] for stream in answer["logStreams"])
        return []

    def _events(self, stream: str, token: str | None) -> Mapping[str, Any]:
        where = {"logGroupName": _LOG_GROUP, "logStreamName": stream, "startFromHead": True}
        try:
            with translated(self._clients.place):
                page = self._logs.get_log_events(**where, **({"nextToken": token} if token else {}))
            return whole(page, self._cloud, "events", "nextForwardToken")
        except NotFound:
            return {"events": [], "nextForwardToken": token}


def _folder(data: DatasetURI) -> str:
    """The keys of a dataset begin with this; a bucket as a whole has none."""
    return f"{data.prefix.strip('/')}/" if data.prefix.strip("/") else ""


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _failed(job_id: str, reason: str, running_s: float) -> JobStatus:
    if _NO_CAPACITY.search(reason):
        return JobStatus(job_id, RunState.STOCKOUT, detail=one_line(reason), running_s=running_s)
    told = _FAILURE.match(reason)
    if told is None:
        return JobStatus(
            job_id, RunState.FAILED, detail=one_line(reason) or "SageMaker gives no reason", running_s=running_s
        )
    state, exit_code, detail = verdict(int(told["code"]), told["why"])
    return JobStatus(job_id, state, exit_code, detail, running_s)


def _running_s(job: Mapping[str, Any]) -> float:
    if "TrainingTimeInSeconds" in job:
        return float(job["TrainingTimeInSeconds"])
    return max(0.0, time.time() - job["TrainingStartTime"].timestamp()) if "TrainingStartTime" in job else 0.0


def _last_message(job: Mapping[str, Any]) -> str:
    transitions = job.get("SecondaryStatusTransitions", [])
    return one_line(transitions[-1].get("StatusMessage", "")) if transitions else ""
