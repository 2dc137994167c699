"""What the doubles compute with: jobs as bare as in a container, and faults that come when they are ordered."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from deployments.local.compute import JobRunner
from deployments.local.faults import Fault, FaultTable, WireFaults, put_faults
from deployments.local.ports import free_ports
from deployments.local.serve import listening
from tasks.core.dataset import DatasetURI
from tasks.core.errors import IntegrityError, Invalid
from tasks.core.training import JobSpec, RunState, code_digest
from tasks.providers._dialects.jobs import adopt_output, output_told, pack_job, verdict

# Jobs


def shipped(directory: Path, script: str, *, timeout_s: float = 30.0, command: tuple[str, ...] = ()) -> JobSpec:
    """A job as it arrives at a service: its three files in `directory`."""
    code = directory / "source"
    code.mkdir(parents=True)
    (code / "main.py").write_text(script)
    uri = DatasetURI("aws", "raw", "flights")
    job = JobSpec(
        "probe", command or ("python", "main.py"), str(code), code_digest(code), uri, "d" * 64, "run-1",
        {"EXTRA": "more"}, timeout_s,
    )  # fmt: skip
    (directory / "input").mkdir()
    for name, content in pack_job(job, "aws", grace_s=0.5).items():
        (directory / "input" / name).write_bytes(content)
    return job


def run(directory: Path, *, stop_on: str | None = None, grace_s: float = 5.0) -> tuple[int, list[str]]:
    """Run a shipped job below fixed paths, as a service does; returns the container's exit code and the log."""

    async def running() -> tuple[int, list[str]]:
        runner = JobRunner()
        places = ("--data", "/opt/ml/data", "--output", "env:OUTPUT", "--checkpoints", "/opt/ml/checkpoints")
        job = await runner.start(
            ["python", "/opt/ml/input/lintas_launch.py", *places, "--failure", "/opt/ml/failure"],
            environment={"OUTPUT": "/opt/ml/output"},
            directory=directory / "home",
            log=directory / "log.txt",
            mounts={"/opt/ml": directory},
        )
        if stop_on is not None:
            while stop_on not in job.lines():
                await asyncio.sleep(0.02)
            return await job.stop(grace_s), job.lines()
        return await job.wait(), job.lines()

    return asyncio.run(running())


def test_the_launcher_gives_the_contract_and_nothing_of_ours_and_its_output_comes_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVATE_CANARY", "canary")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    shipped(
        tmp_path,
        "import os, pathlib\nprint(*sorted(f'{k}={v}' for k, v in os.environ.items()), sep='\\n')\n"
        "(pathlib.Path(os.environ['LINTAS_OUTPUT_DIR']) / 'x').write_text('y')\nprint(os.listdir())",
    )
    code, lines = run(tmp_path)
    assert code == 0
    assert f"LINTAS_DATA_DIR={tmp_path}/data" in lines
    assert {"EXTRA=more", "LINTAS_RUN_ID=run-1", "MLFLOW_TRACKING_URI=http://127.0.0.1:1", "['main.py']"} <= set(lines)
    assert "canary" not in "".join(lines)
    adopt_output(tmp_path / "output", tmp_path / "home", "probe")
    assert (tmp_path / "home" / "x").read_text() == "y"
    assert not (tmp_path / "home" / "lintas_output.json").exists()


@pytest.mark.parametrize("damage", ["other", "missing", "more", "no list"])
def test_an_output_that_is_not_what_the_job_wrote_does_not_come_home(tmp_path, damage):
    shipped(tmp_path, "import os, pathlib\n(pathlib.Path(os.environ['LINTAS_OUTPUT_DIR']) / 'x').write_text('y')")
    run(tmp_path)
    match damage:
        case "other":
            (tmp_path / "output" / "x").write_text("z")
        case "missing":
            (tmp_path / "output" / "x").unlink()
        case "more":
            (tmp_path / "output" / "w").write_text("w")
        case _:
            (tmp_path / "output" / "lintas_output.json").unlink()
    with pytest.raises(IntegrityError, match="no list" if damage == "no list" else "1 files differ"):
        adopt_output(tmp_path / "output", tmp_path / "there", "probe")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("script", "options", "expected", "words"),
    [
        ("raise SystemExit(3)", {}, (RunState.FAILED, 3), "ended with code 3"),
        ("raise ValueError('jane@example.org')", {}, (RunState.FAILED, 1), "(ValueError)"),
        ("import os; os.abort()", {}, (RunState.FAILED, -signal.SIGABRT), "killed by SIGABRT"),
        ("import time; time.sleep(60)", {"timeout_s": 0.5}, (RunState.STOPPED, 124), "timeout of 0.5 s"),
        ("", {"command": ("no-such-program",)}, (RunState.FAILED, 127), "'no-such-program' was not found"),
    ],
)
def test_how_a_command_ended_is_told_without_its_words(tmp_path, script, options, expected, words):
    shipped(tmp_path, script, **options)
    code, _ = run(tmp_path)
    why = (tmp_path / "failure").read_text()
    assert verdict(code, why)[:2] == expected
    assert words in why
    assert "jane" not in why
    told = output_told(tmp_path / "output")
    assert told is not None
    assert (told["exit_code"], told["why"]) == (code, why)


def test_notice_ends_a_command_that_does_not_listen_and_what_it_started(tmp_path):
    shipped(
        tmp_path,
        "import os, pathlib, signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "(pathlib.Path(os.environ['LINTAS_OUTPUT_DIR']) / 'pids').write_text(f'{os.getpid()} {other.pid}')\n"
        "print('ready', flush=True)\ntime.sleep(60)",
    )
    code, _ = run(tmp_path, stop_on="ready")
    assert code == 128 + signal.SIGTERM
    assert not any(alive(int(pid)) for pid in (tmp_path / "output" / "pids").read_text().split())
    assert output_told(tmp_path / "output") is not None


def test_without_notice_the_whole_tree_ends(tmp_path):
    shipped(tmp_path, "import os, time\nprint(os.getpid(), flush=True)\nprint('ready', flush=True)\ntime.sleep(60)")
    code, lines = run(tmp_path, stop_on="ready", grace_s=0.0)
    assert code == 128 + signal.SIGKILL
    deadline = time.monotonic() + 60
    while alive(int(lines[0])):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_code_that_changed_on_its_way_does_not_run(tmp_path):
    shipped(tmp_path, "print('ran')")
    (tmp_path / "input" / "code.tar.gz").write_bytes(b"something else")
    code, lines = run(tmp_path)
    assert code == 1
    assert lines == ["the code that arrived is not the code that was sent"]


def test_a_job_packs_into_the_same_bytes_and_other_code_is_refused(tmp_path):
    job = shipped(tmp_path, "pass")
    os.utime(tmp_path / "source" / "main.py", (1, 1))
    assert pack_job(job, "aws", grace_s=1) == pack_job(job, "aws", grace_s=1)
    with pytest.raises(Invalid, match="changed since"):
        pack_job(replace(job, code_digest="0" * 64), "aws", grace_s=1)
    with pytest.raises(Invalid, match="is not on 'google'"):
        pack_job(job, "google", grace_s=1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


# How doubles listen


def test_an_answer_in_two_pieces_does_not_wait_for_the_acknowledgement_of_the_first():
    async def is_sent_at_once(port: int) -> bool:
        seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def accepted(_: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
            taken = answer.get_extra_info("socket")
            seen.set_result(bool(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            answer.close()

        async with await asyncio.start_server(accepted, sock=listening(port)):
            _, request = await asyncio.open_connection("127.0.0.1", port)
            request.close()
            return await asyncio.wait_for(seen, 60)

    assert asyncio.run(is_sent_at_once(*free_ports(1)))


# Faults


@pytest.fixture
def faulty() -> Iterator[str]:
    """The URL of an application that answers a hundred letters, behind a table of faults."""
    (port,) = free_ports(1)
    app = WireFaults(PlainTextResponse("a" * 100), FaultTable())
    settings = {"log_level": "critical", "lifespan": "off", "timeout_graceful_shutdown": 0}
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def fetch(url: str, method: str = "GET", timeout_s: float = 60) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=timeout_s) as answer:
        return answer.read()


@pytest.mark.parametrize("kind", ["lost", "cut", "hang"])
def test_a_fault_of_the_wire_befalls_so_many_requests_and_no_more(faulty, kind):
    put_faults(faulty, [{"kind": kind, "times": 2, "operation": "GET /x*"}])
    assert fetch(f"{faulty}/y") == b"a" * 100
    for _ in range(2):
        with pytest.raises((OSError, http.client.HTTPException)) as caught:
            fetch(f"{faulty}/x", timeout_s=1)
        assert not isinstance(caught.value, urllib.error.HTTPError)
    assert fetch(f"{faulty}/x") == b"a" * 100
    assert json.loads(fetch(f"{faulty}/_twin/faults"))["faults"][0]["met"] == 2


def test_wrong_bytes_differ_in_one_and_the_table_can_be_emptied(faulty):
    put_faults(faulty, [{"kind": "wrong_bytes"}])
    answer = fetch(faulty)
    assert sum(one != two for one, two in zip(answer, b"a" * 100, strict=True)) == 1
    fetch(f"{faulty}/_twin/faults", "DELETE")
    assert fetch(faulty) == b"a" * 100


@pytest.mark.parametrize("wrong", [{"kind": "sunshine"}, {"kind": "lost", "color": "red"}, {"times": 1}, "lost"])
def test_a_table_that_makes_no_sense_is_refused(faulty, wrong):
    with pytest.raises(urllib.error.HTTPError) as refused:
        put_faults(faulty, [wrong])
    assert refused.value.code == 400


def test_the_same_seed_draws_the_same_faults():
    def drawn(seed: int) -> list[bool]:
        table = FaultTable()
        table.replace([Fault("error", probability=0.5)], seed)
        return [table.take("error") is not None for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 10 < sum(drawn(1)) < 40
