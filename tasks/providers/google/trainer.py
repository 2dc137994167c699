"""The `Trainer` port by custom jobs of Vertex AI.

What a job needs travels through the bucket of its dataset (`tasks.providers._dialects.jobs`), which the service mounts
at /gcs in the job's container; the job's name is the label `lintas-job` of the custom job.

Vertex AI gives every creation another id and knows no request ids, so that one spec is one job is seen to here: whoever
writes the object `claim` first creates the job and writes its id into `vertex_job`. A claim that leads to nothing is
taken over after a while, by somebody who first looks whether the job was created after all.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError, NotFound, PreconditionFailed, Retryable, Stockout
from tasks.core.training import JobSpec, JobStatus, RunState
from tasks.providers._dialects.answers import readable
from tasks.providers._dialects.jobs import (
    LAUNCHER,
    adopt_output,
    checkpoint_prefix,
    job_prefix,
    pack_job,
    verdict,
)
from tasks.providers.google.quirks import quirks
from tasks.providers.google.rest import Unanswered
from tasks.providers.google.store import GoogleStore, open_store
from tasks.providers.google.vertex import Vertex

STATES: Mapping[str, RunState] = {
    "JOB_STATE_QUEUED": RunState.QUEUED,
    "JOB_STATE_PENDING": RunState.STARTING,
    "JOB_STATE_RUNNING": RunState.RUNNING,
    "JOB_STATE_UPDATING": RunState.RUNNING,
    "JOB_STATE_PAUSED": RunState.RUNNING,
    "JOB_STATE_CANCELLING": RunState.RUNNING,
    "JOB_STATE_SUCCEEDED": RunState.SUCCEEDED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": RunState.FAILED,
    "JOB_STATE_FAILED": RunState.FAILED,
    "JOB_STATE_CANCELLED": RunState.STOPPED,
    "JOB_STATE_EXPIRED": RunState.STOPPED,
}
"""`JobState` of the REST API on the common scale; one that is not known counts as running."""

_LABEL = "lintas-job"
_TASK = "workerpool0-0"
_JOB_ID = re.compile(r"\d{1,20}")
_EXIT_CODE = re.compile(r"exited with a non-zero status of (\d+)")
_PREEMPTED = re.compile(r"preempt", re.IGNORECASE)
_SCHEDULING = ("on-demand", "flex-start")
_LOOK_S = 0.2


def open_trainer(config: CloudConfig) -> VertexTrainer:
    """The trainer of a cloud; `tasks.providers.google` says what its configuration may hold.

    Raises:
        Invalid: An option is missing or wrong.
        Denied: There are no credentials.
    """
    scheduling = config.options.get("scheduling", _SCHEDULING[0])
    if scheduling not in _SCHEDULING:
        raise Invalid(
            f"clouds.{config.name}.options.scheduling is '{scheduling}'", f"use one of {', '.join(_SCHEDULING)}"
        )
    config.option("image")
    return VertexTrainer(
        config,
        Vertex(config, "training"),
        queue_timeout_s=_seconds(config, "queue_timeout_s", 1800.0),
        grace_s=_seconds(config, "grace_s", quirks()["launcher_grace_s"]),
    )


@dataclass
class _Read:
    """What was read of a job's log: how many lines, and the entries of the last moment, which may yet get company."""

    lines: int = 0
    moment: str = ""
    ids: set[str] = field(default_factory=set[str])


class VertexTrainer:
    """Runs custom jobs in one project and region. Safe to use from several threads.

    Args:
        config: The cloud.
        vertex: Its API.
        queue_timeout_s: Seconds without a machine after which a job counts as a stock-out.
        grace_s: Seconds between asking the command to end and killing it.
    """

    def __init__(self, config: CloudConfig, vertex: Vertex, *, queue_timeout_s: float, grace_s: float) -> None:
        self._config, self._cloud, self._vertex = config, config.name, vertex
        self._prefix, self._bucket = config.options.get("prefix", ""), config.options.get("bucket", "")
        self._queue_timeout_s, self._grace_s = queue_timeout_s, grace_s
        self._read: dict[str, _Read] = {}
        self._stores: dict[str, GoogleStore] = {}

    def submit(self, job: JobSpec) -> str:
        """Start the job; see `Trainer.submit`."""
        packed = pack_job(job, self._cloud, grace_s=self._grace_s)
        self._require_data(job)
        store = self._store(self._bucket or job.data.bucket)
        if self._bucket:
            store.create_bucket()
        folder = job_prefix(self._prefix, job.job_name)
        deadline = time.monotonic() + quirks()["claim_wait_s"]
        while (job_id := _text(store, f"{folder}vertex_job")) is None:
            if self._claim(store, f"{folder}claim"):
                return self._create(job, packed, store, folder)
            if time.monotonic() > deadline:
                raise Retryable(f"somebody else is submitting '{job.job_name}' to '{self._cloud}'", "try again")
            time.sleep(_LOOK_S)
        return job_id

    def poll(self, job_id: str) -> JobStatus:
        """See `Trainer.poll`. A job that waited too long for a machine is cancelled, and from then on a stock-out."""
        with readable(self._cloud):
            return self._told(job_id, self._job(job_id))

    def _told(self, job_id: str, facts: Mapping[str, Any]) -> JobStatus:
        said = str(facts.get("state", ""))
        state = STATES.get(said, RunState.RUNNING)
        scheduling = facts["jobSpec"].get("scheduling", {})
        if state is RunState.STARTING and scheduling.get("strategy") == "FLEX_START":
            state = RunState.QUEUED
        created, began, ended = (_moment(facts.get(f"{name}Time")) for name in ("create", "start", "end"))
        now = datetime.now(UTC)
        running_s = max(0.0, ((ended or now) - began).total_seconds()) if began else 0.0
        waited_s = ((began or ended or now) - (created or now)).total_seconds()
        if state is RunState.QUEUED and waited_s > self._queue_timeout_s:
            self.cancel(job_id)
        if not state.ended:
            detail = "ending" if said == "JOB_STATE_CANCELLING" else ""
            return JobStatus(job_id, state, detail=detail, running_s=running_s)
        if state is RunState.STOPPED and began is None and waited_s >= self._queue_timeout_s:
            return JobStatus(job_id, RunState.STOCKOUT, detail=f"no machine within {self._queue_timeout_s:g} s")
        if state is RunState.STOPPED:
            return JobStatus(job_id, state, detail="cancelled", running_s=running_s)
        if state is RunState.SUCCEEDED:
            return JobStatus(job_id, state, 0, running_s=running_s)
        return self._failed(job_id, facts, running_s)

    def logs(self, job_id: str, *, after_line: int = 0) -> Iterator[str]:
        """See `Trainer.logs`. Cloud Logging takes some seconds to show a line; its entries need `logging.viewer`."""
        with readable(self._cloud):
            created = str(self._job(job_id)["createTime"])
        read = self._read.setdefault(job_id, _Read())
        if read.lines > after_line:
            read = self._read[job_id] = _Read()
        # Without a time the service looks at the last day only.
        since = read.moment or created
        query = f'resource.type="ml_job" AND resource.labels.job_id="{job_id}"'
        query += f' AND resource.labels.task_name="{_TASK}" AND timestamp>="{since}"'
        for entry in self._vertex.log_entries(query, f"log of job '{job_id}'"):
            with readable(self._cloud):
                name, moment = str(entry["insertId"]), str(entry["timestamp"])
            if name in read.ids:
                continue
            if moment != read.moment:
                read.moment, read.ids = moment, set()
            read.ids.add(name)
            read.lines += 1
            if read.lines > after_line:
                yield _line(entry)

    def cancel(self, job_id: str) -> None:
        """See `Trainer.cancel`."""
        try:
            facts = self._job(job_id)
            if not STATES.get(str(facts.get("state")), RunState.RUNNING).ended:
                self._vertex.post(f"{self._vertex.parent}/customJobs/{job_id}:cancel", {}, f"job '{job_id}'")
        except NotFound:
            return

    def fetch_output(self, job_id: str, into: Path) -> None:
        """See `Trainer.fetch_output`. IntegrityError: what arrived is not what the job wrote."""
        store, folder = self._folder(self._job(job_id))
        prefix = f"{folder}output/"
        with tempfile.TemporaryDirectory() as temporary:
            arrived = Path(temporary).resolve()
            for info in store.list(prefix):
                place = (arrived / info.key.removeprefix(prefix)).resolve()
                if info.key.endswith("/"):
                    continue  # Cloud Storage FUSE marks a directory by an object without content.
                if not place.is_relative_to(arrived) or place == arrived:
                    raise Invalid(f"the output of job '{job_id}' has the key '{info.key}'", "remove that object")
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    file.writelines(store.get(info.key, version=info.version))
            adopt_output(arrived, into, job_id)

    def _job(self, job_id: str) -> dict[str, Any]:
        what = f"job '{job_id}'"
        if not _JOB_ID.fullmatch(job_id):
            raise NotFound(f"there is no {what} on '{self._cloud}'", "list the runs and use one's job id")
        return self._vertex.get(f"{self._vertex.parent}/customJobs/{job_id}", what)

    def _require_data(self, job: JobSpec) -> None:
        prefix = f"{job.data.prefix}/" if job.data.prefix else ""
        if not prefix and self._bucket in ("", job.data.bucket):
            raise Invalid(
                f"the dataset {job.data} is a whole bucket, and its jobs would be written into it",
                f"set clouds.{self._cloud}.options.bucket to another one",
            )
        try:
            if next(iter(self._store(job.data.bucket).list(prefix)), None) is not None:
                return
        except NotFound:
            pass
        raise Invalid(f"there is no dataset at {job.data}", "move it there first")

    def _claim(self, store: GoogleStore, key: str) -> bool:
        """Whether the claim is ours now."""
        try:
            store.put(key, [b"."], size_bytes=1, if_absent=True)
        except PreconditionFailed:
            pass
        else:
            return True
        try:
            theirs = store.head(key)
            if datetime.now(UTC) - theirs.modified < timedelta(seconds=quirks()["claim_lease_s"]):
                return False
            store.put(key, [b"."], size_bytes=1, if_version=theirs.version)
        except (NotFound, PreconditionFailed):
            return False
        return True

    def _create(self, job: JobSpec, packed: Mapping[str, bytes], store: GoogleStore, folder: str) -> str:
        """Create the job under our claim, or find the one that an earlier claimant created, and record its id."""
        name, written, unsure = job.job_name, list[str](), False
        jobs = f"{self._vertex.parent}/customJobs"
        try:
            found = self._labelled(name)
            if found is None:
                for file, content in packed.items():
                    written.append(f"{folder}code/{file}")
                    store.put(written[-1], [content], size_bytes=len(content))
                try:
                    found = self._vertex.post(jobs, self._described(job, folder), f"job '{name}'")
                except Unanswered:
                    unsure = True
                    found = self._labelled(name)
                    if found is None:
                        raise
        except LintasError:
            if unsure:
                # It may come about yet: the claim stays until it is too old.
                raise
            # There is no job for certain: nothing stays, so that it can be submitted again at once.
            for key in (*written, f"{folder}claim"):
                store.delete(key)
            raise
        with readable(self._cloud):
            job_id = str(found["name"]).rpartition("/")[2]
        store.put(f"{folder}vertex_job", [job_id.encode()], size_bytes=len(job_id))
        return job_id

    def _labelled(self, name: str) -> dict[str, Any] | None:
        query = {"filter": f'labels.{_LABEL}="{name}"'}
        return next(self._vertex.listed(f"{self._vertex.parent}/customJobs", "customJobs", "jobs", **query), None)

    def _described(self, job: JobSpec, folder: str) -> dict[str, Any]:
        """The custom job as the API wants it."""
        options, bucket = self._config.options, self._bucket or job.data.bucket
        mounted = f"/gcs/{bucket}"
        sku = job.sku or quirks()["training_sku"]
        checkpoints = checkpoint_prefix(self._prefix, job.family)
        spec: dict[str, Any] = {
            "workerPoolSpecs": [
                {
                    "machineSpec": {"machineType": sku, **quirks()["machines"].get(sku, {})},
                    "replicaCount": 1,
                    "containerSpec": {
                        "imageUri": options["image"],
                        "command": ["python3", f"{mounted}/{folder}code/{LAUNCHER}"],
                        "args": [
                            *("--data", f"/gcs/{job.data.bucket}/{job.data.prefix}".rstrip("/")),
                            *("--output", f"{mounted}/{folder}output"),
                            *("--checkpoints", f"{mounted}/{checkpoints.rstrip('/')}"),
                            *("--failure", f"{mounted}/{folder}failure"),
                        ],
                    },
                }
            ],
            "scheduling": self._scheduling(job),
            "baseOutputDirectory": {"outputUriPrefix": f"gs://{bucket}/{folder}"},
        }
        for option, name in (("service_account", "serviceAccount"), ("network", "network")):
            if option in options:
                spec[name] = options[option]
        labels = {_LABEL: job.job_name, "lintas-attempt": str(job.attempt)}
        return {"displayName": job.job_name, "labels": labels, "jobSpec": spec}

    def _scheduling(self, job: JobSpec) -> dict[str, Any]:
        # The launcher ends the command in time; the service's own limit is for a launcher that cannot.
        timeout_s = min(int(job.timeout_s) + quirks()["spare_s"], quirks()["longest_timeout_s"])
        # A retry by the service would be an attempt that nobody counts.
        scheduling: dict[str, Any] = {"timeout": f"{timeout_s}s", "disableRetries": True, "strategy": "STANDARD"}
        if job.spot:
            scheduling["strategy"] = "SPOT"
        elif self._config.options.get("scheduling") == "flex-start" and quirks()["machines"].get(job.sku):
            scheduling |= {"strategy": "FLEX_START", "maxWaitDuration": f"{self._queue_timeout_s:.0f}s"}
        return scheduling

    def _failed(self, job_id: str, facts: Mapping[str, Any], running_s: float) -> JobStatus:
        status = facts.get("error") or {}
        message = str(status.get("message", ""))
        meaning = self._vertex.meaning(status, f"job '{job_id}'")
        if isinstance(meaning, Stockout):
            return JobStatus(job_id, RunState.STOCKOUT, detail=meaning.what, running_s=running_s)
        if _PREEMPTED.search(message):
            detail = "preempted: the spot machine was taken back; submit the next attempt"
            return JobStatus(job_id, RunState.FAILED, detail=detail, running_s=running_s)
        exited = _EXIT_CODE.search(message)
        store, folder = self._folder(facts)
        why = _text(store, f"{folder}failure") or ""
        if exited is None and not why:
            return JobStatus(job_id, RunState.FAILED, detail=meaning.what, running_s=running_s)
        state, exit_code, detail = verdict(int(exited[1]) if exited else None, why)
        return JobStatus(job_id, state, exit_code, detail, running_s)

    def _folder(self, facts: Mapping[str, Any]) -> tuple[GoogleStore, str]:
        """The bucket and the prefix of a job's own objects, by the job's own word."""
        with readable(self._cloud):
            uri = str(facts["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"])
        bucket, _, folder = uri.removeprefix("gs://").partition("/")
        return self._store(bucket), folder

    def _store(self, bucket: str) -> GoogleStore:
        if bucket not in self._stores:
            self._stores[bucket] = open_store(self._config, bucket)
        return self._stores[bucket]


def _text(store: GoogleStore, key: str) -> str | None:
    """A small object as text, or None when it is not there."""
    try:
        return b"".join(store.get(key)).decode()
    except NotFound:
        return None


def _line(entry: Mapping[str, Any]) -> str:
    payload = entry.get("jsonPayload")
    return str(payload.get("message", "")) if isinstance(payload, dict) else str(entry.get("textPayload", ""))


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None


def _seconds(config: CloudConfig, option: str, default: float) -> float:
    try:
        return float(config.options.get(option, default))
    except ValueError as error:
        raise Invalid(f"clouds.{config.name}.options.{option} is not a number", "correct lintas.yaml") from error
