"""What is kept with a blob, as Blob Storage says it: in the client library's words, in headers, and read back.

Metadata names must be identifiers, so that any other character travels as `__` and its two hexadecimal digits:
`lintas-digest` is `lintas__2ddigest` there. A `_` that would read like the beginning of one is itself written so.
https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata

Tags that are too many or spelt as none may be here are kept as one label, from which the next store that has tags
makes tags again. https://learn.microsoft.com/azure/storage/blobs/storage-manage-find-blobs
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tasks.core.attributes import PLAIN, Attributes, Description
from tasks.core.errors import Invalid
from tasks.providers._dialects.labels import (
    CONTENT_HEADERS,
    checked_metadata,
    content_attributes,
    content_headers,
    decoded,
    with_tags,
    without_tags,
)
from tasks.providers._dialects.storage_classes import StorageClasses

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, StandardBlobTier

_METADATA_PREFIX = "x-ms-meta-"
_ESCAPED = re.compile(r"__([0-9a-f]{2})")
_TO_ESCAPE = re.compile(r"[^A-Za-z0-9_]|_(?=_)|^[0-9]")
_MOST_TAGS = 10
_TAG_NAME = re.compile(r"[A-Za-z0-9 +\-./:=_]{1,128}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9 +\-./:=_]{0,256}")


@dataclass(frozen=True, slots=True)
class Describing:
    """How a container's blobs are described.

    Args:
        classes: The service's access tiers.
        encryption_scope: The scope whose key, perhaps the customer's own, blobs are encrypted with; or None.
    """

    classes: StorageClasses
    encryption_scope: str | None = None

    @property
    def encrypting(self) -> dict[str, str]:
        """The header that names the scope, for every request that sends content."""
        return {"x-ms-encryption-scope": self.encryption_scope} if self.encryption_scope else {}

    @property
    def scoped(self) -> dict[str, Any]:
        """The same as `encrypting`, as the client library takes it."""
        return {"encryption_scope": self.encryption_scope} if self.encryption_scope else {}

    def arguments(self, metadata: Mapping[str, str] | None, attributes: Attributes) -> dict[str, Any]:
        """A new blob's description as the client library takes it. Raises `Invalid` for what no header can carry."""
        from azure.storage.blob import ContentSettings

        labels, tags = _labels(metadata or {}, attributes.tags)
        content_headers(attributes)
        stated = {field: getattr(attributes, field) or None for field in CONTENT_HEADERS.values()}
        tier = self.classes.class_of(attributes.tier)
        return {
            "metadata": labels,
            "content_settings": ContentSettings(**stated),
            **({"standard_blob_tier": _tier(tier)} if tier else {}),
            **({"tags": tags} if tags else {}),
            **self.scoped,
        }

    def headers(self, metadata: Mapping[str, str], attributes: Attributes) -> dict[str, str]:
        """The same as `arguments`, as the headers of Put Blob."""
        labels, tags = _labels(metadata, attributes.tags)
        content = content_headers(attributes)
        tier = self.classes.class_of(attributes.tier)
        return {
            **{f"x-ms-blob-{header}": value for header, value in content.items()},
            **{_METADATA_PREFIX + name: value for name, value in labels.items()},
            **({"x-ms-access-tier": tier} if tier else {}),
            **({"x-ms-tags": urlencode(tags)} if tags else {}),
            **self.encrypting,
        }

    def read(self, blob: BlobProperties) -> Description:
        """The description in the client library's properties of a blob, without its tags."""
        stated = {
            field: value for field in CONTENT_HEADERS.values() if (value := getattr(blob.content_settings, field, None))
        }
        tier = self.classes.tier(str(blob.blob_tier or ""))
        return _description(blob.metadata or {}, replace(PLAIN, **stated, tier=tier))

    def read_listed(self, metadata: Mapping[str, str], properties: Mapping[str, str]) -> Description:
        """The description in a listing's properties of a blob, by lower-case name, without its tags."""
        tier = self.classes.tier(properties.get("accesstier"))
        return _description(metadata, content_attributes(properties, tier))

    def read_headers(self, headers: Mapping[str, str]) -> Description | None:
        """The description in the headers of an answer, without its tier; None where the blob has tags."""
        if headers.get("x-ms-tag-count", "0") != "0":
            return None
        labels = {
            name.removeprefix(_METADATA_PREFIX): value
            for name, value in headers.items()
            if name.startswith(_METADATA_PREFIX)
        }
        return _description(labels, content_attributes(headers))


def conditions(if_version: str | None, if_absent: bool = False) -> dict[str, Any]:
    """The conditions of a request as the client library takes them."""
    from azure.core import MatchConditions

    if if_absent:
        return {"match_condition": MatchConditions.IfMissing}
    if if_version is None:
        return {}
    return {"etag": f'"{if_version}"', "match_condition": MatchConditions.IfNotModified}


@functools.lru_cache(1024)
def identifier_of(name: str) -> str:
    """A metadata name as the service takes it.

    >>> identifier_of("lintas-digest"), identifier_of("plain_name"), identifier_of("a__2db")
    ('lintas__2ddigest', 'plain_name', 'a__5f_2db')
    """
    return _TO_ESCAPE.sub(lambda found: f"__{ord(found.group()):02x}", name)


def name_of(identifier: str) -> str:
    """The inverse of `identifier_of`.

    >>> name_of(identifier_of("a__2d-b"))
    'a__2d-b'
    """
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), identifier)


def _tier(name: str) -> StandardBlobTier:
    from azure.storage.blob import StandardBlobTier

    try:
        return StandardBlobTier(name)
    except ValueError:
        known = ", ".join(tier.value for tier in StandardBlobTier)
        raise Invalid(f"'{name}' is no access tier of Azure", f"set storage_classes to one of {known}") from None


def _labels(metadata: Mapping[str, str], tags: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Metadata as the service takes it, and those tags that it can keep as such."""
    fits = len(tags) <= _MOST_TAGS and all(
        _TAG_NAME.fullmatch(name) and _TAG_VALUE.fullmatch(value) for name, value in tags.items()
    )
    labels = checked_metadata(metadata if fits else with_tags(metadata, tags))
    return {identifier_of(name): value for name, value in labels.items()}, dict(tags) if fits else {}


def _description(labels: Mapping[str, str], attributes: Attributes) -> Description:
    metadata, tags = without_tags({name_of(name.lower()): decoded(value) for name, value in labels.items()})
    return Description(metadata, replace(attributes, tags=tags) if tags else attributes)
