"""AWS DataSync brings objects from Blob Storage and Cloud Storage into a bucket; see `tasks.core.ports.PullJobs`.

A task in Enhanced mode needs no agent between clouds. It is made for one list of names (its manifest, a CSV beside the
objects) with a location at either end, run once, and deleted with both. The service gets no key: it takes Azure's
token and the secret of Google's HMAC key from Secrets Manager, in a role that the cloud's options name. It brings
contents and nothing else: neither user metadata nor tags.

https://docs.aws.amazon.com/datasync/latest/userguide/choosing-task-mode.html
https://docs.aws.amazon.com/datasync/latest/userguide/transferring-with-manifest.html
https://docs.aws.amazon.com/datasync/latest/userguide/transferring-other-cloud-storage.html
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError, Retryable
from tasks.core.ports import Origin, origin_of
from tasks.providers._dialects.boto import session_of
from tasks.providers._dialects.objects import Place, address_of
from tasks.providers._dialects.patience import seconds_of, timeouts_s
from tasks.providers._dialects.pulls import closed_anyway
from tasks.providers._dialects.s3_errors import Sentence, translate
from tasks.providers.aws.errors import SQS_CODES

if TYPE_CHECKING:
    from tasks.core.ports import Store

_SECRET = re.compile(r"arn:aws[\w-]*:secretsmanager:[a-z\d-]+:\d{12}:secret:.+")
_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/.+")
_GOOGLE_HOST = "storage.googleapis.com"
_TIMEOUT_S = 6 * 3600.0
_ENDING_S = 300.0
_LOOK_S = 0.5
_TAG = "lintas-pull"
_OPTIONS = {
    "VerifyMode": "ONLY_FILES_TRANSFERRED",
    "OverwriteMode": "NEVER",
    "PreserveDeletedFiles": "PRESERVE",
    "ObjectTags": "NONE",
    "ObjectMetadata": "NONE",
}
_CODES: Mapping[str, Sentence] = MappingProxyType(
    {
        **SQS_CODES,
        "InvalidRequestException": lambda place, _key: place.rejected("InvalidRequestException"),
        "404": lambda place, _key: place.not_understood("HTTP 404"),
    }
)


class DataSync:
    """Tasks that write into one bucket.

    Args:
        config: The cloud; docs/clouds/aws.md tells its options.
        store: The bucket.
    """

    takes_labels = False

    def __init__(self, config: CloudConfig, store: Store) -> None:
        self._config = config
        self._store = store

    @property
    def timeout_s(self) -> float:
        """See `PullJobs.timeout_s`."""
        return seconds_of(self._config, "pull_timeout_s", _TIMEOUT_S)

    def closed(self, source: Store) -> str:
        """See `PullJobs.closed`."""
        origin = origin_of(source)
        options, name = self._config.options, f"clouds.{self._config.name}.options"
        if origin is None or origin.service not in ("blob", "cloud-storage"):
            return "DataSync fetches from Azure Blob Storage and Google Cloud Storage alone"
        if not _SECRET.fullmatch(options.get(f"pull_from_{source.cloud}", "")):
            return f"{name}.pull_from_{source.cloud} does not name a secret of Secrets Manager by its ARN"
        if origin.service == "cloud-storage" and not options.get(f"pull_key_{source.cloud}"):
            return f"{name}.pull_key_{source.cloud} does not name the HMAC key whose secret it is"
        if not _ROLE.fullmatch(options.get("pull_role", "")):
            return f"{name}.pull_role does not name the role of DataSync by its ARN"
        return closed_anyway(self._config, self._store.bucket, source, origin)

    @contextmanager
    def running(self, source: Store, keys: Sequence[str], root: str) -> Iterator[Callable[[], str | None]]:
        """See `PullJobs.running`."""
        origin = origin_of(source)
        if origin is None:
            raise Invalid(f"{source.cloud} cannot be named to DataSync", "let the move stream")
        task = _Task(self._config, self._store, root)
        try:
            task.begin(source, origin, keys)
            yield task.look
        finally:
            task.end()

    def end_left(self, root: str) -> None:
        """See `PullJobs.end_left`. What a job is made of bears a tag, since its ARNs may be known to nobody."""
        task = _Task(self._config, self._store, root)
        task.find()
        task.end()


class _Task:
    """One task with its two locations and its list of names."""

    def __init__(self, config: CloudConfig, store: Store, root: str) -> None:
        self._config, self._store, self._root = config, store, root
        self._listed = f"{root.rstrip('/')}.csv"
        self._tags = [{"Key": _TAG, "Value": root.strip("/").rpartition("/")[2]}]
        connect_s, read_s = timeouts_s(config)
        # What creates here knows no request ids: tried again it would make a second one.
        once = Config(connect_timeout=connect_s, read_timeout=read_s, retries={"total_max_attempts": 1})
        endpoint = config.endpoint_or_public("transfers")
        self._client: Any = session_of(config).client("datasync", endpoint_url=endpoint, config=once)
        self._place = Place(config.name, "DataSync", address_of(self._client.meta.endpoint_url), "service", "transfers")
        self._locations: list[str] = []
        self._task = self._execution = ""

    def begin(self, source: Store, origin: Origin, keys: Sequence[str]) -> None:
        """Make all of it; the task is run by `look`, once it is ready."""
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([key] for key in keys)
        listed = lines.getvalue().encode()
        self._store.put(self._listed, [listed], size_bytes=len(listed), if_absent=True)
        role, partition = self._config.option("pull_role"), self._client.meta.partition
        bucket = f"arn:{partition}:s3:::{self._store.bucket}"
        secret = {"SecretArn": self._config.option(f"pull_from_{source.cloud}"), "SecretAccessRoleArn": role}
        if origin.service == "blob":
            near = self._call(
                "create_location_azure_blob",
                ContainerUrl=f"https://{origin.account}.blob.core.windows.net/{source.bucket}",
                AuthenticationType="SAS",
                CustomSecretConfig=secret,
                Tags=self._tags,
            )
        else:
            near = self._call(
                "create_location_object_storage",
                ServerHostname=_GOOGLE_HOST,
                ServerProtocol="HTTPS",
                ServerPort=443,
                BucketName=source.bucket,
                AccessKey=self._config.option(f"pull_key_{source.cloud}"),
                CustomSecretConfig=secret,
                Tags=self._tags,
            )
        self._locations.append(near["LocationArn"])
        far = self._call(
            "create_location_s3",
            S3BucketArn=bucket,
            Subdirectory=self._root,
            S3Config={"BucketAccessRoleArn": role},
            Tags=self._tags,
        )
        self._locations.append(far["LocationArn"])
        listing = {"ManifestObjectPath": self._listed, "BucketAccessRoleArn": role, "S3BucketArn": bucket}
        self._task = self._call(
            "create_task",
            SourceLocationArn=near["LocationArn"],
            DestinationLocationArn=far["LocationArn"],
            TaskMode="ENHANCED",
            Options=_OPTIONS,
            ManifestConfig={"Action": "TRANSFER", "Format": "CSV", "Source": {"S3": listing}},
            Tags=self._tags,
        )["TaskArn"]

    def find(self) -> None:
        """Take over what another process has made for the same folder."""
        self._task = next(iter(self._tagged("list_tasks", "Tasks", "TaskArn")), "")
        self._locations = self._tagged("list_locations", "Locations", "LocationArn")

    def _tagged(self, operation: str, many: str, one: str) -> list[str]:
        found, more = list[str](), dict[str, str]()
        while True:
            page = self._call(operation, **more)
            for arn in (item[one] for item in page.get(many, ())):
                if self._tags[0] in self._call("list_tags_for_resource", ResourceArn=arn).get("Tags", ()):
                    found.append(arn)
            if not page.get("NextToken"):
                return found
            more = {"NextToken": page["NextToken"]}

    def look(self) -> str | None:
        """How it stands; see `PullJobs.running`."""
        if not self._execution:
            return self._started()
        found = self._call("describe_task_execution", TaskExecutionArn=self._execution)
        if found["Status"] == "SUCCESS":
            return ""
        return str(found.get("Result", {}).get("ErrorCode") or "ERROR") if found["Status"] == "ERROR" else None

    def _started(self) -> str | None:
        found = self._call("describe_task", TaskArn=self._task)
        if found["Status"] == "CREATING":
            return None
        if found["Status"] == "UNAVAILABLE":
            return str(found.get("ErrorCode") or "UNAVAILABLE")
        # A start whose answer was lost shows in the task.
        self._execution = (
            found.get("CurrentTaskExecutionArn")
            or (self._call("start_task_execution", TaskArn=self._task)["TaskExecutionArn"])
        )
        return None

    def end(self) -> None:
        """Cancel what still runs, wait until it has ended, and delete all of it."""
        try:
            if self._task:
                self._stop()
                self._call("delete_task", TaskArn=self._task)
            for location in self._locations:
                self._call("delete_location", LocationArn=location)
            self._store.delete(self._listed)
        except LintasError as error:
            named = ", ".join(filter(None, (self._task, *self._locations)))
            raise Retryable(
                f"DataSync on '{self._config.name}' may still have {named or 'locations'} with the tag {_TAG} ="
                f" {self._tags[0]['Value']}, and {self._store.bucket} '{self._listed}'",
                "delete them in the console, then run the move again",
            ) from error

    def _stop(self) -> None:
        execution = self._execution or self._call("describe_task", TaskArn=self._task).get("CurrentTaskExecutionArn")
        if not execution:
            return
        deadline, cancelled = time.monotonic() + _ENDING_S, False
        while self._call("describe_task_execution", TaskExecutionArn=execution)["Status"] not in ("SUCCESS", "ERROR"):
            if not cancelled:
                self._call("cancel_task_execution", TaskExecutionArn=execution)
                cancelled = True
            elif time.monotonic() > deadline:
                raise Retryable("a cancelled task goes on", "look at it in the console")
            else:
                time.sleep(_LOOK_S)

    def _call(self, operation: str, **asked: Any) -> dict[str, Any]:
        try:
            return getattr(self._client, operation)(**asked)
        except (BotoCoreError, ClientError) as error:
            raise translate(error, self._place, None, _CODES) from error
