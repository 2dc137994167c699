"""Scoring: how well a model tells held-out rows, by scikit-learn's metrics on its MLflow predictions.

Rows are read in batches, and of each batch only what the model's signature names; predictions and labels alone stay
in memory. What is said of a failure names columns, never values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import Invalid
from tasks.core.evaluation import EvaluationSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Scores:
    """Score by metric (those of `tasks.core.evaluation.HIGHER_IS_BETTER`), and on how many rows."""

    metrics: Mapping[str, float]
    rows: int


def score(model_dir: Path, files: Sequence[Path], spec: EvaluationSpec) -> Scores:
    """Score an MLflow model that answers probabilities on the rows of Parquet files.

    Args:
        model_dir: The model's directory.
        files: The held-out rows.
        spec: Which column is the label, and where the decision lies.

    Raises:
        Invalid: The model has no signature, gives no probabilities or cannot take these rows, or the rows have no
            usable label; the message says which.
    """
    import mlflow.pyfunc
    import numpy as np
    import pyarrow.parquet as pq

    if not files:
        raise Invalid("there are no held-out rows to score on", "write Parquet files below the spec's data.holdout")
    # What would be warned of is found out by scoring; looking through every installed package for it takes seconds.
    model = mlflow.pyfunc.load_model(str(model_dir), suppress_warnings=True)
    inputs = model.metadata.get_input_schema()
    if inputs is None:
        raise Invalid(f"the model in '{model_dir.name}' has no signature", "save it with infer_signature(...)")
    names = list(inputs.input_names())
    labels: list[np.ndarray] = []
    likely: list[np.ndarray] = []
    for file in sorted(files):
        with pq.ParquetFile(file) as parquet:
            _require_columns(parquet.schema_arrow, [*names, spec.label], file)
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=[*names, spec.label]):
                labels.append(_labels(batch.column(spec.label), spec.label, file))
                likely.append(_probabilities(model, batch.select(names)))
    truth, chance = np.concatenate(labels), np.concatenate(likely)
    return Scores(_metrics(truth, chance, spec.decision_threshold), len(truth))


def _require_columns(schema: pa.Schema, names: Sequence[str], file: Path) -> None:
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise Invalid(
            f"'{file.name}' lacks what the model needs: {', '.join(missing)}",
            "train on the columns that the policy lets through, or let these through",
        )


def _labels(column: pa.Array, name: str, file: Path) -> np.ndarray:
    import numpy as np

    values = np.asarray(column.to_numpy(zero_copy_only=False))
    if column.null_count or not np.isin(values, (0, 1)).all():
        raise Invalid(
            f"the label '{name}' in '{file.name}' is not always 0 or 1", "correct evaluation.label or the data"
        )
    return values.astype(np.int8)


def _probabilities(model: Any, rows: pa.RecordBatch) -> np.ndarray:
    """The probability of the positive class, whether the model answers one column or one a class."""
    import numpy as np

    try:
        answer = np.asarray(model.predict(rows.to_pandas()))
    except Exception as error:  # noqa: BLE001 - whatever the model's own code raises
        # Not chained: MLflow's message shows the rows themselves.
        raise Invalid(
            f"the model cannot take the held-out rows ({type(error).__name__})",
            "compare its signature with the columns' types",
        ) from None
    chance = answer[:, -1] if answer.ndim == 2 else answer
    if not np.issubdtype(chance.dtype, np.floating) or not ((chance >= 0) & (chance <= 1)).all():
        raise Invalid("the model gives no probabilities", 'save it with pyfunc_predict_fn="predict_proba"')
    return chance


def _metrics(truth: np.ndarray, chance: np.ndarray, decision_threshold: float) -> dict[str, float]:
    from sklearn import metrics

    one_class = truth.min() == truth.max()
    return {
        "roc_auc": float("nan") if one_class else float(metrics.roc_auc_score(truth, chance)),
        "average_precision": float("nan") if one_class else float(metrics.average_precision_score(truth, chance)),
        "log_loss": float(metrics.log_loss(truth, chance, labels=[0, 1])),
        "brier": float(metrics.brier_score_loss(truth, chance)),
        "accuracy": float(metrics.accuracy_score(truth, chance >= decision_threshold)),
    }
