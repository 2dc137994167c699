"""Samples and names alone: what they read, what they say of what they missed, and that a policy must want them."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.coverage import Coverage, Mode, Thoroughness
from tasks.core.detectors.scan import scan
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tasks.core.policy import Place, Policy
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Cleared, Refused, Treatment, VerdictKey, actions_for, decide
from tests.memory_store import MemoryStore

URI = DatasetURI("memory", "raw", "set")
TARGET = DatasetURI("google", "lake", "set")
HERE = Place("google", "US")
KEY = VerdictKey("k", bytes(16))


def parquet_bytes(rows: int, row_group_size: int) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"x": list(range(rows)), "email": [f"p{at}@example.org" for at in range(rows)]})
    pq.write_table(table, sink, row_group_size=row_group_size)
    return sink.getvalue()


def scanned(objects: dict[str, bytes], wanted: Thoroughness) -> ScanReport:
    store = MemoryStore()
    for path, content in objects.items():
        store.put(URI.key(path), [content], size_bytes=len(content))
    return scan(store, URI, read_manifest(store, URI), thoroughness=wanted)


def policy(bases: list[Policy] | None = None, **detection: Any) -> Policy:
    data = {"version": 1, "name": "p", "residency": {"allowed": ["US"]}, "defaults": {"finding": "allow"}}
    return load_policy(data | ({"detection": detection} if detection else {}), bases=bases or [])


def judged(rules: Policy, report: ScanReport) -> Cleared | Refused:
    return decide(
        rules, report, manifest_digest=report.manifest_digest, source_digest=report.manifest_digest,
        destination=TARGET, place=HERE, key=KEY, now=datetime.now(UTC), objects=report.objects,
    )  # fmt: skip


CSVS = {f"t/{at}.csv": f"note\nwrite to p{at}@example.org\n".encode() for at in range(20)}


def test_a_sample_of_objects_is_of_the_size_asked_for_and_drawn_the_same_again() -> None:
    first, again = (scanned(CSVS, Thoroughness(Mode.SAMPLE, 5, seed=3)) for _ in range(2))
    assert (first.rows, first.coverage) == (5, Coverage(Mode.SAMPLE, 5, 20, 3))
    assert first.findings == again.findings
    assert [each.path for each in first.findings] == ["t/*.csv"]


def test_a_treatment_that_a_sample_led_to_reaches_the_objects_it_left_out() -> None:
    report = scanned(CSVS, Thoroughness(Mode.SAMPLE, 1))
    data = {"version": 1, "name": "p", "residency": {"allowed": ["US"]}, "detection": {"mode": "sample", "parts": 1}}
    rules = load_policy(data | {"rules": [{"name": "r", "entities": ["*"], "action": "mask"}]})
    treatment = actions_for(rules, report, destination=TARGET, place=HERE)
    assert isinstance(treatment, Treatment)
    assert all(treatment.columns[0].applies_to(path) for path in CSVS)


def test_row_groups_are_the_parts_of_few_objects() -> None:
    report = scanned({"a.parquet": parquet_bytes(1000, 100)}, Thoroughness(Mode.SAMPLE, 4))
    assert (report.rows, report.coverage.read, report.coverage.parts) == (400, 4, 10)


def test_a_sample_of_everything_misses_nothing() -> None:
    report = scanned({"a.parquet": parquet_bytes(1000, 100)}, Thoroughness(Mode.SAMPLE, 10))
    assert (report.rows, report.coverage.missed_at_most) == (1000, 0.0)


@pytest.mark.parametrize(("read", "bound"), [(1, 0.95), (59, 0.0495), (300, 0.0099), (3000, 0.001)])
def test_the_bound_is_that_of_clopper_and_pearson(read: int, bound: float) -> None:
    assert Coverage(Mode.SAMPLE, read, 10_000).missed_at_most == pytest.approx(bound, abs=5e-5)


@pytest.mark.parametrize("path", ["a.parquet", "a.csv", "a.jsonl"])
def test_names_alone_are_evidence_and_no_value_is_read(path: str) -> None:
    content = {
        "a.parquet": parquet_bytes(10, 10),
        "a.csv": b"x,email\n1,nobody\n",
        "a.jsonl": b'{"x": 1, "email": "nobody"}\n',
    }[path]
    report = scanned({path: content}, Thoroughness(Mode.SCHEMA))
    (finding,) = report.findings
    assert (finding.entity, finding.column, finding.count, finding.share) == ("EMAIL_ADDRESS", "email", 0, 1.0)
    assert "values were not read" in finding.why
    assert (report.rows, report.coverage.missed_at_most) == (0, 1.0)


def test_what_cannot_be_read_does_not_pass_by_its_name_either() -> None:
    assert scanned({"a.parquet": b"PAR1 broken"}, Thoroughness(Mode.SCHEMA)).findings[0].entity == "UNREADABLE"


def test_a_policy_clears_no_less_thorough_scan_than_it_asks_for() -> None:
    sample, names = scanned(CSVS, Thoroughness(Mode.SAMPLE, 5)), scanned(CSVS, Thoroughness(Mode.SCHEMA))
    few, many, schema = policy(mode="sample", parts=5), policy(mode="sample", parts=6), policy(mode="schema")
    cleared = [isinstance(judged(rules, sample), Cleared) for rules in (policy(), many, few, schema)]
    assert cleared == [False, False, True, True]
    assert isinstance(judged(few, names), Refused)
    refused = actions_for(policy(), sample, destination=TARGET, place=HERE)
    assert isinstance(refused, Refused)
    assert "a sample of 5 of 20 parts" in refused.reasons[0]


def test_the_most_thorough_layer_decides() -> None:
    assert policy([policy(mode="sample")], mode="schema").thoroughness.mode is Mode.SAMPLE
    assert policy([policy()], mode="schema").thoroughness.mode is Mode.FULL
    assert policy([policy(mode="sample", parts=50)], mode="sample", parts=20).thoroughness.parts == 50


def test_the_bound_is_part_of_what_is_signed() -> None:
    verdict = judged(policy(mode="sample", parts=5), scanned(CSVS, Thoroughness(Mode.SAMPLE, 5)))
    assert isinstance(verdict, Cleared)
    assert Cleared.from_dict(verdict.as_dict()) == verdict
    forged = Cleared.from_dict(verdict.as_dict() | {"coverage": Coverage(Mode.FULL, 20, 20).as_dict()})
    with pytest.raises(PolicyViolation, match="does not verify"):
        KEY.require(forged, manifest_digest=verdict.manifest_digest, destination=TARGET)


@pytest.mark.parametrize("detection", [{"mode": "some"}, {"mode": "full", "parts": 3}, {"mode": "sample", "parts": 0}])
def test_a_mode_that_means_nothing_does_not_load(detection: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"detection\."):
        policy(**detection)
