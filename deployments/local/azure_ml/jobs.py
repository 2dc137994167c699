"""Command jobs: queue, machine, mounted folders, the command itself, and what the run history tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from deployments.local.azure_ml.operations import Operations
from deployments.local.azure_ml.refusals import Refused, invalid, not_found, out_of_quota
from deployments.local.azure_ml.resources import now, properties_of, resource
from deployments.local.azure_ml.storage import Storage
from deployments.local.compute import JobRunner, RunningJob
from deployments.local.faults import FaultTable

LOG = "user_logs/std_log.txt"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_EXPRESSION = re.compile(r"\$\{\{(inputs|outputs)\.(\w+)\}\}")
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?")
_ENDED = ("Completed", "Failed", "Canceled")
_STEP_S = 0.05
_NOTICE_S = 30.0
"""Seconds between a machine's notice of its end and the end."""


@dataclass
class Job:
    """One job.

    Args:
        facts: Its resource.
        directory: Its files.
        run: What the run history says besides.
        secret: What its log's URL must bear.
    """

    facts: dict[str, Any]
    directory: Path
    run: dict[str, Any] = field(default_factory=dict[str, Any])
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    process: RunningJob | None = None
    cancelling: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.facts["name"])

    @property
    def properties(self) -> dict[str, Any]:
        """Its resource's properties."""
        return self.facts["properties"]


class Jobs:
    """The command jobs of a workspace.

    Args:
        workspace: Its id.
        root: Directory of the jobs' files.
        storage: Where folders come from and go to.
        operations: Long-running operations.
        faults: What shall go wrong.
    """

    def __init__(
        self, workspace: str, root: Path, storage: Storage, operations: Operations, faults: FaultTable
    ) -> None:
        self._workspace, self._root, self._storage = workspace, root, storage
        self._operations, self._faults = operations, faults
        self._runner = JobRunner()
        self._jobs: dict[str, Job] = {}

    def put(self, name: str, body: Any, base: str) -> Response:
        """Create a job. A second one of its name is refused, as the service does when they differ."""
        if not _NAME.fullmatch(name):
            raise invalid(f"'{name}' is not a valid name for a job.")
        properties = properties_of(body, "jobs", "jobType", "command", "environmentId")
        if properties["jobType"] != "Command":
            raise Refused(501, "NotImplemented", "The local double runs command jobs only.")
        if name in self._jobs:
            raise invalid("A job with this name already exists. Use a different name to create a new job.")
        if self._faults.take("quota", operation="PUT jobs", target=name):
            raise Refused(400, "QuotaExceeded", "The subscription's quota for the requested VM family is used up.")
        _check_references(properties)
        for folder in [*(properties.get("inputs") or {}).values(), *(properties.get("outputs") or {}).values()]:
            if folder.get("uri"):
                self._storage.locate(folder["uri"])
        path = f"{self._workspace}/jobs/{name}"
        facts = resource(path, "jobs", {**properties, "status": "NotStarted", "services": _services(base, path)})
        job = self._jobs[name] = Job(facts, self._root / name)
        job.run["createdTimeUtc"] = now()
        self._operations.keep(self._run(job))
        return JSONResponse(facts, 201)

    def get(self, name: str) -> Response:
        """A job's resource."""
        return JSONResponse(self._named(name).facts)

    def list(self) -> Response:
        """All of them."""
        return JSONResponse({"value": [job.facts for job in self._jobs.values()]})

    def cancel(self, name: str, base: str) -> Response:
        """Ask a job to end; 200 when it has."""
        job = self._named(name)
        if job.properties["status"] in _ENDED:
            return Response(status_code=200)
        job.properties["status"] = "CancelRequested"
        job.cancelling.set()

        async def ended() -> None:
            await job.ended.wait()

        headers = self._operations.begin(base, ended())
        return Response(status_code=202, headers={name: headers[name] for name in ("location", "retry-after")})

    def details(self, name: str, base: str) -> Response:
        """What the run history says of a job."""
        job = self._named(name)
        lost = self._faults.take("lost_logs", operation="GET details", target=name) is not None
        begun = "startTimeUtc" in job.run and not lost
        logs = {LOG: f"{base}/logs/{name}?sig={job.secret}"} if begun else {}
        return JSONResponse({"runId": name, "status": job.properties["status"], **job.run, "logFiles": logs})

    def log(self, name: str, secret: str, bytes_wanted: str) -> Response:
        """A job's log, as the blob behind its URL would answer."""
        job = self._named(name)
        if not secrets.compare_digest(secret.encode(), job.secret.encode()):
            return Response(status_code=403)
        file = job.directory / LOG
        content = file.read_bytes() if file.exists() else b""
        found = re.fullmatch(r"bytes=(\d+)-", bytes_wanted)
        if found is None:
            return Response(content, media_type="text/plain")
        start = int(found.group(1))
        if start >= len(content):
            return Response(status_code=416)
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Response(content[start:], 206, {"content-range": span}, "text/plain")

    async def close(self) -> None:
        """End all jobs."""
        await self._runner.close()

    def _named(self, name: str) -> Job:
        if name not in self._jobs:
            raise not_found("job", name)
        return self._jobs[name]

    async def _run(self, job: Job) -> None:
        """A job's whole life. It ends in one of three states, whatever happens."""
        status = "Failed"
        try:
            status = await self._live(job)
        except Refused as refused:
            self._fail(job, refused.code, refused.message)
        except OSError as error:
            self._fail(job, "SystemError", f"The local double failed: {error.strerror}.")
        finally:
            job.run["endTimeUtc"] = now()
            job.properties["status"] = status
            job.ended.set()

    async def _live(self, job: Job) -> str:
        while True:
            if not await self._get_machine(job):
                return "Canceled"
            arguments, environment = await self._prepare(job)
            if job.cancelling.is_set():
                return "Canceled"
            code, why = await self._execute(job, arguments, environment)
            # Output folders are mounted: what was written is there however the command ended.
            for name, output in (job.properties.get("outputs") or {}).items():
                await self._storage.upload(job.directory / "outputs" / name, output["uri"])
            if why != "preempted":
                break
        if why in ("cancelled", "timeout"):
            return "Canceled"
        if code == 0:
            return "Completed"
        last = _last_line(job.directory / LOG)
        self._fail(
            job,
            "UserError",
            f"Execution failed. User process 'bash' exited with status code {code}. Please check log file "
            f"'{LOG}' for error details. Error: {last}",
        )
        return "Failed"

    def _fail(self, job: Job, code: str, message: str) -> None:
        job.run["error"] = {"error": {"code": code, "message": message}}

    async def _get_machine(self, job: Job) -> bool:
        """Wait in the queue for a machine; false when the job was cancelled there."""
        if not job.cancelling.is_set():
            job.properties["status"] = "Queued"
        if self._faults.take("stockout", operation="PUT jobs", target=job.name):
            await job.cancelling.wait()
        slow = self._faults.take("slow_start", operation="PUT jobs", target=job.name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(job.cancelling.wait(), slow.delay_s if slow else _STEP_S)
        if job.cancelling.is_set():
            return False
        if self._faults.take("quota", operation="allocate", target=job.name):
            raise out_of_quota()
        job.properties["status"] = "Starting"
        return True

    async def _prepare(self, job: Job) -> tuple[list[str], dict[str, str]]:
        """Bring the folders and work out the command line and the variables of the container."""
        job.properties["status"] = "Preparing"
        experiment = str(job.properties.get("experimentName") or "Default")
        _, subscription, _, group, *_, workspace = self._workspace.strip("/").split("/")
        environment = {
            "AZUREML_RUN_ID": job.name,
            "AZUREML_EXPERIMENT_NAME": experiment,
            "AZUREML_ARM_SUBSCRIPTION": subscription,
            "AZUREML_ARM_RESOURCEGROUP": group,
            "AZUREML_ARM_WORKSPACE_NAME": workspace,
            "AZUREML_ARM_PROJECT_NAME": experiment,
            **(job.properties.get("environmentVariables") or {}),
        }
        places: dict[tuple[str, str], str] = {}
        for name, given in (job.properties.get("inputs") or {}).items():
            if given.get("jobInputType") == "literal":
                places["inputs", name] = str(given["value"])
                continue
            folder = job.directory / "inputs" / name
            await self._storage.download(given["uri"], folder)
            places["inputs", name] = environment[f"AZURE_ML_INPUT_{name}"] = str(folder)
        for name, output in (job.properties.get("outputs") or {}).items():
            folder = job.directory / "outputs" / name
            output.setdefault("uri", f"azureml://datastores/workspaceblobstore/paths/azureml/{job.name}/{name}/")
            await self._storage.download(output["uri"], folder, may_be_empty=True)
            places["outputs", name] = environment[f"AZURE_ML_OUTPUT_{name}"] = str(folder)
        command = _EXPRESSION.sub(lambda found: shlex.quote(places[found[1], found[2]]), str(job.properties["command"]))
        return ["bash", "-c", command], environment

    async def _execute(self, job: Job, arguments: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """Run the command. Returns its exit code and why it was ended, if it was."""
        log = job.directory / LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        job.run.setdefault("startTimeUtc", now())
        process = job.process = await self._runner.start(
            arguments, environment=environment, directory=job.directory / "wd", log=log
        )
        if not job.cancelling.is_set():
            job.properties["status"] = "Running"
        ends = {
            "ended": asyncio.create_task(process.wait()),
            "cancelled": asyncio.create_task(job.cancelling.wait()),
        }
        timeout_s = _seconds((job.properties.get("limits") or {}).get("timeout"))
        if timeout_s is not None:
            ends["timeout"] = asyncio.create_task(asyncio.sleep(timeout_s))
        for kind, why in (("preempt", "preempted"), ("crash", "crashed")):
            if fault := self._faults.take(kind, operation="run", target=job.name):
                ends[why] = asyncio.create_task(process.due(fault))
        try:
            await asyncio.wait(ends.values(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            first = next((why for why, task in ends.items() if task.done()), "cancelled")
            for task in ends.values():
                task.cancel()
        if first == "crashed":
            return await process.kill(), first
        if first != "ended":
            return await process.stop(_NOTICE_S), first
        if not job.cancelling.is_set():
            job.properties["status"] = "Finalizing"
        return await process.wait(), ""


def _services(base: str, path: str) -> dict[str, Any]:
    """Where a job can be looked at, as the service tells it."""
    return {
        "Tracking": {
            "jobServiceType": "Tracking",
            "endpoint": f"azureml://{base.partition('://')[2]}/mlflow/v1.0{path}",
        },
        "Studio": {"jobServiceType": "Studio", "endpoint": f"{base}/runs/{path.rpartition('/')[2]}"},
    }


def _check_references(properties: Mapping[str, Any]) -> None:
    for side, name in _EXPRESSION.findall(str(properties["command"])):
        if name not in (properties.get(side) or {}):
            raise invalid(f"The command refers to {side}.{name}, which the job does not have.")


def _seconds(duration: Any) -> float | None:
    """Seconds of an ISO 8601 duration of hours, minutes and seconds."""
    found = _DURATION.fullmatch(str(duration)) if duration else None
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-1:]
    return json.dumps(lines[0]) if lines else ""
