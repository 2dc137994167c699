"""What is asked of a cluster, and what the twin's answers, fit the schemas that Kubernetes publishes, strictly."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from kubernetes.client.rest import RESTClientObject

from tasks.core.evaluation import model_digest
from tasks.core.release import EndpointSpec
from tasks.providers.coreweave.server import open_server
from tests.compute_clouds import ComputeCloud
from tests.twin.test_kubernetes_api import (
    NAMESPACE,
    cloud,  # noqa: F401 - a fixture
    end_of,
    opened,
    spec_of,
)

VERSION = "1.37"
KINDS = {
    "Job": "apis/batch/v1/namespaces/{}/jobs",
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Pod": "api/v1/namespaces/{}/pods",
    "Service": "api/v1/namespaces/{}/services",
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "Secret": "api/v1/namespaces/{}/secrets",
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every object that the official client puts on the wire."""
    seen: list[dict[str, Any]] = []
    request: Callable[..., Any] = RESTClientObject.request

    def watched(self: Any, method: str, url: str, *rest: Any, **more: Any) -> Any:
        body = more.get("body")
        if isinstance(body, dict) and body.get("kind") in KINDS:
            seen.append(body)
        return request(self, method, url, *rest, **more)

    monkeypatch.setattr(RESTClientObject, "request", watched)
    return seen


def kept(cloud: ComputeCloud, kind: str) -> list[dict[str, Any]]:  # noqa: F811
    """The objects of a kind as the API server answers them."""
    url = f"{cloud.config.endpoint('training')}/{KINDS[kind].format(NAMESPACE)}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(cloud.headers(url, b"")))) as answer:
        whole = json.load(answer)
    return [{"apiVersion": whole["apiVersion"], "kind": kind, **item} for item in whole["items"]]


def test_jobs_and_endpoints_fit_the_published_schemas(
    cloud: ComputeCloud,  # noqa: F811
    sent: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    end_of(opened(cloud), spec_of(tmp_path / "code", "print('done')"))
    (tmp_path / "MLmodel").write_text("signature:\n  inputs: '[]'\n")
    server = open_server(cloud.config)
    server.deploy(EndpointSpec("schemas", "schemas", "1", model_digest(tmp_path), str(tmp_path)))
    try:
        answered = {kind: kept(cloud, kind) for kind in KINDS}
    finally:
        server.delete("schemas")
    assert {each["kind"] for each in sent} >= {"Job", "Deployment", "Service"}
    assert all(answered[kind] for kind in ("Job", "Pod", "Deployment", "Service"))
    for each in [*sent, *(one for found in answered.values() for one in found)]:
        kubernetes_validate.validate(each, VERSION, strict=True)


def test_an_unknown_field_would_be_noticed() -> None:
    pod = {"containers": [{"name": "a", "image": "b"}], "restartPolicy": "Never"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": {"spec": pod}}}
    kubernetes_validate.validate(job, VERSION, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "nope": 1}}, VERSION, strict=True)
