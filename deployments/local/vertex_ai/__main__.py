"""Runs the double: `python -m deployments.local.vertex_ai --port N --data DIR --token-file FILE --objects URL ...`."""

from __future__ import annotations

import argparse
from pathlib import Path

from deployments.local.object_access import CloudStorageAccess
from deployments.local.serve import serve
from deployments.local.vertex_ai.app import VertexAI


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="vertex_ai", description="A local double of Vertex AI that really computes.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--data", type=Path, required=True, help="directory for jobs and models; emptied")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the bearer token to accept")
    parser.add_argument("--objects", required=True, help="URL of Cloud Storage, which takes the same token")
    parser.add_argument("--project", required=True, help="id of the only project")
    parser.add_argument("--location", required=True, help="the only region")
    chosen = parser.parse_args()
    token = chosen.token_file.read_text().strip()
    objects = CloudStorageAccess(chosen.objects, token, chosen.project)
    double = VertexAI(chosen.project, chosen.location, token, objects, chosen.data.resolve())
    serve(double.app(), chosen.port, access_log=False)


if __name__ == "__main__":
    main()
