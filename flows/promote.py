"""Promote one model version to several clouds as one release, or go back to the one before."""

from typing import Any

from prefect import flow

from flows.forms import Clouds
from tasks.core.release import Release
from tasks.serving import ask_roll_back, bring_about, open_release, record_promotion


@flow(name="promote", flow_run_name="promote {model} {version}")
def promote(model: str, version: str, to: Clouds) -> Release:
    """Release a model version to these clouds; it becomes champion when every endpoint serves it and is healthy.

    Args:
        model: Name of the registered model.
        version: Its version in the registry; it must have passed its evaluation.
        to: Clouds of lintas.yaml that serve it, with equal shares.
    """
    release = bring_about(open_release(model, version, to))
    record_promotion(release)
    return release


def release_json(release: Release) -> dict[str, Any]:
    """The shape that `lintas promote --json` documents."""
    return {
        "release_id": release.release_id,
        "state": release.state.value,
        "model": release.model,
        "version": release.version,
        "digest": release.digest,
        "reason": release.reason,
        "created": release.created.isoformat(),
        "endpoints": [
            {
                "provider": endpoint.cloud,
                "url": endpoint.url,
                "weight": endpoint.weight,
                "digest": endpoint.digest,
                "healthy": endpoint.healthy,
            }
            for endpoint in release.endpoints
        ],
    }


@flow(name="roll-back", flow_run_name="roll back {model}")
def roll_back(model: str) -> Release:
    """Make what was live before the present release live again.

    Args:
        model: Name of the registered model.
    """
    release = bring_about(ask_roll_back(model))
    record_promotion(release)
    return release
