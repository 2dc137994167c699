"""What a store promises whose provider's own service fetches objects by jobs: Storage Transfer Service and DataSync.

The services are the twin's (`deployments/local/storage_transfer.py`, `datasync.py`), which really copy; what arrived is
read back by rclone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.local.faults import put_faults
from deployments.local.object_stores import console_script, datasync, storage_transfer
from deployments.local.ports import free_ports
from tasks.core.attributes import Attributes
from tasks.core.cloud import CloudConfig
from tasks.core.dataset import DIGEST_METADATA, PULLS_PREFIX, Entry, content_digest
from tasks.core.errors import IntegrityError, LintasError, PreconditionFailed, Retryable, Stockout
from tasks.core.plane import CopiedObject, Load
from tasks.core.plane.jobs import JobPlane, jobs_of
from tasks.core.plane.routes import plane_for, route_between, why_no_pull
from tasks.core.ports import Store
from tasks.records import Records
from tests.command import lintas
from tests.conformance.stores import MIB, keys, open_store, put, random_bytes, read
from tests.faults.mover_process import facts_of
from tests.servers import ObjectClouds, rclone_environment

pytest.importorskip("google.cloud.storage_transfer_v1", reason="google-cloud-storage-transfer is not installed")

PAIRS = [("google", "aws"), ("google", "azure"), ("aws", "azure"), ("aws", "google")]
"""The provider whose service pulls, and the one that it pulls from."""

once_a_service = pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[-1]], indirect=True, ids="-from-".join)

KEPT = Attributes("text/csv", cache_control="no-cache", tags={"stage": "raw"})
FAILED = {"google": "FAILED", "aws": "Crashed"}
VANISHED = {"google": "FAILED: NOT_FOUND 1", "aws": "FilesFailed 1"}
_SECRET = {
    "google": "projects/1/secrets/lintas-{}",
    "aws": "arn:aws:secretsmanager:us-east-1:123456789012:secret:lintas-{}",
}
_ROLE = "arn:aws:iam::123456789012:role/lintas-datasync"


@pytest.fixture(scope="module")
def services(object_clouds: ObjectClouds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, CloudConfig]]:
    """Google with Storage Transfer Service and AWS with DataSync, each of which may read from two others."""
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    aws, azure, google = (object_clouds[name] for name in ("aws", "azure", "google"))
    directory = tmp_path_factory.mktemp("transfers")
    token, secrets, kept = directory / "token", directory / "secrets.json", directory / "kept.json"
    token.write_text(google.credentials["token"].reveal())
    sas = generate_account_sas(
        azure.option("account"),
        azure.credentials["account_key"].reveal(),
        ResourceTypes(object=True),
        AccountSasPermissions(read=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    key = {name: aws.credentials[name].reveal() for name in ("access_key_id", "secret_access_key")}
    named = {(pulls, near): _SECRET[pulls].format(near) for pulls, near in PAIRS}
    secrets.write_text(json.dumps({named["google", "aws"]: key, named["google", "azure"]: {"sas_token": sas}}))
    manager = {named["aws", "azure"]: sas, named["aws", "google"]: "the secret of an HMAC key"}
    kept.write_text(json.dumps({**key, "google_token": token.read_text(), "kept": manager}))
    ports = free_ports(2)
    processes = {
        "google": storage_transfer(ports[0], directory / "google.log", token, google, aws, azure, secrets),
        "aws": datasync(ports[1], directory / "aws.log", aws, azure, google, kept),
    }
    more = {"google": {}, "aws": {"pull_role": _ROLE, "pull_key_google": "GOOG1E-ID"}}
    with ExitStack() as running:
        for process in processes.values():
            running.callback(process.stop)
            process.start()
        for process in processes.values():
            process.wait_ready()
        yield {
            cloud.name: dataclasses.replace(
                cloud,
                endpoints={**cloud.endpoints, "transfers": f"http://127.0.0.1:{port}"},
                options={
                    **cloud.options,
                    "pulls": "true",
                    **{f"pull_from_{near}": secret for (pulls, near), secret in named.items() if pulls == cloud.name},
                    **more[cloud.name],
                },
            )
            for cloud, port in zip((google, aws), ports, strict=True)
        }


@pytest.fixture(scope="module", params=PAIRS, ids="-from-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def service(services: dict[str, CloudConfig], pair: tuple[str, str]) -> CloudConfig:
    return services[pair[0]]


@pytest.fixture(scope="module")
def far(service: CloudConfig) -> Store:
    store = open_store(service, f"transferred-{uuid.uuid4().hex[:8]}")
    store.create_bucket()
    return store


@pytest.fixture(scope="module")
def near(object_clouds: ObjectClouds, pair: tuple[str, str]) -> Store:
    store = open_store(object_clouds[pair[1]], f"transferred-from-{uuid.uuid4().hex[:8]}")
    store.create_bucket()
    return store


@pytest.fixture
def faults(service: CloudConfig) -> Iterator[Callable[..., None]]:
    url = service.endpoint("transfers")

    def befall(kind: str, **about: Any) -> None:
        put_faults(url, [{"kind": kind, "times": 1, **about}])

    yield befall
    put_faults(url, [])


def load(store: Store, prefix: str, path: str, content: bytes, **kept: Any) -> Load:
    digest, size_bytes = content_digest([content])
    version = put(store, f"{prefix}{path}", content, **kept)
    return Load(Entry(path, size_bytes, digest, version), f"{prefix}{path}", f"to/{prefix}{path}", None)


def carry(loads: list[Load], near: Store, far: Store, said: list[str] | None = None) -> dict[str, CopiedObject]:
    """Carry by the planned route, the one behind it included."""
    done: dict[str, CopiedObject] = {}
    plane = plane_for(route_between(near, far), say=(said if said is not None else []).append)
    plane.carry(loads, near, far, lambda load, item: done.update({load.entry.path: item}))
    return done


def nothing_left(service: CloudConfig, far: Store) -> bool:
    """Whether neither an object nor a list of names nor a job remains, as a plain client of the service sees it."""
    return not keys(far, PULLS_PREFIX) and not jobs(service)


def jobs(service: CloudConfig) -> list[str]:
    """What the service has of jobs, tasks and locations."""
    if service.provider == "google":
        return [job["name"] for job in google_api(service, "GET", "transferJobs").get("transferJobs", ())]
    client = datasync_client(service)
    locations = [found["LocationArn"] for found in client.list_locations()["Locations"]]
    return [found["TaskArn"] for found in client.list_tasks()["Tasks"]] + locations


def remove(service: CloudConfig, name: str) -> None:
    """Delete one of them."""
    if service.provider == "google":
        google_api(service, "DELETE", f"{name}?projectId={service.option('project')}")
    elif ":task/" in name:
        datasync_client(service).delete_task(TaskArn=name)
    else:
        datasync_client(service).delete_location(LocationArn=name)


def google_api(service: CloudConfig, method: str, path: str) -> dict[str, Any]:
    import requests

    bearer = {"authorization": f"Bearer {service.credentials['token'].reveal()}"}
    answer = requests.request(method, f"{service.endpoint('transfers')}/v1/{path}", headers=bearer, timeout=60)
    answer.raise_for_status()
    return answer.json()


def datasync_client(service: CloudConfig) -> Any:
    import boto3

    session = boto3.Session(
        service.credentials["access_key_id"].reveal(), service.credentials["secret_access_key"].reveal()
    )
    return session.client("datasync", service.region, endpoint_url=service.endpoint("transfers"))


def test_objects_arrive_by_one_job_with_what_is_kept_with_them(
    service: CloudConfig, near: Store, far: Store, prefix: str
) -> None:
    contents = {"a,b größe+%.csv": random_bytes(1), "deep/er/x": random_bytes(2 * MIB + 1), "empty": b""}
    loads = [
        load(near, prefix, path, content, metadata={"team": "blue"}, attributes=KEPT)
        for path, content in contents.items()
    ]

    assert route_between(near, far) == "pull"
    assert why_no_pull(near, far) == ""
    done = carry(loads, near, far)

    for path, content in contents.items():
        command = [console_script("rclone"), "cat", f"{service.name}:{far.bucket}/to/{prefix}{path}"]
        there = subprocess.run(command, env=rclone_environment(service), check=True, capture_output=True, timeout=60)
        assert there.stdout == content
        assert (done[path].route, done[path].version) == ("pull", far.head(f"to/{prefix}{path}").version)
        found = far.head(f"to/{prefix}{path}")
        assert found.metadata == {"team": "blue", DIGEST_METADATA: done[path].digest}
        assert dataclasses.replace(found.attributes, tier="") == KEPT
    assert all("blake3, read back" in item.verified_by or "md5" in item.verified_by for item in done.values())
    assert nothing_left(service, far)


def test_what_a_job_may_not_bring_goes_another_way_and_is_told(near: Store, far: Store, prefix: str) -> None:
    plain = load(near, prefix, "plain", b"plain")
    labelled = load(near, prefix, "labelled", b"labelled", metadata={DIGEST_METADATA: "0" * 64})
    renamed = dataclasses.replace(load(near, prefix, "renamed", b"renamed"), key=f"to/{prefix}other")
    private = dataclasses.replace(load(near, prefix, "private", b"x", metadata={"name": "Budi"}), keeps_labels=False)
    theirs = put(far, f"to/{prefix}replaced", b"old")
    replaced = dataclasses.replace(load(near, prefix, "replaced", b"new"), replaces=theirs)
    said: list[str] = []

    done = carry([plain, labelled, private, renamed, replaced], near, far, said)

    assert {path: item.route for path, item in done.items()} == {
        "plain": "pull", "labelled": "pull", "renamed": "pull", "replaced": "pull",
        # Google would take the metadata along.
        "private": "direct" if far.cloud == "google" else "pull",
    }  # fmt: skip
    assert read(far, f"to/{prefix}other") == b"renamed"
    assert far.head(f"to/{prefix}labelled").metadata == {DIGEST_METADATA: labelled.entry.digest}
    assert read(far, f"to/{prefix}replaced") == b"new"
    assert "name" not in far.head(f"to/{prefix}private").metadata
    assert len(said) == (far.cloud == "google")
    assert all("1 objects pass through this machine instead" in sentence for sentence in said)


@once_a_service
def test_a_job_that_fails_is_finished_by_another_way(
    service: CloudConfig, near: Store, far: Store, prefix: str, faults: Callable[..., None]
) -> None:
    loads = [load(near, prefix, path, path.encode()) for path in ("1", "2", "3")]
    said: list[str] = []
    faults("crash", target="*/2")

    done = carry(loads, near, far, said)

    assert [done[path].route for path in ("1", "2", "3")] == ["pull", "direct", "direct"]
    assert [read(far, f"to/{prefix}{path}") for path in ("1", "2", "3")] == [b"1", b"2", b"3"]
    assert "2 objects pass through this machine instead" in said[0]
    assert FAILED[far.cloud] in said[0]
    assert nothing_left(service, far)


@pytest.mark.parametrize("pair", [PAIRS[0]], indirect=True)
def test_a_service_without_quota_is_passed_by(
    near: Store, far: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.providers.google.rest import Rest

    def exhausted(*_: Any, **__: Any) -> Any:
        raise Stockout("the quota of 'google' has no room for transfer job", "ask Google for more of it")

    monkeypatch.setattr(Rest, "post", exhausted)
    said: list[str] = []

    done = carry([load(near, prefix, "1", b"1")], near, far, said)

    assert done["1"].route == "direct"
    assert "has no room for transfer job" in said[0]
    assert keys(far, PULLS_PREFIX) == []


@once_a_service
def test_a_job_that_hangs_is_ended_before_another_way_is_taken(
    service: CloudConfig, near: Store, prefix: str, far: Store, faults: Callable[..., None]
) -> None:
    hasty = open_store(dataclasses.replace(service, options={**service.options, "pull_timeout_s": "0.5"}), far.bucket)
    said: list[str] = []
    faults("slow_start", delay_s=600)

    done = carry([load(near, prefix, "1", b"1")], near, hasty, said)

    assert done["1"].route == "direct"
    assert "not done after 0.5 s" in said[0]
    assert nothing_left(service, far)


@once_a_service
def test_a_job_that_a_killed_move_left_is_ended_by_the_next_one(
    service: CloudConfig,
    object_clouds: ObjectClouds,
    near: Store,
    far: Store,
    prefix: str,
    faults: Callable[..., None],
    tmp_path: Path,
) -> None:
    loads, path = [load(near, prefix, path, path.encode()) for path in ("1", "2")], tmp_path / "records.sqlite"
    work = {
        "near": facts_of(object_clouds[near.cloud]),
        "far": facts_of(service),
        "near_bucket": near.bucket,
        "far_bucket": far.bucket,
        "loads": [
            [[each.entry.path, each.entry.size_bytes, each.entry.digest, each.entry.version], each.source_key, each.key]
            for each in loads
        ],
        "prefix": f"to/{prefix}",
        "records": str(path),
    }
    faults("slow_start", delay_s=600)
    died = subprocess.run(
        [sys.executable, "-m", "tests.conformance.dying_pull"], input=json.dumps(work), text=True, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert jobs(service)
    assert keys(far, PULLS_PREFIX)

    done: dict[str, CopiedObject] = {}
    with Records(path) as records:
        plane = plane_for("pull", uploads=records.uploads, key_prefix=f"to/{prefix}")
        plane.carry(loads, near, far, lambda each, item: done.update({each.entry.path: item}))
        assert records.uploads.open(far.cloud, far.bucket, "") == []

    assert [done[path].route for path in ("1", "2")] == ["pull", "pull"]
    assert nothing_left(service, far)


@once_a_service
def test_wrong_bytes_are_removed_and_the_others_counted(
    near: Store, far: Store, prefix: str, faults: Callable[..., None]
) -> None:
    loads = [load(near, prefix, path, path.encode()) for path in ("1", "2", "3")]
    done: list[str] = []
    faults("wrong_bytes", target="*/2")

    with pytest.raises(IntegrityError):
        JobPlane().carry(loads, near, far, lambda _load, item: done.append(item.path))

    assert sorted(done) == ["1", "3"]
    assert keys(far, f"to/{prefix}") == [f"to/{prefix}1", f"to/{prefix}3"]


@contextmanager
def meanwhile(far: Store, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> Iterator[None]:
    """Something happens after the plane has looked and before the job reads."""
    jobs = jobs_of(far)
    assert jobs is not None
    real = jobs.running

    @contextmanager
    def running(*order: Any) -> Iterator[Callable[[], str | None]]:
        happens()
        with real(*order) as look:
            yield look

    monkeypatch.setattr(jobs, "running", running)
    yield
    monkeypatch.undo()


@once_a_service
def test_a_source_that_changes_in_mid_job_leaves_nothing(
    near: Store, far: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = [load(near, prefix, path, path.encode()) for path in ("1", "2")]

    with (
        meanwhile(far, monkeypatch, lambda: put(near, f"{prefix}2", b"other")),
        pytest.raises(PreconditionFailed),
    ):
        carry(loads, near, far)

    assert keys(far, f"to/{prefix}") == [f"to/{prefix}1"]


@once_a_service
def test_a_source_object_that_vanishes_is_named(
    near: Store, far: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = [load(near, prefix, path, path.encode()) for path in ("1", "2")]
    said: list[str] = []

    with (
        meanwhile(far, monkeypatch, lambda: near.delete(f"{prefix}2")),
        pytest.raises(LintasError, match=f"{prefix}2|'2'"),
    ):
        carry(loads, near, far, said)

    assert VANISHED[far.cloud] in said[0]
    assert keys(far, f"to/{prefix}") == [f"to/{prefix}1"]


@once_a_service
def test_what_somebody_else_writes_meanwhile_stays(
    near: Store, far: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = [load(near, prefix, path, path.encode()) for path in ("1", "2")]

    with (
        meanwhile(far, monkeypatch, lambda: put(far, f"to/{prefix}2", b"theirs")),
        pytest.raises(PreconditionFailed),
    ):
        carry(loads, near, far)

    assert read(far, f"to/{prefix}2") == b"theirs"


@once_a_service
def test_a_job_that_cannot_be_ended_is_named(
    service: CloudConfig, near: Store, far: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.providers.aws import datasync as aws
    from tasks.providers.google.rest import Rest

    real, done = aws._Task._call, list[str]()

    def lost(*_: Any, **__: Any) -> Any:
        raise Retryable("no answer", "try again")

    def lost_deletion(task: Any, operation: str, **asked: Any) -> Any:
        return lost() if operation.startswith("delete") else real(task, operation, **asked)

    monkeypatch.setattr(Rest, "delete", lost)
    monkeypatch.setattr(aws._Task, "_call", lost_deletion)

    with pytest.raises(Retryable, match="may still") as told:
        JobPlane().carry([load(near, prefix, "1", b"1")], near, far, lambda _load, item: done.append(item.path))

    assert done == ["1"]
    left = [*jobs(service), *keys(far, PULLS_PREFIX)]
    assert len(left) >= 2
    assert all(name in str(told.value) for name in left)
    for name in left:
        if name.startswith(PULLS_PREFIX):
            far.delete(name)
        else:
            remove(service, name)
    assert nothing_left(service, far)


@pytest.mark.parametrize(
    ("pulls", "source", "options", "because"),
    [
        ("google", "aws", {"pull_from_aws": ""}, "pull_from_aws does not name the secret or the role"),
        ("google", "aws", {"pull_from_aws": "AKIA-a-plain-key"}, "neither projects/NUMBER/secrets/NAME nor"),
        ("aws", "azure", {"pull_from_azure": "AKIA-a-plain-key"}, "pull_from_azure does not name a secret"),
        ("aws", "google", {"pull_key_google": ""}, "pull_key_google does not name the HMAC key"),
        ("aws", "google", {"pull_role": ""}, "pull_role does not name the role"),
    ],
)
def test_without_a_reference_to_credentials_nothing_is_pulled(
    services: dict[str, CloudConfig],
    object_clouds: ObjectClouds,
    pulls: str,
    source: str,
    options: dict[str, str],
    because: str,
) -> None:
    near, cloud = open_store(object_clouds[source], "any"), services[pulls]
    far = open_store(dataclasses.replace(cloud, options={**cloud.options, **options}), "any")

    assert route_between(near, far) == "direct"
    assert because in why_no_pull(near, far)
    assert "AKIA" not in why_no_pull(near, far)


def test_a_stand_in_is_nothing_that_the_real_service_reads(
    service: CloudConfig, object_clouds: ObjectClouds, pair: tuple[str, str]
) -> None:
    endpoints = {"objects": "https://objects.example"}
    store = open_store(dataclasses.replace(service, endpoints=endpoints), "any")

    assert "is not where the service would look" in why_no_pull(open_store(object_clouds[pair[1]], "any"), store)


def test_without_leave_nothing_is_pulled(object_clouds: ObjectClouds, pair: tuple[str, str]) -> None:
    far, near = (open_store(object_clouds[name], "any") for name in pair)

    assert route_between(near, far) == "direct"
    assert why_no_pull(near, far) == ""


def test_the_double_of_google_takes_official_messages_alone(services: dict[str, CloudConfig]) -> None:
    import requests

    google = services["google"]
    url = f"{google.endpoint('transfers')}/v1/transferJobs"
    bearer = {"authorization": f"Bearer {google.credentials['token'].reveal()}"}

    unknown = requests.post(url, json={"projectID": "x"}, headers=bearer, timeout=60)
    nobody = requests.post(url, json={}, timeout=60)

    assert (unknown.status_code, nobody.status_code) == (400, 401)
    assert "projectID" in unknown.json()["error"]["message"]


def test_a_move_tells_its_route_in_the_plan_and_why_it_is_not_a_pull(
    services: dict[str, CloudConfig], object_clouds: ObjectClouds, tmp_path: Path
) -> None:
    import yaml

    near = open_store(object_clouds["aws"], f"moved-{uuid.uuid4().hex[:8]}")
    near.create_bucket()
    put(near, "data/one.csv", b"1,2\n")
    google, aws = services["google"], object_clouds["aws"]
    secrets = {f"{cloud.name}_{name}": secret for cloud in (google, aws) for name, secret in cloud.credentials.items()}
    environment = {**os.environ, **{name.upper(): secret.reveal() for name, secret in secrets.items()}}
    environment |= {"LINTAS_CONFIG": str(tmp_path / "lintas.yaml"), "SIGNING": "s" * 32, "PSEUDONYM": "p" * 32}

    def move(to: str, without: str = "") -> tuple[dict[str, Any], str]:
        clouds = {
            cloud.name: {
                "provider": cloud.provider,
                "region": cloud.region,
                "jurisdiction": "EU",
                "endpoints": dict(cloud.endpoints),
                "credentials": {name: f"env:{cloud.name.upper()}_{name.upper()}" for name in cloud.credentials},
                "options": {name: value for name, value in cloud.options.items() if name != without},
            }
            for cloud in (google, aws)
        }
        gate = {"signing_key": "env:SIGNING", "pseudonym_key": "env:PSEUDONYM"}
        settings = {"clouds": clouds, "gate": gate, "state_dir": str(tmp_path / "state"), "policies_dir": str(tmp_path)}
        (tmp_path / "lintas.yaml").write_text(yaml.safe_dump(settings))
        rules = [{"name": "unread", "entities": ["UNREADABLE"], "action": "allow"}]
        policy = {"version": 1, "name": "open", "residency": {"allowed": ["EU"]}, "rules": rules}
        (tmp_path / "open.yaml").write_text(yaml.safe_dump(policy))
        way = (f"aws://{near.bucket}/data", f"google://{to}/data")
        done = lintas("move", *way, "--policy", "open", "--json", env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    pulled, _ = move(f"moved-{uuid.uuid4().hex[:8]}")
    closed, said = move(f"moved-{uuid.uuid4().hex[:8]}", without="pull_from_aws")

    assert (pulled["route"], closed["route"]) == ("pull", "direct")
    assert "google does not pull: clouds.google.options.pull_from_aws does not name" in said
