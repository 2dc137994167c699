"""The main job against real stores, a real Prefect server and a real MLflow; looked at from the far side."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from deployments.demo import verify_both_sides
from deployments.local.object_stores import console_script
from tasks.core.errors import IntegrityError
from tests.command import cold, lintas
from tests.flows.conftest import Landed
from tests.servers import rclone_environment

RCLONE_FLAGS = ("--config", "/dev/null", "--no-check-dest")
PERSONAL = ("contact_email", "contact_phone", "payment_card", "national_id", "lead_passenger")


def copied_by_rclone(landed: Landed, cloud: str, remote: str, into: Path) -> Path:
    config = landed.stack.installation.cloud(cloud)
    environment = rclone_environment(config)
    subprocess.run(
        [console_script("rclone"), "copy", f"{cloud}:{remote}", str(into)],
        env=dict(environment),
        check=True,
        timeout=120,
    )
    return into


def digest_by_hand(folder: Path) -> str:
    """The dataset's digest as docs/manifest.md describes it, without a line of Lintas. All objects are small."""
    whole = blake3()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(name for name in files if not name.startswith(".lintas/")):
        content = files[name].read_bytes()
        assert len(content) <= 8 * 1024 * 1024
        whole.update(
            json.dumps([name, len(content), blake3(content).hexdigest()], separators=(",", ":")).encode() + b"\n"
        )
    return whole.hexdigest()


@pytest.fixture(scope="session")
def far_side(landed: Landed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_by_rclone(landed, "google", "lake/flights", tmp_path_factory.mktemp("far"))


def test_the_event_of_the_landing_started_the_run(landed: Landed) -> None:
    run = landed.stack.ask_prefect("GET", f"/flow_runs/{landed.run_id}")
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["parameters"]["source"] == "aws://raw/flights"
    assert run["parameters"]["destination"] == "google://lake/flights"


def test_both_sides_hold_the_same_bytes_by_an_independent_client(landed: Landed, far_side: Path) -> None:
    first, second = landed.report["moved"]
    assert digest_by_hand(far_side) == first["digest"] == second["digest"]
    onprem = Path(landed.stack.installation.cloud("onprem").option("root")) / "training" / "flights"
    assert digest_by_hand(onprem) == second["digest"]
    assert first["objects_sent"] == first["objects"] == 13


def test_the_source_is_as_it_landed(landed: Landed, tmp_path: Path) -> None:
    source = copied_by_rclone(landed, "aws", "raw/flights", tmp_path)
    assert digest_by_hand(source) == landed.report["moved"][0]["source_digest"]
    for path in landed.folder.rglob("*.parquet"):
        assert (source / path.relative_to(landed.folder)).read_bytes() == path.read_bytes()


def test_the_demo_finds_both_ends_of_every_move_as_reported_and_says_when_one_is_not(landed: Landed) -> None:
    verify_both_sides(landed.report, landed.stack.installation)
    for end in ("source_digest", "digest"):
        first, second = landed.report["moved"]
        with pytest.raises(IntegrityError, match="does not hold what was moved"):
            verify_both_sides({"moved": [first, {**second, end: "0" * 64}]}, landed.stack.installation)


def test_no_personal_value_crossed(landed: Landed, far_side: Path) -> None:
    path = Path("train/month=01.parquet")
    before, after = pq.read_table(landed.folder / path), pq.read_table(far_side / path)
    assert before.num_rows == after.num_rows
    assert "payment_card" not in after.column_names
    for column in PERSONAL:
        if column in after.column_names:
            values = set(before[column].to_pylist()) - {None}
            assert values.isdisjoint(after[column].to_pylist())
    tokens = after["contact_email"].to_pylist()
    assert len(set(tokens)) > 1000, "tokens must keep travellers apart"


def test_no_personal_value_stands_in_logs_reports_or_databases(landed: Landed) -> None:
    table = pq.read_table(landed.folder / "train/month=01.parquet")
    canaries = {str(table[column][row].as_py()).encode() for column in PERSONAL for row in (0, 7, 100, 999)} - {b"None"}
    state = landed.stack.state
    looked_at = [*(state / "logs").rglob("*"), *(state / "reports").rglob("*"), *(state / "clearances").rglob("*")]
    looked_at += [*(state / "data-docs").rglob("*"), *(state / "data" / "mlflow").rglob("*"), *state.glob("*.sqlite*")]
    looked_at += [*(state / "data" / "prefect").rglob("*.db*")]
    files = [path for path in looked_at if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not [canary for canary in canaries if canary in content], path


def test_secrets_stand_nowhere_but_in_their_files(landed: Landed) -> None:
    state = landed.stack.state
    secrets = [
        secret.reveal().encode()
        for name in landed.stack.installation.settings.clouds
        for secret in landed.stack.installation.cloud(name).credentials.values()
    ]
    for path in [*(state / "logs").rglob("*"), *(state / "reports").rglob("*"), state / "lintas.yaml"]:
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret in content], path


def test_mlflow_holds_the_run_with_its_dataset_offer_and_model(landed: Landed) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(landed.stack.mlflow_url)
    trained = landed.report["trained"]
    run = client.get_run(trained["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["iterations"]
    assert run.data.tags["lintas.provider"] == "onprem"
    assert float(run.data.tags["lintas.expected_usd"]) == pytest.approx(
        landed.report["placement"]["chosen"]["total_usd"], abs=1e-6
    )
    source = json.loads(run.inputs.dataset_inputs[0].dataset.source)
    assert source["digest"] == landed.report["moved"][1]["digest"]
    version = client.get_model_version_by_alias(trained["model"], "champion")
    assert (
        version.version
        == trained["version"]
        == client.get_model_version_by_alias(trained["model"], "challenger").version
    )
    assert version.tags["lintas.digest"] == trained["digest"]
    assert {"validation_roc_auc"} <= set(run.data.metrics)
    assert client.get_metric_history(trained["run_id"], "validation_roc_auc")


def test_every_endpoint_answers_as_the_registered_model_does(landed: Landed, tmp_path: Path) -> None:
    import mlflow

    from deployments.demo import ask_endpoints, example_row

    row = example_row(landed.folder)
    answers = ask_endpoints(landed.report, landed.stack.installation, row)
    assert set(answers) == {"onprem", "edge"}
    mlflow.set_tracking_uri(landed.stack.mlflow_url)
    model = mlflow.pyfunc.load_model(f"models:/{landed.report['trained']['model']}@champion", dst_path=str(tmp_path))
    import pandas as pd

    frame = pd.DataFrame(**json.loads(row)["dataframe_split"])
    names = model.metadata.get_input_schema().input_names()
    expected = model.predict(frame[names])[0]
    assert json.loads(answers["onprem"]) == pytest.approx(list(expected))


def test_the_audit_log_tells_the_story_and_is_sound(landed: Landed) -> None:
    shown = subprocess.run(
        cold("audit", "--json"), env=landed.stack.environment, capture_output=True, text=True, check=True
    )
    kinds = [record["kind"] for record in json.loads(shown.stdout)["records"]]
    assert kinds[:2] == ["verdict", "receipt"]
    assert {"placement", "run", "evaluation", "promotion"} <= set(kinds)


def test_an_altered_audit_record_is_found(landed: Landed, tmp_path: Path) -> None:
    copy = tmp_path / "records.sqlite"
    with sqlite3.connect(landed.stack.installation.settings.state_dir / "records.sqlite") as live:
        live.execute("VACUUM INTO ?", (str(copy),))
    with sqlite3.connect(copy) as forged:
        tables = [row[0] for row in forged.execute("SELECT name FROM sqlite_master WHERE type='trigger'")]
        for trigger in tables:
            forged.execute(f"DROP TRIGGER {trigger}")
        forged.execute("UPDATE audit SET subject = 'elsewhere' WHERE sequence = 2")
    environment = landed.stack.environment | {"LINTAS_STATE_DIR": str(tmp_path)}
    done = lintas("audit", "--json", env=environment)
    assert (done.returncode, "audit record 2" in done.stderr) == (4, True), done.stderr


def test_the_report_is_one_page_with_nothing_remote(landed: Landed) -> None:
    page = landed.page.read_text()
    assert landed.report["trained"]["version"] in page
    assert "<script" not in page
    assert "https://" not in page


def test_schedules_create_runs(landed: Landed) -> None:
    body = {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "flows": {"name": {"any_": ["reconcile", "audit"]}},
    }
    found = landed.stack.ask_prefect("POST", "/flow_runs/filter", body)
    assert {run["created_by"]["type"] for run in found} == {"SCHEDULE"}


def test_a_second_landing_of_the_same_moves_nothing(landed: Landed) -> None:
    move = cold("move", "aws://raw/flights", "google://lake/flights", "--json")
    done = subprocess.run(move, env=landed.stack.environment, capture_output=True, text=True, check=True)
    moved = json.loads(done.stdout)
    assert (moved["objects_sent"], moved["route"], moved["digest"]) == (
        0,
        "nothing",
        landed.report["moved"][0]["digest"],
    )
