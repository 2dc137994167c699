"""The hybrid case: a directory (a disk, a mount of the data centre's storage) as an object store.

`options.root` is the directory that holds the buckets. No credentials: the file system's permissions decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Store


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.onprem.store import open_store

    return open_store(config, bucket)


PROVIDER = Provider(
    name="onprem",
    open_store=_open_store,
    catalog=Path(__file__).with_name("catalog.yaml"),
)
