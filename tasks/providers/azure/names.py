"""Names that Blob Storage does not keep as they are spelt."""

from __future__ import annotations

from tasks.core.errors import Invalid
from tasks.providers._dialects.objects import Place


def require_kept(key: str, place: Place) -> None:
    r"""Raises `Invalid` for a key that the service would store under another name.

    It turns `\` into `/` and may lose a dot at the end of a part.
    """
    if "\\" in key or any(part.endswith(".") for part in key.split("/")):
        raise Invalid(
            f"{place.cloud} cannot keep '{key}' as it is spelt",
            "choose a key without '\\' and without a dot at the end of a part",
        )
