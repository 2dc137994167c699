"""Promote one model version to several clouds as one release, or go back to the one before."""

from typing import Any

from prefect import flow

from flows.forms import Clouds
from tasks.core.release import Release
from tasks.serving import Mirrored, ask_roll_back, bring_about, open_release, record_promotion
from tasks.serving import mirror as mirror_requests


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


@flow(name="mirror", flow_run_name="mirror {model} {version} at {percent}%")
def mirror(model: str, version: str, to: Clouds, percent: int) -> Mirrored:
    """Rehearse a version: it gets a copy of the requests of what is live, and nobody gets its answers.

    Args:
        model: Name of the registered model.
        version: Its version in the registry.
        to: Clouds on which the model is live and whose provider can mirror requests.
        percent: How many of a hundred requests are copied; 0 ends it.
    """
    return mirror_requests(model, version, to, percent)


def mirrored_json(mirrored: Mirrored) -> dict[str, Any]:
    """The shape that `lintas promote --mirror --json` documents."""
    return {
        "release_id": mirrored.live.release_id,
        "state": "mirrored" if mirrored.percent else "not mirrored",
        "model": mirrored.model,
        "version": mirrored.version,
        "digest": mirrored.digest,
        "live_version": mirrored.live.version,
        "endpoints": [
            {
                "provider": endpoint.cloud,
                "url": endpoint.url,
                "mirror_version": endpoint.mirror_version,
                "mirror_percent": endpoint.mirror_percent,
                "digest": endpoint.digest,
                "healthy": endpoint.healthy,
            }
            for endpoint in mirrored.endpoints
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
