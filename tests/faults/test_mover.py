"""The direct plane between real servers: what arrives is what was sent, by rclone's word."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tasks.core.attributes import Attributes
from tasks.core.errors import NotFound, PreconditionFailed
from tasks.core.plane.direct import DirectPlane
from tasks.core.plane.limits import Limits
from tasks.core.plane.stream import StreamPlane
from tests.conformance.stores import MIB, put
from tests.faults.conftest import MakeTrial

PAIRS = [
    ("aws", "azure"),
    ("aws", "google"),
    ("google", "aws"),
    ("azure", "coreweave"),
    ("google", "azure"),
    ("coreweave", "google"),
]
_MANY = 260
"""Beyond 256 the destination is asked for the checksum that it verifies, also where nothing travels in parts."""

AROUND = [("aws", "azure"), ("azure", "coreweave"), ("coreweave", "google"), ("google", "aws")]
"""Each cloud at either end once: by default the others are tried by the first test alone."""
pairs = pytest.mark.parametrize(("near", "far"), PAIRS)
around = pytest.mark.parametrize(
    ("near", "far"), [pytest.param(*pair, marks=() if pair in AROUND else pytest.mark.campaign) for pair in PAIRS]
)


@pairs
def test_a_dataset_arrives_byte_for_byte_and_leaves_nothing_behind(trial: MakeTrial, near: str, far: str) -> None:
    move = trial(near, far)

    receipt = move.move(DirectPlane())

    assert receipt.route == "direct"
    move.require_identical()
    move.require_clean()


@around
def test_objects_are_replaced_only_in_the_version_that_was_planned(trial: MakeTrial, near: str, far: str) -> None:
    move = trial(near, far, (10, 9 * MIB))
    move.move(DirectPlane())
    source, _ = move.stores()
    for path, content in move.content.items():
        move.content[path] = content[::-1]
        put(source, move.source.key(path), move.content[path])

    move.move(DirectPlane())

    move.require_identical()
    move.require_clean()


@around
def test_many_small_objects_travel_at_the_same_time(trial: MakeTrial, near: str, far: str) -> None:
    move = trial(near, far, [1000 + number for number in range(_MANY)])

    move.move(DirectPlane())

    move.require_identical()


@pytest.mark.parametrize("plane", [DirectPlane, StreamPlane])
def test_a_limited_move_takes_its_time(trial: MakeTrial, plane: type[DirectPlane | StreamPlane]) -> None:
    move = trial("aws", "google", (2_000_000, 2_000_000))
    began = time.monotonic()

    move.move(plane(limits=Limits(mb_per_s=8)))

    # A tenth of a second's worth may pass at once.
    assert time.monotonic() - began > 4 / 8 - 0.1
    move.require_identical()


@pytest.mark.parametrize("size_bytes", [10, 9 * MIB], ids=["whole", "in-parts"])
@pytest.mark.parametrize("far", ["aws", "google", "azure"])
def test_an_object_that_somebody_else_wrote_meanwhile_is_never_overwritten(
    trial: MakeTrial, far: str, size_bytes: int
) -> None:
    move = trial("aws", far, [size_bytes])
    (path,) = move.content
    _, destination = move.stores()

    class Late(DirectPlane):
        def carry(self, *arguments) -> None:
            put(destination, move.target.key(path), b"somebody else's")
            super().carry(*arguments)

    with pytest.raises(PreconditionFailed):
        move.move(Late())

    assert b"".join(destination.get(move.target.key(path))) == b"somebody else's"
    move.require_clean()


KEPT = Attributes("text/csv", "gzip", "id", 'attachment; filename="x.csv"', "max-age=60", {"stage": "raw"})


@pytest.mark.parametrize("plane", [DirectPlane, StreamPlane])
@pytest.mark.parametrize(("near", "far"), [("aws", "azure"), ("azure", "google"), ("google", "coreweave")])
def test_what_is_kept_with_objects_arrives_with_them(
    trial: MakeTrial, near: str, far: str, plane: type[DirectPlane | StreamPlane]
) -> None:
    move = trial(near, far, (10, 9 * MIB))
    source, destination = move.stores()
    for path, content in move.content.items():
        put(source, move.source.key(path), content, metadata={"owner_team": "größe"}, attributes=KEPT)

    move.move(plane())

    for path in move.content:
        found = destination.head(move.target.key(path))
        assert found.metadata.items() >= {"owner_team": "größe"}.items()
        assert replace(found.attributes, tier="") == KEPT
        assert b"".join(destination.get(move.target.key(path))) == move.content[path]


@pytest.mark.parametrize("size_bytes", [10, 20 * MIB], ids=["whole", "in-parts"])
@pytest.mark.parametrize("vanishes", [True, False], ids=["vanishes", "changes"])
@pytest.mark.parametrize(
    ("near", "far", "plane"),
    [("aws", "azure", DirectPlane), ("azure", "google", DirectPlane), ("google", "aws", StreamPlane)],
)
def test_a_source_that_is_another_one_in_mid_move_is_never_seen_at_the_far_end(
    trial: MakeTrial, near: str, far: str, size_bytes: int, vanishes: bool, plane: type[DirectPlane | StreamPlane]
) -> None:
    move = trial(near, far, [size_bytes])
    (path,) = move.content
    source, destination = move.stores()

    class Meddling(plane):
        def carry(self, *arguments) -> None:
            if vanishes:
                source.delete(move.source.key(path))
            else:
                put(source, move.source.key(path), move.content[path][::-1])
            super().carry(*arguments)

    with pytest.raises((NotFound, PreconditionFailed)):
        move.move(Meddling())

    assert list(destination.list("")) == []
    move.require_clean()
