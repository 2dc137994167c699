"""MLflow's tracking server in one process: `python -m deployments.local.mlflow_server --port N --data DIR`.

`mlflow server` imports MLflow, then starts a second process that imports it again; with one worker that doubles both
the time until it answers and its memory. The application and its settings here are those of `mlflow server` with
SQLite as its store and artifacts served from a directory.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from deployments.local.serve import serve


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="mlflow_server", description="MLflow on SQLite, in one process.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--data", type=Path, required=True, help="directory for the database and the artifacts")
    chosen = parser.parse_args()
    data: Path = chosen.data.resolve()
    data.mkdir(parents=True, exist_ok=True)

    from mlflow import server

    store, artifacts = f"sqlite:///{data / 'mlflow.db'}", "mlflow-artifacts:/"
    os.environ |= {
        server.BACKEND_STORE_URI_ENV_VAR: store,
        server.REGISTRY_STORE_URI_ENV_VAR: store,
        server.SERVE_ARTIFACTS_ENV_VAR: "true",
        server.ARTIFACTS_DESTINATION_ENV_VAR: str(data / "artifacts"),
        server.ARTIFACT_ROOT_ENV_VAR: artifacts,
    }
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, artifacts)
    serve(app, chosen.port)


if __name__ == "__main__":
    main()
