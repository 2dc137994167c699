"""Amazon Web Services: S3 for objects, SQS for their events, SageMaker for training and serving.

`credentials`: `access_key_id`, `secret_access_key`, `session_token`; without any, boto3's own chain is asked.
`endpoints`: `objects`, `training`, `serving`, `events`, `identity` (STS, IAM); the public ones by default.
`options`: `addressing` (`virtual`, `path`), `queue` (name or URL of the SQS queue that S3 writes to), and
those of `trainer.open_trainer` and `server.open_server`; docs/clouds/aws.md lists them with the permissions needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Probe, Provider

if TYPE_CHECKING:
    from tasks.core.ports import EventSource, Server, Store, Trainer


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.aws.store import open_store

    return open_store(config, bucket)


def _open_events(config: CloudConfig) -> EventSource:
    from tasks.providers.aws.events import open_events

    return open_events(config)


def _open_trainer(config: CloudConfig) -> Trainer:
    from tasks.providers.aws.trainer import open_trainer

    return open_trainer(config)


def _open_server(config: CloudConfig) -> Server:
    from tasks.providers.aws.server import open_server

    return open_server(config)


def _probes(config: CloudConfig) -> Iterable[Probe]:
    from tasks.providers.aws.probes import probes

    return probes(config, trains=PROVIDER.can_train(config))


PROVIDER = Provider(
    name="aws",
    open_store=_open_store,
    open_trainer=_open_trainer,
    training_needs=("role_arn", "image", "bucket"),
    open_server=_open_server,
    open_events=_open_events,
    probes=_probes,
    catalog=Path(__file__).with_name("catalog.yaml"),
)
