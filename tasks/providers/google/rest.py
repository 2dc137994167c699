"""Google's APIs over REST: requests, long-running operations, and what their refusals mean.

By google-auth's session and not by a client library an API, for the reasons in docs/decisions/0010-vertex-rest.md.
https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import requests
from google.auth import exceptions as auth
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, Retryable, Stockout, Terminal
from tasks.providers._dialects.objects import address_of, retry_after_s
from tasks.providers._dialects.patience import request_timeout_s
from tasks.providers.google.identity import google_credentials

Json = dict[str, Any]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_CONNECT_TIMEOUT_S = 10.0
_CONNECTIONS = 32
_FIRST_POLL_S, _LONGEST_POLL_S = 0.02, 0.5

# google.rpc.Code, by number and by name.
_CODES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip
_BY_HTTP = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 408: "UNAVAILABLE",
    409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 501: "UNIMPLEMENTED",
}  # fmt: skip
_BUSY = ("UNAVAILABLE", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED", "UNKNOWN")
_QUOTA = re.compile(r"quota metrics exceed quota limits:?\s*([\w./-]+(?:\s*,\s*[\w./-]+)*)?")
_NO_CAPACITY = re.compile(
    r"[Rr]esources are insufficient|ZONE_RESOURCE_POOL_EXHAUSTED"
    r"|temporarily unavailable, please deploy with a different"
)
_PERMISSION = re.compile(r"[Pp]ermission '([\w.]+)' denied")
_DISABLED = "has not been used in project"
_FIELDS = re.compile(r"Field: ([\w.\[\]]+)|Unknown name \"(\w+)\"|Invalid value at '([\w.\[\]]+)'")


class Unanswered(Retryable):
    """There was no answer that can be read, so that nobody knows whether the request was carried out."""


class Exists(Retryable):
    """What was to be made is there already, by somebody else's hand a moment ago: look again."""


class Rest:
    """One API. Safe to use from several threads.

    Args:
        config: The cloud; `endpoints.ROLE` is another address.
        role: Whose endpoint it is.
        public: The API's public address.
        service: The service's name for people.
        api: Its name for `gcloud services enable`.

    Raises:
        Invalid: `options.request_timeout_s` is wrong, or the endpoint is missing (see `CloudConfig`).
        Denied: There are no credentials.
    """

    def __init__(self, config: CloudConfig, role: str, *, public: str, service: str, api: str) -> None:
        self.cloud = config.name
        self.url = (config.endpoint_or_public(role) or public).rstrip("/")
        self._role, self._timeout_s, self._service, self._api = role, request_timeout_s(config), service, api
        try:
            self._session = AuthorizedSession(google_credentials(config, _SCOPES))
        except auth.DefaultCredentialsError as error:
            raise Denied(
                f"{config.name} has no credentials", f"set clouds.{config.name}.credentials in lintas.yaml"
            ) from error
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS))

    def get(self, name: str, what: str, **query: str) -> Json:
        """A resource or an operation by its name. Raises `NotFound` saying that there is no `what`."""
        return self.read(self.send("GET", f"{self.url}/v1/{name}", what, params=query))

    def find(self, name: str, what: str) -> Json | None:
        """The same, or None when there is none."""
        try:
            return self.get(name, what)
        except NotFound:
            return None

    def post(self, path: str, body: Json, what: str, **query: str) -> Json:
        """Call a method (`.../endpoints/NAME:deployModel`) or create in a collection; errors speak of `what`."""
        return self.read(self.send("POST", f"{self.url}/v1/{path}", what, json=body, params=query))

    def patch(self, name: str, body: Json, mask: str, what: str) -> Json:
        """Change the fields of a resource that the mask names."""
        return self.read(self.send("PATCH", f"{self.url}/v1/{name}", what, json=body, params={"updateMask": mask}))

    def delete(self, name: str, what: str, **query: str) -> Json:
        """Delete a resource; returns the operation, where there is one."""
        return self.read(self.send("DELETE", f"{self.url}/v1/{name}", what, params=query))

    def listed(self, path: str, key: str, what: str, **query: str) -> Iterator[Json]:
        """Everything in a collection, page by page."""
        token = ""
        while True:
            page = self.read(self.send("GET", f"{self.url}/v1/{path}", what, params={**query, **page_token(token)}))
            yield from page.get(key, ())
            token = page.get("nextPageToken", "")
            if not token:
                return

    def wait(self, operation: Json, what: str, timeout_s: float) -> Json:
        """Wait for a long-running operation; returns its response.

        Raises:
            Retryable: It is not done after `timeout_s` seconds; it goes on.
            LintasError: It failed.
        """
        operation = self.finished(operation, what, timeout_s)
        if "error" in operation:
            raise self.meaning(operation["error"], what)
        return operation.get("response", {})

    def finished(self, operation: Json, what: str, timeout_s: float) -> Json:
        """The operation once it is done, well or not. Raises `Retryable` when it is not after `timeout_s` seconds."""
        deadline, pause_s = time.monotonic() + timeout_s, _FIRST_POLL_S
        while not operation.get("done"):
            if time.monotonic() > deadline:
                raise Retryable(f"'{self.cloud}' still works on {what} after {timeout_s:.0f} s", "try again")
            time.sleep(pause_s)
            pause_s = min(_LONGEST_POLL_S, 2 * pause_s)
            operation = self.get(operation["name"], f"operation on {what}")
        return operation

    def meaning(self, status: Mapping[str, Any], what: str) -> LintasError:
        """The error of `tasks.core.errors` for a `google.rpc.Status`, as operations and jobs bear it."""
        return self._translated(_CODES.get(int(status.get("code", 0)), "UNKNOWN"), str(status.get("message", "")), what)

    def send(
        self,
        method: str,
        url: str,
        what: str,
        *,
        json: Json | None = None,
        data: bytes | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        accept: Callable[[requests.Response], bool] = lambda answer: answer.ok,
    ) -> requests.Response:
        """Send a request.

        Args:
            method, url: Where to.
            what: The thing that it is about, for errors.
            json, data: The body.
            params: The query.
            timeout_s: Seconds without a sign of life after which the call fails; the cloud's own by default.
            accept: Which answers are none to be translated.

        Raises:
            LintasError: What the refusal means, or Retryable when there was no answer.
        """
        headers = {"content-type": "application/json"} if data is not None else None
        try:
            answer = self._session.request(
                method,
                url,
                params=params,
                json=json,
                data=data,
                headers=headers,
                timeout=cast("Any", (_CONNECT_TIMEOUT_S, timeout_s or self._timeout_s)),
                allow_redirects=False,
            )
        except auth.TransportError as error:
            raise self._unreachable(url) from error
        except auth.GoogleAuthError as error:
            raise self._denied(what) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise Invalid(
                f"clouds.{self.cloud}.endpoints.{self._role} is not a URL", "write it as https://HOST"
            ) from error
        except requests.Timeout as error:
            raise Unanswered(f"'{self.cloud}' at {address_of(url)} is too slow", "try again") from error
        except requests.RequestException as error:
            raise self._unreachable(url) from error
        if accept(answer):
            return answer
        raise self._refusal(answer, what)

    def read(self, answer: requests.Response) -> Json:
        """The JSON object of an answer. Raises `Unanswered` when it cannot be read."""
        try:
            body = answer.json()
        except ValueError as error:
            raise Unanswered(f"'{self.cloud}' gave an answer that cannot be read", "try again") from error
        return cast("Json", body) if isinstance(body, dict) else {}

    def _refusal(self, answer: requests.Response, what: str) -> LintasError:
        try:
            told = answer.json()["error"]
            status, message = str(told["status"]), str(told["message"])
        except (ValueError, KeyError, TypeError):
            status, message = "", ""
        if answer.status_code >= 500 and answer.status_code != 501:
            # Whatever the body says: a proxy on the way may have written it.
            status = "UNAVAILABLE"
        status = status or _BY_HTTP.get(answer.status_code, f"HTTP {answer.status_code}")
        return self._translated(status, message, what, retry_after_s(answer.headers))

    def _translated(self, status: str, message: str, what: str, wait_s: float | None = None) -> LintasError:
        """By the status, and where that means two things by the words; the words themselves may quote anything."""
        if _NO_CAPACITY.search(message):
            return Stockout(f"'{self.cloud}' has no machine for {what} in this region now", "try another offer")
        match status:
            case "RESOURCE_EXHAUSTED" if (quota := _QUOTA.search(message)) is not None:
                named = f" ({quota[1]})" if quota[1] else ""
                return Stockout(
                    f"the quota of '{self.cloud}' has no room for {what}{named}", "ask Google for more of it"
                )
            case "RESOURCE_EXHAUSTED":
                return Retryable(f"'{self.cloud}' gets too many requests", "try again later", retry_after_s=wait_s)
            case "UNAUTHENTICATED":
                return self._denied(what)
            case "PERMISSION_DENIED" if _DISABLED in message:
                return Denied(f"{self._service} is not enabled for '{self.cloud}'", f"enable {self._api}")
            case "PERMISSION_DENIED":
                lacking = _PERMISSION.search(message)
                named = f"the permission '{lacking[1]}'" if lacking else f"a permission of {self._service}"
                return Denied(f"the account of '{self.cloud}' lacks {named} for {what}", "grant it to the account")
            case "NOT_FOUND":
                return NotFound(f"there is no {what} on '{self.cloud}'", "correct its name, or create it first")
            case "INVALID_ARGUMENT" | "OUT_OF_RANGE":
                fields = ", ".join(next(filter(None, found)) for found in _FIELDS.findall(message))
                named = f": {fields}" if fields else ""
                return Invalid(f"'{self.cloud}' rejects {what}{named}", "correct the spec or the cloud's options")
            case "FAILED_PRECONDITION":
                return Terminal(f"'{self.cloud}' cannot do this to {what} as it stands", "look at it in the console")
            case "ALREADY_EXISTS":
                return Exists(f"{what} exists on '{self.cloud}' already", "try again: it may be of use as it is")
            case _ if status in _BUSY:
                return Retryable(f"'{self.cloud}' could not answer for {what} now", "try again", retry_after_s=wait_s)
            case _:
                return Terminal(
                    f"'{self.cloud}' answered for {what} in a way that is not understood ({status})",
                    "look at its status page and logs",
                )

    def _denied(self, what: str) -> Denied:
        return Denied(
            f"'{self.cloud}' refuses the token for {what}",
            f"check clouds.{self.cloud}.credentials in lintas.yaml",
        )

    def _unreachable(self, url: str) -> Unanswered:
        return Unanswered(
            f"'{self.cloud}' at {address_of(url)} does not answer",
            f"check that it is up and that clouds.{self.cloud}.endpoints.{self._role} is right",
        )


def page_token(token: str) -> dict[str, str]:
    """The query or body field that asks for a collection's next page."""
    return {"pageToken": token} if token else {}
