"""The `Trainer` port by command jobs of an Azure ML workspace.

A job runs on serverless compute of the offer's machine (spot: the queue's tier `Spot`), or on the cluster that
`options.compute` names. What it needs travels through the container `options.bucket`, see
`tasks.providers._dialects.jobs`. Whether there is capacity shows only by waiting: a job without a machine stays
`Queued`, so one that has waited for `options.queue_timeout_s` is cancelled and counts as a stock-out.

https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-command
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.cloud import CloudConfig
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, NotFound, Retryable
from tasks.core.training import JobSpec, JobStatus, RunState
from tasks.providers._dialects.answers import readable
from tasks.providers._dialects.jobs import (
    LAUNCHER,
    OUTPUT_LIST,
    adopt_output,
    checkpoint_prefix,
    job_prefix,
    pack_job,
    verdict,
)
from tasks.providers.azure.arm import NO_CAPACITY, Workspace, one_line
from tasks.providers.azure.quirks import quirks
from tasks.providers.azure.store import AzureStore, open_store

STATES: Mapping[str, RunState] = {
    "NotStarted": RunState.QUEUED,
    "Queued": RunState.QUEUED,
    "Paused": RunState.QUEUED,
    "Scheduled": RunState.QUEUED,
    "Starting": RunState.STARTING,
    "Provisioning": RunState.STARTING,
    "Preparing": RunState.STARTING,
    "Running": RunState.RUNNING,
    "Finalizing": RunState.RUNNING,
    "CancelRequested": RunState.RUNNING,
    "NotResponding": RunState.RUNNING,
    "Unknown": RunState.RUNNING,
    "Completed": RunState.SUCCEEDED,
    "Failed": RunState.FAILED,
    "Canceled": RunState.STOPPED,
}
"""`JobStatus` of the REST API on the common scale."""

_LOG = "user_logs/std_log.txt"
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_EXIT_CODE = re.compile(r"exited with (?:status code|code) (-?\d+)")


def open_trainer(config: CloudConfig) -> AzureTrainer:
    """The trainer of a cloud; `tasks.providers.azure` says what its configuration may hold.

    Raises:
        Invalid: An option is missing or is no number.
        Denied: A credential's reference leads nowhere.
    """
    try:
        queue_timeout_s = float(config.options.get("queue_timeout_s", quirks()["queue_timeout_s"]))
        grace_s = float(config.options.get("grace_s", quirks()["launcher_grace_s"]))
    except ValueError as error:
        key = f"clouds.{config.name}.options"
        raise Invalid(f"{key}.queue_timeout_s or {key}.grace_s is not a number", "correct lintas.yaml") from error
    return AzureTrainer(config, Workspace(config, "training"), queue_timeout_s, grace_s)


class AzureTrainer:
    """Runs command jobs in one workspace. Safe to use from several threads.

    Args:
        config: The cloud: its storage account, `training_environment`, and further options.
        workspace: Where the jobs run.
        queue_timeout_s: Seconds in the queue after which a job counts as a stock-out.
        grace_s: Seconds between asking the command to end and killing it; the service waits for 30.
    """

    def __init__(self, config: CloudConfig, workspace: Workspace, queue_timeout_s: float, grace_s: float) -> None:
        self._config = config
        self._cloud = config.name
        self._account, self._bucket = config.option("account"), config.option("bucket")
        self._prefix = config.options.get("prefix", "")
        self._workspace = workspace
        self._queue_timeout_s, self._grace_s = queue_timeout_s, grace_s
        self._logs: dict[str, tuple[int, int]] = {}

    def submit(self, job: JobSpec) -> str:
        """Start the job; see `Trainer.submit`. The service refuses a second job of one name, so that one is it."""
        name = job.job_name
        if self._workspace.find(f"jobs/{name}") is not None:
            return name
        packed = pack_job(job, self._cloud, grace_s=self._grace_s)
        self._require_data(job.data)
        prefix = job_prefix(self._prefix, name)
        store = open_store(self._config, self._bucket)
        store.create_bucket()
        for file, content in packed.items():
            store.put(f"{prefix}code/{file}", [content], size_bytes=len(content))
        try:
            self._workspace.put(f"jobs/{name}", self._described(job, prefix))
        except (Invalid, Retryable):
            # Somebody else may have submitted it at this moment.
            if self._workspace.find(f"jobs/{name}") is None:
                raise
        return name

    def poll(self, job_id: str) -> JobStatus:
        """See `Trainer.poll`. A job that waited too long in the queue is cancelled, and is a stock-out from then on."""
        with readable(self._cloud):
            return self._status(job_id, self._job(job_id))

    def _status(self, job_id: str, facts: Mapping[str, Any]) -> JobStatus:
        said = str(facts["properties"]["status"])
        state = STATES.get(said, RunState.RUNNING)
        details = {} if state is RunState.QUEUED else self._workspace.run_details(job_id)
        began, ended = _moment(details.get("startTimeUtc")), _moment(details.get("endTimeUtc"))
        now = datetime.now(UTC)
        running_s = max(0.0, ((ended or now) - began).total_seconds()) if began else 0.0
        waited_s = ((began or ended or now) - (_moment(facts["systemData"]["createdAt"]) or now)).total_seconds()
        if state is RunState.QUEUED and waited_s > self._queue_timeout_s:
            self.cancel(job_id)
        if not state.ended:
            return JobStatus(job_id, state, detail="" if said != "CancelRequested" else "ending", running_s=running_s)
        if state is RunState.STOPPED and began is None and waited_s >= self._queue_timeout_s:
            return JobStatus(job_id, RunState.STOCKOUT, detail=f"no machine within {self._queue_timeout_s:g} s")
        return self._ended(job_id, facts, state, details.get("error"), running_s)

    def logs(self, job_id: str, *, after_line: int = 0) -> Iterator[str]:
        """See `Trainer.logs`. What was read before is not fetched again."""
        with readable(self._cloud):
            ended = STATES.get(str(self._job(job_id)["properties"]["status"]), RunState.RUNNING).ended
        url = (self._workspace.run_details(job_id).get("logFiles") or {}).get(_LOG)
        if not url:
            return
        line, start = self._logs.get(job_id, (0, 0))
        if line > after_line:
            line, start = 0, 0
        whole, end, rest = self._workspace.fetch(url, start=start).rpartition(b"\n")
        for text in whole.split(b"\n") if end else []:
            start, line = start + len(text) + 1, line + 1
            self._logs[job_id] = (line, start)
            if line > after_line:
                yield _text(text)
        if rest and ended and line >= after_line:
            yield _text(rest)

    def cancel(self, job_id: str) -> None:
        """See `Trainer.cancel`."""
        try:
            job = self._job(job_id)
        except NotFound:
            return
        with readable(self._cloud):
            ended = STATES.get(str(job["properties"]["status"]), RunState.RUNNING).ended
        if not ended:
            self._workspace.post(f"jobs/{job_id}/cancel")

    def fetch_output(self, job_id: str, into: Path) -> None:
        """See `Trainer.fetch_output`. IntegrityError: what arrived is not what the job wrote."""
        store, prefix = self._output(self._job(job_id))
        with tempfile.TemporaryDirectory() as folder:
            arrived = Path(folder).resolve()
            for info in store.list(prefix):
                place = (arrived / info.key.removeprefix(prefix)).resolve()
                if not place.is_relative_to(arrived) or place == arrived:
                    raise Invalid(f"the output of job '{job_id}' has the key '{info.key}'", "remove that object")
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    for piece in store.get(info.key, version=info.version):
                        file.write(piece)
            adopt_output(arrived, into, job_id)

    def _job(self, job_id: str) -> dict[str, Any]:
        found = self._workspace.find(f"jobs/{job_id}") if _JOB_NAME.fullmatch(job_id) else None
        if found is None:
            raise NotFound(f"there is no job '{job_id}' on '{self._cloud}'", "list the runs and use one's job id")
        return found

    def _require_data(self, data: DatasetURI) -> None:
        store = open_store(self._config, data.bucket)
        try:
            if next(iter(store.list(f"{data.prefix}/" if data.prefix else "")), None) is not None:
                return
        except NotFound:
            pass
        raise Invalid(f"there is no dataset at {data}", "move it there first")

    def _described(self, job: JobSpec, prefix: str) -> dict[str, Any]:
        """The job as the service wants it. Outputs are mounted: what is written survives the machine."""
        options, bucket = self._config.options, self._bucket
        command = f"python ${{{{inputs.code}}}}/{LAUNCHER} --data ${{{{inputs.data}}}} --output ${{{{outputs.output}}}}"
        properties: dict[str, Any] = {
            "jobType": "Command",
            "displayName": job.name,
            "experimentName": job.name,
            "command": f"{command} --checkpoints ${{{{outputs.checkpoints}}}}",
            "environmentId": self._environment(),
            "inputs": {
                "code": _folder(self._uri(bucket, f"{prefix}code/"), "jobInputType", "Download"),
                "data": _folder(self._uri(job.data.bucket, f"{job.data.prefix}/"), "jobInputType", "ReadOnlyMount"),
            },
            "outputs": {
                "output": _folder(self._uri(bucket, f"{prefix}output/"), "jobOutputType", "ReadWriteMount"),
                "checkpoints": _folder(
                    self._uri(bucket, checkpoint_prefix(self._prefix, job.family)), "jobOutputType", "ReadWriteMount"
                ),
            },
            "limits": {"jobLimitsType": "Command", "timeout": f"PT{int(job.timeout_s) + quirks()['spare_s']}S"},
            "tags": {"lintas-digest": job.digest, "lintas-run": job.run_id, "lintas-attempt": str(job.attempt)},
        }
        if "compute" in options:
            properties["computeId"] = f"{self._workspace.id}/computes/{options['compute']}"
        else:
            properties["resources"] = {"instanceCount": 1, **({"instanceType": job.sku} if job.sku else {})}
            properties["queueSettings"] = {"jobTier": "Spot" if job.spot else "Standard"}
        if "identity_client_id" in options:
            properties["identity"] = {"identityType": "Managed", "clientId": options["identity_client_id"]}
        return {"properties": properties}

    def _environment(self) -> str:
        """`NAME:VERSION` in the workspace, or the full id of an environment elsewhere (a registry's)."""
        named = self._config.option("training_environment")
        name, _, version = named.partition(":")
        if "/" in named:
            return named
        return f"{self._workspace.id}/environments/{name}/versions/{version or '1'}"

    def _uri(self, container: str, key: str) -> str:
        return f"wasbs://{container}@{self._account}.blob.core.windows.net/{key.lstrip('/')}"

    def _output(self, facts: Mapping[str, Any]) -> tuple[AzureStore, str]:
        with readable(self._cloud):
            uri = str(facts["properties"]["outputs"]["output"]["uri"])
        container, _, rest = uri.removeprefix("wasbs://").partition("@")
        return open_store(self._config, container), rest.partition("/")[2]

    def _ended(self, job_id: str, facts: Mapping[str, Any], state: RunState, error: Any, running_s: float) -> JobStatus:
        if state is RunState.SUCCEEDED:
            return JobStatus(job_id, state, 0, "", running_s)
        code, message = _error_of(error)
        if state is RunState.FAILED and code in NO_CAPACITY:
            return JobStatus(job_id, RunState.STOCKOUT, None, one_line(f"{code}: {message}"), running_s)
        told = self._told(facts)
        if state is RunState.STOPPED:
            # Somebody asked for its end; what the command left with is no news then.
            return JobStatus(job_id, state, told.get("exit_code"), "cancelled", running_s)
        exited = _EXIT_CODE.search(message)
        exit_code = told.get("exit_code", int(exited.group(1)) if exited else None)
        state, exit_code, detail = verdict(exit_code, str(told.get("why", "")))
        if not told and code != "UserError":
            # A user's error quotes the end of the log, which may be personal; all others are the service's own words.
            detail = one_line(message) or detail
        if state is RunState.SUCCEEDED:
            # The command did its part and the service lost the rest.
            state, detail = RunState.FAILED, one_line(message) or "the service could not finish the job"
        return JobStatus(job_id, state, exit_code, detail, running_s)

    def _told(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the launcher wrote last; empty when it did not come so far."""
        store, prefix = self._output(facts)
        try:
            return json.loads(b"".join(store.get(f"{prefix}{OUTPUT_LIST}")))
        except (NotFound, ValueError):
            return {}


def _folder(uri: str, kind: str, mode: str) -> dict[str, str]:
    return {kind: "uri_folder", "uri": uri, "mode": mode}


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _error_of(error: Any) -> tuple[str, str]:
    """Code and message of a run's error: `{"error": {"code", "message", "innerError"...}}`; the innermost code."""
    inner = (error or {}).get("error") or {}
    code, message = str(inner.get("code") or ""), str(inner.get("message") or "")
    while isinstance(inner := inner.get("innerError"), dict):
        code = str(inner.get("code") or code)
    return code, message
