"""The demo: the main job, whole, on this machine.

A dataset lands in the `aws` bucket; the event of its landing starts the `lifecycle` deployment; what happens is shown
step by step as Prefect tells it; and at the end every endpoint is asked for a prediction. Nothing here does the job:
the demo starts servers, puts data into a bucket as a producer would, watches, and asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.core.dataset import DatasetURI
from tasks.core.errors import IntegrityError, Terminal
from tasks.registry import Installation

DATASET = DatasetURI("aws", "raw", "flights")
MARKER = "_SUCCESS"
REPOSITORY = Path(__file__).resolve().parents[1]
_ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_RECORDING = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class StepSeen:
    """One task run of the lifecycle as the Prefect server tells it."""

    name: str
    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LifecycleSeen:
    """The lifecycle's flow run at one moment; `run_id` is None until the event has started it."""

    run_id: str | None
    state: str
    steps: tuple[StepSeen, ...] = ()
    message: str = ""


def deploy(prefect_api_url: str) -> None:
    """Make the work pool, apply prefect.yaml and the automations. Raises `Terminal` with Prefect's last line."""
    # The twin's client sends nothing about its user anywhere, whatever the shell says.
    os.environ["DO_NOT_TRACK"] = "1"
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments.automations import apply_automations

    with temporary_settings({PREFECT_API_URL: prefect_api_url}), get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name="lintas", type="process"))
        except ObjectAlreadyExists:
            client.read_work_pool("lintas")
        apply_automations(client)
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=REPOSITORY,
        env=_environment(prefect_api_url),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Terminal(f"prefect deploy failed: {lines[-1] if lines else 'no output'}", "see prefect.yaml")


def deploy_once(prefect_api_url: str, mark: Path) -> None:
    """Apply prefect.yaml unless this very content was applied to this server's database before; see `deploy`."""
    from tasks.core.directory import directory_manifest

    files = [_file_digest(name) for name in ("prefect.yaml", "deployments/automations.py")]
    about = " ".join([directory_manifest(REPOSITORY / "flows", skip=("__pycache__",)).digest, *files])
    if mark.is_file() and mark.read_text() == about:
        return
    deploy(prefect_api_url)
    mark.write_text(about)


def verify_both_sides(report: Mapping[str, Any], here: Installation) -> None:
    """Read every byte of both ends of every move again.

    Raises:
        IntegrityError: An end does not hold what the report says.
    """
    from tasks.core.listing import read_manifest

    for leg in report["moved"]:
        for side, digest in ((leg["source"], leg["source_digest"]), (leg["destination"], leg["digest"])):
            uri = DatasetURI.parse(side)
            found = read_manifest(here.store_of(uri), uri, reread=True)
            if found.digest != digest:
                raise IntegrityError(f"{uri} does not hold what was moved", "see the audit log: 'lintas audit'")


def land_dataset(folder: Path, store: Any) -> tuple[int, int]:
    """Put the dataset into its bucket as a producer does: the data first, `_SUCCESS` last.

    Args:
        folder: Directory with the Parquet files.
        store: The store of the bucket.

    Returns:
        How many objects and bytes were put; objects that are there already with this content are left alone.
    """
    from tasks.core.dataset import DIGEST_METADATA, content_digest

    store.create_bucket()
    there = {info.key: info for info in store.list(DATASET.key_prefix)}
    objects = size_bytes = 0
    for path in sorted(folder.rglob("*.parquet")):
        key, content = DATASET.key(path.relative_to(folder).as_posix()), path.read_bytes()
        digest = content_digest([content])[0]
        if key in there and store.head(key).metadata.get(DIGEST_METADATA) == digest:
            continue
        store.put(key, [content], size_bytes=len(content), metadata={DIGEST_METADATA: digest})
        objects, size_bytes = objects + 1, size_bytes + len(content)
    store.put(DATASET.key(MARKER), [], size_bytes=0)
    return objects, size_bytes


def watch_lifecycle(
    prefect_api_url: str, since: datetime, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[LifecycleSeen]:
    """Follow the lifecycle run that the event starts, from before it exists to its end.

    Raises:
        Terminal: No run appeared, or it did not end within `timeout_s` seconds.
    """
    import httpx

    deadline = time.monotonic() + timeout_s
    with httpx.Client(base_url=prefect_api_url, timeout=10) as client:
        run: Mapping[str, Any] | None = None
        while time.monotonic() < deadline:
            try:
                run = _event_run(client, since) if run is None else _read(client, f"/flow_runs/{run['id']}")
                steps = () if run is None else _steps(client, run["id"])
            except httpx.TimeoutException:
                # On a busy machine the server takes its time; the deadline says how long.
                continue
            except httpx.HTTPStatusError as error:
                # So it answers while others write into its SQLite database.
                if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise
                sleep(0.4)
                continue
            if run is None:
                yield LifecycleSeen(None, "waiting for the event")
            else:
                state = run["state_type"] or "PENDING"
                yield LifecycleSeen(run["id"], state, steps, (run["state"] or {}).get("message") or "")
                if state in _ENDED and _all_told(steps, state, run["end_time"]):
                    return
            sleep(0.4)
    what = "did not start" if run is None else "did not end"
    raise Terminal(f"the lifecycle {what} within {timeout_s:.0f} s", "see the logs in the state directory")


def prepare_dataset(folder: Path) -> subprocess.Popen[bytes] | None:
    """Begin to write the dataset with the example's own script; None when an earlier demo wrote it whole."""
    if (folder / MARKER).exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    script = REPOSITORY / "examples" / "flights" / "prepare.py"
    command = [sys.executable, str(script), "--out", str(folder)]
    whole = "import pathlib as p, subprocess as s, sys; s.run(sys.argv[2:], check=True); p.Path(sys.argv[1]).touch()"
    return subprocess.Popen([sys.executable, "-c", whole, str(folder / MARKER), *command], stdout=subprocess.DEVNULL)


def example_row(folder: Path) -> bytes:
    """One flight of the held-out months, without the personal columns, as a request in MLflow's scoring protocol."""
    import pyarrow.parquet as pq

    path = min((folder / "holdout").glob("*.parquet"))
    row = pq.ParquetFile(path).read_row_group(0).slice(0, 1).to_pandas()
    return json.dumps({"dataframe_split": json.loads(row.to_json(orient="split", index=False))}).encode()


def read_report(state_dir: Path, flow_run_id: str) -> tuple[dict[str, Any], Path]:
    """The report that a lifecycle run wrote, and its page. Raises `Terminal` when there is none."""
    for path in sorted((state_dir / "reports").glob("*.json"), reverse=True):
        report = json.loads(path.read_text(encoding="utf-8"))
        # Pages of the gate lie there too.
        if report.get("flow_run_id") == flow_run_id:
            return report, path.with_suffix(".html")
    raise Terminal("the lifecycle wrote no report", "see its log in the Prefect UI")


def ask_endpoints(report: Mapping[str, Any], here: Installation, rows: bytes) -> dict[str, str]:
    """Send the same row to every endpoint of the report over plain HTTP; the prediction by cloud.

    Raises:
        IntegrityError: An endpoint does not answer with one prediction, or two of them disagree.
    """
    import httpx

    answers: dict[str, str] = {}
    for endpoint in report["release"]["endpoints"]:
        token = here.cloud(endpoint["provider"]).credentials["token"].reveal()
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        answer = httpx.post(endpoint["url"], content=rows, headers=headers, timeout=30)
        predictions = answer.json().get("predictions") if answer.status_code == 200 else None
        if not predictions:
            raise IntegrityError(f"{endpoint['url']} answered {answer.status_code}", "see the scoring host's log")
        answers[endpoint["provider"]] = json.dumps(predictions[0])
    if len(set(answers.values())) != 1:
        raise IntegrityError("the endpoints do not agree on a prediction", "compare their digests: 'lintas releases'")
    return answers


def _file_digest(name: str) -> str:
    from tasks.core.dataset import content_digest

    return content_digest([(REPOSITORY / name).read_bytes()])[0]


def _environment(prefect_api_url: str) -> dict[str, str]:
    return {**os.environ, "PREFECT_API_URL": prefect_api_url, "PYTHONPATH": str(REPOSITORY)}


def _event_run(client: Any, since: datetime) -> Mapping[str, Any] | None:
    """The first lifecycle run that an automation made after `since`."""
    found = _ask(
        client,
        "/flow_runs/filter",
        {
            "flows": {"name": {"any_": ["lifecycle"]}},
            "flow_runs": {"start_time": None, "expected_start_time": {"after_": since.astimezone(UTC).isoformat()}},
            "sort": "EXPECTED_START_TIME_ASC",
        },
    )
    made = [run for run in found if (run.get("created_by") or {}).get("type") == "AUTOMATION"]
    return made[0] if made else None


def _steps(client: Any, run_id: str) -> tuple[StepSeen, ...]:
    found = _ask(
        client, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
    )
    started = [run for run in found if run.get("start_time")]
    started.sort(key=lambda run: run["start_time"])
    return tuple(
        StepSeen(
            run["name"],
            run["state_type"] or "PENDING",
            run.get("total_run_time") or run.get("estimated_run_time") or 0.0,
        )
        for run in started
    )


def _all_told(steps: tuple[StepSeen, ...], state: str, ended_at: str) -> bool:
    """Whether the server has recorded every step of a run that ended; it records them in batches, a little later."""
    late = datetime.now(UTC) - datetime.fromisoformat(ended_at) > _RECORDING
    settled = all(step.state in _ENDED for step in steps)
    return late or (settled and (state != "COMPLETED" or any(step.name.startswith("report") for step in steps)))


def _ask(client: Any, path: str, body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    answer = client.post(path, json=body)
    answer.raise_for_status()
    return answer.json()


def _read(client: Any, path: str) -> Mapping[str, Any]:
    answer = client.get(path)
    answer.raise_for_status()
    return answer.json()
