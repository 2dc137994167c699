"""The registry's webhook: only MLflow's own deliveries are taken, and none that was taken is lost."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature  # pyright: ignore[reportPrivateUsage]

from deployments.registry_events import Inbox, application
from tasks.core.errors import Denied, Invalid
from tasks.core.webhooks import MODEL_ALIAS, MODEL_VERSION, registry_event
from tasks.events import prefect_event

SECRET, NOW = "s" * 32, datetime(2026, 11, 25, 12, tzinfo=UTC)
APPROVED = {"name": "flights-late", "alias": "approved", "version": "3"}


def delivery(
    data: dict[str, Any], entity: str = "model_version_alias", *, delivery_id: str = "d-1", at: datetime = NOW
) -> tuple[bytes, dict[str, str]]:
    """A delivery as MLflow signs it, by MLflow's own function."""
    body = json.dumps({"entity": entity, "action": "created", "timestamp": at.isoformat(), "data": data})
    told_at = str(int(at.timestamp()))
    signature = _generate_hmac_signature(SECRET, delivery_id, told_at, body)
    headers = {
        "x-mlflow-delivery-id": delivery_id,
        "x-mlflow-timestamp": told_at,
        "x-mlflow-signature": signature,
    }
    return body.encode(), headers


def test_a_signed_delivery_is_told_to_prefect_with_what_triggers_match() -> None:
    event = registry_event(*delivery(APPROVED), SECRET, now=NOW)
    told = prefect_event(event)
    assert told is not None
    assert told["event"] == event.type == MODEL_ALIAS
    assert told["resource"]["prefect.resource.id"] == "lintas.model.flights-late"
    assert (told["resource"]["lintas.alias"], told["resource"]["lintas.action"]) == ("approved", "created")
    assert told["payload"] == {"model": "flights-late", "version": "3", "alias": "approved", "action": "created"}
    assert prefect_event(registry_event(*delivery(APPROVED), SECRET, now=NOW)) == told


def test_a_new_version_is_told_too() -> None:
    made = {"name": "flights-late", "version": "4", "source": "models:/m-1", "run_id": None, "tags": {}}
    event = registry_event(*delivery(made, "model_version"), SECRET, now=NOW)
    assert (event.type, event.data["version"], event.data["alias"]) == (MODEL_VERSION, "4", "")


@pytest.mark.parametrize("header", ["x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature"])
def test_whatever_is_altered_the_delivery_is_refused(header: str) -> None:
    body, headers = delivery(APPROVED)
    for altered in (headers | {header: headers[header] + "1"}, {k: v for k, v in headers.items() if k != header}):
        with pytest.raises(Denied, match="signature"):
            registry_event(body, altered, SECRET, now=NOW)
    with pytest.raises(Denied, match="signature"):
        registry_event(body.replace(b"approved", b"champion"), headers, SECRET, now=NOW)
    with pytest.raises(Denied, match="signature"):
        registry_event(body, headers, "another", now=NOW)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_delivery_of_another_time_is_not_played_again(minutes: int) -> None:
    with pytest.raises(Denied, match="too old or from the future"):
        registry_event(*delivery(APPROVED), SECRET, now=NOW + timedelta(minutes=minutes))


def test_a_delivery_id_is_never_a_path() -> None:
    with pytest.raises(Invalid, match="delivery id"):
        registry_event(*delivery(APPROVED, delivery_id="../../x"), SECRET, now=NOW)


def test_what_is_not_known_is_said_to_be() -> None:
    for data, entity in ((APPROVED, "prompt"), ({}, "model_version")):
        with pytest.raises(Invalid, match="tells what Lintas does not know"):
            registry_event(*delivery(data, entity), SECRET, now=NOW)


def test_what_was_taken_outlives_the_process_and_comes_until_it_is_acknowledged(tmp_path: Path) -> None:
    first = registry_event(*delivery(APPROVED), SECRET, now=NOW)
    Inbox(tmp_path).put(first)
    Inbox(tmp_path).put(first)
    inbox = Inbox(tmp_path)
    ((event, receipt),) = inbox.receive(wait_s=0)
    assert [(event, receipt)] == inbox.receive(wait_s=0) == [(first, receipt)]
    inbox.acknowledge(receipt)
    inbox.acknowledge(receipt)
    assert inbox.receive(wait_s=0) == []


def test_the_server_takes_what_mlflow_signed_and_nothing_else(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    body, headers = delivery(APPROVED, at=datetime.now(UTC))

    async def answers() -> list[int]:
        transport = httpx.ASGITransport(application(inbox, SECRET))
        async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as client:
            asked = [
                client.get("/"),
                client.post("/", content=body),
                client.post("/", content=b"x" * (1 << 21), headers=headers),
                client.post("/", content=body, headers=headers),
                client.post("/", content=body, headers=headers),
            ]
            return [(await answer).status_code for answer in asked]

    assert asyncio.run(answers()) == [405, 401, 413, 202, 202]
    assert len(inbox.receive(wait_s=0)) == 1
