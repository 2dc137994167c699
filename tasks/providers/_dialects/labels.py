"""User metadata, tags and the headers that describe content, as they travel over HTTP and back.

Header values carry printable ASCII and nothing else unchanged; other values travel as encoded words (RFC 2047), which
is also how S3 answers with them. https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html

A store without tags keeps them as one label, from which they become tags again on the next store that has some.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Any, cast

from tasks.core.attributes import PLAIN, Attributes
from tasks.core.errors import Invalid

TAGS_LABEL = "lintas-tags"
"""Name of the metadata that keeps an object's tags where its store has none, as a JSON object."""

CONTENT_HEADERS = {
    "content-type": "content_type",
    "content-encoding": "content_encoding",
    "content-language": "content_language",
    "content-disposition": "content_disposition",
    "cache-control": "cache_control",
}
"""Fields of `Attributes` by the header that carries them."""

_KINDS = 1024
"""Objects of a dataset are of few kinds: what is worked out for one of them holds for the others."""

_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_ENCODED = re.compile(r"(=\?[^?\s]+\?[bBqQ]\?[^?\s]*\?=\s*)+")


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The metadata as it travels in headers.

    Raises:
        Invalid: A name is not a lower-case header name (RFC 9110, 5.1).
    """
    checked: dict[str, str] = {}
    for name, value in (metadata or {}).items():
        if not _NAME.fullmatch(name):
            raise Invalid(f"'{name}' cannot be a metadata name", "use lower-case letters, digits, '-', '_' and '.'")
        checked[name] = encoded(value)
    return checked


def encoded(value: str) -> str:
    """A value as a header carries it.

    >>> encoded("plain"), encoded("größe")
    ('plain', '=?UTF-8?B?Z3LDtsOfZQ==?=')
    """
    # Signatures are made over single spaces.
    plain = value.isascii() and value.isprintable() and value == value.strip() and "  " not in value
    if plain and not _ENCODED.fullmatch(value):
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode('utf-8', 'surrogateescape')).decode()}?="


def decoded(value: str) -> str:
    """The inverse of `encoded`; what is no encoded word is left as it is.

    >>> decoded(encoded(" größe ")), decoded("=?broken")
    (' größe ', '=?broken')
    """
    if not _ENCODED.fullmatch(value):
        return value
    try:
        return "".join(
            part.decode(charset or "ascii") if isinstance(part, bytes) else part
            for part, charset in decode_header(value)
        )
    except (HeaderParseError, LookupError, UnicodeDecodeError, binascii.Error):
        return value


def labels_of(headers: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The user metadata in an answer's headers, whose names are in lower case, by what their names begin with."""
    return {name.removeprefix(prefix): decoded(value) for name, value in headers.items() if name.startswith(prefix)}


def content_headers(attributes: Attributes) -> dict[str, str]:
    """The headers that describe the content.

    Raises:
        Invalid: One of them holds what no header can carry.
    """
    return dict(_checked(tuple(str(getattr(attributes, field)) for field in CONTENT_HEADERS.values())))


@functools.lru_cache(_KINDS)
def _checked(values: tuple[str, ...]) -> dict[str, str]:
    found = dict(zip(CONTENT_HEADERS, values, strict=True))
    for header, value in found.items():
        if not (value.isascii() and (value.isprintable() or not value)):
            raise Invalid(f"the {header} of an object cannot travel in an HTTP header", "write it in printable ASCII")
    return {header: value for header, value in found.items() if value}


def content_attributes(headers: Mapping[str, str], tier: str = "") -> Attributes:
    """The inverse of `content_headers`, from headers with names in lower case, and the tier that they tell of."""
    return _attributes(tuple(headers.get(header, "") for header in CONTENT_HEADERS), tier)


@functools.lru_cache(_KINDS)
def _attributes(values: tuple[str, ...], tier: str) -> Attributes:
    stated = {field: value for field, value in zip(CONTENT_HEADERS.values(), values, strict=True) if value}
    return replace(PLAIN, **cast("Any", stated), tier=tier)


def with_tags(metadata: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The metadata with the tags as one of its labels, for a store that has no tags."""
    return {**metadata, **({TAGS_LABEL: json.dumps(dict(tags), sort_keys=True)} if tags else {})}


def without_tags(metadata: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The inverse of `with_tags`: metadata and tags. A label that holds no tags stays a label."""
    rest = dict(metadata)
    if TAGS_LABEL not in rest:
        return rest, {}
    try:
        tags: object = json.loads(rest[TAGS_LABEL])
    except ValueError:
        return rest, {}
    if not isinstance(tags, dict):
        return rest, {}
    rest.pop(TAGS_LABEL, None)
    return rest, {str(name): str(value) for name, value in cast("dict[Any, Any]", tags).items()}
