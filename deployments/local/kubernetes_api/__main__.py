"""Run the double: `python -m deployments.local.kubernetes_api --port PORT --data DIRECTORY --token-file FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from deployments.local.kubernetes_api.app import ApiServer
from deployments.local.serve import serve

_CATALOG = Path(__file__).parents[3] / "tasks" / "providers" / "coreweave" / "catalog.yaml"


def main() -> None:
    """Serve on 127.0.0.1 until the process is stopped."""
    parser = argparse.ArgumentParser(description="A double of the Kubernetes API for one machine.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="directory of objects, volumes and logs")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the only accepted bearer token")
    arguments = parser.parse_args()
    token = arguments.token_file.read_text().strip()
    server = ApiServer(arguments.data, token, yaml.safe_load(_CATALOG.read_text()))
    serve(server.app(), arguments.port, access_log=False)


if __name__ == "__main__":
    main()
