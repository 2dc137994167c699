"""A model is judged by what was asked for, and what cannot be compared does not pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import Invalid
from tasks.core.evaluation import EvaluationSpec, Threshold, judge, model_digest


@pytest.mark.parametrize(
    ("threshold", "score", "champion", "passed"),
    [
        (Threshold("roc_auc", minimum=0.7), 0.7, None, True),
        (Threshold("roc_auc", minimum=0.7), 0.6999, None, False),
        (Threshold("log_loss", maximum=0.5), 0.5, None, True),
        (Threshold("log_loss", maximum=0.5), 0.51, None, False),
        (Threshold("roc_auc", maximum_loss=0.01), 0.5, None, True),
        (Threshold("roc_auc", maximum_loss=0.01), 0.895, 0.90, True),
        (Threshold("roc_auc", maximum_loss=0.01), 0.88, 0.90, False),
        (Threshold("log_loss", maximum_loss=0.01), 0.305, 0.30, True),
        (Threshold("log_loss", maximum_loss=0.01), 0.32, 0.30, False),
        (Threshold("roc_auc", minimum_gain=0.01), 0.92, 0.90, True),
        (Threshold("roc_auc", minimum_gain=0.01), 0.905, 0.90, False),
        (Threshold("log_loss", minimum_gain=0.01), 0.28, 0.30, True),
        (Threshold("log_loss", minimum_gain=0.01), 0.295, 0.30, False),
        (Threshold("roc_auc", minimum=0.7), math.nan, None, False),
        (Threshold("roc_auc", maximum_loss=0.1), 0.9, math.nan, False),
    ],
)
def test_a_threshold_holds_or_says_why_not(
    threshold: Threshold, score: float, champion: float | None, passed: bool
) -> None:
    against = None if champion is None else {threshold.metric: champion}
    evaluation = judge({threshold.metric: score}, [threshold], against)
    assert evaluation.passed is passed
    assert bool(evaluation.reasons) is not passed
    assert all(threshold.metric in reason for reason in evaluation.reasons)


def test_a_score_that_is_missing_fails() -> None:
    assert judge({}, [Threshold("brier", maximum=1)]).reasons == ("brier could not be computed",)
    missing_champion = judge({"brier": 0.1}, [Threshold("brier", maximum_loss=0.1)], {})
    assert missing_champion.reasons == ("brier of the champion could not be computed",)


def test_every_failure_is_told() -> None:
    evaluation = judge(
        {"roc_auc": 0.6, "brier": 0.3},
        [Threshold("roc_auc", minimum=0.7, maximum_loss=0.01), Threshold("brier", maximum=0.2)],
        {"roc_auc": 0.8, "brier": 0.1},
        rows=10,
    )
    assert len(evaluation.reasons) == 3
    assert evaluation.rows == 10


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"thresholds": {"roc_auc": {"minimum": 0.7}}}, "evaluation.label is missing"),
        ({"label": "y", "thresholds": {}}, "evaluation.thresholds is empty"),
        ({"label": "y", "thresholds": {"auc": {"minimum": 0.7}}}, "evaluation.thresholds.auc is not a known metric"),
        ({"label": "y", "thresholds": {"roc_auc": {}}}, "evaluation.thresholds.roc_auc asks for nothing"),
        ({"label": "y", "thresholds": {"roc_auc": {"minimun": 1}}}, "did you mean 'minimum'"),
        ({"label": "y", "thresholds": {"roc_auc": {"minimum": "high"}}}, "roc_auc.minimum is a text"),
        ({"label": "y", "tresholds": {}}, "evaluation.tresholds is not known; did you mean 'thresholds'"),
    ],
)
def test_a_wrong_evaluation_names_the_key(data: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as wrong:
        EvaluationSpec.from_mapping(data)
    assert words in str(wrong.value)


def test_a_model_s_digest_is_of_its_files_and_not_of_what_a_download_adds(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "data").mkdir(parents=True)
    (model / "MLmodel").write_text("flavors: {}")
    (model / "data" / "weights").write_bytes(b"\x00" * 100)
    digest = model_digest(model)
    (model / "registered_model_meta").write_text("model_version: 1")
    assert model_digest(model) == digest
    model.rename(tmp_path / "elsewhere")
    assert model_digest(tmp_path / "elsewhere") == digest
    (tmp_path / "elsewhere" / "data" / "weights").write_bytes(b"\x00" * 99 + b"\x01")
    assert model_digest(tmp_path / "elsewhere") != digest


def test_an_empty_or_missing_model_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is empty"):
        model_digest(tmp_path)
    with pytest.raises(Invalid, match="there is no directory"):
        model_digest(tmp_path / "none")
