"""Preconditions on generation and metageneration, as Cloud Storage reads them from queries and headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.local.cloud_storage.faults import Refused, condition_not_met, invalid


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold for the request to be carried out; None where nothing is asked.

    A generation of 0 stands for 'there is no live object'.
    """

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    @classmethod
    def of_query(cls, query: Mapping[str, str], *, source: bool = False) -> Conditions:
        """From the JSON API's query parameters; `source` reads those about the source of a copy."""
        before = "ifSource" if source else "if"
        return cls(
            _number(query, f"{before}GenerationMatch"),
            _number(query, f"{before}GenerationNotMatch"),
            _number(query, f"{before}MetagenerationMatch"),
            _number(query, f"{before}MetagenerationNotMatch"),
        )

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> Conditions:
        """From the XML API's `x-goog-if-*` headers."""
        return cls(
            _number(headers, "x-goog-if-generation-match"),
            None,
            _number(headers, "x-goog-if-metageneration-match"),
            None,
        )

    def require(self, generation: int, metageneration: int | None, *, read: bool = False) -> None:
        """Check the live object.

        Args:
            generation: Its generation; 0 when there is none.
            metageneration: Its metageneration; None when there is none.
            read: Whether the request reads; a read is answered 304 where a write is answered 412.

        Raises:
            Refused: Something does not hold.
        """
        unchanged = Refused(304, "notModified", "") if read else condition_not_met()
        if self.generation_match is not None and self.generation_match != generation:
            raise condition_not_met()
        if self.metageneration_match is not None and self.metageneration_match != metageneration:
            raise condition_not_met()
        if self.generation_not_match is not None and self.generation_not_match == generation:
            raise unchanged
        if self.metageneration_not_match is not None and self.metageneration_not_match == metageneration:
            raise unchanged


def _number(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise invalid(f"Invalid argument: {name} must be a non-negative integer.")
    return int(text)
