"""The hybrid case: a directory (a disk, a mount of the data centre's storage) as an object store.

`options.root` is the directory that holds the buckets. No credentials: the file system's permissions decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Server, Store, Trainer


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.onprem.store import open_store

    return open_store(config, bucket)


def _open_trainer(config: CloudConfig) -> Trainer:
    from tasks.providers.onprem.trainer import open_trainer

    return open_trainer(config)


def _open_server(config: CloudConfig) -> Server:
    from tasks.providers.onprem.server import open_server

    return open_server(config)


PROVIDER = Provider(
    name="onprem",
    open_store=_open_store,
    open_trainer=_open_trainer,
    open_server=_open_server,
    catalog=Path(__file__).with_name("catalog.yaml"),
)
