"""The double of Azure ML, seen through the provider and beside it: what goes wrong there is the right error here."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.local.azure_ml.process import workspace_id
from deployments.local.faults import put_faults
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Denied, Invalid, NotFound, Retryable, Stockout, Terminal
from tasks.core.evaluation import model_digest
from tasks.core.release import Endpoint, EndpointSpec
from tasks.core.training import JobSpec, JobStatus, RunState, code_digest, run_job
from tasks.providers.azure.arm import API_VERSION
from tasks.providers.azure.server import AzureServer, open_server
from tasks.providers.azure.store import open_store
from tasks.providers.azure.trainer import AzureTrainer, open_trainer
from tests.compute_clouds import ComputeClouds
from tests.conformance.test_server import insisted

SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(60)"
ROWS = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[2.0]]}}).encode()


@pytest.fixture
def cloud(compute_clouds: ComputeClouds) -> Iterator[CloudConfig]:
    config = compute_clouds["azure"].config
    yield config
    put_faults(config.endpoint("training"), [])


@pytest.fixture(scope="module")
def data(compute_clouds: ComputeClouds) -> DatasetURI:
    store = open_store(compute_clouds["azure"].config, "raw")
    store.create_bucket()
    store.put("flights/rows.txt", [b"one\n"], size_bytes=4)
    return DatasetURI("azure", "raw", "flights")


@pytest.fixture
def job(data: DatasetURI, tmp_path: Path) -> Callable[..., JobSpec]:
    def make(script: str, **changes: Any) -> JobSpec:
        (tmp_path / "main.py").write_text(script)
        digest = code_digest(tmp_path)
        # Another test's job of the same script is another job.
        spec = JobSpec("probe", ("python", "main.py"), str(tmp_path), digest, data, "d" * 64, tmp_path.name)
        return replace(spec, **changes)

    return make


@pytest.fixture
def trainer(cloud: CloudConfig) -> AzureTrainer:
    return open_trainer(cloud)


@pytest.fixture
def server(cloud: CloudConfig) -> Iterator[AzureServer]:
    opened = open_server(cloud)
    yield opened
    put_faults(cloud.endpoint("serving"), [])
    opened.delete("flights")
    until(lambda: opened.describe("flights"), lambda seen: seen is None)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EndpointSpec:
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    home = tmp_path_factory.mktemp("model") / "model"
    frame = pd.DataFrame({"x": [0.0, 1.0]})
    model = LinearRegression().fit(frame, [1.0, 3.0])
    mlflow.sklearn.save_model(
        model,
        home,
        signature=infer_signature(frame, model.predict(frame)),
        input_example=frame.head(1),
        pip_requirements=["scikit-learn"],
    )
    return EndpointSpec("flights", "flights", "1", model_digest(home), str(home))


def faults(cloud: CloudConfig, *table: dict[str, Any]) -> None:
    put_faults(cloud.endpoint("training"), list(table))


def until(look: Callable[[], Any], good: Callable[[Any], bool], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"{seen} after {timeout_s} s"
        time.sleep(0.05)
    return seen


def ended(trainer: AzureTrainer, job_id: str) -> JobStatus:
    return until(lambda: trainer.poll(job_id), lambda status: status.state.ended)


def serve(server: AzureServer, spec: EndpointSpec) -> Endpoint:
    server.deploy(spec)
    return until(
        lambda: server.describe("flights"),
        lambda seen: seen is not None and seen.healthy and seen.version == spec.version,
    )


def arm(cloud: CloudConfig, method: str, path: str, body: Any = None, *, token: str | None = None) -> tuple[int, Any]:
    """A request without the provider and without an SDK: status and JSON."""
    url = f"{cloud.endpoint('training')}{workspace_id(cloud.options)}/{path}?api-version={API_VERSION}"
    bearer = token if token is not None else cloud.credentials["token"].reveal()
    headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method)) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


# Training


def test_a_job_that_stays_queued_is_a_stockout_and_stays_one(cloud, job):
    faults(cloud, {"kind": "stockout"})
    trainer = open_trainer(replace(cloud, options={**cloud.options, "queue_timeout_s": "0.3"}))
    status = run_job(trainer, job(SLEEP), poll_s=0.05)
    assert (status.state, status.detail) == (RunState.STOCKOUT, "no machine within 0.3 s")
    assert arm(cloud, "GET", f"jobs/{status.job_id}")[1]["properties"]["status"] == "Canceled"
    assert trainer.poll(status.job_id).state is RunState.STOCKOUT


def test_a_job_that_was_cancelled_in_the_queue_is_stopped_and_no_stockout(cloud, trainer, job):
    faults(cloud, {"kind": "stockout"})
    job_id = trainer.submit(job(SLEEP))
    until(lambda: trainer.poll(job_id), lambda status: status.state is RunState.QUEUED)
    trainer.cancel(job_id)
    assert ended(trainer, job_id).state is RunState.STOPPED


def test_a_quota_is_a_stockout_at_once_or_when_the_machine_is_asked_for(cloud, trainer, job):
    faults(cloud, {"kind": "quota", "operation": "PUT jobs", "times": 1})
    with pytest.raises(Stockout, match="QuotaExceeded"):
        trainer.submit(job("pass"))
    faults(cloud, {"kind": "quota", "operation": "allocate", "times": 1})
    status = ended(trainer, trainer.submit(job("pass")))
    assert (status.state, status.exit_code) == (RunState.STOCKOUT, None)
    assert "OutOfQuota" in status.detail


def test_a_preempted_job_goes_on_from_its_checkpoint_on_another_machine(cloud, trainer, job):
    faults(cloud, {"kind": "preempt", "after_line": "wrote", "times": 1})
    script = """
import os, pathlib, time
step = pathlib.Path(os.environ["LINTAS_CHECKPOINT_DIR"]) / "step"
if step.exists():
    print("from", step.read_text())
else:
    step.write_text("7")
    print("wrote")
    time.sleep(60)
"""
    job_id = trainer.submit(job(script, spot=True))
    assert arm(cloud, "GET", f"jobs/{job_id}")[1]["properties"]["queueSettings"] == {"jobTier": "Spot"}
    assert ended(trainer, job_id).state is RunState.SUCCEEDED
    assert list(trainer.logs(job_id))[-1] == "from 7"


def test_a_machine_that_crashes_is_a_failure_that_does_not_quote_the_log(cloud, trainer, job):
    faults(cloud, {"kind": "crash", "after_line": "jane@example.org", "times": 1})
    status = ended(trainer, trainer.submit(job("import time\nprint('jane@example.org', flush=True)\ntime.sleep(60)")))
    assert (status.state, status.exit_code) == (RunState.FAILED, -9)
    assert "jane" not in status.detail
    error = arm_details(cloud, status.job_id)["error"]["error"]
    assert "jane@example.org" in error["message"]


def arm_details(cloud: CloudConfig, run: str) -> Any:
    url = f"{cloud.endpoint('training')}/history/v1.0{workspace_id(cloud.options)}/runs/{run}/details"
    headers = {"authorization": f"Bearer {cloud.credentials['token'].reveal()}"}
    return json.load(urllib.request.urlopen(urllib.request.Request(url, headers=headers)))


def test_lost_logs_are_no_lines_and_no_trouble(cloud, trainer, job):
    job_id = trainer.submit(job("print('said')"))
    assert ended(trainer, job_id).state is RunState.SUCCEEDED
    faults(cloud, {"kind": "lost_logs"})
    assert list(trainer.logs(job_id)) == []
    faults(cloud)
    assert list(trainer.logs(job_id)) == ["said"]


def test_the_services_own_timeout_stops_a_job_that_its_launcher_does_not(cloud, job):
    body = {"jobType": "Command", "command": "sleep 60", "environmentId": "e"}
    body |= {"limits": {"jobLimitsType": "Command", "timeout": "PT1S"}}
    assert arm(cloud, "PUT", "jobs/sleeper", {"properties": body})[0] == 201
    status = until(lambda: arm(cloud, "GET", "jobs/sleeper")[1]["properties"]["status"], lambda said: said != "Running")
    until(lambda: arm(cloud, "GET", "jobs/sleeper")[1]["properties"]["status"], lambda said: said == "Canceled")
    assert status


def test_two_jobs_of_one_name_are_refused_by_the_service(cloud, trainer, job):
    job_id = trainer.submit(job("pass"))
    body = {"properties": {"jobType": "Command", "command": "true", "environmentId": "e"}}
    status, told = arm(cloud, "PUT", f"jobs/{job_id}", body)
    assert (status, told["error"]["code"]) == (400, "UserError")
    assert "already exists" in told["error"]["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"comand": "true"}, "'comand'"),
        ({"command": "true ${{inputs.rows}}"}, "inputs.rows"),
        ({"command": ""}, "command field is required"),
        ({"inputs": {"rows": {"jobInputType": "uri_folder", "uri": "s3://raw/rows/"}}}, "not a supported path"),
    ],
)
def test_a_request_that_is_wrong_is_refused_in_the_services_words(cloud, change, words):
    body = {"properties": {"jobType": "Command", "command": "true", "environmentId": "e", **change}}
    status, told = arm(cloud, "PUT", "jobs/wrong", body)
    assert status == 400
    assert words in told["error"]["message"]


# What may go wrong between here and there


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "throttle"}, Retryable),
        ({"kind": "error", "status": 500}, Retryable),
        ({"kind": "error", "status": 503}, Retryable),
        ({"kind": "error", "status": 403}, Denied),
        ({"kind": "error", "status": 409}, Retryable),
        ({"kind": "error", "status": 418}, Terminal),
        ({"kind": "lost"}, Retryable),
        ({"kind": "cut"}, Retryable),
    ],
)
def test_trouble_on_the_wire_becomes_the_class_that_says_what_to_do(cloud, trainer, fault, kind):
    faults(cloud, {**fault, "operation": "GET*"})
    with pytest.raises(kind) as caught:
        trainer.poll("probe-0")
    assert type(caught.value) is kind
    assert cloud.credentials["token"].reveal() not in str(caught.value)


def test_throttling_and_an_outage_that_pass_are_not_noticed(cloud, trainer, job):
    faults(cloud, {"kind": "throttle", "times": 1}, {"kind": "error", "status": 503, "times": 1})
    assert ended(trainer, trainer.submit(job("pass"))).state is RunState.SUCCEEDED


def test_a_wrong_token_is_denied_and_not_shown(cloud):
    wrong = replace(cloud, credentials={**cloud.credentials, "token": Secret("test:w", lambda _: "wrong-one")})
    for call in (lambda: open_trainer(wrong).poll("x"), lambda: open_server(wrong).describe("flights")):
        with pytest.raises(Denied, match="refuses the token") as caught:
            call()
        assert "wrong-one" not in str(caught.value)
    status, told = arm(cloud, "GET", "jobs/x", token="wrong-one")
    assert (status, told["error"]["code"]) == (401, "InvalidAuthenticationToken")


def test_another_workspace_is_not_found(cloud):
    elsewhere = replace(cloud, options={**cloud.options, "workspace": "another"})
    with pytest.raises(NotFound):
        open_trainer(elsewhere).poll("x")


def test_a_token_travels_in_the_clear_to_this_machine_only(cloud):
    far = replace(cloud, endpoints={**cloud.endpoints, "training": "http://management.example.com"})
    with pytest.raises(Invalid, match="in the clear; write it with https"):
        open_trainer(far)


# Serving


def test_a_roll_out_goes_on_from_what_the_service_says_whoever_makes_the_next_step(cloud, spec, server):
    # Those asked before go on by themselves, so that the service may be busy with the very same step.
    seen = until(lambda: insisted(lambda: open_server(cloud).deploy(spec)), lambda seen: seen.healthy)
    assert (seen.version, seen.digest, seen.weight) == ("1", spec.digest, 0)
    # Whoever still rolled the first version out would bring it back.
    until(threading.enumerate, lambda threads: not any(each.name == "roll-out flights" for each in threads))
    assert json.loads(server.predict("flights", ROWS))["predictions"] == pytest.approx([5.0])
    second = serve(server, replace(spec, version="2"))
    assert second.digest == spec.digest
    name = endpoint_of(cloud)
    until(
        lambda: (
            insisted(lambda: server.deploy(replace(spec, version="2")))
            and arm(cloud, "GET", f"onlineEndpoints/{name}/deployments")[1]["value"]
        ),
        lambda left: [each["tags"]["version"] for each in left] == ["2"],
    )


def endpoint_of(cloud: CloudConfig) -> str:
    found = [
        each["name"]
        for each in arm(cloud, "GET", "onlineEndpoints")[1]["value"]
        if each["tags"].get("lintas-endpoint") == "flights"
    ]
    assert len(found) == 1
    assert len(found[0]) <= 32
    return found[0]


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [("stockout", Stockout, "OutOfQuota"), ("unhealthy", Terminal, "does not start")],
)
def test_a_deployment_that_fails_is_told_removed_and_tried_again(cloud, server, spec, kind, error, words):
    faults(cloud, {"kind": kind, "times": 1})

    server.deploy(spec)
    seen = until(lambda: server.describe("flights"), lambda seen: seen is not None and words in seen.detail)
    assert (seen.healthy, seen.digest) == (False, "")
    with pytest.raises(error, match=words) as raised:
        server.deploy(spec)
    assert type(raised.value) is error
    assert serve(server, spec).detail == ""


def test_an_endpoint_that_is_busy_answers_retryable_when_asked_to_predict(cloud, server, spec):
    serve(server, spec)
    for fault in ({"kind": "throttle"}, {"kind": "error", "status": 503}):
        faults(cloud, {**fault, "operation": "score"})
        with pytest.raises(Retryable):
            server.predict("flights", ROWS)
        seen = server.describe("flights")
        assert seen is not None
        assert not seen.healthy


def test_mirrored_requests_do_not_change_answers_and_shares_are_checked(cloud, server, spec):
    serve(server, spec)
    name = endpoint_of(cloud)
    (deployment,) = [each["name"] for each in arm(cloud, "GET", f"onlineEndpoints/{name}/deployments")[1]["value"]]
    facts = arm(cloud, "GET", f"onlineEndpoints/{name}")[1]

    def put(**shares: Any) -> tuple[int, Any]:
        properties = {"authMode": "AADToken", "traffic": {deployment: 100}, **shares}
        return arm(cloud, "PUT", f"onlineEndpoints/{name}", {"location": facts["location"], "properties": properties})

    for wrong in ({"traffic": {deployment: 60}}, {"traffic": {"other": 100}}, {"mirrorTraffic": {deployment: 51}}):
        assert put(**wrong)[0] == 400
    assert put(mirrorTraffic={deployment: 50})[0] == 200
    for _ in range(4):
        assert json.loads(server.predict("flights", ROWS))["predictions"] == pytest.approx([5.0])
    status, told = arm(cloud, "DELETE", f"onlineEndpoints/{name}/deployments/{deployment}")
    assert (status, told["error"]["code"]) == (400, "UserError")


def test_an_unfit_request_is_invalid_by_the_models_signature(cloud, server, spec):
    serve(server, spec)
    with pytest.raises(Invalid, match=r"Model is missing inputs \['x'\]"):
        server.predict("flights", ROWS.replace(b'"x"', b'"jane"'))
