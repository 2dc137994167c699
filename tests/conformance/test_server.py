"""What every server does, whichever provider it belongs to: one suite, run against a real scoring service of each."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from deployments.local.ports import free_ports
from deployments.local.proc import descendants
from deployments.local.processes import Process, http_ready
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.errors import Denied, IntegrityError, Invalid, NotFound, Retryable
from tasks.core.evaluation import model_digest
from tasks.core.ports import Server
from tasks.core.reconcile import reconcile_until
from tasks.core.release import Endpoint, EndpointSpec, Release, ReleaseState, request_release, roll_back
from tasks.records import Records
from tasks.registry import providers
from tests.accounts import PATIENCE, own_name
from tests.compute_clouds import SERVING_CLOUDS, ComputeCloud

NAME, OTHER = own_name("flights"), own_name("other")
TOKEN = "token-of-the-scoring-host"
CANARY = "budi.santoso@example.com"
Result = TypeVar("Result")
ROWS = [[0.1, 0.9], [0.9, 0.1], [0.4, 0.6]]


def request_of(rows: list[list[Any]], columns: tuple[str, ...] = ("delay", "distance")) -> bytes:
    return json.dumps({"dataframe_split": {"columns": list(columns), "data": rows}}).encode()


@dataclass
class Site:
    """A server, the models to try it with, and what its cloud needs for being reached."""

    server: Server
    cloud: CloudConfig
    open_server: Callable[[CloudConfig], Server]
    specs: dict[str, EndpointSpec]
    answers: dict[str, list[float]]
    wrong: Callable[[], CloudConfig]
    refusal: Callable[[], str]
    headers: Callable[[str, bytes], Mapping[str, str]]
    processes: Callable[[], set[int]]
    deployed: set[str] = field(default_factory=set)

    def deploy(self, version: str, name: str = NAME) -> Endpoint:
        self.deployed.add(name)
        return insisted(lambda: self.server.deploy(replace(self.specs[version], name=name)))

    def delete(self, name: str = NAME) -> None:
        insisted(lambda: self.server.delete(name))

    def ask(self, url: str, payload: bytes) -> bytes:
        """Ask the URL as any client does."""
        request = urllib.request.Request(url, payload, dict(self.headers(url, payload)))
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def serve(self, version: str, name: str = NAME) -> Endpoint:
        self.deploy(version, name)
        digest = self.specs[version].digest
        return self.wait(lambda seen: seen.healthy and seen.digest == digest, name)

    def wait(self, good: Callable[[Endpoint], bool], name: str = NAME, timeout_s: float = 120 * PATIENCE) -> Endpoint:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            seen = self.server.describe(name)
            if seen is not None and good(seen):
                return seen
            time.sleep(0.05)
        raise AssertionError(f"not so after {timeout_s} s: {seen}")

    def predict(self, name: str = NAME) -> list[float]:
        return json.loads(self.server.predict(name, request_of(ROWS)))["predictions"]


def insisted(call: Callable[[], Result], timeout_s: float = 120 * PATIENCE) -> Result:
    """A cloud that is still at work on an endpoint says so by `Retryable`, and is asked again."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except Retryable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@dataclass
class Host:
    """The scoring host of an on-premises site as a process, with its root directory."""

    root: Path
    log: Path
    port: int
    process: Process | None = None

    def start(self) -> Process:
        return self.launch(http_ready(f"http://127.0.0.1:{self.port}/ping")).wait_ready()

    def launch(self, ready: Callable[[], bool]) -> Process:
        token_file = self.root.parent / "token"
        token_file.write_text(TOKEN + "\n")
        self.process = Process(
            "scoring-host",
            [
                *(sys.executable, "-m", "tasks.providers.onprem.scoring_host", "--port", str(self.port)),
                *("--root", str(self.root), "--token-file", str(token_file)),
            ],
            ready,
            self.log,
            environment={"PRIVATE_CANARY": CANARY},
        )
        return self.process.start()

    def describe(self, name: str = NAME) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/endpoints/{name}"
        return json.load(urllib.request.urlopen(urllib.request.Request(url, headers=bearer())))

    def processes(self) -> set[int]:
        assert self.process is not None
        assert self.process.pid is not None
        return set(descendants(self.process.pid))

    def zygote_pid(self) -> int:
        return int(status_of(self.describe()["pid"])["PPid"])


def bearer() -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def gone(pid: int, within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists() or status_of(pid)["State"].startswith("Z"):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, EndpointSpec], dict[str, list[float]]]:
    """Two sound versions, one without a signature, and one that cannot be loaded; and what they predict here."""
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    home = tmp_path_factory.mktemp("models")
    frame = pd.DataFrame(ROWS, columns=["delay", "distance"])
    answers: dict[str, list[float]] = {}
    for version, slope in (("1", 1.0), ("2", 5.0)):
        model = LinearRegression().fit(frame, slope * frame["delay"] + frame["distance"])
        answers[version] = [float(value) for value in model.predict(frame)]
        signature = infer_signature(frame, model.predict(frame))
        # Without a list of requirements MLflow would find one out, in ten seconds.
        more = {"pip_requirements": ["scikit-learn"]}
        mlflow.sklearn.save_model(model, home / version, signature=signature, input_example=frame.head(1), **more)
        if version == "1":
            mlflow.sklearn.save_model(model, home / "unsigned", **more)
    shutil.copytree(home / "2", home / "broken")
    for file in (home / "broken").glob("model.*"):
        file.write_bytes(b"not a model")
    specs = {
        place.name: EndpointSpec(NAME, NAME, place.name, model_digest(place), str(place)) for place in home.iterdir()
    }
    return specs, answers


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("scoring")
    running = Host(directory / "root", directory / "host.log", free_ports(1)[0])
    running.start()
    yield running
    assert running.process is not None
    running.process.stop()


def onprem_cloud(port: int, token: str = TOKEN) -> CloudConfig:
    return CloudConfig(
        "edge",
        "onprem",
        endpoints={"serving": f"http://127.0.0.1:{port}"},
        credentials={"token": Secret("test:token", lambda _: token)},
    )


@pytest.fixture
def onprem(models, host: Host) -> Iterator[Site]:
    from tasks.providers.onprem.server import open_server

    cloud = onprem_cloud(host.port)
    yield from trying(
        Site(
            open_server(cloud),
            cloud,
            open_server,
            *models,
            wrong=lambda: onprem_cloud(host.port, "wrong"),
            refusal=lambda: "refuses the token",
            headers=lambda _url, _body: bearer(),
            processes=host.processes,
        )
    )


def cloud_site(compute: ComputeCloud, models) -> Site:
    """The serving service of a cloud."""
    open_server = providers()[compute.config.provider].open_server
    assert open_server is not None
    return Site(
        open_server(compute.config),
        compute.config,
        open_server,
        *models,
        wrong=lambda: compute.wrong,
        refusal=lambda: compute.refusal,
        headers=lambda url, body: compute.headers(url, body),
        processes=lambda: set(descendants(compute.pid)),
    )


def trying(site: Site) -> Iterator[Site]:
    yield site
    for name in site.deployed:
        site.delete(name)


@pytest.fixture(params=["onprem", *SERVING_CLOUDS])
def site(request: pytest.FixtureRequest, models) -> Iterator[Site]:
    """The server of each provider that has one; a new cloud joins in `tests.compute_clouds`."""
    if request.param == "onprem":
        yield request.getfixturevalue("onprem")
    else:
        yield from trying(cloud_site(request.getfixturevalue("compute_clouds")[request.param], models))


# What every server does


def test_what_is_served_predicts_as_the_model_does_here(site):
    seen = site.serve("1")
    assert (seen.cloud, seen.name) == (site.cloud.name, NAME)
    assert (seen.digest, seen.version) == (site.specs["1"].digest, "1")
    assert site.predict() == pytest.approx(site.answers["1"])


def test_the_endpoints_url_answers_the_scoring_protocol_to_any_client(site):
    seen = site.serve("1")
    assert json.loads(site.ask(seen.url, request_of(ROWS)))["predictions"] == pytest.approx(site.answers["1"])


def test_deploying_tells_no_health_that_was_not_seen(site):
    seen = site.deploy("1")
    assert seen.digest in ("", site.specs["1"].digest)


def test_the_same_spec_again_changes_nothing(site):
    before = site.serve("1")
    processes = site.processes()
    assert site.deploy("1") == before
    time.sleep(0.3)
    assert site.server.describe(NAME) == before
    assert site.processes() == processes


def test_an_update_under_load_loses_no_request_and_mixes_no_answers(site):
    site.serve("1")
    failed: list[str] = []
    wrong: list[list[float]] = []
    counted = [0] * 4
    stop = threading.Event()
    good = [pytest.approx(answer) for answer in site.answers.values()]

    def ask(number: int) -> None:
        server = site.open_server(site.cloud)
        while not stop.is_set():
            try:
                answer = json.loads(server.predict(NAME, request_of(ROWS)))["predictions"]
                if answer not in good:
                    wrong.append(answer)
            except Exception as error:
                failed.append(repr(error))
            counted[number] += 1

    with ThreadPoolExecutor(len(counted)) as pool:
        try:
            asking = [pool.submit(ask, number) for number in range(len(counted))]
            for update, version in enumerate(itertools.cycle(("2", "1"))):
                if update >= 4 and min(counted) > 20:
                    break
                assert update < 40, counted
                site.serve(version)
                assert site.predict() == pytest.approx(site.answers[version])
        finally:
            stop.set()
    for each in asking:
        each.result()
    assert (failed, wrong) == ([], [])


def test_a_version_that_does_not_come_up_leaves_the_one_before_serving_and_says_why(site):
    site.serve("1")
    site.deploy("broken")
    seen = site.wait(lambda seen: "does not start" in seen.detail)
    assert (seen.healthy, seen.version, seen.digest) == (True, "1", site.specs["1"].digest)
    assert site.predict() == pytest.approx(site.answers["1"])
    assert site.serve("1").detail == ""


def test_a_model_without_a_signature_is_not_served(site):
    refused: Invalid | None = None
    try:
        site.deploy("unsigned")
    except Invalid as error:
        refused = error
    if refused is not None:  # Where starting takes minutes, the model is looked at before.
        assert "no signature" in str(refused)
        assert site.server.describe(NAME) is None
        return
    seen = site.wait(lambda seen: "no signature" in seen.detail)
    assert (seen.healthy, seen.digest) == (False, "")


def test_two_endpoints_do_not_disturb_each_other(site):
    site.serve("1")
    site.serve("2", OTHER)
    site.delete()
    assert site.server.describe(NAME) is None
    assert site.predict(OTHER) == pytest.approx(site.answers["2"])


def test_deleting_is_idempotent(site):
    site.serve("1")
    site.delete()
    site.delete()
    assert site.server.describe(NAME) is None


def test_an_endpoint_that_does_not_exist_is_not_found(site):
    assert site.server.describe("nothing") is None
    with pytest.raises(NotFound, match="there is no endpoint 'nothing'"):
        site.server.predict("nothing", request_of(ROWS))


UNFIT = [
    (request_of([[0.1]], ("delay",)), r"Model is missing inputs \['distance'\]"),
    (request_of([[CANARY, 0.2]]), "Failed to convert column delay to type 'float64'"),
    (json.dumps({"rows": [CANARY]}).encode(), "exactly one of dataframe_split"),
    (f"{{ {CANARY}".encode(), "the body is not JSON"),
    (json.dumps([CANARY]).encode(), "exactly one of dataframe_split"),
    (json.dumps({"dataframe_split": {"data": CANARY}}).encode(), "does not fit the model's signature"),
]


def test_a_request_that_does_not_fit_is_refused_in_one_line_without_its_values(site):
    url = site.serve("1").url
    for payload, reason in UNFIT:
        with pytest.raises(Invalid, match=reason) as caught:
            site.server.predict(NAME, payload)
        assert CANARY not in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(urllib.error.HTTPError) as refused:
            site.ask(url, payload)
        assert CANARY not in refused.value.read().decode()


def test_files_that_are_not_what_the_spec_says_are_refused(site):
    site.deployed.add(NAME)
    with pytest.raises(IntegrityError, match="another digest"):
        site.server.deploy(replace(site.specs["1"], digest="a" * 64))
    assert site.server.describe(NAME) is None


def test_a_directory_without_a_model_is_refused(site, tmp_path):
    with pytest.raises(Invalid, match="holds no MLflow model"):
        site.server.deploy(replace(site.specs["1"], digest="b" * 64, model_path=str(tmp_path)))


def test_a_wrong_key_is_denied(site):
    with pytest.raises(Denied, match=site.refusal()) as caught:
        site.open_server(site.wrong()).describe(NAME)
    secrets = [secret.reveal() for secret in site.wrong().credentials.values()]
    assert not any(secret in str(caught.value) for secret in secrets)


def test_a_service_that_is_down_is_retryable_and_named(site):
    (port,) = free_ports(1)
    cloud = replace(site.cloud, endpoints={**site.cloud.endpoints, "serving": f"http://127.0.0.1:{port}"})
    with pytest.raises(Retryable, match=f"127.0.0.1:{port}") as caught:
        site.open_server(cloud).describe(NAME)
    assert site.cloud.name in caught.value.what


# What the scoring host of a site does besides


def test_a_scoring_process_that_is_killed_is_replaced(onprem, host):
    onprem.serve("1")
    pid = host.describe()["pid"]
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    onprem.wait(lambda seen: seen.healthy)
    assert host.describe()["pid"] != pid
    assert onprem.predict() == pytest.approx(onprem.answers["1"])


def test_a_zygote_that_is_killed_is_replaced_with_its_processes(onprem, host):
    onprem.serve("1")
    pid, zygote = host.describe()["pid"], host.zygote_pid()
    os.kill(zygote, signal.SIGKILL)
    assert gone(pid)
    onprem.wait(lambda seen: seen.healthy)
    assert host.zygote_pid() != zygote


def test_the_zygote_forks_with_one_python_thread_and_a_scoring_process_sees_no_secret(onprem, host):
    onprem.serve("1")
    pid, zygote = host.describe()["pid"], host.zygote_pid()
    threads = [Path(f"/proc/{zygote}/task/{task}/comm").read_text() for task in os.listdir(f"/proc/{zygote}/task")]
    assert [name for name in threads if "jemalloc" not in name] == [f"{status_of(zygote)['Name']}\n"]
    for process in (pid, zygote):
        environment = Path(f"/proc/{process}/environ").read_text()
        assert CANARY not in environment
        assert TOKEN not in environment


def test_models_that_nobody_serves_are_removed(onprem, host):
    onprem.serve("1")
    onprem.serve("2")
    kept = {directory.name for directory in (host.root / "models").iterdir()}
    assert kept == {onprem.specs["2"].digest}


def test_a_host_that_is_killed_takes_its_processes_along_and_the_next_one_restores_the_endpoints(onprem, host):
    onprem.serve("1")
    onprem.serve("2", OTHER)
    pids = [host.describe()["pid"], host.describe(OTHER)["pid"], host.zygote_pid()]
    assert host.process is not None
    os.kill(host.process.pid, signal.SIGKILL)
    assert all(gone(pid) for pid in pids)
    with pytest.raises(Retryable):
        onprem.server.describe(NAME)
    host.process.stop()
    host.start()
    onprem.wait(lambda seen: seen.healthy and seen.version == "1")
    onprem.wait(lambda seen: seen.healthy and seen.version == "2", OTHER)
    assert onprem.predict() == pytest.approx(onprem.answers["1"])


def test_a_model_that_was_altered_on_the_hosts_disk_is_not_served_and_mended_by_deploying_again(onprem, host):
    onprem.serve("1")
    pid = host.describe()["pid"]
    with (host.root / "models" / onprem.specs["1"].digest / "MLmodel").open("a") as file:
        file.write("# altered\n")
    os.kill(pid, signal.SIGKILL)
    seen = onprem.wait(lambda seen: "were altered" in seen.detail)
    assert (seen.healthy, seen.digest) == (False, "")
    onprem.serve("1")
    assert onprem.predict() == pytest.approx(onprem.answers["1"])


def test_a_second_host_on_the_same_root_is_refused(host):
    second = Host(host.root, host.log.with_name("second.log"), free_ports(1)[0])
    with pytest.raises(Exception, match="another scoring host uses"):
        second.start()
    assert second.process is not None
    assert not second.process.alive()


def test_a_port_in_use_is_named(host, tmp_path):
    second = Host(tmp_path / "root", tmp_path / "second.log", host.port)
    # The first host answers on the port, so only the process itself can tell.
    process = second.launch(ready=lambda: False)
    with pytest.raises(Exception, match=f"ended with code 2: port {host.port} cannot be used"):
        process.wait_ready()


# A release on a real server


def test_a_release_goes_live_a_broken_one_is_undone_and_a_rollback_goes_back(site, tmp_path):
    records, aliases, skipped = Records(tmp_path / "records.sqlite"), [], [timedelta(0)]
    book, site.deployed = records.releases, {NAME}
    deadline_s = 60.0 * PATIENCE

    def now() -> datetime:
        return datetime.now(UTC) + sum(skipped, timedelta(0))

    def release(version: str) -> Release:
        digest = site.specs[version].digest
        return request_release(book, NAME, version, digest, ((site.cloud.name, 100),), now=now())

    def time_is_over_once_the_reason_is_told(seen: Release) -> None:
        if seen.state is ReleaseState.ROLLING_OUT and any("does not start" in each.detail for each in seen.endpoints):
            skipped.append(timedelta(seconds=deadline_s))

    def settle(wanted: Release) -> Release:
        return reconcile_until(
            wanted,
            {site.cloud.name: site.server},
            book,
            fetch=lambda wanted: Path(site.specs[wanted.version].model_path),
            project=lambda live: aliases.append(live.version),
            clock=now,
            sleep=time.sleep,
            deadline_s=deadline_s,
            poll_s=0.05,
            on_pass=time_is_over_once_the_reason_is_told if wanted.version == "broken" else None,
        )

    first = settle(release("1"))
    assert (first.state, first.endpoints[0].digest, first.endpoints[0].weight) == (
        ReleaseState.LIVE,
        site.specs["1"].digest,
        100,
    )
    broken = settle(release("broken"))
    assert broken.state is ReleaseState.FAILED
    assert "does not start" in broken.reason
    assert site.predict() == pytest.approx(site.answers["1"])
    assert settle(release("2")).state is ReleaseState.LIVE
    assert site.predict() == pytest.approx(site.answers["2"])
    back = settle(roll_back(book, NAME, now=now()))
    assert (back.state, back.version) == (ReleaseState.LIVE, "1")
    assert site.predict() == pytest.approx(site.answers["1"])
    assert list(dict.fromkeys(aliases)) == ["1", "2"]
    assert aliases[-1] == "1"
    assert [str(one.state) for one in book.list(NAME)] == ["live", "rolled_back", "failed", "superseded"]
