"""What the double of the Kubernetes API does to the official client, and what its faults become in Lintas' terms."""

from __future__ import annotations

import base64
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from deployments.local import credentials
from deployments.local.faults import put_faults
from deployments.local.kubernetes_api.process import kubernetes_api
from deployments.local.ports import free_ports
from deployments.local.processes import HOST
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, Retryable, Stockout
from tasks.core.evaluation import model_digest
from tasks.core.release import EndpointSpec
from tasks.core.training import JobSpec, JobStatus, RunState, code_digest
from tasks.providers.coreweave.server import open_server
from tasks.providers.coreweave.store import open_store
from tasks.providers.coreweave.trainer import CoreWeaveTrainer, open_trainer
from tests.compute_clouds import ComputeCloud, ComputeClouds

NAMESPACE = "default"
SKU = "gd-8xh100ib-i128"


@pytest.fixture(scope="module")
def cloud(compute_clouds: ComputeClouds) -> ComputeCloud:
    found = compute_clouds["coreweave"]
    store = open_store(found.config, "twin-raw")
    store.create_bucket()
    store.put("rows/rows.txt", [b"one\n"], size_bytes=4)
    return found


@pytest.fixture(scope="module")
def api(cloud: ComputeCloud) -> client.ApiClient:
    settings = client.Configuration(host=cloud.config.endpoint("training"))
    settings.api_key = {"authorization": f"Bearer {cloud.config.credentials['token'].reveal()}"}
    return client.ApiClient(settings)


@pytest.fixture
def faults(cloud: ComputeCloud) -> Iterator[Callable[..., None]]:
    url = cloud.config.endpoint("training")
    yield lambda *table: put_faults(url, list(table))
    put_faults(url, [])


def job_of(name: str, command: list[str], *, pod: Any = None, container: Any = None, **spec: Any) -> dict[str, Any]:
    whole = {"name": "main", "image": "python:3.11", "command": command, **(container or {})}
    template = {"spec": {"restartPolicy": "Never", "containers": [whole], **(pod or {})}}
    return {
        "metadata": {"name": name, "labels": {"made": "here"}},
        "spec": {"backoffLimit": 0, **spec, "template": template},
    }


def run(api: client.ApiClient, manifest: dict[str, Any], timeout_s: float = 120) -> Any:
    """Create a Job and watch it to its end; returns it with its condition."""
    batch = client.BatchV1Api(api)
    name = manifest["metadata"]["name"]
    batch.create_namespaced_job(NAMESPACE, client.V1Job.from_dict(manifest))
    chosen = {"field_selector": f"metadata.name={name}", "timeout_seconds": int(timeout_s)}
    for event in watch.Watch().stream(batch.list_namespaced_job, NAMESPACE, **chosen):
        if event["object"].status.conditions:
            return event["object"]
    raise AssertionError(f"{name} has not ended after {timeout_s} s")


def pods_of(api: client.ApiClient, job: str) -> list[Any]:
    return client.CoreV1Api(api).list_namespaced_pod(NAMESPACE, label_selector=f"job-name={job}").items


def until(done: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := done()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


# The double as a process


def test_a_double_that_is_killed_takes_its_pods_along_and_the_next_one_knows_what_was_wanted(
    cloud: ComputeCloud, tmp_path: Path
) -> None:
    files, (port,) = credentials.SecretFiles(tmp_path / "secrets"), free_ports(1)
    token = files.write("token", cloud.config.credentials["token"].reveal())
    double = kubernetes_api(port, tmp_path / "data", tmp_path / "log", token)
    double.start().wait_ready()
    try:
        trainer = open_trainer(
            replace(cloud.config, endpoints={**cloud.config.endpoints, "training": f"http://{HOST}:{port}"})
        )
        script = "import os, time\nprint(os.getpid())\ntime.sleep(60)"
        job_id = trainer.submit(spec_of(tmp_path / "code", script))
        pid = int(until(lambda: list(trainer.logs(job_id)))[0])
        assert double.pid is not None
        os.kill(double.pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists())
        double.stop()
        double.start().wait_ready()
        status = until(lambda: status if (status := trainer.poll(job_id)).state.ended else None)
        assert (status.state, "preempted" in status.detail) == (RunState.STOPPED, True)
    finally:
        double.stop()


# The API, to the official client


def test_a_job_runs_and_its_log_can_be_read_and_followed(api: client.ApiClient) -> None:
    job = run(api, job_of("talks", ["python3", "-c", "print('one'); print('two')"]))
    assert [(each.type, each.status) for each in job.status.conditions] == [("Complete", "True")]
    (pod,) = pods_of(api, "talks")
    assert (pod.status.phase, pod.spec.node_name) == ("Succeeded", "node-cd-gp-a192-genoa")
    core = client.CoreV1Api(api)
    assert core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE) == "one\ntwo\n"
    assert core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE, tail_lines=1) == "two\n"
    follow = watch.Watch().stream(core.read_namespaced_pod_log, name=pod.metadata.name, namespace=NAMESPACE)
    assert list(follow) == ["one", "two"]
    reasons = [
        each.reason for each in core.list_namespaced_event(NAMESPACE).items if "talks" in each.involved_object.name
    ]
    assert {"Scheduled", "SuccessfulCreate", "CompletionsReached"} <= set(reasons)


def test_a_failed_container_tells_code_and_message_and_the_backoff_limit_holds(api: client.ApiClient) -> None:
    script = "open('/dev/termination-log', 'w').write('no luck'); raise SystemExit(3)"
    job = run(api, job_of("fails", ["python3", "-c", script], backoffLimit=1))
    assert job.status.conditions[-1].reason == "BackoffLimitExceeded"
    pods = pods_of(api, "fails")
    ended = [pod.status.container_statuses[0].state.terminated for pod in pods]
    assert [(each.exit_code, each.message) for each in ended] == [(3, "no luck")] * 2


def test_a_deadline_ends_a_job_with_its_pods(api: client.ApiClient) -> None:
    job = run(api, job_of("late", ["sleep", "60"], pod={"terminationGracePeriodSeconds": 1}, activeDeadlineSeconds=1))
    assert job.status.conditions[-1].reason == "DeadlineExceeded"
    assert pods_of(api, "late") == []


def test_init_containers_volumes_secrets_and_config_maps_reach_the_container(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_secret(
        NAMESPACE, client.V1Secret(metadata=client.V1ObjectMeta(name="key"), string_data={"K": "s"})
    )
    core.create_namespaced_config_map(
        NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="files"), data={"hello.txt": "hello"})
    )
    assert base64.b64decode(core.read_namespaced_secret("key", NAMESPACE).data["K"]) == b"s"
    mounts = [{"name": "work", "mountPath": "/work"}, {"name": "files", "mountPath": "/files"}]
    first = {
        "name": "first",
        "image": "x",
        "command": ["sh", "-c", "cp /files/hello.txt /work/"],
        "volumeMounts": mounts,
    }
    volumes = [{"name": "work", "emptyDir": {}}, {"name": "files", "configMap": {"name": "files"}}]
    manifest = job_of(
        "mounts",
        ["sh", "-c", "cat /work/hello.txt; echo -$(K)-$NAME"],
        pod={"initContainers": [first], "volumes": volumes},
        container={
            "volumeMounts": mounts,
            "envFrom": [{"secretRef": {"name": "key"}}],
            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
        },
    )
    run(api, manifest)
    (pod,) = pods_of(api, "mounts")
    assert core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE) == "hello-s-default\n"


def test_a_pod_waits_for_a_node_with_what_it_asks_for(api: client.ApiClient) -> None:
    batch, core = client.BatchV1Api(api), client.CoreV1Api(api)
    asks = {"resources": {"limits": {"nvidia.com/gpu": "16"}}}
    batch.create_namespaced_job(NAMESPACE, client.V1Job.from_dict(job_of("greedy", ["true"], container=asks)))
    pod = until(lambda: next((pod for pod in pods_of(api, "greedy") if pod.status.conditions), None))
    assert (pod.status.phase, pod.status.conditions[0].reason) == ("Pending", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in pod.status.conditions[0].message
    chosen = f"involvedObject.name={pod.metadata.name}"
    (event,) = core.list_namespaced_event(NAMESPACE, field_selector=chosen).items
    assert (event.type, event.reason) == ("Warning", "FailedScheduling")
    batch.delete_namespaced_job("greedy", NAMESPACE, propagation_policy="Background")
    until(lambda: pods_of(api, "greedy") == [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": {"name": "No_Name"}}, "metadata.name"),
        ({"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}, "restartPolicy"),
        ({"spec": {"template": {"spec": {"containers": []}}}}, "containers: Required value"),
        ({"spec": {"activeDeadlineSeconds": -1}}, "activeDeadlineSeconds"),
    ],
)
def test_a_job_that_may_not_be_is_refused_with_the_field(api: client.ApiClient, change: Any, words: str) -> None:
    from deployments.local.kubernetes_api.objects import merged

    manifest = merged(job_of("wrong", ["true"]), change)
    with pytest.raises(ApiException) as refused:
        client.BatchV1Api(api).create_namespaced_job(NAMESPACE, client.V1Job.from_dict(manifest))
    assert (refused.value.status, words in str(refused.value.body)) == (422, True), refused.value.body


def test_names_versions_and_templates_are_guarded(api: client.ApiClient) -> None:
    batch = client.BatchV1Api(api)
    manifest = job_of("guarded", ["true"])
    run(api, manifest)
    body = client.V1Job.from_dict(manifest)
    for call, status in (
        (lambda: batch.create_namespaced_job(NAMESPACE, body), 409),
        (lambda: batch.read_namespaced_job("nothing", NAMESPACE), 404),
        (lambda: batch.create_namespaced_job("nowhere", body), 404),
        (
            lambda: batch.patch_namespaced_job(
                "guarded", NAMESPACE, {"spec": {"template": {"spec": {"hostname": "x"}}}}
            ),
            422,
        ),
    ):
        with pytest.raises(ApiException) as refused:
            call()
        assert refused.value.status == status
    found = batch.read_namespaced_job("guarded", NAMESPACE)
    batch.patch_namespaced_job("guarded", NAMESPACE, {"metadata": {"annotations": {"a": "b"}}})
    with pytest.raises(ApiException) as stale:
        batch.replace_namespaced_job("guarded", NAMESPACE, found)
    assert (stale.value.status, "has been modified" in str(stale.value.body)) == (409, True)


def test_a_watch_tells_what_came_after_the_version_it_starts_from(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    begin = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    seen: list[tuple[str, str]] = []

    def look() -> None:
        watching = watch.Watch()
        for event in watching.stream(
            core.list_namespaced_config_map, NAMESPACE, resource_version=begin, timeout_seconds=60, label_selector="w=1"
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                watching.stop()

    thread = threading.Thread(target=look)
    thread.start()
    meta = client.V1ObjectMeta(name="watched", labels={"w": "1"})
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta, data={"a": "1"}))
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"a": "2"}})
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="other")))
    core.delete_namespaced_config_map("watched", NAMESPACE)
    thread.join()
    assert seen == [("ADDED", "watched"), ("MODIFIED", "watched"), ("DELETED", "watched")]


def test_a_wrong_token_is_unauthorized(cloud: ComputeCloud) -> None:
    settings = client.Configuration(host=cloud.config.endpoint("training"))
    settings.api_key = {"authorization": "Bearer wrong"}
    with pytest.raises(ApiException) as refused:
        client.CoreV1Api(client.ApiClient(settings)).list_namespaced_pod(NAMESPACE)
    assert refused.value.status == 401


# Faults, in Lintas' terms


@pytest.fixture
def trainer(cloud: ComputeCloud) -> CoreWeaveTrainer:
    return opened(cloud, stockout_after_s="1")


def opened(cloud: ComputeCloud, **options: str) -> CoreWeaveTrainer:
    return open_trainer(replace(cloud.config, options={**cloud.config.options, **options}))


def spec_of(folder: Path, script: str, **more: Any) -> JobSpec:
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(script)
    data = DatasetURI("coreweave", "twin-raw", "rows")
    return JobSpec(
        "twin",
        ("python", "main.py"),
        str(folder),
        code_digest(folder),
        data,
        "d" * 64,
        f"run-{folder.parent.name}",
        **more,
    )


def end_of(trainer: CoreWeaveTrainer, job: JobSpec) -> JobStatus:
    job_id = trainer.submit(job)
    return until(lambda: status if (status := trainer.poll(job_id)).state.ended else None)


def test_a_job_without_a_node_is_out_of_stock_and_never_starts_late(
    trainer: CoreWeaveTrainer, tmp_path: Path, faults: Callable[..., None], api: client.ApiClient
) -> None:
    faults({"kind": "stockout", "times": 1})
    job = spec_of(tmp_path / "code", "print(1)", sku=SKU)
    status = end_of(trainer, job)
    assert status.state is RunState.STOCKOUT
    assert "Insufficient nvidia.com/gpu" in status.detail
    until(lambda: pods_of(api, job.job_name) == [])
    assert trainer.poll(trainer.submit(job)).state is RunState.STOCKOUT


def test_a_quota_that_is_used_up_is_a_stockout_at_once_or_when_it_shows(
    trainer: CoreWeaveTrainer, tmp_path: Path, faults: Callable[..., None], api: client.ApiClient
) -> None:
    faults({"kind": "quota", "times": 1})
    with pytest.raises(Stockout, match="exceeded quota"):
        trainer.submit(spec_of(tmp_path / "code", "print(1)"))
    core = client.CoreV1Api(api)
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": "4"}}}
    core.create_namespaced_resource_quota(NAMESPACE, client.V1ResourceQuota.from_dict(quota))
    try:
        status = end_of(trainer, spec_of(tmp_path / "code", "print(2)", sku=SKU))
    finally:
        core.delete_namespaced_resource_quota("gpus", NAMESPACE)
    assert status.state is RunState.STOCKOUT
    assert "a quota is used up" in status.detail


def test_an_image_that_cannot_be_pulled_is_the_user_s_error(cloud: ComputeCloud, tmp_path: Path) -> None:
    trainer = opened(cloud, image="registry.invalid/train:1")
    status = end_of(trainer, spec_of(tmp_path / "code", "print(1)"))
    assert status.state is RunState.FAILED
    assert "'registry.invalid/train:1' cannot be pulled" in status.detail


def test_a_preempted_job_is_stopped_with_notice_and_the_next_attempt_goes_on(
    trainer: CoreWeaveTrainer, tmp_path: Path, faults: Callable[..., None]
) -> None:
    faults({"kind": "preempt", "times": 1, "after_line": "wrote"})
    script = (
        "import os, pathlib, time\n"
        "state = pathlib.Path(os.environ['LINTAS_CHECKPOINT_DIR']) / 'step'\n"
        "print('from', state.read_text() if state.exists() else 0)\n"
        "if not state.exists():\n"
        "    state.write_text('7')\n"
        "    print('wrote')\n"
        "    time.sleep(60)\n"
    )
    job = spec_of(tmp_path / "code", script, spot=True, sku="cd-gp-i96-icelake")
    first = end_of(trainer, job)
    assert first.state is RunState.STOPPED
    assert "preempted" in first.detail
    second = end_of(trainer, job.next_attempt())
    assert second.state is RunState.SUCCEEDED
    assert list(trainer.logs(second.job_id)) == ["from 7"]


def test_a_spot_job_without_a_label_for_spot_nodes_is_refused(cloud: ComputeCloud, tmp_path: Path) -> None:
    trainer = opened(cloud, spot_node_label="")
    with pytest.raises(Invalid, match="spot_node_label is missing"):
        trainer.submit(spec_of(tmp_path / "code", "print(1)", spot=True))


def test_a_crash_is_a_failure_and_lost_logs_are_read_from_object_storage(
    trainer: CoreWeaveTrainer, tmp_path: Path, faults: Callable[..., None]
) -> None:
    faults({"kind": "crash", "times": 1, "delay_s": 0.5})
    status = end_of(trainer, spec_of(tmp_path / "code", "import time\ntime.sleep(60)"))
    assert (status.state, status.exit_code) == (RunState.FAILED, -9)
    faults({"kind": "lost_logs"})
    ended = end_of(trainer, spec_of(tmp_path / "other", "print('kept')"))
    assert list(trainer.logs(ended.job_id)) == ["kept"]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"kind": "throttle"}, Retryable, "cannot answer now"),
        ({"kind": "error", "status": 500}, Retryable, "cannot answer now"),
        ({"kind": "error", "status": 403}, Denied, "does not permit"),
        ({"kind": "error", "status": 418}, LintasError, "answers 418"),
        ({"kind": "cut"}, Retryable, "does not answer"),
        ({"kind": "lost"}, Retryable, "does not answer"),
    ],
)
def test_every_trouble_of_the_wire_becomes_the_class_that_says_what_to_do(
    trainer: CoreWeaveTrainer, faults: Callable[..., None], fault: Any, kind: type[LintasError], words: str
) -> None:
    faults(fault)
    with pytest.raises(kind, match=words) as caught:
        trainer.poll("twin-0000000000000000")
    assert not isinstance(caught.value, NotFound)
    if fault["kind"] == "throttle":
        assert isinstance(caught.value, Retryable)
        assert caught.value.retry_after_s == 1


def test_what_is_no_kubernetes_is_named(cloud: ComputeCloud) -> None:
    trainer = open_trainer(replace(cloud.config, endpoints={"training": cloud.config.endpoint("objects")}))
    with pytest.raises(LintasError, match="coreweave"):
        trainer.poll("twin-0000000000000000")


# Serving in trouble


def test_an_endpoint_without_a_node_says_so_and_goes_away_when_it_is_deleted(
    cloud: ComputeCloud, tmp_path: Path, faults: Callable[..., None], api: client.ApiClient
) -> None:
    # Nothing is ever loaded: the pod does not come so far.
    (tmp_path / "MLmodel").write_text("signature:\n  inputs: '[]'\n")
    spec = EndpointSpec("nodeless", "nodeless", "1", model_digest(tmp_path), str(tmp_path))
    server = open_server(cloud.config)
    faults({"kind": "stockout"})
    assert server.deploy(spec).healthy is False
    seen = until(lambda: found if (found := server.describe("nodeless")) and "no node" in found.detail else None)
    assert (seen.healthy, seen.digest, "Insufficient nvidia.com/gpu" in seen.detail) == (False, "", True)
    with pytest.raises(Retryable, match="no endpoints available"):
        server.predict("nodeless", b"{}")
    server.delete("nodeless")
    assert server.describe("nodeless") is None
    chosen = "lintas/endpoint=nodeless"
    until(lambda: client.CoreV1Api(api).list_namespaced_pod(NAMESPACE, label_selector=chosen).items == [])


def test_a_slow_start_is_starting_until_it_runs(
    trainer: CoreWeaveTrainer, tmp_path: Path, faults: Callable[..., None]
) -> None:
    faults({"kind": "slow_start", "times": 1, "delay_s": 1.0})
    job_id = trainer.submit(spec_of(tmp_path / "code", "print('late')"))
    states: list[RunState] = []
    until(lambda: states.append(trainer.poll(job_id).state) or states[-1].ended)
    assert states[-1] is RunState.SUCCEEDED
    assert RunState.STARTING in states
