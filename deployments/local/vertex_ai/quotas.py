"""Service Usage: the quotas of Vertex AI's training machines, read only.

https://cloud.google.com/service-usage/docs/reference/rest/v1beta1/services.consumerQuotaMetrics/list
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from deployments.local.vertex_ai.errors import invalid

PERMISSION = "serviceusage.quotas.get"
_SERVICE = "aiplatform.googleapis.com"
_PAGE = 2
"""Metrics to a page unless told: few, so that a client which does not turn pages is noticed."""

_LIMITS = {
    "custom_model_training_cpus": ("42", "42"),
    "custom_model_training_nvidia_a100_80gb_gpus": ("0", "0"),
    "custom_model_training_nvidia_h100_gpus": ("0", "8"),
    "online_prediction_requests_per_base_model": ("60", "60"),
    "custom_model_training_tpu_v5e": ("0", "-1"),
}
"""Per metric the limit of any region, and of the double's own; -1 is none."""


def quotas_path(project: str) -> str:
    """Where the quotas of Vertex AI are listed."""
    return f"/v1beta1/projects/{project}/services/{_SERVICE}/consumerQuotaMetrics"


def list_quotas(project: str, region: str, query: Mapping[str, str], *, used_up: bool) -> dict[str, Any]:
    """One page of a `ListConsumerQuotaMetricsResponse`.

    Args:
        project: The project's id.
        region: The region that has limits of its own.
        query: `view`, `pageSize` and `pageToken`.
        used_up: Whether every limit is 0.

    Raises:
        Refused: The query makes no sense.
    """
    for name in query:
        if name not in ("view", "pageSize", "pageToken"):
            raise invalid(
                f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter. Field '
                f"'{name}' could not be found in request message."
            )
    view = query.get("view", "BASIC")
    if view not in ("QUOTA_VIEW_UNSPECIFIED", "BASIC", "FULL"):
        raise invalid(
            f"Invalid value at 'view' (type.googleapis.com/google.api.serviceusage.v1beta1.QuotaView), \"{view}\""
        )
    size, begin = query.get("pageSize", "0"), query.get("pageToken", "0")
    if not size.isdecimal() or not begin.isdecimal() or int(begin) >= len(_LIMITS):
        raise invalid("Request contains an invalid argument.")
    end = int(begin) + (int(size) or _PAGE)
    metrics = [
        _metric(project, name, {"": anywhere, **({region: here} if view == "FULL" else {})}, used_up)
        for name, (anywhere, here) in list(_LIMITS.items())[int(begin) : end]
    ]
    return {"metrics": metrics, **({"nextPageToken": str(end)} if end < len(_LIMITS) else {})}


def _metric(project: str, name: str, limits: Mapping[str, str], used_up: bool) -> dict[str, Any]:
    metric = f"{_SERVICE}/{name}"
    parent = f"projects/{project}/services/{_SERVICE}/consumerQuotaMetrics/{quote(metric, safe='')}"
    buckets = [
        {
            "effectiveLimit": "0" if used_up else limit,
            "defaultLimit": limits[""],
            **({"dimensions": {"region": region}} if region else {}),
        }
        for region, limit in limits.items()
    ]
    limit = {
        "name": f"{parent}/limits/%2Fproject%2Fregion",
        "metric": metric,
        "unit": "1/{project}/{region}",
        "isPrecise": True,
        "quotaBuckets": buckets,
    }
    return {"name": parent, "metric": metric, "displayName": name, "unit": "1", "consumerQuotaLimits": [limit]}
