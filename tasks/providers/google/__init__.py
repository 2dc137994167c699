"""Google Cloud: Cloud Storage for objects, Vertex AI for training and serving.

`credentials`: `token` (a bearer token, for short-lived access), or `service_account_file` (a key file's content),
or neither for application default credentials. `endpoints`: `objects`, `training`, `serving`, `logs` (Cloud Logging)
and `identity` (Resource Manager, IAM); the public ones by default. The cloud's `region` is where jobs and endpoints
are, and where their buckets must be.

| option | meaning |
| --- | --- |
| `project` | the project's id; needed to create a bucket, to train and to serve |
| `image` | container image that jobs run in; needs `python3` and the user's packages |
| `serving_image` | container image that serves `$AIP_STORAGE_URI` by MLflow's scoring protocol on port 8080 |
| `bucket` | bucket for code, outputs, checkpoints (by default that of the dataset) and models; made if missing |
| `prefix` | keys of all that Lintas puts there begin with this |
| `scheduling` | `on-demand`, or `flex-start` to wait in line for accelerators |
| `queue_timeout_s` | seconds without a machine after which a job counts as a stock-out (1800) |
| `service_account`, `network` | of the jobs; by default the project's |
| `grace_s` | seconds between asking a command to end and killing it (5) |
| `serving_sku`, `serving_instances` | machine of a deployment (n1-standard-2), and how many (1) |
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Probe, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Server, Store, Trainer


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.google.store import open_store

    return open_store(config, bucket)


def _open_trainer(config: CloudConfig) -> Trainer:
    from tasks.providers.google.trainer import open_trainer

    return open_trainer(config)


def _open_server(config: CloudConfig) -> Server:
    from tasks.providers.google.server import open_server

    return open_server(config)


def _probes(config: CloudConfig) -> Iterable[Probe]:
    from tasks.providers.google.probes import probes

    return probes(config, trains=PROVIDER.can_train(config))


PROVIDER = Provider(
    name="google",
    open_store=_open_store,
    catalog=Path(__file__).with_name("catalog.yaml"),
    open_trainer=_open_trainer,
    training_needs=("project", "bucket", "image"),
    open_server=_open_server,
    probes=_probes,
)
