"""Moving: planning, the guard of the gate, copying, verification, and bringing a dataset here."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.core.attributes import Attributes
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.errors import IntegrityError, Invalid, NotFound, PolicyViolation, PreconditionFailed, Retryable
from tasks.core.estimates import Requests, estimate
from tasks.core.fetching import fetch
from tasks.core.listing import published_manifest, read_manifest
from tasks.core.manifest import Manifest
from tasks.core.plane.stream import StreamPlane
from tasks.core.planning import DeleteLimit, TransferPlan, TransferPrices, differences, plan_transfer
from tasks.core.privacy import Cleared, VerdictKey
from tasks.core.selection import Selection
from tasks.core.transfer import Receipt, carry, copy, settle
from tests.memory_store import MemoryJournal, MemoryStore

SOURCE, TARGET = DatasetURI("memory", "b", "data"), DatasetURI("far", "c", "lake")
KEY = VerdictKey("test", b"k" * 32)


def cleared(manifest: Manifest, destination: DatasetURI = TARGET) -> Cleared:
    return KEY.sign(
        Cleared(manifest.digest, manifest.digest, "p" * 64, destination, "EU", (), 0, len(manifest), datetime.now(UTC))
    )


class World:
    """Two stores and a journal."""

    def __init__(self, **objects: bytes) -> None:
        self.near, self.far, self.journal = MemoryStore(), MemoryStore("far", "c"), MemoryJournal()
        for name, content in objects.items():
            self.near.write(f"data/{name}", content)

    def plan(self, *, delete: bool = False) -> TransferPlan:
        manifest = read_manifest(self.near, SOURCE, self.journal)
        present = read_manifest(self.far, TARGET, self.journal, trust_labels=True)
        return plan_transfer(SOURCE, manifest, TARGET, present, delete=delete, delete_limit=DeleteLimit.parse("100%"))

    def move(self, *, delete: bool = False) -> Receipt:
        plan = self.plan(delete=delete)
        return copy(
            plan, cleared(plan.manifest), KEY, self.near, self.far, self.journal, plane=StreamPlane(in_flight=2)
        )


def test_a_move_makes_both_sides_equal_and_publishes_the_manifest() -> None:
    world = World(a=b"1", b=b"22")
    receipt = world.move()
    assert world.far.contents() == {"lake/a": b"1", "lake/b": b"22"}
    assert receipt.digest == read_manifest(world.near, SOURCE).digest == read_manifest(world.far, TARGET).digest
    published = published_manifest(world.far, TARGET)
    assert published is not None
    assert published.digest == receipt.digest


def test_a_second_move_sends_nothing() -> None:
    world = World(a=b"1", b=b"22")
    world.move()
    world.far.sent.clear()
    receipt = world.move()
    assert (len(receipt.copied), receipt.route, world.far.sent) == (0, "nothing", [])


def test_a_changed_object_moves_alone() -> None:
    world = World(a=b"1", b=b"22")
    world.move()
    world.near.write("data/b", b"33")
    assert [item.path for item in world.move().copied] == ["b"]
    assert world.far.contents()["lake/b"] == b"33"


def test_what_only_the_destination_has_needs_an_explicit_choice() -> None:
    world = World(a=b"1")
    world.far.write("lake/old", b"x")
    with pytest.raises(Invalid, match="--delete"):
        world.move()
    assert list(world.move(delete=True).removed) == ["old"]
    assert world.far.contents() == {"lake/a": b"1"}


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_digest": "0" * 64},
        {"destination": DatasetURI("far", "c", "elsewhere")},
        {"policy_digest": "0" * 64},
        {"jurisdiction": "US"},
        {"keeps_labels": True},
        {"signature": "0" * 64},
        {"signature": ""},
    ],
)
def test_copy_takes_nothing_but_a_clearance_for_exactly_this_plan(change: dict[str, object]) -> None:
    world = World(a=b"1")
    plan = world.plan()
    forged = dataclasses.replace(cleared(plan.manifest), **change)  # type: ignore[arg-type]
    with pytest.raises(PolicyViolation):
        copy(plan, forged, KEY, world.near, world.far, world.journal)
    assert world.far.objects == {}


@pytest.mark.parametrize("keeps", [True, False])
def test_what_the_gate_does_not_read_stays_behind_unless_the_clearance_says_otherwise(keeps: bool) -> None:
    world = World()
    kept = Attributes("text/csv", content_disposition="attachment; filename=ani.csv", tags={"owner": "ani"})
    world.near.put("data/a", [b"1"], size_bytes=1, metadata={"contact": "ani@example.org"}, attributes=kept)
    plan = world.plan()
    verdict = KEY.sign(dataclasses.replace(cleared(plan.manifest), keeps_labels=keeps))

    copy(plan, verdict, KEY, world.near, world.far, world.journal)

    there = world.far.head("lake/a")
    assert there.attributes.content_type == "text/csv"
    assert ("contact" in there.metadata) is keeps
    assert (there.attributes == kept) is keeps
    assert ("ani" in repr(there)) is keeps


def test_a_clearance_signed_with_another_key_is_refused() -> None:
    world = World(a=b"1")
    plan = world.plan()
    with pytest.raises(PolicyViolation):
        copy(plan, cleared(plan.manifest), VerdictKey("test", b"x" * 32), world.near, world.far, world.journal)
    assert world.far.objects == {}


def test_a_source_that_changes_after_planning_is_noticed_and_never_mixed() -> None:
    world = World(a=b"1", b=b"22")
    plan = world.plan()
    world.near.write("data/b", b"xx")
    with pytest.raises(PreconditionFailed):
        copy(plan, cleared(plan.manifest), KEY, world.near, world.far, world.journal)
    assert b"xx" not in world.far.contents().values()
    assert published_manifest(world.far, TARGET) is None


def test_wrong_bytes_never_become_visible() -> None:
    world = World(a=b"right")
    plan = world.plan()
    _, info = world.near.objects["data/a"]
    world.near.objects["data/a"] = (b"wrong", info)
    with pytest.raises(IntegrityError, match="'a'"):
        copy(plan, cleared(plan.manifest), KEY, world.near, world.far, world.journal)
    assert world.far.contents() == {}


def test_a_stranger_at_the_destination_is_noticed() -> None:
    world = World(a=b"1")
    plan = world.plan()

    def stray(call: str, _key: str) -> None:
        if call == "put":
            content, info = world.near.objects["data/a"]
            world.far.objects["lake/stray"] = (content, dataclasses.replace(info, key="lake/stray"))

    world.far.before = stray
    with pytest.raises(IntegrityError):
        copy(plan, cleared(plan.manifest), KEY, world.near, world.far, world.journal)
    assert published_manifest(world.far, TARGET) is None


def test_a_store_that_is_busy_is_tried_again() -> None:
    world = World(a=b"1")
    failures = iter([True, True])

    def busy(call: str, _key: str) -> None:
        if call == "put" and next(failures, False):
            raise Retryable("the store is busy", "wait", retry_after_s=0.0)

    world.far.before = busy
    assert world.move().objects == 1


def test_a_write_whose_answer_was_lost_is_recognised_as_our_own() -> None:
    world = World(a=b"1")
    losses = iter([True])

    def lose_the_answer(call: str, _key: str) -> None:
        if call == "written" and next(losses, False):
            raise Retryable("the connection was cut", "try again", retry_after_s=0.0)

    world.far.before = lose_the_answer
    receipt = world.move()
    assert [item.version for item in receipt.copied] == [world.far.objects["lake/a"][1].version]


def test_a_stranger_s_object_is_not_taken_for_our_own() -> None:
    world = World(a=b"1")
    plan = world.plan()
    world.far.write("lake/a", b"2")
    with pytest.raises(PreconditionFailed):
        copy(plan, cleared(plan.manifest), KEY, world.near, world.far, world.journal)
    assert world.far.contents()["lake/a"] == b"2"


def test_the_manifest_is_read_in_spite_of_a_busy_store() -> None:
    world = World(a=b"1")
    failures = iter([True, True])

    def busy(call: str, _key: str) -> None:
        if call == "read" and next(failures, False):
            raise Retryable("the store is busy", "wait", retry_after_s=0.0)

    world.near.before = busy
    assert len(read_manifest(world.near, SOURCE)) == 1


def test_nothing_is_begun_after_a_failure() -> None:
    world = World(**{f"o{number:03}": b"x" for number in range(200)})
    plan = world.plan()
    world.near.write("data/o000", b"changed")
    world.far.sent.clear()
    with pytest.raises(PreconditionFailed):
        copy(plan, cleared(plan.manifest), KEY, world.near, world.far, world.journal, plane=StreamPlane(in_flight=1))
    assert world.far.sent == []


def test_planning_refuses_overlaps_and_emptiness() -> None:
    empty = Manifest.of(())
    some = read_manifest(World(a=b"1").near, SOURCE)
    with pytest.raises(Invalid, match="overlap"):
        plan_transfer(SOURCE, some, SOURCE / "sub", empty)
    with pytest.raises(Invalid, match="no objects"):
        plan_transfer(SOURCE, empty, TARGET, empty)


def test_the_plan_prices_what_travels() -> None:
    manifest = read_manifest(World(a=b"x" * 1024).near, SOURCE)
    plan = plan_transfer(SOURCE, manifest, TARGET, Manifest.of(()), prices=TransferPrices(0.09))
    assert plan.cost_usd == pytest.approx(0.09 * 1024 / 1024**3)
    assert plan_transfer(SOURCE, manifest, TARGET, Manifest.of(()), prices=TransferPrices(None)).cost_usd is None


def test_a_dataset_is_brought_here_verified(tmp_path: Path) -> None:
    world = World(**{"train": b"t", "holdout": b"h"})
    manifest = read_manifest(world.near, SOURCE)
    fetch(world.near, SOURCE, manifest, tmp_path, under="hold")
    assert [path.name for path in tmp_path.iterdir()] == ["holdout"]
    with pytest.raises(NotFound, match="nothing under"):
        fetch(world.near, SOURCE, manifest, tmp_path, under="missing")


def test_a_path_that_leads_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    world = World(**{"../../evil": b"x"})
    with pytest.raises(Invalid, match="leads out"):
        fetch(world.near, SOURCE, read_manifest(world.near, SOURCE), tmp_path / "in")
    assert list(tmp_path.rglob("evil")) == []


def test_only_what_is_selected_moves_and_the_manifest_says_so() -> None:
    world = World(**{"a.csv": b"1", "x/b.csv": b"22", "c.parquet": b"333", "tmp/d.csv": b"4"})
    only = Selection.of(["*.csv"], ["tmp/**"])
    manifest = read_manifest(world.near, SOURCE, selection=only)
    plan = plan_transfer(SOURCE, manifest, TARGET, Manifest.of(()))
    copy(plan, cleared(manifest), KEY, world.near, world.far, world.journal)
    assert world.far.contents().keys() == {"lake/a.csv", "lake/x/b.csv"}
    published = published_manifest(world.far, TARGET)
    assert published is not None
    assert published.selection.as_dict() == {"include": ["*.csv"], "exclude": ["tmp/**"]}
    assert published == manifest


@pytest.mark.parametrize(("limit", "refused"), [("10%", True), ("50%", False), ("1", True), ("2", False)])
def test_more_removals_than_the_limit_are_refused_with_the_mend(limit: str, refused: bool) -> None:
    world = World(a=b"1", b=b"2")
    for name in ("old", "older"):
        world.far.write(f"lake/{name}", b"x")
    manifest = read_manifest(world.near, SOURCE)
    world.far.write("lake/a", b"1")
    world.far.write("lake/b", b"2")
    present = read_manifest(world.far, TARGET)
    arguments = (SOURCE, manifest, TARGET, present)
    if not refused:
        assert list(plan_transfer(*arguments, delete=True, delete_limit=DeleteLimit.parse(limit)).remove) == [
            "old", "older"
        ]  # fmt: skip
        return
    with pytest.raises(Invalid, match=r"2 of the 4 objects.*--delete-limit 2"):
        plan_transfer(*arguments, delete=True, delete_limit=DeleteLimit.parse(limit))


def test_by_listing_nothing_is_read_and_what_is_assumed_is_named_until_somebody_reads_it() -> None:
    world = World(a=b"1", b=b"22")
    for name, content in {"a": b"1", "b": b"xx"}.items():
        world.far.write(f"lake/{name}", content)
    manifest = read_manifest(world.near, SOURCE, world.journal)
    read: list[str] = []
    world.far.before = lambda call, key: read.append(key) if call in ("head", "read") and ".lintas" not in key else None
    present = read_manifest(world.far, TARGET, world.journal, like=manifest)
    plan = plan_transfer(SOURCE, manifest, TARGET, present)
    receipt = copy(plan, cleared(manifest), KEY, world.near, world.far, world.journal)
    assert (read, plan.assumed, receipt.assumed, len(receipt.copied)) == ([], 2, 2, 0)
    published = published_manifest(world.far, TARGET)
    assert published is not None
    assert [entry.assumed for entry in published] == [True, True]
    truth = read_manifest(world.far, TARGET, world.journal, trust_labels=True)
    assert (truth.assumed, truth == manifest) == (0, False)
    assert differences(published, truth) == "1 with other content (first: 'b')"
    assert [item.path for item in world.move().copied] == ["b"]


def test_by_listing_an_older_or_other_sized_object_is_looked_at() -> None:
    world = World()
    world.far.write("lake/a", b"1")
    world.far.write("lake/b", b"333")
    world.near.write("data/a", b"1")
    world.near.write("data/b", b"22")
    manifest = read_manifest(world.near, SOURCE)
    assert read_manifest(world.far, TARGET, like=manifest).assumed == 0


def test_a_move_that_lost_the_destination_neither_removes_nor_publishes() -> None:
    world = World(a=b"1")
    world.far.write("lake/old", b"x")
    plan = world.plan(delete=True)

    def lost() -> None:
        raise PreconditionFailed("another move took it over", "run again")

    copied = carry(plan, list(plan.loads()), cleared(plan.manifest), KEY, world.near, world.far, world.journal)
    with pytest.raises(PreconditionFailed):
        settle(plan, copied, cleared(plan.manifest), KEY, world.far, started=0.0, still_alone=lost)
    assert "lake/old" in world.far.contents()
    assert published_manifest(world.far, TARGET) is None


def test_an_estimate_counts_requests_and_says_what_it_does_not_know() -> None:
    entries = [Entry("small", 5, "a" * 64), Entry("large", 20 * 1024 * 1024, "b" * 64)]
    plan = plan_transfer(SOURCE, Manifest.of(entries), TARGET, Manifest.of(()), prices=TransferPrices(0.09))
    told = estimate(plan, 0, TransferPrices(0.09, 0.0004, 0.005, 0.005), 1024**2, 10.0)
    assert told.requests == Requests(1, 4, 3, 7, 0)
    assert told.requests_usd == pytest.approx((4 * 0.0004 + 11 * 0.005) / 1000)
    assert told.seconds == pytest.approx(20, rel=0.01)
    unknown = estimate(plan, 0, TransferPrices(None, 0.0004, None, 0.005), None, None)
    assert (unknown.egress_usd, unknown.requests_usd, unknown.seconds) == (None, None, None)
