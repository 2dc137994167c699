"""The double of Azure ML, driven by Microsoft's own client (azure-ai-ml), which Lintas does not need to run.

Lintas speaks to Resource Manager through azure-core (docs/decisions/0011-azure-arm.md); these tests hold the double
against the official package. They are skipped where it is not installed.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.local.azure_ml.process import azure_ml, workspace_id
from deployments.local.ports import free_ports
from tasks.core.cloud import CloudConfig
from tasks.providers.azure.store import open_store
from tests.compute_clouds import ComputeClouds

ml: Any = pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed")


def self_signed(path: Path) -> Path:
    """A certificate with its key for 127.0.0.1: the official client speaks TLS only."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + plain)
    return path


class Given:
    """A credential that was fetched already."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *_: Any, **__: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken(self.token, int(time.time()) + 3600)


@pytest.fixture(scope="module")
def cloud(compute_clouds: ComputeClouds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudConfig]:
    plain, directory, (port,) = compute_clouds["azure"].config, tmp_path_factory.mktemp("tls"), free_ports(1)
    for name in ("token", "account_key"):
        (directory / name).write_text(plain.credentials[name].reveal())
    process = azure_ml(
        port,
        directory / "azure-ml",
        directory / "azure-ml.log",
        workspace=workspace_id(plain.options),
        region=plain.region,
        account=plain.option("account"),
        blob_url=plain.endpoint("objects"),
        secrets={"token": directory / "token", "account-key": directory / "account_key"},
        certificate=self_signed(directory / "tls.pem"),
    )
    url = f"https://127.0.0.1:{port}"
    with ExitStack() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(directory / "tls.pem"))
        running.callback(process.stop)
        process.start().wait_ready()
        yield replace(plain, endpoints={**plain.endpoints, "training": url, "serving": url})


@pytest.fixture(scope="module")
def client(cloud: CloudConfig) -> Any:
    url = f"{cloud.endpoint('training')}/"
    metadata = {
        "resource_manager": url,
        "active_directory": url,
        "aml_resource_id": "https://ml.azure.com/",
        "storage_endpoint": "core.windows.net",
        "registry_discovery_endpoint": url,
        "azure_portal": url,
    }
    names = (cloud.option(name) for name in ("subscription", "resource_group", "workspace"))
    credential = Given(cloud.credentials["token"].reveal())
    return ml.MLClient(credential, *names, cloud="twin", cloud_metadata=metadata, enable_telemetry=False)


def test_a_job_of_the_official_client_runs_and_its_log_is_streamed(client, cloud, capfd):
    store = open_store(cloud, "official")
    store.create_bucket()
    store.put("flights/rows.txt", [b"one\ntwo\n"], size_bytes=8)
    folder = f"wasbs://official@{cloud.option('account')}.blob.core.windows.net"
    job = ml.command(
        name=f"official-{time.time_ns()}",
        # The client prints no log of a job that has ended before it looks.
        command="sleep 3; wc -l < ${{inputs.data}}/rows.txt | tee ${{outputs.count}}/count.txt",
        inputs={"data": ml.Input(type="uri_folder", path=f"{folder}/flights/")},
        outputs={"count": ml.Output(type="uri_folder", path=f"{folder}/counts/")},
        environment="azureml:lintas-training:1",
        resources={"instance_type": "Standard_D4s_v5", "instance_count": 1},
        queue_settings={"job_tier": "Spot"},
    )
    environment = ml.entities.Environment(name="lintas-training", version="1", image="python:3.11")
    client.environments.create_or_update(environment)
    made = client.jobs.create_or_update(job)
    assert (made.name, made.queue_settings.job_tier.lower()) == (job.name, "spot")
    client.jobs.stream(made.name)
    assert "2\n" in capfd.readouterr().out
    assert client.jobs.get(made.name).status == "Completed"
    assert b"".join(store.get("counts/count.txt")).strip() == b"2"
    assert made.name in {each.name for each in client.jobs.list()}


def test_a_job_is_cancelled_by_the_official_client(client):
    job = ml.command(name=f"official-{time.time_ns()}", command="sleep 60", environment="azureml:lintas-training:1")
    made = client.jobs.create_or_update(job)
    client.jobs.begin_cancel(made.name).result()
    assert client.jobs.get(made.name).status == "Canceled"


def test_a_model_is_registered_deployed_asked_and_removed_by_the_official_client(client, cloud, tmp_path):
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    frame = pd.DataFrame({"x": [0.0, 1.0]})
    fitted = LinearRegression().fit(frame, [1.0, 3.0])
    signature = infer_signature(frame, fitted.predict(frame))
    mlflow.sklearn.save_model(fitted, tmp_path / "model", signature=signature, pip_requirements=["scikit-learn"])
    store = open_store(cloud, "official")
    store.create_bucket()
    for file in (path for path in (tmp_path / "model").rglob("*") if path.is_file()):
        key = f"model/{file.relative_to(tmp_path / 'model').as_posix()}"
        store.put(key, [file.read_bytes()], size_bytes=file.stat().st_size)
    uri = f"wasbs://official@{cloud.option('account')}.blob.core.windows.net/model/"
    model = client.models.create_or_update(
        ml.entities.Model(name="official", version="1", path=uri, type="custom_model")
    )
    environment = ml.entities.Environment(
        name="official",
        version="1",
        image="mlflow:1",
        inference_config={
            "liveness_route": {"path": "/ping", "port": 8080},
            "readiness_route": {"path": "/ping", "port": 8080},
            "scoring_route": {"path": "/invocations", "port": 8080},
        },
    )
    client.environments.create_or_update(environment)
    endpoint = ml.entities.ManagedOnlineEndpoint(name="official", auth_mode="aad_token", location=cloud.region)
    client.online_endpoints.begin_create_or_update(endpoint).result()
    deployment = ml.entities.ManagedOnlineDeployment(
        name="blue",
        endpoint_name="official",
        model=model.id,
        environment="azureml:official:1",
        instance_type="Standard_D2s_v5",
        instance_count=1,
    )
    made = client.online_deployments.begin_create_or_update(deployment).result()
    assert made.provisioning_state == "Succeeded"
    endpoint.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(endpoint).result()
    seen = client.online_endpoints.get("official")
    assert (seen.traffic, seen.provisioning_state) == ({"blue": 100}, "Succeeded")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"dataframe_split": {"columns": ["x"], "data": [[2.0]]}}))
    told = client.online_endpoints.invoke("official", request_file=str(request))
    assert json.loads(told)["predictions"] == pytest.approx([5.0])
    client.online_endpoints.begin_delete("official").result()
    assert "official" not in {each.name for each in client.online_endpoints.list()}


def test_a_body_that_the_official_models_do_not_have_is_noticed():
    from tests.azure_ml_models import Watch

    watch = Watch()
    right = {"properties": {"jobType": "Command", "command": "true", "environmentId": "e", "status": "Running"}}

    def wrong(**changes: Any) -> list[str]:
        return list(watch.problems(watch.models.JobBase, {"properties": right["properties"] | changes}))

    assert wrong() == []
    assert wrong(colour="red") == [".properties.colour is no field of CommandJob"]
    assert wrong(status="Sunny") == [".properties.status is 'Sunny', which JobStatus does not have"]
    assert wrong(environmentVariables={"A": 1}) == [".properties.environmentVariables.A is 1, no str"]
    assert wrong(limits={"jobLimitsType": "Command", "timeout": 5}) == [".properties.limits.timeout is 5, no timedelta"]
    assert list(watch.problems(watch.models.JobBase, {"properties": {"jobType": "Command", "command": "true"}})) == [
        ".properties.environmentId is missing, which CommandJob requires"
    ]
