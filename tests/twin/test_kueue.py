"""Kueue: a job waits suspended until its queue has quota, says why, and is given up after its patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from tasks.core.ports import Trainer
from tasks.core.training import JobStatus, RunState
from tests.compute_clouds import ComputeCloud
from tests.twin.test_kubernetes_api import (
    api,  # noqa: F401 - a fixture
    cloud,  # noqa: F401 - a fixture
    opened,
    spec_of,
)

GROUP = ("kueue.x-k8s.io", "v1beta1")
SKU = "gd-8xh100ib-i128"
WAITS = "import os, pathlib, time\nwhile not pathlib.Path(os.environ['GO']).exists():\n    time.sleep(0.02)"


@pytest.fixture
def queue(api: client.ApiClient, request: pytest.FixtureRequest) -> Iterator[str]:  # noqa: F811
    """A LocalQueue whose ClusterQueue has the eight accelerators of one machine."""
    objects = client.CustomObjectsApi(api)
    name = f"queue-{abs(hash(request.node.name)) % 10**8}"
    quota = {"name": "default-flavor", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": 8}]}
    cluster: dict[str, Any] = {
        "metadata": {"name": name},
        "spec": {"resourceGroups": [{"coveredResources": ["nvidia.com/gpu"], "flavors": [quota]}]},
    }
    objects.create_cluster_custom_object(*GROUP, "clusterqueues", cluster)
    local = {"metadata": {"name": name}, "spec": {"clusterQueue": name}}
    objects.create_namespaced_custom_object(*GROUP, "default", "localqueues", local)
    yield name
    objects.delete_namespaced_custom_object(*GROUP, "default", "localqueues", name)
    objects.delete_cluster_custom_object(*GROUP, "clusterqueues", name)


def conditions_of(api: client.ApiClient, job_id: str) -> dict[str, tuple[str, str]]:  # noqa: F811
    uid = client.BatchV1Api(api).read_namespaced_job(job_id, "default").metadata.uid
    found: Any = client.CustomObjectsApi(api).list_namespaced_custom_object(
        *GROUP, "default", "workloads", label_selector=f"kueue.x-k8s.io/job-uid={uid}"
    )
    (workload,) = found["items"]
    return {each["type"]: (each["status"], each["reason"]) for each in workload["status"]["conditions"]}


def wait(poll: Callable[[], JobStatus], good: Callable[[JobStatus], bool], within_s: float = 120) -> JobStatus:
    deadline = time.monotonic() + within_s
    while not good(status := poll()):
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def running_first(trainer: Trainer, folder: Path, go: dict[str, str]) -> str:
    """A job that takes all of the queue's quota until the file GO is there, once it runs."""
    job_id = trainer.submit(spec_of(folder / "one", WAITS, sku=SKU, environment=go))
    wait(lambda: trainer.poll(job_id), lambda status: status.state is RunState.RUNNING)
    return job_id


def test_a_job_is_admitted_when_its_queue_has_quota_and_the_next_one_when_that_is_free_again(
    cloud: ComputeCloud,  # noqa: F811
    api: client.ApiClient,  # noqa: F811
    queue: str,
    tmp_path: Path,
) -> None:
    trainer, go = opened(cloud, queue=queue), {"GO": str(tmp_path / "go")}
    first = running_first(trainer, tmp_path, go)
    assert conditions_of(api, first)["Admitted"] == ("True", "Admitted")
    second = trainer.submit(spec_of(tmp_path / "two", WAITS + "\nprint(2)", sku=SKU, environment=go))
    status = wait(lambda: trainer.poll(second), lambda status: "insufficient unused quota" in status.detail)
    assert (status.state, "8 more needed" in status.detail) == (RunState.QUEUED, True)
    assert conditions_of(api, second) == {"QuotaReserved": ("False", "Pending")}
    (tmp_path / "go").touch()
    assert wait(lambda: trainer.poll(second), lambda status: status.state.ended).state is RunState.SUCCEEDED
    assert conditions_of(api, first)["Finished"] == ("True", "JobFinished")


def test_a_job_that_waits_too_long_for_its_queue_is_a_stock_out_and_is_never_admitted_late(
    cloud: ComputeCloud,  # noqa: F811
    api: client.ApiClient,  # noqa: F811
    queue: str,
    tmp_path: Path,
) -> None:
    trainer, go = opened(cloud, queue=queue), {"GO": str(tmp_path / "go")}
    first = running_first(trainer, tmp_path, go)
    impatient = opened(cloud, queue=queue, stockout_after_s="0.5")
    second = impatient.submit(spec_of(tmp_path / "two", WAITS + "\nprint(2)", sku=SKU, environment=go))
    status = wait(lambda: impatient.poll(second), lambda status: status.state.ended)
    assert status.state is RunState.STOCKOUT
    assert "not admitted by its queue: couldn't assign flavors" in status.detail
    job = client.BatchV1Api(api).read_namespaced_job(second, "default")
    assert "kueue.x-k8s.io/queue-name" not in job.metadata.labels
    (tmp_path / "go").touch()
    wait(lambda: trainer.poll(first), lambda status: status.state.ended)
    assert client.BatchV1Api(api).read_namespaced_job(second, "default").spec.suspend is True
    assert trainer.poll(second).state is RunState.STOCKOUT


def test_a_queue_that_does_not_exist_is_named(cloud: ComputeCloud, tmp_path: Path) -> None:  # noqa: F811
    trainer = opened(cloud, queue="no-such-queue")
    job_id = trainer.submit(spec_of(tmp_path / "code", "print(1)"))
    status = wait(lambda: trainer.poll(job_id), lambda status: status.state.ended)
    assert status.state is RunState.FAILED
    assert "LocalQueue no-such-queue doesn't exist; correct options.queue" in status.detail
