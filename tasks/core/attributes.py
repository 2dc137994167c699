"""What is kept with an object beside its content: how it is to be served, its tags, and how often it is read.

All of it in the words of HTTP or of no cloud in particular, so that it survives a move between any two stores;
each provider translates it once, and keeps what its service has no place for where it can be found again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

HOT, COOL, COLD, ARCHIVE = TIERS = ("hot", "cool", "cold", "archive")
"""How often an object is expected to be read, from always to hardly ever. A `catalog.yaml` names the storage class
that each of them is on a provider, under `storage_classes`; `buckets.NAME.storage_classes` in `lintas.yaml` overrides
it."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is kept with an object beside its content and its user metadata. Empty means that nothing is said.

    Args:
        content_type: Media type (RFC 9110, 8.3).
        content_encoding: Coding of the content as it is stored, such as `gzip`; it is never decoded on the way.
        content_language: For whom it is.
        content_disposition: What a browser shall do with it.
        cache_control: How long caches may keep it.
        tags: Labels by which rules and costs are sorted, apart from the user metadata.
        tier: One of `TIERS`, or empty for what the bucket itself prescribes.
    """

    content_type: str = "application/octet-stream"
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    cache_control: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    tier: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """Everything that is kept with an object: user metadata by lower-case name, and attributes."""

    metadata: Mapping[str, str]
    attributes: Attributes

    def without_labels(self) -> Description:
        """The same without what people write freely: user metadata, tags and the name in a disposition."""
        return Description({}, replace(self.attributes, tags={}, content_disposition=""))


PLAIN = Attributes()
"""Bytes of which nothing more is known."""
