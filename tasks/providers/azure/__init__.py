"""Microsoft Azure: Blob Storage for objects.

`options.account` is the storage account. `credentials`: `account_key` or `sas_token`; without either,
`azure.identity`'s default credential, when that package is installed. A bucket is a container.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Store


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.azure.store import open_store

    return open_store(config, bucket)


PROVIDER = Provider(
    name="azure",
    open_store=_open_store,
    catalog=Path(__file__).with_name("catalog.yaml"),
)
