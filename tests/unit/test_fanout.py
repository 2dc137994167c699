"""Several destinations from one read: read once, verified everywhere, and each fails alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.dataset import DatasetURI, Entry
from tasks.core.errors import Denied, IntegrityError, Retryable
from tasks.core.fanout import read_for, stream_to_all
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.plane import CopiedObject, Load, Recipient, Route
from tasks.core.planning import TransferPrices, plan_transfer
from tests.memory_store import MemoryStore

SOURCE = DatasetURI("memory", "b", "data")
contents = st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=200_000), min_size=1, max_size=5)


class Many:
    """A source and three destinations; counts what is read of each object."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.near, self.far = MemoryStore(), [MemoryStore(f"far{number}", "c") for number in range(3)]
        for name, content in objects.items():
            self.near.write(f"data/{name}", content)
        self.entries: list[Entry] = list(read_manifest(self.near, SOURCE))
        self.arrived: list[list[CopiedObject]] = [[] for _ in self.far]
        self.read: Counter[str] = Counter()
        get = self.near.get

        def counted(key: str, **asked: object) -> object:
            self.read[key] += 1
            return get(key, **asked)  # type: ignore[arg-type]

        self.near.get = counted  # type: ignore[method-assign, assignment]

    def carry(self, lacking: list[set[str]] | None = None) -> list[Recipient]:
        recipients = [
            Recipient(
                store,
                [Load(e, f"data/{e.path}", e.path, None) for e in self.entries if not lacking or e.path in lacking[at]],
                lambda _load, item, at=at: self.arrived[at].append(item),  # type: ignore[misc]
            )
            for at, store in enumerate(self.far)
        ]
        stream_to_all(self.near, recipients, in_flight=2)
        return recipients


@settings(max_examples=40, deadline=None)
@given(objects=contents, data=st.data())
def test_all_get_what_they_lack_from_one_read_each(objects: dict[str, bytes], data: st.DataObject) -> None:
    many = Many(objects)
    lacking = [data.draw(st.sets(st.sampled_from(sorted(objects)))) for _ in many.far]
    recipients = many.carry([names or set() for names in lacking] if any(lacking) else None)
    wanted = lacking if any(lacking) else [set(objects)] * 3
    for store, names, arrived in zip(many.far, wanted, many.arrived, strict=True):
        assert store.contents() == {name: objects[name] for name in names}
        assert sorted(item.path for item in arrived) == sorted(names)
    assert many.read == Counter(f"data/{name}" for name in set().union(*wanted))
    assert [each.failure for each in recipients] == [None] * 3


def test_a_destination_that_fails_is_left_out_and_the_others_go_on() -> None:
    objects = {f"o{number}": bytes(300_000) for number in range(20)}
    many = Many(objects)

    def denied(call: str, _key: str) -> None:
        if call == "put":
            raise Denied("far1 refuses", "ask for the permission")

    many.far[1].before = denied
    recipients = many.carry()
    assert [type(each.failure) for each in recipients] == [type(None), Denied, type(None)]
    assert many.far[0].contents() == many.far[2].contents() == objects
    assert many.far[1].contents() == {}


def test_who_must_try_again_does_so_without_the_others() -> None:
    many = Many({"a": b"x" * 100})
    failures = iter([True])

    def busy(call: str, _key: str) -> None:
        if call == "put" and next(failures, False):
            raise Retryable("busy", "wait", retry_after_s=0.0)

    many.far[2].before = busy
    assert [each.failure for each in many.carry()] == [None] * 3
    assert [store.sent for store in many.far] == [["a"]] * 3
    assert many.read["data/a"] == 2


def test_wrong_bytes_become_visible_nowhere() -> None:
    many = Many({"a": b"right"})
    _, info = many.near.objects["data/a"]
    many.near.objects["data/a"] = (b"wrong", info)
    assert {type(each.failure) for each in many.carry()} == {IntegrityError}
    assert all(store.objects == {} for store in many.far)


def test_an_object_that_changed_since_planning_is_never_mixed() -> None:
    many = Many({"a": b"old"})
    many.near.write("data/a", b"new")
    assert all(each.failure is not None for each in many.carry())
    assert all(store.objects == {} for store in many.far)


@pytest.mark.parametrize(
    ("route", "egress_usd_per_gib", "read"),
    [
        ("stream", 0.09, "any"),
        ("direct", 0.09, "any"),
        ("direct", None, "any"),
        ("direct", 0.0, "direct"),
        ("stream", 0.0, "stream"),
        ("server-side", 0.09, None),
        ("pull", 0.09, None),
    ],
)
def test_all_share_a_read_that_costs_money_and_else_those_of_one_way(
    route: Route, egress_usd_per_gib: float | None, read: str | None
) -> None:
    manifest = Manifest.of([Entry("a", 1_000_000, "0" * 64, "1")])
    prices = TransferPrices(egress_usd_per_gib=egress_usd_per_gib)
    there = DatasetURI("far", "b", "data")
    plan = plan_transfer(SOURCE, manifest, there, Manifest.of(()), prices=prices, route=route)
    assert read_for(plan) == read
