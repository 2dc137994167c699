"""Microsoft Azure: Blob Storage for objects, Event Grid for their events, Azure ML for training and serving.

`options.account` is the storage account; a bucket is a container. `credentials` for objects: `account_key` or
`sas_token`; without either, and for Azure ML always, Microsoft Entra: `token` (fetched already), or `tenant_id`,
`client_id` and `client_secret`, or azure-identity's default credential.

Azure ML: `options.subscription`, `resource_group` and `workspace` name the workspace; `endpoints.training` and
`endpoints.serving` are Resource Manager's URL (the public one by default).

| option | meaning |
| --- | --- |
| `queue` | storage queue of the account that Event Grid puts `BlobCreated` events on |
| `redeliver_s` | seconds after which an event that was not acknowledged comes again (60) |
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

from pathlib import Path

from tasks.core.cloud import Provider, lazily

PROVIDER = Provider(
    name="azure",
    open_store=lazily("tasks.providers.azure.store:open_store"),
    catalog=Path(__file__).with_name("catalog.yaml"),
    open_trainer=lazily("tasks.providers.azure.trainer:open_trainer"),
    training_needs=("subscription", "resource_group", "workspace", "bucket"),
    open_server=lazily("tasks.providers.azure.server:open_server"),
    open_events=lazily("tasks.providers.azure.events:open_events"),
    events_need=("queue",),
    open_mirror=lazily("tasks.providers.azure.mirroring:open_mirror"),
    probes=lazily("tasks.providers.azure.probes:probes"),
)
