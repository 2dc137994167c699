"""The audit log's chain: whoever alters, removes or inserts a record is found, with the record's number."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tasks.core.audit import AuditKind, AuditRecord, ChainHead, next_record, verify_chain
from tasks.core.errors import Invalid

START = datetime(2026, 11, 5, 10, 0, tzinfo=UTC)


def chain(length: int, *, first: ChainHead | None = None) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    head = first or ChainHead()
    for index in range(length):
        facts = {"objects": index, "share": 0.1 + index, "entities": ["EMAIL_ADDRESS"], "cleared": True}
        time = START + timedelta(seconds=index)
        record = next_record(head, kind="verdict", subject=f"aws://raw/{index}", facts=facts, time=time)
        records.append(record)
        head = ChainHead(record.sequence, record.digest)
    return records


def places(records: list[AuditRecord], head: ChainHead | None = None) -> list[tuple[int, str]]:
    return [(fault.sequence, fault.what) for fault in verify_chain(records, head=head).faults]


def test_an_untouched_log_is_sound_and_says_where_it_ends():
    records = chain(5)
    report = verify_chain(records)
    assert report.sound
    assert report.head == ChainHead(5, records[-1].digest)


def test_an_empty_log_is_sound():
    assert verify_chain([]).sound


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(
    "change",
    [
        {"subject": "aws://other"},
        {"kind": "receipt"},
        {"time": START + timedelta(days=1)},
        {"facts": {"objects": 99}},
    ],
)
def test_an_altered_record_is_named(index, change):
    records = chain(5)
    records[index] = replace(records[index], **change)
    assert places(records) == [(index + 1, "altered")]


@pytest.mark.parametrize("index", range(4))
def test_an_altered_record_with_a_digest_made_to_fit_is_named_by_its_successor(index):
    records = chain(5)
    true = records[index]
    before = ChainHead(true.sequence - 1, true.previous_digest)
    records[index] = next_record(before, kind="verdict", subject="forged", facts={}, time=true.time)
    assert places(records) == [(index + 1, "altered")]


def test_a_rewritten_end_shows_against_a_head_noted_elsewhere():
    records = chain(5)
    noted = ChainHead(5, records[4].digest)
    forged = next_record(ChainHead(4, records[3].digest), kind="run", subject="forged", facts={}, time=START)
    assert places([*records[:4], forged]) == []
    assert places([*records[:4], forged], noted) == [(5, "altered")]


@pytest.mark.parametrize("index", range(4))
def test_a_removed_record_is_named(index):
    records = chain(5)
    del records[index]
    assert places(records) == [(index + 1, "removed")]


def test_a_cut_off_end_shows_against_a_head_noted_elsewhere():
    records = chain(5)
    noted = ChainHead(5, records[4].digest)
    assert places(records[:3]) == []
    assert places(records[:3], noted) == [(4, "removed"), (5, "removed")]


def test_an_inserted_record_is_named():
    records = chain(5)
    extra = next_record(ChainHead(2, records[1].digest), kind="run", subject="extra", facts={}, time=START)
    assert places([*records[:3], extra, *records[3:]]) == [(3, "inserted")]


def test_a_head_from_an_earlier_day_is_still_in_a_log_that_grew():
    records = chain(5)
    assert places(records, ChainHead(3, records[2].digest)) == []


def test_facts_are_the_same_after_a_trip_through_json():
    record = next_record(ChainHead(), kind=AuditKind.RUN, subject="s", facts={"pair": (1, 2), "none": None}, time=START)
    assert record.facts == {"pair": [1, 2], "none": None}


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"when": START}, r"facts\.when is a datetime"),
        ({"deep": [{"x": {1, 2}}]}, r"facts\.deep\[0\]\.x is a set"),
        ({"n": float("nan")}, r"facts\.n is not a finite number"),
        ({1: "x"}, "facts has a key that is not text"),
    ],
)
def test_facts_that_json_cannot_hold_are_refused(facts, complaint):
    with pytest.raises(Invalid, match=complaint):
        next_record(ChainHead(), kind="run", subject="s", facts=facts, time=START)


def test_an_unknown_kind_is_refused():
    with pytest.raises(Invalid, match="'gossip' is not a kind"):
        next_record(ChainHead(), kind="gossip", subject="s", facts={}, time=START)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(Invalid, match="no zone"):
        next_record(ChainHead(), kind="run", subject="s", facts={}, time=datetime(2026, 1, 1))
