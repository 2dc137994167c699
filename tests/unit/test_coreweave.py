"""What CoreWeave's trainer makes of Kubernetes' words, and what it asks Kubernetes for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Denied, Invalid
from tasks.core.release import EndpointSpec
from tasks.core.training import JobSpec, RunState, code_digest
from tasks.providers.coreweave.pods import Pods, read_catalog
from tasks.providers.coreweave.server import CoreWeaveServer
from tasks.providers.coreweave.states import ENDED_BY, Judgement, judge
from tasks.providers.coreweave.trainer import CoreWeaveTrainer, open_trainer

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BEGAN = "2026-11-23T11:59:00Z"
PATIENCE_S = 300.0


def job(*conditions: tuple[str, str], suspend: bool = False, ended_by: str = "") -> dict[str, Any]:
    told = [
        {"type": kind, "status": "True", "reason": reason, "message": f"job {reason}"} for kind, reason in conditions
    ]
    notes = {ENDED_BY: ended_by} if ended_by else None
    meta = {"name": "j", "creationTimestamp": BEGAN, "annotations": notes}
    return {"metadata": meta, "spec": {"suspend": suspend}, "status": {"conditions": told}}


def pod(
    state: dict[str, Any] | None = None,
    *,
    unschedulable: str = "",
    disrupted: bool = False,
    init: dict[str, Any] | None = None,
    reason: str = "",
) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = [{"type": "PodScheduled", "status": "True"}]
    if unschedulable:
        conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}]
    if disrupted:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"})
    status: dict[str, Any] = {"conditions": conditions, "reason": reason}
    if state is not None:
        status["containerStatuses"] = [{"name": "train", "image": "img", "state": state}]
    if init is not None:
        status["initContainerStatuses"] = [{"name": "fetch", "image": "img", "state": init}]
    return {"metadata": {"name": "p", "creationTimestamp": BEGAN}, "status": status}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    moments = {"startedAt": BEGAN, "finishedAt": "2026-11-23T11:59:30Z"}
    return {"terminated": {"exitCode": code, "message": message, "reason": reason, **moments}}


def judged(the_job: dict[str, Any], *pods: dict[str, Any], after_s: float = 60, events: Any = ()) -> Judgement:
    now = datetime.fromisoformat(BEGAN) + timedelta(seconds=after_s)
    return judge(the_job, pods, events, now=now, stockout_after_s=PATIENCE_S)


NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
RUNNING = {"running": {"startedAt": BEGAN}}
FAILED = ("Failed", "BackoffLimitExceeded")


@pytest.mark.parametrize(
    ("the_job", "pods", "state", "exit_code", "words"),
    [
        (job(), [], RunState.QUEUED, None, ""),
        (job(suspend=True), [], RunState.QUEUED, None, "not admitted by its queue: no word of Kueue"),
        (job(), [pod(unschedulable=NO_GPU)], RunState.QUEUED, None, "Insufficient nvidia.com/gpu"),
        (job(), [pod(init=RUNNING)], RunState.STARTING, None, ""),
        (job(), [pod({"waiting": {"reason": "PodInitializing"}})], RunState.STARTING, None, ""),
        (job(), [pod(RUNNING)], RunState.RUNNING, None, ""),
        (job(("Complete", "")), [pod(ended(0))], RunState.SUCCEEDED, 0, ""),
        (job(("Complete", "")), [], RunState.SUCCEEDED, 0, ""),
        (job(FAILED), [pod(ended(3, "the command ended with code 3"))], RunState.FAILED, 3, "ended with code 3"),
        (job(FAILED), [pod(ended(137))], RunState.FAILED, -9, "code -9"),
        (job(FAILED), [pod(ended(137, reason="OOMKilled"))], RunState.FAILED, 137, "more memory"),
        (job(FAILED), [pod(ended(124, "stopped after its timeout of 5 s"))], RunState.STOPPED, 124, "timeout of 5 s"),
        (job(FAILED), [pod(ended(75, "could not be stored"))], RunState.FAILED, 75, "could not be stored"),
        (job(FAILED), [pod(init=ended(75))], RunState.FAILED, None, "could not be fetched"),
        (job(FAILED), [], RunState.FAILED, None, "job BackoffLimitExceeded"),
        (job(("Failed", "DeadlineExceeded")), [], RunState.STOPPED, None, "timeout"),
        (job(FAILED), [pod(ended(137), reason="DeadlineExceeded")], RunState.STOPPED, 137, "timeout"),
        (job(("Failed", "PodFailurePolicy")), [], RunState.STOPPED, None, "preempted"),
        (job(FAILED), [pod(ended(143), disrupted=True)], RunState.STOPPED, 143, "preempted"),
        (job(ended_by="cancelled"), [pod(RUNNING)], RunState.RUNNING, None, "stopping"),
        (job(ended_by="cancelled", suspend=True), [], RunState.STOPPED, None, "cancelled"),
        (job(("Failed", "DeadlineExceeded"), ended_by="cancelled"), [], RunState.STOPPED, None, "cancelled"),
        (job(ended_by=f"no capacity: {NO_GPU}"), [pod(RUNNING)], RunState.STOCKOUT, None, "Insufficient"),
        (job(("Failed", "DeadlineExceeded"), ended_by="refused: no image"), [], RunState.FAILED, None, "no image"),
    ],
)
def test_each_word_of_kubernetes_is_a_state(
    the_job: dict[str, Any], pods: list[dict[str, Any]], state: RunState, exit_code: int | None, words: str
) -> None:
    status = judged(the_job, *pods).status
    assert (status.state, status.exit_code) == (state, exit_code)
    assert words in status.detail


def test_what_waits_too_long_for_a_node_is_given_up_and_nothing_sooner() -> None:
    waiting = pod(unschedulable=NO_GPU)
    assert judged(job(), waiting, after_s=PATIENCE_S - 1).give_up == ""
    late = judged(job(), waiting, after_s=PATIENCE_S + 1)
    assert late.status.state is RunState.STOCKOUT
    assert judged(job(ended_by=late.give_up), waiting).status.state is RunState.STOCKOUT


def test_a_quota_that_keeps_the_pod_from_being_made_is_a_stockout() -> None:
    refusal = {"reason": "FailedCreate", "message": 'pods "j-x" is forbidden: exceeded quota: gpus'}
    assert judged(job(), after_s=10, events=[refusal]).status.state is RunState.QUEUED
    late = judged(job(), after_s=PATIENCE_S + 1, events=[refusal])
    assert (late.status.state, "a quota is used up" in late.status.detail) == (RunState.STOCKOUT, True)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_had_fails_the_job(reason: str) -> None:
    found = judged(job(), pod({"waiting": {"reason": reason}}))
    assert found.status.state is RunState.FAILED
    assert found.give_up
    assert "'img' cannot be pulled" in found.status.detail


def test_time_is_counted_from_start_to_end_and_never_zero_once_begun() -> None:
    assert judged(job(FAILED), pod(ended(1))).status.running_s == 30
    assert judged(job(), pod(RUNNING), after_s=0).status.running_s == 1
    assert judged(job(), pod(unschedulable=NO_GPU)).status.running_s == 0


def cloud(**options: str) -> CloudConfig:
    secrets = {
        name: Secret(f"test:{name}", lambda _: "canary") for name in ("access_key_id", "secret_access_key", "token")
    }
    basic = {"image": "python:3.11", "serving_image": "mlflow", "bucket": "work"}
    return CloudConfig("cw", "coreweave", region="R", credentials=secrets, options={**basic, **options})


def training_manifest(folder: Path, *, sku: str = "", spot: bool = False, **options: str) -> dict[str, Any]:
    (folder / "main.py").write_text("pass")
    data = DatasetURI("cw", "raw", "rows")
    spec = JobSpec("probe", ("python", "main.py"), str(folder), code_digest(folder), data, "d", "r", sku=sku, spot=spot)
    trainer = CoreWeaveTrainer(Pods(cloud(**options), read_catalog()), None)  # type: ignore[arg-type]
    return trainer._manifest(spec, "courier")


def serving_manifest() -> dict[str, Any]:
    server = CoreWeaveServer(Pods(cloud(serving_instance_type="cd-gp-i96-icelake"), read_catalog()), None)  # type: ignore[arg-type]
    return server._deployment(EndpointSpec("flights", "flights", "3", "d" * 64, "/m"), "k", "s" * 64, "courier")


def test_manifests_hold_nothing_that_kubernetes_does_not_know(tmp_path: Path) -> None:
    pods = Pods(cloud(), read_catalog())
    for model, manifest in (
        (
            client.V1Job,
            training_manifest(tmp_path, sku="gd-8xh100ib-i128", spot=True, spot_node_label="a=b", queue="q"),
        ),
        (client.V1Job, training_manifest(tmp_path)),
        (client.V1Deployment, serving_manifest()),
        (client.V1ConfigMap, pods.courier()),
        (client.V1Secret, pods.keys()),
    ):
        # A field that the official schema does not have is lost on the way through its model.
        kept = client.ApiClient().sanitize_for_serialization(model.from_dict(manifest))
        assert json.loads(json.dumps(kept)) == manifest


def test_a_job_has_its_machine_to_itself_and_is_tried_once(tmp_path: Path) -> None:
    manifest = training_manifest(tmp_path, sku="gd-8xh100ib-i128", spot_node_label="pool=spot", queue="research")
    spec = manifest["spec"]
    template = spec["template"]["spec"]
    assert (spec["backoffLimit"], template["restartPolicy"], spec["suspend"]) == (0, "Never", True)
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert template["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    terms = template["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"] == [
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["gd-8xh100ib-i128"]},
        {"key": "pool", "operator": "NotIn", "values": ["spot"]},
    ]
    assert "suspend" not in training_manifest(tmp_path)["spec"]
    with pytest.raises(Invalid, match="no instance type"):
        training_manifest(tmp_path, sku="p5.48xlarge")


def test_no_manifest_but_the_secret_holds_a_key(tmp_path: Path) -> None:
    assert "canary" not in json.dumps([training_manifest(tmp_path), serving_manifest()])
    assert "canary" not in repr(Pods(cloud(), read_catalog()))


def test_pods_read_through_the_cache_unless_the_configuration_says_otherwise() -> None:
    def endpoint(config: CloudConfig) -> str:
        return Pods(config, read_catalog()).with_keys()["env"][0]["value"]

    assert endpoint(cloud()) == "http://cwlota.com"
    assert endpoint(cloud(objects_in_cluster="http://store")) == "http://store"


def test_a_configuration_without_a_cluster_is_named() -> None:
    with pytest.raises(Invalid, match=r"clouds\.cw\.endpoints\.training is missing"):
        open_trainer(cloud())

    def nowhere(reference: str) -> str:
        raise Denied(f"the secret {reference} is missing", "set it")

    broken = Secret("env:KUBECONFIG_TEXT", lambda _: "clusters: [")
    for secret, kind in ((broken, Invalid), (Secret("env:X", nowhere), Denied)):
        with pytest.raises(kind):
            open_trainer(CloudConfig("cw", "coreweave", credentials={"kubeconfig": secret}))
