"""The Kubernetes dialect: one cluster's API over the official client, objects as they travel (JSON), errors as ours.

Manifests are checked against the client's models, which are generated from Kubernetes' own OpenAPI description, before
they are sent. Answers are read as JSON: a field that a newer server adds or leaves out is then no error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException, OpenApiException
from pydantic import ValidationError

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, PreconditionFailed, Retryable, Stockout, Terminal
from tasks.providers._dialects.answers import unreadable, whole
from tasks.providers._dialects.patience import request_timeout_s

Json = dict[str, Any]

_CONNECT_TIMEOUT_S = 5.0
# The status of an object is written by its controller all the time, and counts as a change.
_TRIES = 8
_APIS: Mapping[str, tuple[str, str]] = {
    "Job": ("BatchV1Api", "job"),
    "Deployment": ("AppsV1Api", "deployment"),
    "Service": ("CoreV1Api", "service"),
    "Pod": ("CoreV1Api", "pod"),
    "Secret": ("CoreV1Api", "secret"),
    "ConfigMap": ("CoreV1Api", "config_map"),
    "Event": ("CoreV1Api", "event"),
    "ResourceQuota": ("CoreV1Api", "resource_quota"),
}


class Cluster:
    """One namespace of one cluster. Safe to use from several threads.

    Args:
        cloud: The cloud's name, for messages.
        role: `training` or `serving`: which endpoint of the configuration it was reached by, for messages.
        api: The official client.
        namespace: Where everything lives.
        timeout_s: Seconds of silence after which a request is given up.
    """

    def __init__(
        self, cloud: str, role: str, api: client.ApiClient, namespace: str, *, timeout_s: float = 60.0
    ) -> None:
        self.cloud, self.role, self.namespace = cloud, role, namespace
        self._api, self._timeouts_s = api, (_CONNECT_TIMEOUT_S, timeout_s)
        self.address = urlsplit(str(api.configuration.host)).netloc

    def read(self, kind: str, name: str) -> Json | None:
        """The object of this name, or None."""
        try:
            found = self._call(kind, "read_namespaced_{}", name, self.namespace)
        except NotFound:
            return None
        whole(whole(found, self.cloud, "metadata")["metadata"], self.cloud, "name", "resourceVersion")
        return found

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Json]:
        """The objects that match the selectors."""
        selectors = {"label_selector": labels, "field_selector": fields}
        chosen = {name: value for name, value in selectors.items() if value}
        return whole(self._call(kind, "list_namespaced_{}", self.namespace, **chosen), self.cloud, "items")["items"]

    def list_custom(self, group: str, version: str, plural: str, *, labels: str) -> list[Json]:
        """The objects of an extension of the API that match the labels; none where it is not installed or not shown."""
        try:
            with self._translated():
                answer: Any = client.CustomObjectsApi(self._api).list_namespaced_custom_object(
                    group,
                    version,
                    self.namespace,
                    plural,
                    label_selector=labels,
                    _preload_content=False,
                    _request_timeout=self._timeouts_s,
                )
                found = json.loads(bytes(answer.read()))
        except (NotFound, Denied):
            return []
        return whole(found, self.cloud, "items")["items"]

    def create(self, manifest: Json) -> bool:
        """Create an object. False: there is one of this name, which is left as it is.

        Raises:
            Invalid: The manifest is not what Kubernetes takes.
            Stockout: A resource quota of the namespace is used up.
        """
        try:
            self._call(manifest["kind"], "create_namespaced_{}", self.namespace, self._checked(manifest))
        except AlreadyExists:
            return False
        return True

    def replace(self, manifest: Json, version: str) -> None:
        """Replace an object as a whole. PreconditionFailed: it is no longer the `resourceVersion` that was read."""
        kept = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": version}}
        name = manifest["metadata"]["name"]
        self._call(manifest["kind"], "replace_namespaced_{}", name, self.namespace, self._checked(kept))

    def put(self, manifest: Json) -> None:
        """Make an object be this, whether there was one or not.

        Raises:
            Retryable: It appeared, changed and vanished under our hands.
        """
        for _ in range(_TRIES):
            if self.create(manifest):
                return
            found = self.read(manifest["kind"], manifest["metadata"]["name"])
            if found is None:
                continue
            try:
                self.replace(manifest, found["metadata"]["resourceVersion"])
            except (PreconditionFailed, NotFound):
                continue
            return
        name = manifest["metadata"]["name"]
        raise Retryable(f"{manifest['kind']} '{name}' on '{self.cloud}' is being changed by others", "try again")

    def patch(self, kind: str, name: str, change: Json) -> None:
        """Merge a change into an object. NotFound: there is none."""
        merge = "application/merge-patch+json"
        self._call(kind, "patch_namespaced_{}", name, self.namespace, change, _content_type=merge)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and what it owns; returns silently when it is gone."""
        try:
            self._call(kind, "delete_namespaced_{}", name, self.namespace, propagation_policy="Background")
        except NotFound:
            return

    def pod_log(self, pod: str, container: str) -> str | None:
        """What a container has written; None when it has not begun or its log is gone."""
        try:
            with self._translated():
                answer: Any = client.CoreV1Api(self._api).read_namespaced_pod_log(
                    pod, self.namespace, container=container, _preload_content=False, _request_timeout=self._timeouts_s
                )
                return bytes(answer.read()).decode(errors="replace")
        except (Invalid, NotFound):
            # Of a container that is still waiting Kubernetes says that the request is a bad one.
            return None

    def may(self, verb: str, resource: str, *, group: str = "") -> bool:
        """Whether the caller may do something in the namespace; Kubernetes says so and keeps nothing of it.

        Args:
            verb: `get`, `list`, `create`, `update`, `patch` or `delete`.
            resource: The plural, with a subresource after a slash (`pods/log`).
            group: The API group; empty for the core.
        """
        plural, _, below = resource.partition("/")
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": plural, "subresource": below}
        wanted = client.V1SelfSubjectAccessReviewSpec.model_validate({"resourceAttributes": asked})
        review = client.V1SelfSubjectAccessReview(spec=wanted)
        with self._translated():
            answer: Any = client.AuthorizationV1Api(self._api).create_self_subject_access_review(
                review, _preload_content=False, _request_timeout=self._timeouts_s
            )
            return bool(json.loads(bytes(answer.read()))["status"]["allowed"])

    def service_url(self, service: str, port: str, path: str) -> str:
        """Where the API server passes requests on to a service (`services/proxy`)."""
        place = f"/api/v1/namespaces/{quote(self.namespace)}/services/{quote(service)}:{port}/proxy{path}"
        return f"{str(self._api.configuration.host).rstrip('/')}{place}"

    def ask_service(
        self, method: str, service: str, port: str, path: str, body: bytes | None = None, *, timeout_s: float = 60.0
    ) -> tuple[int, bytes]:
        """Send a request to a service through the API server; returns the service's own status and body.

        Raises:
            NotFound: There is no such service.
            Retryable: It has no ready pod, or the API server cannot be reached.
        """
        headers: dict[str, str] = {} if body is None else {"content-type": "application/json"}
        url = self.service_url(service, port, path)
        # The client's own call takes neither a body nor a content type for a proxied request.
        self._api.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
        with self._translated():
            answer = self._api.rest_client.pool_manager.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=timeout_s),
                retries=urllib3.Retry(total=0),
            )
        content = bytes(answer.data)
        if answer.status >= 400:
            said = _status_of(content)
            if said is not None or answer.status in (401, 403):
                raise self._error(answer.status, said or {}, answer.headers)
        return answer.status, content

    def _checked(self, manifest: Json) -> Any:
        """The manifest as a model of the client. Raises `Invalid` when it is none."""
        model = getattr(client, f"V1{manifest['kind']}")
        try:
            return model.from_dict(manifest)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise Invalid(
                f"the {manifest['kind']} for '{self.cloud}' has a wrong '{place}': {first['msg'].lower()}",
                f"correct the job or clouds.{self.cloud}.options",
            ) from error

    def _call(self, kind: str, verb: str, *arguments: Any, **options: Any) -> Json:
        group, noun = _APIS[kind]
        call = getattr(getattr(client, group)(self._api), verb.format(noun))
        with self._translated():
            answer = call(*arguments, _preload_content=False, _request_timeout=self._timeouts_s, **options)
            body, form = bytes(answer.read()), str(answer.headers.get("content-type", ""))
            try:
                return json.loads(body)
            except ValueError as error:
                if "json" in form:
                    raise unreadable(self.cloud) from error
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the client's errors into ours."""
        try:
            yield
        except ApiException as error:
            status = error.status if isinstance(error.status, int) else 0
            raise self._error(status, _status_of(error.body or "") or {}, error.headers) from error
        except ValidationError as error:
            raise Invalid(
                f"'{self.cloud}' was asked for something that Kubernetes does not know", "correct the name or option"
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Retryable(
                f"the Kubernetes API of '{self.cloud}' at {self.address} does not answer",
                f"check clouds.{self.cloud}.endpoints.{self.role} and the network",
            ) from error
        except (OpenApiException, ValueError) as error:
            raise Terminal(
                f"what answers at {self.address} for '{self.cloud}' is no Kubernetes API",
                f"correct clouds.{self.cloud}.endpoints.{self.role}",
            ) from error

    def _error(self, status: int, said: Mapping[str, Any], headers: Any) -> LintasError:
        """The class that says what to do next, by status and by the reason of Kubernetes' `Status` object.

        https://github.com/kubernetes/community/blob/main/contributors/devel/sig-architecture/api-conventions.md
        """
        reason, message = str(said.get("reason", "")), _one_line(str(said.get("message", "")))
        here = f"'{self.cloud}'"
        match status:
            case 401:
                return Denied(
                    f"the Kubernetes API of {here} refuses the token", f"correct clouds.{self.cloud}.credentials.token"
                )
            case 403 if "exceeded quota" in message:
                return Stockout(f"a quota of {here} is used up: {message}", "wait, raise the quota or place elsewhere")
            case 403:
                return Denied(f"{here} does not permit this: {message}", "grant the role in docs/clouds/coreweave.md")
            case 404:
                return NotFound(f"{here} has no such thing: {message}", "check its name and the namespace")
            case 409 if reason == "AlreadyExists":
                return AlreadyExists(f"{here}: {message}", "choose another name")
            case 409:
                return PreconditionFailed(f"{here}: {message}", "read it again, then change it")
            case 400 | 422:
                return Invalid(f"{here} refuses the request: {message}", "correct the job or the cloud's options")
            case 429 | 500 | 502 | 503 | 504:
                words = f"the Kubernetes API of {here} cannot answer now ({status} {message or reason})"
                return Retryable(words, "try again later", retry_after_s=_retry_after_s(headers))
            case 0:
                return Retryable(f"no secure connection to the Kubernetes API of {here}", "check its certificate")
            case _:
                return Terminal(f"the Kubernetes API of {here} answers {status}: {message}", "see the cluster's log")


class AlreadyExists(PreconditionFailed):
    """There is an object of this name already."""


def open_cluster(cloud: CloudConfig, role: str) -> Cluster:
    """The cluster of a cloud.

    Args:
        cloud: With `credentials.kubeconfig` (a whole kubeconfig; `options.context` chooses in it), or with
            `endpoints.ROLE` (the API server's URL) and `credentials.token`; `options.ca_file` holds the certificate of
            its authority where that is not a public one. `options.namespace` is `default` unless set,
            `options.request_timeout_s` 60.
        role: `training` or `serving`.

    Raises:
        Invalid: The configuration names no cluster, or the timeout is no number.
        Denied: A credential's reference leads nowhere.
    """
    namespace, timeout_s = cloud.options.get("namespace", "default"), request_timeout_s(cloud)
    if "kubeconfig" in cloud.credentials:
        return Cluster(cloud.name, role, _from_kubeconfig(cloud), namespace, timeout_s=timeout_s)
    settings = client.Configuration(host=cloud.endpoint(role).rstrip("/"))
    if "token" not in cloud.credentials:
        raise Invalid(f"clouds.{cloud.name}.credentials has no token", "add token or kubeconfig in lintas.yaml")
    settings.api_key = {"authorization": cloud.credentials["token"].reveal().strip()}
    settings.api_key_prefix = {"authorization": "Bearer"}
    if "ca_file" in cloud.options:
        settings.ssl_ca_cert = cloud.options["ca_file"]
    return Cluster(cloud.name, role, _with_patience(settings), namespace, timeout_s=timeout_s)


def _from_kubeconfig(cloud: CloudConfig) -> client.ApiClient:
    mend = f"correct clouds.{cloud.name}.credentials.kubeconfig or options.context"
    settings = client.Configuration()
    try:
        config.load_kube_config_from_dict(
            yaml.safe_load(cloud.credentials["kubeconfig"].reveal()),
            context=cloud.options.get("context"),
            client_configuration=settings,
        )
    except (yaml.YAMLError, TypeError, AttributeError, config.ConfigException) as error:
        raise Invalid(f"the kubeconfig of '{cloud.name}' names no cluster", mend) from error
    return _with_patience(settings)


def _with_patience(settings: client.Configuration) -> client.ApiClient:
    # Whether to try again is the caller's to decide.
    settings.retries = urllib3.Retry(total=0)
    settings.connection_pool_maxsize = 32
    return client.ApiClient(settings)


def _status_of(body: str | bytes) -> Json | None:
    """Kubernetes' `Status` object, if that is what the body is."""
    try:
        said = json.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("kind") == "Status" else None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _retry_after_s(headers: Any) -> float | None:
    try:
        return float(headers["Retry-After"])
    except (KeyError, TypeError, ValueError):
        return None
