"""From a cloud's event to a Prefect event."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from tasks.core.events import landed_dataset
from tasks.core.ports import CloudEvent
from tasks.events import prefect_event


def created(key: str, identity: str = "1", kind: str = "lintas.object.created") -> CloudEvent:
    return CloudEvent(identity, kind, "aws://raw", key, datetime(2026, 11, 23, tzinfo=UTC))


@pytest.mark.parametrize(
    ("key", "dataset"),
    [
        ("flights/_SUCCESS", "aws://raw/flights"),
        ("a/b/_SUCCESS", "aws://raw/a/b"),
        ("_SUCCESS", "aws://raw"),
        ("flights/.lintas/manifest.jsonl", "aws://raw/flights"),
        ("flights/part-0.parquet", None),
        ("flights/not_SUCCESS", None),
    ],
)
def test_only_a_marker_completes_a_dataset(key: str, dataset: str | None) -> None:
    found = landed_dataset(created(key))
    assert (None if found is None else str(found)) == dataset


def test_other_kinds_of_events_complete_nothing() -> None:
    assert landed_dataset(created("flights/_SUCCESS", kind="lintas.object.removed")) is None
    assert landed_dataset(created(".lintas/pulls/0f/flights/_SUCCESS")) is None


def test_the_same_source_id_gives_the_same_event_and_labels_carry_what_triggers_match() -> None:
    event = created("flights/_SUCCESS")
    first, second = prefect_event(event), prefect_event(event)
    assert first is not None
    assert first == second
    assert uuid.UUID(first["id"])
    assert first["resource"]["lintas.bucket"] == first["payload"]["bucket"] == "raw"
    other = prefect_event(created("flights/_SUCCESS", "2"))
    assert other is not None
    assert other["id"] != first["id"]


def test_of_an_object_that_completes_nothing_prefect_is_told_nothing() -> None:
    assert prefect_event(created("flights/part-0.parquet")) is None
