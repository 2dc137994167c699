"""Kueue in the double: a Job with a queue's label waits, suspended, until its queue has quota for it.

Objects are those of `kueue.x-k8s.io/v1beta1`: LocalQueue and ClusterQueue say what there is, and each queued Job gets a
Workload that says how it stands. One flavor a resource is looked at; there are no cohorts, priorities, preemption,
admission checks or partial admission.

https://kueue.sigs.k8s.io/docs/concepts/workload/
https://kueue.sigs.k8s.io/docs/tasks/troubleshooting/troubleshooting_jobs/
"""

from __future__ import annotations

import hashlib
from collections import Counter

from deployments.local.kubernetes_api.nodes import asked, quantity
from deployments.local.kubernetes_api.objects import Json, Key, Objects, now

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"


def queue_of(job: Json) -> str:
    """The LocalQueue that a Job names; empty when Kueue has nothing to do with it."""
    return str((job["metadata"].get("labels") or {}).get(QUEUE_LABEL, ""))


class Queues:
    """Admits queued Jobs.

    Args:
        objects: The cluster's objects.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def admit(self, key: Key, job: Json) -> bool:
        """Whether a suspended Job may start; its Workload says so, or why not."""
        workload_key, workload = self._workload(key, job)
        if _holds(workload, "Admitted"):
            return True
        cluster_queue, reason, why = self._room(key[1], job)
        if why:
            self._tell(workload_key, workload, {"QuotaReserved": ("False", reason, why)})
            return False
        told = f"Quota reserved in ClusterQueue {cluster_queue}"
        workload["status"]["admission"] = {"clusterQueue": cluster_queue}
        admitted = ("True", "Admitted", "The workload is admitted")
        self._tell(workload_key, workload, {"QuotaReserved": ("True", "QuotaReserved", told), "Admitted": admitted})
        self._objects.event(job, "Normal", "Started", f"Admitted by clusterQueue {cluster_queue}")
        return True

    def release(self, key: Key, job: Json) -> None:
        """A queued Job has ended: what it held is free again."""
        if queue_of(job):
            workload_key, workload = self._workload(key, job)
            self._tell(workload_key, workload, {"Finished": ("True", "JobFinished", "Job finished")})

    def _workload(self, key: Key, job: Json) -> tuple[Key, Json]:
        meta = job["metadata"]
        found = self._objects.owned(job, "workloads")
        if found:
            return found[0]
        suffix = hashlib.sha256(meta["uid"].encode()).hexdigest()[:5]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        manifest: Json = {
            "metadata": {
                "name": f"job-{meta['name']}-{suffix}",
                "labels": {JOB_UID_LABEL: meta["uid"]},
                "ownerReferences": [owner],
            },
            "spec": {"queueName": queue_of(job), "podSets": [{"name": "main", "count": 1}]},
            "status": {},
        }
        made = self._objects.create("workloads", key[1], manifest)
        self._objects.event(job, "Normal", "CreatedWorkload", f"Created Workload: {key[1]}/{made[0][2]}")
        return made

    def _room(self, namespace: str, job: Json) -> tuple[str, str, str]:
        """The ClusterQueue; and, when it does not take the Job now, the reason and the message of that."""
        name = queue_of(job)
        local = self._objects.find(("localqueues", namespace, name))
        if local is None:
            return "", "Inadmissible", f"LocalQueue {name} doesn't exist"
        cluster_name = str(local["spec"]["clusterQueue"])
        cluster = self._objects.find(("clusterqueues", "", cluster_name))
        if cluster is None:
            return cluster_name, "Inadmissible", f"ClusterQueue {cluster_name} doesn't exist"
        used = self._used(cluster_name)
        wanted = asked(job["spec"]["template"]["spec"])
        for group in cluster["spec"].get("resourceGroups") or []:
            for flavor in group["flavors"][:1]:
                for resource in flavor["resources"]:
                    lacking = used[resource["name"]] + wanted[resource["name"]] - quantity(resource["nominalQuota"])
                    if wanted[resource["name"]] and lacking > 0:
                        place = f"{resource['name']} in flavor {flavor['name']}"
                        why = f"insufficient unused quota for {place}, {lacking:g} more needed"
                        return cluster_name, "Pending", f"couldn't assign flavors to pod set main: {why}"
        return cluster_name, "", ""

    def _used(self, cluster_queue: str) -> Counter[str]:
        """What the admitted Jobs of a ClusterQueue hold."""
        used: Counter[str] = Counter()
        for _, workload in self._objects.all("workloads"):
            admission = workload["status"].get("admission") or {}
            if admission.get("clusterQueue") != cluster_queue or _holds(workload, "Finished"):
                continue
            namespace, owner = workload["metadata"]["namespace"], workload["metadata"]["ownerReferences"][0]["name"]
            job = self._objects.find(("jobs", namespace, owner))
            if job is not None:
                used.update(asked(job["spec"]["template"]["spec"]))
        return used

    def _tell(self, key: Key, workload: Json, conditions: dict[str, tuple[str, str, str]]) -> None:
        before = {each["type"]: each for each in workload["status"].get("conditions", [])}
        changed = False
        for kind, (status, reason, message) in conditions.items():
            told = {"type": kind, "status": status, "reason": reason, "message": message}
            if told.items() <= before.get(kind, {}).items():
                continue
            before[kind] = {**told, "lastTransitionTime": now()}
            changed = True
        if changed:
            workload["status"]["conditions"] = list(before.values())
            self._objects.save(key)


def _holds(workload: Json, kind: str) -> bool:
    return any(each["type"] == kind and each["status"] == "True" for each in workload["status"].get("conditions", []))
