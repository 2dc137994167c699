"""The demo's data and script: the same every time, real work for the gate, and a model that never saw a person."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights"
PERSONAL = {"lead_passenger", "contact_email", "contact_phone", "payment_card", "national_id"}


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", EXAMPLE / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dataset(prepare: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flights")
    prepare.write(prepare.plant_personal_columns(prepare.flights(12_000), 7), out)
    return out


@pytest.fixture(scope="module")
def rows(dataset: Path) -> pd.DataFrame:
    return pd.concat([pq.read_table(path).to_pandas() for path in sorted(dataset.rglob("*.parquet"))])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_people(
    prepare: ModuleType, dataset: Path, tmp_path: Path
) -> None:
    for seed, same in ((7, True), (8, False)):
        again = prepare.write(prepare.plant_personal_columns(prepare.flights(12_000), seed), tmp_path / str(seed))
        for path in again:
            first = dataset / path.relative_to(tmp_path / str(seed))
            assert (path.read_bytes() == first.read_bytes()) is same
            facts = [name for name in pq.read_schema(path).names if name not in PERSONAL]
            assert pq.read_table(path, columns=facts) == pq.read_table(first, columns=facts)


def test_training_and_held_out_months_are_apart(dataset: Path) -> None:
    names = {part: [path.name for path in sorted((dataset / part).iterdir())] for part in ("train", "holdout")}
    assert names["train"] == [f"month={month:02d}.parquet" for month in range(1, 11)]
    assert names["holdout"] == ["month=11.parquet", "month=12.parquet"]
    for path in dataset.rglob("*.parquet"):
        assert set(pq.read_table(path, columns=["month"]).to_pandas()["month"]) == {int(path.stem[-2:])}


def test_the_personal_columns_look_like_the_real_thing(rows: pd.DataFrame) -> None:
    forms = {
        "contact_email": r"[a-z]+\.[a-z]+\d{4}@example\.(com|org|net)",
        "contact_phone": r"\+1 \d{3} 555 01\d\d",
        "payment_card": r"\d{16}",
        "national_id": r"\d{6}([04][1-9]|[1256]\d)(0[1-9]|1[0-2])\d{6}",
        "lead_passenger": r"[A-Z][a-z]+ [A-Z][a-z]+",
    }
    for column, form in forms.items():
        values = rows[column].dropna()
        assert 0.95 < len(values) / len(rows) < 0.995
        assert all(re.fullmatch(form, value) for value in values), column


def test_every_card_passes_luhn(rows: pd.DataFrame) -> None:
    def luhn(number: str) -> int:
        doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(number)]
        return sum(value - 9 if value > 9 else value for value in doubled) % 10

    assert {luhn(number) for number in rows["payment_card"].dropna()} == {0}


def run_script(dataset: Path, home: Path, **parameters: float) -> str:
    for name in ("out", "checkpoints"):
        (home / name).mkdir(exist_ok=True)
    contract = {
        "LINTAS_DATA_DIR": str(dataset),
        "LINTAS_OUTPUT_DIR": str(home / "out"),
        "LINTAS_CHECKPOINT_DIR": str(home / "checkpoints"),
        "LINTAS_PARAMETERS": json.dumps(parameters),
        "LINTAS_TRAIN_PATH": "train",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LINTAS_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=EXAMPLE,
        env=environment | contract,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_leaves_a_model_that_describes_itself_and_continues_from_its_checkpoint(
    dataset: Path, tmp_path: Path
) -> None:
    first = run_script(dataset, tmp_path, iterations=4, iterations_a_step=2)
    assert "iteration 4:" in first
    assert "continuing" not in first
    model = tmp_path / "out" / "model"
    description = yaml.safe_load((model / "MLmodel").read_text())
    columns = {column["name"] for column in json.loads(description["signature"]["inputs"])}
    assert not columns & (PERSONAL | {"late", "tailnum"})
    assert description["saved_input_example_info"]["type"] == "dataframe"
    assert description["flavors"]["sklearn"]["serialization_format"] == "skops"

    (tmp_path / "out" / "model").rename(tmp_path / "first")
    second = run_script(dataset, tmp_path, iterations=6, iterations_a_step=2)
    assert "continuing after iteration 4" in second
    assert [line.split(":")[0] for line in second.splitlines() if line.startswith("iteration")] == ["iteration 6"]
