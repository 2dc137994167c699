"""Trains the demo's model: will this flight, now leaving the gate, arrive more than 15 minutes late?

A script as a user would write it. It knows nothing of Lintas but the training contract's environment: it reads
`LINTAS_DATA_DIR`, continues from `LINTAS_CHECKPOINT_DIR`, logs to the MLflow run `LINTAS_RUN_ID` while it runs, and
leaves an MLflow model in `LINTAS_OUTPUT_DIR/model`. The columns that say who was on board are never read.

The boosting rounds are grown in steps; after each one the last month of the training data, kept aside, is scored.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

# On cores that others use too, OpenMP threads that spin while they wait slow each other down many times over.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

# First: for each function that it trusts it looks into every module that is loaded already, which takes seconds.
import skops.io

# isort: split
import joblib
import mlflow.sklearn
import pandas as pd
import pyarrow.parquet as pq
import sklearn
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

LABEL = "late"
CATEGORIES = ["carrier", "origin", "dest"]
NUMBERS = ["dep_delay", "weekday", "hour", "minute", "flight", "distance", "plane_year", "plane_seats", "plane_engines"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
FEATURES = CATEGORIES + NUMBERS + WEATHER
DEFAULTS: dict[str, Any] = {
    "iterations": 48,
    "iterations_a_step": 12,
    "learning_rate": 0.12,
    "max_leaf_nodes": 31,
    "l2_regularization": 1.0,
    "seed": 2013,
}
TRUSTED_TYPES = [
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
]
"""What a gradient boosting model consists of besides plain data; skops loads nothing else."""


class LiveMetrics:
    """Sends metrics to the MLflow run while training goes on.

    Without `MLFLOW_TRACKING_URI` it does nothing. A tracking server that cannot be reached is told about once and does
    not end the training: the model matters more.
    """

    def __init__(self) -> None:
        self._run_id = os.environ.get("LINTAS_RUN_ID", "")
        self._client = MlflowClient() if self._run_id and os.environ.get("MLFLOW_TRACKING_URI") else None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send these metrics of one step."""
        if self._client is None:
            return
        now_ms = int(time.time() * 1000)
        try:
            self._client.log_batch(self._run_id, metrics=[Metric(*item, now_ms, step) for item in metrics.items()])
        except MlflowException as error:
            print(f"metrics are no longer logged: {error.error_code} at the tracking server", flush=True)
            self._client = None


def read_months(directory: Path) -> list[pd.DataFrame]:
    """The months of the training data in order, with no column but the features and the label."""
    return [pq.read_table(path, columns=[*FEATURES, LABEL]).to_pandas() for path in sorted(directory.glob("*.parquet"))]


def columns() -> ColumnTransformer:
    """Categories become numbers, missing and unknown ones count as missing; everything else passes."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    return ColumnTransformer([("categories", encoder, CATEGORIES), ("numbers", "passthrough", NUMBERS + WEATHER)])


def train(months: list[pd.DataFrame], parameters: dict[str, Any], checkpoint: Path, live: LiveMetrics) -> Pipeline:
    """Grow the trees step by step, from the checkpoint on if there is one, and return the whole pipeline."""
    rows, kept_aside = pd.concat(months[:-1]), months[-1]
    prepare = columns().fit(rows[FEATURES])
    inputs, checks = prepare.transform(rows[FEATURES]), prepare.transform(kept_aside[FEATURES])
    if checkpoint.exists():
        model: HistGradientBoostingClassifier = joblib.load(checkpoint)
        print(f"continuing after iteration {model.n_iter_}", flush=True)
    else:
        model = HistGradientBoostingClassifier(
            learning_rate=parameters["learning_rate"],
            max_leaf_nodes=parameters["max_leaf_nodes"],
            l2_regularization=parameters["l2_regularization"],
            random_state=parameters["seed"],
            categorical_features=list(range(len(CATEGORIES))),  # pyright: ignore[reportArgumentType]
            early_stopping=False,  # pyright: ignore[reportArgumentType]
            warm_start=True,
            max_iter=0,
        )
    done = model.max_iter
    while done < parameters["iterations"]:
        done = min(done + parameters["iterations_a_step"], parameters["iterations"])
        model.set_params(max_iter=done).fit(inputs, rows[LABEL])
        late = model.predict_proba(checks)[:, 1]
        scores = {
            "validation_log_loss": float(log_loss(kept_aside[LABEL], late)),
            "validation_roc_auc": float(roc_auc_score(kept_aside[LABEL], late)),
        }
        print(f"iteration {done}: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()), flush=True)
        live.log(done, scores)
        draft = checkpoint.with_suffix(".new")
        joblib.dump(model, draft)
        draft.replace(checkpoint)
    return Pipeline([("columns", prepare), ("model", model)])


def save(pipeline: Pipeline, example: pd.DataFrame, directory: Path) -> None:
    """Write the pipeline as an MLflow model that answers probabilities, with signature and input example."""
    # The whole numbers (hour, flight, distance) are never missing, so whole numbers they may stay.
    warnings.filterwarnings("ignore", message=".*integer column", module="mlflow")
    mlflow.sklearn.save_model(
        pipeline,
        str(directory),
        signature=infer_signature(example, pipeline.predict_proba(example)),
        input_example=example,
        pyfunc_predict_fn="predict_proba",
        skops_trusted_types=TRUSTED_TYPES,
        pip_requirements=[
            f"scikit-learn=={sklearn.__version__}",
            f"skops=={skops.__version__}",
            f"pandas=={pd.__version__}",
        ],
    )


def main() -> None:
    """Train under the contract."""
    began = time.monotonic()
    data = Path(os.environ["LINTAS_DATA_DIR"]) / os.environ.get("LINTAS_TRAIN_PATH", "train")
    parameters = DEFAULTS | json.loads(os.environ.get("LINTAS_PARAMETERS", "{}"))
    months = read_months(data)
    if len(months) < 2:
        raise SystemExit(f"{data} has {len(months)} Parquet files: two months at least are needed")
    print(f"{sum(map(len, months))} flights of {len(months)} months, {time.monotonic() - began:.1f} s", flush=True)
    checkpoint = Path(os.environ["LINTAS_CHECKPOINT_DIR"]) / "model.joblib"
    pipeline = train(months, parameters, checkpoint, LiveMetrics())
    print(f"trained, {time.monotonic() - began:.1f} s", flush=True)
    save(pipeline, months[-1][FEATURES].head(5), Path(os.environ["LINTAS_OUTPUT_DIR"]) / "model")
    print(f"saved, {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
