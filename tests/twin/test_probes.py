"""What `lintas doctor --cloud` sees of an account: each permission by name, by calls that change nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from deployments.local.faults import put_faults
from deployments.local.object_stores import console_script
from tasks.core.cloud import CloudConfig, Probe, Unseen
from tasks.core.errors import Denied, LintasError, NotFound, Stockout
from tasks.registry import providers
from tests.command import lintas
from tests.compute_clouds import TRAINING_CLOUDS, WORK_BUCKET, ComputeCloud, ComputeClouds
from tests.servers import ObjectClouds, Vault, rclone_environment

UNSEEN = {
    # Quotas are none of the twin's, and nothing that only reads shows what may be written to CoreWeave's S3.
    "aws": {"servicequotas:ListServiceQuotas"},
    "azure": {"Microsoft.MachineLearningServices/locations/usages/read"},
    "coreweave": {"s3:PutObject", "s3:DeleteObject"},
    "google": set[str](),
}
FIRST = {
    "aws": "sts:GetCallerIdentity",
    "azure": "Microsoft.MachineLearningServices/workspaces/read",
    "coreweave": "create jobs.batch",
    "google": "aiplatform.locations.get",
}
ML = "Microsoft.MachineLearningServices/workspaces"


@pytest.fixture(scope="module")
def compute_clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeClouds]:
    """Clouds of these tests' own: on shared ones the jobs and endpoints of earlier tests may still write."""
    folder = tmp_path_factory.mktemp("probed")
    with ExitStack() as running:
        yield ComputeClouds(folder / "compute", ObjectClouds(folder / "objects", running), running)


@pytest.fixture(scope="module", params=TRAINING_CLOUDS)
def cloud(request: pytest.FixtureRequest, compute_clouds: ComputeClouds) -> ComputeCloud:
    return ready(compute_clouds, request.param)


def ready(compute_clouds: ComputeClouds, name: str) -> ComputeCloud:
    """The cloud with a work bucket that holds an object."""
    found = compute_clouds[name]
    store = providers()[name].open_store(found.config, WORK_BUCKET)
    store.create_bucket()
    store.put("for-the-doctor", [b"x"], size_bytes=1)
    return found


@pytest.fixture
def denied(compute_clouds: ComputeClouds) -> Iterator[Callable[[str, str], CloudConfig]]:
    """Takes a permission away from a cloud for the length of a test."""
    urls: list[str] = []

    def deny(name: str, operation: str) -> CloudConfig:
        config = ready(compute_clouds, name).config
        urls.append(config.endpoint("training"))
        put_faults(urls[-1], [{"kind": "deny", "operation": operation}])
        return config

    yield deny
    for url in urls:
        put_faults(url, [])


def probes_of(config: CloudConfig) -> list[Probe]:
    provider = providers()[config.provider]
    assert provider.probes is not None
    return list(provider.probes(config, trains=provider.can_train(config)))


def outcome(probe: Probe) -> str:
    """`allowed`, `missing`, `unseen`, or what went wrong."""
    try:
        said = probe.look()
    except NotFound:
        return "allowed"
    except Denied:
        return "missing"
    except Unseen:
        return "unseen"
    except LintasError as error:
        return str(error)
    assert said
    assert "\n" not in said
    return "allowed"


def outcomes(config: CloudConfig) -> dict[str, set[str]]:
    """The permissions by outcome."""
    found: dict[str, set[str]] = {}
    for probe in probes_of(config):
        found.setdefault(outcome(probe), set()).add(probe.permission)
    return found


def everything_in(cloud: ComputeCloud) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """What an independent client lists in the object store, and every file behind the training service."""
    command = [console_script("rclone"), "lsf", "-R", "--format", "pst", f"{cloud.config.name}:"]
    environment = dict(rclone_environment(cloud.config))
    listed = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60).stdout
    files = {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in cloud.disks.rglob("*") if path.is_file()
    }
    return listed, files


def doctor(config: CloudConfig, folder: Path) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Runs `lintas doctor --cloud`: its exit code, its checks by name, and all that it wrote."""
    secrets = {f"PROBED_{key}".upper(): secret.reveal() for key, secret in config.credentials.items()}
    described = {
        "provider": config.provider,
        "region": config.region,
        "jurisdiction": config.jurisdiction,
        "endpoints": dict(config.endpoints),
        "credentials": {key: f"env:PROBED_{key.upper()}" for key in config.credentials},
        "options": dict(config.options),
    }
    path = folder / "lintas.yaml"
    keys = {"signing_key": "env:UNUSED", "pseudonym_key": "env:UNUSED"}
    path.write_text(yaml.safe_dump({"clouds": {config.name: described}, "gate": keys, "state_dir": str(folder)}))
    environment = {**os.environ, **secrets, "LINTAS_CONFIG": str(path)}
    done = lintas("doctor", "--cloud", config.name, "--json", env=environment, timeout_s=120)
    written = done.stdout + done.stderr
    assert not [name for name, secret in secrets.items() if secret in written]
    return done.returncode, {each["what"]: each for each in json.loads(done.stdout)["checks"]}, written


def test_with_the_right_credentials_every_permission_is_seen_or_said_to_be_unseen(cloud: ComputeCloud) -> None:
    found = outcomes(cloud.config)
    assert set(found) <= {"allowed", "unseen"}, found
    assert found.get("unseen", set()) == UNSEEN[cloud.config.name]


def test_looking_changes_nothing(cloud: ComputeCloud) -> None:
    before = everything_in(cloud)
    assert b"for-the-doctor" in before[0]
    outcomes(cloud.config)
    assert everything_in(cloud) == before


def test_kubernetes_has_seen_no_change_when_the_doctor_is_gone(compute_clouds: ComputeClouds) -> None:
    from tasks.providers._dialects.kubernetes import open_cluster

    config = ready(compute_clouds, "coreweave").config
    cluster = open_cluster(config, "training")
    before = {kind: cluster.list(kind) for kind in ("Job", "Deployment", "Service", "Secret", "ConfigMap", "Event")}
    outcomes(config)
    assert {kind: cluster.list(kind) for kind in before} == before


def test_the_command_says_ok_and_shows_no_secret(cloud: ComputeCloud, tmp_path: Path) -> None:
    code, checks, written = doctor(cloud.config, tmp_path)
    assert code == 0, written
    assert all(check["ok"] for check in checks.values())
    unseen = {what.partition(" (for ")[0] for what, check in checks.items() if not check["seen"]}
    assert unseen == UNSEEN[cloud.config.name]


def test_wrong_credentials_are_exit_6_with_the_permission_by_name(cloud: ComputeCloud, tmp_path: Path) -> None:
    code, checks, written = doctor(cloud.wrong, tmp_path)
    assert code == 6, written
    permission = FIRST[cloud.config.name]
    (check,) = (check for what, check in checks.items() if what.startswith(f"{permission} (for "))
    assert not check["ok"]
    assert f"the permission {permission} is missing" in check["detail"]
    assert "Traceback" not in written


@pytest.mark.parametrize(
    ("name", "operation", "missing"),
    [
        ("aws", "sagemaker:DescribeTrainingJob", {"sagemaker:DescribeTrainingJob"}),
        ("aws", "logs:GetLogEvents", {"logs:GetLogEvents"}),
        ("aws", "sagemaker:ListEndpointConfigs", {"sagemaker:ListEndpointConfigs"}),
        ("aws", "sagemaker:CreateTrainingJob", {"sagemaker:CreateTrainingJob"}),
        ("aws", "iam:PassRole", {"iam:PassRole on role_arn"}),
        ("azure", f"{ML}/jobs/read", {f"{ML}/jobs/read"}),
        ("azure", f"{ML}/jobs/write", {f"{ML}/jobs/write"}),
        ("azure", f"{ML}/onlineEndpoints/score/action", {f"{ML}/onlineEndpoints/score/action"}),
        ("azure", f"{ML}/experiments/runs/read", {f"{ML}/experiments/runs/read"}),
        ("coreweave", "create jobs.batch", {"create jobs.batch"}),
        ("coreweave", "get pods/log", {"get pods/log"}),
        ("coreweave", "create services/proxy", {"create services/proxy"}),
        ("google", "aiplatform.customJobs.create", {"aiplatform.customJobs.create"}),
        ("google", "aiplatform.endpoints.predict", {"aiplatform.endpoints.predict"}),
        ("google", "GET /v1/*/customJobs", {"aiplatform.customJobs.list"}),
        ("google", "POST /v2/entries:list", {"logging.logEntries.list"}),
    ],
)
def test_the_one_permission_that_is_not_granted_is_the_one_that_is_named(
    denied: Callable[[str, str], CloudConfig], name: str, operation: str, missing: set[str]
) -> None:
    found = outcomes(denied(name, operation))
    assert found.get("missing") == missing
    assert set(found) <= {"allowed", "missing", "unseen"}, found


PULLING = {
    "aws": {"pull_from_azure": "arn", "pull_role": "arn:aws:iam::123456789012:role/lintas-datasync"},
    "google": {"pull_from_aws": "projects/1/secrets/lintas-aws"},
}


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("aws", "datasync:CreateLocationAzureBlob"),
        ("aws", "datasync:StartTaskExecution"),
        ("google", "storagetransfer.jobs.create"),
        ("google", "storagetransfer.operations.cancel"),
    ],
)
def test_what_a_pulling_service_needs_is_asked_where_it_may_pull(
    denied: Callable[[str, str], CloudConfig], name: str, operation: str
) -> None:
    config = denied(name, operation)
    pulling = replace(config, options={**config.options, "pulls": "true", **PULLING[name]})
    asked = {probe.permission for probe in probes_of(pulling) if probe.needed_for == "pulls"}
    assert outcomes(pulling).get("missing") == {operation}
    assert operation in asked
    assert not any(probe.needed_for == "pulls" for probe in probes_of(config))
    off = replace(pulling, options={**pulling.options, "pulls": "false"})
    assert not any(probe.needed_for == "pulls" for probe in probes_of(off))


@pytest.mark.parametrize(
    ("name", "operation", "hidden", "seen"),
    [
        # The policy simulator is not Lintas' own need: without it writing is not seen, and not called missing.
        ("aws", "iam:SimulatePrincipalPolicy", "sagemaker:CreateModel", "sagemaker:DescribeModel"),
        # A bucket may have a policy of its own.
        ("aws", "s3:PutObject", "s3:PutObject", "s3:GetObject"),
        ("google", "serviceusage.quotas.get", "serviceusage.quotas.get", "aiplatform.customJobs.create"),
        ("coreweave", "list resourcequotas", "list resourcequotas", "create jobs.batch"),
    ],
)
def test_what_cannot_be_told_is_not_called_missing(
    denied: Callable[[str, str], CloudConfig], name: str, operation: str, hidden: str, seen: str
) -> None:
    found = outcomes(denied(name, operation))
    assert "missing" not in found
    assert hidden in found["unseen"]
    assert seen in found["allowed"]


def quotas_of(config: CloudConfig) -> str:
    """What the doctor sees of Google's quotas."""
    (probe,) = (probe for probe in probes_of(config) if probe.permission == "serviceusage.quotas.get")
    return probe.look()


def test_google_s_quotas_are_told_for_the_region_with_its_accelerators(compute_clouds: ComputeClouds) -> None:
    config = compute_clouds["google"].config
    assert quotas_of(config) == (
        "3 of 4 training quotas in europe-west4 are not 0; accelerators: nvidia_h100_gpus 8, tpu_v5e unlimited"
    )
    assert quotas_of(replace(config, region="us-central1")) == (
        "1 of 4 training quotas in us-central1 are not 0; accelerators: none; also in europe-west4"
    )


def test_a_google_project_without_any_quota_of_training_is_out_of_stock(compute_clouds: ComputeClouds) -> None:
    config = compute_clouds["google"].config
    put_faults(config.endpoint("training"), [{"kind": "quota", "operation": "consumerQuotaMetrics.list"}])
    try:
        with pytest.raises(Stockout, match="every quota of 'google' for custom jobs in europe-west4 is 0"):
            quotas_of(config)
    finally:
        put_faults(config.endpoint("training"), [])


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("aiplatform.googleapis.com/consumerQuotaMetrics?view=ALL", 400, "Invalid value at 'view'"),
        ("aiplatform.googleapis.com/consumerQuotaMetrics?filter=x", 400, 'Unknown name "filter"'),
        ("aiplatform.googleapis.com/consumerQuotaMetrics?pageToken=999", 400, "invalid argument"),
        ("compute.googleapis.com/consumerQuotaMetrics", 404, "is not found"),
    ],
)
def test_the_double_of_service_usage_refuses_what_the_api_does_not_know(
    compute_clouds: ComputeClouds, path: str, status: int, words: str
) -> None:
    cloud = compute_clouds["google"]
    url = f"{cloud.config.endpoint('identity')}/v1beta1/projects/{cloud.config.option('project')}/services/{path}"
    answer = requests.get(url, headers=dict(cloud.headers(url, b"")), timeout=20)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_a_work_bucket_that_is_not_there_yet_shows_nothing_and_hides_nothing(cloud: ComputeCloud) -> None:
    found = outcomes(replace(cloud.config, options={**cloud.config.options, "bucket": "not-there-yet"}))
    assert set(found) <= {"allowed", "unseen"}, found
    assert found["unseen"] > UNSEEN[cloud.config.name]


def test_a_cloud_that_is_set_up_for_objects_alone_is_asked_for_nothing_else(object_clouds: ObjectClouds) -> None:
    for name in TRAINING_CLOUDS:
        config = replace(object_clouds[name], options={**object_clouds[name].options, "bucket": WORK_BUCKET})
        needs = {probe.needed_for for probe in probes_of(config)}
        assert "objects" in needs
        assert needs <= {"objects", "everything"}


def test_a_cloud_that_is_gone_is_unreachable_and_no_permission_is_called_missing(compute_clouds: ComputeClouds) -> None:
    config = ready(compute_clouds, "coreweave").config
    gone = replace(config, endpoints={**config.endpoints, "training": "http://127.0.0.1:9"})
    (probe,) = (probe for probe in probes_of(gone) if probe.permission == "create jobs.batch")
    assert "does not answer" in outcome(probe)


@pytest.mark.parametrize(
    ("signature", "writing", "deleting"),
    [
        ("sv=2024-11-04&sp=rl&sig=canary", "missing", "missing"),
        ("?sv=2024-11-04&sp=rwl&sig=canary", "allowed", "missing"),
        ("sp=rcdl&sig=canary", "allowed", "allowed"),
        ("si=stored-policy&sig=canary", "unseen", "unseen"),
    ],
)
def test_a_shared_access_signature_says_itself_what_it_allows(signature: str, writing: str, deleting: str) -> None:
    secret = Vault().secret("sas", signature)
    config = CloudConfig(
        "azure", "azure", credentials={"sas_token": secret}, options={"account": "a", "bucket": "lintas-work"}
    )
    by_name = {
        probe.permission.rpartition("/")[2]: probe for probe in probes_of(config) if "/blobs/" in probe.permission
    }
    assert (outcome(by_name["write"]), outcome(by_name["delete"])) == (writing, deleting)
