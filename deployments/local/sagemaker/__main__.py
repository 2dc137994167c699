"""Runs the double: `python -m deployments.local.sagemaker --port N --root DIR --s3 URL --region NAME ...`."""

from __future__ import annotations

import argparse
from pathlib import Path

from deployments.local.object_access import S3Access
from deployments.local.sagemaker.app import SageMaker
from deployments.local.sagemaker.wire import Account
from deployments.local.serve import serve


def main() -> None:
    """Serve until a signal ends it, with all jobs and endpoints."""
    parser = argparse.ArgumentParser(prog="sagemaker", description="A strict local double of Amazon SageMaker.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--root", type=Path, required=True, help="directory for what jobs and endpoints keep")
    parser.add_argument("--s3", required=True, help="URL of the account's S3")
    parser.add_argument("--region", required=True)
    parser.add_argument("--access-key-id-file", type=Path, required=True)
    parser.add_argument("--secret-access-key-file", type=Path, required=True)
    chosen = parser.parse_args()
    key, secret = (file.read_text().strip() for file in (chosen.access_key_id_file, chosen.secret_access_key_file))
    objects = S3Access(chosen.s3, key, secret, chosen.region)
    double = SageMaker(Account(key, secret, chosen.region), objects, chosen.root.resolve())
    serve(double.app(), chosen.port)


if __name__ == "__main__":
    main()
