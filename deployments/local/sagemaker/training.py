"""Training jobs: the operations, and the life of a job from its instance to its artifacts.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html (what the container finds)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from deployments.local.compute import JobRunner, RunningJob, log_lines
from deployments.local.faults import Fault, FaultTable
from deployments.local.object_access import ObjectAccess, download_tree
from deployments.local.sagemaker.logs import TRAINING_GROUP, Logs
from deployments.local.sagemaker.resources import Resources, Thing
from deployments.local.sagemaker.warm_pools import WarmPools, check_warm_pool
from deployments.local.sagemaker.wire import Refused, invalid

KIND = "training-job"
_GRACE_S = 120.0
"""Between SIGTERM and SIGKILL, when a job is stopped, preempted or too late."""

_SYNC_S = 0.5
_LOOK_S = 0.05
_NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)


class JobFailed(Exception):
    """The job ends as Failed; the text is its FailureReason."""


class TrainingJobs:
    """The operations on training jobs.

    Args:
        resources: Where they are entered.
        objects: The account's S3.
        logs: Where they write.
        faults: What may go wrong.
        root: Directory for what instances have on their disks: a directory a job.
    """

    def __init__(self, resources: Resources, objects: ObjectAccess, logs: Logs, faults: FaultTable, root: Path) -> None:
        self._resources, self._objects, self._logs, self._faults = resources, objects, logs, faults
        self._root = root
        self._runner, self._pools = JobRunner(), WarmPools()
        self._lives: set[asyncio.Task[None]] = set()
        self.operations = {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "StopTrainingJob": self.stop,
            "ListTrainingJobs": self.list,
        }

    async def create(self, request: Thing) -> Thing:
        """CreateTrainingJob."""
        name = request["TrainingJobName"]
        spot, stopping = request.get("EnableManagedSpotTraining", False), request.get("StoppingCondition", {})
        if spot and stopping.get("MaxWaitTimeInSeconds", 0) < stopping.get("MaxRuntimeInSeconds", 86400):
            raise invalid("Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
                          "MaxRuntimeInSeconds when EnableManagedSpotTraining is set to true")  # fmt: skip
        if not spot and "MaxWaitTimeInSeconds" in stopping:
            raise invalid("MaxWaitTimeInSeconds must be used only when EnableManagedSpotTraining is set to true")
        check_warm_pool(request)
        for needed in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
            if needed not in request:
                raise invalid(f"{needed} is required.")
        if self._faults.take("quota", operation="CreateTrainingJob", target=name):
            instance = request["ResourceConfig"]["InstanceType"]
            raise Refused(
                "ResourceLimitExceeded",
                f"The account-level service limit '{instance} for training job usage' is 0 Instances, with current "
                "utilization of 0 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to "
                "request an increase for this quota. If AWS Service Quotas is not available, contact AWS support.",
            )
        await asyncio.to_thread(self._require_inputs, request)
        job = {
            **request,
            "TrainingJobArn": self._resources.account.arn(KIND, name),
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [],
        }
        taken = Refused(
            "ResourceInUse",
            "Training job names must be unique within an AWS account and region, and a training job with this name "
            f"already exists ({job['TrainingJobArn']})",
        )
        self._resources.add(KIND, name, job, taken)
        life = asyncio.create_task(
            _Life(job, self._root / name, self._objects, self._logs, self._faults, self._pools).run(self._runner)
        )
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return {"TrainingJobArn": job["TrainingJobArn"]}

    async def describe(self, request: Thing) -> Thing:
        """DescribeTrainingJob."""
        self._pools.look()
        return self._named(request)

    async def stop(self, request: Thing) -> Thing:
        """StopTrainingJob: the job gets SIGTERM, and 120 s to end."""
        job = self._named(request)
        if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            raise invalid(f"The request was rejected because the training job is in status {job['TrainingJobStatus']}.")
        job["TrainingJobStatus"] = job["SecondaryStatus"] = "Stopping"
        return {}

    async def list(self, request: Thing) -> Thing:
        """ListTrainingJobs, all on one page."""
        return {"TrainingJobSummaries": self._resources.listed(KIND, request, status=request.get("StatusEquals"))}

    async def close(self) -> None:
        """End everything that runs."""
        for life in list(self._lives):
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        await self._runner.close()

    def _named(self, request: Thing) -> Thing:
        job = self._resources.find(KIND, request["TrainingJobName"])
        if job is None:
            raise invalid("Requested resource not found.")
        return job

    def _require_inputs(self, request: Thing) -> None:
        for channel in request.get("InputDataConfig", []):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            bucket, prefix = split(uri)
            try:
                if next(iter(self._objects.keys(bucket, prefix)), None) is not None:
                    continue
            except (BotoCoreError, ClientError) as error:
                raise invalid(f'Data location "{uri}" cannot be read ({type(error).__name__}).') from error
            raise invalid(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({self._resources.account.region}), that objects exist under that S3 "
                f'prefix, and that the role "{request["RoleArn"]}" has "s3:ListBucket" permissions on "{bucket}".'
            )


class _Life:
    """One job from its instance to its artifacts."""

    def __init__(
        self, job: Thing, root: Path, objects: ObjectAccess, logs: Logs, faults: FaultTable, pools: WarmPools
    ) -> None:
        self._job, self._root, self._objects, self._logs, self._faults = job, root, objects, logs, faults
        self._pools = pools
        self._name: str = job["TrainingJobName"]
        self._ml = root / "ml"
        self._synced: dict[Path, tuple[float, int]] = {}
        self._began = time.monotonic()

    async def run(self, runner: JobRunner) -> None:
        """Live; whatever happens ends in the job's status."""
        try:
            await self._live(runner)
        except JobFailed as error:
            self._end("Failed", "Failed", str(error))
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            self._end("Failed", "Failed", f"InternalServerError: We encountered an internal error ({error}).")
        finally:
            # A dataset a job would soon fill the disk.
            shutil.rmtree(self._ml / "input" / "data", ignore_errors=True)
            self._pools.leave(self._job)

    async def _live(self, runner: JobRunner) -> None:
        stopping = self._job["StoppingCondition"]
        while True:
            if not await self._provisioned():
                return
            self._turn("Downloading", "Downloading the training image and input data")
            await asyncio.to_thread(self._set_up)
            if self._stopping:
                self._end("Stopped", "Stopped")
                return
            why, code = await self._train(runner, stopping["MaxRuntimeInSeconds"])
            if why != "preempted":
                break
            self._turn("Interrupted", "The training job was interrupted: spot capacity was reclaimed")
        self._turn("Uploading", "Uploading generated training model")
        await asyncio.to_thread(self._upload)
        if why == "stopped":
            self._end("Stopped", "Stopped")
        elif why == "too long":
            self._end("Stopped", "MaxRuntimeExceeded")
        elif code == 0:
            self._end("Completed", "Completed")
        else:
            raise JobFailed(f"AlgorithmError: {self._failure()}, exit code: {code}")

    async def _provisioned(self) -> bool:
        """Wait for an instance. False when the job has ended without one."""
        self._turn("Starting", "Preparing the instances for training")
        spot, limit_s = (
            self._job.get("EnableManagedSpotTraining"),
            self._job["StoppingCondition"].get("MaxWaitTimeInSeconds", 0),
        )
        if self._pools.take(self._job):
            self._pools.begin(self._job)
            return True
        slow = self._fault("slow_start")
        ready = time.monotonic() + (slow.delay_s if slow else 0.0)
        while True:
            if self._stopping:
                self._end("Stopped", "Stopped")
                return False
            missing = self._fault("stockout")
            if missing and not spot:
                raise JobFailed(_NO_CAPACITY)
            if spot and time.monotonic() - self._began > limit_s:
                self._end("Stopped", "MaxWaitTimeExceeded")
                return False
            if not missing and time.monotonic() >= ready:
                self._pools.begin(self._job)
                return True
            await asyncio.sleep(_LOOK_S)

    async def _train(self, runner: JobRunner, limit_s: float) -> tuple[str, int]:
        """Run the container. Returns why it was ended (empty when it ended itself) and its exit code."""
        algorithm = self._job["AlgorithmSpecification"]
        arguments = [*algorithm.get("ContainerEntrypoint", ["train"]), *algorithm.get("ContainerArguments", [])]
        stream = f"{self._name}/algo-1-{time.time_ns() // 1_000_000}"
        log = self._root / f"{stream.rpartition('/')[2]}.log"
        self._turn("Training", "Training image download completed. Training in progress.")
        self._job.setdefault("TrainingStartTime", time.time())
        began = time.monotonic()
        try:
            running = await runner.start(
                arguments, environment=self._environment(), directory=self._root / "home", log=log,
                mounts={"/opt/ml": self._ml},
            )  # fmt: skip
        except OSError as error:
            raise JobFailed(f"ClientError: Cannot start the container: {arguments[0]}: {error.strerror}") from error
        self._logs.add(TRAINING_GROUP, stream, running.lines)
        async with self._checkpoints():
            why, code = await self._watch(running, began, limit_s)
        self._logs.add(TRAINING_GROUP, stream, lambda: log_lines(log, ended=True))
        return why, code

    async def _watch(self, running: RunningJob, began: float, limit_s: float) -> tuple[str, int]:
        spot = bool(self._job.get("EnableManagedSpotTraining"))
        befalls = {
            kind: asyncio.create_task(running.due(fault))
            for kind in ("preempt", "crash")
            if (spot or kind != "preempt") and (fault := self._fault(kind)) is not None
        }
        try:
            return await self._watch_until(running, began, limit_s, befalls)
        finally:
            for befall in befalls.values():
                befall.cancel()

    async def _watch_until(
        self, running: RunningJob, began: float, limit_s: float, befalls: Mapping[str, asyncio.Task[None]]
    ) -> tuple[str, int]:
        """Watch the container until it ends or a fault of `befalls` does, each a task that is done when it is due."""
        ended = asyncio.create_task(running.wait())
        while not ended.done():
            await asyncio.wait({ended}, timeout=_LOOK_S)
            lasted_s = time.monotonic() - began
            self._job["BillableTimeInSeconds"] = self._job["TrainingTimeInSeconds"] = int(lasted_s) + 1
            if ended.done():
                break
            if self._stopping:
                return "stopped", await running.stop(_GRACE_S)
            if lasted_s > limit_s:
                return "too long", await running.stop(_GRACE_S)
            due = {kind for kind, befall in befalls.items() if befall.done()}
            if "preempt" in due:
                return "preempted", await running.stop(_GRACE_S)
            if "crash" in due:
                return "", await running.kill()
        return "", ended.result()

    @property
    def _stopping(self) -> bool:
        return self._job["TrainingJobStatus"] == "Stopping"

    def _set_up(self) -> None:
        """The directories, configuration files and data that the container finds."""
        for part in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (self._ml / part).mkdir(parents=True, exist_ok=True)
        channels = {channel["ChannelName"]: channel for channel in self._job.get("InputDataConfig", [])}
        for name, channel in channels.items():
            bucket, prefix = split(channel["DataSource"]["S3DataSource"]["S3Uri"])
            download_tree(self._objects, bucket, prefix, self._ml / "input" / "data" / name)
        described = {name: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"} for name in channels}
        hosts = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
        for file, content in (
            ("hyperparameters", self._job.get("HyperParameters", {})),
            ("inputdataconfig", described),
            ("resourceconfig", {**hosts, "current_instance_type": self._job["ResourceConfig"]["InstanceType"]}),
        ):
            (self._ml / "input" / "config" / f"{file}.json").write_text(json.dumps(content))
        if "CheckpointConfig" in self._job:
            bucket, prefix = split(self._job["CheckpointConfig"]["S3Uri"])
            download_tree(self._objects, bucket, prefix, self._checkpoint_dir())

    def _environment(self) -> dict[str, str]:
        arn: str = self._job["TrainingJobArn"]
        region = arn.split(":")[3]
        own = {
            "TRAINING_JOB_NAME": self._name,
            "TRAINING_JOB_ARN": arn,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }
        return {**self._job.get("Environment", {}), **own}

    def _checkpoint_dir(self) -> Path:
        inside = self._job["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints")
        return self._ml / inside.removeprefix("/opt/ml").strip("/")

    @contextlib.asynccontextmanager
    async def _checkpoints(self) -> AsyncIterator[None]:
        """Copy new checkpoints to S3 while the container runs, and once more when it has ended."""
        if "CheckpointConfig" not in self._job:
            yield
            return

        async def keep_up() -> None:
            while True:
                await asyncio.sleep(_SYNC_S)
                await asyncio.to_thread(self._sync)

        keeping = asyncio.create_task(keep_up())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await asyncio.to_thread(self._sync)

    def _sync(self) -> None:
        bucket, prefix = split(self._job["CheckpointConfig"]["S3Uri"])
        directory = self._checkpoint_dir()
        for path in sorted(directory.rglob("*")):
            # A file may be renamed or removed while it is looked at: the next round sees what became of it.
            with contextlib.suppress(FileNotFoundError):
                seen = path.stat()
                state = (seen.st_mtime, seen.st_size)
                if path.is_file() and self._synced.get(path) != state:
                    key = f"{prefix.rstrip('/')}/{path.relative_to(directory).as_posix()}"
                    self._objects.upload(path, bucket, key)
                    self._synced[path] = state

    def _upload(self) -> None:
        """Send what is in the two output directories, each as one archive."""
        bucket, prefix = split(self._job["OutputDataConfig"]["S3OutputPath"])
        where = f"{prefix.strip('/')}/{self._name}/output".lstrip("/")
        for directory, archive in (
            (self._ml / "model", "model.tar.gz"),
            (self._ml / "output" / "data", "output.tar.gz"),
        ):
            if not any(directory.iterdir()):
                continue
            packed = self._root / archive
            with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
                for path in sorted(directory.iterdir()):
                    tar.add(path, arcname=path.name)
            self._objects.upload(packed, bucket, f"{where}/{archive}")
            if archive == "model.tar.gz":
                self._job["ModelArtifacts"] = {"S3ModelArtifacts": f"s3://{bucket}/{where}/{archive}"}

    def _failure(self) -> str:
        file = self._ml / "output" / "failure"
        return file.read_text(errors="replace")[:1024] if file.exists() else ""

    def _fault(self, kind: str) -> Fault | None:
        return self._faults.take(kind, operation="CreateTrainingJob", target=self._name)

    def _turn(self, status: str, message: str) -> None:
        now = time.time()
        transitions: list[dict[str, Any]] = self._job["SecondaryStatusTransitions"]
        if transitions:
            transitions[-1]["EndTime"] = now
        transitions.append({"Status": status, "StartTime": now, "StatusMessage": message})
        self._job["LastModifiedTime"] = now
        if not self._stopping:
            self._job["SecondaryStatus"] = status

    def _end(self, status: str, secondary: str, reason: str | None = None) -> None:
        self._job["TrainingJobStatus"] = status
        self._job["FailureReason"] = reason
        if "TrainingStartTime" in self._job:
            self._job["TrainingEndTime"] = time.time()
        self._turn(secondary, f"Training job {status.lower()}")


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")
