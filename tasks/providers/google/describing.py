"""What is kept with an object, as Cloud Storage says it: in the client library's words, in headers, and read back.

Objects have no tags here: they are kept as one label, from which the next store that has tags makes tags again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.core.attributes import PLAIN, Attributes, Description
from tasks.providers._dialects.labels import (
    CONTENT_HEADERS,
    checked_metadata,
    content_attributes,
    content_headers,
    decoded,
    labels_of,
    with_tags,
    without_tags,
)
from tasks.providers._dialects.storage_classes import StorageClasses

_METADATA_PREFIX = "x-goog-meta-"
_STORAGE_CLASS = "x-goog-storage-class"
_STORED_ENCODING = "x-goog-stored-content-encoding"
_NO_ENCODING = "identity"
_KMS_KEY = "x-goog-encryption-kms-key-name"


@dataclass(frozen=True, slots=True)
class Describing:
    """How a bucket's objects are described.

    Args:
        classes: The service's storage classes.
        kms_key: The customer's key in Cloud KMS that objects are encrypted with, by its resource name, or None.
        user_project: The project that requests are charged to where the requester pays, or None.
    """

    classes: StorageClasses
    kms_key: str | None = None
    user_project: str | None = None

    @property
    def encrypting(self) -> dict[str, str]:
        """The header that names the customer's key, for requests of the XML API that begin an object."""
        return {_KMS_KEY: self.kms_key} if self.kms_key else {}

    def describe(self, blob: Any, metadata: Mapping[str, str] | None, attributes: Attributes) -> None:
        """Enter a new object's description in the client library's handle of it. Raises `Invalid` as headers would."""
        blob.metadata = checked_metadata(with_tags(metadata or {}, attributes.tags))
        content_headers(attributes)
        for field in CONTENT_HEADERS.values():
            if getattr(attributes, field):
                setattr(blob, field, getattr(attributes, field))
        storage_class = self.classes.class_of(attributes.tier)
        if storage_class:
            blob.storage_class = storage_class

    def read(self, blob: Any) -> Description:
        """The description in the client library's handle of an object."""
        labels = {name.lower(): decoded(value) for name, value in (blob.metadata or {}).items()}
        metadata, tags = without_tags(labels)
        stated: dict[str, str] = {
            field: getattr(blob, field) for field in CONTENT_HEADERS.values() if getattr(blob, field)
        }
        tier = self.classes.tier(blob.storage_class)
        return Description(metadata, replace(PLAIN, **stated, tags=tags, tier=tier))  # pyright: ignore[reportArgumentType]

    def headers(self, metadata: Mapping[str, str], attributes: Attributes) -> dict[str, str]:
        """A new object's description as headers of the XML API. Raises `Invalid` for what no header can carry."""
        labels = checked_metadata(with_tags(metadata, attributes.tags))
        storage_class = self.classes.class_of(attributes.tier)
        return {
            **content_headers(attributes),
            **{_METADATA_PREFIX + name: value for name, value in labels.items()},
            **({_STORAGE_CLASS: storage_class} if storage_class else {}),
            **self.encrypting,
        }

    def read_headers(self, headers: Mapping[str, str]) -> Description:
        """The description in the headers of an answer of the XML API."""
        metadata, tags = without_tags(labels_of(headers, _METADATA_PREFIX))
        # What the object is stored in, which the transport's own coding may differ from.
        stored = headers.get(_STORED_ENCODING, headers.get("content-encoding", ""))
        stated = {**headers, "content-encoding": "" if stored == _NO_ENCODING else stored}
        attributes = content_attributes(stated, self.classes.tier(headers.get(_STORAGE_CLASS)))
        return Description(metadata, replace(attributes, tags=tags) if tags else attributes)


def stated_checksums(blob: Any) -> dict[str, str]:
    """The checksums over the whole content that the service states, in hexadecimal."""
    stated = {"crc32c": blob.crc32c, "md5": blob.md5_hash}
    return {name: base64.b64decode(value).hex() for name, value in stated.items() if value}
