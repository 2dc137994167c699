"""The controllers of the double: what makes pods of Jobs and Deployments.

https://kubernetes.io/docs/concepts/workloads/controllers/job/ and .../deployment/
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import time
from datetime import UTC, datetime

from deployments.local.kubernetes_api.nodes import asked, quantity
from deployments.local.kubernetes_api.objects import Json, Key, Objects, moment, now
from deployments.local.kubernetes_api.pods import Kubelet
from deployments.local.kubernetes_api.queues import Queues, queue_of

_LOOK_S = 0.1
_DEFAULT_BACKOFF_LIMIT = 6
_PROGRESS_DEADLINE_S = 600
_POD_HASH = "pod-template-hash"


class Controllers:
    """One task an object that has something to control.

    Args:
        objects: The cluster's objects.
        kubelet: Runs the pods.
    """

    def __init__(self, objects: Objects, kubelet: Kubelet) -> None:
        self._objects, self._kubelet, self._queues = objects, kubelet, Queues(objects)
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._rollouts: dict[Key, tuple[str, float]] = {}

    def control(self, key: Key) -> None:
        """Look after an object from now on, if it is of a kind that needs it."""
        work = {"jobs": self._job, "deployments": self._deployment}.get(key[0])
        if work is not None and key not in self._tasks:
            task = asyncio.create_task(work(key))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def close(self) -> None:
        """Look after nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _job(self, key: Key) -> None:
        job = self._objects.get(key)
        uid = job["metadata"]["uid"]
        if job["status"].get("active"):
            # An earlier double made its pod, and took it along.
            self._finish(key, job, "Failed", "PodFailurePolicy", "Pod was lost with its node (DisruptionTarget)")
        while self._same(key, uid):
            if _finished(job):
                await self._forget_in_time(key, job)
                return
            if not await self._advance(key, job):
                await asyncio.sleep(_LOOK_S)

    async def _advance(self, key: Key, job: Json) -> bool:
        """Make one step with a Job; False: there is nothing to do but to look again."""
        spec, status = job["spec"], job["status"]
        pods = self._objects.owned(job)
        if spec.get("suspend") and queue_of(job) and self._queues.admit(key, job):
            spec["suspend"] = False
            self._objects.save(key)
        if spec.get("suspend"):
            for pod_key, _ in pods:
                self._kubelet.delete(pod_key)
            return False
        if "startTime" not in status:
            status["startTime"] = now()
            self._objects.save(key)
        deadline_s = spec.get("activeDeadlineSeconds")
        if deadline_s is not None and (datetime.now(UTC) - moment(status["startTime"])).total_seconds() >= deadline_s:
            await self._end_pods(job)
            text = "Job was active longer than specified deadline"
            self._finish(key, job, "Failed", "DeadlineExceeded", text)
            return True
        if not pods:
            return self._make_job_pod(key, job)
        if any(pod["status"]["phase"] == "Succeeded" for _, pod in pods):
            self._finish(key, job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            return True
        if any(pod["status"]["phase"] != "Failed" for _, pod in pods):
            return False
        taken_away = next((each for each, pod in pods if _matching_rule(spec.get("podFailurePolicy"), pod)), None)
        if taken_away is not None:
            text = f"Pod {key[1]}/{taken_away[2]} has condition DisruptionTarget matching FailJob rule at index 0"
            self._finish(key, job, "Failed", "PodFailurePolicy", text)
            return True
        if len(pods) > spec.get("backoffLimit", _DEFAULT_BACKOFF_LIMIT):
            text = "Job has reached the specified backoff limit"
            self._finish(key, job, "Failed", "BackoffLimitExceeded", text)
            return True
        return self._make_job_pod(key, job)

    def _make_job_pod(self, key: Key, job: Json) -> bool:
        name = job["metadata"]["name"]
        labels = {"job-name": name, "batch.kubernetes.io/job-name": name}
        labels["batch.kubernetes.io/controller-uid"] = job["metadata"]["uid"]
        refused = self._over_quota(key[1], job["spec"]["template"]["spec"])
        if refused:
            told = [each for _, each in self._objects.owned(job, "events")]
            known = [each for _, each in self._objects.all("events", key[1]) if each["involvedObject"]["name"] == name]
            if not told and not any(each["reason"] == "FailedCreate" for each in known):
                text = f'Error creating: pods "{name}-" is forbidden: exceeded quota: {refused}'
                self._objects.event(job, "Warning", "FailedCreate", text)
            return False
        pod_key = self._make_pod(job, labels, f"{name}-")
        job["status"].update(active=1, ready=0)
        self._objects.save(key)
        self._objects.event(job, "Normal", "SuccessfulCreate", f"Created pod: {pod_key[2]}")
        return True

    def _make_pod(self, owner: Json, labels: Json, prefix: str) -> Key:
        meta, template = owner["metadata"], owner["spec"]["template"]
        told = template.get("metadata") or {}
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
        manifest: Json = {
            "metadata": {
                "generateName": prefix[:57],
                "labels": {**(told.get("labels") or {}), **labels},
                "annotations": dict(told.get("annotations") or {}),
                "ownerReferences": [{**reference, "controller": True}],
            },
            "spec": copy.deepcopy(template["spec"]),
            "status": {"phase": "Pending"},
        }
        key, _ = self._objects.create("pods", meta["namespace"], manifest)
        self._kubelet.start(key)
        return key

    def _over_quota(self, namespace: str, spec: Json) -> str:
        """Which quota a pod would exceed, in Kubernetes' words; empty when none."""
        wanted = asked(spec)
        for key, quota in self._objects.all("resourcequotas", namespace):
            for name, hard in (quota["spec"].get("hard") or {}).items():
                resource = name.removeprefix("requests.")
                used = sum(
                    asked(pod["spec"])[resource]
                    for _, pod in self._objects.all("pods", namespace)
                    if pod["status"].get("phase") not in ("Succeeded", "Failed")
                )
                if wanted[resource] and used + wanted[resource] > quantity(hard):
                    amounts = f"requested: {name}={wanted[resource]:g}, used: {name}={used:g}, limited: {name}={hard}"
                    return f"{key[2]}, {amounts}"
        return ""

    def _finish(self, key: Key, job: Json, kind: str, reason: str, message: str) -> None:
        status, moment_told = job["status"], now()
        status.pop("active", None)
        status["succeeded" if kind == "Complete" else "failed"] = 1
        if kind == "Complete":
            status["completionTime"] = moment_told
        told = {"reason": reason, "message": message, "lastProbeTime": moment_told, "lastTransitionTime": moment_told}
        status.setdefault("conditions", []).append({"type": kind, "status": "True", **told})
        self._objects.save(key)
        self._queues.release(key, job)
        self._objects.event(job, "Normal" if kind == "Complete" else "Warning", reason, message)

    async def _end_pods(self, owner: Json) -> None:
        """A Job has ended only when its pods have."""
        while pods := self._objects.owned(owner):
            for pod_key, _ in pods:
                self._kubelet.delete(pod_key)
            await asyncio.sleep(_LOOK_S)

    async def _forget_in_time(self, key: Key, job: Json) -> None:
        kept_s = job["spec"].get("ttlSecondsAfterFinished")
        if kept_s is None:
            return
        ended = moment(job["status"]["conditions"][-1]["lastTransitionTime"])
        await asyncio.sleep(max(0.0, kept_s - (datetime.now(UTC) - ended).total_seconds()))
        if self._same(key, job["metadata"]["uid"]):
            self._objects.remove(key)

    async def _deployment(self, key: Key) -> None:
        uid = self._objects.get(key)["metadata"]["uid"]
        while self._same(key, uid):
            deployment = self._objects.get(key)
            self._roll(key, deployment)
            await asyncio.sleep(_LOOK_S)

    def _roll(self, key: Key, deployment: Json) -> None:
        """One step of a rolling update with maxUnavailable 0 and maxSurge 1."""
        spec = deployment["spec"]
        digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
        alive = [(each, pod) for each, pod in self._objects.owned(deployment) if _lives(pod)]
        current = [(each, pod) for each, pod in alive if pod["metadata"]["labels"].get(_POD_HASH) == digest]
        old = [each for each in alive if each not in current]
        wanted, ready = spec.get("replicas", 1), [each for each, pod in current if is_ready(pod)]
        refused = ""
        if len(current) < wanted and len(current) == len(ready):
            refused = self._over_quota(key[1], spec["template"]["spec"])
            if not refused:
                self._make_pod(deployment, {_POD_HASH: digest}, f"{key[2]}-{digest}-")
        for each, _ in current[wanted:]:
            self._kubelet.delete(each)
        for each, pod in old:
            if len(ready) >= wanted or not is_ready(pod):
                self._kubelet.delete(each)
        late = self._late(key, deployment, digest, len(ready) >= wanted)
        conditions = _conditions(f"{key[2]}-{digest}", len(ready) >= wanted, late, refused)
        self._tell(key, deployment, len(alive), len(current), len(ready), wanted, conditions)

    def _late(self, key: Key, deployment: Json, digest: str, done: bool) -> bool:
        """Whether a rollout makes no progress for longer than its deadline."""
        began_digest, began = self._rollouts.get(key, ("", 0.0))
        if done or began_digest != digest:
            began = time.monotonic()
            self._rollouts[key] = (digest, began)
        return time.monotonic() - began > deployment["spec"].get("progressDeadlineSeconds", _PROGRESS_DEADLINE_S)

    def _tell(
        self,
        key: Key,
        deployment: Json,
        alive: int,
        current: int,
        ready: int,
        wanted: int,
        conditions: list[dict[str, str]],
    ) -> None:
        counts = {"replicas": alive, "updatedReplicas": current, "readyReplicas": ready, "availableReplicas": ready}
        counts["unavailableReplicas"] = max(0, wanted - ready)
        status: Json = {
            "observedGeneration": deployment["metadata"]["generation"],
            **{name: count for name, count in counts.items() if count},
            "conditions": conditions,
        }
        before = deployment.get("status") or {}
        told = [{name: value for name, value in each.items() if name in ("type", "status", "reason", "message")}
                for each in before.get("conditions", [])]  # fmt: skip
        if {**before, "conditions": told} != status:
            moment_told = now()
            for condition in status["conditions"]:
                condition.update(lastTransitionTime=moment_told, lastUpdateTime=moment_told)
            deployment["status"] = status
            self._objects.save(key)

    def _same(self, key: Key, uid: str) -> bool:
        found = self._objects.find(key)
        return found is not None and found["metadata"]["uid"] == uid


def is_ready(pod: Json) -> bool:
    """Whether a service sends requests to this pod."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


def _conditions(replica_set: str, enough: bool, late: bool, refused: str) -> list[dict[str, str]]:
    """https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status."""
    available = {"type": "Available", "status": str(enough)}
    available["reason"] = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    progressing = {"type": "Progressing", "status": str(not late)}
    if late:
        progressing["reason"] = "ProgressDeadlineExceeded"
        progressing["message"] = f'ReplicaSet "{replica_set}" has timed out progressing.'
    else:
        progressing["reason"] = "NewReplicaSetAvailable" if enough else "ReplicaSetUpdated"
    if not refused:
        return [available, progressing]
    message = f'pods "{replica_set}-" is forbidden: exceeded quota: {refused}'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    return [available, progressing, failure]


def _lives(pod: Json) -> bool:
    return not pod["metadata"].get("deletionTimestamp")


def _finished(job: Json) -> bool:
    return any(each["type"] in ("Complete", "Failed") for each in job["status"].get("conditions", []))


def _matching_rule(policy: Json | None, pod: Json) -> bool:
    """Whether a rule with `onPodConditions` says that the Job fails with this pod."""
    conditions = {(each["type"], each["status"]) for each in pod["status"].get("conditions", [])}
    return any(
        (wanted["type"], wanted.get("status", "True")) in conditions
        for rule in (policy or {}).get("rules", [])
        if rule["action"] == "FailJob"
        for wanted in rule.get("onPodConditions") or []
    )
