"""The double of Vertex AI, driven by Google's own clients (google-cloud-aiplatform, group `dev`).

Lintas itself speaks REST by google-auth's session (docs/decisions/0010-vertex-rest.md); these tests hold that, and the
double, against the official package: its clients must get through, and its messages must have the same fields.
"""

# ruff: noqa: F811 - fixtures that another module defines are named again where they are asked for.
from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.local.faults import put_faults
from tasks.core.cloud import CloudConfig
from tasks.core.release import EndpointSpec
from tasks.core.training import JobSpec
from tasks.providers.google.server import open_server
from tasks.providers.google.store import open_store
from tasks.providers.google.trainer import STATES, open_trainer
from tests.twin.test_vertex_ai import a_job, data, job, rest, serve, specs, until, vertex_ai_cloud  # noqa: F401

v1: Any = pytest.importorskip("google.cloud.aiplatform_v1", reason="google-cloud-aiplatform is not installed")

# As long as the other tests of endpoints wait: a scoring process starts slowly on a machine that is busy.
OPERATION_S = 120

_WELL_KNOWN = {
    "Timestamp": "timestamp",
    "Duration": "duration",
    "FieldMask": "string",
    "FloatValue": "number",
    "Int32Value": "integer",
}


@pytest.fixture
def parent(vertex_ai_cloud: CloudConfig) -> str:
    return f"projects/{vertex_ai_cloud.option('project')}/locations/{vertex_ai_cloud.region}"


@pytest.fixture
def client(vertex_ai_cloud: CloudConfig) -> Callable[[str], Any]:
    """A client of the service of this name (`Job`, `Model`, `Endpoint`, `Prediction`) on the double."""
    from google.oauth2.credentials import Credentials

    def make(service: str) -> Any:
        kind = getattr(v1, f"{service}ServiceClient")
        transport = kind.get_transport_class("rest")(
            host=vertex_ai_cloud.endpoint("training").removeprefix("http://"),
            credentials=Credentials(vertex_ai_cloud.credentials["token"].reveal()),
            url_scheme="http",
        )
        return kind(transport=transport)

    return make


def test_a_job_runs_and_is_listed_and_deleted(client, parent):
    jobs = client("Job")
    described = a_job(labels={"suite": "official"})["jobSpec"]["workerPoolSpecs"][0]
    pool = {
        "machine_spec": {"machine_type": described["machineSpec"]["machineType"]},
        "replica_count": 1,
        "container_spec": {"image_uri": "image", "command": described["containerSpec"]["command"]},
    }
    made = jobs.create_custom_job(
        parent=parent,
        custom_job={
            "display_name": "official",
            "labels": {"suite": "official"},
            "job_spec": {"worker_pool_specs": [pool], "scheduling": {"strategy": v1.Scheduling.Strategy.SPOT}},
        },
    )
    done = until(
        lambda: jobs.get_custom_job(name=made.name), lambda seen: seen.state >= v1.JobState.JOB_STATE_SUCCEEDED
    )
    assert done.state == v1.JobState.JOB_STATE_SUCCEEDED
    assert done.job_spec.scheduling.strategy == v1.Scheduling.Strategy.SPOT
    assert done.start_time <= done.end_time
    assert [each.name for each in jobs.list_custom_jobs(parent=parent) if each.labels.get("suite")] == [made.name]
    jobs.delete_custom_job(name=made.name).result(timeout=OPERATION_S)
    from google.api_core.exceptions import NotFound

    with pytest.raises(NotFound):
        jobs.get_custom_job(name=made.name)


def test_the_clients_raise_what_the_api_says(client, parent, vertex_ai_cloud):
    from google.api_core import exceptions

    jobs = client("Job")
    with pytest.raises(exceptions.BadRequest, match="worker_pool_specs"):
        jobs.create_custom_job(parent=parent, custom_job={"display_name": "x"})
    with pytest.raises(exceptions.Forbidden):
        jobs.get_custom_job(name=parent.replace("lintas", "other") + "/customJobs/1")
    put_faults(vertex_ai_cloud.endpoint("training"), [{"kind": "quota", "times": 1}])
    pool = {"machine_spec": {"machine_type": "n"}, "replica_count": 1, "container_spec": {"image_uri": "i"}}
    with pytest.raises(exceptions.TooManyRequests, match="quota metrics exceed quota limits"):
        jobs.create_custom_job(
            parent=parent, custom_job={"display_name": "x", "job_spec": {"worker_pool_specs": [pool]}}
        )


def test_what_lintas_submits_google_s_clients_read_the_same(client, parent, vertex_ai_cloud, job):
    spec: JobSpec = job("print('ran')", sku="a3-highgpu-8g", spot=True)
    trainer = open_trainer(vertex_ai_cloud)
    job_id = trainer.submit(spec)
    until(lambda: trainer.poll(job_id), lambda status: status.state.ended)
    seen = client("Job").get_custom_job(name=f"{parent}/customJobs/{job_id}")
    machine = seen.job_spec.worker_pool_specs[0].machine_spec
    assert machine.accelerator_type == v1.AcceleratorType.NVIDIA_H100_80GB
    assert (seen.job_spec.scheduling.strategy, seen.job_spec.scheduling.disable_retries) == (4, True)
    assert seen.labels["lintas-job"] == spec.job_name


def test_models_and_endpoints_through_the_clients(client, parent, vertex_ai_cloud, specs):
    spec: EndpointSpec = specs["1"]
    store = open_store(vertex_ai_cloud, "official-models")
    store.create_bucket()
    for path in Path(spec.model_path).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            key = f"iris/{path.relative_to(spec.model_path).as_posix()}"
            store.put(key, [content] if content else [], size_bytes=len(content))
    models, endpoints, predictions = client("Model"), client("Endpoint"), client("Prediction")
    container = {"image_uri": "image", "predict_route": "/invocations", "health_route": "/ping"}
    model = {"display_name": "iris", "artifact_uri": "gs://official-models/iris", "container_spec": container}
    uploaded = models.upload_model(parent=parent, model=model).result(timeout=OPERATION_S)
    assert uploaded.model_version_id == "1"
    endpoint = endpoints.create_endpoint(parent=parent, endpoint={"display_name": "iris"}).result(timeout=OPERATION_S)
    deployed_model = {
        "model": uploaded.model,
        "display_name": "iris",
        "dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-2"}, "min_replica_count": 1},
    }
    operation = endpoints.deploy_model(endpoint=endpoint.name, deployed_model=deployed_model, traffic_split={"0": 100})
    deployed = operation.result(timeout=OPERATION_S).deployed_model
    answer = predictions.predict(endpoint=endpoint.name, instances=[{"x": 2.0}])
    assert (list(answer.predictions), answer.deployed_model_id) == ([pytest.approx(5.0)], deployed.id)
    # Not raw_predict: this client cannot do it over REST, and Google's SDK posts the body itself, as Lintas does.
    endpoints.undeploy_model(endpoint=endpoint.name, deployed_model_id=deployed.id).result(timeout=OPERATION_S)
    endpoints.delete_endpoint(name=endpoint.name).result(timeout=OPERATION_S)
    models.delete_model(name=uploaded.model).result(timeout=OPERATION_S)
    assert not [each for each in models.list_models(parent=parent) if each.display_name == "iris"]


def test_what_lintas_deploys_google_s_clients_read_the_same(client, parent, vertex_ai_cloud, specs):
    server = open_server(vertex_ai_cloud)
    try:
        serve(server, specs["1"])
        seen = client("Endpoint").get_endpoint(name=f"{parent}/endpoints/flights")
        (deployed,) = seen.deployed_models
        assert dict(seen.traffic_split) == {deployed.id: 100}
        version = client("Model").get_model(name=f"{parent}/models/flights@{deployed.model_version_id}")
        assert json.loads(version.version_description)["digest"] == specs["1"].digest
    finally:
        server.delete("flights")


def test_every_answer_has_fields_of_the_api_only(parent, vertex_ai_cloud):
    from google.protobuf import json_format

    status, made = rest(vertex_ai_cloud, "POST", "customJobs", a_job())
    assert status == 200
    time.sleep(0.5)
    found = rest(vertex_ai_cloud, "GET", made["name"].split("/", 4)[4])[1]
    # Unknown names raise here; Google's clients pass over them.
    json_format.ParseDict(found, v1.CustomJob.pb(v1.CustomJob()))


def test_every_state_of_a_job_is_known():
    assert {state.name for state in v1.JobState} - {"JOB_STATE_UNSPECIFIED"} == STATES.keys()


def test_the_double_s_messages_are_those_of_the_package():
    kept = json.loads(Path("deployments/local/vertex_ai/schema.json").read_text())
    messages: dict[str, dict[str, str]] = {}
    enums: dict[str, dict[str, int]] = {}
    for name in kept["messages"]:
        if "." not in name and hasattr(v1, name):
            _collect(getattr(v1, name).pb(getattr(v1, name)()).DESCRIPTOR, messages, enums)
    assert messages == kept["messages"]
    assert enums == kept["enums"]


def _collect(descriptor: Any, messages: dict[str, dict[str, str]], enums: dict[str, dict[str, int]]) -> None:
    name = _short(descriptor.full_name)
    if name in messages:
        return
    fields = messages[name] = {}
    for each in descriptor.fields:
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            fields[each.json_name] = f"map:{_kind(each.message_type.fields_by_name['value'], messages, enums)}"
        else:
            kind = _kind(each, messages, enums)
            fields[each.json_name] = f"list:{kind}" if each.is_repeated else kind


def _kind(each: Any, messages: dict[str, dict[str, str]], enums: dict[str, dict[str, int]]) -> str:
    if each.message_type is not None:
        name = each.message_type.full_name
        if not name.startswith("google.cloud.aiplatform.v1."):
            return _WELL_KNOWN.get(name.rpartition(".")[2], "any")
        _collect(each.message_type, messages, enums)
        return _short(name)
    if each.enum_type is not None:
        enums[_short(each.enum_type.full_name)] = {value.name: value.number for value in each.enum_type.values}
        return f"enum:{_short(each.enum_type.full_name)}"
    scalars = {
        each.TYPE_STRING: "string",
        each.TYPE_BYTES: "string",
        each.TYPE_BOOL: "boolean",
        each.TYPE_DOUBLE: "number",
        each.TYPE_FLOAT: "number",
    }
    return scalars.get(each.type, "integer")


def _short(name: str) -> str:
    return name.removeprefix("google.cloud.aiplatform.v1.")
