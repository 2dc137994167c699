"""Events: what happens in the clouds, told to Prefect, where triggers start flows."""

from __future__ import annotations

import uuid
from typing import Any

from tasks.core.errors import Denied, Invalid, LintasError, Retryable, Terminal
from tasks.core.events import landed_dataset
from tasks.core.ports import CloudEvent
from tasks.core.webhooks import MODEL_ALIAS, MODEL_VERSION

LANDED = "lintas.dataset.landed"
"""Name of the Prefect event that says a dataset is complete."""

_NAMESPACE = uuid.UUID("6f0f2d4e-4f6b-5f0e-9c39-0c9b6a1f7d11")


def prefect_event(event: CloudEvent) -> dict[str, Any] | None:
    """What Prefect is told of an event, in the form of its `POST /api/events`; None when there is nothing to tell.

    Triggers filter on the resource's labels, not on the payload, so what people filter by stands in both. The id
    follows from the source's own: a delivery that comes twice starts one run.

    Raises:
        Invalid: The event means something that cannot be; set it aside.
    """
    if event.type in (MODEL_VERSION, MODEL_ALIAS):
        told, kind, name, facts = event.type, "model", event.subject, dict(event.data)
    elif (dataset := landed_dataset(event)) is not None:
        told, kind, name = LANDED, "dataset", str(dataset)
        facts = {"uri": name, "cloud": dataset.cloud, "bucket": dataset.bucket, "prefix": dataset.prefix}
    else:
        return None
    resource = {"prefect.resource.id": f"lintas.{kind}.{name}", "prefect.resource.name": name}
    return {
        "id": str(uuid.uuid5(_NAMESPACE, f"{event.source} {event.id}")),
        "occurred": event.time.isoformat(),
        "event": told,
        "resource": resource | {f"lintas.{fact}": value for fact, value in facts.items()},
        "payload": facts,
    }


def emit(events: list[dict[str, Any]], *, prefect_api_url: str, auth: str | None = None) -> None:
    """Hand events to the Prefect server.

    Args:
        events: In the form that `prefect_event` gives.
        prefect_api_url: Ends in `/api`.
        auth: `user:password` of a server that asks for it (`PREFECT_SERVER_API_AUTH_STRING`).

    Raises:
        Retryable: The server did not take them; do not acknowledge, hand them over again.
        Denied: The server wants other credentials.
        Invalid: It does not accept one of the events; set that one aside.
        Terminal: It answers as no Prefect server does.
    """
    import httpx

    basic = httpx.BasicAuth(*auth.split(":", 1)) if auth and ":" in auth else None
    try:
        answer = httpx.post(f"{prefect_api_url}/events", json=events, auth=basic, timeout=10)
    except httpx.HTTPError as error:
        raise _unreachable(prefect_api_url) from error
    if answer.status_code in (401, 403):
        raise Denied(f"Prefect at {prefect_api_url} refused the event", "set PREFECT_API_AUTH_STRING for the bridge")
    if answer.status_code >= 500 or answer.status_code == 429:
        raise _unreachable(prefect_api_url)
    if answer.status_code in (400, 413, 422):
        raise Invalid(f"Prefect does not accept an event ({answer.status_code})", "check its version")
    if answer.status_code >= 400:
        raise Terminal(
            f"Prefect at {prefect_api_url} answers {answer.status_code}",
            "correct services.prefect_api_url: it ends in /api",
        )


def _unreachable(url: str) -> LintasError:
    return Retryable(f"Prefect at {url} does not take events", "start it: 'lintas status' shows what runs")
