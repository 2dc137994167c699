"""What is kept with an object, as the S3 dialect says it: in boto3's parameters, in headers, and read back."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tasks.core.attributes import Attributes
from tasks.providers._dialects.labels import (
    CONTENT_HEADERS,
    checked_metadata,
    content_attributes,
    content_headers,
    labels_of,
)
from tasks.providers._dialects.storage_classes import StorageClasses

METADATA_PREFIX = "x-amz-meta-"
STORAGE_CLASS = "x-amz-storage-class"
_PLAIN_CLASS = "STANDARD"
_PARAMETERS = {
    **{"".join(part.title() for part in header.split("-")): header for header in CONTENT_HEADERS},
    "StorageClass": STORAGE_CLASS,
    "Tagging": "x-amz-tagging",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "RequestPayer": "x-amz-request-payer",
}
"""Header by boto3's parameter."""


_CHECKSUMS = {"crc64nvme": "x-amz-checksum-crc64nvme", "crc32c": "x-amz-checksum-crc32c"}
_MD5 = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Describing:
    """How a bucket's objects are described.

    Args:
        classes: The service's storage classes.
        kms_key: The customer's key in KMS that objects are encrypted with (SSE-KMS); empty for the bucket's default.
        requester_pays: Whether requests say that whoever asks pays.
    """

    classes: StorageClasses
    kms_key: str = ""
    requester_pays: bool = False

    @property
    def asking(self) -> dict[str, Any]:
        """The parameters that every request for an object has.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/RequesterPaysBuckets.html
        """
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    def parameters(self, metadata: Mapping[str, str] | None, attributes: Attributes) -> dict[str, Any]:
        """What a new object is described with, as boto3 takes it. Raises `Invalid` for what no header can carry."""
        content = content_headers(attributes)
        found: dict[str, Any] = {
            parameter: content[header] for parameter, header in _PARAMETERS.items() if header in content
        }
        found["Metadata"] = checked_metadata(metadata)
        storage_class = self.classes.class_of(attributes.tier)
        if storage_class:
            found["StorageClass"] = storage_class
        if attributes.tags:
            found["Tagging"] = urlencode(attributes.tags)
        if self.kms_key:
            found |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key}
        return {**found, **self.asking}

    def headers(self, metadata: Mapping[str, str] | None, attributes: Attributes) -> dict[str, str]:
        """The same as `parameters`, as the request's headers."""
        found = self.parameters(metadata, attributes)
        labels: dict[str, str] = found.pop("Metadata")
        described = {_PARAMETERS[parameter]: str(value) for parameter, value in found.items()}
        return {**described, **{METADATA_PREFIX + name: value for name, value in labels.items()}}

    def read(self, headers: Mapping[str, str]) -> tuple[dict[str, str], Attributes]:
        """User metadata and attributes without tags, by an answer's headers."""
        tier = self.classes.tier(headers.get(STORAGE_CLASS, _PLAIN_CLASS))
        return labels_of(headers, METADATA_PREFIX), content_attributes(headers, tier)

    def archived(self, storage_class: str | None, *, restored: bool) -> bool:
        """Whether an object of this class cannot be read now."""
        return storage_class in self.classes.unreadable and not restored


def conditions(if_version: str | None, if_absent: bool) -> dict[str, Any]:
    """The conditions of a write as boto3 takes them."""
    if if_absent:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": f'"{if_version}"'} if if_version is not None else {}


def is_restored(headers: Mapping[str, str]) -> bool:
    """Whether an archived object's copy can be read, by `x-amz-restore`."""
    return 'ongoing-request="false"' in headers.get("x-amz-restore", "")


def has_tags(headers: Mapping[str, str]) -> bool:
    """Whether the object has tags, as far as the credentials may know."""
    return headers.get("x-amz-tagging-count", "0") != "0"


def stated_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    """The checksums over the whole content that an answer states, in hexadecimal.

    Those of an upload in parts are over the whole only where it says so. The ETag of an object that was written at once
    and is not encrypted with a key of KMS is its MD5.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
    """
    etag = headers.get("etag", "").strip('"')
    at_once = _MD5.fullmatch(etag) is not None
    whole = headers.get("x-amz-checksum-type", "FULL_OBJECT" if at_once else "") == "FULL_OBJECT"
    found = {
        name: base64.b64decode(headers[header]).hex()
        for name, header in _CHECKSUMS.items()
        if whole and headers.get(header)
    }
    if at_once and headers.get("x-amz-server-side-encryption", "AES256") == "AES256":
        found["md5"] = etag
    return found
