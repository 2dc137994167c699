"""What Lintas needs of a Google Cloud project, permission by permission, and the calls that show it and change nothing.

Cloud Storage, Pub/Sub, Resource Manager and IAM say which of a caller's permissions hold (`testIamPermissions`, which
itself needs none), so that writing is shown without writing; what is only read is read. A permission that is given on
single resources below the project is not seen at the project. Service Usage tells the quotas of Vertex AI, which has
others than Compute Engine.

https://cloud.google.com/iam/docs/testing-permissions
https://cloud.google.com/service-usage/docs/reference/rest/v1beta1/services.consumerQuotaMetrics/list
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from google.auth.transport.requests import AuthorizedSession

from tasks.core.cloud import CloudConfig, Probe, Unseen
from tasks.core.errors import Denied, Invalid, Stockout, Terminal
from tasks.providers._dialects.answers import readable
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers._dialects.probing import ABSENT, BucketProbes, not_imitated, remembered, unseen
from tasks.providers._dialects.pulls import pulled_from
from tasks.providers.google.errors import refusal, translated
from tasks.providers.google.events import PUBSUB, SCOPES, subscription_path, subscription_place
from tasks.providers.google.identity import google_credentials
from tasks.providers.google.rest import Rest
from tasks.providers.google.store import open_store
from tasks.providers.google.vertex import Vertex

_STORAGE = "https://storage.googleapis.com"
_RESOURCE_MANAGER = "https://cloudresourcemanager.googleapis.com"
_IAM = "https://iam.googleapis.com"
_SERVICE_USAGE = "https://serviceusage.googleapis.com"
_STORAGE_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_TIMEOUT_S = 20.0
_TELLING = (400, 403, 404, 501)
"""Statuses that say why a question about permissions is not answered."""

_QUOTAS = "serviceusage.quotas.get"
_TRAINING_QUOTA = "aiplatform.googleapis.com/custom_model_training_"
"""How the metrics begin that limit custom jobs; the rest of the name is the machine or accelerator."""
_ACCELERATOR = re.compile(r"_gpus$|tpu")

_CONSUME = "pubsub.subscriptions.consume"
_TRAINING_WRITES = ("aiplatform.customJobs.create", "aiplatform.customJobs.cancel")
_PULLING = (
    "storagetransfer.jobs.create",
    "storagetransfer.jobs.run",
    "storagetransfer.jobs.get",
    "storagetransfer.jobs.delete",
    "storagetransfer.operations.get",
    "storagetransfer.operations.cancel",
)
_SERVING_WRITES = (
    "aiplatform.models.upload",
    "aiplatform.models.delete",
    "aiplatform.endpoints.create",
    "aiplatform.endpoints.update",
    "aiplatform.endpoints.deploy",
    "aiplatform.endpoints.undeploy",
    "aiplatform.endpoints.delete",
    "aiplatform.endpoints.predict",
)


def probes(cloud: CloudConfig, *, trains: bool) -> Iterator[Probe]:
    """The permissions that this cloud needs, by what it is set up for.

    Args:
        cloud: The cloud. `endpoints.identity` is where Resource Manager, IAM and Service Usage are asked; the public
            ones by default.
        trains: Whether it is set up for training.
    """
    project = _Project(cloud)
    serves = "serving_image" in cloud.options
    if trains or serves:
        yield Probe("aiplatform.locations.get", "everything", project.region)
    if "bucket" in cloud.options:
        yield from _objects(cloud, project)
    if trains:
        training = remembered(lambda: Vertex(cloud, "training"))
        yield Probe("aiplatform.customJobs.list", "training", partial(_listed, training, "customJobs"))
        yield Probe("aiplatform.customJobs.get", "training", partial(_read, training, "customJobs/1"))
        yield Probe("logging.logEntries.list", "training", partial(_log, training))
        for permission in _TRAINING_WRITES:
            yield Probe(permission, "training", partial(project.may, permission))
        yield Probe("iam.serviceAccounts.actAs", "training", project.may_act)
        yield Probe(_QUOTAS, "training", project.quotas_told)
    if serves:
        serving = remembered(lambda: Vertex(cloud, "serving"))
        yield Probe("aiplatform.models.get", "serving", partial(_read, serving, f"models/{ABSENT}"))
        yield Probe("aiplatform.endpoints.get", "serving", partial(_read, serving, f"endpoints/{ABSENT}"))
        for permission in _SERVING_WRITES:
            yield Probe(permission, "serving", partial(project.may, permission))
    if pulled_from(cloud):
        for permission in _PULLING:
            yield Probe(permission, "pulls", partial(project.may, permission))
    if "subscription" in cloud.options:
        yield Probe(_CONSUME, "events", partial(_may_consume, cloud))


def _may_consume(cloud: CloudConfig) -> str:
    """Whether the subscription may be pulled, asked of the subscription itself."""
    place, path = subscription_place(cloud), subscription_path(cloud)
    url = f"{(cloud.endpoint_or_public('events') or PUBSUB).rstrip('/')}/v1/{path}:testIamPermissions"
    with translated(place):
        session = AuthorizedSession(google_credentials(cloud, SCOPES))
        answer = session.post(url, json={"permissions": [_CONSUME]}, timeout=_TIMEOUT_S)
    if answer.status_code == 404:
        raise Terminal(place.no_bucket().what, "create it: without it no event arrives")
    if not answer.ok:
        raise refusal(answer.status_code, answer.text, answer.headers, place, None)
    if _CONSUME in _permissions(answer):
        return f"subscription '{place.bucket}' may be pulled"
    raise Denied(
        f"subscription '{place.bucket}' on {cloud.name} does not allow {_CONSUME}",
        "grant roles/pubsub.subscriber on it",
    )


def _objects(cloud: CloudConfig, project: _Project) -> Iterator[Probe]:
    bucket = _Bucket(cloud)
    looking = BucketProbes(lambda: open_store(cloud, cloud.option("bucket")))

    def creating() -> str:
        if looking.exists():
            return f"not needed: bucket '{cloud.option('bucket')}' is there"
        return project.may("storage.buckets.create")

    yield Probe("storage.objects.list", "objects", looking.listing)
    for action in ("get", "create", "delete"):
        permission = f"storage.objects.{action}"
        yield Probe(permission, "objects", partial(bucket.may, permission))
    yield Probe("storage.buckets.create", "objects", creating)


def _listed(vertex: Callable[[], Vertex], collection: str) -> str:
    api = vertex()
    api.send("GET", f"{api.url}/v1/{api.parent}/{collection}", collection, params={"pageSize": "1"})
    return "allowed"


def _read(vertex: Callable[[], Vertex], path: str) -> str:
    api = vertex()
    api.get(f"{api.parent}/{path}", f"'{path}'")
    return "allowed"


def _log(vertex: Callable[[], Vertex]) -> str:
    query = 'resource.type="ml_job" AND resource.labels.job_id="1"'
    next(vertex().log_entries(query, "Cloud Logging"), None)
    return "allowed"


class _Project:
    """The project, asked what the caller may do in it; one call a permission, since one that is unknown spoils all."""

    def __init__(self, cloud: CloudConfig) -> None:
        self._cloud = cloud
        self._vertex = remembered(lambda: Vertex(cloud, "training"))
        self._asked = remembered(
            lambda: Rest(
                cloud,
                "identity",
                public=_RESOURCE_MANAGER,
                service="Resource Manager",
                api="cloudresourcemanager.googleapis.com",
            )
        )

    def region(self) -> str:
        """Whether Vertex AI is there for this project and region. Denied: the credentials, or the API is off."""
        vertex = self._vertex()
        url, what = f"{vertex.url}/v1/{vertex.parent}", f"region '{self._cloud.region}'"
        answer = vertex.send("GET", url, what, accept=lambda answer: answer.ok or answer.status_code in (404, 501))
        if answer.status_code == 501:
            raise not_imitated("aiplatform.locations.get")
        if answer.status_code == 404:
            raise Invalid(
                f"Vertex AI of '{self._cloud.name}' has no {what}", f"correct clouds.{self._cloud.name}.region"
            )
        return f"{what} answers"

    def may(self, permission: str) -> str:
        """Whether the project allows something. Raises `Denied`, or `Unseen` when Resource Manager does not say."""
        project = self._cloud.option("project")
        url = f"{self._url(_RESOURCE_MANAGER)}/v1/projects/{project}:testIamPermissions"
        if self._ask(url, permission, "enable cloudresourcemanager.googleapis.com to see it"):
            return "allowed in the project"
        raise self._missing(permission, f"project '{project}'")

    def may_act(self) -> str:
        """Whether jobs may run as their account. Without `options.service_account` only the project can be asked."""
        permission, account = "iam.serviceAccounts.actAs", self._cloud.options.get("service_account")
        if account is None:
            url = f"{self._url(_RESOURCE_MANAGER)}/v1/projects/{self._vertex().project}:testIamPermissions"
            if self._ask(url, permission, "enable cloudresourcemanager.googleapis.com to see it"):
                return "allowed in the project"
            raise unseen(permission, "not in the project; options.service_account would name the account to ask")
        url = f"{self._url(_IAM)}/v1/projects/-/serviceAccounts/{quote(account)}:testIamPermissions"
        if self._ask(url, permission, "enable iam.googleapis.com to see it"):
            return "allowed on the jobs' account"
        raise self._missing(permission, "the jobs' account")

    def quotas_told(self) -> str:
        """What custom jobs may have in the region, and where else there are accelerators.

        Raises:
            Stockout: Nothing at all.
            Unseen: Service Usage may not be asked, which Lintas itself does not need.
        """
        limits, region = self._training_limits(), self._cloud.region
        # A region that is not named has what is said of none.
        here = {name: by.get(region, by.get("", 0)) for name, by in limits.items()}
        room = {name: limit for name, limit in here.items() if limit}
        accelerated = {name: by for name, by in limits.items() if _ACCELERATOR.search(name)}
        elsewhere = sorted({at for by in accelerated.values() for at, limit in by.items() if at and limit} - {region})
        if not here:
            raise Unseen("the quotas of training cannot be seen: Service Usage tells of none", "look in the console")
        if not room:
            instead = f", or use {elsewhere[0]}" if elsewhere else ""
            raise Stockout(
                f"every quota of '{self._cloud.name}' for custom jobs in {region} is 0", f"ask Google for more{instead}"
            )
        told = [
            f"{name} {'unlimited' if room[name] < 0 else room[name]}" for name in sorted(accelerated) if name in room
        ]
        return (
            f"{len(room)} of {len(here)} training quotas in {region} are not 0; "
            f"accelerators: {', '.join(told) or 'none'}{'; also in ' + ', '.join(elsewhere) if elsewhere else ''}"
        )

    def _training_limits(self) -> dict[str, dict[str, int]]:
        """The limit by metric and region ('': any other region); below 0 is no limit."""
        vertex, limits, token = self._vertex(), dict[str, dict[str, int]](), ""
        url = f"{self._url(_SERVICE_USAGE)}/v1beta1/projects/{vertex.project}/services/aiplatform.googleapis.com"
        while True:
            answer = vertex.send(
                "GET",
                f"{url}/consumerQuotaMetrics",
                _QUOTAS,
                params={"view": "FULL", **({"pageToken": token} if token else {})},
                timeout_s=_TIMEOUT_S,
                accept=lambda answer: answer.ok or answer.status_code in (403, 404, 501),
            )
            if answer.status_code == 501:
                raise not_imitated(_QUOTAS)
            if not answer.ok:
                raise Unseen(
                    f"quotas cannot be seen without {_QUOTAS}",
                    "grant roles/serviceusage.serviceUsageViewer and enable serviceusage.googleapis.com to see them",
                )
            with readable(self._cloud.name):
                page = vertex.read(answer)
                for metric in page.get("metrics", ()):
                    if str(metric["metric"]).startswith(_TRAINING_QUOTA):
                        by_region = limits.setdefault(str(metric["metric"]).removeprefix(_TRAINING_QUOTA), {})
                        for bucket in (each for one in metric["consumerQuotaLimits"] for each in one["quotaBuckets"]):
                            by_region[bucket.get("dimensions", {}).get("region", "")] = int(bucket["effectiveLimit"])
                token = page.get("nextPageToken", "")
            if not token:
                return limits

    def _ask(self, url: str, permission: str, mend: str) -> bool:
        answer = self._asked().send(
            "POST",
            url,
            permission,
            json={"permissions": [permission]},
            timeout_s=_TIMEOUT_S,
            accept=lambda answer: answer.ok or answer.status_code in _TELLING,
        )
        if answer.status_code == 501:
            raise not_imitated(permission)
        if not answer.ok:
            raise unseen(permission, mend)
        return permission in _permissions(answer)

    def _url(self, public: str) -> str:
        return (self._cloud.endpoint_or_public("identity") or public).rstrip("/")

    def _missing(self, permission: str, where: str) -> Denied:
        return Denied(
            f"{where} of '{self._cloud.name}' does not allow {permission}",
            "grant it; docs/clouds/google.md lists roles that hold it",
        )


class _Bucket:
    """The work bucket, asked what the caller may do in it."""

    def __init__(self, cloud: CloudConfig) -> None:
        self._cloud = cloud
        self._endpoint = (cloud.endpoint_or_public("objects") or _STORAGE).rstrip("/")
        self._place = Place(cloud.name, cloud.option("bucket"), address_of(self._endpoint))

    def may(self, permission: str) -> str:
        """Whether the bucket allows something. Raises `Denied`, or `Unseen` while there is no such bucket."""
        url = f"{self._endpoint}/storage/v1/b/{quote(self._place.bucket, safe='')}/iam/testPermissions"
        with translated(self._place):
            session = AuthorizedSession(google_credentials(self._cloud, _STORAGE_SCOPES))
            answer = session.get(url, params={"permissions": permission}, timeout=_TIMEOUT_S)
        if answer.status_code == 501:
            raise not_imitated(permission)
        if answer.status_code == 404:
            raise unseen(permission, f"bucket '{self._place.bucket}' does not exist yet")
        if not answer.ok:
            raise refusal(answer.status_code, answer.text, answer.headers, self._place, None)
        if permission in _permissions(answer):
            return f"allowed in bucket '{self._place.bucket}'"
        raise Denied(
            f"bucket '{self._place.bucket}' on {self._cloud.name} does not allow {permission}",
            "grant it; docs/clouds/google.md lists roles that hold it",
        )


def _permissions(answer: Any) -> list[str]:
    """The permissions that hold; anything else than such an answer holds none."""
    try:
        told: object = answer.json()
    except ValueError:
        return []
    return [str(each) for each in told.get("permissions", ())] if isinstance(told, Mapping) else []
