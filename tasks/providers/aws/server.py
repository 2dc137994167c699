"""Serving on Amazon SageMaker: a model version is a Model and an EndpointConfig of one name; the Endpoint points to it.

The name of both is made of everything that could change what is served, so that the same spec again changes nothing.
SageMaker undoes an update that does not come up and is InService again, with its reason or without: therefore the
endpoint's tags say which configuration was wanted, and what is told is always the one that is in use.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import botocore.exceptions as boto

from tasks.core.attributes import Attributes
from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError, NotFound, Retryable, Terminal
from tasks.core.release import Endpoint, EndpointSpec
from tasks.providers._dialects.answers import readable, whole
from tasks.providers._dialects.scoring import answered_reason, checked_model, example_request, pack_model
from tasks.providers.aws.quirks import quirks
from tasks.providers.aws.sagemaker import (
    DIGEST_TAG,
    Clients,
    Depot,
    number,
    one_line,
    open_clients,
    open_depot,
    translated,
)

WANTED_TAG = "lintas:wanted"
UNDONE_TAG = "lintas:undone"
_VARIANT = "AllTraffic"
_JSON = "application/json"
SERVING = ("InService", "Updating", "SystemUpdating", "RollingBack", "UpdateRollbackFailed")
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack")
_PIECE_BYTES = 1024 * 1024


def open_server(cloud: CloudConfig) -> SageMakerServer:
    """The server of an AWS account in one region.

    Options: `role_arn` (the role that models take on), `serving_image` (serves MLflow models from /opt/ml/model on port
    8080, as `mlflow sagemaker build-and-push-container` builds it), `bucket` (for models), `prefix` in it,
    `serving_instance_type` (`ml.m5.large`), `serving_instances` (1).

    Raises:
        Invalid: An option is missing or wrong.
    """
    return SageMakerServer.of(cloud)


@dataclass(frozen=True, slots=True)
class _Served:
    """What a configuration serves, and which version gets a copy of so many percent of the requests."""

    version: str
    digest: str
    mirror_version: str = ""
    mirror_percent: int = 0

    @property
    def newest(self) -> str:
        """The version for whose sake the configuration was made."""
        return self.mirror_version or self.version


class SageMakerServer:
    """The `Server` port by SageMaker endpoints; see `open_server` for the options. Safe to use from several threads."""

    def __init__(
        self,
        cloud: str,
        region: str,
        clients: Clients,
        depot: Depot,
        *,
        role_arn: str,
        image: str,
        instance_type: str,
        instances: int,
    ) -> None:
        self._cloud, self._clients, self._depot = cloud, clients, depot
        self._role_arn, self._image = role_arn, image
        self._instance_type, self._instances = instance_type, instances
        self._control, self._place = clients.control, clients.place
        self._runtime = clients.open("sagemaker-runtime", read_timeout_s=quirks()["invocation_timeout_s"])
        self._url = (clients.endpoint or f"https://runtime.sagemaker.{region}.amazonaws.com").rstrip("/")
        # Configurations and examples never change; what is missing may come yet.
        self._known_configs: dict[str, _Served] = {}
        self._known_examples: dict[str, bytes] = {}

    @classmethod
    def of(cls, cloud: CloudConfig) -> Self:
        """The server that a cloud's configuration describes; see `open_server`."""
        return cls(
            cloud.name,
            cloud.region,
            open_clients(cloud, "serving"),
            open_depot(cloud),
            role_arn=cloud.option("role_arn"),
            image=cloud.option("serving_image"),
            instance_type=cloud.options.get("serving_instance_type", quirks()["serving_sku"]),
            instances=int(number(cloud, "serving_instances", 1, least=1)),
        )

    def deploy(self, spec: EndpointSpec) -> Endpoint:
        """See `Server.deploy`. The model travels only when the bucket does not have it.

        Raises:
            IntegrityError: The files at `model_path` are not those of the spec's digest.
            Invalid: There is no model at `model_path`, or one without a signature, or SageMaker refuses the request.
            Stockout: The account's quota for the machine is used up.
            Retryable: SageMaker is still at work on the endpoint.
        """
        config = self._config_name(spec)
        found = self._find(spec.name)
        if found is None or goal_of(found) != config:
            checked_model(spec)
        if found is not None and found["EndpointStatus"] == "Failed":
            # It never served; SageMaker updates no endpoint in this state.
            self.delete(spec.name)
            found = self._find(spec.name)
        if found is not None and found["EndpointStatus"] == "Deleting":
            raise Retryable(f"the endpoint '{spec.name}' of '{self._cloud}' is being deleted", "deploy again")
        if found is None:
            self._prepare(spec, config)
            self._create(spec, config)
        elif found["EndpointStatus"] in CHANGING:
            if goal_of(found) != config:
                raise Retryable(f"'{self._cloud}' is still changing the endpoint '{spec.name}'", "try again")
        elif found["EndpointConfigName"] == config:
            self._want(found, config)
        else:
            self._prepare(spec, config)
            self._update(found, config)
        return self._seen(spec.name)

    def _update(self, found: Mapping[str, Any], config: str) -> None:
        """Let the endpoint become what another configuration says."""
        undone = self._tags(found).get(WANTED_TAG) == config
        self._want(found, config, undone=config if undone else "")
        with translated(self._place):
            self._control.update_endpoint(EndpointName=found["EndpointName"], EndpointConfigName=config)

    def _seen(self, name: str) -> Endpoint:
        seen = self.describe(name)
        if seen is None:
            raise Retryable(f"the endpoint '{name}' of '{self._cloud}' is being deleted", "deploy again")
        return seen

    def describe(self, name: str) -> Endpoint | None:
        """See `Server.describe`. Healthy is what has just answered the model's own example."""
        found = self._find(name)
        if found is None or found["EndpointStatus"] == "Deleting":
            return None
        status, reason = found["EndpointStatus"], one_line(found.get("FailureReason") or "")
        url = f"{self._url}/endpoints/{name}/invocations"
        goal = self._served_by(goal_of(found))
        if status not in SERVING:
            started = f"SageMaker is starting version {goal.version}"
            failed = f"version {goal.version} does not start: {reason or 'SageMaker gives no reason'}"
            return Endpoint(
                self._cloud, name, url, 0, "", "", healthy=False, detail=started if status == "Creating" else failed
            )
        served = self._served_by(found["EndpointConfigName"])
        trouble = self._probe(name, served.digest)
        detail = trouble or self._unfinished(found, goal, reason)
        return Endpoint(
            self._cloud,
            name,
            url,
            0,
            served.digest,
            served.version,
            healthy=trouble is None,
            detail=detail,
            mirror_version=served.mirror_version,
            mirror_percent=served.mirror_percent,
        )

    def predict(self, name: str, payload: bytes) -> bytes:
        """See `Server.predict`.

        Raises:
            NotFound: There is no such endpoint.
            Invalid: The request does not fit the model's signature; the message names columns and types, no values.
            Retryable: The endpoint is busy, or its container does not answer.
        """
        limit_bytes = quirks()["payload_limit_bytes"]
        if len(payload) > limit_bytes:
            raise Invalid(f"'{self._cloud}' takes no request of more than {limit_bytes} bytes", "send fewer rows")
        try:
            return self._invoke(name, payload)
        except NotFound as error:
            raise NotFound(
                f"'{self._cloud}': there is no endpoint '{name}'", "promote the model to this cloud first"
            ) from error

    def delete(self, name: str) -> None:
        """See `Server.delete`; also the endpoint's configurations and models.

        Raises:
            Retryable: SageMaker is still at work on the endpoint and does not delete it now.
        """
        found = self._find(name)
        if found is not None and found["EndpointStatus"] != "Deleting":
            with suppress(NotFound), translated(self._place):
                self._control.delete_endpoint(EndpointName=name)
        control, root = self._control, root_of(name)
        with translated(self._place):
            pages = list(control.get_paginator("list_endpoint_configs").paginate(NameContains=root))
        for config in [each["EndpointConfigName"] for page in pages for each in page["EndpointConfigs"]]:
            if re.fullmatch(rf"{re.escape(root)}-[0-9a-f]{{16}}", config):
                with suppress(NotFound), translated(self._place):
                    control.delete_endpoint_config(EndpointConfigName=config)
                with suppress(NotFound), translated(self._place):
                    control.delete_model(ModelName=config)

    def _config_name(self, spec: EndpointSpec) -> str:
        if not _can_name(spec.name):
            raise Invalid(f"'{spec.name}' cannot name an endpoint of SageMaker", "use letters, digits and dashes")
        facts = [spec.name, spec.model, spec.version, spec.digest, self._image, self._role_arn, self._depot.uri("")]
        facts += [self._instance_type, str(self._instances)]
        return f"{root_of(spec.name)}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"

    def _prepare(self, spec: EndpointSpec, config: str) -> None:
        """Make sure of the model's archive, the Model and the EndpointConfig."""
        directory = checked_model(spec)
        key = self._model_key(spec.digest)
        try:
            self._depot.store.head(key)
        except NotFound:
            with tempfile.TemporaryFile() as archive:
                pack_model(directory, archive)
                size_bytes = archive.tell()
                archive.seek(0)
                pieces = iter(lambda: archive.read(_PIECE_BYTES), b"")
                self._depot.put(self._example_key(spec.digest), example_request(directory) or b"")
                # Last, since it stands for both.
                self._depot.store.put(key, pieces, size_bytes=size_bytes, attributes=Attributes("application/gzip"))
        environment = {"LINTAS_MODEL": spec.model, "LINTAS_VERSION": spec.version, "LINTAS_DIGEST": spec.digest}
        container = {"Image": self._image, "ModelDataUrl": self._depot.uri(key), "Environment": environment}
        variant = self._variant(_VARIANT, config)
        with unless_there(), translated(self._place):
            self._control.create_model(ModelName=config, PrimaryContainer=container, ExecutionRoleArn=self._role_arn)
        with unless_there(), translated(self._place):
            self._control.create_endpoint_config(EndpointConfigName=config, ProductionVariants=[variant])

    def _variant(self, name: str, model: str) -> dict[str, Any]:
        return {
            "VariantName": name,
            "ModelName": model,
            "InstanceType": self._instance_type,
            "InitialInstanceCount": self._instances,
            "InitialVariantWeight": 1.0,
        }

    def _create(self, spec: EndpointSpec, config: str) -> None:
        tags = [{"Key": WANTED_TAG, "Value": config}, {"Key": DIGEST_TAG, "Value": spec.digest}]
        with translated(self._place):
            self._control.create_endpoint(EndpointName=spec.name, EndpointConfigName=config, Tags=tags)

    def _find(self, name: str) -> Mapping[str, Any] | None:
        if not _can_name(name):
            return None
        try:
            with translated(self._place):
                found = self._control.describe_endpoint(EndpointName=name)
            return whole(found, self._cloud, "EndpointStatus", "EndpointConfigName", "EndpointArn")
        except NotFound:
            return None

    def _tags(self, found: Mapping[str, Any]) -> dict[str, str]:
        with translated(self._place):
            listed = self._control.list_tags(ResourceArn=found["EndpointArn"])
        with readable(self._cloud):
            return {tag["Key"]: tag["Value"] for tag in listed["Tags"]}

    def _want(self, found: Mapping[str, Any], config: str, undone: str = "") -> None:
        """Note which configuration is wanted, and whether SageMaker has already undone it once."""
        tags = self._tags(found)
        if (tags.get(WANTED_TAG), tags.get(UNDONE_TAG, "")) == (config, undone):
            return
        with translated(self._place):
            self._control.add_tags(
                ResourceArn=found["EndpointArn"],
                Tags=[{"Key": WANTED_TAG, "Value": config}, {"Key": UNDONE_TAG, "Value": undone}],
            )

    def _unfinished(self, found: Mapping[str, Any], goal: _Served, reason: str) -> str:
        """What is between an endpoint that serves and the one that was wanted; empty when nothing is."""
        tags = self._tags(found)
        wanted = tags.get(WANTED_TAG) or str(found["EndpointConfigName"])
        if found["EndpointStatus"] != "InService":
            again = tags.get(UNDONE_TAG) == wanted
            earlier = f"version {goal.newest} does not start: SageMaker has undone it once; it is tried again"
            return earlier if again else f"version {goal.newest} is starting"
        if wanted == found["EndpointConfigName"]:
            return ""
        version = self._served_by(wanted).newest
        why = (
            reason
            or f"SageMaker undid the update and gives no reason; see /aws/sagemaker/Endpoints/{found['EndpointName']}"
        )
        return f"version {version} does not start: {why}"

    def _served_by(self, config: str) -> _Served:
        """What a configuration serves; all empty when it was deleted by hand or is not ours."""
        known = self._known_configs.get(config)
        if known is not None:
            return known
        try:
            with translated(self._place):
                told = self._control.describe_endpoint_config(EndpointConfigName=config)
            model = self._told_of_model(told["ProductionVariants"][0])
            served = _Served(model["LINTAS_VERSION"], model["LINTAS_DIGEST"])
            for shadow in told.get("ShadowProductionVariants", [])[:1]:
                version, weight = self._told_of_model(shadow)["LINTAS_VERSION"], shadow["InitialVariantWeight"]
                served = replace(served, mirror_version=version, mirror_percent=round(100 * weight))
        except (NotFound, KeyError):
            return _Served("", "")
        self._known_configs[config] = served
        return served

    def _told_of_model(self, variant: Mapping[str, Any]) -> Mapping[str, str]:
        """What `_prepare` wrote into the environment of a variant's model."""
        with translated(self._place):
            model = self._control.describe_model(ModelName=variant["ModelName"])
        return model["PrimaryContainer"]["Environment"]

    def _probe(self, name: str, digest: str) -> str | None:
        """Why the endpoint does not predict, or None."""
        example = self._example_of(digest) if digest else None
        if example is None:
            return None
        try:
            self._invoke(name, example)
        except LintasError as error:
            return error.what
        return None

    def _invoke(self, name: str, payload: bytes) -> bytes:
        try:
            with translated(self._place):
                answer = self._runtime.invoke_endpoint(EndpointName=name, ContentType=_JSON, Accept=_JSON, Body=payload)
                return answer["Body"].read()
        except Terminal as error:
            if isinstance(error.__cause__, boto.ClientError):
                said = error.__cause__.response
                if said.get("Error", {}).get("Code") == "ModelError":
                    raise self._model_error(name, said) from error.__cause__
            raise

    def _model_error(self, name: str, said: Mapping[str, Any]) -> LintasError:
        """What the container answered; its body may quote the request and is never repeated."""
        status, body = int(said.get("OriginalStatusCode", 0)), str(said.get("OriginalMessage", ""))
        if 400 <= status < 500:
            return Invalid(f"'{self._cloud}' refuses the request: {answered_reason(body)}", "correct the request")
        log = f"see the log group /aws/sagemaker/Endpoints/{name}"
        if status in (0, 502, 503, 504):
            return Retryable(f"the container of '{name}' on '{self._cloud}' does not answer", "try again")
        return Terminal(f"the model of '{name}' on '{self._cloud}' failed: {answered_reason(body)}", log)

    def _example_of(self, digest: str) -> bytes | None:
        if digest not in self._known_examples:
            try:
                self._known_examples[digest] = b"".join(self._depot.store.get(self._example_key(digest)))
            except NotFound:
                return None
        return self._known_examples[digest] or None

    def _model_key(self, digest: str) -> str:
        return f"{self._folder(digest)}model.tar.gz"

    def _example_key(self, digest: str) -> str:
        return f"{self._folder(digest)}example.json"

    def _folder(self, digest: str) -> str:
        prefix = f"{self._depot.prefix}/" if self._depot.prefix else ""
        return f"{prefix}lintas-models/{digest}/"


@contextmanager
def unless_there() -> Iterator[None]:
    """Passes over SageMaker's refusal to create what exists: the names are made of the content."""
    try:
        yield
    except LintasError as error:
        if "already existing" not in error.what:
            raise


def _can_name(name: str) -> bool:
    return re.fullmatch(quirks()["name_pattern"], name) is not None


def root_of(name: str) -> str:
    """What the names of an endpoint's configurations begin with, and those of no other endpoint."""
    room = quirks()["name_room"]
    return name if len(name) <= room else f"{name[: room - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def goal_of(found: Mapping[str, Any]) -> str:
    """The configuration that an endpoint is on its way to, or at."""
    return found.get("PendingDeploymentSummary", {}).get("EndpointConfigName", found["EndpointConfigName"])
