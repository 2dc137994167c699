"""What shall be done to objects on their way, since whatever leaves a cloud is paid by the byte.

How it is done is in `tasks.core.converters`, which loads what reads and writes tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Conversion:
    """What shall be done to the objects of a dataset on their way.

    Args:
        compress: How objects that are not compressed yet are compressed; empty for not at all.
        format: What CSV and JSON lines become; empty for what they are.
    """

    compress: Literal["", "zstd"] = ""
    format: Literal["", "parquet"] = ""

    @classmethod
    def of(cls, compress: str, format_name: str) -> Conversion:
        """From a user's words. Raises `Invalid` for others than these."""
        if compress not in ("", "zstd"):
            raise Invalid(f"'{compress}' is no compression that a move makes", "use zstd")
        if format_name not in ("", "parquet"):
            raise Invalid(f"'{format_name}' is no format that a move makes", "use parquet")
        return cls(compress, format_name)

    @property
    def label(self) -> str:
        """Its name in plans, records and keys; empty for none."""
        return "+".join(filter(None, (self.format, self.compress)))
