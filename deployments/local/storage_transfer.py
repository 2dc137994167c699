"""Storage Transfer Service from S3 and Blob Storage: `python -m deployments.local.storage_transfer --port N ...`.

Jobs really copy: from the twin's stores to its Cloud Storage, by boto3 and azure-storage-blob with the key that a
secret holds, and google-cloud-storage. Requests and answers are the messages of google-cloud-storage-transfer (group
`dev`), so that a field that the service does not know is refused, and none can be answered.

What it does not imitate it refuses with 501: other sources and sinks, jobs without a manifest, schedules, conditions on
objects, deletion, notifications, roles on AWS. It keeps an object in memory, copies one after the other, and fails a
run of which an object failed. Permissions of the service's own account are not imitated. What a fault may do:

| fault | on |
| --- | --- |
| `slow_start` | a run waits `delay_s` before it copies; it can be cancelled |
| `crash` | a run fails before the object `target` |
| `wrong_bytes` | a byte of the object `target` is another |

https://cloud.google.com/storage-transfer/docs/reference/rest/v1/transferJobs
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.local.faults import ADMIN_PATH, FaultTable, administer
from deployments.local.serve import serve
from deployments.local.vertex_ai.errors import Refused, invalid, not_found

_NAME = re.compile(r"transferJobs/(?!OPI)[A-Za-z0-9\-._~]*[A-Za-z0-9]")
_JOB_FIELDS = {"name", "description", "projectId", "status", "transferSpec"}
_SPEC_FIELDS = {"awsS3DataSource", "azureBlobStorageDataSource", "gcsDataSink", "transferManifest", "transferOptions"}
_MARK = "x-goog-source-etag"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """An object of a source: its bytes, ETag, user metadata, and the headers that describe it by Google's names."""

    body: bytes
    etag: str
    metadata: Mapping[str, str]
    described: Mapping[str, str | None]


Source = Callable[[str], Found | None]
"""Reads an object by its whole key; None when there is none."""


@dataclass
class Run:
    """One run of a job."""

    name: str
    job: Json
    status: str = "IN_PROGRESS"
    copied: int = 0
    skipped: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    cancelled: threading.Event = field(default_factory=threading.Event)


class StorageTransfer:
    """The double of one project.

    Args:
        project: The project's id.
        token: The only bearer token that is accepted.
        objects: URL of Cloud Storage, which takes the same token.
        s3, region: URL of S3, and its region.
        blob: URL of Blob Storage, with the account.
        secrets: What Secret Manager keeps, by resource name: JSON as the service wants it.
    """

    def __init__(
        self, project: str, token: str, objects: str, s3: str, region: str, blob: str, secrets: Mapping[str, Json]
    ) -> None:
        from google.cloud import storage
        from google.oauth2.credentials import Credentials

        self._project, self._token = project, token
        self._google: Any = storage.Client(
            project=project, credentials=Credentials(token), client_options={"api_endpoint": objects}
        )
        self._s3, self._region, self._blob, self._secrets = s3, region, blob, secrets
        self._faults = FaultTable()
        self._jobs: dict[str, Json] = {}
        self._runs: dict[str, Run] = {}

    def app(self) -> Starlette:
        """The application."""

        async def faults(request: Request) -> Response:
            return await administer(self._faults, request, ("slow_start", "crash", "wrong_bytes"))

        async def answer(request: Request) -> Response:
            try:
                body = json.loads(await request.body() or b"{}")
                said = await run_in_threadpool(self._answer, request, body)
            except Refused as refused:
                return refused.as_response()
            except json.JSONDecodeError:
                return invalid("Invalid JSON payload received.").as_response()
            return JSONResponse(said)

        return Starlette(
            routes=[
                Route(ADMIN_PATH, faults, methods=["GET", "PUT", "DELETE"]),
                Route("/v1/{name:path}", answer, methods=["GET", "POST", "DELETE", "PATCH"]),
            ]
        )

    def _answer(self, request: Request, body: Json) -> Json:
        if request.headers.get("authorization") != f"Bearer {self._token}":
            raise Refused("UNAUTHENTICATED", "Request had invalid authentication credentials.")
        name, _, verb = request.path_params["name"].partition(":")
        match request.method, name.partition("/")[0], verb:
            case "POST", "transferJobs", "" if name == "transferJobs":
                return self._create(message("TransferJob", body))
            case "GET", "transferJobs", "" if name == "transferJobs":
                return message("ListTransferJobsResponse", {"transferJobs": list(self._jobs.values())})
            case "POST", "transferJobs", "run":
                return self._run(name, message("RunTransferJobRequest", {**body, "jobName": name}))
            case "GET" | "DELETE" as method, "transferJobs", "" if name != "transferJobs":
                if request.query_params.get("projectId") != self._project:
                    raise Refused("PERMISSION_DENIED", "The caller does not have permission")
                found = self._job(name)
                if method == "DELETE":
                    del self._jobs[name]
                    return {}
                return message("TransferJob", found)
            case "GET", "transferOperations", "" if name in self._runs:
                return self._told(self._runs[name])
            case "POST", "transferOperations", "cancel" if name in self._runs:
                self._runs[name].cancelled.set()
                return {}
            case _, "transferOperations", _:
                raise not_found(name)
            case _:
                raise Refused("UNIMPLEMENTED", f"{request.method} {name}:{verb} is not imitated.")

    def _job(self, name: str) -> Json:
        if name not in self._jobs:
            raise not_found(name)
        return self._jobs[name]

    def _create(self, job: Json) -> Json:
        spec: Json = job.get("transferSpec", {})
        stray = (job.keys() - _JOB_FIELDS) | (spec.keys() - _SPEC_FIELDS)
        stray |= spec.get("transferOptions", {}).keys() - {"overwriteWhen"}
        if stray:
            raise Refused("UNIMPLEMENTED", f"Not imitated: {', '.join(sorted(stray))}.")
        if job.get("projectId") != self._project:
            raise Refused("PERMISSION_DENIED", "The caller does not have permission")
        if job.get("status") != "ENABLED":
            raise invalid("The job's status must be specified.")
        name = job.setdefault("name", f"transferJobs/{uuid.uuid4().int}")
        if not _NAME.fullmatch(name) or len(name) > 128:
            raise invalid(f"Invalid job name: {name}")
        sources = [each for each in ("awsS3DataSource", "azureBlobStorageDataSource") if each in spec]
        if len(sources) != 1 or "gcsDataSink" not in spec or "transferManifest" not in spec:
            raise Refused("UNIMPLEMENTED", "Imitated are one source, one sink and a manifest.")
        for place in (spec[sources[0]], spec["gcsDataSink"]):
            path = place.get("path", "")
            if path and (not path.endswith("/") or path.startswith("/")):
                raise invalid("path must be empty or end with '/'.")
        keys = {"credentialsSecret", "roleArn", "awsAccessKey", "azureCredentials"} & spec[sources[0]].keys()
        if len(keys) != 1:
            raise invalid("Exactly one kind of credentials must be specified.")
        if keys != {"credentialsSecret"}:
            raise Refused("UNIMPLEMENTED", "Only secrets are imitated.")
        if spec[sources[0]]["credentialsSecret"] not in self._secrets:
            raise invalid("Failed to obtain the credentials from Secret Manager.")
        if name in self._jobs:
            raise Refused("ALREADY_EXISTS", f"{name} exists.")
        self._jobs[name] = job
        return message("TransferJob", job)

    def _run(self, name: str, asked: Json) -> Json:
        job = self._job(name)
        if asked.get("projectId") != self._project:
            raise Refused("PERMISSION_DENIED", "The caller does not have permission")
        if any(run.job is job and run.status == "IN_PROGRESS" for run in self._runs.values()):
            raise Refused("FAILED_PRECONDITION", "The job runs already.")
        run = Run(f"transferOperations/{name.replace('/', '-')}-{uuid.uuid4().int}", job)
        self._runs[run.name] = run
        job["latestOperationName"] = run.name
        threading.Thread(target=self._carry_out, args=(run,), daemon=True).start()
        return self._told(run)

    def _told(self, run: Run) -> Json:
        about = {
            "name": run.name,
            "projectId": self._project,
            "transferSpec": run.job["transferSpec"],
            "status": run.status,
            "counters": {"objectsCopiedToSink": run.copied, "objectsFromSourceSkippedBySync": run.skipped},
            "errorBreakdowns": [{"errorCode": code, "errorCount": count} for code, count in run.errors.items()],
            "transferJobName": run.job["name"],
        }
        kind = "type.googleapis.com/google.storagetransfer.v1.TransferOperation"
        told: Json = {"name": run.name, "metadata": {"@type": kind, **message("TransferOperation", about)}}
        if run.status == "IN_PROGRESS":
            return told
        if run.status == "SUCCESS":
            return {**told, "done": True, "response": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
        code = 1 if run.status == "ABORTED" else 2
        return {**told, "done": True, "error": {"code": code, "message": f"The transfer ended as {run.status}."}}

    def _carry_out(self, run: Run) -> None:
        try:
            run.status = self._copied(run)
        except Exception:
            # Whatever goes wrong in a job, somebody waits for its end.
            run.status = "FAILED"
            raise

    def _copied(self, run: Run) -> str:
        spec: Json = run.job["transferSpec"]
        slow = self._faults.take("slow_start", target=run.job["name"])
        if slow is not None and run.cancelled.wait(slow.delay_s):
            return "ABORTED"
        bucket, _, key = spec["transferManifest"]["location"].removeprefix("gs://").partition("/")
        listed: str = self._google.bucket(bucket).blob(key).download_as_bytes().decode()
        read, root = self._source(spec)
        for name, *_ in csv.reader(io.StringIO(listed)):
            if run.cancelled.is_set():
                return "ABORTED"
            if self._faults.take("crash", target=name):
                return "FAILED"
            found = read(root + name)
            if found is None:
                run.errors["NOT_FOUND"] += 1
            elif self._written(spec, name, found):
                run.copied += 1
            else:
                run.skipped += 1
        return "FAILED" if run.errors else "SUCCESS"

    def _source(self, spec: Json) -> tuple[Source, str]:
        if "awsS3DataSource" in spec:
            near = spec["awsS3DataSource"]
            return self._s3_source(near["bucketName"], self._secrets[near["credentialsSecret"]]), near.get("path", "")
        near = spec["azureBlobStorageDataSource"]
        return blob_source(
            self._blob, near["container"], self._secrets[near["credentialsSecret"]]["sas_token"]
        ), near.get("path", "")

    def _s3_source(self, bucket: str, secret: Json) -> Source:
        import boto3
        from botocore.config import Config

        session = boto3.Session(secret["access_key_id"], secret["secret_access_key"], region_name=self._region)
        client: Any = session.client("s3", endpoint_url=self._s3, config=Config(s3={"addressing_style": "path"}))

        def read(key: str) -> Found | None:
            try:
                answer = client.get_object(Bucket=bucket, Key=key)
            except client.exceptions.NoSuchKey:
                return None
            return Found(
                answer["Body"].read(),
                answer["ETag"].strip('"'),
                answer["Metadata"],
                {
                    "content_type": answer.get("ContentType"),
                    "content_encoding": answer.get("ContentEncoding"),
                    "content_language": answer.get("ContentLanguage"),
                    "content_disposition": answer.get("ContentDisposition"),
                    "cache_control": answer.get("CacheControl"),
                },
            )

        return read

    def _written(self, spec: Json, name: str, found: Found) -> bool:
        """Make the object; False where there is one already that is to stay."""
        from google.api_core.exceptions import PreconditionFailed

        options: Json = spec.get("transferOptions", {})
        body = arriving(self._faults, name, found.body)
        sink = spec["gcsDataSink"]
        blob = self._google.bucket(sink["bucketName"]).blob(sink.get("path", "") + name)
        blob.metadata = {**found.metadata, _MARK: found.etag}
        for field_name, value in found.described.items():
            if value:
                setattr(blob, field_name, value)
        only_new = {"if_generation_match": 0} if options.get("overwriteWhen") == "NEVER" else {}
        try:
            blob.upload_from_string(body, found.described.get("content_type"), **only_new)
        except PreconditionFailed:
            return False
        return True


def blob_source(endpoint: str, container: str, sas_token: str) -> Source:
    """The blobs of a container, read with a token alone."""
    from azure.core.exceptions import ResourceNotFoundError
    from azure.storage.blob import BlobServiceClient

    client = BlobServiceClient(endpoint, credential=sas_token).get_container_client(container)

    def read(key: str) -> Found | None:
        try:
            answer = client.download_blob(key)
        except ResourceNotFoundError:
            return None
        about = answer.properties
        kept: Any = about.content_settings
        names = ("content_type", "content_encoding", "content_language", "content_disposition", "cache_control")
        described = {name: getattr(kept, name) for name in names}
        return Found(answer.readall(), about.etag.strip('"'), about.metadata or {}, described)

    return read


def arriving(faults: FaultTable, name: str, body: bytes) -> bytes:
    """An object's bytes as they arrive: with another one, where `wrong_bytes` is to befall it."""
    if not faults.take("wrong_bytes", target=name):
        return body
    place = faults.place_in(body)
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def message(kind: str, body: Json) -> Json:
    """A message of the service as JSON, every field of which it has. Raises `Refused` otherwise."""
    from google.cloud import storage_transfer_v1

    wrapper: Any = getattr(storage_transfer_v1, kind)
    try:
        parsed = json_format.ParseDict(body, wrapper.pb(wrapper()))
    except json_format.ParseError as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    return json_format.MessageToDict(parsed)


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="storage_transfer", description="A local Storage Transfer Service.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--project", required=True, help="id of the only project")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the bearer token to accept")
    parser.add_argument("--objects", required=True, help="URL of Cloud Storage, which takes the same token")
    parser.add_argument("--s3", required=True, help="URL of S3")
    parser.add_argument("--region", required=True, help="its region")
    parser.add_argument("--blob", required=True, help="URL of Blob Storage, with the account")
    parser.add_argument("--secrets", type=Path, required=True, help="JSON file: what Secret Manager keeps, by name")
    chosen = parser.parse_args()
    double = StorageTransfer(
        chosen.project,
        chosen.token_file.read_text().strip(),
        chosen.objects,
        chosen.s3,
        chosen.region,
        chosen.blob,
        json.loads(chosen.secrets.read_text()),
    )
    serve(double.app(), chosen.port, access_log=False)


if __name__ == "__main__":
    main()
