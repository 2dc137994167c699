"""Runs the double: `python -m deployments.local.azure_ml --port N --data DIR --token-file FILE --workspace ID ...`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from deployments.local.azure_ml.app import AzureML, operation_of, target_of
from deployments.local.azure_ml.storage import Storage
from deployments.local.faults import FaultTable, WireFaults
from deployments.local.object_access import BlobAccess
from deployments.local.serve import serve


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="azure_ml", description="A local double of an Azure ML workspace.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--data", type=Path, required=True, help="directory for jobs and models; emptied at the start")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the bearer token to accept")
    parser.add_argument("--workspace", required=True, help="the workspace's id in Resource Manager")
    parser.add_argument("--region", required=True, help="where it is")
    parser.add_argument("--blob-url", required=True, help="URL of the storage account's blob service")
    parser.add_argument("--account", required=True, help="the storage account")
    parser.add_argument("--account-key-file", type=Path, required=True, help="file with its key")
    parser.add_argument("--container", default="azureml-blobstore", help="container of the default datastore")
    parser.add_argument("--certificate", help="file with certificate and key, to speak TLS")
    chosen = parser.parse_args()
    shutil.rmtree(chosen.data, ignore_errors=True)
    chosen.data.mkdir(parents=True)
    faults = FaultTable()
    access = BlobAccess(chosen.blob_url, chosen.account, chosen.account_key_file.read_text().strip())
    workspace = AzureML(
        chosen.workspace,
        chosen.region,
        chosen.token_file.read_text().strip(),
        chosen.data,
        Storage(access, chosen.account, chosen.container),
        faults,
    )
    serve(WireFaults(workspace.app(), faults, operation_of, target_of), chosen.port, ssl_certfile=chosen.certificate)


if __name__ == "__main__":
    main()
