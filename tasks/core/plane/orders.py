"""What a move and its further processes tell each other, pickled one after the other over pipes."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.core.attributes import Description
from tasks.core.plane import Load
from tasks.core.ports import SentPart, Signing, Write

Name = tuple[str, int]
"""An errand's key and the number of its part; 0 for a whole object."""


@dataclass(frozen=True, slots=True)
class Start:
    """The first thing a hand is told: its share of the memory and the requests in flight, and how patient to be."""

    budget_bytes: int
    in_flight: int
    silence_s: float


@dataclass(frozen=True, slots=True)
class Signatures:
    """From now on sign by these."""

    near: Signing = field(repr=False)
    far: Signing = field(repr=False)


@dataclass(frozen=True, slots=True)
class Whole:
    """Carry an object."""

    load: Load


@dataclass(frozen=True, slots=True)
class Piece:
    """Carry a part of an object whose upload has begun."""

    load: Load
    write: Write
    upload_id: str
    number: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Described:
    """The answer to `Asked`."""

    key: str
    description: Description


@dataclass(frozen=True, slots=True)
class End:
    """There is nothing more."""


Order = Start | Signatures | Whole | Piece | Described | End


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many errands more."""

    errands: int


@dataclass(frozen=True, slots=True)
class Carried:
    """Objects that have arrived: key and version."""

    objects: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PieceCarried:
    """A part that has arrived."""

    key: str
    part: SentPart


@dataclass(frozen=True, slots=True)
class Asked:
    """What is kept with this object at its source?"""

    key: str


@dataclass(frozen=True, slots=True)
class Back:
    """An errand that is given back."""

    name: Name


Report = Wanted | Carried | PieceCarried | Asked | Back
