"""The double of SageMaker: what the bare SDK sees of it, and what every fault becomes in Lintas' words."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions as boto
import pytest
from botocore.config import Config

from deployments.local.faults import put_faults
from deployments.local.proc import descendants, is_same_process, start_ticks
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Denied, IntegrityError, Invalid, LintasError, NotFound, Retryable, Stockout
from tasks.core.evaluation import model_digest
from tasks.core.ports import Server, Trainer
from tasks.core.release import Endpoint, EndpointSpec
from tasks.core.training import JobSpec, JobStatus, RunState, code_digest
from tasks.providers.aws import PROVIDER
from tests.compute_clouds import ComputeCloud, ComputeClouds

ROLE = "arn:aws:iam::123456789012:role/lintas"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1"


@pytest.fixture(scope="module")
def aws(compute_clouds: ComputeClouds) -> ComputeCloud:
    cloud = compute_clouds["aws"]
    for bucket in ("raw", "lintas-work"):
        PROVIDER.open_store(cloud.config, bucket).create_bucket()
    PROVIDER.open_store(cloud.config, "raw").put("flights/rows.txt", [b"one\n"], size_bytes=4)
    return cloud


@pytest.fixture
def faults(aws: ComputeCloud) -> Iterator[Callable[..., None]]:
    """Replaces the double's faults; they are gone after the test."""
    url = aws.config.endpoint("training")

    def order(*wanted: dict[str, Any]) -> None:
        put_faults(url, list(wanted))

    yield order
    put_faults(url, [])


def sdk(aws: ComputeCloud, service: str, **settings: Any) -> Any:
    """The bare SDK, with one attempt a call."""
    secrets = {name: secret.reveal() for name, secret in aws.config.credentials.items()}
    return boto3.Session(secrets["access_key_id"], secrets["secret_access_key"], region_name="us-east-1").client(
        service,
        endpoint_url=aws.config.endpoint("objects" if service == "s3" else "training"),
        config=Config(retries={"total_max_attempts": 1}, **settings),
    )


@pytest.fixture(scope="module")
def sagemaker(aws: ComputeCloud) -> Any:
    return sdk(aws, "sagemaker")


def training(name: str, script: str = "print('hello')", **changes: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://raw/flights/"}
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-u", "-c"],
            "ContainerArguments": [script],
        },
        "InputDataConfig": [{"ChannelName": "rows", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": "s3://lintas-work/bare"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def code_of(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(boto.ClientError) as refused:
        call()
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


# Training, by the bare SDK


def test_a_job_goes_through_sagemaker_s_states_and_the_sdk_s_waiter_sees_its_end(sagemaker):
    script = "open('/opt/ml/model/x', 'w').write(open('/opt/ml/input/data/rows/rows.txt').read())"
    sagemaker.create_training_job(**training("bare-1", script))
    waiter = sagemaker.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="bare-1", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    job = sagemaker.describe_training_job(TrainingJobName="bare-1")
    assert [turn["Status"] for turn in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://lintas-work/bare/bare-1/output/model.tar.gz"
    assert job["BillableTimeInSeconds"] >= 1


def test_artifacts_are_one_archive_in_s3(aws, sagemaker, tmp_path):
    sagemaker.create_training_job(**training("bare-2", "open('/opt/ml/model/x', 'w').write('y')"))
    ended(sagemaker, "bare-2")
    sdk(aws, "s3").download_file("lintas-work", "bare/bare-2/output/model.tar.gz", str(tmp_path / "m"))
    with tarfile.open(tmp_path / "m") as tar:
        assert tar.getnames() == ["x"]


def test_a_name_is_given_once_and_an_unknown_one_is_refused(sagemaker):
    sagemaker.create_training_job(**training("bare-3"))
    code, message = code_of(lambda: sagemaker.create_training_job(**training("bare-3")))
    assert code == "ResourceInUse"
    assert "must be unique" in message
    assert code_of(lambda: sagemaker.describe_training_job(TrainingJobName="none")) == (
        "ValidationException",
        "Requested resource not found.",
    )
    ended(sagemaker, "bare-3")
    code, message = code_of(lambda: sagemaker.stop_training_job(TrainingJobName="bare-3"))
    assert (code, "in status Completed" in message) == ("ValidationException", True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TrainingJobName": "a_b"}, "regular expression"),
        ({"ResourceConfig": {"InstanceType": "ml.no.such", "VolumeSizeInGB": 5, "InstanceCount": 1}}, "enum value set"),
        ({"Environment": {"LONG": "x" * 513}}, "length less than or equal to 512"),
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds"),
        ({"InputDataConfig": [{"ChannelName": "rows"}]}, "DataSource"),
    ],
)
def test_requests_are_held_to_the_official_shapes(aws, changes, words):
    lax = sdk(aws, "sagemaker", parameter_validation=False)
    code, message = code_of(lambda: lax.create_training_job(**{**training("shape-1"), **changes}))
    assert code == "ValidationException"
    assert words in message


def test_a_dataset_that_is_not_there_is_refused_at_once(sagemaker):
    asked = training("nodata-1")
    asked["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://raw/none/"
    code, message = code_of(lambda: sagemaker.create_training_job(**asked))
    assert code == "ValidationException"
    assert "No S3 objects found" in message


def test_a_failure_file_becomes_the_reason_and_a_job_sees_no_key(aws, sagemaker):
    script = "import os; print(sorted(os.environ)); open('/opt/ml/output/failure', 'w').write('because'); os._exit(7)"
    sagemaker.create_training_job(**training("bare-4", script))
    job = ended(sagemaker, "bare-4")
    assert job["FailureReason"] == "AlgorithmError: because, exit code: 7"
    logs = sdk(aws, "logs")
    group = "/aws/sagemaker/TrainingJobs"
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="bare-4/")["logStreams"]
    page = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
    assert "TRAINING_JOB_NAME" in page["events"][0]["message"]
    assert "SECRET" not in page["events"][0]["message"]
    again = logs.get_log_events(
        logGroupName=group, logStreamName=stream["logStreamName"], nextToken=page["nextForwardToken"]
    )
    assert (again["events"], again["nextForwardToken"]) == ([], page["nextForwardToken"])


def test_sagemaker_s_own_limit_ends_a_job(sagemaker):
    asked = training("bare-5", "import time; time.sleep(60)", StoppingCondition={"MaxRuntimeInSeconds": 1})
    sagemaker.create_training_job(**asked)
    job = ended(sagemaker, "bare-5")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (("AKIAOTHER", "x"), "UnrecognizedClientException"),
        ((None, "x"), "InvalidSignatureException"),
    ],
)
def test_a_wrong_key_is_refused_in_aws_words(aws, key, code):
    known = aws.config.credentials["access_key_id"].reveal()
    url = aws.config.endpoint("training")
    session = boto3.Session(key[0] or known, key[1], region_name="us-east-1")
    client = session.client("sagemaker", endpoint_url=url, config=Config(retries={"total_max_attempts": 1}))
    assert code_of(client.list_training_jobs)[0] == code
    right = aws.config.credentials["secret_access_key"].reveal()
    elsewhere = boto3.Session(known, right, region_name="eu-west-1").client("sagemaker", endpoint_url=url)
    assert code_of(elsewhere.list_training_jobs)[0] == "InvalidSignatureException"


def test_a_request_without_a_signature_is_refused(aws):
    request = urllib.request.Request(aws.config.endpoint("training"), b"{}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert (refused.value.code, refused.value.headers["x-amzn-ErrorType"]) == (
        403,
        "MissingAuthenticationTokenException",
    )


def test_what_is_not_imitated_says_so(sagemaker):
    assert code_of(lambda: sagemaker.list_domains())[0] == "UnknownOperationException"


def ended(sagemaker: Any, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (job := sagemaker.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] not in (
        "Completed",
        "Failed",
        "Stopped",
    ):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


# Training under faults, by Lintas' trainer


@pytest.fixture
def trainer(aws: ComputeCloud) -> Trainer:
    assert PROVIDER.open_trainer is not None
    return PROVIDER.open_trainer(aws.config)


def job_of(tmp_path: Path, script: str = "print('ran')", **changes: Any) -> JobSpec:
    code = tmp_path / "code"
    code.mkdir(exist_ok=True)
    (code / "main.py").write_text(textwrap.dedent(script))
    job = JobSpec(
        name="faulty",
        command=("python", "main.py"),
        code_dir=str(code),
        code_digest=code_digest(code),
        data=DatasetURI("aws", "raw", "flights"),
        data_digest="d" * 64,
        run_id=tmp_path.name,
        timeout_s=30,
    )
    return replace(job, **changes)


def outcome(trainer: Trainer, job: JobSpec) -> JobStatus:
    job_id = trainer.submit(job)
    deadline = time.monotonic() + 60
    while not (status := trainer.poll(job_id)).state.ended:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def test_no_capacity_shows_late_as_a_stock_out(trainer, faults, tmp_path):
    faults({"kind": "stockout"})
    status = outcome(trainer, job_of(tmp_path))
    assert status.state is RunState.STOCKOUT
    assert status.detail.startswith("CapacityError: Unable to provision")


def test_no_quota_is_a_stock_out_at_once_that_leaves_nothing(aws, trainer, faults, tmp_path):
    faults({"kind": "quota"})
    job = job_of(tmp_path)
    with pytest.raises(Stockout, match=r"has no quota: The account-level service limit 'ml\.m5\.large"):
        trainer.submit(job)
    left = sdk(aws, "s3").list_objects_v2(Bucket="lintas-work", Prefix=f"lintas-jobs/{job.job_name}/")
    assert left["KeyCount"] == 0
    faults()
    assert outcome(trainer, job).state is RunState.SUCCEEDED


def test_throttling_is_ridden_out_and_told_when_it_lasts(trainer, faults, tmp_path):
    faults({"kind": "throttle", "times": 2, "operation": "CreateTrainingJob"})
    assert outcome(trainer, job_of(tmp_path)).state is RunState.SUCCEEDED
    faults({"kind": "throttle", "operation": "DescribeTrainingJob"})
    with pytest.raises(Retryable, match="too busy"):
        trainer.poll("faulty-1")


@pytest.mark.parametrize("fault", [{"kind": "error", "status": 500}, {"kind": "lost"}, {"kind": "cut"}])
def test_a_service_in_trouble_is_retryable(trainer, faults, fault):
    faults({**fault, "operation": "DescribeTrainingJob"})
    with pytest.raises(Retryable) as caught:
        trainer.poll("faulty-1")
    assert "aws" in caught.value.what


def test_the_loss_of_the_answer_to_a_submission_does_not_make_two_jobs(trainer, faults, tmp_path):
    faults({"kind": "cut", "times": 1, "operation": "CreateTrainingJob"})
    job = job_of(tmp_path)
    assert outcome(trainer, job).state is RunState.SUCCEEDED
    assert trainer.submit(job) == job.job_name


def test_a_slow_start_is_waited_for_and_can_be_cancelled(trainer, faults, tmp_path):
    faults({"kind": "slow_start", "delay_s": 30})
    job_id = trainer.submit(job_of(tmp_path))
    assert trainer.poll(job_id).state is RunState.STARTING
    trainer.cancel(job_id)
    deadline = time.monotonic() + 60
    while not (status := trainer.poll(job_id)).state.ended:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert status.state is RunState.STOPPED


def test_a_spot_job_that_is_preempted_goes_on_from_its_checkpoint(trainer, faults, tmp_path):
    faults({"kind": "preempt", "times": 1, "after_line": "wrote"})
    script = """
        import os, pathlib, time
        state = pathlib.Path(os.environ["LINTAS_CHECKPOINT_DIR"]) / "step"
        begin = int(state.read_text()) if state.exists() else 0
        print("from", begin)
        if not begin:
            state.write_text("7")
            print("wrote")
            time.sleep(60)
        """
    job = job_of(tmp_path, script, spot=True)
    status = outcome(trainer, job)
    assert status.state is RunState.SUCCEEDED, status
    assert list(trainer.logs(status.job_id)) == ["from 0", "wrote", "from 7"]


def test_a_spot_job_without_machines_gives_up_after_its_wait(aws, faults, tmp_path):
    assert PROVIDER.open_trainer is not None
    patient = replace(aws.config, options={**aws.config.options, "spot_wait_s": "0", "grace_s": "0"})
    trainer, sagemaker = PROVIDER.open_trainer(patient), sdk(aws, "sagemaker")
    faults({"kind": "stockout"})
    spot = training(
        "spot-1",
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1},
    )
    sagemaker.create_training_job(**spot)
    ended(sagemaker, "spot-1")
    status = trainer.poll("spot-1")
    assert (status.state, "no spot machine" in status.detail) == (RunState.STOCKOUT, True)


def test_a_machine_that_dies_is_a_failure_with_its_code(trainer, faults, tmp_path):
    faults({"kind": "crash", "delay_s": 0.3})
    status = outcome(trainer, job_of(tmp_path, "import time; time.sleep(30)"))
    assert (status.state, status.exit_code) == (RunState.FAILED, -9)


@pytest.mark.parametrize("damage", ["another file", "no archive"])
def test_an_output_that_was_altered_in_the_bucket_does_not_come_home(aws, trainer, tmp_path, damage):
    script = "import os; open(os.environ['LINTAS_OUTPUT_DIR'] + '/x', 'w').write('y')"
    job_id = outcome(trainer, job_of(tmp_path, script)).job_id
    s3, key = sdk(aws, "s3"), f"lintas-jobs/{job_id}/output/model.tar.gz"
    archive = tmp_path / "m.tar.gz"
    s3.download_file("lintas-work", key, str(archive))
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "m", filter="data")
    (tmp_path / "m" / "x").write_text("z")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "m", arcname=".")
    s3.put_object(Bucket="lintas-work", Key=key, Body=archive.read_bytes() if damage == "another file" else b"nothing")
    with pytest.raises(IntegrityError, match="1 files differ" if damage == "another file" else "cannot be read"):
        trainer.fetch_output(job_id, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_lost_log_is_empty_and_no_error(trainer, faults, tmp_path):
    status = outcome(trainer, job_of(tmp_path))
    faults({"kind": "lost_logs"})
    assert list(trainer.logs(status.job_id)) == []
    faults()
    assert list(trainer.logs(status.job_id)) == ["ran"]


def test_another_job_of_the_same_name_is_not_taken_for_ours(sagemaker, trainer, tmp_path):
    job = job_of(tmp_path)
    sagemaker.create_training_job(**training(job.job_name))
    with pytest.raises(Invalid, match="another training job"):
        trainer.submit(job)
    ended(sagemaker, job.job_name)


@pytest.mark.parametrize(
    ("option", "value"),
    [("role_arn", None), ("image", None), ("bucket", None), ("grace_s", "120"), ("volume_gib", "many")],
)
def test_an_option_that_is_missing_or_wrong_is_named(aws, option, value):
    assert PROVIDER.open_trainer is not None
    options = {key: text for key, text in aws.config.options.items() if key != option}
    options |= {option: value} if value is not None else {}
    with pytest.raises(Invalid, match=f"options.{option}"):
        PROVIDER.open_trainer(replace(aws.config, options=options))


def test_a_machine_that_sagemaker_does_not_have_is_invalid(trainer, tmp_path):
    with pytest.raises(Invalid, match="refuses the request"):
        trainer.submit(job_of(tmp_path, sku="ml.no.such"))


def test_a_job_longer_than_sagemaker_s_longest_is_refused(trainer, tmp_path):
    with pytest.raises(Invalid, match="longer than 28 days"):
        trainer.submit(job_of(tmp_path, timeout_s=1e9))


def test_a_request_larger_than_sagemaker_s_largest_is_refused(server):
    with pytest.raises(Invalid, match="more than 26214400 bytes"):
        server.predict("faulty", b"x" * 26214401)


def test_a_wrong_key_is_denied_without_showing_it(aws, tmp_path):
    assert PROVIDER.open_trainer is not None
    with pytest.raises(Denied, match="refused its credentials") as caught:
        PROVIDER.open_trainer(aws.wrong).submit(job_of(tmp_path))
    assert aws.wrong.credentials["secret_access_key"].reveal() != ""
    assert "AKIA" not in str(caught.value)


# Serving under faults


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EndpointSpec]:
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    home, frame = tmp_path_factory.mktemp("models"), pd.DataFrame({"x": [0.0, 1.0]})
    made: dict[str, EndpointSpec] = {}
    for version in ("1", "2"):
        model = LinearRegression().fit(frame, float(version) * frame["x"])
        signature = infer_signature(frame, model.predict(frame))
        more = {"input_example": frame.head(1), "pip_requirements": ["scikit-learn"]}
        mlflow.sklearn.save_model(model, home / version, signature=signature, **more)
        digest = model_digest(home / version)
        made[version] = EndpointSpec("faulty", "faulty", version, digest, str(home / version))
    return made


@pytest.fixture
def server(aws: ComputeCloud) -> Iterator[Server]:
    assert PROVIDER.open_server is not None
    server = PROVIDER.open_server(aws.config)
    yield server
    put_faults(aws.config.endpoint("training"), [])
    deadline = time.monotonic() + 60
    while server.describe("faulty") is not None:
        assert time.monotonic() < deadline
        try:
            server.delete("faulty")
        except Retryable:
            time.sleep(0.1)


def until(server: Server, good: Callable[[Endpoint], bool]) -> Endpoint:
    deadline = time.monotonic() + 60
    while (seen := server.describe("faulty")) is None or not good(seen):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


def deployed(server: Server, spec: EndpointSpec) -> Endpoint:
    """SageMaker deletes in its own time, and takes no new endpoint of the name before."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return server.deploy(spec)
        except Retryable:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def served(server: Server, spec: EndpointSpec) -> Endpoint:
    deployed(server, spec)
    return until(server, lambda seen: seen.healthy and seen.digest == spec.digest)


REQUEST = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[3.0]]}}).encode()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("stockout", "InsufficientInstanceCapacity"), ("unhealthy", "did not pass the ping health check")],
)
def test_an_endpoint_that_does_not_come_up_says_why_and_comes_up_when_deployed_again(
    server, faults, specs, kind, words
):
    faults({"kind": kind, "times": 1})
    deployed(server, specs["1"])
    seen = until(server, lambda seen: "does not start" in seen.detail)
    assert (seen.healthy, seen.digest) == (False, "")
    assert words in seen.detail
    deployed(server, specs["1"])
    assert until(server, lambda seen: seen.healthy).digest == specs["1"].digest


def test_an_update_that_sagemaker_undoes_is_not_taken_for_a_success(aws, server, faults, specs):
    served(server, specs["1"])
    faults({"kind": "unhealthy", "times": 1})
    deployed(server, specs["2"])
    seen = until(server, lambda seen: "version 2 does not start" in seen.detail)
    bare = sdk(aws, "sagemaker").describe_endpoint(EndpointName="faulty")
    assert bare["EndpointStatus"] == "InService"
    assert (seen.healthy, seen.version, seen.digest) == (True, "1", specs["1"].digest)
    assert served(server, specs["2"]).detail == ""


def test_no_quota_for_an_endpoint_is_a_stock_out(server, faults, specs):
    faults({"kind": "quota"})
    with pytest.raises(Stockout, match="has no quota"):
        deployed(server, specs["1"])
    assert server.describe("faulty") is None


@pytest.mark.parametrize("fault", [{"kind": "error", "status": 503}, {"kind": "lost"}, {"kind": "throttle"}])
def test_an_endpoint_that_does_not_answer_is_retryable_and_not_healthy(server, faults, specs, fault):
    served(server, specs["1"])
    faults({**fault, "operation": "InvokeEndpoint"})
    with pytest.raises(Retryable):
        server.predict("faulty", REQUEST)
    seen = server.describe("faulty")
    assert seen is not None
    assert (seen.healthy, seen.detail != "") == (False, True)
    faults()
    assert json.loads(server.predict("faulty", REQUEST))["predictions"] == pytest.approx([3.0])


def test_deleting_leaves_no_configuration_and_no_model(aws, server, specs):
    served(server, specs["1"])
    served(server, specs["2"])
    server.delete("faulty")
    sagemaker = sdk(aws, "sagemaker")
    deadline = time.monotonic() + 60
    while sagemaker.list_endpoints(NameContains="faulty")["Endpoints"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sagemaker.list_endpoint_configs(NameContains="faulty")["EndpointConfigs"] == []
    assert sagemaker.list_models(NameContains="faulty")["Models"] == []
    assert code_of(lambda: sagemaker.describe_endpoint(EndpointName="faulty"))[1].startswith("Could not find endpoint")


def test_endpoints_whose_long_names_begin_alike_do_not_lose_their_configurations(aws, server, specs):
    one, other = (f"{'long-' * 10}{end}" for end in ("one", "two"))
    sagemaker = sdk(aws, "sagemaker")
    for name in (one, other):
        server.deploy(replace(specs["1"], name=name))
    deadline = time.monotonic() + 60
    while not all((seen := server.describe(name)) is not None and seen.healthy for name in (one, other)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.delete(one)
    kept = sagemaker.describe_endpoint(EndpointName=other)["EndpointConfigName"]
    assert sagemaker.describe_endpoint_config(EndpointConfigName=kept)["ProductionVariants"]
    server.delete(other)


def test_variants_share_the_requests_by_weight(aws, server, specs):
    served(server, specs["1"])
    sagemaker, runtime = sdk(aws, "sagemaker"), sdk(aws, "sagemaker-runtime")
    config = sagemaker.describe_endpoint(EndpointName="faulty")["EndpointConfigName"]
    (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    both = [{**variant, "VariantName": name, "InitialVariantWeight": weight} for name, weight in (("a", 3), ("b", 1))]
    sagemaker.create_endpoint_config(EndpointConfigName="faulty-both", ProductionVariants=both)
    sagemaker.update_endpoint(EndpointName="faulty", EndpointConfigName="faulty-both")
    code, message = code_of(lambda: sagemaker.update_endpoint(EndpointName="faulty", EndpointConfigName=config))
    assert (code, "in-progress" in message) == ("ValidationException", True)
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName="faulty", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    ask = {"EndpointName": "faulty", "ContentType": "application/json", "Body": REQUEST}
    chosen = [runtime.invoke_endpoint(**ask)["InvokedProductionVariant"] for _ in range(60)]
    assert 30 < chosen.count("a") < 58
    assert runtime.invoke_endpoint(**ask, TargetVariant="b")["InvokedProductionVariant"] == "b"
    sagemaker.delete_endpoint_config(EndpointConfigName="faulty-both")


def test_predicting_without_an_endpoint_is_not_found_and_an_error_is_a_lintas_error(aws, server):
    runtime = sdk(aws, "sagemaker-runtime")
    code, message = code_of(lambda: runtime.invoke_endpoint(EndpointName="none", Body=b"{}"))
    assert (code, message) == ("ValidationError", "Endpoint none of account 123456789012 not found.")
    with pytest.raises(NotFound) as caught:
        server.predict("none", b"{}")
    assert isinstance(caught.value, LintasError)


# Nothing is left behind


def test_a_double_that_is_killed_takes_its_jobs_and_endpoints_along(object_clouds, tmp_path, specs):
    with ExitStack() as running:
        aws = ComputeClouds(tmp_path, object_clouds, running)["aws"]
        assert PROVIDER.open_trainer is not None
        assert PROVIDER.open_server is not None
        PROVIDER.open_store(aws.config, "raw").put("flights/rows.txt", [b"one\n"], size_bytes=4)
        trainer = PROVIDER.open_trainer(aws.config)
        job_id = trainer.submit(job_of(tmp_path, "import time\nprint('up')\ntime.sleep(60)"))
        served(PROVIDER.open_server(aws.config), specs["1"])
        deadline = time.monotonic() + 60
        while list(trainer.logs(job_id)) != ["up"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        processes = [(pid, start_ticks(pid)) for pid in descendants(aws.pid)]
        assert len(processes) >= 5  # the double, launcher and command, zygote and scoring process
        os.kill(aws.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while left := [pid for pid, ticks in processes if is_same_process(pid, ticks)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
