"""The `Server` port on premises: a client of the scoring host (`scoring_host.py` documents its requests)."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

import httpx

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Denied, IntegrityError, Invalid, LintasError, NotFound, Retryable, Terminal
from tasks.core.release import Endpoint, EndpointSpec

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
_MODEL_MISSING = 409


def open_server(cloud: CloudConfig) -> OnPremServer:
    """The server of a cloud: `endpoints.serving` is the scoring host's URL, `credentials.token` its token, if any."""
    token = cloud.credentials["token"].reveal() if "token" in cloud.credentials else None
    return OnPremServer(cloud.name, cloud.endpoint("serving"), token)


class OnPremServer:
    """Serves models on one scoring host. Safe to use from several threads.

    Args:
        cloud: The cloud's name, for endpoints and messages.
        url: The scoring host's URL.
        token: What its requests must bear, or None.

    Raises:
        Invalid: The URL is none.
    """

    def __init__(self, cloud: str, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"clouds.{cloud}.endpoints.serving is not a URL", "write it as http://HOST:PORT")
        self._cloud, self._place = cloud, parts.netloc.rpartition("@")[2]
        self._url = url.rstrip("/")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # The environment's proxies are for the outside world; an on-premises host is not there.
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT, trust_env=False)

    def deploy(self, spec: EndpointSpec) -> Endpoint:
        """See `Server.deploy`. The model travels only when the host does not have it.

        Raises:
            IntegrityError: The files at `model_path` are not those of the spec's digest.
            Invalid: The host does not take a model of this size, or the path is no model.
            Retryable: The host does not answer, or lost the model again meanwhile.
        """
        wanted = {"model": spec.model, "version": spec.version, "digest": spec.digest}
        answer = self._request("PUT", self._path(spec.name), json=wanted)
        if answer.status_code == _MODEL_MISSING:
            self._upload(spec)
            answer = self._request("PUT", self._path(spec.name), json=wanted)
        if answer.status_code == _MODEL_MISSING:
            raise Retryable(f"the scoring host of '{self._cloud}' dropped the model of '{spec.name}'", "deploy again")
        return self._endpoint(spec.name, self._facts(answer))

    def describe(self, name: str) -> Endpoint | None:
        """See `Server.describe`."""
        answer = self._request("GET", self._path(name), missing_is_fine=True)
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._endpoint(name, self._facts(answer))

    def predict(self, name: str, payload: bytes) -> bytes:
        """See `Server.predict`.

        Raises:
            NotFound: There is no such endpoint.
            Invalid: The request does not fit the model's signature; the message names columns and types, no values.
            Retryable: The endpoint has no scoring process at the moment.
        """
        headers = {"content-type": "application/json"}
        return self._request("POST", f"{self._path(name)}/invocations", content=payload, headers=headers).content

    def delete(self, name: str) -> None:
        """See `Server.delete`."""
        self._request("DELETE", self._path(name))

    def _path(self, name: str) -> str:
        return f"/endpoints/{quote(name, safe='')}"

    def _endpoint(self, name: str, facts: dict[str, Any]) -> Endpoint:
        served = facts["served"] or {"digest": "", "version": ""}
        return Endpoint(
            cloud=self._cloud,
            name=name,
            url=f"{self._url}{self._path(name)}/invocations",
            weight=0,
            digest=served["digest"],
            version=served["version"],
            healthy=facts["healthy"],
            detail=facts["detail"],
        )

    def _facts(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            facts = answer.json()
            if facts.keys() >= {"served", "healthy", "detail"}:
                return facts
        except (ValueError, AttributeError):
            pass
        raise Terminal(
            f"what answers at {self._place} is not a scoring host", f"correct clouds.{self._cloud}.endpoints.serving"
        )

    def _upload(self, spec: EndpointSpec) -> None:
        directory = Path(spec.model_path)
        if not (directory / "MLmodel").is_file():
            raise Invalid(f"'{directory}' holds no MLflow model", "give the directory that has the file MLmodel")
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
                tar.add(directory, arcname=".", filter=_plain)
            size_bytes = archive.tell()
            archive.seek(0)
            self._request(
                "PUT",
                f"/models/{spec.digest}",
                content=archive,
                headers={"content-type": "application/x-tar", "content-length": str(size_bytes)},
                timeout=_UPLOAD_TIMEOUT,
            )

    def _request(
        self,
        method: str,
        path: str,
        *,
        json: dict[str, str] | None = None,
        content: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
        missing_is_fine: bool = False,
    ) -> httpx.Response:
        """Send a request; every answer that is an error becomes one, but a missing model and a permitted 404."""
        try:
            answer = self._client.request(
                method, self._url + path, json=json, content=content, headers=headers, timeout=timeout
            )
        except httpx.TimeoutException as error:
            raise Retryable(
                f"the scoring host of '{self._cloud}' at {self._place} is too slow", "see its load"
            ) from error
        except httpx.HTTPError as error:
            raise Retryable(
                f"the scoring host of '{self._cloud}' at {self._place} does not answer",
                f"start it, or correct clouds.{self._cloud}.endpoints.serving",
            ) from error
        fine = answer.is_success or answer.status_code == _MODEL_MISSING
        if fine or (missing_is_fine and answer.status_code == httpx.codes.NOT_FOUND):
            return answer
        raise self._translated(answer)

    def _translated(self, answer: httpx.Response) -> LintasError:
        reason = _reason(answer)
        match answer.status_code:
            case 400 | 413 | 415:
                return Invalid(f"'{self._cloud}' refuses the request: {reason}", "correct the request")
            case 401 | 403:
                return Denied(
                    f"the scoring host of '{self._cloud}' refuses the token",
                    f"correct clouds.{self._cloud}.credentials.token",
                )
            case 404:
                return NotFound(f"'{self._cloud}': {reason}", "promote the model to this cloud first")
            case 422:
                return IntegrityError(f"'{self._cloud}': {reason}", "download the model again, then deploy it")
            case 503 | 504:
                return Retryable(f"'{self._cloud}': {reason}", "try again", retry_after_s=_retry_after_s(answer))
            case 507:
                return Terminal(f"'{self._cloud}': {reason}", "mend the disk of the scoring host")
            case status:
                return Terminal(f"the scoring host of '{self._cloud}' answers {status}: {reason}", "see its log")


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Who owns a file and when it was made is no part of a model."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return "it gives no reason"


def _retry_after_s(answer: httpx.Response) -> float | None:
    try:
        return float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        return None
