"""The model registry's webhooks: whether a delivery is the registry's own, and what it tells.

MLflow signs as Standard Webhooks does: HMAC-SHA256 with the webhook's secret over `delivery id.timestamp.body`, in
base64 after `v1,`. Source: MLflow documentation, "Webhooks" (signature verification), read 25 November 2026.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tasks.core.errors import Denied, Invalid
from tasks.core.ports import CloudEvent

MODEL_VERSION = "lintas.model.version"
"""Type of the event that says that a version was registered."""

MODEL_ALIAS = "lintas.model.alias"
"""Type of the event that says that a version got an alias, or that an alias was taken away."""

SUBSCRIBED = (("MODEL_VERSION", "CREATED"), ("MODEL_VERSION_ALIAS", "CREATED"), ("MODEL_VERSION_ALIAS", "DELETED"))
"""Entities and actions of MLflow's registry that are told."""

_TYPES = {"model_version": MODEL_VERSION, "model_version_alias": MODEL_ALIAS}
_TOLERANCE_S = 300
_DELIVERY = re.compile(r"[0-9A-Za-z-]{1,64}")


def registry_event(body: bytes, headers: Mapping[str, str], secret: str, *, now: datetime) -> CloudEvent:
    """What a delivery tells.

    Args:
        body: As it came.
        headers: By name in small letters.
        secret: The webhook's.
        now: Timezone-aware; a delivery five minutes older or younger is not taken, so that none can be played again
            later. Within them its id is that of the event, which starts one run however often it comes.

    Raises:
        Denied: The signature or the time is wrong; answer 401 and change nothing.
        Invalid: It is the registry's, but tells nothing that Lintas knows; answer 400.
    """
    delivery, told_at = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
    signed = b".".join((delivery.encode(), told_at.encode(), body))
    expected = "v1," + base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()
    if not hmac.compare_digest(expected.encode(), headers.get("x-mlflow-signature", "").encode()):
        raise Denied("the signature of a registry webhook is wrong", "give MLflow's webhook the secret of lintas.yaml")
    if not told_at.isdecimal() or abs(now.timestamp() - int(told_at)) > _TOLERANCE_S:
        raise Denied("a registry webhook is too old or from the future", "set the clocks of both machines")
    if not _DELIVERY.fullmatch(delivery):
        raise Invalid("a registry webhook has no delivery id", "use MLflow 3.3 or newer")
    try:
        told: dict[str, Any] = json.loads(body)
        kind, action, data = _TYPES[told["entity"]], str(told["action"]), told["data"]
        facts = {
            "model": str(data["name"]),
            "version": str(data.get("version", "")),
            "alias": str(data.get("alias", "")),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(
            "a registry webhook tells what Lintas does not know", "subscribe to versions and aliases"
        ) from error
    time = datetime.fromtimestamp(int(told_at), UTC)
    return CloudEvent(delivery, kind, "mlflow", facts["model"], time, {**facts, "action": action})
