"""Tracking: MLflow holds the runs, the models and their versions; this is all that Lintas says to it.

Stages are never used: `challenger` and `champion` are aliases. A model's identity is `model_digest` of its files,
noted with each version when it is registered and checked whenever one is downloaded.

MLflow is imported when first needed: that takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from tasks.core.dataset import DatasetURI
from tasks.core.errors import Denied, IntegrityError, Invalid, LintasError, NotFound, Retryable, Terminal
from tasks.core.evaluation import Evaluation, judge, model_digest
from tasks.core.manifest import Manifest
from tasks.core.placement import Placement
from tasks.core.training import TrainingSpec
from tasks.registry import installation
from tasks.steps import step

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

CHALLENGER = "challenger"
"""Alias of the newest version of a model."""

CHAMPION = "champion"
"""Alias of the version that is served."""

DIGEST_TAG = "lintas.digest"
EVALUATION_TAG = "lintas.evaluation"
ATTEMPT_TAG = "lintas.attempt"

_DATASET_DIGEST_CHARACTERS = 36  # MLflow's limit; the whole digest stands in the source and in a tag.
_ADDED_BY_DOWNLOAD = "registered_model_meta"
_CLIENT_ENVIRONMENT = {
    # The steps retry by themselves; MLflow's own seven retries would keep a person waiting for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Standard output belongs to whoever asked for JSON.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model.

    Args:
        model: Name of the registered model.
        version: Its version, a whole number as text.
        digest: `model_digest` of its files; empty when it was not registered by Lintas.
        run_id: The run that made it.
        tags: All of its tags.
    """

    model: str
    version: str
    digest: str
    run_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)


@step(name="open run", retries=2, run_name="open run {spec.name}")
def open_run(
    spec: TrainingSpec,
    placement: Placement,
    data: DatasetURI,
    manifest: Manifest,
    *,
    attempt_id: str,
    source_digest: str = "",
    policy_digest: str = "",
    verdict: str = "",
) -> str:
    """Start the MLflow run of a training and note what is known before it begins.

    The same attempt again is the same run for as long as it is open, whichever of the answers was lost on the way.

    Args:
        spec: What runs; its name is the experiment's, its parameters are the run's.
        placement: Where it runs and what that should cost.
        data: The dataset, where the job reads it.
        manifest: That dataset's manifest.
        attempt_id: What tells this attempt from all others; equal when a step or a flow is run again.
        source_digest: Digest of the dataset that it was made from.
        policy_digest: Digest of the policy under which it was moved.
        verdict: The gate's word on it.

    Returns:
        The run's id. The script logs its own metrics there while it runs.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    offer = placement.chosen
    tags = {
        ATTEMPT_TAG: attempt_id,
        "lintas.provider": offer.cloud,
        "lintas.region": offer.region,
        "lintas.offer": str(offer),
        "lintas.price_usd_per_hour": f"{offer.price_usd_per_hour or 0.0:g}",
        "lintas.expected_usd": f"{placement.total_usd:.6f}",
        "lintas.data": str(data),
        "lintas.manifest_digest": manifest.digest,
        "lintas.source_digest": source_digest,
        "lintas.policy_digest": policy_digest,
        "lintas.verdict": verdict,
    }
    dataset = Dataset(
        name=str(data),
        digest=manifest.digest[:_DATASET_DIGEST_CHARACTERS],
        source_type="lintas",
        source=json.dumps({"uri": str(data), "digest": manifest.digest}),
        profile=json.dumps({"objects": len(manifest), "size_bytes": manifest.size_bytes}),
    )
    with _client(f"open a run of '{spec.name}'") as client:
        experiment_id = _experiment(client, spec.name)
        if not _open_runs(client, experiment_id, attempt_id):
            client.create_run(
                experiment_id,
                run_name=f"{spec.name} on {offer.cloud}",
                tags={name: value for name, value in tags.items() if value},
            )
        run_id, *doubles = _open_runs(client, experiment_id, attempt_id)
        for double in doubles:
            client.delete_run(double)
        client.log_batch(run_id, params=[Param(name, str(value)) for name, value in spec.parameters.items()])
        _log_input(client, run_id, DatasetInput(dataset, [InputTag("mlflow.data.context", "training")]))
    return run_id


@step(name="finish run", retries=2)
def finish_run(run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], *, cost_usd: float) -> None:
    """End a run with what it cost.

    Args:
        run_id: The run.
        status: How it ended, in MLflow's words.
        cost_usd: What it cost in USD, by the seconds that it ran.
    """
    with _client(f"finish run {run_id}") as client:
        client.log_metric(run_id, "cost_usd", cost_usd)
        client.set_terminated(run_id, status)


def register_model(
    run_id: str, model: str, model_dir: Path, tags: Mapping[str, str] = MappingProxyType({})
) -> ModelVersion:
    """Log a model with its run and register it as the next version; the same files of the same run are one version.

    Args:
        run_id: The run that made it.
        model: Name of the registered model; created when there is none, by whoever comes first.
        model_dir: Local directory with the MLflow model, as the job wrote it.
        tags: What else is noted with the version.

    Raises:
        Invalid: There is no MLflow model, or it lacks a signature or an input example.
    """
    from mlflow.entities import LoggedModelOutput

    _require_description(model_dir)
    digest = model_digest(model_dir)
    with _client(f"register a version of '{model}'") as client:
        _ensure_registered_model(client, model)
        for existing in client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'"):
            if existing.tags.get(DIGEST_TAG) == digest:
                return _version(existing)
        run = client.get_run(run_id)
        logged = client.create_logged_model(
            run.info.experiment_id,
            name=model,
            source_run_id=run_id,
            params=dict(run.data.params),
            tags={DIGEST_TAG: digest},
        )
        client.log_model_artifacts(logged.model_id, str(model_dir))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        created = client.create_model_version(
            model,
            source=f"models:/{logged.model_id}",
            run_id=run_id,
            tags={**tags, DIGEST_TAG: digest},
            model_id=logged.model_id,
        )
        read_back = _version(client.get_model_version(model, str(created.version)))
    if read_back.digest != digest:
        raise IntegrityError(
            f"version {read_back.version} of '{model}' has another digest than was registered", "run again"
        )
    return read_back


def model_version(model: str, version: str) -> ModelVersion:
    """One version of a registered model. Raises `NotFound` when there is none."""
    with _client(f"find version {version} of '{model}'") as client:
        return _version(client.get_model_version(model, version))


def version_by_alias(model: str, alias: str) -> ModelVersion | None:
    """The version that an alias names, or None when the model or the alias does not exist."""
    try:
        with _client(f"find the {alias} of '{model}'") as client:
            version = client.get_registered_model(model).aliases.get(alias)
            return _version(client.get_model_version(model, str(version))) if version else None
    except NotFound:
        return None


def set_alias(model: str, version: str, alias: str) -> None:
    """Let an alias name this version and no other."""
    with _client(f"make version {version} the {alias} of '{model}'") as client:
        client.set_registered_model_alias(model, alias, version)


def download_version(model: str, version: str, into: Path) -> Path:
    """Bring a version's files home and check that they are what was registered.

    Args:
        model: Name of the registered model.
        version: Its version.
        into: The model's directory-to-be; when it holds this very model already, nothing is sent.

    Returns:
        `into`.

    Raises:
        NotFound: There is no such version.
        Invalid: It was not registered by Lintas.
        IntegrityError: The files are others than those that were registered; nothing is left at `into`.
    """
    wanted = model_version(model, version)
    if not wanted.digest:
        raise Invalid(f"version {version} of '{model}' has no digest", "register it through Lintas")
    if into.is_dir() and any(into.iterdir()) and model_digest(into) == wanted.digest:
        return into
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as folder, _client(f"download '{model}' {version}") as client:
        from mlflow.artifacts import download_artifacts

        found = Path(
            download_artifacts(
                artifact_uri=f"models:/{model}/{version}", dst_path=folder, tracking_uri=client.tracking_uri
            )
        )
        (found / _ADDED_BY_DOWNLOAD).unlink(missing_ok=True)
        if model_digest(found) != wanted.digest:
            raise IntegrityError(
                f"version {version} of '{model}' is not what was registered",
                "do not serve it; look who wrote to MLflow's artifact store, and train again",
            )
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(found, into)
    return into


def evaluate(spec: TrainingSpec, holdout: Path, version: ModelVersion, folder: Path) -> Evaluation:
    """Score a version and the champion on the same held-out rows, and judge.

    Args:
        spec: Its `evaluation` says how.
        holdout: Local directory with the held-out Parquet files.
        version: The version in question.
        folder: Where the models may be downloaded to.

    Raises:
        Invalid: A model cannot score these rows.
        IntegrityError: A model's files are not what was registered.
    """
    from tasks.scoring import score

    files = sorted(holdout.rglob("*.parquet"))
    found = score(download_version(version.model, version.version, folder / version.version), files, spec.evaluation)
    champion = version_by_alias(version.model, CHAMPION)
    against = None
    if champion is not None and champion.version != version.version:
        champion_dir = download_version(champion.model, champion.version, folder / champion.version)
        against = score(champion_dir, files, spec.evaluation).metrics
    return judge(found.metrics, spec.evaluation.thresholds, against, rows=found.rows)


def record_evaluation(run_id: str, version: ModelVersion, evaluation: Evaluation) -> None:
    """Note an evaluation with the run (metrics) and the version (tags); what may be released is told by the tag."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    scores = {f"holdout_{name}": value for name, value in evaluation.metrics.items()}
    scores |= {f"champion_{name}": value for name, value in (evaluation.champion_metrics or {}).items()}
    word = "passed" if evaluation.passed else "failed"
    with _client(f"record the evaluation of '{version.model}' {version.version}") as client:
        client.log_batch(run_id, metrics=[Metric(name, value, now_ms, 0) for name, value in scores.items()])
        client.set_tag(run_id, EVALUATION_TAG, word)
        tags = {
            "lintas.evaluation_rows": str(evaluation.rows),
            "lintas.evaluation_reasons": "; ".join(evaluation.reasons),
            EVALUATION_TAG: word,
        }
        for name, value in tags.items():
            client.set_model_version_tag(version.model, version.version, name, value)


@contextlib.contextmanager
def _client(doing: str) -> Iterator[MlflowClient]:
    """A client of the configured MLflow; its errors come out as ours."""
    url = installation().settings.services.mlflow_url
    if not url:
        raise Invalid("services.mlflow_url is missing", "set it in lintas.yaml, or run 'lintas up' for the local twin")
    for name, value in _CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)

    import mlflow
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    mlflow.set_tracking_uri(url)  # Artifact locations of the form models:/... are resolved by the global setting.
    try:
        yield mlflow.MlflowClient(url)
    except MlflowException as error:
        raise _translated(error, doing, _place(url)) from error
    except (RequestException, ConnectionError) as error:
        raise _unreachable(doing, _place(url)) from error


def _translated(error: Any, doing: str, place: str) -> LintasError:
    """MLflow's error codes (mlflow.protos.databricks_pb2.ErrorCode) by what to do next."""
    code = str(error.error_code)
    if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"):
        return NotFound(f"MLflow at {place} does not know what it takes to {doing}", "check the name, version or run")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return Denied(f"MLflow at {place} does not let us {doing}", "check MLFLOW_TRACKING_TOKEN or the user's rights")
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "MALFORMED_REQUEST"):
        return Invalid(f"MLflow at {place} refused to {doing} ({code})", "see its log for the reason")
    if code in ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"):
        return Retryable(f"MLflow at {place} is too busy to {doing}", "try again in a while")
    # A refused or cut connection, and a 5xx that outlived the client's retries, are INTERNAL_ERROR with this text.
    if code == "INTERNAL_ERROR" and "API request to" in str(error):
        return _unreachable(doing, place)
    return Terminal(f"MLflow at {place} could not {doing} ({code})", "see its log for the reason")


def _unreachable(doing: str, place: str) -> Retryable:
    return Retryable(
        f"MLflow at {place} is unreachable, so it could not {doing}", "start it or correct services.mlflow_url"
    )


def _place(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")


def _experiment(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage == "deleted":
        raise Invalid(
            f"the MLflow experiment '{name}' was deleted", "restore it in MLflow, or give the spec another name"
        )
    return str(found.experiment_id)


def _open_runs(client: MlflowClient, experiment_id: str, attempt_id: str) -> list[str]:
    """The runs of an attempt that have not ended, oldest first.

    There is more than one when MLflow's client lost an answer and asked again by itself.
    """
    found = client.search_runs(
        [experiment_id],
        f"tags.`{ATTEMPT_TAG}` = '{attempt_id}' and attributes.status = 'RUNNING'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    return [str(run.info.run_id) for run in found]


def _log_input(client: MlflowClient, run_id: str, used: DatasetInput, attempts: int = 3) -> None:
    """Note a dataset with a run; noting it again changes nothing.

    When two runs note the same new dataset at the same time, MLflow's store answers BAD_REQUEST to the later one
    (a unique constraint of its table of datasets); asked again it finds the dataset.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(1, attempts + 1):
        try:
            return client.log_inputs(run_id, [used])
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST" or attempt == attempts:
                raise
    return None


def _ensure_registered_model(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _require_description(model_dir: Path) -> None:
    """An MLflow model says what it takes and gives; one that does not is refused before it gets anywhere."""
    from mlflow.models import Model

    if not (model_dir / "MLmodel").is_file():
        raise Invalid(
            f"the job left no MLflow model in '{model_dir.name}/' of its output directory",
            "save it there with mlflow.<flavour>.save_model(...)",
        )
    description = Model.load(str(model_dir))
    if description.signature is None or description.signature.inputs is None:
        raise Invalid("the model has no signature", "save it with signature=infer_signature(inputs, predictions)")
    if description.saved_input_example_info is None:
        raise Invalid("the model has no input example", "save it with input_example=inputs.head(5)")


def _version(found: MlflowVersion) -> ModelVersion:
    tags = {str(name): str(value) for name, value in (found.tags or {}).items()}
    return ModelVersion(
        model=str(found.name),
        version=str(found.version),
        digest=tags.get(DIGEST_TAG, ""),
        run_id=str(found.run_id or ""),
        tags=tags,
    )
