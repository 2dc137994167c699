"""Storage Transfer Service brings objects from S3 and Blob Storage into a bucket; see `tasks.core.ports.PullJobs`.

A job is made for one list of names (its manifest, a CSV beside the objects), run once and deleted. The service gets no
key: the cloud's options name a secret in Secret Manager, or a role on AWS, that it opens by itself. It takes the
source's metadata along.

https://cloud.google.com/storage-transfer/docs/reference/rest/v1/transferJobs
https://cloud.google.com/storage-transfer/docs/manifest
https://cloud.google.com/storage-transfer/docs/metadata-preservation
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError, NotFound, Retryable
from tasks.core.ports import Origin, origin_of
from tasks.providers._dialects.patience import seconds_of
from tasks.providers._dialects.pulls import closed_anyway
from tasks.providers.google.errors import translated
from tasks.providers.google.rest import Json, Rest

if TYPE_CHECKING:
    from tasks.core.ports import Store
    from tasks.providers._dialects.objects import Place

_PUBLIC = "https://storagetransfer.googleapis.com"
_SECRET = re.compile(r"projects/[\w-]+/secrets/[\w-]+")
_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d+:role/.+")
_TIMEOUT_S = 6 * 3600.0
_ENDING_S = 120.0


class GoogleTransfers:
    """Jobs that write into one bucket.

    Args:
        config: The cloud; `tasks.providers.google` tells its options.
        bucket: The client library's handle of the bucket.
        place: The bucket.
        call: Retries and timeouts of a call to the bucket.
    """

    takes_labels = True

    def __init__(self, config: CloudConfig, bucket: Any, place: Place, call: Mapping[str, Any]) -> None:
        self._config = config
        self._bucket = bucket
        self._place = place
        self._call = dict(call)

    @property
    def timeout_s(self) -> float:
        """See `PullJobs.timeout_s`."""
        return seconds_of(self._config, "pull_timeout_s", _TIMEOUT_S)

    def closed(self, source: Store) -> str:
        """See `PullJobs.closed`."""
        origin = origin_of(source)
        option = f"clouds.{self._config.name}.options.pull_from_{source.cloud}"
        reference = self._config.options.get(f"pull_from_{source.cloud}", "")
        if origin is None or origin.service not in ("s3", "blob"):
            return "Storage Transfer Service fetches from S3 and Azure Blob Storage alone"
        if not reference:
            return f"{option} does not name the secret or the role that opens {source.cloud} to the service"
        if not _SECRET.fullmatch(reference) and not (origin.service == "s3" and _ROLE.fullmatch(reference)):
            return f"{option} is neither projects/NUMBER/secrets/NAME nor, for S3, a role's ARN"
        if "project" not in self._config.options:
            return f"clouds.{self._config.name}.options.project is missing"
        return closed_anyway(self._config, self._place.bucket, source, origin)

    @contextmanager
    def running(self, source: Store, keys: Sequence[str], root: str) -> Iterator[Callable[[], str | None]]:
        """See `PullJobs.running`."""
        origin = origin_of(source)
        if origin is None:
            raise Invalid(f"{source.cloud} cannot be named to Storage Transfer Service", "let the move stream")
        api, project, name, listed = *self._service(), *_names(root)
        operation: Json = {}

        def look() -> str | None:
            nonlocal operation
            operation = api.get(operation["name"], "transfer")
            return _end(operation) if operation.get("done") else None

        try:
            self._write_names(listed, keys)
            api.post("transferJobs", self._job(name, project, listed, source, origin, root), "transfer job")
            operation = api.post(f"{name}:run", {"projectId": project}, "transfer job")
            yield look
        finally:
            self._end_job(api, project, name, listed, operation)

    def end_left(self, root: str) -> None:
        """See `PullJobs.end_left`."""
        self._end_job(*self._service(), *_names(root), {})

    def _service(self) -> tuple[Rest, str]:
        """The service, and the project that jobs belong to."""
        api = Rest(
            self._config,
            "transfers",
            public=_PUBLIC,
            service="Storage Transfer Service",
            api="storagetransfer.googleapis.com",
        )
        return api, self._config.option("project")

    def _write_names(self, listed: str, names: Sequence[str]) -> None:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([name] for name in names)
        with translated(self._place, listed):
            self._bucket.blob(listed).upload_from_string(
                lines.getvalue().encode(), "text/csv", checksum="crc32c", if_generation_match=0, **self._call
            )

    def _job(self, name: str, project: str, listed: str, source: Store, origin: Origin, root: str) -> Json:
        reference = self._config.option(f"pull_from_{source.cloud}")
        secret = {"credentialsSecret": reference} if _SECRET.fullmatch(reference) else {"roleArn": reference}
        if origin.service == "s3":
            near: Json = {"awsS3DataSource": {"bucketName": source.bucket, **secret}}
        else:
            container = {"storageAccount": origin.account, "container": source.bucket}
            near = {"azureBlobStorageDataSource": {**container, **secret}}
        return {
            "name": name,
            "description": "A move of Lintas; it runs once and is deleted.",
            "projectId": project,
            "status": "ENABLED",
            "transferSpec": {
                **near,
                "gcsDataSink": {"bucketName": self._place.bucket, "path": root},
                "transferManifest": {"location": f"gs://{self._place.bucket}/{listed}"},
                "transferOptions": {"overwriteWhen": "NEVER"},
            },
        }

    def _end_job(self, api: Rest, project: str, name: str, listed: str, operation: Json) -> None:
        """Cancel what still runs, wait until it has ended, and delete job and list."""
        try:
            with suppress(NotFound):
                # An answer that was lost leaves a run that nobody here has heard of.
                latest = operation or _started(api.get(name, "transfer job", projectId=project))
                self._stop(api, latest)
                api.delete(name, "transfer job", projectId=project)
            with translated(self._place, listed):
                self._bucket.delete_blobs([listed], on_error=lambda _: None, **self._call)
        except LintasError as error:
            raise Retryable(
                f"the transfer job '{name}' on '{api.cloud}' may still be there, and gs://{self._place.bucket}/{listed}",
                "delete both in the console, then run the move again",
            ) from error

    def _stop(self, api: Rest, operation: Json) -> None:
        if not operation or operation.get("done"):
            return
        api.post(f"{operation['name']}:cancel", {}, "transfer")
        api.finished(operation, "a cancelled transfer", _ENDING_S)


def _names(root: str) -> tuple[str, str]:
    """A job and its list of names, by the folder that it writes to: whoever knows the folder can end the job."""
    folder = root.rstrip("/")
    return f"transferJobs/lintas-{folder.rpartition('/')[2]}", f"{folder}.csv"


def _started(job: Json) -> Json:
    """The last run of a job, where it has any."""
    return {"name": job["latestOperationName"]} if job.get("latestOperationName") else {}


def _end(operation: Json) -> str:
    """How a finished operation ended, in the service's own codes; empty for well."""
    about: Json = operation.get("metadata", {})
    status = str(about.get("status", ""))
    if status == "SUCCESS" and "error" not in operation:
        return ""
    codes = [f"{found.get('errorCode')} {found.get('errorCount')}" for found in about.get("errorBreakdowns", ())]
    return f"{status or 'failed'}: {', '.join(codes)}" if codes else status or "failed"
