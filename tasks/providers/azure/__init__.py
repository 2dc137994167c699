"""Microsoft Azure: Blob Storage for objects, Azure ML for training and serving.

`options.account` is the storage account; a bucket is a container. `credentials` for objects: `account_key` or
`sas_token`; without either, and for Azure ML always, Microsoft Entra: `token` (fetched already), or `tenant_id`,
`client_id` and `client_secret`, or azure-identity's default credential.

Azure ML: `options.subscription`, `resource_group` and `workspace` name the workspace; `endpoints.training` and
`endpoints.serving` are Resource Manager's URL (the public one by default).

| option | meaning |
| --- | --- |
| `grace_s` | seconds between asking a job's command to end and killing it (10) |
| `bucket` | container for code, outputs, checkpoints and models |
| `training_environment` | `NAME:VERSION` in the workspace, or an id: the environment that jobs run in |
| `compute` | a cluster for all jobs; by default serverless compute of the offer's machine |
| `identity_client_id` | managed identity of the jobs; by default the service's choice |
| `queue_timeout_s` | seconds in the queue after which a job counts as a stock-out (1800) |
| `serving_image` | image that serves `$AZUREML_MODEL_DIR` by MLflow's protocol on port 8080 |
| `serving_sku`, `serving_instances` | machine of a deployment, and how many (1) |
| `prefix` | keys of all that Lintas puts into containers begin with this |
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Probe, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Server, Store, Trainer


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.azure.store import open_store

    return open_store(config, bucket)


def _open_trainer(config: CloudConfig) -> Trainer:
    from tasks.providers.azure.trainer import open_trainer

    return open_trainer(config)


def _open_server(config: CloudConfig) -> Server:
    from tasks.providers.azure.server import open_server

    return open_server(config)


def _probes(config: CloudConfig) -> Iterable[Probe]:
    from tasks.providers.azure.probes import probes

    return probes(config, trains=PROVIDER.can_train(config))


PROVIDER = Provider(
    name="azure",
    open_store=_open_store,
    catalog=Path(__file__).with_name("catalog.yaml"),
    open_trainer=_open_trainer,
    training_needs=("subscription", "resource_group", "workspace", "bucket"),
    open_server=_open_server,
    probes=_probes,
)
