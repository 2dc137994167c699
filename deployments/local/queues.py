"""The queues of the local twin, and what puts objects' events on them: one function a server, as in `object_stores`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployments.local.object_stores import MODULES, console_script
from deployments.local.processes import HOST, Process, answers, log_says, port_ready


def sqs(port: int, log: Path) -> Process:
    """Moto's server, for SQS. Its queues are in memory: gone when it ends."""
    return Process(
        name="aws-events",
        command=[console_script("moto_server"), "-H", HOST, "-p", str(port)],
        ready=port_ready(port),
        log=log,
        port=port,
    )


def s3_events(port: int, log: Path, *, sqs_port: int, queue: str, region: str, secrets: Mapping[str, Path]) -> Process:
    """The process that puts SeaweedFS's changes on the queue, as S3 does; see `deployments.local.s3_events`.

    Args:
        port: Where it takes the filer's calls.
        log: File that takes its output.
        sqs_port: Where SQS is.
        queue: Name of the queue, which it creates.
        region: Region of the queue.
        secrets: Files `access-key-id`, `secret-access-key` (for SQS) and `token` (what the filer sends).
    """
    files = [argument for name, path in secrets.items() for argument in (f"--{name}-file", str(path))]
    command = [sys.executable, "-m", "deployments.local.s3_events", "--port", str(port)]
    return Process(
        name="aws-notifications",
        command=[*command, "--sqs", f"http://{HOST}:{sqs_port}", "--queue", queue, "--region", region, *files],
        ready=answers(f"http://{HOST}:{port}/ready", 200),
        log=log,
        environment=MODULES,
        needs=("aws-events",),
        port=port,
    )


def pubsub(port: int, log: Path, token: Path, subscriptions: Sequence[str]) -> Process:
    """The double of Pub/Sub. Its messages are in memory: gone when it ends.

    Args:
        port: Where it listens.
        log: File that takes its output.
        token: File with the only bearer token that is accepted.
        subscriptions: `projects/P/subscriptions/S` that there are from the beginning, each with a topic of its name.
    """
    command = [sys.executable, "-m", "deployments.local.pubsub", "--port", str(port), "--token-file", str(token)]
    return Process(
        name="google-events",
        command=[*command, *(argument for name in subscriptions for argument in ("--subscription", name))],
        ready=answers(f"http://{HOST}:{port}/ready", 200),
        log=log,
        environment=MODULES,
        port=port,
    )


def event_grid(log: Path, *, blob_url: str, queue_url: str, account: str, key: Path, queue: str) -> Process:
    """The process that puts the events of new blobs on a queue, as Event Grid does; see `deployments.local.event_grid`.

    Args:
        log: File that takes its output.
        blob_url: Where the account's blobs are.
        queue_url: Where its queues are.
        account: The storage account.
        key: File with the account's key.
        queue: Name of the queue, which it creates.
    """
    where = ["--blob-url", blob_url, "--queue-url", queue_url, "--account", account, "--queue", queue]
    return Process(
        name="azure-events",
        command=[sys.executable, "-m", "deployments.local.event_grid", *where, "--account-key-file", str(key)],
        ready=log_says(log, "watching"),
        log=log,
        environment={**MODULES, "PYTHONUNBUFFERED": "1"},
        needs=("azure-objects",),
    )
