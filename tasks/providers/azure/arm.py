"""An Azure ML workspace over Azure Resource Manager: requests, long-running operations, errors.

Requests go through azure-core's own pipeline (authentication with Entra, retries, redirects); docs/decisions tells why
not through azure-ai-ml. https://learn.microsoft.com/rest/api/azureml/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from azure.core import PipelineClient
from azure.core.exceptions import AzureError, DecodeError, HttpResponseError
from azure.core.pipeline import policies
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest, HttpResponse

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, Retryable, Stockout, Terminal
from tasks.providers._dialects.answers import unreadable
from tasks.providers._dialects.objects import address_of, retry_after_s
from tasks.providers._dialects.patience import request_timeout_s
from tasks.providers.azure.identity import entra_credential

PUBLIC_ARM = "https://management.azure.com"
API_VERSION = "2024-10-01"
ML_SCOPE = "https://ml.azure.com/.default"
"""Audience of the tokens for the workspace's own services: run history and scoring."""

_LONGEST_REASON = 240
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_LACKED = re.compile(r"to perform action '([\w./*-]+)'")
NO_CAPACITY = frozenset(
    {
        "AllocationFailed",
        "AmlComputeQuotaExceeded",
        "InsufficientCapacity",
        "NotEnoughQuota",
        "OutOfCapacity",
        "OutOfQuota",
        "QuotaExceeded",
        "SkuNotAvailable",
        "ZonalAllocationFailed",
    }
)
"""Codes of errors that another offer may not have.

https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints
"""


class Workspace:
    """One Azure ML workspace. Safe to use from several threads.

    Args:
        config: The cloud: options `subscription`, `resource_group`, `workspace`, and Entra credentials.
        role: `training` or `serving`: which endpoint of the configuration, and what errors name.

    Raises:
        Invalid: An option is missing or wrong, or azure-identity is missing.
        Denied: A credential's reference leads nowhere.
    """

    def __init__(self, config: CloudConfig, role: str) -> None:
        base = (config.endpoint_or_public(role) or PUBLIC_ARM).rstrip("/")
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(
                f"clouds.{config.name}.endpoints.{role} is not a URL", "write it as https://HOST, or leave it out"
            )
        if parts.scheme == "http" and parts.hostname not in _THIS_MACHINE:
            raise Invalid(
                f"clouds.{config.name}.endpoints.{role} would carry a token over the network in the clear",
                "write it with https",
            )
        self.cloud, self.role, self.region = config.name, role, config.region
        self.id = (
            f"/subscriptions/{config.option('subscription')}/resourceGroups/{config.option('resource_group')}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{config.option('workspace')}"
        )
        self._base = base
        credential, timeout_s = entra_credential(config), request_timeout_s(config)
        self._arm = _client(base, policies.BearerTokenCredentialPolicy(credential, f"{PUBLIC_ARM}/.default"), timeout_s)
        self._data = _client(base, policies.BearerTokenCredentialPolicy(credential, ML_SCOPE), timeout_s)
        self._plain = _client(base, None, timeout_s)
        self._services: Mapping[str, str] = {}

    def get(self, path: str) -> dict[str, Any]:
        """A resource below the workspace; the empty path is the workspace. NotFound: there is none."""
        return self._json(self._send("GET", self._url(path)), path)

    def told_of(self, resource_id: str, api_version: str) -> dict[str, Any]:
        """What Resource Manager says of anything in the subscription, by its whole id. NotFound: there is none."""
        return self._json(self._send("GET", f"{self._base}{resource_id}?api-version={api_version}"), resource_id)

    def find(self, path: str) -> dict[str, Any] | None:
        """A resource below the workspace, or None."""
        try:
            return self.get(path)
        except NotFound:
            return None

    def list(self, path: str) -> Iterator[dict[str, Any]]:
        """All resources of a collection, page by page."""
        url = self._url(path)
        while url:
            page = self._json(self._send("GET", url), path)
            yield from page.get("value", [])
            url = page.get("nextLink") or ""

    def put(self, path: str, body: Mapping[str, Any]) -> Operation:
        """Create or replace a resource. Long operations go on after this returns; see `failure`."""
        return _operation(self._send("PUT", self._url(path), body))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Operation:
        """Ask a resource for an action."""
        return _operation(self._send("POST", self._url(path), body))

    def delete(self, path: str) -> Operation:
        """Remove a resource; returns silently if it is already gone."""
        try:
            return _operation(self._send("DELETE", self._url(path)))
        except NotFound:
            return ""

    def failure(self, operation: Operation) -> LintasError | None:
        """Why a long-running operation failed; None while it runs, when it succeeded, or when it is forgotten."""
        if not operation:
            return None
        try:
            told = self._json(self._send("GET", operation), "operation")
        except NotFound:
            return None
        if told.get("status") not in ("Failed", "Canceled"):
            return None
        error = told.get("error") or {}
        return self.refusal(str(error.get("code") or told["status"]), str(error.get("message") or ""))

    def refusal(self, code: str, message: str) -> LintasError:
        """What the service's own code and words of a failure mean."""
        reason = one_line(message) or code
        if code in NO_CAPACITY:
            return Stockout(f"'{self.cloud}' has no capacity ({code}): {reason}", "the next offer is tried")
        if code in ("InternalServerError", "ServiceUnavailable", "GatewayTimeout"):
            return Retryable(f"'{self.cloud}' is in trouble ({code})", "try again later")
        return Terminal(f"{reason} ({code})", "read the resource's log in the workspace, mend the cause and try again")

    def service(self, name: str) -> str:
        """URL of one of the workspace's own services (`history`), as its discovery document tells."""
        if not self._services:
            url = str(self.get("")["properties"].get("discoveryUrl", ""))
            answer = self._through(self._plain, HttpRequest("GET", url))
            self._services = self._json(answer, "discovery document")
        if name not in self._services:
            raise Terminal(
                f"the workspace of '{self.cloud}' has no service '{name}'", "check the workspace in the portal"
            )
        return str(self._services[name]).rstrip("/")

    def run_details(self, run_id: str) -> dict[str, Any]:
        """What the run history says of a job: times, error, and where its logs are."""
        url = f"{self.service('history')}/history/v1.0{self.id}/runs/{quote(run_id, safe='')}/details"
        return self._json(self._through(self._data, HttpRequest("GET", url)), "run")

    def fetch(self, url: str, *, start: int) -> bytes:
        """The bytes from `start` on behind a URL that carries its own permission (a log's); empty at its end."""
        answer = self._through(self._plain, HttpRequest("GET", url, headers={"Range": f"bytes={start}-"}), (416,))
        if answer.status_code == 416:
            return b""
        return answer.read() if answer.status_code == 206 else answer.read()[start:]

    def score(self, url: str, payload: bytes) -> HttpResponse:
        """Send a request to an online endpoint; answers that blame the model (424) or find none (404) come back."""
        request = HttpRequest("POST", url, content=payload, headers={"content-type": "application/json"})
        return self._through(self._data, request, (404, 424))

    def unreachable(self) -> Retryable:
        """Nothing answers at the endpoint."""
        return Retryable(
            f"'{self.cloud}' at {address_of(self._base)} does not answer",
            f"check that it is up and that clouds.{self.cloud}.endpoints.{self.role} is right",
        )

    def _url(self, path: str) -> str:
        return f"{self._base}{self.id}{'/' if path else ''}{path}?api-version={API_VERSION}"

    def _send(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> HttpResponse:
        return self._through(self._arm, HttpRequest(method, url, json=None if body is None else dict(body)))

    def _through(
        self, client: PipelineClient[Any, Any], request: HttpRequest, accepted: tuple[int, ...] = ()
    ) -> HttpResponse:
        """Send a request; what is not a success nor `accepted` becomes an error."""
        # The local twin has no TLS; a token never travels in the clear to anywhere else.
        clear = urlsplit(request.url).hostname in _THIS_MACHINE
        try:
            answer = client.send_request(request, **({} if client is self._plain else {"enforce_https": not clear}))
            if answer.status_code >= 400 and answer.status_code not in accepted:
                raise HttpResponseError(response=answer)
        except AzureError as error:
            raise self._translated(error) from error
        return answer

    def _json(self, answer: HttpResponse, path: str) -> dict[str, Any]:
        try:
            told = answer.json()
        except (ValueError, DecodeError) as error:
            if "json" in str(answer.headers.get("content-type", "")):
                raise unreadable(self.cloud) from error
            raise self._not_understood(path) from error
        if not isinstance(told, dict):
            raise self._not_understood(path)
        return told

    def _not_understood(self, what: str) -> Terminal:
        return Terminal(
            f"what '{self.cloud}' at {address_of(self._base)} answers for '{what}' is not Azure ML's",
            f"correct clouds.{self.cloud}.endpoints.{self.role}",
        )

    def _translated(self, error: AzureError) -> LintasError:
        if not isinstance(error, HttpResponseError) or error.response is None:
            if "AuthenticationError" in type(error).__name__ or "CredentialUnavailable" in type(error).__name__:
                return self._denied("the credentials are refused by Microsoft Entra")
            return self.unreachable()
        status, code, message = int(error.status_code or 0), _code(error), _message(error)
        match status:
            case 401:
                return self._denied("the service refuses the token")
            case 403:
                lacked = _LACKED.search(message)
                return self._denied(f"the permission {lacked.group(1)} is lacking" if lacked else "it is forbidden")
            case 404:
                return NotFound(f"'{self.cloud}': {one_line(message) or 'there is no such resource'}", "check its name")
            case 429 if code not in NO_CAPACITY:
                return Retryable(
                    f"'{self.cloud}' throttles its requests",
                    "try again later",
                    retry_after_s=retry_after_s(getattr(error.response, "headers", None)),
                )
            case 408 | 409 if code not in NO_CAPACITY:
                return Retryable(f"'{self.cloud}' is busy with this very resource ({code or status})", "try again")
            case _ if status >= 500 and status != 501:
                return Retryable(f"'{self.cloud}' is in trouble (HTTP {status})", "try again later")
            case _ if code in NO_CAPACITY:
                return self.refusal(code, message)
            case _ if status in (400, 413, 415, 422):
                return Invalid(f"'{self.cloud}' refuses the request ({code}): {one_line(message)}", "correct it")
            case _:
                return Terminal(f"'{self.cloud}' answers HTTP {status} ({code or 'no code'})", "see its activity log")

    def _denied(self, why: str) -> Denied:
        return Denied(
            f"'{self.cloud}' denies: {why}",
            f"check clouds.{self.cloud}.credentials in lintas.yaml and the roles of that identity",
        )


Operation = str
"""Where the state of a long-running operation is told; empty when there is nothing to wait for."""


def one_line(text: str) -> str:
    """The first words of a service's message, without line breaks and final stop."""
    return " ".join(text.split())[:_LONGEST_REASON].rstrip(". ")


def _client(
    base: str, authentication: policies.BearerTokenCredentialPolicy[Any, Any] | None, timeout_s: float
) -> PipelineClient[Any, Any]:
    chain = [
        policies.RequestIdPolicy(),
        policies.UserAgentPolicy(base_user_agent="lintas"),
        policies.RetryPolicy(retry_total=2, retry_backoff_factor=0.3, retry_backoff_max=5),
        *([authentication] if authentication is not None else []),
    ]
    return PipelineClient(
        base, policies=chain, transport=RequestsTransport(connection_timeout=10, read_timeout=timeout_s)
    )


def _operation(answer: HttpResponse) -> Operation:
    """https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations."""
    return str(answer.headers.get("azure-asyncoperation", ""))


def _code(error: HttpResponseError) -> str:
    return str(getattr(error.error, "code", None) or "")


def _message(error: HttpResponseError) -> str:
    return str(getattr(error.error, "message", None) or "")
