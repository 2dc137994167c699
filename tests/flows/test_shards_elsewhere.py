"""Inside a flow the shards of a move are Prefect task runs, whichever runner carries them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.core.cloud import CloudConfig
from tests.machines import Machines, awaited, dask_machines
from tests.whole_stack import WholeStack

SCRIPT = """
import sys
from flows.move import move

if __name__ == "__main__":
    moved = move(*sys.argv[1:3], policy="open")
    print("SENT", len(moved.receipt.copied), moved.receipt.digest == moved.source_digest)
"""


def contents(top: Path) -> dict[str, bytes]:
    files = {path.relative_to(top).as_posix(): path for path in top.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".lintas/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "runner", ["dask", *(pytest.param(each, marks=pytest.mark.campaign) for each in ("processes", "threads"))]
)
def test_shards_are_task_runs_of_the_move(whole_stack: WholeStack, tmp_path: Path, runner: str) -> None:
    source, destination = f"near://{runner}/in", f"far://{runner}/out"
    for number in range(60):
        path = tmp_path / f"near/{runner}/in/{number:02}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * (number + 1))
    (tmp_path / "far").mkdir()
    clouds = (
        CloudConfig("near", "onprem", options={"root": str(tmp_path / "near")}),
        CloudConfig("far", "onprem", options={"root": str(tmp_path / "far")}),
    )
    script = tmp_path / "moving.py"
    script.write_text(SCRIPT)
    shards = {"at_once": 2, "objects": 15}
    elsewhere = dask_machines(tmp_path, clouds, shards) if runner == "dask" else nullcontext()
    with elsewhere as machines:
        machines = machines or Machines(tmp_path, clouds, {"runner": runner, **shards})
        environment = machines.environment("home") | {"PREFECT_API_URL": whole_stack.prefect_api_url}
        done = subprocess.run(
            [sys.executable, script, source, destination],
            env=environment,
            cwd=tmp_path / "home",
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert "SENT 60 True" in done.stdout, done.stderr[-3000:]
    names = [f"copy {source} -> {destination}, part {number}" for number in (1, 2, 3, 4)]
    with temporary_settings({PREFECT_API_URL: whole_stack.prefect_api_url}), get_client(sync_client=True) as client:

        def completed() -> list[str]:
            runs = client.read_task_runs(task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=names)))
            return sorted(run.name for run in runs if run.state_name == "Completed")

        awaited(lambda: completed() == names, "the server never heard of all four parts")
    assert contents(tmp_path / f"far/{runner}/out") == contents(tmp_path / f"near/{runner}/in")
