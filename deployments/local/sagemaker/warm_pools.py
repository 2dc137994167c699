"""Warm pools: machines that a job leaves behind for the next one that matches.

https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html
"""

from __future__ import annotations

import time
from typing import Any

from deployments.local.sagemaker.resources import Thing
from deployments.local.sagemaker.wire import invalid

_SAME = ("RoleArn", "VpcConfig", "EnableInterContainerTrafficEncryption", "EnableNetworkIsolation")
_SAME_RESOURCES = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId", "InstanceGroups")


def check_warm_pool(request: Thing) -> None:
    """Refuse what cannot have a warm pool."""
    if request.get("EnableManagedSpotTraining") and _kept_s(request):
        raise invalid("KeepAlivePeriodInSeconds is not supported with EnableManagedSpotTraining.")


class WarmPools:
    """The machines that are kept; each belongs to the job that left it, whose description tells of it."""

    def __init__(self) -> None:
        self._left: list[tuple[Thing, float]] = []

    def begin(self, job: Thing) -> None:
        """A job has its machine, which will be kept after it."""
        if _kept_s(job):
            job["WarmPoolStatus"] = {"Status": "InUse"}

    def leave(self, job: Thing) -> None:
        """A job has ended, whatever its end: its machine waits for the next one."""
        if "WarmPoolStatus" in job:
            job["WarmPoolStatus"] = {"Status": "Available"}
            self._left.append((job, time.time()))

    def take(self, job: Thing) -> bool:
        """Whether a machine is there that matches the job, which has it from now on."""
        self.look()
        found = next((each for each in self._left if _matches(each[0], job)), None)
        if found is None:
            return False
        self._left.remove(found)
        before, since = found
        before["WarmPoolStatus"] = {"Status": "Reused", "ReusedByJob": job["TrainingJobName"], **_billed(since)}
        return True

    def look(self) -> None:
        """Give back the machines that nobody took in time."""
        for job, since in list(self._left):
            if time.time() - since >= _kept_s(job):
                self._left.remove((job, since))
                job["WarmPoolStatus"] = {"Status": "Terminated", **_billed(since)}


def _kept_s(job: Thing) -> int:
    return int(job.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds", 0))


def _billed(since: float) -> dict[str, Any]:
    return {"ResourceRetainedBillableTimeInSeconds": int(time.time() - since) + 1}


def _matches(before: Thing, job: Thing) -> bool:
    if job.get("EnableManagedSpotTraining"):
        return False
    one, other = before["ResourceConfig"], job["ResourceConfig"]
    return all(before.get(name) == job.get(name) for name in _SAME) and all(
        one.get(name) == other.get(name) for name in _SAME_RESOURCES
    )
