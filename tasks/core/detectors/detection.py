"""What is looked for beyond the vocabulary that everybody has, as a policy and whoever asks for a scan want it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.core.detectors.entities import ENTITIES, Entity, Group
from tasks.core.detectors.words import LANGUAGES, headers_of, speaks_for, spoken
from tasks.core.errors import Invalid

PHONE_REGIONS = ("US", "CA", "ID", "GB", "IE", "AU", "NZ", "SG", "MY")
"""The countries (ISO 3166) whose telephone numbers are known without a country's code, unless a policy says others:
those of the languages whose words count. India is not among them: most numbers of ten digits fit its plan."""

OWN_CHECKS = {"luhn": 0.12, "verhoeff": 0.12, "mod97": 0.02}
"""The checks that an entity of a policy's own may ask for, and how often chance passes them, at most."""


@dataclass(frozen=True, slots=True)
class OwnEntity:
    """An entity that a policy brings along.

    Args:
        name: In capitals, as findings and rules write it.
        pattern: What it looks like, in RE2's syntax; see `own.pattern_problem`.
        check: The check digits it must have, one of `OWN_CHECKS`; nothing for none.
        words: Words in a column's name, a path or beside a hit that speak for it. With words and without a check its
            look alone does not suffice.
        group: Its class.
    """

    name: str
    pattern: str
    check: str = ""
    words: tuple[str, ...] = ()
    group: Group = Group.OWN

    @property
    def entity(self) -> Entity:
        """As the built-in ones are described."""
        by_look = 0.9 if self.words else 0.0
        chance, prior = (OWN_CHECKS[self.check], 1.0) if self.check else (by_look, 0.1)
        return Entity(self.name, self.group, f"{self.name} of the policy", self.words, chance, prior)


@dataclass(frozen=True, slots=True)
class Detection:
    """How a scan searches.

    Args:
        languages: Languages whose words may speak for an entity, of `LANGUAGES`.
        phone_regions: Countries whose telephone numbers are known without a country's code.
        own: Entities of the policy's own.
        names_in_text: Whether a language model looks for names of people, places and organisations inside sentences
            (see `named`).

    Raises:
        Invalid: A language is not known; the text names those that are.
    """

    languages: tuple[str, ...] = LANGUAGES
    phone_regions: tuple[str, ...] = PHONE_REGIONS
    own: tuple[OwnEntity, ...] = ()
    names_in_text: bool = False

    def __post_init__(self) -> None:
        for language in self.languages:
            if language not in LANGUAGES:
                raise Invalid(f"'{language}' is not a language of the detectors", f"use {' or '.join(LANGUAGES)}")

    def entity(self, name: str) -> Entity:
        """An entity that a hit names."""
        return ENTITIES[name] if name in ENTITIES else self._own(name).entity

    def words(self, name: str) -> tuple[str, ...]:
        """The words that speak for an entity."""
        return headers_of(name, self.languages) if name in ENTITIES else self._own(name).words

    def speaks_for(self, name: str, place: str) -> str:
        """The word of an entity that a column's name or a path holds, or nothing."""
        return speaks_for(name, place, self.languages) if name in ENTITIES else spoken(self._own(name).words, place)

    def covers(self, other: Detection) -> bool:
        """Whether everything is looked for that the other looks for."""
        return (
            set(other.own) <= set(self.own)
            and set(other.phone_regions) <= set(self.phone_regions)
            and self.names_in_text >= other.names_in_text
        )

    def _own(self, name: str) -> OwnEntity:
        return next(own for own in self.own if own.name == name)


EVERYTHING = Detection()
"""The vocabulary, and nothing beyond it."""


def joined(parts: Iterable[Detection]) -> Detection:
    """What looks for everything that one of them looks for."""
    every = tuple(parts)
    return Detection(
        phone_regions=tuple(dict.fromkeys(region for each in every for region in each.phone_regions)),
        own=tuple(dict.fromkeys(own for each in every for own in each.own)),
        names_in_text=any(each.names_in_text for each in every),
    )
