"""Models, endpoint configurations and endpoints: the operations, and how an endpoint comes to serve what it should.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html (what the container finds)
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tarfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from deployments.local.compute import ModelRunner, log_lines
from deployments.local.faults import FaultTable
from deployments.local.object_access import ObjectAccess
from deployments.local.sagemaker.logs import Logs
from deployments.local.sagemaker.resources import Resources, Thing
from deployments.local.sagemaker.training import split
from deployments.local.sagemaker.wire import Refused, invalid
from tasks.core.errors import LintasError
from tasks.providers.onprem.scoring.fork_server import ScoringProcess

MODEL, CONFIG, ENDPOINT = "model", "endpoint-config", "endpoint"
_HEALTH_TIMEOUT_S = 60.0
_STEADY = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")
_NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. Please retry using "
    "a different ML instance type or after some time."
)


class DeploymentFailed(Exception):
    """A variant does not come up; the text is the endpoint's FailureReason."""


@dataclass
class Variant:
    """One production or shadow variant while it serves; the answers of a shadow reach nobody."""

    process: ScoringProcess
    weight: float
    configured: Thing
    directory: Path
    shadow: bool = False


class Endpoints:
    """The operations on models, endpoint configurations and endpoints.

    Args:
        resources: Where they are entered.
        objects: The account's S3.
        logs: Where they write.
        faults: What may go wrong.
        root: Directory for what instances have on their disks.
    """

    def __init__(self, resources: Resources, objects: ObjectAccess, logs: Logs, faults: FaultTable, root: Path) -> None:
        self._resources, self._objects, self._logs, self._faults = resources, objects, logs, faults
        self._root = root
        self.models = ModelRunner(root)
        self._serving: dict[str, dict[str, Variant]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._choice = random.Random(0)  # noqa: S311 - which variant answers
        self.operations = {
            "CreateModel": self.create_model,
            "DescribeModel": self.describe_model,
            "DeleteModel": self.delete_model,
            "ListModels": self.list_models,
            "CreateEndpointConfig": self.create_config,
            "DescribeEndpointConfig": self.describe_config,
            "DeleteEndpointConfig": self.delete_config,
            "ListEndpointConfigs": self.list_configs,
            "CreateEndpoint": self.create,
            "UpdateEndpoint": self.update,
            "UpdateEndpointWeightsAndCapacities": self.update_weights,
            "DescribeEndpoint": self.describe,
            "DeleteEndpoint": self.delete,
            "ListEndpoints": self.list,
        }

    async def create_model(self, request: Thing) -> Thing:
        """CreateModel."""
        name = request["ModelName"]
        for needed in ("PrimaryContainer", "ExecutionRoleArn"):
            if needed not in request:
                raise invalid(f"{needed} is required.")
        uri = request["PrimaryContainer"].get("ModelDataUrl", "")
        if not await asyncio.to_thread(self._exists, uri):
            raise invalid(f"Could not find model data at {uri}.")
        return {"ModelArn": self._add(MODEL, name, {**request, "ModelArn": self._resources.account.arn(MODEL, name)})}

    async def describe_model(self, request: Thing) -> Thing:
        """DescribeModel."""
        return self._resources.named(MODEL, request["ModelName"])

    async def delete_model(self, request: Thing) -> Thing:
        """DeleteModel."""
        self._resources.remove(MODEL, request["ModelName"])
        return {}

    async def list_models(self, request: Thing) -> Thing:
        """ListModels, all on one page."""
        return {"Models": self._resources.listed(MODEL, request)}

    async def create_config(self, request: Thing) -> Thing:
        """CreateEndpointConfig."""
        name = request["EndpointConfigName"]
        serving, shadows = request["ProductionVariants"], request.get("ShadowProductionVariants", [])
        if shadows and (len(serving), len(shadows)) != (1, 1):
            raise invalid(
                "With shadow variants there can be one ProductionVariant and one ShadowProductionVariant only."
            )
        if len({variant["VariantName"] for variant in (*serving, *shadows)}) < len(serving) + len(shadows):
            raise invalid("The names of variants must be unique within an endpoint configuration.")
        for variant in (*serving, *shadows):
            if "ModelName" not in variant or "InstanceType" not in variant:
                raise invalid("A production variant needs ModelName and InstanceType.")
            self._resources.named(MODEL, variant["ModelName"])
        arn = self._resources.account.arn(CONFIG, name)
        return {"EndpointConfigArn": self._add(CONFIG, name, {**request, "EndpointConfigArn": arn})}

    async def describe_config(self, request: Thing) -> Thing:
        """DescribeEndpointConfig."""
        return self._resources.named(CONFIG, request["EndpointConfigName"])

    async def delete_config(self, request: Thing) -> Thing:
        """DeleteEndpointConfig."""
        self._resources.remove(CONFIG, request["EndpointConfigName"])
        return {}

    async def list_configs(self, request: Thing) -> Thing:
        """ListEndpointConfigs, all on one page."""
        return {"EndpointConfigs": self._resources.listed(CONFIG, request)}

    async def create(self, request: Thing) -> Thing:
        """CreateEndpoint."""
        name, config = request["EndpointName"], request["EndpointConfigName"]
        self._resources.named(CONFIG, config)
        self._check_quota("CreateEndpoint", name)
        arn = self._resources.account.arn(ENDPOINT, name)
        self._add(ENDPOINT, name, {**request, "EndpointArn": arn, "EndpointStatus": "Creating"})
        self._begin(name, config)
        return {"EndpointArn": arn}

    async def update(self, request: Thing) -> Thing:
        """UpdateEndpoint: the new fleet starts beside the old one, which stays if the new one does not come up."""
        name, config = request["EndpointName"], request["EndpointConfigName"]
        endpoint = self._resources.named(ENDPOINT, name)
        self._resources.named(CONFIG, config)
        if endpoint["EndpointStatus"] != "InService":
            raise invalid(f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')
        self._check_quota("UpdateEndpoint", name)
        endpoint["EndpointStatus"], endpoint["FailureReason"] = "Updating", None
        endpoint["PendingDeploymentSummary"] = {"EndpointConfigName": config, "StartTime": time.time()}
        self._begin(name, config)
        return {"EndpointArn": endpoint["EndpointArn"]}

    async def update_weights(self, request: Thing) -> Thing:
        """UpdateEndpointWeightsAndCapacities; capacities are numbers without an effect."""
        endpoint = self._resources.named(ENDPOINT, request["EndpointName"])
        serving = self._serving.get(request["EndpointName"], {})
        for wanted in request["DesiredWeightsAndCapacities"]:
            if wanted["VariantName"] not in serving:
                raise invalid(f"The production variant {wanted['VariantName']} does not exist.")
            serving[wanted["VariantName"]].weight = wanted.get("DesiredWeight", 1.0)
        return {"EndpointArn": endpoint["EndpointArn"]}

    async def describe(self, request: Thing) -> Thing:
        """DescribeEndpoint."""
        name = request["EndpointName"]
        told: dict[str, list[Thing]] = {"ProductionVariants": [], "ShadowProductionVariants": []}
        for variant, serving in self._serving.get(name, {}).items():
            count = serving.configured.get("InitialInstanceCount", 1)
            told["ShadowProductionVariants" if serving.shadow else "ProductionVariants"].append(
                {
                    "VariantName": variant,
                    "CurrentWeight": serving.weight,
                    "DesiredWeight": serving.weight,
                    "CurrentInstanceCount": count,
                    "DesiredInstanceCount": count,
                }
            )
        return {**self._resources.named(ENDPOINT, name), **{kind: each or None for kind, each in told.items()}}

    async def delete(self, request: Thing) -> Thing:
        """DeleteEndpoint: it is gone when its instances are."""
        name = request["EndpointName"]
        endpoint = self._resources.named(ENDPOINT, name)
        if endpoint["EndpointStatus"] not in _STEADY:
            raise invalid(f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')
        endpoint["EndpointStatus"] = "Deleting"
        self._spawn(self._delete(name))
        return {}

    async def list(self, request: Thing) -> Thing:
        """ListEndpoints, all on one page."""
        return {"Endpoints": self._resources.listed(ENDPOINT, request)}

    async def invoke(self, name: str, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        """InvokeEndpoint: the body and the headers of the answer."""
        variants = self._serving.get(name)
        if not variants:
            raise Refused(
                "ValidationError", f"Endpoint {name} of account {self._resources.account.number} not found.", 400
            )
        target = headers.get("x-amzn-sagemaker-target-variant")
        if target is not None and (target not in variants or variants[target].shadow):
            raise Refused("ValidationError", f"Variant {target} not found for endpoint {name}.")
        answering = {key: variant for key, variant in variants.items() if not variant.shadow}
        chosen = target or self._choice.choices(list(answering), [each.weight for each in answering.values()])[0]
        sent = {key: headers[key] for key in ("content-type", "accept") if key in headers}
        for variant in variants.values():
            # The share of a shadow is the ratio of its weight to that of the variant which answers.
            if variant.shadow and self._choice.random() < variant.weight / variants[chosen].weight:
                self._spawn(self._copy(variant, body, sent))
        try:
            answer = await self.models.score(variants[chosen].process, body, sent)
        except httpx.HTTPError as error:
            raise _model_error(chosen, 0, "the container does not answer", name) from error
        if answer.status_code >= 400:
            raise _model_error(chosen, answer.status_code, answer.text, name)
        content = answer.headers.get("content-type", "application/octet-stream")
        return answer.content, {"content-type": content, "x-Amzn-Invoked-Production-Variant": chosen}

    async def _copy(self, shadow: Variant, body: bytes, headers: Mapping[str, str]) -> None:
        with suppress(httpx.HTTPError):
            await self.models.score(shadow.process, body, headers)

    async def close(self) -> None:
        """End everything that serves."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self.models.close()

    def _add(self, kind: str, name: str, thing: Thing) -> str:
        noun = kind.replace("-", " ")
        taken = invalid(f'Cannot create already existing {noun} "{self._resources.account.arn(kind, name)}".')
        return self._resources.add(kind, name, thing, taken)

    def _exists(self, uri: str) -> bool:
        bucket, key = split(uri)
        try:
            return bucket != "" and key in self._objects.keys(bucket, key)
        except (BotoCoreError, ClientError):
            return False

    def _check_quota(self, operation: str, name: str) -> None:
        if self._faults.take("quota", operation=operation, target=name):
            raise Refused(
                "ResourceLimitExceeded",
                "The account-level service limit 'ml.m5.large for endpoint usage' is 0 Instances, with current "
                "utilization of 0 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to "
                "request an increase for this quota.",
            )

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _begin(self, name: str, config: str) -> None:
        self._spawn(self._deploy(name, config))

    async def _deploy(self, name: str, config: str) -> None:
        endpoint = self._resources.named(ENDPOINT, name)
        fresh: dict[str, Variant] = {}
        try:
            wanted = self._resources.named(CONFIG, config)
            for variant in wanted["ProductionVariants"]:
                fresh[variant["VariantName"]] = await self._start(name, variant)
            for variant in wanted.get("ShadowProductionVariants", []):
                fresh[variant["VariantName"]] = replace(await self._start(name, variant), shadow=True)
        except (DeploymentFailed, Refused, LintasError, BotoCoreError, ClientError, OSError, tarfile.TarError) as error:
            # What served before goes on; an endpoint that served nothing has failed.
            endpoint["EndpointStatus"] = "InService" if self._serving.get(name) else "Failed"
            endpoint["FailureReason"] = str(error)
            for variant in fresh.values():
                self._spawn(self._retire(variant))
        else:
            old, self._serving[name] = self._serving.get(name, {}), fresh
            endpoint["EndpointConfigName"], endpoint["EndpointStatus"] = config, "InService"
            for variant in old.values():
                self._spawn(self._retire(variant))
        endpoint.pop("PendingDeploymentSummary", None)
        endpoint["LastModifiedTime"] = time.time()

    async def _start(self, name: str, variant: Thing) -> Variant:
        """A variant that answers its health check."""
        slow = self._faults.take("slow_start", operation="CreateEndpoint", target=name)
        if slow:
            await asyncio.sleep(slow.delay_s)
        if self._faults.take("stockout", operation="CreateEndpoint", target=name):
            raise DeploymentFailed(_NO_CAPACITY)
        home = self._root / uuid.uuid4().hex
        container = self._resources.named(MODEL, variant["ModelName"])["PrimaryContainer"]
        log = self._root / f"{home.name}.log"
        sick = (
            f"The primary container for production variant {variant['VariantName']} did not pass the ping health check."
        )
        try:
            model = await asyncio.to_thread(self._unpack, container["ModelDataUrl"], home)
            process = await self.models.start(model, log)
            stream = f"{variant['VariantName']}/i-{home.name[:17]}"
            self._logs.add(f"/aws/sagemaker/Endpoints/{name}", stream, lambda: log_lines(log, ended=False))
            trouble = await self.models.ping(process, _HEALTH_TIMEOUT_S)
            if trouble is None and not self._faults.take("unhealthy", operation="CreateEndpoint", target=name):
                return Variant(process, variant.get("InitialVariantWeight", 1.0), variant, home)
            await self.models.retire(process)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        shutil.rmtree(home, ignore_errors=True)
        raise DeploymentFailed(f"{sick} Please check CloudWatch logs for this endpoint.")

    def _unpack(self, uri: str, home: Path) -> Path:
        home.mkdir(parents=True)
        bucket, key = split(uri)
        self._objects.download(bucket, key, home / "model.tar.gz")
        with tarfile.open(home / "model.tar.gz") as tar:
            tar.extractall(home / "model", filter="data")
        (home / "model.tar.gz").unlink()
        return home / "model"

    async def _retire(self, variant: Variant) -> None:
        await self.models.retire(variant.process)
        shutil.rmtree(variant.directory, ignore_errors=True)

    async def _delete(self, name: str) -> None:
        for variant in self._serving.pop(name, {}).values():
            await self._retire(variant)
        self._resources.remove(ENDPOINT, name)


def _model_error(variant: str, status: int, text: str, endpoint: str) -> Refused:
    kind = "client" if 400 <= status < 500 else "server"
    return Refused(
        "ModelError",
        f'Received {kind} error ({status}) from {variant} with message "{text}". See the log group '
        f"/aws/sagemaker/Endpoints/{endpoint} for more information.",
        424,
        OriginalStatusCode=status,
        OriginalMessage=text,
        LogStreamArn=f"arn:aws:logs:log-group:/aws/sagemaker/Endpoints/{endpoint}",
    )
