"""Runs the double: `python -m deployments.local.cloud_storage --port N --data DIR --token-file FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from deployments.local.cloud_storage.app import CloudStorage
from deployments.local.cloud_storage.catalog import Catalog
from deployments.local.cloud_storage.notifications import Publisher
from deployments.local.serve import serve


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="cloud_storage", description="A strict local double of Cloud Storage.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps buckets and objects")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the bearer token to accept")
    parser.add_argument("--pubsub", default="", help="where Pub/Sub is, for notifications; it takes the same token")
    parser.add_argument("--notify", default="", help="topic (projects/P/topics/T) for which new buckets are configured")
    chosen = parser.parse_args()
    catalog, token = Catalog(chosen.data, chosen.notify), chosen.token_file.read_text().strip()
    publisher = Publisher(catalog.notifications, chosen.pubsub, token) if chosen.pubsub else None
    application = CloudStorage(catalog, token, publisher)
    serve(application, chosen.port, lifespan="off")


if __name__ == "__main__":
    main()
