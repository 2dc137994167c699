"""What all resources of a workspace have in common: their envelope, and which properties they may have.

The lists of properties are those of the REST API's version 2024-10-01: a request with another one is refused, which the
service itself does not always do, so that a word that was misspelt shows.
https://learn.microsoft.com/rest/api/azureml/
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deployments.local.azure_ml.refusals import Refused

_COMMON = {"description", "properties", "tags"}
KNOWN: Mapping[str, frozenset[str]] = {
    "jobs": frozenset(
        _COMMON
        | {"jobType", "command", "environmentId", "environmentVariables", "inputs", "outputs", "limits", "resources"}
        | {"queueSettings", "computeId", "identity", "displayName", "experimentName", "codeId", "distribution"}
        | {"services", "isArchived", "componentId", "notificationSetting", "status", "parameters"}
    ),
    "models": frozenset(
        _COMMON | {"modelType", "modelUri", "flavors", "jobName", "stage", "isAnonymous", "isArchived"}
    ),
    "environments": frozenset(
        _COMMON
        | {"image", "inferenceConfig", "osType", "condaFile", "build", "autoRebuild", "stage", "isAnonymous"}
        | {"isArchived", "environmentType"}
    ),
    "onlineEndpoints": frozenset(
        {"authMode", "description", "properties", "traffic", "mirrorTraffic", "publicNetworkAccess", "compute", "keys"}
        | {"scoringUri", "swaggerUri", "provisioningState"}
    ),
    "deployments": frozenset(
        {"endpointComputeType", "model", "environmentId", "environmentVariables", "instanceType", "description"}
        | {"properties", "codeConfiguration", "livenessProbe", "readinessProbe", "startupProbe", "requestSettings"}
        | {"scaleSettings", "modelMountPath", "appInsightsEnabled", "egressPublicNetworkAccess", "dataCollector"}
        | {"provisioningState"}
    ),
}


def now() -> str:
    """The time, as the service writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def resource(path: str, kind: str, properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A resource's envelope."""
    stamp = {"createdAt": now(), "createdBy": "lintas", "createdByType": "Application", "lastModifiedAt": now()}
    return {
        "id": path,
        "name": path.rpartition("/")[2],
        "type": f"Microsoft.MachineLearningServices/workspaces/{kind}",
        "properties": dict(properties),
        "systemData": stamp,
        **more,
    }


def properties_of(body: Any, kind: str, *required: str) -> dict[str, Any]:
    """The properties of a request. Raises `Refused` when one is missing or unknown."""
    properties = body.get("properties") if isinstance(body, dict) else None
    if not isinstance(properties, dict):
        raise Refused(400, "ValidationError", "The request's body has no properties.")
    # The SDK sends properties without a value as null.
    given = {name: value for name, value in properties.items() if value is not None}
    for name in required:
        if not given.get(name):
            raise Refused(400, "ValidationError", f"The {name} field is required.")
    stray = sorted(given.keys() - KNOWN[kind])
    if stray:
        raise Refused(400, "ValidationError", f"Could not find member '{stray[0]}' on {kind}.")
    return given
