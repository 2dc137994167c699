"""What a Kubernetes Job, its pods and its events say of a job, on the common scale. Pure.

| what Kubernetes shows | state |
| --- | --- |
| Job suspended (a Kueue queue has not admitted it), no pod yet, pod not scheduled | QUEUED |
| not admitted, pod not scheduled, or refused by a quota, for longer than the patience | STOCKOUT |
| the queue that is named does not exist | FAILED |
| pod scheduled; image, files and containers on their way | STARTING |
| container `train` running | RUNNING |
| Job condition Complete | SUCCEEDED |
| Job condition Failed: `DeadlineExceeded`, `PodFailurePolicy` (its node was taken away), cancelled | STOPPED |
| Job condition Failed otherwise; an image that cannot be pulled | FAILED |

https://kubernetes.io/docs/concepts/workloads/controllers/job/, .../workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.core.training import JobStatus, RunState
from tasks.providers._dialects.jobs import verdict
from tasks.providers._dialects.kubernetes import Json
from tasks.providers._dialects.lintas_courier import STORE_FAILED

ENDED_BY = "lintas/ended-by"
"""Annotation of a Job that Lintas gave up, with the reason."""

CANCELLED = "cancelled"
CONTAINER = "train"
_STOCKOUT = "no capacity: "
_REFUSED = "refused: "
_IMAGE_ERRORS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONFIG_ERRORS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_OUT_OF_MEMORY = 137


@dataclass(frozen=True, slots=True)
class Judgement:
    """A job's status; `give_up` is the annotation to write when waiting any longer is of no use."""

    status: JobStatus
    give_up: str = ""


_Tell = Callable[..., Judgement]


def judge(
    job: Json,
    pods: Sequence[Json],
    events: Sequence[Json],
    *,
    now: datetime,
    stockout_after_s: float,
    workload: Json | None = None,
) -> Judgement:
    """The state of a job.

    Args:
        job: The Job.
        pods: Its pods.
        events: Events about the Job, needed only while it has no pod.
        now: The moment, timezone-aware.
        stockout_after_s: How long it may go without a node before that counts as a stock-out.
        workload: Kueue's Workload of a suspended Job, where it can be seen.
    """
    name = job["metadata"]["name"]
    pod = max(pods, key=lambda each: each["metadata"]["creationTimestamp"], default=None)
    main = _container(pod)
    running_s = _running_s(main, now)

    def status(state: RunState, detail: str = "", exit_code: int | None = None) -> Judgement:
        return Judgement(JobStatus(name, state, exit_code, detail, running_s))

    conditions = {each["type"]: each for each in _of(job, "status", "conditions", []) if each["status"] == "True"}
    ended_by = str(_of(job, "metadata", "annotations", {}).get(ENDED_BY, ""))
    if "Complete" in conditions:
        return status(RunState.SUCCEEDED, exit_code=0)
    if ended_by.startswith(_STOCKOUT):
        return status(RunState.STOCKOUT, ended_by)
    if ended_by.startswith(_REFUSED):
        return status(RunState.FAILED, ended_by.removeprefix(_REFUSED))
    if "Failed" in conditions:
        return _failed(status, conditions["Failed"], ended_by, pod, main)
    if ended_by == CANCELLED:
        return status(RunState.STOPPED, CANCELLED) if _suspended(job) else status(RunState.RUNNING, "stopping")
    if _suspended(job):
        return _not_admitted(name, job, workload or {}, now, stockout_after_s)
    if pod is None:
        since = _moment(job["metadata"]["creationTimestamp"])
        refused = _last_message(events, "FailedCreate")
        if "exceeded quota" in refused:
            return _waiting(name, f"a quota is used up: {refused}", since, now, stockout_after_s)
        return status(RunState.QUEUED, refused)
    return _alive(status, name, pod, main, now, stockout_after_s)


def _alive(status: _Tell, name: str, pod: Json, main: Json, now: datetime, stockout_after_s: float) -> Judgement:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        since = _moment(pod["metadata"]["creationTimestamp"])
        return _waiting(name, _one_line(scheduled.get("message", "")), since, now, stockout_after_s)
    for container in [*_of(pod, "status", "initContainerStatuses", []), *_of(pod, "status", "containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _IMAGE_ERRORS:
            words = f"the image '{container['image']}' cannot be pulled ({reason}); correct options.image"
        elif reason in _CONFIG_ERRORS:
            words = f"its container cannot be made: {_one_line(waiting.get('message', reason))}"
        else:
            continue
        refused = JobStatus(name, RunState.FAILED, None, words)
        return Judgement(refused, give_up=_REFUSED + words)
    if main.get("state", {}).get("running") or main.get("state", {}).get("terminated"):
        return status(RunState.RUNNING)
    return status(RunState.STARTING if scheduled is not None else RunState.QUEUED)


def _not_admitted(name: str, job: Json, workload: Json, now: datetime, stockout_after_s: float) -> Judgement:
    """https://kueue.sigs.k8s.io/docs/tasks/troubleshooting/troubleshooting_jobs/."""
    conditions = {each["type"]: each for each in _of(workload, "status", "conditions", [])}
    reserved = conditions.get("QuotaReserved", {})
    why = _one_line(reserved.get("message", "")) or "no word of Kueue"
    if reserved.get("reason") == "Inadmissible" and "doesn't exist" in why:
        words = f"its queue does not take it: {why}; correct options.queue"
        return Judgement(JobStatus(name, RunState.FAILED, None, words), give_up=_REFUSED + words)
    since = _moment(job["metadata"]["creationTimestamp"])
    return _waiting(name, f"not admitted by its queue: {why}", since, now, stockout_after_s)


def _waiting(name: str, message: str, since: datetime, now: datetime, stockout_after_s: float) -> Judgement:
    words = _STOCKOUT + message
    if (now - since).total_seconds() < stockout_after_s:
        return Judgement(JobStatus(name, RunState.QUEUED, None, words))
    return Judgement(JobStatus(name, RunState.STOCKOUT, None, words), give_up=words)


def _failed(status: _Tell, condition: Json, ended_by: str, pod: Json | None, main: Json) -> Judgement:
    terminated = main.get("state", {}).get("terminated") or {}
    code = terminated.get("exitCode")
    if ended_by == CANCELLED:
        return status(RunState.STOPPED, CANCELLED, code)
    if condition.get("reason") == "PodFailurePolicy" or (pod and _condition(pod, "DisruptionTarget")):
        why = _of(pod or {}, "status", "reason", "") or "its node was needed or lost"
        return status(RunState.STOPPED, f"preempted: {why}; submit the next attempt", code)
    if "DeadlineExceeded" in (condition.get("reason"), _of(pod or {}, "status", "reason", "")):
        return status(RunState.STOPPED, "stopped after its timeout", code)
    if terminated.get("reason") == "OOMKilled":
        words = "the command was killed: the machine's memory is used up; choose one with more memory"
        return status(RunState.FAILED, words, _OUT_OF_MEMORY)
    for container in _of(pod or {}, "status", "initContainerStatuses", []):
        if (container.get("state", {}).get("terminated") or {}).get("exitCode"):
            return status(RunState.FAILED, "the job's files could not be fetched from object storage; see its log")
    if code is not None:
        message = _one_line(terminated.get("message", ""))
        if code == STORE_FAILED and message:
            return status(RunState.FAILED, message, code)
        state, told, why = verdict(code, message)
        # The Job itself has failed; only its container's code is 0 when another part of it went wrong.
        return status(RunState.FAILED if state is RunState.SUCCEEDED else state, why, told)
    return status(RunState.FAILED, _one_line(condition.get("message", "")) or "the job failed; see its events")


def _suspended(job: Json) -> bool:
    return bool(job["spec"].get("suspend"))


def _container(pod: Json | None) -> Json:
    for container in _of(pod or {}, "status", "containerStatuses", []):
        if container["name"] == CONTAINER:
            return container
    return {}


def _condition(pod: Json, kind: str) -> Json | None:
    return next((each for each in _of(pod, "status", "conditions", []) if each["type"] == kind), None)


def _running_s(main: Json, now: datetime) -> float:
    """Kubernetes tells whole seconds: one that has begun counts as one."""
    state = main.get("state", {})
    told = state.get("terminated") or state.get("running") or {}
    if not told.get("startedAt"):
        return 0.0
    end = _moment(told["finishedAt"]) if told.get("finishedAt") else now
    return max(1.0, (end - _moment(told["startedAt"])).total_seconds())


def _last_message(events: Sequence[Json], reason: str) -> str:
    return next((_one_line(each.get("message", "")) for each in reversed(events) if each.get("reason") == reason), "")


def _of(thing: Json, section: str, key: str, default: Any) -> Any:
    """A field that Kubernetes leaves out or sets to null when it is empty."""
    return (thing.get(section) or {}).get(key) or default


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
