"""AWS DataSync from Blob Storage and Cloud Storage to S3: `python -m deployments.local.datasync --port N ...`.

Tasks really copy: from the twin's stores, by azure-storage-blob with the token that a secret holds and by
google-cloud-storage, to its S3 by boto3. Requests and answers are held against botocore's model of the service.

What it does not imitate it refuses: other locations, agents, Basic mode, tasks without a manifest, filters, schedules,
reports, and options by which metadata, tags or existing objects would be written. It reads Cloud Storage with a token,
where the service signs with the HMAC key whose secret it has from Secrets Manager. It keeps an object in memory, copies
one after the other, and ends a run of which an object failed as `ERROR`. IAM's roles are names. What a fault may do:

| fault | on |
| --- | --- |
| `slow_start` | a run waits `delay_s` before it copies; it can be cancelled |
| `crash` | a run fails before the object `target` |
| `wrong_bytes` | a byte of the object `target` is another |

https://docs.aws.amazon.com/datasync/latest/userguide/API_Operations.html
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import secrets as random_names
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.local.faults import ADMIN_PATH, FaultTable, administer
from deployments.local.sagemaker.wire import Account, Refused, answered, parsed, verify
from deployments.local.serve import serve
from deployments.local.storage_transfer import Found, Source, arriving, blob_source

_OPTIONS = {
    "VerifyMode": "ONLY_FILES_TRANSFERRED",
    "OverwriteMode": "NEVER",
    "PreserveDeletedFiles": "PRESERVE",
    "ObjectTags": "NONE",
    "ObjectMetadata": "NONE",
}
_NOT_IMITATED = {
    "AgentArns", "SasConfiguration", "CmkSecretConfig", "SecretKey", "FederatedIdentity", "ServerCertificate",
    "Schedule", "Includes", "Excludes", "TaskReportConfig", "CloudWatchLogGroupArn", "OverrideOptions",
    "S3StorageClass",
}  # fmt: skip
_RUNNING = ("LAUNCHING", "TRANSFERRING", "CANCELLING")
Thing = dict[str, Any]


@dataclass
class Run:
    """One execution of a task."""

    arn: str
    task: Thing
    status: str = "LAUNCHING"
    error: str = ""
    copied: int = 0
    skipped: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)


class DataSync:
    """The double of one account in one region.

    Args:
        account: Whose requests are taken, and whose S3 it writes.
        s3: URL of S3.
        blob: URL of Blob Storage, with the account.
        objects, token: URL of Cloud Storage, and a bearer token for it.
        kept: What Secrets Manager keeps, by ARN.
    """

    def __init__(self, account: Account, s3: str, blob: str, objects: str, token: str, kept: Mapping[str, str]) -> None:
        import boto3
        from botocore.config import Config

        self._account, self._blob, self._objects, self._token, self._kept = account, blob, objects, token, kept
        session = boto3.Session(account.access_key_id, account.secret_access_key, region_name=account.region)
        self._s3: Any = session.client("s3", endpoint_url=s3, config=Config(s3={"addressing_style": "path"}))
        self._faults = FaultTable()
        self._locations: dict[str, Thing] = {}
        self._tasks: dict[str, Thing] = {}
        self._runs: dict[str, Run] = {}
        self._operations: Mapping[str, Callable[[Thing], Thing]] = {
            "CreateLocationAzureBlob": self._create_near,
            "CreateLocationObjectStorage": self._create_near,
            "CreateLocationS3": self._create_location,
            "CreateTask": self._create_task,
            "DescribeTask": self._describe_task,
            "StartTaskExecution": self._start,
            "DescribeTaskExecution": self._describe_run,
            "CancelTaskExecution": self._cancel,
            "DeleteTask": self._delete_task,
            "DeleteLocation": self._delete_location,
            "ListTasks": lambda _: {"Tasks": [{"TaskArn": arn} for arn in self._tasks]},
            "ListLocations": lambda _: {"Locations": [{"LocationArn": arn} for arn in self._locations]},
            "ListTagsForResource": self._tags_of,
        }
        model = botocore.session.get_session().get_service_model("datasync")
        self._models: dict[str, Any] = {name: model.operation_model(name) for name in self._operations}

    def app(self) -> Starlette:
        """The application."""

        async def faults(request: Request) -> Response:
            return await administer(self._faults, request, ("slow_start", "crash", "wrong_bytes"))

        async def answer(request: Request) -> Response:
            body = await request.body()
            try:
                return await run_in_threadpool(self._answer, request, body)
            except Refused as refused:
                return refused.response()

        return Starlette(
            routes=[
                Route(ADMIN_PATH, faults, methods=["GET", "PUT", "DELETE"]),
                Route("/", answer, methods=["POST"]),
            ]
        )

    def _answer(self, request: Request, body: bytes) -> Response:
        verify(request, body, self._account, "datasync")
        name = request.headers.get("x-amz-target", "").removeprefix("FmrsService.")
        if name not in self._operations:
            raise Refused("UnknownOperationException", f"The local double does not imitate {name}.")
        asked = parsed(body, self._models[name])
        stray = _NOT_IMITATED & asked.keys()
        if stray:
            raise _wrong(f"Not imitated: {', '.join(sorted(stray))}.")
        return answered(self._models[name], self._operations[name](asked))

    def _create_near(self, asked: Thing) -> Thing:
        secret = asked.get("CustomSecretConfig", {})
        if not secret.get("SecretAccessRoleArn") or secret.get("SecretArn") not in self._kept:
            raise _wrong("DataSync cannot read the secret.")
        if "ServerHostname" in asked and (asked["ServerHostname"], bool(asked.get("AccessKey"))) != (
            "storage.googleapis.com",
            True,
        ):
            raise _wrong("Only Cloud Storage with an HMAC key is imitated.")
        return self._create_location(asked)

    def _create_location(self, asked: Thing) -> Thing:
        arn = self._arn("location/loc")
        self._locations[arn] = asked
        return {"LocationArn": arn}

    def _create_task(self, asked: Thing) -> Thing:
        near, far = asked["SourceLocationArn"], asked["DestinationLocationArn"]
        if near not in self._locations or "S3BucketArn" not in self._locations.get(far, {}):
            raise _wrong("A location does not exist, or is not of the right kind.")
        if asked.get("TaskMode") != "ENHANCED" or asked.get("Options") != _OPTIONS:
            raise _wrong("Not imitated: other modes and options.")
        if "S3" not in asked.get("ManifestConfig", {}).get("Source", {}):
            raise _wrong("Not imitated: a task without a manifest.")
        arn = self._arn("task/task")
        self._tasks[arn] = {**asked, "TaskArn": arn}
        return {"TaskArn": arn}

    def _tags_of(self, asked: Thing) -> Thing:
        thing = self._found({**self._tasks, **self._locations}, asked["ResourceArn"])
        return {"Tags": thing.get("Tags", [])}

    def _describe_task(self, asked: Thing) -> Thing:
        task = self._found(self._tasks, asked["TaskArn"])
        running = [run for run in self._runs.values() if run.task is task and run.status in _RUNNING]
        told = {name: value for name, value in task.items() if name != "Tags"}
        current = {"CurrentTaskExecutionArn": running[0].arn} if running else {}
        return {**told, **current, "Status": "RUNNING" if running else "AVAILABLE"}

    def _start(self, asked: Thing) -> Thing:
        task = self._found(self._tasks, asked["TaskArn"])
        arn = f"{asked['TaskArn']}/execution/exec-{_hex()}"
        self._runs[arn] = Run(arn, task)
        threading.Thread(target=self._carry_out, args=(self._runs[arn],), daemon=True).start()
        return {"TaskExecutionArn": arn}

    def _describe_run(self, asked: Thing) -> Thing:
        run = self._found(self._runs, asked["TaskExecutionArn"])
        told = {"TaskExecutionArn": run.arn, "Status": run.status, "TaskMode": "ENHANCED"}
        failed = {"Result": {"ErrorCode": run.error}} if run.error else {}
        return {**told, **failed, "FilesTransferred": run.copied, "FilesSkipped": run.skipped}

    def _cancel(self, asked: Thing) -> Thing:
        run = self._found(self._runs, asked["TaskExecutionArn"])
        if run.status not in _RUNNING:
            raise _wrong("The execution is not running.")
        run.cancelled.set()
        return {}

    def _delete_task(self, asked: Thing) -> Thing:
        task = self._found(self._tasks, asked["TaskArn"])
        if any(run.task is task and run.status in _RUNNING for run in self._runs.values()):
            raise _wrong("The task is running.")
        del self._tasks[asked["TaskArn"]]
        return {}

    def _delete_location(self, asked: Thing) -> Thing:
        arn = asked["LocationArn"]
        self._found(self._locations, arn)
        if any(arn in (task["SourceLocationArn"], task["DestinationLocationArn"]) for task in self._tasks.values()):
            raise _wrong("The location is used by a task.")
        del self._locations[arn]
        return {}

    def _carry_out(self, run: Run) -> None:
        try:
            run.error = self._copied(run)
        except Exception:
            # Whatever goes wrong in a run, somebody waits for its end.
            run.error = "InternalError"
            raise
        finally:
            run.status = "ERROR" if run.error else "SUCCESS"

    def _copied(self, run: Run) -> str:
        slow = self._faults.take("slow_start")
        if slow is not None and run.cancelled.wait(slow.delay_s):
            return "Cancelled"
        run.status = "TRANSFERRING"
        listing: Thing = run.task["ManifestConfig"]["Source"]["S3"]
        answer = self._s3.get_object(Bucket=_bucket(listing["S3BucketArn"]), Key=listing["ManifestObjectPath"])
        far, failed = self._locations[run.task["DestinationLocationArn"]], 0
        read = self._source(self._locations[run.task["SourceLocationArn"]])
        for name, *_ in csv.reader(io.StringIO(answer["Body"].read().decode())):
            if run.cancelled.is_set():
                return "Cancelled"
            if self._faults.take("crash", target=name):
                return "Crashed"
            found = read(name)
            if found is None:
                failed += 1
            elif self._written(_bucket(far["S3BucketArn"]), far.get("Subdirectory", "") + name, name, found):
                run.copied += 1
            else:
                run.skipped += 1
        return f"FilesFailed {failed}" if failed else ""

    def _source(self, near: Thing) -> Source:
        if "ContainerUrl" in near:
            token = self._kept[near["CustomSecretConfig"]["SecretArn"]]
            return blob_source(self._blob, near["ContainerUrl"].rpartition("/")[2], token)
        return self._google_source(near["BucketName"])

    def _google_source(self, bucket: str) -> Source:
        from google.api_core.exceptions import NotFound
        from google.cloud import storage
        from google.oauth2.credentials import Credentials

        endpoint = {"api_endpoint": self._objects}
        client: Any = storage.Client("any", credentials=Credentials(self._token), client_options=endpoint)

        def read(key: str) -> Found | None:
            blob = client.bucket(bucket).blob(key)
            try:
                return Found(blob.download_as_bytes(), "", {}, {})
            except NotFound:
                return None

        return read

    def _written(self, bucket: str, key: str, name: str, found: Found) -> bool:
        """Make the object; False where there is one already."""
        from botocore.exceptions import ClientError

        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body=arriving(self._faults, name, found.body), IfNoneMatch="*")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "PreconditionFailed":
                raise
            return False
        return True

    def _arn(self, kind: str) -> str:
        return f"arn:aws:datasync:{self._account.region}:{self._account.number}:{kind}-{_hex()}"

    def _found(self, among: Mapping[str, Any], arn: str) -> Any:
        if arn not in among:
            raise _wrong(f"{arn} is not found.")
        return among[arn]


def _wrong(message: str) -> Refused:
    return Refused("InvalidRequestException", message)


def _hex() -> str:
    return random_names.token_hex(9)[:17]


def _bucket(arn: str) -> str:
    return arn.rpartition(":")[2]


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="datasync", description="A local DataSync.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--region", required=True, help="the account's region")
    parser.add_argument("--s3", required=True, help="URL of S3")
    parser.add_argument("--blob", required=True, help="URL of Blob Storage, with the account")
    parser.add_argument("--objects", required=True, help="URL of Cloud Storage")
    parser.add_argument("--secrets", type=Path, required=True, help="JSON file: the key, the token, and what is kept")
    chosen = parser.parse_args()
    secret: Thing = json.loads(chosen.secrets.read_text())
    account = Account(secret["access_key_id"], secret["secret_access_key"], chosen.region)
    double = DataSync(account, chosen.s3, chosen.blob, chosen.objects, secret["google_token"], secret["kept"])
    serve(double.app(), chosen.port, access_log=False)


if __name__ == "__main__":
    main()
