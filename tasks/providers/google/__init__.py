"""Google Cloud: Cloud Storage for objects.

`credentials`: `token` (a bearer token, for short-lived access), or `service_account_file` (a key file's content),
or neither for application default credentials. `options`: `project`, needed only to create a bucket.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cloud import CloudConfig, Provider

if TYPE_CHECKING:
    from tasks.core.ports import Store


def _open_store(config: CloudConfig, bucket: str) -> Store:
    from tasks.providers.google.store import open_store

    return open_store(config, bucket)


PROVIDER = Provider(
    name="google",
    open_store=_open_store,
    catalog=Path(__file__).with_name("catalog.yaml"),
)
