"""The demo's policy on the demo's columns: as they are at home, treated elsewhere, and nowhere unread."""

from __future__ import annotations

import importlib.util
import io
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.entities import ENTITIES, Group
from tasks.core.detectors.scan import scan
from tasks.core.findings import ScanReport
from tasks.core.listing import read_manifest
from tasks.core.manifest import Manifest
from tasks.core.policy import EXPECTATIONS, PROFILE_COLUMNS, Place
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Action, Cleared, Policy, Refused, Treatment, VerdictKey, actions_for, decide
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.transform import apply_treatment
from tasks.expectations import check_expectations
from tests.memory_store import MemoryStore

SOURCE = DatasetURI("aws", "raw", "flights")
STAGED = DatasetURI("aws", "raw", "staged/flights")
TARGET = DatasetURI("google", "lake", "flights")
PERSONAL = {"contact_email", "contact_phone", "payment_card", "national_id", "lead_passenger"}
POLICIES = Path(__file__).parents[2] / "examples" / "policies"


@cache
def policy() -> Policy:
    return load_policy(yaml.safe_load((POLICIES / "flights.yaml").read_text()), "flights.yaml")


@cache
def flights() -> tuple[MemoryStore, Manifest, ScanReport]:
    path = Path(__file__).parents[2] / "examples" / "flights" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare", path)
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    store = MemoryStore("aws", "raw")
    made = prepare.plant_personal_columns(prepare.flights(6000), 7)
    for month in (1, 2, 3):
        sink = io.BytesIO()
        rows = made.iloc[month - 1 :: 3]
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), sink)
        store.put(SOURCE.key(f"month=0{month}.parquet"), [sink.getvalue()], size_bytes=sink.tell())
    manifest = read_manifest(store, SOURCE)
    return store, manifest, scan(store, SOURCE, manifest)


def test_every_example_policy_loads() -> None:
    for path in POLICIES.glob("*.yaml"):
        assert load_policy(yaml.safe_load(path.read_text()), path.name).digest


def test_the_planted_columns_are_found_and_no_others() -> None:
    _, _, report = flights()
    assert {finding.column for finding in report.findings if finding.confidence >= 0.5} == PERSONAL


def test_at_home_the_flights_are_cleared_as_they_are() -> None:
    _, _, report = flights()
    answer = actions_for(policy(), report, destination=SOURCE, place=Place("aws", "US"))
    assert isinstance(answer, Treatment)
    assert answer.empty


@pytest.mark.parametrize("jurisdiction", ["EU", "SG", "ID"])
def test_abroad_they_are_cleared_after_treatment(jurisdiction: str) -> None:
    store, manifest, report = flights()
    treatment = actions_for(policy(), report, destination=TARGET, place=Place("google", jurisdiction))
    assert isinstance(treatment, Treatment)
    assert {column.column: column.action for column in treatment.columns} == {
        "contact_email": Action.TOKENISE,
        "national_id": Action.TOKENISE,
        "contact_phone": Action.MASK,
        "payment_card": Action.DROP,
        "lead_passenger": Action.REPLACE,
    }
    copied = apply_treatment(store, SOURCE, manifest, treatment, PseudonymKey("p", bytes(32)), store, STAGED)
    again = scan(store, STAGED, copied)
    verdict = decide(
        policy(),
        again,
        manifest_digest=copied.digest,
        source_digest=manifest.digest,
        destination=TARGET,
        place=Place("google", jurisdiction),
        key=VerdictKey("k", bytes(32)),
        now=datetime.now(UTC),
        objects=len(copied),
        expectations=check_expectations(policy(), again, place=Place(TARGET.cloud, jurisdiction)),
    )
    assert isinstance(verdict, Cleared), verdict


def test_where_no_data_may_be_it_is_refused() -> None:
    _, _, report = flights()
    answer = actions_for(policy(), report, destination=TARGET, place=Place("google", "CN"))
    assert isinstance(answer, Refused)
    assert "residency.allowed" in answer.reasons[0]


def test_the_documentation_names_every_entity_action_and_expectation() -> None:
    text = (POLICIES.parents[1] / "docs" / "policy.md").read_text()
    for word in [*ENTITIES, *Action, *EXPECTATIONS, *PROFILE_COLUMNS, *Group]:
        assert word in text, word
