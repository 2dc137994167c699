"""The application: which service a request is for, whether it may, and what a refusal looks like."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import botocore.session
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.local.faults import FaultTable, WireFaults
from deployments.local.object_access import ObjectAccess
from deployments.local.sagemaker.identity import FORM, Identity
from deployments.local.sagemaker.logs import Logs
from deployments.local.sagemaker.resources import Resources
from deployments.local.sagemaker.serving import Endpoints
from deployments.local.sagemaker.training import TrainingJobs
from deployments.local.sagemaker.wire import Account, Refused, answered, parsed, verify

Operation = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
_INVOCATIONS = re.compile(r"/endpoints/([^/]+)/invocations")
_SERVICES = {"SageMaker": "sagemaker", "Logs_20140328": "logs"}
_MOST_BYTES = 25 * 1024 * 1024


class SageMaker:
    """The double: control plane, runtime, logs, and who the caller is, on one port.

    Args:
        account: Whose requests are taken.
        objects: The account's S3.
        root: Directory for what jobs and endpoints have on their disks; emptied, since the account begins empty.
    """

    def __init__(self, account: Account, objects: ObjectAccess, root: Path) -> None:
        self._account = account
        for part in ("jobs", "endpoints"):
            shutil.rmtree(root / part, ignore_errors=True)
        self._faults = FaultTable()
        resources, logs = Resources(account), Logs(self._faults)
        self._jobs = TrainingJobs(resources, objects, logs, self._faults, root / "jobs")
        self._endpoints = Endpoints(resources, objects, logs, self._faults, root / "endpoints")
        self._identity = Identity(account, self._faults)
        tags: Mapping[str, Operation] = {
            "AddTags": resources.add_tags,
            "ListTags": resources.list_tags,
            "DeleteTags": resources.delete_tags,
        }
        self._operations: dict[str, Mapping[str, Operation]] = {
            "sagemaker": {**self._jobs.operations, **self._endpoints.operations, **tags},
            "logs": logs.operations,
        }
        session = botocore.session.get_session()
        # Only the models of the operations that are done are kept: the whole of SageMaker's takes 40 MB.
        self._models = {
            (service, name): session.get_service_model(service).operation_model(name)
            for service, operations in self._operations.items()
            for name in operations
        }

    def app(self) -> WireFaults:
        """The ASGI application."""
        routes = [
            Route("/ping", lambda _: Response("\n")),
            Route("/", self._control, methods=["POST"]),
            Route("/endpoints/{name}/invocations", self._invoke, methods=["POST"]),
        ]
        return WireFaults(Starlette(routes=routes, lifespan=self._running), self._faults, operation_of, target_of)

    @contextlib.asynccontextmanager
    async def _running(self, _: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._jobs.close()
            await self._endpoints.close()

    async def _control(self, request: Request) -> Response:
        form = request.headers.get("content-type", "").startswith(FORM)
        if form and (await request.body()).startswith(b"Action="):
            return await self._identity.answer(request)
        prefix, _, name = request.headers.get("x-amz-target", "").partition(".")
        service = _SERVICES.get(prefix, "sagemaker")
        try:
            if prefix and prefix not in _SERVICES:
                raise Refused("UnknownOperationException", f"The local double does not imitate {prefix}.{name}.")
            body = await request.body()
            verify(request, body, self._account, service)
            if name not in self._operations[service]:
                raise Refused("UnknownOperationException", f"The local double does not imitate {prefix}.{name}.")
            model = self._models[service, name]
            said = parsed(body, model)
            self._meet(name, _about(said), service)
            return answered(model, await self._operations[service][name](said))
        except Refused as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=400)

    async def _invoke(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            body = await request.body()
            verify(request, body, self._account, "sagemaker")
            if len(body) > _MOST_BYTES:
                raise Refused("ValidationError", f"The payload is larger than {_MOST_BYTES} bytes.")
            self._meet("InvokeEndpoint", name, "sagemaker")
            content, headers = await self._endpoints.invoke(name, body, request.headers)
            return Response(content, headers=headers)
        except Refused as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=400)

    def _meet(self, operation: str, target: str, service: str) -> None:
        """The faults that every operation may meet."""
        if self._faults.take("deny", operation=f"{service}:{operation}", target=target):
            user = f"arn:aws:iam::{self._account.number}:user/lintas"
            words = f"User: {user} is not authorized to perform: {service}:{operation}"
            raise Refused("AccessDeniedException", f"{words} because no identity-based policy allows it")
        if self._faults.take("throttle", operation=operation, target=target):
            raise Refused("ThrottlingException", "Rate exceeded")
        error = self._faults.take("error", operation=operation, target=target)
        if error:
            raise Refused("InternalFailure", "An internal failure occurred.", error.status)


def operation_of(scope: MutableMapping[str, Any]) -> str:
    """The operation's name: `CreateTrainingJob`, `InvokeEndpoint`, `GetLogEvents` ..."""
    if _INVOCATIONS.fullmatch(scope["path"]):
        return "InvokeEndpoint"
    headers = dict(scope["headers"])
    return headers.get(b"x-amz-target", b"").decode("latin-1").rpartition(".")[2]


def target_of(scope: MutableMapping[str, Any]) -> str:
    """The endpoint's name for invocations; what else a request is about stands in its body, which is not read yet."""
    invocation = _INVOCATIONS.fullmatch(scope["path"])
    return invocation.group(1) if invocation else ""


def _about(said: Mapping[str, Any]) -> str:
    """The name of what a request is about."""
    for key in ("TrainingJobName", "EndpointName", "EndpointConfigName", "ModelName", "logStreamName", "ResourceArn"):
        if key in said:
            return str(said[key])
    return ""
