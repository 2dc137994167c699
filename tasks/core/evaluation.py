"""Evaluation: is a new model good enough, alone and against the champion that it would replace?

Scores come from the same held-out rows for both models; this module only judges them. Whatever cannot be compared
(a missing score, a NaN) fails: a gate must not guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.directory import directory_manifest
from tasks.core.errors import Invalid
from tasks.core.fields import Fields

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "roc_auc": True,
    "accuracy": True,
    "average_precision": True,
    "log_loss": False,
    "brier": False,
}
"""The metrics that can be asked for, and their good direction."""

_REGISTRY_FILES = ("registered_model_meta",)
"""Files that MLflow adds to a downloaded model and that are not part of it."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What one metric must reach.

    Args:
        metric: One of `HIGHER_IS_BETTER`.
        minimum: The least score that passes.
        maximum: The greatest score that passes.
        minimum_gain: How much better than the champion it must be, in the metric's good direction.
        maximum_loss: How much worse than the champion it may be, in the metric's good direction.
    """

    metric: str
    minimum: float | None = None
    maximum: float | None = None
    minimum_gain: float | None = None
    maximum_loss: float | None = None


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """How a trained model is scored and judged, as the training spec's `evaluation` says.

    Args:
        label: Column with the truth: 0 or 1, false or true.
        thresholds: What must be reached; the first model, which has no champion, needs the absolute ones only.
        decision_threshold: Probability from which a row counts as positive, for `accuracy`.
    """

    label: str
    thresholds: tuple[Threshold, ...]
    decision_threshold: float = 0.5

    @classmethod
    def from_mapping(cls, data: object, where: str = "evaluation") -> EvaluationSpec:
        """Read it from YAML. Raises `Invalid` naming the key that is unknown, missing or of the wrong kind."""
        fields = Fields(data, where)
        by_metric = fields.fields("thresholds")
        spec = cls(
            label=fields.text("label"),
            thresholds=tuple(_threshold(metric, by_metric) for metric in by_metric.names()),
            decision_threshold=fields.number("decision_threshold", 0.5),
        )
        fields.finish()
        if not spec.thresholds:
            raise Invalid(
                f"{where}.thresholds is empty", "say what a model must reach, such as roc_auc: {minimum: 0.7}"
            )
        return spec


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Args:
        metrics: Score by metric of the new model.
        champion_metrics: Score by metric of the champion on the same rows; None when there is no champion.
        thresholds: What was asked for.
        passed: Whether all of it holds.
        reasons: Why not, one sentence each; empty when it passed.
        rows: How many held-out rows were scored.
    """

    metrics: Mapping[str, float]
    champion_metrics: Mapping[str, float] | None
    thresholds: tuple[Threshold, ...]
    passed: bool
    reasons: tuple[str, ...]
    rows: int = 0


def judge(
    metrics: Mapping[str, float],
    thresholds: Sequence[Threshold],
    champion_metrics: Mapping[str, float] | None = None,
    *,
    rows: int = 0,
) -> Evaluation:
    """Compare scores with what is asked for. Pure.

    >>> judge({"roc_auc": 0.71}, [Threshold("roc_auc", minimum=0.7)]).passed
    True
    >>> judge({"roc_auc": 0.71}, [Threshold("roc_auc", maximum_loss=0.01)], {"roc_auc": 0.75}).reasons
    ('roc_auc is 0.0400 worse than the champion (0.7100 against 0.7500), 0.0100 is allowed',)
    """
    reasons = [reason for threshold in thresholds for reason in _failures(threshold, metrics, champion_metrics)]
    return Evaluation(
        metrics=dict(metrics),
        champion_metrics=dict(champion_metrics) if champion_metrics is not None else None,
        thresholds=tuple(thresholds),
        passed=not reasons,
        reasons=tuple(reasons),
        rows=rows,
    )


def model_digest(directory: Path) -> str:
    """The identity of a model: the manifest digest of its directory's files (relative path, size, BLAKE3 of content).

    What is registered, what is downloaded and what is served are the same model exactly when these are equal.

    Raises:
        Invalid: There is no such directory, or it holds no files.
    """
    manifest = directory_manifest(directory, skip=_REGISTRY_FILES)
    if not len(manifest):
        raise Invalid(f"the model directory '{directory}' is empty", "write the model there first")
    return manifest.digest


def _threshold(metric: str, by_metric: Fields) -> Threshold:
    if metric not in HIGHER_IS_BETTER:
        raise Invalid(f"{by_metric.key(metric)} is not a known metric", f"use one of {', '.join(HIGHER_IS_BETTER)}")
    fields = by_metric.fields(metric)
    threshold = Threshold(
        metric=metric,
        minimum=fields.optional_number("minimum"),
        maximum=fields.optional_number("maximum"),
        minimum_gain=fields.optional_number("minimum_gain"),
        maximum_loss=fields.optional_number("maximum_loss"),
    )
    fields.finish()
    if threshold == Threshold(metric):
        raise Invalid(f"{fields.where} asks for nothing", "give minimum, maximum, minimum_gain or maximum_loss")
    return threshold


def _failures(threshold: Threshold, metrics: Mapping[str, float], champion: Mapping[str, float] | None) -> list[str]:
    name, score = threshold.metric, metrics.get(threshold.metric, math.nan)
    if not math.isfinite(score):
        return [f"{name} could not be computed"]
    failures: list[str] = []
    if threshold.minimum is not None and score < threshold.minimum:
        failures.append(f"{name} is {score:.4f}, at least {threshold.minimum:.4f} is needed")
    if threshold.maximum is not None and score > threshold.maximum:
        failures.append(f"{name} is {score:.4f}, at most {threshold.maximum:.4f} is allowed")
    if champion is not None and (threshold.minimum_gain is not None or threshold.maximum_loss is not None):
        failures += _against_champion(threshold, score, champion.get(name, math.nan))
    return failures


def _against_champion(threshold: Threshold, score: float, champion: float) -> list[str]:
    name = threshold.metric
    if not math.isfinite(champion):
        return [f"{name} of the champion could not be computed"]
    gain = score - champion if HIGHER_IS_BETTER[name] else champion - score
    scores = f"({score:.4f} against {champion:.4f})"
    failures: list[str] = []
    if threshold.minimum_gain is not None and gain < threshold.minimum_gain:
        failures.append(f"{name} gains {gain:.4f} over the champion {scores}, {threshold.minimum_gain:.4f} is needed")
    if threshold.maximum_loss is not None and -gain > threshold.maximum_loss:
        failures.append(
            f"{name} is {-gain:.4f} worse than the champion {scores}, {threshold.maximum_loss:.4f} is allowed"
        )
    return failures
