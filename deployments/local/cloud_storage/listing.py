"""One page of a bucket's listing: prefixes, delimiters, tokens, in the order of the names' bytes."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from deployments.local.cloud_storage.catalog import Catalog, StoredObject
from deployments.local.cloud_storage.faults import invalid

LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Question:
    """What a listing asks for.

    Args:
        prefix: Only names that begin with it.
        delimiter: Names that contain it behind the prefix are folded into one common prefix.
        start: Only names from this one on.
        end: Only names before this one.
        after: Only names behind this one.
        token: Where the page before ended.
        limit: How many objects and common prefixes at most.
        versions: Whether noncurrent generations belong to it.
        trailing_delimiter: Whether an object whose name ends with the delimiter is also listed as an object.
    """

    prefix: str = ""
    delimiter: str = ""
    start: str = ""
    end: str | None = None
    after: str | None = None
    token: str | None = None
    limit: int = LARGEST_PAGE
    versions: bool = False
    trailing_delimiter: bool = False


@dataclass(slots=True)
class Page:
    """What a listing answers. `next_token` is None on the last page."""

    objects: list[StoredObject] = field(default_factory=list[StoredObject])
    prefixes: list[str] = field(default_factory=list[str])
    next_token: str | None = None


def page_of(catalog: Catalog, bucket: str, question: Question) -> Page:
    """The page that answers the question. Raises `Refused`: no such bucket, a token that is none."""
    catalog.bucket(bucket)
    page = Page()
    entries = 0
    last = after = _read_token(question.token) or question.after
    start = max(question.start, question.prefix)
    if after is not None and _folder(after, question) == after:
        start = max(start, _behind(after))
    end = _earlier(question.end, _behind(question.prefix) if question.prefix else None)
    while True:
        skip_to: str | None = None
        for stored in catalog.rows(bucket, above=after, start=start, end=end, versions=question.versions):
            name = str(stored.resource["name"])
            folder = _folder(name, question)
            if name != last and entries >= question.limit:
                page.next_token = base64.urlsafe_b64encode((last or "").encode()).decode()
                return page
            if folder is None:
                page.objects.append(stored)
                entries += name != last
                last = name
                continue
            page.prefixes.append(folder)
            entries += 1
            if question.trailing_delimiter and name == folder:
                page.objects.append(stored)
            last, skip_to = folder, _behind(folder)
            break
        if skip_to is None:
            return page
        start = skip_to


def _folder(name: str, question: Question) -> str | None:
    if not question.delimiter:
        return None
    found = name.find(question.delimiter, len(question.prefix))
    return name[: found + len(question.delimiter)] if found >= 0 else None


def _behind(prefix: str) -> str:
    """The first name, in the order of UTF-8's bytes, behind all names that begin with the prefix."""
    last = ord(prefix[-1]) + 1
    if 0xD800 <= last <= 0xDFFF:
        last = 0xE000
    return prefix[:-1] + chr(last) if last <= 0x10FFFF else _behind(prefix[:-1])


def _earlier(one: str | None, other: str | None) -> str | None:
    return min((name for name in (one, other) if name is not None), default=None)


def _read_token(token: str | None) -> str | None:
    if token is None:
        return None
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid("Invalid argument: pageToken.") from error
