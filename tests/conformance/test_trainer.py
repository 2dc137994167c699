"""What every trainer does, whichever provider it belongs to: one suite, run against the real service of each."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from deployments.local.faults import put_faults
from tasks.core.cloud import CloudConfig, Secret
from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, NotFound, Stockout
from tasks.core.ports import Trainer
from tasks.core.training import JobSpec, JobStatus, RunState, code_digest, run_job
from tasks.providers.onprem.supervise import is_alive, read_json
from tasks.registry import providers
from tests.accounts import PATIENCE, own_name, purge
from tests.compute_clouds import TRAINING_CLOUDS, ComputeCloud
from tests.servers import rclone_environment

BUCKET = own_name("conformance-training")
TIMEOUT_S = 60.0 * PATIENCE
STEPS = """
    import os, pathlib, time
    state = pathlib.Path(os.environ["LINTAS_CHECKPOINT_DIR"]) / "step"
    begin = int(state.read_text()) if state.exists() else 0
    print(f"from {begin}")
    for step in range(begin, 5):
        draft = state.with_suffix(".new")
        draft.write_text(str(step + 1))
        draft.rename(state)
        print(f"did {step}")
        while step == 2 and begin == 0:
            time.sleep(0.05)
    """
"""Five steps, each checkpointed; who begins at none waits after the third to be ended."""


@dataclass
class Site:
    """A trainer with a place for datasets, and the means to write jobs for it."""

    trainer: Trainer
    cloud: CloudConfig
    data: DatasetURI
    work: Path
    files: Callable[[str], list[Path]]
    reopen: Callable[..., Trainer]
    traces: Callable[[str], list[str]]
    submitted: list[str] = field(default_factory=list)

    def job(self, script: str, *, run_id: str = "run-1", timeout_s: float = TIMEOUT_S, **environment: str) -> JobSpec:
        code = self.work / f"code-{abs(hash(script))}"
        code.mkdir(exist_ok=True)
        (code / "main.py").write_text(textwrap.dedent(script))
        return JobSpec(
            name="probe",
            command=("python", "main.py"),
            code_dir=str(code),
            code_digest=code_digest(code),
            data=self.data,
            data_digest="d" * 64,
            run_id=run_id,
            environment=environment,
            timeout_s=timeout_s,
        )

    def submit(self, job: JobSpec) -> str:
        job_id = self.trainer.submit(job)
        self.submitted.append(job_id)
        return job_id

    def run(self, job: JobSpec) -> JobStatus:
        return self.wait(self.submit(job), lambda status: status.state.ended)

    def wait(self, job_id: str, done: Callable[[JobStatus], bool], timeout_s: float = 120.0 * PATIENCE) -> JobStatus:
        deadline = time.monotonic() + timeout_s
        while not done(status := self.trainer.poll(job_id)):
            assert time.monotonic() < deadline, f"{status} after {timeout_s} s"
            time.sleep(0.05)
        return status

    def wait_for_line(self, job_id: str, line: str) -> None:
        self.wait(job_id, lambda status: line in list(self.trainer.logs(job_id)) or status.state.ended)
        assert line in list(self.trainer.logs(job_id)), self.trainer.poll(job_id)


@pytest.fixture
def onprem(tmp_path: Path) -> Site:
    from tasks.providers.onprem.trainer import open_trainer

    root = tmp_path / "site"
    (root / "raw" / "flights").mkdir(parents=True)
    (root / "raw" / "flights" / "rows.txt").write_text("one\ntwo\n")

    def reopen(**options: str) -> Trainer:
        return open_trainer(replace(cloud, options={**cloud.options, **options}))

    cloud = CloudConfig("site", "onprem", options={"root": str(root), "grace_s": "1"})
    return Site(
        trainer=open_trainer(cloud),
        cloud=cloud,
        data=DatasetURI("site", "raw", "flights"),
        work=tmp_path,
        files=lambda job_id: [path for path in job_dir(root, job_id).rglob("*") if path.is_file()],
        reopen=reopen,
        traces=lambda job_id: [str(path) for path in (root / ".jobs").glob(f"{job_id}*")],
    )


def job_dir(root: Path, job_id: str) -> Path:
    """Where an on-premises site keeps a job."""
    return root / ".jobs" / job_id


def cloud_site(compute: ComputeCloud, work: Path, bucket: str = BUCKET) -> Site:
    """The training service of a cloud, with a dataset in a bucket of its own."""
    provider = providers()[compute.config.provider]
    open_trainer = provider.open_trainer
    assert open_trainer is not None
    data = DatasetURI(compute.config.name, bucket, "flights")
    raw = provider.open_store(compute.config, data.bucket)
    raw.create_bucket()
    raw.put("flights/rows.txt", [b"one\ntwo\n"], size_bytes=8)
    kept = provider.open_store(compute.config, compute.config.option("bucket"))
    kept.create_bucket()

    def reopen(**options: str) -> Trainer:
        return open_trainer(replace(compute.config, options={**compute.config.options, **options}))

    return Site(
        trainer=reopen(),
        cloud=compute.config,
        data=data,
        work=work,
        files=lambda job_id: [path for path in compute.disks.rglob("*") if job_id in str(path) and path.is_file()],
        reopen=reopen,
        traces=lambda job_id: [info.key for info in kept.list(f"lintas-jobs/{job_id}")],
    )


@pytest.fixture(params=["onprem", *TRAINING_CLOUDS])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The trainer of each provider that has one; a new cloud joins in `tests.compute_clouds`."""
    site: Site
    if request.param == "onprem":
        site = request.getfixturevalue("onprem")
    else:
        site = cloud_site(request.getfixturevalue("compute_clouds")[request.param], tmp_path)
    yield site
    for job_id in site.submitted:
        site.trainer.cancel(job_id)
        site.wait(job_id, lambda status: status.state.ended)
    if request.param != "onprem":
        purge(site.cloud, BUCKET, rclone_environment)


def test_the_command_finds_the_contract_and_its_output_comes_home(site: Site, tmp_path: Path) -> None:
    job = site.job(
        """
        import json, os, pathlib
        data, output = (pathlib.Path(os.environ[f"LINTAS_{name}_DIR"]) for name in ("DATA", "OUTPUT"))
        (output / "model").mkdir()
        seen = {"rows": (data / "rows.txt").read_text().split(), "extra": os.environ["EXTRA"]}
        seen |= {name: os.environ[name] for name in ("LINTAS_RUN_ID", "MLFLOW_RUN_ID")}
        seen["checkpoints"] = pathlib.Path(os.environ["LINTAS_CHECKPOINT_DIR"]).is_dir()
        (output / "model" / "seen.json").write_text(json.dumps(seen))
        """,
        EXTRA="more",
    )
    status = site.run(job)
    assert (status.state, status.exit_code, status.detail) == (RunState.SUCCEEDED, 0, "")
    assert status.running_s > 0
    site.trainer.fetch_output(status.job_id, tmp_path / "home")
    assert json.loads((tmp_path / "home" / "model" / "seen.json").read_text()) == {
        "rows": ["one", "two"],
        "extra": "more",
        "LINTAS_RUN_ID": "run-1",
        "MLFLOW_RUN_ID": "run-1",
        "checkpoints": True,
    }


def test_the_same_spec_is_one_job_however_often_and_from_wherever_it_is_submitted(site: Site) -> None:
    job = site.job(
        """
        import os, pathlib
        with open(pathlib.Path(os.environ["LINTAS_OUTPUT_DIR"]) / "starts", "a") as file:
            file.write("started\\n")
        """
    )
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: site.reopen().submit(job), range(16)))
    site.submitted.extend(ids)
    (job_id,) = ids
    site.wait(job_id, lambda status: status.state.ended)
    assert site.trainer.submit(job) == job_id
    site.trainer.fetch_output(job_id, site.work / "home")
    assert (site.work / "home" / "starts").read_text() == "started\n"


def test_another_attempt_or_changed_code_is_another_job(site: Site) -> None:
    job = site.job("print('a')")
    assert len({job.job_name, job.next_attempt().job_name, site.job("print('b')").job_name}) == 3


def test_lines_are_followed_while_the_job_runs(site: Site) -> None:
    job_id = site.submit(
        site.job(
            """
            import os, pathlib, sys, time
            print("first")
            print("second", file=sys.stderr)
            while not pathlib.Path(os.environ["GO"]).exists():
                time.sleep(0.05)
            print("third", end="")
            """,
            GO=str(site.work / "go"),
        )
    )
    site.wait_for_line(job_id, "second")
    assert site.trainer.poll(job_id).state is RunState.RUNNING
    assert list(site.trainer.logs(job_id)) == ["first", "second"]
    assert list(site.trainer.logs(job_id, after_line=1)) == ["second"]
    (site.work / "go").touch()
    site.wait(job_id, lambda status: status.state.ended)
    assert list(site.trainer.logs(job_id, after_line=2)) == ["third"]
    assert list(site.reopen().logs(job_id, after_line=1)) == ["second", "third"]


def test_following_a_job_tells_each_line_and_each_state_once(site: Site) -> None:
    lines: list[str] = []
    states: list[RunState] = []
    job = site.job("import time\nfor i in range(5):\n    print(i)\n    time.sleep(0.02)")
    status = run_job(
        site.trainer,
        job,
        poll_s=0.02,
        on_log=lines.append,
        on_status=lambda status: states.append(status.state),
    )
    site.submitted.append(status.job_id)
    assert status.state is RunState.SUCCEEDED
    assert lines == ["0", "1", "2", "3", "4"]
    assert states == sorted(set(states), key=states.index)
    assert states[-1] is RunState.SUCCEEDED


@pytest.mark.parametrize(
    ("script", "exit_code", "words"),
    [
        ("raise SystemExit(3)", 3, "ended with code 3"),
        ("raise ValueError('could not convert: jane@example.org')", 1, "(ValueError)"),
        ("import os\nos.abort()", -signal.SIGABRT, "killed by SIGABRT"),
        ("open('/dev/full', 'w').write('x' * 9999999)", 1, "no space was left"),
    ],
)
def test_a_command_that_fails_says_how_without_its_own_words(
    site: Site, script: str, exit_code: int, words: str
) -> None:
    status = site.run(site.job(script))
    assert (status.state, status.exit_code) == (RunState.FAILED, exit_code)
    assert words in status.detail
    assert "jane" not in status.detail


def test_a_missing_program_is_named(site: Site) -> None:
    status = site.run(replace(site.job("pass"), command=("no-such-program", "x")))
    assert (status.state, status.exit_code) == (RunState.FAILED, 127)
    assert "'no-such-program' was not found" in status.detail


def test_a_job_is_stopped_after_its_timeout(site: Site) -> None:
    status = site.run(site.job("import time\ntime.sleep(60)", timeout_s=0.5))
    assert status.state is RunState.STOPPED
    assert "timeout of 0.5 s" in status.detail


def test_cancelling_ends_the_command_and_all_that_it_started_even_when_they_do_not_listen(site: Site) -> None:
    job_id = site.submit(
        site.job(
            """
            import os, pathlib, signal, subprocess, sys, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            (pathlib.Path(os.environ["LINTAS_OUTPUT_DIR"]) / "pids").write_text(f"{os.getpid()} {other.pid}")
            print("ready")
            time.sleep(60)
            """
        )
    )
    site.wait_for_line(job_id, "ready")
    site.trainer.cancel(job_id)
    site.trainer.cancel(job_id)
    assert site.wait(job_id, lambda status: status.state.ended).state is RunState.STOPPED
    site.trainer.cancel(job_id)
    site.trainer.fetch_output(job_id, site.work / "home")
    assert not any(_runs(int(pid)) for pid in (site.work / "home" / "pids").read_text().split())


def test_a_job_that_was_cancelled_stays_cancelled_when_its_spec_comes_again(site: Site) -> None:
    job = site.job("import time\ntime.sleep(60)")
    job_id = site.submit(job)
    site.trainer.cancel(job_id)
    site.wait(job_id, lambda status: status.state.ended)
    assert site.trainer.submit(job) == job_id
    assert site.trainer.poll(job_id).state is RunState.STOPPED


def test_an_unknown_job_is_not_found_and_cancelling_it_is_silent(site: Site) -> None:
    for job_id in ("probe-0000000000000000", "../raw", ".lock"):
        with pytest.raises(NotFound, match="there is no job"):
            site.trainer.poll(job_id)
        site.trainer.cancel(job_id)


def test_a_job_continues_from_its_checkpoint_in_the_next_attempt(site: Site) -> None:
    job = site.job(STEPS)
    first = site.submit(job)
    site.wait_for_line(first, "did 2")
    site.trainer.cancel(first)
    site.wait(first, lambda status: status.state.ended)
    second = site.run(job.next_attempt())
    assert second.state is RunState.SUCCEEDED
    assert list(site.trainer.logs(second.job_id)) == ["from 3", "did 3", "did 4"]

    fresh = site.submit(replace(job, run_id="run-2"))
    site.wait_for_line(fresh, "did 2")
    assert next(iter(site.trainer.logs(fresh))) == "from 0"


@pytest.fixture
def losing_machine(site: Site) -> Iterator[Callable[[str], None]]:
    """Sees to it that a job loses its machine in mid-training; to be called once the job is submitted.

    The doubles take away every machine on which a third step was done. A site of one's own has no such knob: there the
    command is killed.
    """

    def kill(job_id: str) -> None:
        site.wait(job_id, lambda status: "did 2" in list(site.trainer.logs(job_id)) or status.state.ended)
        if not site.trainer.poll(job_id).state.ended:
            child = read_json(job_dir(Path(site.cloud.option("root")), job_id) / "child.json")
            assert child is not None
            os.kill(int(child["process"].split(":")[1]), signal.SIGKILL)

    if site.cloud.provider == "onprem":
        yield kill
        return
    put_faults(site.cloud.endpoint("training"), [{"kind": "preempt", "after_line": "did 2"}])
    yield lambda job_id: None
    put_faults(site.cloud.endpoint("training"), [])


def test_a_job_that_loses_its_machine_in_mid_training_goes_on_from_its_checkpoint(
    site: Site, losing_machine: Callable[[str], None]
) -> None:
    """Some services go on by themselves; elsewhere the next attempt does."""

    def follow(job: JobSpec) -> JobStatus:
        losing_machine(job_id := site.submit(job))
        return site.wait(job_id, lambda status: status.state.ended)

    job = replace(site.job(STEPS, run_id="run-lost"), spot=True)
    status, words = follow(job), "SIGKILL" if site.cloud.provider == "onprem" else "preempted"
    # On a busy machine the notice may be too short for the checkpoint: then the next attempt begins at none again.
    while status.state is not RunState.SUCCEEDED and job.attempt < 6:
        assert status.state in (RunState.FAILED, RunState.STOPPED), status
        assert words in status.detail
        job = job.next_attempt()
        status = follow(job)
    assert status.state is RunState.SUCCEEDED, status
    *_, last_start, end = (
        line for line in site.trainer.logs(status.job_id) if line.startswith("from ") or line == "did 4"
    )
    assert last_start in ("from 1", "from 2", "from 3")
    assert end == "did 4"


def test_mlflow_has_the_metrics_of_a_job_that_still_runs(
    site: Site, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_url)
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    go = site.work / "go"
    job = site.job(
        """
        import json, os, pathlib, time, urllib.request
        # What MLflow's own client sends; importing that takes longer than all else here.
        def log_metric(step, value):
            metric = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": "loss", "value": value, "step": step}
            metric["timestamp"] = int(time.time() * 1000)
            url = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-metric"
            request = urllib.request.Request(url, json.dumps(metric).encode(), {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=30).close()
        log_metric(0, 0.5)
        print("logged")
        while not pathlib.Path(os.environ["GO"]).exists():
            time.sleep(0.05)
        log_metric(1, 0.25)
        """,
        run_id=run_id,
        GO=str(go),
    )
    job_id = site.submit(job)

    def losses() -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "loss")]

    site.wait_for_line(job_id, "logged")
    assert losses() == [(0, 0.5)]
    assert site.trainer.poll(job_id).state is RunState.RUNNING
    go.touch()
    assert site.wait(job_id, lambda status: status.state.ended).state is RunState.SUCCEEDED
    assert losses() == [(0, 0.5), (1, 0.25)]


def test_the_worker_s_secrets_do_not_reach_the_command(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-7f3a9c"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canary)
    monkeypatch.setenv("LINTAS_GATE__SIGNING_KEY", canary)
    monkeypatch.setenv("PYTHONPATH", f"/{canary}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    job_id = site.run(site.job("import os\nfor item in sorted(os.environ.items()):\n    print(*item)")).job_id
    lines = list(site.trainer.logs(job_id))
    assert "MLFLOW_TRACKING_URI http://127.0.0.1:1" in lines
    assert canary not in "\n".join(lines)
    files = site.files(job_id)
    assert files
    assert not any(canary.encode() in path.read_bytes() for path in files)


def test_hidden_files_are_not_taken_along(site: Site) -> None:
    job = site.job("import os\nprint(sorted(os.listdir('.')))")
    Path(job.code_dir, ".env").write_text("TOKEN=canary")
    assert code_digest(Path(job.code_dir)) == job.code_digest
    assert list(site.trainer.logs(site.run(job).job_id)) == ["['main.py']"]


def test_a_spec_that_cannot_run_is_refused_at_once_and_leaves_nothing(site: Site) -> None:
    job = site.job("pass")
    elsewhere = replace(job, data=DatasetURI("elsewhere", "raw"))
    missing = replace(job, data=DatasetURI(site.data.cloud, site.data.bucket, "no-such-dataset"))
    changed = replace(job, code_digest="0" * 64)
    for refused, words in ((elsewhere, "is not on"), (missing, "there is no dataset"), (changed, "changed since")):
        with pytest.raises(Invalid, match=words):
            site.trainer.submit(refused)
        assert site.traces(refused.job_name) == []
        with pytest.raises(NotFound):
            site.trainer.poll(refused.job_name)


# From here on: what can only be seen from inside the machine.


def test_a_supervisor_that_was_killed_is_a_failure_and_takes_the_command_with_it(onprem: Site) -> None:
    job_id = onprem.submit(onprem.job("import os, time\nprint(os.getpid())\ntime.sleep(60)"))
    onprem.wait(job_id, lambda status: any(onprem.trainer.logs(job_id)))
    supervisor = json.loads((job_dir(Path(onprem.cloud.options["root"]), job_id) / "supervisor.json").read_text())[
        "process"
    ]
    os.kill(int(supervisor.split(":")[1]), signal.SIGKILL)
    status = onprem.wait(job_id, lambda status: status.state.ended)
    assert status.state is RunState.FAILED
    assert "supervisor died without a verdict" in status.detail
    pid = int(next(iter(onprem.trainer.logs(job_id))))
    deadline = time.monotonic() + 60
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_another_process_with_the_supervisor_s_id_is_not_the_supervisor(onprem: Site) -> None:
    job_id = onprem.run(onprem.job("pass")).job_id
    place = job_dir(Path(onprem.cloud.options["root"]), job_id)
    (place / "verdict.json").unlink()
    mine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (place / "supervisor.json").write_text(json.dumps({"process": f"{mine}:{os.getpid()}:1"}))
    assert onprem.trainer.poll(job_id).state is RunState.FAILED


def test_a_submitter_that_died_before_the_start_is_made_up_for_by_the_next(onprem: Site) -> None:
    job = onprem.job("print('ran')")
    job_id = onprem.run(job).job_id
    place = job_dir(Path(onprem.cloud.options["root"]), job_id)
    supervisor, deadline = json.loads((place / "supervisor.json").read_text())["process"], time.monotonic() + 60
    while is_alive(supervisor):
        assert time.monotonic() < deadline, "the first supervisor does not end"
        time.sleep(0.02)
    for name in ("supervisor.json", "verdict.json", "child.json", ".verdict.draft", "log.txt"):
        (place / name).unlink()
    assert onprem.trainer.poll(job_id).state is RunState.QUEUED
    assert onprem.run(job).state is RunState.SUCCEEDED
    assert list(onprem.reopen().logs(job_id)) == ["ran"]


def test_a_site_without_a_free_slot_is_out_of_stock(onprem: Site) -> None:
    trainer = onprem.reopen(slots="1")
    first = trainer.submit(onprem.job("import time\ntime.sleep(60)"))
    onprem.submitted.append(first)
    with pytest.raises(Stockout, match="runs 1 jobs already"):
        trainer.submit(onprem.job("pass"))
    trainer.cancel(first)
    onprem.wait(first, lambda status: status.state.ended)
    onprem.submitted.append(trainer.submit(onprem.job("pass")))


def test_checkpoints_are_gone_when_the_job_has_succeeded(onprem: Site) -> None:
    job = onprem.job("import os\nopen(os.environ['LINTAS_CHECKPOINT_DIR'] + '/x', 'w').close()")
    assert onprem.run(job).state is RunState.SUCCEEDED
    checkpoints = Path(onprem.cloud.options["root"]) / ".checkpoints"
    assert list(checkpoints.iterdir()) == []


def test_a_token_for_the_tracking_server_reaches_the_command_and_no_file(onprem: Site) -> None:
    from tasks.providers.onprem.trainer import open_trainer

    token = Secret("env:TOKEN", lambda _: "canary-token")
    trainer = open_trainer(replace(onprem.cloud, credentials={"mlflow_token": token}))
    script = "import os\nassert os.environ['MLFLOW_TRACKING_TOKEN'].startswith('canary-')"
    job_id = trainer.submit(onprem.job(script))
    assert onprem.wait(job_id, lambda status: status.state.ended).state is RunState.SUCCEEDED
    files = [path for path in job_dir(Path(onprem.cloud.options["root"]), job_id).rglob("*") if path.is_file()]
    assert not any("canary-token" in path.read_text() for path in files)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
