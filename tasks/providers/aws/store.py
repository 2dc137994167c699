"""S3, as AWS itself speaks it."""

from __future__ import annotations

from pathlib import Path

from tasks.core.cloud import CloudConfig
from tasks.core.ports import PullJobs, Store
from tasks.providers._dialects.s3 import S3Dialect, open_s3
from tasks.providers._dialects.s3_checksums import CRC64NVME

DIALECT = S3Dialect(
    checksum=CRC64NVME,
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucketConfiguration.html
    region_of_plain_create="us-east-1",
    catalog=Path(__file__).with_name("catalog.yaml"),
    is_s3=True,
)


def open_store(config: CloudConfig, bucket: str) -> Store:
    """The store of a bucket; see `tasks.providers._dialects.s3.open_s3`."""

    def pulling(store: Store) -> PullJobs:
        from tasks.providers.aws.datasync import DataSync

        return DataSync(config, store)

    pulls = config.options.get("pulls", "").lower() == "true"
    return open_s3(config, bucket, DIALECT, pulling if pulls else None)
