"""What moves rest on, on every store: one mover at a time, and a manifest that comes last."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from tasks.core.cloud import CloudConfig
from tasks.core.dataset import DatasetURI
from tasks.core.errors import LintasError, Retryable
from tasks.core.lease import Lease, Terms, Watch, acquire
from tasks.core.listing import published_manifest, read_manifest
from tasks.core.planning import plan_transfer
from tasks.core.ports import Store
from tasks.core.privacy import Cleared, VerdictKey
from tasks.core.transfer import copy
from tests.conformance.stores import open_store
from tests.memory_store import MemoryJournal, MemoryStore

KEY = VerdictKey("test", b"k" * 32)
SOURCE = DatasetURI("memory", "b", "in")


def destination_of(store: Store, prefix: str) -> DatasetURI:
    return DatasetURI(store.cloud, store.bucket, f"{prefix}out")


def test_the_second_mover_is_refused_while_the_first_works_and_let_in_afterwards(store: Store, prefix: str) -> None:
    target = destination_of(store, prefix)
    first = acquire(Watch(store, target), "one")

    with pytest.raises(Retryable, match="one is moving a dataset"):
        acquire(Watch(store, target), "two")

    first.require()
    first.give_back()
    second = acquire(Watch(store, target), "two")
    second.require()
    with pytest.raises(LintasError):
        first.require()
    second.give_back()
    assert [info.key for info in store.list(target.key_prefix)] == []


def test_of_eight_that_take_a_lapsed_lease_exactly_one_gets_it(config: CloudConfig, store: Store, prefix: str) -> None:
    target, passed_s = destination_of(store, prefix), 0.0
    acquire(Watch(store, target), "dead")
    terms = Terms(term_s=60, grace_s=15, now=lambda: passed_s)
    watches = [Watch(open_store(config, store.bucket), target, terms) for _ in range(8)]
    for watch in watches:
        watch.look()
    passed_s = 76.0

    def take(number: int) -> Lease | None:
        try:
            return acquire(watches[number], f"mover {number}")
        except LintasError:
            return None

    with ThreadPoolExecutor(8) as pool:
        taken = [lease for lease in pool.map(take, range(8)) if lease is not None]

    assert len(taken) == 1
    taken[0].require()


def test_whoever_reads_the_manifest_during_a_move_sees_the_dataset_before_it(store: Store, prefix: str) -> None:
    target, seen = destination_of(store, prefix), list[str | None]()

    def look(call: str, _key: str) -> None:
        if call == "read":
            there = published_manifest(store, target)
            seen.append(None if there is None else there.digest)

    def move(contents: dict[str, bytes]) -> str:
        source = MemoryStore("memory", "b")
        for path, content in contents.items():
            source.put(SOURCE.key(path), [content], size_bytes=len(content))
        manifest = read_manifest(source, SOURCE)
        source.before = look
        plan = plan_transfer(SOURCE, manifest, target, read_manifest(store, target))
        verdict = KEY.sign(
            Cleared(manifest.digest, manifest.digest, "p" * 64, target, "EU", (), 0, len(manifest), datetime.now(UTC))
        )
        copy(plan, verdict, KEY, source, store, MemoryJournal())
        return manifest.digest

    first = move({f"{number}": b"x" * 1000 for number in range(4)})
    assert set(seen) == {None}
    assert len(seen) >= 4
    there = published_manifest(store, target)
    assert there is not None
    assert there.digest == first
    seen.clear()

    second = move({f"{number}": b"y" * 1000 for number in range(4)})

    assert set(seen) == {first}
    there = published_manifest(store, target)
    assert there is not None
    assert there.digest == second
