"""What Lintas needs of a CoreWeave cluster and its object storage, and the calls that show it and change nothing.

Kubernetes says of every verb whether the caller may (`SelfSubjectAccessReview`, which keeps nothing), writing included.
Object storage says nothing of the kind: listing and reading are tried, writing is not.

https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tasks.core.cloud import CloudConfig, Probe, Unseen
from tasks.core.errors import Denied
from tasks.providers._dialects.kubernetes import Cluster, open_cluster
from tasks.providers._dialects.polling import watched_places
from tasks.providers._dialects.probing import BucketProbes, remembered, unseen
from tasks.providers.coreweave.store import open_store

_Verbs = Sequence[tuple[str, str, Sequence[str]]]
"""API group, resource (with its subresource), verbs."""

_TRAINING: _Verbs = (
    ("batch", "jobs", ("get", "create", "patch")),
    ("", "pods", ("list",)),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
    ("", "configmaps", ("create",)),
    ("", "secrets", ("get", "create", "update")),
)
_QUEUED: _Verbs = (("kueue.x-k8s.io", "workloads", ("list",)),)
_SERVING: _Verbs = (
    ("apps", "deployments", ("get", "create", "update", "delete")),
    ("", "pods", ("list",)),
    ("", "configmaps", ("create",)),
    ("", "secrets", ("get", "create", "update")),
    ("", "services", ("create", "delete")),
    ("", "services/proxy", ("get", "create")),
)


def probes(cloud: CloudConfig, *, trains: bool) -> Iterator[Probe]:
    """The permissions that this cloud needs, by what it is set up for.

    Args:
        cloud: The cloud.
        trains: Whether it is set up for training.
    """
    if "bucket" in cloud.options:
        yield from _objects(cloud)
    if trains:
        cluster = remembered(lambda: open_cluster(cloud, "training"))
        yield from _kubernetes(cluster, "training", _TRAINING)
        if "queue" in cloud.options:
            yield from _kubernetes(cluster, "training", _QUEUED)
        yield Probe("list resourcequotas", "training", partial(_quotas, cluster))
    if "serving_image" in cloud.options:
        yield from _kubernetes(remembered(lambda: open_cluster(cloud, "serving")), "serving", _SERVING)
    if "watch" in cloud.options:
        for bucket in dict.fromkeys(place.bucket for place in watched_places(cloud)):
            looking = BucketProbes(partial(open_store, cloud, bucket))
            yield Probe(f"s3:ListBucket on {bucket}", "events", looking.listing)


def _objects(cloud: CloudConfig) -> Iterator[Probe]:
    bucket = cloud.option("bucket")
    looking = BucketProbes(lambda: open_store(cloud, bucket))

    def unknown(permission: str) -> str:
        raise unseen(permission)

    def creating() -> str:
        return f"not needed: bucket '{bucket}' is there" if looking.exists() else unknown("s3:CreateBucket")

    yield Probe("s3:ListBucket", "objects", looking.listing)
    yield Probe("s3:GetObject", "objects", looking.reading)
    for permission in ("s3:PutObject", "s3:DeleteObject"):
        yield Probe(permission, "objects", partial(unknown, permission))
    yield Probe("s3:CreateBucket", "objects", creating)


def _kubernetes(cluster: Callable[[], Cluster], role: str, needed: _Verbs) -> Iterator[Probe]:
    for group, resource, verbs in needed:
        for verb in verbs:
            full_name = f"{resource}.{group}" if group else resource
            yield Probe(f"{verb} {full_name}", role, partial(_may, cluster, verb, group, resource))


def _may(cluster: Callable[[], Cluster], verb: str, group: str, resource: str) -> str:
    here = cluster()
    if here.may(verb, resource, group=group):
        return f"allowed in namespace '{here.namespace}'"
    raise Denied(
        f"the role of '{here.cloud}' in namespace '{here.namespace}' does not allow it",
        "grant the role in docs/clouds/coreweave.md",
    )


def _quotas(cluster: Callable[[], Cluster]) -> str:
    """What the namespace's quotas leave. Unseen: listing them is not granted, which Lintas itself does not need."""
    try:
        found = cluster().list("ResourceQuota")
    except Denied as error:
        raise Unseen("quotas cannot be seen without 'list resourcequotas'", "grant it to see them here") from error
    used = [
        f"{name} {quota['status'].get('used', {}).get(name, '0')} of {limit}"
        for quota in found
        for name, limit in sorted(quota.get("status", {}).get("hard", {}).items())
    ]
    return ", ".join(used) or f"no quota in namespace '{cluster().namespace}'"
