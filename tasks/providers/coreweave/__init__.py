"""CoreWeave: AI Object Storage in the S3 dialect, training and serving on its Kubernetes.

`credentials`: `access_key_id`, `secret_access_key`, and for Kubernetes `token` or `kubeconfig`. `endpoints.objects`:
the public `https://cwobject.com` unless set; inside a cluster `http://cwlota.com` reads through the local cache.
`endpoints.training`, `endpoints.serving`: the cluster's API. `options`: see `store`, `trainer`, `server` and `events`.
"""

from __future__ import annotations

from pathlib import Path

from tasks.core.cloud import Provider, lazily

PROVIDER = Provider(
    name="coreweave",
    open_store=lazily("tasks.providers.coreweave.store:open_store"),
    catalog=Path(__file__).with_name("catalog.yaml"),
    open_trainer=lazily("tasks.providers.coreweave.trainer:open_trainer"),
    training_needs=("image", "bucket"),
    open_server=lazily("tasks.providers.coreweave.server:open_server"),
    open_events=lazily("tasks.providers.coreweave.events:open_events"),
    events_need=("watch",),
    probes=lazily("tasks.providers.coreweave.probes:probes"),
)
