"""What Lintas needs of an AWS account, permission by permission, and the calls that show it and change nothing.

Reading is shown by reading, mostly of something that is not there: SageMaker and CloudWatch Logs decide about the
permission first. Writing is shown by IAM's policy simulator, which itself only reads and needs
`iam:SimulatePrincipalPolicy`; it knows the identity's own policies, not those of a bucket or a queue.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import botocore.exceptions as boto
from botocore.config import Config

from tasks.core.cloud import CloudConfig, Probe, Unseen
from tasks.core.errors import Denied, NotFound, Stockout, Terminal
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers._dialects.probing import ABSENT, BucketProbes, not_imitated, remembered, unseen
from tasks.providers._dialects.pulls import pulled_from
from tasks.providers.aws.quirks import quirks
from tasks.providers.aws.sagemaker import meaning, open_clients
from tasks.providers.aws.store import open_store

_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_ROOT = "the root user"
_SIMULATE = "iam:SimulatePrincipalPolicy"
_UNKNOWN_CALL = ("UnknownOperationException", "InvalidAction", "NotImplemented")
_SETTINGS = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})

_Read = tuple[str, str, Mapping[str, Any]]
"""Client, its method and the arguments."""

_TRAINING_READS: Mapping[str, _Read] = {
    "sagemaker:DescribeTrainingJob": ("sagemaker", "describe_training_job", {"TrainingJobName": ABSENT}),
    "logs:DescribeLogStreams": ("logs", "describe_log_streams", {"logGroupName": _LOG_GROUP, "limit": 1}),
    "logs:GetLogEvents": (
        "logs",
        "get_log_events",
        {"logGroupName": _LOG_GROUP, "logStreamName": ABSENT, "startFromHead": True, "limit": 1},
    ),
}
_PULLING = ("CreateLocationS3", "CreateTask", "ListTasks", "ListLocations")
_PULLING_WITH: Mapping[str, Sequence[str]] = {
    "task": (
        "TagResource",
        "ListTagsForResource",
        "DescribeTask",
        "StartTaskExecution",
        "DescribeTaskExecution",
        "CancelTaskExecution",
        "DeleteTask",
    ),
    "location": ("DeleteLocation",),
}
_SERVING_READS: Mapping[str, _Read] = {
    "sagemaker:DescribeModel": ("sagemaker", "describe_model", {"ModelName": ABSENT}),
    "sagemaker:DescribeEndpointConfig": ("sagemaker", "describe_endpoint_config", {"EndpointConfigName": ABSENT}),
    "sagemaker:ListEndpointConfigs": ("sagemaker", "list_endpoint_configs", {"NameContains": ABSENT}),
    "sagemaker:DescribeEndpoint": ("sagemaker", "describe_endpoint", {"EndpointName": ABSENT}),
}
# By the kind of resource that the permission is asked of.
_TRAINING_WRITES: Mapping[str, Sequence[str]] = {
    "training-job": ("CreateTrainingJob", "StopTrainingJob", "AddTags", "ListTags"),
}
_SERVING_WRITES: Mapping[str, Sequence[str]] = {
    "model": ("CreateModel", "DeleteModel"),
    "endpoint-config": ("CreateEndpointConfig", "DeleteEndpointConfig"),
    "endpoint": ("CreateEndpoint", "UpdateEndpoint", "DeleteEndpoint", "InvokeEndpoint", "AddTags", "ListTags"),
}


def probes(cloud: CloudConfig, *, trains: bool) -> Iterator[Probe]:
    """The permissions that this cloud needs, by what it is set up for.

    Args:
        cloud: The cloud. `endpoints.identity` is where STS, IAM and Service Quotas are asked; the public ones by
            default.
        trains: Whether it is set up for training.
    """
    account = _Account(cloud)
    yield Probe("sts:GetCallerIdentity", "everything", account.told)
    if "bucket" in cloud.options:
        yield from _objects(cloud, account)
    if trains:
        yield from _sagemaker(cloud, account, "training", _TRAINING_READS, _TRAINING_WRITES)
        sku = cloud.options.get("instance_type", quirks()["training_sku"])
        yield _quota(account, f"{sku} for training job usage", "training")
    if "serving_image" in cloud.options:
        yield from _sagemaker(cloud, account, "serving", _SERVING_READS, _SERVING_WRITES)
        sku = cloud.options.get("serving_instance_type", quirks()["serving_sku"])
        yield _quota(account, f"{sku} for endpoint usage", "serving")
    if "queue" in cloud.options:
        yield from _events(cloud, account)
    if pulled_from(cloud):
        yield from _pulls(cloud, account)


def _objects(cloud: CloudConfig, account: _Account) -> Iterator[Probe]:
    bucket, prefix = cloud.option("bucket"), cloud.options.get("prefix", "").strip("/")
    looking = BucketProbes(lambda: open_store(cloud, bucket))
    key = f"{prefix}/{ABSENT}" if prefix else ABSENT

    def reading(decide: Callable[[], str]) -> str:
        try:
            return looking.reading()
        except Unseen:
            return decide()

    def creating(decide: Callable[[], str]) -> str:
        return f"not needed: bucket '{bucket}' is there" if looking.exists() else decide()

    may = account.simulation(lambda me: f"arn:{me.partition}:s3:::{bucket}/{key}", shared=True).may
    may_bucket = account.simulation(lambda me: f"arn:{me.partition}:s3:::{bucket}", shared=True).may
    yield Probe("s3:ListBucket", "objects", looking.listing)
    yield Probe("s3:GetObject", "objects", partial(reading, partial(may, "s3:GetObject")))
    for action in ("s3:PutObject", "s3:DeleteObject"):
        yield Probe(action, "objects", partial(may, action))
    yield Probe("s3:CreateBucket", "objects", partial(creating, partial(may_bucket, "s3:CreateBucket")))


def _sagemaker(
    cloud: CloudConfig,
    account: _Account,
    role: str,
    reads: Mapping[str, _Read],
    writes: Mapping[str, Sequence[str]],
) -> Iterator[Probe]:
    clients = remembered(lambda: open_clients(cloud, role))

    def read(permission: str) -> str:
        service, method, arguments = reads[permission]
        opened = clients()
        client = opened.control if service == "sagemaker" else opened.open(service, read_timeout_s=20)
        with _translated(opened.place, permission):
            getattr(client, method)(**arguments)
        return "allowed"

    for permission in reads:
        yield Probe(permission, role, partial(read, permission))
    for kind, actions in writes.items():
        simulation = account.simulation(
            lambda me, kind=kind: f"arn:{me.partition}:sagemaker:{cloud.region}:{me.account}:{kind}/{ABSENT}"
        )
        for action in actions:
            permission = f"sagemaker:{action}"
            shown = f"{permission} on {kind}" if action.endswith("Tags") else permission
            yield Probe(shown, role, partial(simulation.may, permission))
    passing = account.simulation(
        lambda _: cloud.option("role_arn"), context={"iam:PassedToService": "sagemaker.amazonaws.com"}
    )
    yield Probe("iam:PassRole on role_arn", role, partial(passing.may, "iam:PassRole"))


def _events(cloud: CloudConfig, account: _Account) -> Iterator[Probe]:
    queue = cloud.option("queue")
    name = queue.rsplit("/", 1)[-1]
    # Receiving hides messages from others for a while, so that it is no reading.
    waiting = account.simulation(lambda me: f"arn:{me.partition}:sqs:{cloud.region}:{me.account}:{name}", shared=True)

    def find() -> str:
        client = account.client("sqs", "events")
        place = Place(cloud.name, name, address_of(client.meta.endpoint_url), "queue", "events")
        with _translated(place, "sqs:GetQueueUrl"):
            client.get_queue_url(QueueName=name)
        return f"queue '{name}' is there"

    def found() -> str:
        try:
            return find()
        except NotFound as error:
            raise Terminal(error.what, "create the queue: without it no event arrives") from error

    if "://" not in queue:
        yield Probe("sqs:GetQueueUrl", "events", found)
    for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage"):
        yield Probe(action, "events", partial(waiting.may, action))


def _pulls(cloud: CloudConfig, account: _Account) -> Iterator[Probe]:
    kinds = {"ObjectStorage" if f"pull_key_{near}" in cloud.options else "AzureBlob" for near in pulled_from(cloud)}
    anywhere = account.simulation(lambda _: "*")
    for action in (*(f"CreateLocation{kind}" for kind in sorted(kinds)), *_PULLING):
        yield Probe(f"datasync:{action}", "pulls", partial(anywhere.may, f"datasync:{action}"))
    for kind, actions in _PULLING_WITH.items():
        simulation = account.simulation(
            lambda me, kind=kind: f"arn:{me.partition}:datasync:{cloud.region}:{me.account}:{kind}/{ABSENT}"
        )
        for action in actions:
            yield Probe(f"datasync:{action}", "pulls", partial(simulation.may, f"datasync:{action}"))
    passing = account.simulation(
        lambda _: cloud.option("pull_role"), context={"iam:PassedToService": "datasync.amazonaws.com"}
    )
    yield Probe("iam:PassRole on pull_role", "pulls", partial(passing.may, "iam:PassRole"))


def _quota(account: _Account, name: str, needed_for: str) -> Probe:
    return Probe("servicequotas:ListServiceQuotas", needed_for, partial(account.quota, name))


@dataclass(frozen=True, slots=True)
class _Me:
    """An identity, taken apart; `principal` is what the policy simulator knows it by, empty where it knows none."""

    partition: str
    account: str
    kind: str
    principal: str


class _Account:
    """The account that the credentials lead to."""

    def __init__(self, cloud: CloudConfig) -> None:
        self._cloud = cloud
        self._session = remembered(lambda: open_clients(cloud, "training").session)
        self.me = remembered(self._ask)
        self._quotas = remembered(self._list_quotas)

    def client(self, service: str, role: str = "identity") -> Any:
        """A client of another service of the account."""
        return self._session().client(service, endpoint_url=self._cloud.endpoint_or_public(role), config=_SETTINGS)

    def told(self) -> str:
        """Who the credentials belong to, without a person's name: users and sessions are often named after one."""
        me = self.me()
        return f"{me.kind} of account {me.account}"

    def simulation(
        self, resource: Callable[[_Me], str], *, context: Mapping[str, str] | None = None, shared: bool = False
    ) -> _Simulation:
        """What the identity's policies say about a resource; `shared`: the resource may have a policy of its own."""
        return _Simulation(self, resource, dict(context or {}), shared)

    def quota(self, name: str) -> str:
        """How much of something the account may have. Stockout: none."""
        quotas = self._quotas()
        if name not in quotas:
            raise Unseen(f"the quota '{name}' cannot be seen: there is none of this name", "check the instance type")
        if quotas[name] <= 0:
            raise Stockout(f"the quota '{name}' of '{self._cloud.name}' is 0", "ask for more in Service Quotas")
        return f"'{name}': {quotas[name]:g}"

    def place(self, client: Any, service: str) -> Place:
        """How errors name a service of the account."""
        return Place(self._cloud.name, service, address_of(client.meta.endpoint_url), "service", "identity")

    def _ask(self) -> _Me:
        client = self.client("sts")
        with _translated(self.place(client, "STS"), "sts:GetCallerIdentity"):
            arn = str(client.get_caller_identity()["Arn"])
        _, partition, _, _, account, what = arn.split(":", 5)
        kind, _, rest = what.partition("/")
        if kind == "assumed-role":
            # A role below a path is not told apart here; the simulator then does not find it.
            role = rest.partition("/")[0]
            return _Me(partition, account, f"role '{role}'", f"arn:{partition}:iam::{account}:role/{role}")
        if kind == "root":
            return _Me(partition, account, _ROOT, "")
        return _Me(partition, account, f"a {kind}", arn if kind == "user" else "")

    def _list_quotas(self) -> Mapping[str, float]:
        client, permission = self.client("service-quotas"), "servicequotas:ListServiceQuotas"
        try:
            with _translated(self.place(client, "Service Quotas"), permission):
                pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
                return {str(each["QuotaName"]): float(each["Value"]) for page in pages for each in page["Quotas"]}
        except Denied as error:
            # Lintas itself needs no quotas.
            raise Unseen(f"quotas cannot be seen without {permission}", "grant it to see them here") from error


class _Simulation:
    """The policy simulator, asked about one resource; one call an action."""

    def __init__(
        self, account: _Account, resource: Callable[[_Me], str], context: Mapping[str, str], shared: bool
    ) -> None:
        self._account, self._resource, self._context, self._shared = account, resource, context, shared

    def may(self, action: str) -> str:
        """Whether the identity's policies allow an action.

        Raises:
            Denied: They do not.
            Unseen: The simulator may not be asked, or what decides stands elsewhere.
        """
        me = self._account.me()
        if me.kind == _ROOT:
            return "the root user may do everything"
        if not me.principal:
            raise unseen(action, f"IAM does not simulate {me.kind}")
        client = self._account.client("iam")
        try:
            with _translated(self._account.place(client, "IAM"), action):
                answer = client.simulate_principal_policy(
                    PolicySourceArn=me.principal,
                    ActionNames=[action],
                    ResourceArns=[self._resource(me)],
                    ContextEntries=[
                        {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]}
                        for key, value in self._context.items()
                    ],
                )
        except Denied as error:
            raise unseen(action, f"{_SIMULATE} is not granted, which would show it") from error
        except NotFound as error:
            raise unseen(action, f"IAM finds no {me.kind} to simulate") from error
        told = answer["EvaluationResults"][0]
        if told["EvalDecision"] == "allowed":
            return "allowed by the identity's policies"
        if told["EvalDecision"] == "implicitDeny" and told.get("MissingContextValues"):
            raise unseen(action, f"it depends on {', '.join(told['MissingContextValues'])}")
        if told["EvalDecision"] == "implicitDeny" and self._shared:
            raise unseen(action, "the identity's policies do not allow it; the resource's own policy may")
        raise Denied(
            f"the policies of {me.kind} do not allow {action} on {self._resource(me)}",
            "grant it; docs/clouds/aws.md lists what is needed",
        )


@contextmanager
def _translated(place: Place, permission: str) -> Iterator[None]:
    """Raises what the block's botocore error means; a call that is not known shows nothing."""
    try:
        yield
    except boto.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _UNKNOWN_CALL:
            raise not_imitated(permission) from error
        if code == "NoSuchEntity":
            raise NotFound(f"{place.cloud}: IAM knows no such identity", "check the credentials") from error
        raise meaning(error, place) from error
    except boto.BotoCoreError as error:
        raise meaning(error, place) from error
