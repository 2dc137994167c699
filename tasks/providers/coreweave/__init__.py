"""CoreWeave: AI Object Storage, which speaks the S3 dialect.

`credentials`: `access_key_id`, `secret_access_key`. `endpoints.objects`: the public `https://cwobject.com` unless
set; inside a cluster `http://cwlota.com` reads through the local cache. `options`: `addressing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Store


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.coreweave.store import open_store

    return open_store(config, bucket)


PROVIDER = Provider(
    name="coreweave",
    open_store=_open_store,
    catalog=Path(__file__).with_name("catalog.yaml"),
)
