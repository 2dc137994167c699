"""The checksums that services which speak the S3 dialect verify, over parts and over whole objects."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from awscrt import checksums


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum that S3 verifies, over parts and over the whole object alike.

    Args:
        algorithm: Its name in `ChecksumAlgorithm`; `Checksum<algorithm>` is its parameter.
        width_bytes: Length of the value.
        over: Computes it, given the bytes and the value of the bytes before them.
        joined: Computes that of two pieces together, given theirs and the length in bytes of the second.
    """

    algorithm: Literal["CRC32C", "CRC64NVME"]
    width_bytes: int
    over: Callable[[Any, int], int]
    joined: Callable[[int, int, int], int]

    def parameter(self, value: int) -> dict[str, Any]:
        """The value as boto3 takes it."""
        return {f"Checksum{self.algorithm}": self.text(value)}

    def text(self, value: int) -> str:
        """The value as it travels: base64 of the big-endian bytes."""
        return base64.b64encode(value.to_bytes(self.width_bytes, "big")).decode()

    def value(self, text: str) -> int:
        """The inverse of `text`."""
        return int.from_bytes(base64.b64decode(text), "big")


CRC32C = Checksum("CRC32C", 4, checksums.crc32c, checksums.combine_crc32c)
CRC64NVME = Checksum("CRC64NVME", 8, checksums.crc64nvme, checksums.combine_crc64nvme)
