"""The twin as a whole: it starts, tells how it stands, keeps its data, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient
from google.cloud import storage
from google.oauth2.credentials import Credentials

from deployments.local.proc import start_ticks
from deployments.local.processes import Process, log_says, port_ready
from deployments.local.stack import Stack, StackStatus, down, running_stack, status, up
from deployments.local.twin import Wanted, prepare
from tasks.core.errors import Invalid, Terminal
from tasks.settings import load_settings

ONE = Wanted(level="objects", clouds=("google",))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A twin's directory; what runs in it ends with the test."""
    yield tmp_path / "twin"
    down(tmp_path / "twin")


def eventually(condition: Callable[[], bool], within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def ended(pid: int | None) -> bool:
    assert pid is not None
    return start_ticks(pid) == 0


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def google_of(config: str | Path) -> Any:
    cloud = load_settings(Path(config)).cloud("google")
    token = Credentials(cloud.credentials["token"].reveal())
    return storage.Client(
        project=cloud.option("project"),
        credentials=token,
        client_options={"api_endpoint": cloud.endpoint("objects")},
    )


def test_it_goes_up_tells_how_it_stands_and_comes_down(state: Path) -> None:
    seen: list[StackStatus] = []
    told = up(state, ONE, seen.append)
    assert told.state == "ready"
    assert [service.name for service in told.services] == ["google-objects", "google-events"]
    for service in told.services:
        assert (service.alive, service.ready) == (True, True)
        assert service.rss_mb > 10
        assert service.started_s is not None
    assert all(service.ready for service in seen[-1].services)
    assert up(state, ONE).supervisor_pid == told.supervisor_pid
    with pytest.raises(Invalid, match="runs already"), running_stack(state, ONE):
        pass
    assert down(state)
    assert status(state).state == "down"
    assert all(ended(service.pid) for service in told.services)
    assert not (state / "lintas.yaml").exists()
    assert not down(state)


def test_data_ports_and_credentials_survive_down_and_up(state: Path) -> None:
    first = up(state, ONE)
    google_of(first.config).create_bucket("durable").blob("object").upload_from_string(b"content")
    down(state)
    second = up(state, ONE)
    assert second.services[0].port == first.services[0].port
    assert google_of(second.config).bucket("durable").blob("object").download_as_bytes() == b"content"


def test_children_end_with_a_supervisor_that_is_killed(state: Path) -> None:
    told = up(state, ONE)
    kill(told.supervisor_pid)
    assert eventually(lambda: ended(told.services[0].pid))
    assert status(state).state == "down"
    assert up(state, ONE).state == "ready"


def test_a_service_that_died_is_told(state: Path) -> None:
    kill(up(state, ONE).services[0].pid)
    assert eventually(lambda: not status(state).services[0].alive)
    assert not status(state).services[0].ready


def test_a_process_id_that_was_given_to_somebody_else_is_left_alone(state: Path) -> None:
    told = up(state, ONE)
    record = state / "stack.json"
    honest = record.read_text()
    try:
        record.write_text(honest.replace('"started_ticks": ', '"started_ticks": 9'))
        assert not down(state)
        assert not ended(told.supervisor_pid)
    finally:
        record.write_text(honest)


def hold(state: Path, wanted: Wanted) -> None:
    with running_stack(state, wanted):
        pass


@pytest.mark.parametrize("start", [up, hold])
def test_a_port_that_is_asked_for_and_in_use_is_refused(state: Path, start: Callable[[Path, Wanted], object]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        wanted = Wanted(level="objects", clouds=("google",), ports={"google-objects": port})
        with pytest.raises(Invalid, match=f"port {port} is in use"):
            start(state, wanted)
    assert up(state, wanted).services[0].port == port


def test_a_remembered_port_that_is_taken_meanwhile_is_replaced(state: Path) -> None:
    first = prepare(state, ONE).ports["google-objects"]
    assert prepare(state, ONE).ports["google-objects"] == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
        other.listen()
        assert prepare(state, ONE).ports["google-objects"] != first


@pytest.mark.parametrize(
    "wanted", [Wanted(level="most"), Wanted(clouds=("mars",)), Wanted(ports={"parrot": 1}), Wanted(clouds=("aws", ""))]
)
def test_what_is_not_part_of_the_twin_is_refused_by_name(state: Path, wanted: Wanted) -> None:
    with pytest.raises(Invalid, match="of the twin; use one of"):
        prepare(state, wanted)


def test_secrets_are_files_of_their_owner_and_never_stand_in_the_configuration(state: Path) -> None:
    twin = prepare(state, Wanted(level="objects"))
    files = list((state / "secrets").iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((state / "secrets").stat().st_mode) == 0o700
    written = twin.config.read_text() + (state / "ports.json").read_text()
    values = {file.name: file.read_text() for file in files if not file.name.endswith("account-name")}
    assert [name for name, value in values.items() if value in written] == []
    assert len(set(values.values())) == len(values)
    settings = load_settings(twin.config)
    assert all(secret.reveal() for name in settings.clouds for secret in settings.cloud(name).credentials.values())


def test_no_secret_stands_on_a_command_line(state: Path) -> None:
    twin = prepare(state, Wanted())
    secrets = [file.read_text() for file in (state / "secrets").iterdir() if not file.name.endswith("account-name")]
    lines = [" ".join(process.command) for process in twin.processes]
    assert [line for line in lines if any(secret in line for secret in secrets)] == []


def test_a_process_that_ends_at_once_says_why_and_stops_the_others(state: Path, tmp_path: Path) -> None:
    twin = prepare(state, ONE)
    log = tmp_path / "broken.log"
    broken = Process("broken", ["sh", "-c", "echo no such model >&2; exit 3"], log_says(log, "never"), log)
    stack = Stack(type(twin)((*twin.processes, broken), twin.config, twin.ports))
    with pytest.raises(Terminal, match="broken ended with code 3: no such model"):
        stack.start()
    assert not twin.processes[0].alive()


def test_a_process_that_is_late_is_stopped(tmp_path: Path) -> None:
    late = Process("late", ["sleep", "60"], lambda: False, tmp_path / "log", start_timeout_s=0.2)
    with pytest.raises(Terminal, match="late was not ready in 0 s"):
        late.start().wait_ready()
    assert not late.alive()


def test_a_process_that_is_needed_and_missing_is_named(state: Path, tmp_path: Path) -> None:
    twin = prepare(state, ONE)
    lonely = Process("lonely", ["sleep", "60"], lambda: True, tmp_path / "log", needs=("parrot",))
    with pytest.raises(Terminal, match="lonely need processes"):
        Stack(type(twin)((lonely,), twin.config, twin.ports)).start()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Terminal, match=r"file/twin.* cannot be written \(Not a directory\)"):
        up(tmp_path / "file" / "twin", ONE)


def test_azurite_knows_its_own_account_only(state: Path) -> None:
    with running_stack(state, Wanted(level="objects", clouds=("azure",))) as stack:
        cloud = load_settings(stack.twin.config).cloud("azure")
        account, key = cloud.option("account"), cloud.credentials["account_key"].reveal()

        def service(account_key: str) -> BlobServiceClient:
            credential = {"account_name": account, "account_key": account_key}
            return BlobServiceClient(cloud.endpoint("objects"), credential=credential, retry_total=0)

        service(key).create_container("container")
        with pytest.raises(HttpResponseError, match="AuthorizationFailure"):
            service("A" * 86 + "==").create_container("other")
        assert port_ready(stack.twin.ports["azure-queue"])()
