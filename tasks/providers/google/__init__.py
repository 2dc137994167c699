"""Google Cloud: Cloud Storage for objects, Pub/Sub for their events, Vertex AI for training and serving.

`credentials`: `token` (a bearer token, for short-lived access), or `service_account_file` (a key file's content),
or neither for application default credentials. `endpoints`: `objects`, `transfers` (Storage Transfer Service),
`training`, `serving`, `events` (Pub/Sub), `logs` (Cloud Logging) and `identity` (Resource Manager, IAM); the public
ones by default. The cloud's `region` is where jobs and endpoints are, and where their buckets must be.

| option | meaning |
| --- | --- |
| `project` | the project's id; needed to create a bucket, to train and to serve |
| `subscription` | Pub/Sub subscription with the buckets' notifications: its name in the project, or in full |
| `pulls` | `true` lets Storage Transfer Service fetch objects from S3 and Azure Blob Storage |
| `pull_from_CLOUD` | what opens that cloud to it: `projects/NUMBER/secrets/NAME`, or for S3 a role's ARN |
| `pull_timeout_s` | seconds that one of its jobs may take (21600) before the move streams instead |
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

from pathlib import Path

from tasks.core.cloud import Provider, lazily

PROVIDER = Provider(
    name="google",
    open_store=lazily("tasks.providers.google.store:open_store"),
    catalog=Path(__file__).with_name("catalog.yaml"),
    open_trainer=lazily("tasks.providers.google.trainer:open_trainer"),
    training_needs=("project", "bucket", "image"),
    open_server=lazily("tasks.providers.google.server:open_server"),
    open_events=lazily("tasks.providers.google.events:open_events"),
    events_need=("subscription",),
    probes=lazily("tasks.providers.google.probes:probes"),
)
