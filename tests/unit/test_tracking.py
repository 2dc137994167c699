"""Runs, models and versions in a real MLflow (SQLite, no server): what is written is read back by MLflow's client."""

from __future__ import annotations

import json
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from sklearn.linear_model import LogisticRegression

from tasks import tracking
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.errors import IntegrityError, Invalid, NotFound, Retryable
from tasks.core.evaluation import EvaluationSpec, Threshold, model_digest
from tasks.core.manifest import Manifest
from tasks.core.placement import Offer, Requirements, Situation, place
from tasks.core.training import TrainingSpec
from tasks.registry import installation

MANIFEST = Manifest.of([Entry("train/a.parquet", 10, "a" * 64), Entry("holdout/b.parquet", 5, "b" * 64)])
DATA = DatasetURI("site", "raw", "flights")
SPEC = TrainingSpec(
    name="late",
    command=("python", "train.py"),
    code_dir=".",
    requirements=Requirements(),
    evaluation=EvaluationSpec("late", (Threshold("roc_auc", minimum=0.8, maximum_loss=0.01),)),
    parameters={"rate": 0.1, "rounds": 20},
)
PLACEMENT = place(
    SPEC.requirements,
    [Offer("site", "jakarta", "ID", "host", vcpus=2, memory_gib=4, price_usd_per_hour=0.5)],
    Situation(data_size_bytes=15, data_cloud="site"),
)


@dataclass
class Registry:
    """A configured MLflow and the bare client to look into it."""

    url: str
    client: MlflowClient
    configure: Callable[[str], None]

    def run(self, spec: TrainingSpec = SPEC, **facts: str) -> str:
        return tracking.open_run(spec, PLACEMENT, DATA, MANIFEST, **{"attempt_id": uuid.uuid4().hex, **facts})

    def logged_model(self, run_id: str) -> LoggedModel:
        (output,) = self.client.get_run(run_id).outputs.model_outputs
        return self.client.get_logged_model(output.model_id)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    home = tmp_path_factory.mktemp("mlflow")
    url = f"sqlite:///{home}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)  # Without a server MLflow keeps artifacts below the working directory.
        patch.setenv("LINTAS_CONFIG", str(home / "lintas.yaml"))

        def configure(mlflow_url: str) -> None:
            settings: dict[str, Any] = {
                "clouds": {"site": {"provider": "onprem", "options": {"root": str(home)}}},
                "services": {"mlflow_url": mlflow_url},
                "gate": {"signing_key": "env:UNUSED", "pseudonym_key": "env:UNUSED"},
                "state_dir": str(home / "state"),
            }
            (home / "lintas.yaml").write_text(json.dumps(settings))
            installation.cache_clear()

        configure(url)
        yield Registry(url, MlflowClient(url), configure)
        installation.cache_clear()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model name of the test's own."""
    return f"model-{abs(hash(request.node.name)) % 10**8}"


def rows(seed: int, count: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"delay": random.normal(size=count), "wind": random.normal(size=count), "who": "canary-name"})
    table["late"] = (table["delay"] + 0.3 * table["wind"] + 0.2 * random.normal(size=count) > 0).astype(int)
    return table


def save_model(directory: Path, *, columns: tuple[str, ...] = ("delay", "wind"), **changes: Any) -> Path:
    table = rows(1)
    inputs = table[list(columns)]
    model = LogisticRegression().fit(inputs, table["late"])
    facts: dict[str, Any] = {
        "signature": infer_signature(inputs, model.predict_proba(inputs)),
        "input_example": inputs.head(2),
        "pyfunc_predict_fn": "predict_proba",
        "pip_requirements": ["scikit-learn"],
    }
    mlflow.sklearn.save_model(model, str(directory), **(facts | changes))
    return directory


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("poor") / "model", columns=("wind",))


@pytest.fixture
def holdout(tmp_path: Path) -> Path:
    (tmp_path / "holdout").mkdir()
    for part in (2, 3):
        rows(part).to_parquet(tmp_path / "holdout" / f"{part}.parquet")
    return tmp_path / "holdout"


def open_runs_of(registry: Registry, attempt_id: str) -> list[str]:
    experiment = registry.client.get_experiment_by_name(SPEC.name)
    assert experiment is not None
    runs = registry.client.search_runs([experiment.experiment_id])
    return [run.info.run_id for run in runs if run.data.tags.get("lintas.attempt") == attempt_id]


def test_an_attempt_whose_answer_was_lost_finds_its_run_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run

    def answer_lost(*arguments: Any, **facts: Any) -> None:
        create(*arguments, **facts)
        raise MlflowException("API request to /runs/create failed", error_code=INTERNAL_ERROR)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", answer_lost)
        with pytest.raises(Retryable):
            registry.run(attempt_id="lost/1")
    run_id = registry.run(attempt_id="lost/1")
    assert open_runs_of(registry, "lost/1") == [run_id]
    assert registry.client.get_run(run_id).data.params == {"rate": "0.1", "rounds": "20"}
    assert registry.run(attempt_id="lost/2") != run_id


def test_a_run_that_mlflow_s_client_asked_for_twice_stands_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run

    def asked_again(*arguments: Any, **facts: Any) -> object:
        create(*arguments, **facts)
        return create(*arguments, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", asked_again)
        run_id = registry.run(attempt_id="twice/1")
    assert open_runs_of(registry, "twice/1") == [run_id]
    assert registry.run(attempt_id="twice/1") == run_id


def test_a_run_that_has_ended_is_not_opened_again(registry: Registry) -> None:
    run_id = registry.run(attempt_id="ended/1")
    tracking.finish_run(run_id, "FAILED", cost_usd=0.0)
    assert registry.run(attempt_id="ended/1") != run_id


def test_a_run_says_what_ran_where_on_which_data_and_at_what_cost(registry: Registry) -> None:
    run_id = registry.run(source_digest="s" * 64, policy_digest="p" * 64, verdict="cleared")
    tracking.finish_run(run_id, "FINISHED", cost_usd=0.25)
    run = registry.client.get_run(run_id)
    assert run.data.params == {"rate": "0.1", "rounds": "20"}
    assert run.data.metrics == {"cost_usd": 0.25}
    assert run.info.status == "FINISHED"
    wanted = {
        "lintas.provider": "site",
        "lintas.region": "jakarta",
        "lintas.offer": "site/jakarta/host",
        "lintas.price_usd_per_hour": "0.5",
        "lintas.manifest_digest": MANIFEST.digest,
        "lintas.source_digest": "s" * 64,
        "lintas.policy_digest": "p" * 64,
        "lintas.verdict": "cleared",
    }
    assert wanted.items() <= run.data.tags.items()
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == (str(DATA), MANIFEST.digest[:36])
    assert json.loads(dataset.dataset.source) == {"uri": str(DATA), "digest": MANIFEST.digest}
    assert json.loads(dataset.dataset.profile) == {"objects": 2, "size_bytes": 15}


def test_eight_runs_at_once_share_one_experiment(registry: Registry) -> None:
    spec = replace(SPEC, name="raced")
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: registry.run(spec), range(8)))
    assert len({registry.client.get_run(run).info.experiment_id for run in runs}) == 1


def test_a_registered_model_is_read_back_with_its_digest_and_its_run(registry: Registry, good: Path, name: str) -> None:
    run_id = registry.run()
    version = tracking.register_model(run_id, name, good)
    assert (version.model, version.version, version.run_id) == (name, "1", run_id)
    assert version.digest == model_digest(good)
    logged = registry.logged_model(run_id)
    assert registry.client.get_model_version(name, "1").source == f"models:/{logged.model_id}"
    assert (logged.source_run_id, logged.status) == (run_id, "READY")
    assert logged.params == {"rate": "0.1", "rounds": "20"}
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/1")
    assert loaded.predict(rows(4)[["delay", "wind"]]).shape == (400, 2)


def test_registering_the_same_files_of_a_run_again_makes_no_second_version(
    registry: Registry, good: Path, poor: Path, name: str
) -> None:
    run_id = registry.run()
    first = tracking.register_model(run_id, name, good)
    assert tracking.register_model(run_id, name, good) == first
    assert tracking.register_model(run_id, name, poor).version == "2"
    assert tracking.register_model(registry.run(), name, good).version == "3"


def test_eight_trainings_that_register_a_new_model_at_once_get_eight_versions(
    registry: Registry, good: Path, name: str
) -> None:
    runs = [registry.run() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda run_id: tracking.register_model(run_id, name, good), runs))
    assert sorted(int(version.version) for version in versions) == list(range(1, 9))
    assert {version.run_id for version in versions} == set(runs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"signature": False, "input_example": None}, "has no signature"),
        ({"input_example": None}, "has no input example"),
    ],
)
def test_a_model_that_does_not_describe_itself_is_refused_and_not_registered(
    registry: Registry, tmp_path: Path, name: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        tracking.register_model(registry.run(), name, save_model(tmp_path / "model", **change))
    assert registry.client.search_registered_models(f"name = '{name}'") == []


def test_a_job_that_left_no_model_is_told_what_to_write(registry: Registry, tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="left no MLflow model in 'model/'"):
        tracking.register_model(registry.run(), name, tmp_path / "model")


def test_an_alias_names_one_version_and_moves(registry: Registry, good: Path, poor: Path, name: str) -> None:
    assert tracking.version_by_alias(name, tracking.CHAMPION) is None
    first = tracking.register_model(registry.run(), name, good)
    assert tracking.version_by_alias(name, tracking.CHAMPION) is None
    second = tracking.register_model(registry.run(), name, poor)
    tracking.set_alias(name, first.version, tracking.CHAMPION)
    assert tracking.version_by_alias(name, tracking.CHAMPION) == first
    tracking.set_alias(name, second.version, tracking.CHAMPION)
    assert tracking.version_by_alias(name, tracking.CHAMPION) == second
    assert registry.client.get_model_version_by_alias(name, "champion").version == 2


def test_a_download_is_exactly_what_was_registered(registry: Registry, good: Path, name: str, tmp_path: Path) -> None:
    version = tracking.register_model(registry.run(), name, good)
    home = tracking.download_version(name, version.version, tmp_path / "home" / "model")
    assert model_digest(home) == model_digest(good)
    assert sorted(path.name for path in home.iterdir()) == sorted(path.name for path in good.iterdir())
    inode = (home / "MLmodel").stat().st_ino
    assert tracking.download_version(name, version.version, home) == home
    assert (home / "MLmodel").stat().st_ino == inode, "nothing is sent twice"


def test_a_download_that_was_altered_in_the_artifact_store_is_refused(
    registry: Registry, good: Path, name: str, tmp_path: Path
) -> None:
    run_id = registry.run()
    version = tracking.register_model(run_id, name, good)
    stored = Path(registry.logged_model(run_id).artifact_location.removeprefix("file://"))
    (stored / "MLmodel").write_text((stored / "MLmodel").read_text() + "\n")
    with pytest.raises(IntegrityError, match="is not what was registered"):
        tracking.download_version(name, version.version, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_unknown_versions_and_runs_are_not_found(registry: Registry, name: str, tmp_path: Path) -> None:
    for call in (
        lambda: tracking.model_version(name, "1"),
        lambda: tracking.download_version(name, "1", tmp_path / "x"),
        lambda: tracking.set_alias(name, "1", "champion"),
        lambda: tracking.finish_run("0" * 32, "FINISHED", cost_usd=0),
    ):
        with pytest.raises(NotFound, match="does not know what it takes to"):
            call()


def test_the_first_model_needs_the_absolute_thresholds_only_and_the_next_must_match_the_champion(
    registry: Registry, good: Path, poor: Path, name: str, holdout: Path, tmp_path: Path
) -> None:
    first = tracking.register_model(registry.run(), name, good)
    alone = tracking.evaluate(SPEC, holdout, first, tmp_path / "models")
    assert alone.passed
    assert alone.champion_metrics is None
    assert alone.rows == 800
    assert alone.metrics["roc_auc"] > 0.9

    tracking.set_alias(name, first.version, tracking.CHAMPION)
    second = tracking.register_model(registry.run(), name, poor)
    against = tracking.evaluate(SPEC, holdout, second, tmp_path / "models")
    assert not against.passed
    assert against.champion_metrics == pytest.approx(dict(alone.metrics))
    assert any("worse than the champion" in reason for reason in against.reasons)


def test_an_evaluation_stands_with_the_run_and_the_version(
    registry: Registry, good: Path, name: str, holdout: Path, tmp_path: Path
) -> None:
    run_id = registry.run()
    version = tracking.register_model(run_id, name, good)
    evaluation = tracking.evaluate(SPEC, holdout, version, tmp_path / "models")
    tracking.record_evaluation(run_id, version, evaluation)
    metrics = registry.client.get_run(run_id).data.metrics
    assert metrics["holdout_roc_auc"] == pytest.approx(evaluation.metrics["roc_auc"])
    assert tracking.model_version(name, version.version).tags[tracking.EVALUATION_TAG] == "passed"

    failed = replace(evaluation, passed=False, reasons=("roc_auc is 0.5", "brier is 0.4"))
    tracking.record_evaluation(run_id, version, failed)
    tags = registry.client.get_model_version(name, version.version).tags
    assert tags[tracking.EVALUATION_TAG] == "failed"
    assert tags["lintas.evaluation_reasons"] == "roc_auc is 0.5; brier is 0.4"


def test_rows_that_a_model_cannot_take_are_refused_without_showing_them(
    registry: Registry, good: Path, name: str, holdout: Path, tmp_path: Path
) -> None:
    version = tracking.register_model(registry.run(), name, good)
    broken = rows(5)
    cases = {
        "lacks what the model needs: wind": broken.drop(columns="wind"),
        "the model cannot take the held-out rows": broken.assign(delay="canary-value"),
        "the label 'late' in '2.parquet' is not always 0 or 1": broken.assign(late=2),
    }
    for words, table in cases.items():
        table.to_parquet(holdout / "2.parquet")
        with pytest.raises(Invalid, match=words) as refused:
            tracking.evaluate(SPEC, holdout, version, tmp_path / "models")
        assert "canary" not in str(refused.value)
        assert refused.value.__cause__ is None
    shutil.rmtree(holdout)
    with pytest.raises(Invalid, match="there are no held-out rows"):
        tracking.evaluate(SPEC, holdout, version, tmp_path / "models")


def test_a_model_of_classes_is_told_to_give_probabilities(
    registry: Registry, name: str, holdout: Path, tmp_path: Path
) -> None:
    classes = save_model(tmp_path / "classes", pyfunc_predict_fn="predict")
    version = tracking.register_model(registry.run(), name, classes)
    with pytest.raises(Invalid, match="gives no probabilities"):
        tracking.evaluate(SPEC, holdout, version, tmp_path / "models")


def test_a_stopped_server_is_unreachable_and_its_password_is_not_told(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # Bound but not listening: every connection is refused.
        port = held.getsockname()[1]
        registry.configure(f"http://user:canary@127.0.0.1:{port}")
        try:
            with pytest.raises(Retryable, match=f"MLflow at http://127.0.0.1:{port} is unreachable") as stopped:
                registry.run()
        finally:
            registry.configure(registry.url)
    assert "canary" not in str(stopped.value)


def test_without_an_address_the_key_is_named(registry: Registry) -> None:
    registry.configure("")
    try:
        with pytest.raises(Invalid, match=r"services\.mlflow_url is missing"):
            tracking.model_version("late", "1")
    finally:
        registry.configure(registry.url)
