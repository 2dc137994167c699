"""The pages of a container's listing, asked for and read without the SDK's models.

The SDK makes some eighty attributes and twenty objects of each blob, which is ten times the cost of parsing the page.
Its pipeline still sends: with its retries and over its connections.
https://learn.microsoft.com/rest/api/storageservices/list-blobs
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode

from azure.core import PipelineClient
from azure.core.rest import HttpRequest

from tasks.providers._dialects.objects import Pass, Place
from tasks.providers.azure.errors import refusal, translated

_PAGE = 1000
Pipeline = PipelineClient[Any, Any]


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """One blob of a listing.

    Args:
        name: Its name.
        size_bytes: Size of its content.
        etag: Its ETag, in quotes or not.
        modified: When it was last written.
        properties: Its properties as the page writes them, by lower-case name; those that are empty are left out.
        metadata: User metadata as the service names it.
    """

    name: str
    size_bytes: int
    etag: str
    modified: datetime
    properties: dict[str, str]
    metadata: dict[str, str]

    @property
    def tier(self) -> str:
        """Its access tier; empty where it has none."""
        return self.properties.get("accesstier", "")

    @property
    def tier_inferred(self) -> bool:
        """Whether the tier is the account's and not its own."""
        return self.properties.get("accesstierinferred") == "true"


@dataclass(frozen=True, slots=True)
class ListedPrefix:
    """What several blobs' names begin with, up to the delimiter."""

    name: str


class Listing:
    """Lists a container.

    Args:
        pipeline: What sends.
        url: The container's.
        api_version: The version of the service's API that requests ask for.
        place: The container, as errors name it.
        authorize: What lets the next request through.
    """

    def __init__(
        self, pipeline: Pipeline, url: str, api_version: str, place: Place, authorize: Callable[[], Pass]
    ) -> None:
        self._pipeline = pipeline
        self._url = url.partition("?")[0]
        self._api_version = api_version
        self._place = place
        self._authorize = authorize

    def entries(self, prefix: str, delimiter: str = "") -> Iterator[ListedBlob | ListedPrefix]:
        """The blobs whose names start with the prefix, page by page in the order of their names.

        Args:
            prefix: What they start with.
            delimiter: Those with it after the prefix are told of as one `ListedPrefix`; empty for none.
        """
        asked = {"prefix": prefix, "delimiter": delimiter}
        marker: str | None = ""
        while marker is not None:
            page = self._page({**asked, "marker": marker})
            try:
                found = list(map(_entry, page.iterfind("Blobs/*")))
            except (KeyError, ValueError) as error:
                raise self._place.not_understood("a listing") from error
            yield from found
            marker = page.findtext("NextMarker") or None

    def _page(self, asked: dict[str, str]) -> ET.Element:
        passing = self._authorize()
        query = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": str(_PAGE)}
        query |= {name: value for name, value in asked.items() if value}
        text = "&".join(filter(None, (urlencode(query, quote_via=quote, safe=""), passing.query)))
        headers = {"x-ms-version": self._api_version, **passing.headers}
        with translated(self._place):
            answer = self._pipeline.send_request(HttpRequest("GET", f"{self._url}?{text}", headers=headers))
            if answer.status_code != 200:
                code = answer.headers.get("x-ms-error-code", "")
                raise refusal(answer.status_code, code, answer.headers, self._place, None)
            content = answer.read()
        try:
            # The sender is the configured service; entities of its own would be refused by the parser's limits.
            page = ET.fromstring(content)  # noqa: S314
        except ET.ParseError as error:
            raise self._place.not_understood("a listing") from error
        if page.find("Blobs") is None:
            raise self._place.not_understood("a listing")
        return page


def _entry(entry: ET.Element) -> ListedBlob | ListedPrefix:
    name = ""
    known: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for part in entry:
        if part.tag == "Name":
            name = part.text or ""
            # Names with characters that XML cannot carry.
            if part.get("Encoded") == "true":
                name = unquote(name)
        elif part.tag == "Properties":
            known = {found.tag.lower(): found.text for found in part if found.text}
        elif part.tag == "Metadata":
            metadata = {found.tag: found.text or "" for found in part}
    if entry.tag != "Blob":
        return ListedPrefix(name)
    modified = parsedate_to_datetime(known["last-modified"])
    return ListedBlob(name, int(known["content-length"]), known["etag"], modified, known, metadata)
