"""Serves the model that the cloud put into this container, by MLflow's scoring protocol on port 8080.

| cloud | where the model is |
| --- | --- |
| SageMaker | `/opt/ml/model` |
| Vertex AI | below the gs:// address in `AIP_STORAGE_URI`, fetched at the start |
| Azure ML | below the directory in `AZUREML_MODEL_DIR` |

CoreWeave gives its pods a command of their own and needs only what is installed here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PORT = 8080
_SAGEMAKER = Path("/opt/ml/model")


def model_directory(environment: Mapping[str, str]) -> Path:
    """The directory of the MLflow model, fetched where it is not here yet.

    Args:
        environment: The container's variables.

    Raises:
        SystemExit: There is no model, or more than one; the text says where it was looked for.
    """
    if address := environment.get("AIP_STORAGE_URI"):
        place = _fetched(address)
    else:
        place = Path(environment.get("AZUREML_MODEL_DIR") or _SAGEMAKER)
    found = sorted(path.parent for path in place.rglob("MLmodel"))
    if len(found) != 1:
        raise SystemExit(f"{len(found)} MLflow models below {place}; there must be one")
    return found[0]


def _fetched(address: str) -> Path:
    from google.cloud import storage

    bucket, _, prefix = address.removeprefix("gs://").partition("/")
    home = Path(tempfile.mkdtemp(prefix="model-")).resolve()
    folder = f"{prefix.rstrip('/')}/"
    for blob in storage.Client().list_blobs(bucket, prefix=folder):
        place = (home / blob.name.removeprefix(folder)).resolve()
        if blob.name.endswith("/"):
            continue
        if not place.is_relative_to(home):
            raise SystemExit(f"an object below {address} leads out of the model's directory")
        place.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(place))
    return home


def main() -> None:
    """Become MLflow's scoring server, so that it gets the signals that the cloud sends."""
    model = str(model_directory(os.environ))
    serve = ["-m", "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"]
    # Only the cloud's own proxy reaches the container.
    os.execv(sys.executable, [sys.executable, *serve, "--host", "0.0.0.0", "--port", str(PORT)])  # noqa: S104, S606


if __name__ == "__main__":
    main()
