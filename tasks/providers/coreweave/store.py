"""CoreWeave AI Object Storage: the S3 dialect and its quirks.

https://docs.coreweave.com/products/storage/object-storage/reference/object-storage-s3
"""

from __future__ import annotations

from tasks.core.cloud import CloudConfig
from tasks.core.ports import Store
from tasks.providers._dialects.s3 import S3Dialect, open_s3
from tasks.providers._dialects.s3_checksums import CRC32C

DIALECT = S3Dialect(
    endpoint="https://cwobject.com",
    # Path-style requests are refused.
    addressing="virtual",
    # CRC64NVME is not documented there.
    checksum=CRC32C,
    # A new bucket's host name takes a while to resolve and to answer.
    bucket_ready_timeout_s=60,
)


def open_store(config: CloudConfig, bucket: str) -> Store:
    """The store of a bucket; see `tasks.providers._dialects.s3.open_s3`."""
    return open_s3(config, bucket, DIALECT)
