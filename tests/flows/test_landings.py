"""A dataset that lands on any of the clouds starts the lifecycle, once, on the real Prefect server."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deployments.event_bridge import Destination, carry
from tasks.core.events import object_created
from tasks.core.ports import CloudEvent
from tests.whole_stack import WholeStack

# The landing on aws is the one that tests/flows/test_lifecycle.py follows to its end.
CLOUDS = ("google", "azure", "coreweave", "onprem", "edge")

Runs = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def waiting_runs(whole_stack: WholeStack) -> Iterator[Runs]:
    """The lifecycle's runs for a source. None of them begins: the pool is paused, and at the end they are deleted."""
    found: set[str] = set()

    def pause(paused: bool) -> None:
        whole_stack.ask_prefect("PATCH", "/work_pools/lintas", {"is_paused": paused})

    def runs(source: str) -> list[dict[str, Any]]:
        wish = {"flows": {"name": {"any_": ["lifecycle"]}}, "sort": "EXPECTED_START_TIME_DESC"}
        answer = whole_stack.ask_prefect("POST", "/flow_runs/filter", wish)
        mine = [run for run in answer if run["parameters"].get("source") == source]
        found.update(run["id"] for run in mine)
        return mine

    pause(True)
    try:
        yield runs
    finally:
        for number in found:
            whole_stack.ask_prefect("DELETE", f"/flow_runs/{number}")
        pause(False)


def eventually(runs: Runs, source: str, within_s: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := runs(source):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no run was started for {source}")


def test_a_landing_on_each_of_the_other_clouds_starts_a_run(whole_stack: WholeStack, waiting_runs: Runs) -> None:
    prefix = f"landing-{uuid.uuid4().hex[:8]}"
    for cloud in CLOUDS:
        store = whole_stack.installation.store(cloud, "raw")
        store.create_bucket()
        store.put(f"{prefix}/part-0.csv", [b"a\n1\n"], size_bytes=4)
        store.put(f"{prefix}/_SUCCESS", [], size_bytes=0)
    for cloud in CLOUDS:
        run = eventually(waiting_runs, f"{cloud}://raw/{prefix}")
        assert run["created_by"]["type"] == "AUTOMATION"
        assert run["parameters"]["destination"] == f"google://lake/{prefix}"
        assert len(waiting_runs(f"{cloud}://raw/{prefix}")) == 1


class Twice:
    """A source that delivers its events again, as every queue may, and forgets what was acknowledged too late."""

    def acknowledge(self, receipt: str) -> None:
        del receipt

    def receive(self, *, wait_s: float) -> list[tuple[CloudEvent, str]]:
        del wait_s
        return []


def test_the_same_event_twice_is_one_run(whole_stack: WholeStack, waiting_runs: Runs, tmp_path: Path) -> None:
    name = uuid.uuid4().hex[:8]

    def landing(prefix: str) -> tuple[CloudEvent, str]:
        moment = datetime.now(UTC)
        key = f"{prefix}/_SUCCESS"
        return object_created("google", "raw", key, write="1", time=moment, size_bytes=0, version="1"), "receipt"

    to = Destination(whole_stack.prefect_api_url, tmp_path / "set-aside.jsonl")
    for batch in ([landing(f"first-{name}")], [landing(f"first-{name}")], [landing(f"second-{name}")]):
        carry(Twice(), batch, to)
    eventually(waiting_runs, f"google://raw/first-{name}")
    # Events are answered one after the other: when the last one has its run, the second delivery has had its chance.
    eventually(waiting_runs, f"google://raw/second-{name}")
    assert len(waiting_runs(f"google://raw/first-{name}")) == 1
