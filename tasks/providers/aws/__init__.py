"""Amazon Web Services: S3 for objects, SQS for their events, SageMaker for training and serving.

`credentials`: `access_key_id`, `secret_access_key`, `session_token`; without any, boto3's own chain is asked.
`endpoints`: `objects`, `transfers` (DataSync), `training`, `serving`, `events`, `identity` (STS, IAM); the public
ones by default. `options`: `addressing` (`virtual`, `path`), `queue` (name or URL of the SQS queue that S3 writes
to), `pulls`, `pull_role`, `pull_from_CLOUD`, `pull_key_CLOUD` and `pull_timeout_s` of `datasync`, and those of
`trainer.open_trainer` and `server.open_server`; docs/clouds/aws.md lists them with the permissions needed.
"""

from __future__ import annotations

from pathlib import Path

from tasks.core.cloud import Provider, lazily

PROVIDER = Provider(
    name="aws",
    open_store=lazily("tasks.providers.aws.store:open_store"),
    open_trainer=lazily("tasks.providers.aws.trainer:open_trainer"),
    training_needs=("role_arn", "image", "bucket"),
    open_server=lazily("tasks.providers.aws.server:open_server"),
    open_mirror=lazily("tasks.providers.aws.mirroring:open_mirror"),
    open_events=lazily("tasks.providers.aws.events:open_events"),
    events_need=("queue",),
    probes=lazily("tasks.providers.aws.probes:probes"),
    catalog=Path(__file__).with_name("catalog.yaml"),
)
