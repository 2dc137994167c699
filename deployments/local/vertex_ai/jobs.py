"""Custom jobs: each one a real process, with the environment that Vertex AI gives a training container.

Sources: https://cloud.google.com/vertex-ai/docs/training/code-requirements (AIP_*, CLUSTER_SPEC, /gcs) and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPIError

from deployments.local.compute import JobRunner, RunningJob
from deployments.local.faults import FaultTable
from deployments.local.object_access import CloudStorageAccess
from deployments.local.vertex_ai.errors import Refused, invalid, missing_fields, not_found
from deployments.local.vertex_ai.mount import MOUNT, Mount
from deployments.local.vertex_ai.resources import Registry, Resource, new_id, now
from deployments.local.vertex_ai.schema import normalised

_ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
_OUTPUT_ONLY = ("name", "state", "createTime", "startTime", "endTime", "updateTime", "error", "webAccessUris")
_GRACE_S = 10.0
_LABEL = re.compile(r"[\w-]{0,63}")
_FILTER = re.compile(r'\s*(displayName|display_name|state|labels\.[\w-]+)\s*=\s*"?([^"]*?)"?\s*')


@dataclass
class Job:
    """A custom job, and what runs for it."""

    resource: Resource
    directory: Path
    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    running: RunningJob | None = None
    task: asyncio.Task[None] | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def job_id(self) -> str:
        """The last part of its name."""
        return str(self.resource["name"]).rpartition("/")[2]

    def catch_up(self) -> None:
        """Take what the process has written since into the log, with the moment at which it was seen."""
        if self.running is not None:
            for line in self.running.lines()[len(self.lines) :]:
                self.lines.append((now(), line))


class Jobs:
    """The custom jobs of one location.

    Args:
        registry: Where their resources are.
        faults: What shall go wrong.
        objects: The project's object store.
        root: Directory for what they write outside of /gcs, and their logs.
    """

    def __init__(self, registry: Registry, faults: FaultTable, objects: CloudStorageAccess, root: Path) -> None:
        self._registry, self._faults, self._objects, self._root = registry, faults, objects, root
        self._runner = JobRunner()
        self._jobs: dict[str, Job] = {}
        shutil.rmtree(root, ignore_errors=True)

    def create(self, body: object) -> Resource:
        """`projects.locations.customJobs.create`."""
        job = normalised("CustomJob", body, "custom_job")
        for name in _OUTPUT_ONLY:
            job.pop(name, None)
        _check(job)
        quota = self._faults.take("quota", operation="customJobs.create", target=job["displayName"])
        if quota is not None:
            metric = "aiplatform.googleapis.com/custom_model_training_cpus"
            raise Refused("RESOURCE_EXHAUSTED", f"The following quota metrics exceed quota limits: {metric}")
        moment = now()
        name = f"{self._registry.parent}/customJobs/{new_id()}"
        job |= {"name": name, "state": "JOB_STATE_PENDING", "createTime": moment, "updateTime": moment}
        made = Job(job, self._root / name.rpartition("/")[2])
        self._registry.resources[name] = job
        self._jobs[name] = made
        made.task = asyncio.create_task(self._run(made), name=name)
        return job

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`projects.locations.customJobs.list`, with filters on display name, state and labels joined by AND."""
        return self._registry.page("customJobs", "customJobs", query, matching(query.get("filter", "")))

    def cancel(self, name: str) -> dict[str, Any]:
        """`projects.locations.customJobs.cancel`: asks only; one that has ended stays as it is."""
        job = self._named(name)
        if job.resource["state"] not in _ENDED:
            job.resource |= {"state": "JOB_STATE_CANCELLING", "updateTime": now()}
            job.cancelled.set()
        return {}

    def delete(self, name: str) -> Resource:
        """`projects.locations.customJobs.delete`."""
        if self._named(name).resource["state"] not in _ENDED:
            raise Refused("FAILED_PRECONDITION", f"The CustomJob {name} is not in a final state.")

        async def remove() -> dict[str, Any]:
            self._registry.resources.pop(name, None)
            gone = self._jobs.pop(name, None)
            if gone is not None:
                shutil.rmtree(gone.directory, ignore_errors=True)
            return {}

        return self._registry.begin(self._registry.parent, "Delete", remove)

    def log(self, job_id: str) -> list[tuple[str, str]]:
        """The lines of a job with the moments at which they were written; none for a job that is not there."""
        job = self._jobs.get(f"{self._registry.parent}/customJobs/{job_id}")
        if job is None or self._faults.take("lost_logs", operation="entries.list", target=job_id) is not None:
            return []
        job.catch_up()
        return job.lines

    async def close(self) -> None:
        """End all jobs."""
        for job in self._jobs.values():
            if job.task is not None:
                job.task.cancel()
        await self._runner.close()

    def _named(self, name: str) -> Job:
        if name not in self._jobs:
            raise not_found(name)
        return self._jobs[name]

    async def _run(self, job: Job) -> None:
        try:
            await self._run_to_its_end(job)
        except Refused as refused:
            self._end(job, "JOB_STATE_FAILED", refused)
        except (GoogleAPIError, OSError) as error:
            broken = Refused("INTERNAL", f"Cloud Storage could not be used ({type(error).__name__}).")
            self._end(job, "JOB_STATE_FAILED", broken)

    async def _run_to_its_end(self, job: Job) -> None:
        target = job.resource["displayName"]
        slow = self._faults.take("slow_start", operation="customJobs.create", target=target)
        if slow is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(job.cancelled.wait(), slow.delay_s)
        if self._faults.take("stockout", operation="customJobs.create", target=target) is not None:
            raise Refused(
                "RESOURCE_EXHAUSTED",
                f"Resources are insufficient in region: {self._registry.location}. Please try a different region or "
                "use a different machine type.",
            )
        mount = Mount(self._objects, job.directory / "gcs")
        spec = job.resource["jobSpec"]
        arguments, environment = _container(spec, self._registry.project, job.job_id)
        await mount.fill([*arguments, *environment.values()])
        if job.cancelled.is_set():
            self._end(job, "JOB_STATE_CANCELLED")
            return
        try:
            job.running = await self._runner.start(
                arguments,
                environment=environment,
                directory=job.directory / "home",
                log=job.directory / "log",
                mounts={MOUNT: job.directory / "gcs"},
            )
        except OSError as error:
            raise invalid(f"The replica workerpool0-0 could not start its container: {arguments[0]}.") from error
        job.resource |= {"state": "JOB_STATE_RUNNING", "startTime": now(), "updateTime": now()}
        following = asyncio.create_task(mount.follow())
        try:
            code, why = await self._wait(job, job.running, target)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await mount.empty()
        job.catch_up()
        if why == "cancelled":
            self._end(job, "JOB_STATE_CANCELLED")
        elif why:
            self._end(job, "JOB_STATE_FAILED", Refused("ABORTED" if why != "timed out" else "CANCELLED", why))
        elif code == 0:
            self._end(job, "JOB_STATE_SUCCEEDED")
        else:
            self._end(job, "JOB_STATE_FAILED", _exited(code, self._registry.project, job.job_id))

    async def _wait(self, job: Job, running: RunningJob, target: str) -> tuple[int, str]:
        """The container's exit code, and why it was ended before it ended by itself."""
        timeout = job.resource["jobSpec"].get("scheduling", {}).get("timeout")
        preempt = self._faults.take("preempt", target=target)
        crash = self._faults.take("crash", target=target)
        ended = asyncio.create_task(running.wait())
        waits: dict[asyncio.Task[Any], str] = {
            ended: "",
            asyncio.create_task(job.cancelled.wait()): "cancelled",
        }
        if timeout is not None:
            waits[asyncio.create_task(asyncio.sleep(float(timeout[:-1])))] = "timed out"
        if preempt is not None:
            waits[asyncio.create_task(running.due(preempt))] = "preempted"
        if crash is not None:
            waits[asyncio.create_task(running.due(crash))] = "crash"
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                if wait is not ended:
                    wait.cancel()
        why = "" if ended in done else next(waits[each] for each in waits if each in done)
        if why == "":
            return ended.result(), ""
        if why == "crash":
            return await running.kill(), ""
        code = await running.stop(_GRACE_S)
        if why == "preempted":
            return code, "The replica workerpool0-0 was preempted: its Spot VM was taken back."
        return code, why

    def _end(self, job: Job, state: str, error: Refused | None = None) -> None:
        moment = now()
        job.resource |= {"state": state, "endTime": moment, "updateTime": moment}
        if error is not None:
            job.resource["error"] = error.as_status()


def matching(expression: str) -> Any:
    """A filter of list requests as a predicate.

    Raises:
        Refused: It is none that the double knows.
    """
    wanted: list[tuple[str, str]] = []
    for part in re.split(r"\s+AND\s+", expression) if expression else ():
        found = _FILTER.fullmatch(part)
        if found is None:
            raise invalid(f"Invalid filter: {part}")
        wanted.append((found[1].replace("display_name", "displayName"), found[2]))

    def keep(resource: Resource) -> bool:
        return all(
            resource.get("labels", {}).get(name.removeprefix("labels.")) == value
            if name.startswith("labels.")
            else resource.get(name) == value
            for name, value in wanted
        )

    return keep


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises `Refused` for a label that the service does not take."""
    for name, value in labels.items():
        legal = _LABEL.fullmatch(name) and _LABEL.fullmatch(value) and f"{name}{value}" == f"{name}{value}".lower()
        if not legal or not name[:1].isalpha():
            raise invalid(f"Invalid label: '{name}'. Labels have lower-case letters, digits, '_' and '-', at most 63.")


def _check(job: Mapping[str, Any]) -> None:
    spec = job.get("jobSpec", {})
    if not job.get("displayName"):
        raise missing_fields("custom_job.display_name")
    check_labels(job.get("labels", {}))
    pools = spec.get("workerPoolSpecs", [])
    if not pools:
        raise missing_fields("custom_job.job_spec.worker_pool_specs")
    pool, where = pools[0], "custom_job.job_spec.worker_pool_specs[0]"
    missing = [
        field
        for field, value in (
            (f"{where}.machine_spec.machine_type", pool.get("machineSpec", {}).get("machineType")),
            (f"{where}.container_spec.image_uri", pool.get("containerSpec", {}).get("imageUri")),
        )
        if not value
    ]
    if missing:
        raise missing_fields(*missing)
    if int(pool.get("replicaCount", 0)) != 1:
        raise invalid(f"List of found errors:\t1.Field: {where}.replica_count; Message: It must be 1.\t")
    machine = pool["machineSpec"]
    if bool(machine.get("acceleratorCount")) != bool(machine.get("acceleratorType")):
        raise missing_fields(f"{where}.machine_spec.accelerator_type")
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "gs://")
    if not base.startswith("gs://"):
        raise invalid(
            "List of found errors:\t1.Field: custom_job.job_spec.base_output_directory; Message: Not a URI.\t"
        )


def _container(spec: Mapping[str, Any], project: str, job_id: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the container, as the service makes them."""
    container = spec["workerPoolSpecs"][0]["containerSpec"]
    cluster = {
        "cluster": {"workerpool0": [f"cmle-training-workerpool0-{job_id[:10]}-0:2222"]},
        "environment": "cloud",
        "task": {"type": "workerpool0", "index": 0},
    }
    environment = {
        "CLOUD_ML_PROJECT_ID": project,
        "CLOUD_ML_JOB_ID": job_id,
        "CLUSTER_SPEC": json.dumps(cluster),
    }
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    if base:
        environment |= {
            "AIP_MODEL_DIR": f"{base}/model/",
            "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
            "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
        }
    environment |= {each["name"]: each.get("value", "") for each in container.get("env", [])}
    arguments = [*container.get("command", []), *container.get("args", [])]
    if not arguments:
        raise invalid("The double runs no images: the container spec needs a command.")
    return arguments, environment


def _exited(code: int, project: str, job_id: str) -> Refused:
    return invalid(
        f"The replica workerpool0-0 exited with a non-zero status of {code}. To find out more about why your job "
        f"exited please check the logs: https://console.cloud.google.com/logs/viewer?project={project}"
        f"&resource=ml_job%2Fjob_id%2F{job_id}"
    )
