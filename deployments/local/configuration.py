"""The `lintas.yaml` of the local twin: real ports, secrets by reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deployments.local import credentials
from deployments.local.credentials import SecretFiles
from deployments.local.processes import HOST

CLOUDS = ("aws", "google", "azure", "coreweave", "onprem", "edge")
FRONT = "-front"
"""How the name of the port ends that stands in front of a server, with its knobs."""

QUEUE = "lintas-events"
AWS_REGION = "us-east-1"
GOOGLE_REGION = "europe-west4"
GOOGLE_PROJECT = "lintas-local"
SUBSCRIPTION = f"projects/{GOOGLE_PROJECT}/subscriptions/{QUEUE}"
AZURE_REGION = "southeastasia"
AZURE_WORKSPACE = {
    "subscription": "00000000-0000-0000-0000-000000000001",
    "resource_group": "lintas",
    "workspace": "lintas",
}
WATCHED = {"watch": "raw", "poll_s": 1, "settle_s": 1}
"""Where a cloud without a queue looks for new objects: the bucket that the triggers in prefect.yaml speak of."""

WORK_BUCKET = "lintas-work"
"""Where a cloud keeps what training and serving need besides the dataset: code, outputs, checkpoints, models."""

_REPOSITORY = Path(__file__).parents[2]


def write_config(state: Path, ports: Mapping[str, int], secrets: SecretFiles, clouds: Sequence[str]) -> Path:
    """Write `<state>/lintas.yaml` and the secrets that it refers to.

    Args:
        state: The twin's directory.
        ports: Port by name, as `deployments.local.twin` names them.
        secrets: Where the secrets are kept.
        clouds: Which clouds it names.

    Returns:
        Its path.
    """
    services: dict[str, Any] = {}
    if "prefect" in ports:
        prefect = f"http://{HOST}:{ports['prefect']}"
        services = {
            "prefect_api_url": f"{prefect}/api",
            "prefect_ui_url": prefect,
            "mlflow_url": f"http://{HOST}:{ports['mlflow']}",
            "registry_webhook": {
                "listen": f"{HOST}:{ports['registry-webhook']}",
                "secret": _reference(secrets, "registry-webhook-secret", credentials.token),
            },
        }
    described = _clouds(state, ports, secrets)
    whole: dict[str, Any] = {
        "clouds": {name: described[name] for name in clouds},
        "services": services,
        "gate": {
            name: _reference(secrets, f"gate-{name.replace('_', '-')}", credentials.token)
            for name in ("signing_key", "pseudonym_key")
        }
        | {"policy": "flights"},
        "state_dir": str(state),
        "policies_dir": str(_REPOSITORY / "examples" / "policies"),
    }
    path = state / "lintas.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def _clouds(state: Path, ports: Mapping[str, int], secrets: SecretFiles) -> dict[str, dict[str, Any]]:
    account = secrets.text("azure-account-name", credentials.account_name)

    def url(name: str) -> str:
        port = ports.get(f"{name}{FRONT}", ports.get(name))
        return "" if port is None else f"http://{HOST}:{port}"

    def s3(cloud: str) -> dict[str, str]:
        return {
            "access_key_id": _reference(secrets, f"{cloud}-access-key-id", credentials.access_key_id),
            "secret_access_key": _reference(secrets, f"{cloud}-secret-access-key", credentials.token),
        }

    def site(cloud: str, region: str, price_usd_per_hour: float) -> dict[str, Any]:
        serving = url(f"{cloud}-serving")
        return {
            "provider": "onprem",
            "region": region,
            "jurisdiction": "ID",
            "endpoints": {"serving": serving} if serving else {},
            "credentials": {"token": _reference(secrets, f"{cloud}-serving-token", credentials.token)},
            "options": {"root": str(state / cloud), "price_usd_per_hour": price_usd_per_hour, **WATCHED},
        }

    return {
        "aws": {
            "provider": "aws",
            "region": AWS_REGION,
            "jurisdiction": "US",
            "endpoints": {
                "objects": url("aws-s3"),
                "events": url("aws-events"),
                **_both("training", "serving", url("aws-sagemaker")),
                **({"identity": url("aws-sagemaker")} if url("aws-sagemaker") else {}),
            },
            "credentials": s3("aws"),
            # The twin runs and serves with this machine's Python, whatever the images are.
            "options": {
                "queue": QUEUE,
                "bucket": WORK_BUCKET,
                **_if_there(
                    url("aws-sagemaker"),
                    role_arn="arn:aws:iam::123456789012:role/lintas",
                    image=f"123456789012.dkr.ecr.{AWS_REGION}.amazonaws.com/lintas-training:1",
                    serving_image=f"123456789012.dkr.ecr.{AWS_REGION}.amazonaws.com/mlflow-pyfunc:1",
                ),
            },
        },
        "google": {
            "provider": "google",
            "region": GOOGLE_REGION,
            "jurisdiction": "EU",
            "endpoints": {
                "objects": url("google-objects"),
                "events": url("google-events"),
                **_both("training", "serving", url("google-vertex-ai")),
                **_both("logs", "identity", url("google-vertex-ai")),
            },
            "credentials": {"token": _reference(secrets, "google-token", credentials.token)},
            # The price is the twin's own figure, as for azure.
            "options": {
                "project": GOOGLE_PROJECT,
                "subscription": QUEUE,
                "bucket": WORK_BUCKET,
                **_if_there(
                    url("google-vertex-ai"),
                    image=f"{GOOGLE_REGION}-docker.pkg.dev/{GOOGLE_PROJECT}/lintas/training:1",
                    serving_image=f"{GOOGLE_REGION}-docker.pkg.dev/{GOOGLE_PROJECT}/lintas/mlflow-pyfunc:1",
                ),
                "price_usd_per_hour.n2-standard-4": 0.40,
            },
        },
        "azure": {
            "provider": "azure",
            "region": AZURE_REGION,
            "jurisdiction": "SG",
            "endpoints": {
                "objects": f"{url('azure-blob')}/{account}",
                "events": f"{url('azure-queue')}/{account}",
                **_both("training", "serving", url("azure-ml")),
            },
            "credentials": {
                "account_key": _reference(secrets, "azure-account-key", credentials.account_key),
                "token": _reference(secrets, "azure-token", credentials.token),
            },
            "options": {
                "account": account,
                "queue": QUEUE,
                # The twin's own figure, no provider's: the catalogue has no dated price for this region.
                "price_usd_per_hour.Standard_D4s_v5": 0.20,
                "bucket": WORK_BUCKET,
                **_if_there(
                    url("azure-ml"),
                    **AZURE_WORKSPACE,
                    training_environment="lintas-training:1",
                    serving_image="lintas.azurecr.io/mlflow-pyfunc:1",
                    serving_sku="Standard_D2s_v5",
                ),
            },
        },
        "coreweave": {
            "provider": "coreweave",
            "region": "US-EAST-04A",
            "jurisdiction": "US",
            "endpoints": {
                "objects": url("coreweave-s3"),
                **_both("training", "serving", url("coreweave-kubernetes")),
            },
            "credentials": {
                **s3("coreweave"),
                "token": _reference(secrets, "coreweave-token", credentials.token),
            },
            "options": {
                # Virtual hosts, as CoreWeave wants them, would need a name server.
                "addressing": "path",
                **WATCHED,
                "settle_s": 0,
                "bucket": WORK_BUCKET,
                **_if_there(
                    url("coreweave-kubernetes"),
                    image="python:3.11",
                    serving_image="ghcr.io/mlflow/mlflow:v3.17.2",
                    spot_node_label="lintas/spot=true",
                    stockout_after_s=20,
                    drain_s=1,
                ),
            },
        },
        "onprem": site("onprem", "jakarta", 0.10),
        "edge": site("edge", "surabaya", 0.12),
    }


def _both(one: str, other: str, url: str) -> dict[str, str]:
    """Two roles that are played at one URL; none while it is not there."""
    return {one: url, other: url} if url else {}


def _if_there(url: str, **options: str | int) -> dict[str, str | int]:
    """What a cloud needs to train and to serve; nothing where it cannot, so that it is refused at planning."""
    return options if url else {}


def _reference(secrets: SecretFiles, name: str, make: credentials.Make) -> str:
    return f"file:{secrets.path(name, make)}"
