"""The `lintas` command as a person or a script meets it: one sentence, the right exit code, never a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.local.object_stores import console_script
from deployments.local.ports import free_ports
from tests import command
from tests.flows.conftest import Landed
from tests.servers import rclone_environment
from tests.whole_stack import WholeStack


def lintas(stack: WholeStack, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command.lintas(*arguments, env=stack.environment | environment, timeout_s=120)


def changed_config(stack: WholeStack, tmp_path: Path, change: dict[str, Any]) -> str:
    """The twin's configuration with one cloud changed."""
    config = yaml.safe_load(stack.config.read_text())
    for cloud, keys in change.items():
        for key, value in keys.items():
            config["clouds"][cloud][key] = config["clouds"][cloud].get(key, {}) | value
    path = tmp_path / "lintas.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def policy_file(tmp_path: Path, **keys: Any) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "name": "test", "residency": {"allowed": ["US", "EU"]}} | keys))
    return str(path)


def test_wrong_usage_is_one_sentence_and_exit_2(landed: Landed, tmp_path: Path) -> None:
    stack = landed.stack
    unknown_entity = [{"name": "r", "entities": ["EMAIL_ADRESS"], "action": "allow"}]
    for arguments, words in [
        (("manifest", "s4://raw/flights"), "'s4' is not a cloud"),
        (("manifest", "flights"), "not a dataset URI"),
        (("move", "aws://raw/flights", "aws://raw/flights/sub"), "overlap"),
        (("scan", "aws://raw/flights", "--policy", str(Path(__file__))), "test_command.py"),
        (("scan", "aws://raw/flights", "--policy", policy_file(tmp_path, rules=unknown_entity)), "EMAIL_ADDRESS"),
        (("audit", "--since", "yesterday"), "'yesterday' is not a time"),
        (("promote", "flights-late", "1", "--to", "aws2"), "aws2"),
    ]:
        done = lintas(stack, *arguments)
        assert words in done.stderr, (arguments, done.stderr)
        assert done.returncode in (2, 6), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("lintas: ")


def test_what_is_not_there_is_named_and_exit_6(landed: Landed) -> None:
    for arguments, words in [
        (("manifest", "aws://nowhere/x"), "bucket 'nowhere' does not exist on aws"),
        (("scan", "aws://raw/flights", "--policy", "none"), "no policy 'none'"),
        (("promote", "no-such-model", "1", "--to", "onprem"), "no-such-model"),
        (("rollback", "no-such-model"), "no-such-model"),
    ]:
        done = lintas(landed.stack, *arguments, "--json")
        assert (done.returncode, words in done.stderr) == (6, True), (arguments, done.stderr)
        assert words in json.loads(done.stdout)["error"]["message"]


def test_wrong_credentials_are_denied_without_showing_them(landed: Landed, tmp_path: Path) -> None:
    config = changed_config(landed.stack, tmp_path, {"aws": {"credentials": {"secret_access_key": "env:WRONG"}}})
    done = lintas(landed.stack, "manifest", "aws://raw/flights", LINTAS_CONFIG=config, WRONG="canary-of-a-wrong-key")
    assert (done.returncode, "aws" in done.stderr) == (6, True), done.stderr
    assert "canary" not in done.stdout + done.stderr


def test_a_secret_that_is_not_set_is_named(landed: Landed, tmp_path: Path) -> None:
    config = changed_config(landed.stack, tmp_path, {"google": {"credentials": {"token": "env:NOT_SET_HERE"}}})
    done = lintas(landed.stack, "manifest", "google://lake/flights", LINTAS_CONFIG=config)
    assert (done.returncode, "NOT_SET_HERE" in done.stderr) == (6, True), done.stderr


def test_a_stopped_server_is_unreachable(landed: Landed, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = changed_config(
        landed.stack, tmp_path, {"coreweave": {"endpoints": {"objects": f"http://127.0.0.1:{port}"}}}
    )
    done = lintas(landed.stack, "manifest", "coreweave://b/x", LINTAS_CONFIG=config)
    assert (done.returncode, str(port) in done.stderr) == (6, True), done.stderr


def test_a_refused_move_leaves_nothing_and_shows_no_value(landed: Landed, tmp_path: Path) -> None:
    done = lintas(
        landed.stack,
        *("move", "aws://raw/flights", "coreweave://refused/flights", "--json"),
        *("--policy", policy_file(tmp_path)),
    )
    assert done.returncode == 3, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "PolicyViolation"
    assert any("contact_email" in reason for reason in error["details"])
    assert "@" not in done.stdout + done.stderr.replace("lintas@", "")
    listed = subprocess.run(
        [console_script("rclone"), "lsf", "-R", "coreweave:"],
        env=dict(rclone_environment(landed.stack.installation.cloud("coreweave"))),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "refused" not in listed.stdout


def test_a_destination_outside_the_residency_is_refused(landed: Landed, tmp_path: Path) -> None:
    done = lintas(
        landed.stack, "move", "aws://raw/flights", "azure://lake/x", "--policy", policy_file(tmp_path), "--json"
    )
    assert (done.returncode, "SG" in done.stderr) == (3, True), done.stderr


def test_a_killed_move_goes_on_where_it_was(landed: Landed) -> None:
    """Killed when its first objects have arrived; the far side is whole in the end, and nothing is sent twice."""
    stack = landed.stack
    for name in ("killed", "killed-too-late", "killed-again"):
        move = ("move", "aws://raw/flights", f"azure://lake/{name}", "--json")
        if killed_in_the_middle(stack, move, name):
            break
    else:
        pytest.fail("every move was over before it could be killed")
    moved, again = (json.loads(lintas(stack, *move).stdout) for _ in range(2))
    verified = json.loads(lintas(stack, "manifest", move[2], "--verify", "--json").stdout)
    assert moved["digest"] == again["digest"] == verified["digest"]
    assert (moved["objects_sent"] < moved["objects"], again["objects_sent"]) == (True, 0)


def killed_in_the_middle(stack: WholeStack, move: Sequence[str], name: str) -> bool:
    """Start the installed program and kill it when something is there; whether it was still at work."""
    there = stack.installation.store("azure", "lake")
    there.create_bucket()
    with subprocess.Popen(command.cold(*move), env=stack.environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if any("/.lintas/" not in info.key for info in there.list(f"{name}/")):
                process.kill()
            time.sleep(0.01)
    return process.returncode == -signal.SIGKILL


def test_a_changed_object_moves_alone(landed: Landed, tmp_path: Path) -> None:
    stack = landed.stack
    store = stack.installation.store("onprem", "changing")
    store.create_bucket()
    for name in ("a", "b", "c"):
        content = f"id,amount\n1,{len(name)}\n".encode()
        store.put(f"data/{name}.csv", [content], size_bytes=len(content))
    policy = policy_file(tmp_path)
    move = ("move", "onprem://changing/data", "google://lake/changing", "--policy", policy, "--json")
    first = lintas(stack, *move)
    assert json.loads(first.stdout)["objects_sent"] == 3, first.stderr
    time.sleep(0.01)
    store.put("data/b.csv", [b"id,amount\n1,9\n"], size_bytes=14)
    second = json.loads(lintas(stack, *move).stdout)
    assert (second["objects_sent"], second["bytes_sent"]) == (1, 14)


@pytest.mark.parametrize("verb", ["status", "offers", "releases", "doctor"])
def test_verbs_print_one_json_object_and_nothing_else(landed: Landed, verb: str) -> None:
    """The installed program itself, not a fork with its modules in memory."""
    arguments = (verb, "--json", *(("--state", str(landed.stack.state)) if verb == "status" else ()))
    done = subprocess.run(
        command.cold(*arguments), env=landed.stack.environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert isinstance(json.loads(done.stdout), dict)


def test_placing_says_why_every_other_offer_was_rejected(landed: Landed) -> None:
    spec = str(Path(__file__).parents[2] / "examples" / "flights" / "training.yaml")
    shape = json.loads(lintas(landed.stack, "place", spec, "--json").stdout)
    assert shape["chosen"]["provider"] == "onprem"
    assert shape["rejected"]
    assert all(offer["reason"] for offer in shape["rejected"])


def test_a_port_in_use_is_named(landed: Landed, tmp_path: Path) -> None:
    port = landed.stack.prefect_ui_url.rsplit(":", 1)[1]
    done = lintas(landed.stack, "up", "--state", str(tmp_path / "other"), "--prefect-port", port)
    assert (done.returncode, f"port {port} is in use" in done.stderr) == (2, True), done.stderr
