"""The double of Vertex AI, seen through the provider and beside it: what goes wrong there is the right error here."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.local.faults import put_faults
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, Retryable, Stockout, Terminal
from tasks.core.evaluation import model_digest
from tasks.core.release import Endpoint, EndpointSpec
from tasks.core.training import JobSpec, JobStatus, RunState, code_digest, run_job
from tasks.providers.google.server import VertexServer, open_server
from tasks.providers.google.store import open_store
from tasks.providers.google.trainer import VertexTrainer, open_trainer
from tasks.providers.google.vertex import Vertex
from tests.compute_clouds import ComputeClouds

SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(60)"
ROWS = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[2.0]]}}).encode()


@pytest.fixture(scope="module")
def vertex_ai_cloud(compute_clouds: ComputeClouds) -> CloudConfig:
    return compute_clouds["google"].config


@pytest.fixture
def cloud(vertex_ai_cloud: CloudConfig) -> Iterator[CloudConfig]:
    yield vertex_ai_cloud
    put_faults(vertex_ai_cloud.endpoint("training"), [])


@pytest.fixture(scope="module")
def data(vertex_ai_cloud: CloudConfig) -> DatasetURI:
    store = open_store(vertex_ai_cloud, "raw")
    store.create_bucket()
    store.put("flights/rows.txt", [b"one\n"], size_bytes=4)
    return DatasetURI("google", "raw", "flights")


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
def trainer(cloud: CloudConfig) -> VertexTrainer:
    return open_trainer(cloud)


@pytest.fixture
def server(cloud: CloudConfig) -> Iterator[VertexServer]:
    opened = open_server(cloud)
    yield opened
    put_faults(cloud.endpoint("serving"), [])
    opened.delete("flights")
    assert opened.describe("flights") is None


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EndpointSpec]:
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    frame = pd.DataFrame({"x": [0.0, 1.0]})
    made: dict[str, EndpointSpec] = {}
    for version, slope in (("1", 2.0), ("2", 7.0)):
        home = tmp_path_factory.mktemp("model") / "model"
        model = LinearRegression().fit(frame, [1.0, 1.0 + slope])
        mlflow.sklearn.save_model(
            model,
            home,
            signature=infer_signature(frame, model.predict(frame)),
            input_example=frame.head(1),
            pip_requirements=["scikit-learn"],
        )
        made[version] = EndpointSpec("flights", "flights", version, model_digest(home), str(home))
    return made


def faults(cloud: CloudConfig, *table: dict[str, Any]) -> None:
    put_faults(cloud.endpoint("training"), list(table))


def until(look: Callable[[], Any], good: Callable[[Any], bool], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"{seen} after {timeout_s} s"
        time.sleep(0.05)
    return seen


def ended(trainer: VertexTrainer, job_id: str) -> JobStatus:
    return until(lambda: trainer.poll(job_id), lambda status: status.state.ended)


def serve(server: VertexServer, spec: EndpointSpec) -> Endpoint:
    return until(lambda: server.deploy(spec), lambda seen: seen.healthy and seen.version == spec.version)


def rest(cloud: CloudConfig, method: str, path: str, body: Any = None, *, token: str | None = None) -> tuple[int, Any]:
    """A request without the provider and without an SDK: status and JSON."""
    place = f"projects/{cloud.option('project')}/locations/{cloud.region}"
    url = f"{cloud.endpoint('training')}/v1/{place}/{path}"
    bearer = token if token is not None else cloud.credentials["token"].reveal()
    headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method)) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def a_job(**changes: Any) -> dict[str, Any]:
    pool = {
        "machineSpec": {"machineType": "n2-standard-4"},
        "replicaCount": "1",
        "containerSpec": {"imageUri": "image", "command": ["python3", "-c", "print('ran')"]},
    }
    return {"displayName": "probe", "jobSpec": {"workerPoolSpecs": [pool]}, **changes}


# Training


def test_a_stockout_shows_when_the_machine_is_asked_for(cloud, trainer, job):
    faults(cloud, {"kind": "stockout"})
    status = run_job(trainer, job("pass"), poll_s=0.05)
    assert status.state is RunState.STOCKOUT
    assert "has no machine for job" in status.detail
    told = rest(cloud, "GET", f"customJobs/{status.job_id}")[1]
    assert (told["state"], told["error"]["code"]) == ("JOB_STATE_FAILED", 8)
    assert "Resources are insufficient in region" in told["error"]["message"]


def test_a_quota_is_a_stockout_at_once_that_names_it_and_the_job_can_be_submitted_again(cloud, trainer, job):
    faults(cloud, {"kind": "quota", "times": 1})
    with pytest.raises(Stockout, match=r"quota of 'google' .*custom_model_training_cpus"):
        trainer.submit(job("pass"))
    assert ended(trainer, trainer.submit(job("pass"))).state is RunState.SUCCEEDED


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"kind": "throttle"}, Retryable), ({"kind": "error", "status": 503}, Retryable), ({"kind": "error"}, Retryable)],
)
def test_trouble_that_passes_is_retryable_and_leaves_no_second_job(cloud, trainer, job, fault, error):
    faults(cloud, {**fault, "operation": "POST *customJobs", "times": 1})
    with pytest.raises(error):
        trainer.submit(job("pass"))
    first = trainer.submit(job("pass"))
    assert trainer.submit(job("pass")) == first
    name = job("pass").job_name
    listed = rest(cloud, "GET", f"customJobs?filter=labels.lintas-job%3D%22{name}%22")[1]["customJobs"]
    assert [each["name"].rpartition("/")[2] for each in listed] == [first]


def test_an_answer_that_was_cut_off_leaves_one_job_which_is_found(cloud, trainer, job):
    faults(cloud, {"kind": "cut", "operation": "POST *customJobs", "times": 1})
    job_id = trainer.submit(job("pass"))
    assert ended(trainer, job_id).state is RunState.SUCCEEDED
    name = job("pass").job_name
    listed = rest(cloud, "GET", f"customJobs?filter=labels.lintas-job%3D%22{name}%22")[1]["customJobs"]
    assert [each["name"].rpartition("/")[2] for each in listed] == [job_id]


def test_a_claim_that_led_to_nothing_is_taken_over(cloud, trainer, job, monkeypatch):
    from tasks.providers.google.quirks import quirks

    spec = job("pass")
    store = open_store(cloud, cloud.option("bucket"))
    store.create_bucket()
    store.put(f"lintas-jobs/{spec.job_name}/claim", [b"."], size_bytes=1)
    monkeypatch.setitem(quirks(), "claim_wait_s", 0.5)
    with pytest.raises(Retryable, match="somebody else is submitting"):
        trainer.submit(spec)
    monkeypatch.setitem(quirks(), "claim_lease_s", 0.1)
    assert ended(trainer, trainer.submit(spec)).state is RunState.SUCCEEDED


def test_a_spot_machine_that_is_taken_back_ends_the_job_and_the_next_attempt_has_its_checkpoint(cloud, trainer, job):
    script = """
import os, pathlib, time
step = pathlib.Path(os.environ["LINTAS_CHECKPOINT_DIR"]) / "step"
if step.exists():
    print("from", step.read_text())
else:
    step.write_text("7")
    print("wrote", flush=True)
    time.sleep(60)
"""
    spec = job(script, spot=True)
    faults(cloud, {"kind": "preempt", "times": 1, "after_line": "wrote"})
    status = run_job(trainer, spec, poll_s=0.05)
    assert (status.state, status.detail[:9]) == (RunState.FAILED, "preempted")
    told = rest(cloud, "GET", f"customJobs/{status.job_id}")[1]
    assert told["jobSpec"]["scheduling"]["strategy"] == "SPOT"
    second = run_job(trainer, spec.next_attempt(), poll_s=0.05)
    assert second.state is RunState.SUCCEEDED
    assert list(trainer.logs(second.job_id)) == ["from 7"]


def test_a_job_that_crashes_tells_its_signal(cloud, trainer, job):
    faults(cloud, {"kind": "crash", "times": 1, "delay_s": 0.3})
    status = run_job(trainer, job(SLEEP), poll_s=0.05)
    assert (status.state, status.exit_code) == (RunState.FAILED, -9)


def test_a_job_that_waits_too_long_for_a_machine_is_a_stockout_and_stays_one(cloud, job):
    faults(cloud, {"kind": "slow_start", "delay_s": 60, "times": 1})
    options = {**cloud.options, "queue_timeout_s": "0.3", "scheduling": "flex-start"}
    trainer = open_trainer(replace(cloud, options=options))
    status = run_job(trainer, job(SLEEP, sku="a3-highgpu-8g"), poll_s=0.05)
    assert (status.state, status.detail) == (RunState.STOCKOUT, "no machine within 0.3 s")
    told = rest(cloud, "GET", f"customJobs/{status.job_id}")[1]["jobSpec"]
    assert told["scheduling"]["strategy"] == "FLEX_START"
    machine = told["workerPoolSpecs"][0]["machineSpec"]
    assert machine == {"machineType": "a3-highgpu-8g", "acceleratorType": "NVIDIA_H100_80GB", "acceleratorCount": 8}


def test_logs_that_are_lost_are_no_error(cloud, trainer, job):
    job_id = trainer.submit(job("print('said')"))
    ended(trainer, job_id)
    faults(cloud, {"kind": "lost_logs"})
    assert list(open_trainer(cloud).logs(job_id)) == []
    faults(cloud)
    assert list(open_trainer(cloud).logs(job_id)) == ["said"]


def test_wrong_bytes_in_an_output_are_an_integrity_error_or_never_arrive(cloud, trainer, job, tmp_path):
    from tasks.core.errors import IntegrityError

    script = "import os\nopen(os.environ['LINTAS_OUTPUT_DIR'] + '/a', 'w').write('sound')"
    job_id = trainer.submit(job(script))
    ended(trainer, job_id)
    folder = rest(cloud, "GET", f"customJobs/{job_id}")[1]["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"]
    bucket, _, prefix = folder.removeprefix("gs://").partition("/")
    open_store(cloud, bucket).put(f"{prefix}output/a", [b"other"], size_bytes=5)
    with pytest.raises(IntegrityError, match="among them 'a'"):
        trainer.fetch_output(job_id, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_job_sees_what_vertex_ai_gives_it_and_nothing_of_the_double(cloud, trainer, job):
    script = "import os\nfor item in sorted(os.environ.items()):\n    print(*item)"
    status = run_job(trainer, job(script), poll_s=0.05)
    seen = dict(line.partition(" ")[::2] for line in trainer.logs(status.job_id))
    assert seen["AIP_MODEL_DIR"].startswith("gs://")
    assert json.loads(seen["CLUSTER_SPEC"])["task"] == {"type": "workerpool0", "index": 0}
    assert seen["CLOUD_ML_PROJECT_ID"] == cloud.option("project")
    assert cloud.credentials["token"].reveal() not in str(seen)
    assert not {"PYTHONPATH", "GOOGLE_APPLICATION_CREDENTIALS"} & seen.keys()


# Serving


def test_versions_follow_each_other_and_nothing_of_the_old_one_stays_deployed(cloud, server, specs):
    serve(server, specs["1"])
    assert json.loads(server.predict("flights", ROWS))["predictions"] == pytest.approx([5.0])
    seen = serve(server, specs["2"])
    assert (seen.digest, seen.detail) == (specs["2"].digest, "")
    assert json.loads(server.predict("flights", ROWS))["predictions"] == pytest.approx([15.0])
    endpoint = rest(cloud, "GET", "endpoints/flights")[1]
    assert len(endpoint["deployedModels"]) == 1
    assert list(endpoint["trafficSplit"].values()) == [100]
    assert len(rest(cloud, "GET", "models/flights:listVersions")[1]["models"]) == 2


def test_each_step_can_be_made_by_another_process(cloud, server, specs):
    """Every call opens anew: nothing is remembered but what the service knows."""
    serve(server, specs["1"])
    until(lambda: open_server(cloud).deploy(specs["2"]), lambda seen: seen.version == "2" and seen.healthy)
    assert len(rest(cloud, "GET", "endpoints/flights")[1]["deployedModels"]) == 1


def test_a_wish_that_was_withdrawn_leaves_nothing_deployed(cloud, server, specs):
    serve(server, specs["1"])
    faults(cloud, {"kind": "slow_start", "delay_s": 30, "times": 1})
    assert "version 2 is being deployed" in server.deploy(specs["2"]).detail
    number = rest(cloud, "GET", "endpoints/flights")[1]["labels"]["lintas-operation"]
    assert server.deploy(specs["1"]).detail == ""
    until(lambda: rest(cloud, "GET", f"endpoints/flights/operations/{number}")[1].get("done"), bool)
    assert len(rest(cloud, "GET", "endpoints/flights")[1]["deployedModels"]) == 1


def test_an_endpoint_that_never_gets_healthy_says_so_and_the_one_before_serves_on(cloud, server, specs):
    serve(server, specs["1"])
    faults(cloud, {"kind": "unhealthy", "times": 1})
    server.deploy(specs["2"])
    seen = until(lambda: server.describe("flights"), lambda seen: "does not start" in seen.detail)
    assert (seen.healthy, seen.version) == (True, "1")
    with pytest.raises(Terminal, match="does not start"):
        server.deploy(specs["2"])


def test_no_machine_for_an_endpoint_is_a_stockout(cloud, server, specs):
    faults(cloud, {"kind": "stockout", "times": 1})
    server.deploy(specs["1"])
    until(lambda: server.describe("flights"), lambda seen: "has no machine" in seen.detail)
    with pytest.raises(Stockout):
        server.deploy(specs["1"])
    faults(cloud, {"kind": "quota", "times": 1})
    with pytest.raises(Stockout, match="custom_model_serving_cpus"):
        server.deploy(specs["2"])


def test_predict_gives_instances_and_says_which_version_answered(cloud, server, specs):
    serve(server, specs["1"])
    status, answer = rest(cloud, "POST", "endpoints/flights:predict", {"instances": [{"x": 2.0}]})
    assert (status, answer["modelVersionId"]) == (200, "1")
    assert answer["predictions"] == pytest.approx([5.0])


def test_what_is_deployed_cannot_be_deleted_under_it(cloud, server, specs):
    serve(server, specs["1"])
    for path in ("endpoints/flights", "models/flights"):
        status, answer = rest(cloud, "DELETE", path)
        assert (status, answer["error"]["status"]) == (400, "FAILED_PRECONDITION")


# Who may ask, and what is said to whom


@pytest.mark.parametrize("fault", ["lost", "cut"])
def test_a_cloud_that_is_gone_is_retryable(cloud, trainer, server, fault):
    faults(cloud, {"kind": fault})
    for ask in (lambda: trainer.poll("1"), lambda: server.describe("flights")):
        with pytest.raises(Retryable):
            ask()


def test_a_wrong_token_is_denied_and_not_repeated(cloud):
    wrong = replace(cloud, credentials={"token": Secret("test:wrong", lambda _: "wrong-token")})
    for ask in (lambda: open_trainer(wrong).poll("1"), lambda: open_server(wrong).describe("flights")):
        with pytest.raises(Denied, match="refuses the token") as caught:
            ask()
        assert "wrong-token" not in str(caught.value)


def test_another_project_is_denied_and_the_permission_named(cloud):
    other = Vertex(replace(cloud, options={**cloud.options, "project": "somebody-else"}), "training")
    with pytest.raises(Denied, match=r"'aiplatform\.locations\.get'"):
        other.get(f"{other.parent}/customJobs/1", "job '1'")


@pytest.mark.parametrize("status", sorted(range(17)))
def test_every_code_of_google_means_something(cloud, status):
    error = Vertex(cloud, "training").meaning({"code": status, "message": "budi@example.com"}, "job '1'")
    assert isinstance(error, LintasError)
    assert "budi" not in str(error)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (a_job(jobSpecs={}), 'Unknown name "jobSpecs"'),
        (a_job(displayName=7), "Invalid value at 'custom_job.display_name'"),
        (a_job(jobSpec={"scheduling": {"strategy": "CHEAP"}}), "Scheduling.Strategy"),
        (a_job(jobSpec={"scheduling": {"timeout": 60}}), "google.protobuf.Duration"),
        (a_job(jobSpec={}), "custom_job.job_spec.worker_pool_specs"),
        (a_job(displayName=""), "custom_job.display_name"),
        (a_job(labels={"Upper": "x"}), "Invalid label"),
    ],
)
def test_a_body_that_the_api_does_not_know_is_refused(cloud, job, words):
    status, answer = rest(cloud, "POST", "customJobs", job)
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert words in answer["error"]["message"]


def test_names_may_be_in_snake_case_and_enums_numbers(cloud):
    spec = a_job()["jobSpec"]
    status, job = rest(
        cloud, "POST", "customJobs", {"display_name": "probe", "job_spec": {**spec, "scheduling": {"strategy": 4}}}
    )
    assert status == 200
    assert (job["displayName"], job["jobSpec"]["scheduling"]["strategy"]) == ("probe", "SPOT")
    assert rest(cloud, "GET", f"{job['name'].split('/', 4)[4]}?%24alt=json%3Benum-encoding%3Dint")[1]["state"] in (
        2,
        3,
        4,
    )


def test_what_the_double_does_not_do_it_says(cloud):
    status, answer = rest(cloud, "GET", "trainingPipelines")
    assert (status, answer["error"]["status"]) == (501, "UNIMPLEMENTED")


def test_an_unknown_job_is_not_found(trainer):
    with pytest.raises(NotFound, match="there is no job '1' on 'google'"):
        trainer.poll("1")


def test_a_cloud_without_a_project_or_an_image_is_told_so(cloud):
    for option in ("project", "image"):
        options = {key: value for key, value in cloud.options.items() if key != option}
        with pytest.raises(Invalid, match=f"options.{option} is missing"):
            open_trainer(replace(cloud, options=options))
