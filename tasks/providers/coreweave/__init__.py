"""CoreWeave: AI Object Storage in the S3 dialect, training and serving on its Kubernetes.

`credentials`: `access_key_id`, `secret_access_key`, and for Kubernetes `token` or `kubeconfig`. `endpoints.objects`:
the public `https://cwobject.com` unless set; inside a cluster `http://cwlota.com` reads through the local cache.
`endpoints.training`, `endpoints.serving`: the cluster's API. `options`: see `store`, `trainer` and `server`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Probe, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Server, Store, Trainer


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.coreweave.store import open_store

    return open_store(config, bucket)


def _open_trainer(config: CloudConfig) -> Trainer:
    from tasks.providers.coreweave.trainer import open_trainer

    return open_trainer(config)


def _open_server(config: CloudConfig) -> Server:
    from tasks.providers.coreweave.server import open_server

    return open_server(config)


def _probes(config: CloudConfig) -> Iterable[Probe]:
    from tasks.providers.coreweave.probes import probes

    return probes(config, trains=PROVIDER.can_train(config))


PROVIDER = Provider(
    name="coreweave",
    open_store=_open_store,
    catalog=Path(__file__).with_name("catalog.yaml"),
    open_trainer=_open_trainer,
    training_needs=("image", "bucket"),
    open_server=_open_server,
    probes=_probes,
)
