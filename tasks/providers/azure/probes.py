"""What Lintas needs of an Azure subscription, permission by permission, and the calls that show it and change nothing.

Reading is shown by reading, mostly of something that is not there. Writing is shown by the caller's own effective
permissions, which Resource Manager lists for a resource; a deny assignment does not stand in them. In Blob Storage a
shared access signature says itself what it allows, and the account's key allows everything.

https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource
https://learn.microsoft.com/azure/storage/common/storage-sas-overview
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from azure.core.exceptions import HttpResponseError

from tasks.core.cloud import CloudConfig, Probe, Unseen
from tasks.core.errors import Denied, Invalid, LintasError, NotFound, Stockout, Terminal
from tasks.providers._dialects.probing import ABSENT, BucketProbes, not_imitated, remembered, unseen
from tasks.providers.azure.arm import API_VERSION, Workspace
from tasks.providers.azure.errors import translated
from tasks.providers.azure.events import POISON, open_queue, queue_place
from tasks.providers.azure.store import open_store

_ML = "Microsoft.MachineLearningServices"
_WORKSPACES = f"{_ML}/workspaces"
_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
_MESSAGES = "Microsoft.Storage/storageAccounts/queueServices/queues/messages"
_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
_AUTHORIZATION_VERSION = "2022-04-01"

_TRAINING_READS: Mapping[str, str] = {"jobs/read": f"jobs/{ABSENT}"}
_TRAINING_WRITES = ("jobs/write", "jobs/cancel/action")
_SERVING_READS: Mapping[str, str] = {
    "models/versions/read": f"models/{ABSENT}/versions/1",
    "environments/versions/read": f"environments/{ABSENT}/versions/1",
    "onlineEndpoints/read": f"onlineEndpoints/{ABSENT}",
    "onlineEndpoints/deployments/read": f"onlineEndpoints/{ABSENT}/deployments",
}
_SERVING_WRITES = (
    "models/versions/write",
    "environments/versions/write",
    "onlineEndpoints/write",
    "onlineEndpoints/delete",
    "onlineEndpoints/deployments/write",
    "onlineEndpoints/deployments/delete",
    "onlineEndpoints/score/action",
)


def probes(cloud: CloudConfig, *, trains: bool) -> Iterator[Probe]:
    """The permissions that this cloud needs, by what it is set up for.

    Args:
        cloud: The cloud.
        trains: Whether it is set up for training.
    """
    rights = _Rights(cloud)
    serves = "serving_image" in cloud.options
    if trains or serves:
        yield Probe(f"{_WORKSPACES}/read", "everything", rights.workspace_told)
    if "bucket" in cloud.options:
        yield from _objects(cloud, rights)
    if trains:
        yield from _machine_learning(cloud, rights, "training", _TRAINING_READS, _TRAINING_WRITES)
        yield Probe(f"{_WORKSPACES}/experiments/runs/read", "training", rights.history_told)
        yield Probe(f"{_ML}/locations/usages/read", "training", rights.usage_told)
    if serves:
        yield from _machine_learning(cloud, rights, "serving", _SERVING_READS, _SERVING_WRITES)
    if "queue" in cloud.options:
        yield from _events(cloud, rights)


def _events(cloud: CloudConfig, rights: _Rights) -> Iterator[Probe]:
    place = queue_place(cloud)

    def peek() -> str:
        try:
            with translated(place):
                open_queue(cloud, place.bucket).peek_messages(1)
        except NotFound as error:
            raise Terminal(error.what, "create it: without it no event arrives") from error
        return f"queue '{place.bucket}' is there"

    def key_allows(permission: str, letters: str, kind: str) -> str:
        del permission, letters, kind
        peek()
        return "allowed: the account's key may do everything"

    may = _deciding(cloud, rights, key_allows)
    yield Probe(f"{_MESSAGES}/read", "events", peek)
    # Receiving hides messages from others for a while, so that it is no reading.
    processing = f"{_MESSAGES}/process/action"
    yield Probe(processing, "events", partial(may, processing, "p", "dataActions"))
    adding = f"{_MESSAGES}/add/action"
    yield Probe(f"{adding} on {place.bucket}{POISON}", "events", partial(may, adding, "a", "dataActions"))


def _deciding(
    cloud: CloudConfig, rights: _Rights, key_allows: Callable[[str, str, str], str]
) -> Callable[[str, str, str], str]:
    """What decides about a permission in the storage account: its key, a signature, or the identity's roles."""
    if "account_key" in cloud.credentials:
        return key_allows
    if "sas_token" in cloud.credentials:
        return partial(_signature_allows, cloud)
    return rights.may_with_data


def _machine_learning(
    cloud: CloudConfig, rights: _Rights, role: str, reads: Mapping[str, str], writes: Sequence[str]
) -> Iterator[Probe]:
    workspace = remembered(lambda: Workspace(cloud, role))

    def read(permission: str, path: str) -> str:
        with _looking(permission):
            workspace().get(path)
        return "allowed"

    for action, path in reads.items():
        yield Probe(f"{_WORKSPACES}/{action}", role, partial(read, f"{_WORKSPACES}/{action}", path))
    for action in writes:
        yield Probe(f"{_WORKSPACES}/{action}", role, partial(rights.may, f"{_WORKSPACES}/{action}"))


def _objects(cloud: CloudConfig, rights: _Rights) -> Iterator[Probe]:
    bucket = cloud.option("bucket")
    looking = BucketProbes(lambda: open_store(cloud, bucket))
    may = _deciding(cloud, rights, partial(_key_allows, looking))

    def creating() -> str:
        permission = f"{_CONTAINERS}/write"
        return f"not needed: container '{bucket}' is there" if looking.exists() else may(permission, "c", "actions")

    yield Probe(f"{_BLOBS}/read (to list)", "objects", looking.listing)
    yield Probe(f"{_BLOBS}/read", "objects", looking.reading)
    for permission, letters in ((f"{_BLOBS}/write", "wc"), (f"{_BLOBS}/delete", "d")):
        yield Probe(permission, "objects", partial(may, permission, letters, "dataActions"))
    yield Probe(f"{_CONTAINERS}/write", "objects", creating)


def _key_allows(looking: BucketProbes, permission: str, letters: str, kind: str) -> str:
    del permission, letters, kind
    looking.exists()
    return "allowed: the account's key may do everything"


def _signature_allows(cloud: CloudConfig, permission: str, letters: str, kind: str) -> str:
    """Whether the signature carries one of the letters; what it says of itself is what was signed."""
    del kind
    signed = parse_qs(cloud.credentials["sas_token"].reveal().strip().lstrip("?")).get("sp", [""])[-1]
    if not signed:
        raise unseen(permission, "the shared access signature names a stored policy and not what it allows")
    if any(letter in signed for letter in letters):
        return f"allowed: the shared access signature has '{signed}'"
    raise Denied(
        f"the shared access signature of '{cloud.name}' allows '{signed}' and not {permission}",
        f"make one with '{letters[0]}' too",
    )


class _Rights:
    """What the identity may do in the workspace and its storage account, as Resource Manager tells."""

    def __init__(self, cloud: CloudConfig) -> None:
        self._cloud = cloud
        self._workspace = remembered(lambda: Workspace(cloud, "training"))
        self._facts = remembered(lambda: self._workspace().get(""))
        self._on_workspace = remembered(lambda: self._granted(self._workspace().id))
        self._on_account = remembered(lambda: self._granted(self._account_id()))

    def workspace_told(self) -> str:
        """Whether the workspace is there. Invalid: it is not."""
        try:
            facts = self._facts()
        except NotFound as error:
            key = f"clouds.{self._cloud.name}.options"
            raise Invalid(error.what, f"correct {key}.subscription, resource_group and workspace") from error
        return f"the workspace is in {facts.get('location', 'an unknown region')}"

    def history_told(self) -> str:
        """Whether the run history answers."""
        with _looking(f"{_WORKSPACES}/experiments/runs/read"):
            self._workspace().run_details(ABSENT)
        return "allowed"

    def usage_told(self) -> str:
        """How much of the region's quota is used. Unseen: not granted, which Lintas itself does not need."""
        permission = f"{_ML}/locations/usages/read"
        if not self._cloud.region:
            raise Unseen("the quota cannot be seen: no region is configured", f"set clouds.{self._cloud.name}.region")
        place = f"/subscriptions/{self._cloud.option('subscription')}/providers/{_ML}/locations/{self._cloud.region}"
        try:
            with _looking(permission):
                usages = self._workspace().told_of(f"{place}/usages", API_VERSION).get("value", [])
        except Denied as error:
            raise Unseen(f"quotas cannot be seen without {permission}", "grant it to see them here") from error
        limited = [each for each in usages if each.get("limit", -1) >= 0]
        room = [each for each in limited if each["currentValue"] < each["limit"]]
        if limited and not room:
            raise Stockout(f"every quota of '{self._cloud.name}' in {self._cloud.region} is used up", "ask for more")
        return f"{len(room)} of {len(limited)} quotas in {self._cloud.region} have room"

    def may(self, permission: str) -> str:
        """Whether the workspace's roles allow an action. Raises `Denied`, or `Unseen` when that is not told."""
        return self._decided(permission, self._on_workspace, "actions", "the workspace")

    def may_with_data(self, permission: str, letters: str, kind: str) -> str:
        """The same of the storage account."""
        del letters
        return self._decided(permission, self._on_account, kind, "the storage account")

    def _decided(self, permission: str, told: Callable[[], list[Mapping[str, Any]]], kind: str, where: str) -> str:
        try:
            with _looking(permission):
                granted = told()
        except Denied as error:
            if isinstance(error.__cause__, HttpResponseError) and error.__cause__.status_code == 403:
                raise unseen(permission, "Microsoft.Authorization/permissions/read is not granted") from error
            raise
        except NotFound as error:
            raise unseen(permission, f"{where} is not found") from error
        if any(_allows(each, permission, kind) for each in granted):
            return f"allowed by a role on {where}"
        raise Denied(
            f"no role of the identity on {where} of '{self._cloud.name}' allows {permission}",
            "assign one; docs/clouds/azure.md names those that do",
        )

    def _granted(self, resource_id: str) -> list[Mapping[str, Any]]:
        listing = f"{resource_id}/providers/Microsoft.Authorization/permissions"
        return self._workspace().told_of(listing, _AUTHORIZATION_VERSION).get("value", [])

    def _account_id(self) -> str:
        """The storage account's id, which is only known of the workspace's own."""
        found = str(self._facts().get("properties", {}).get("storageAccount", ""))
        if found.rpartition("/")[2] != self._cloud.option("account"):
            raise unseen("access to blobs", "the storage account is not the workspace's own")
        return found


def _allows(granted: Mapping[str, Any], permission: str, kind: str) -> bool:
    """Whether one entry of effective permissions holds an action: patterns with '*', without regard to case."""
    unless = f"not{kind[0].upper()}{kind[1:]}"

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(permission.lower(), pattern.lower()) for pattern in patterns)

    return matches(granted.get(kind) or ()) and not matches(granted.get(unless) or ())


@contextmanager
def _looking(permission: str) -> Iterator[None]:
    """A call that is not known shows nothing."""
    try:
        yield
    except LintasError as error:
        if isinstance(error.__cause__, HttpResponseError) and error.__cause__.status_code == 501:
            raise not_imitated(permission) from error
        raise
