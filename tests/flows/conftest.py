"""One lifecycle for all tests of this folder: a dataset lands, and everything follows from its event."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deployments.demo import DATASET, REPOSITORY, land_dataset, read_report, watch_lifecycle
from tests.whole_stack import WholeStack

ROWS = 60_000


@dataclass(frozen=True)
class Landed:
    """A finished lifecycle: the dataset that landed, its run, its report."""

    stack: WholeStack
    folder: Path
    run_id: str
    state: str
    message: str
    steps: tuple[str, ...]
    report: dict[str, Any]
    page: Path


@pytest.fixture(scope="session")
def landed(whole_stack: WholeStack, tmp_path_factory: pytest.TempPathFactory) -> Landed:
    folder = tmp_path_factory.mktemp("dataset")
    script = REPOSITORY / "examples" / "flights" / "prepare.py"
    subprocess.run([sys.executable, script, "--out", folder, "--rows", str(ROWS)], check=True, capture_output=True)
    since = datetime.now(UTC)
    land_dataset(folder, whole_stack.installation.store_of(DATASET))
    seen = list(watch_lifecycle(whole_stack.prefect_api_url, since, timeout_s=280))[-1]
    log = (whole_stack.state / "logs" / "worker.log").read_text(errors="replace")
    assert seen.run_id is not None
    assert seen.state == "COMPLETED", f"{seen.message}\n{log[-4000:]}"
    report, page = read_report(whole_stack.installation.settings.state_dir, seen.run_id)
    return Landed(
        whole_stack,
        folder,
        seen.run_id,
        seen.state,
        seen.message,
        tuple(step.name for step in seen.steps),
        report,
        page,
    )
