"""Laws of manifests: what columns on disk say is what a plain list of objects would say."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core import rows
from tasks.core.dataset import DatasetURI, Entry
from tasks.core.manifest import SCHEMA, Manifest
from tasks.core.planning import DeleteLimit, plan_transfer
from tasks.core.rows import aligned, batches_of, in_order

NEAR, FAR = DatasetURI("near", "b"), DatasetURI("far", "b")
ANY = DeleteLimit.parse("100%")

paths = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('aé"\\/\n\U0001f600\uffff'), min_size=1)
# No store takes an object near 2**56 bytes, and totals of these fit into 64 bits.
sizes = st.integers(0, 2**56)
entries = st.builds(Entry, paths, sizes, st.text("0123456789abcdef", min_size=1), paths, st.booleans())
datasets = st.lists(entries, max_size=40, unique_by=lambda entry: entry.path)


def few_rows_at_a_time() -> Any:
    """Batches of three rows, sorted six at a time, nearly nothing in memory."""
    return patch.multiple(rows, BATCH_ROWS=3, _SORTED_AT_ONCE_ROWS=6, _IN_MEMORY_ROWS=2)


@settings(max_examples=150, deadline=None)
@given(listed=datasets)
def test_a_manifest_is_the_sorted_list_of_its_entries_and_its_digest_is_over_their_json_lines(
    listed: list[Entry],
) -> None:
    ordered = sorted(listed, key=lambda entry: entry.path)
    whole = blake3()
    for entry in ordered:
        line = json.dumps([entry.path, entry.size_bytes, entry.digest], separators=(",", ":"))
        whole.update(line.encode() + b"\n")
    with few_rows_at_a_time():
        manifest = Manifest.of(listed)
        assert list(manifest) == ordered
    assert (manifest.digest, len(manifest)) == (whole.hexdigest(), len(listed))
    assert manifest.size_bytes == sum(entry.size_bytes for entry in listed)
    assert manifest.assumed == sum(entry.assumed for entry in listed)


@settings(max_examples=150, deadline=None)
@given(listed=datasets, cut=st.integers(1, 50))
def test_the_published_form_is_plain_json_lines_and_comes_back_however_it_is_cut(listed: list[Entry], cut: int) -> None:
    manifest = Manifest.of(listed)
    text = b"".join(manifest.to_jsonl())
    header, *lines = (json.loads(line) for line in text.decode().split("\n")[:-1])
    assert (header["digest"], header["objects"]) == (manifest.digest, len(listed))
    for line, entry in zip(lines, manifest, strict=True):
        assert line.pop("assumed", False) == entry.assumed
        assert line == {
            "path": entry.path, "size_bytes": entry.size_bytes, "digest": entry.digest, "version": entry.version
        }  # fmt: skip
    again = Manifest.from_jsonl(text[at : at + cut] for at in range(0, len(text), cut))
    assert list(map(facts, again)) == list(map(facts, manifest))


def facts(entry: Entry) -> tuple[object, ...]:
    return entry.path, entry.size_bytes, entry.digest, entry.version, entry.assumed


@settings(max_examples=150, deadline=None)
@given(streams=st.lists(st.lists(paths, max_size=20, unique=True), min_size=1, max_size=3))
def test_streams_walk_side_by_side_and_no_path_is_torn_apart(streams: list[list[str]]) -> None:
    with few_rows_at_a_time():
        ordered = [
            in_order(batches_of(SCHEMA, ((path, 0, "", "", False, None) for path in listed)), SCHEMA)
            for listed in streams
        ]
        steps = [[part.column("path").to_pylist() if part else [] for part in step] for step in aligned(*ordered)]
    for at, listed in enumerate(streams):
        assert [path for step in steps for path in step[at]] == sorted(listed)
    seen: set[str] = set()
    for step in steps:
        here = {path for part in step for path in part}
        assert here
        assert seen.isdisjoint(here)
        seen |= here


@settings(max_examples=150, deadline=None)
@given(wanted=datasets.filter(bool), there=datasets, common=datasets)
def test_a_plan_is_what_comparing_two_dictionaries_says(
    wanted: list[Entry], there: list[Entry], common: list[Entry]
) -> None:
    near = {entry.path: entry for entry in [*wanted, *common]}
    far = {entry.path: entry for entry in [*there, *common]}
    with few_rows_at_a_time():
        plan = plan_transfer(
            NEAR, Manifest.of(near.values()), FAR, Manifest.of(far.values()), delete=True, delete_limit=ANY
        )
        added, replaced, kept = ({s.entry.path: s for s in part} for part in (plan.add, plan.replace, plan.keep))
        loads = {load.entry.path: load for load in plan.loads()}
    same = {path for path in near if far.get(path) == near[path]}
    assert added.keys() == near.keys() - far.keys()
    assert kept.keys() == same
    assert replaced.keys() == (near.keys() & far.keys()) - same
    assert list(plan.remove) == sorted(far.keys() - near.keys())
    assert {path: step.there for path, step in replaced.items()} == {path: far[path].version for path in replaced}
    assert loads.keys() == added.keys() | replaced.keys()
    assert all(load.entry.version == near[path].version for path, load in loads.items())
    assert plan.bytes_to_send == sum(near[path].size_bytes for path in loads)
    assert plan.assumed == sum(far[path].assumed for path in kept)


@settings(max_examples=60, deadline=None)
@given(wanted=datasets.filter(bool), most_objects=st.integers(1, 7), most_bytes=st.integers(1, 2**62))
def test_shards_carry_everything_once_and_share_no_key(wanted: list[Entry], most_objects: int, most_bytes: int) -> None:
    plan = plan_transfer(NEAR, Manifest.of(wanted), FAR, Manifest.of(()))
    shards = list(plan.shards(most_objects, most_bytes))
    assert [load for shard in shards for load in shard.loads] == list(plan.loads())
    for shard in shards:
        assert len(shard.loads) <= most_objects
        assert shard.size_bytes <= most_bytes or len(shard.loads) == 1
        assert all(shard.owns(load.key) for load in shard.loads)
        assert not any(other.owns(load.key) for other in shards if other is not shard for load in shard.loads)
