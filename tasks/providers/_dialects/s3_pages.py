"""The objects of a listing's page, read without the SDK's models, which cost several times what parsing the page does.

The SDK asks as ever, with its signatures, retries and errors; before it reads an answer, the objects are taken out of
it and handed on in the SDK's own shape.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import datetime
from typing import Any

_ROOT = "ListBucketResult"

Moment = Callable[[str], datetime]


def contents_reader(moment: Moment) -> Callable[..., None]:
    """A handler of the SDK's event `before-parse.s3.ListObjectsV2`.

    Args:
        moment: Reads a time.
    """

    def read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
        try:
            # The sender is the configured service; entities of its own would be refused by the parser's limits.
            root = ET.fromstring(response_dict["body"])  # noqa: S314
            space, named, rest = root.tag.rpartition(_ROOT)
            if response_dict["status_code"] != 200 or not named or rest:
                return
            contents = [_object(found, len(space), moment) for found in root.iterfind(f"{space}Contents")]
        except (KeyError, ValueError, ET.ParseError):
            # What is amiss with it the SDK says.
            return
        root[:] = [part for part in root if part.tag != f"{space}Contents"]
        response_dict["body"] = ET.tostring(root)
        if contents:
            customized_response_dict["Contents"] = contents

    return read


def _object(found: ET.Element, above: int, moment: Moment) -> dict[str, Any]:
    """One object as the SDK shapes it, `above` is the length of the namespace."""
    item: dict[str, Any] = {part.tag[above:]: part.text or "" for part in found}
    item["Size"], item["LastModified"] = int(item["Size"]), moment(item["LastModified"])
    if "RestoreStatus" in item:
        status = next(part for part in found if part.tag[above:] == "RestoreStatus")
        item["RestoreStatus"] = {part.tag[above:]: part.text for part in status}
    return item
