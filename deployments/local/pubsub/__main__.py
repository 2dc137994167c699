"""Runs the double: `python -m deployments.local.pubsub --port N --token-file FILE [--subscription PATH ...]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from deployments.local.pubsub.app import PubSub
from deployments.local.pubsub.broker import Broker
from deployments.local.serve import serve


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="pubsub", description="A strict local double of Pub/Sub.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the bearer token to accept")
    parser.add_argument(
        "--subscription",
        action="append",
        default=[],
        help="projects/PROJECT/subscriptions/NAME that there is from the beginning, with the topic of the same name",
    )
    chosen = parser.parse_args()
    broker = Broker()
    for name in chosen.subscription:
        topic = name.replace("/subscriptions/", "/topics/")
        broker.create_topic({"name": topic})
        broker.create_subscription({"name": name, "topic": topic})
    app = PubSub(broker, chosen.token_file.read_text().strip()).app()
    serve(app, chosen.port)


if __name__ == "__main__":
    main()
