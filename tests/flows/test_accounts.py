"""The conformance suites run against accounts that a `lintas.yaml` names: here it names the twin's, told as such."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.local.object_stores import console_script
from tests.servers import rclone_environment
from tests.whole_stack import WholeStack

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(400)


def conformance(stack: WholeStack, *arguments: str) -> str:
    """The suite in a process of its own, from a copy of nothing but the configuration."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, **stack.environment, "LINTAS_ACCOUNTS": str(stack.config)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=360,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


def buckets(stack: WholeStack, cloud: str) -> set[str]:
    environment = dict(rclone_environment(stack.installation.cloud(cloud)))
    listed = subprocess.run(
        [console_script("rclone"), "lsf", f"{cloud}:"], env=environment, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def test_stores_trainers_and_servers_of_an_account_are_tried_and_what_was_made_is_removed(
    whole_stack: WholeStack,
) -> None:
    before = {cloud: buckets(whole_stack, cloud) for cloud in ("aws", "google", "azure", "coreweave")}
    told = conformance(
        whole_stack,
        "tests/conformance/test_store.py",
        "tests/conformance/test_trainer.py",
        "tests/conformance/test_server.py",
        "tests/conformance/test_store_trouble.py",
        "-k",
        "metadata_comes_back or trouble or hidden_files and coreweave or predicts_as and google or wrong_key and aws",
    )
    assert "cost: test_store* write some 100 MB" in told
    assert "needs the twin's own 'refusal'" in told
    assert "needs a server that fails on demand" in told
    assert {cloud: buckets(whole_stack, cloud) - {"lintas-work/"} for cloud in before} == {
        cloud: names - {"lintas-work/"} for cloud, names in before.items()
    }
