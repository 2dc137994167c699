"""Training on CoreWeave: a Kubernetes Job a job, its files carried by way of object storage.

The Job's name is the job's, so that the same spec is one Job. Its pod fetches launcher, code, data and checkpoints
(`lintas_courier.py`), runs the launcher, and carries output, checkpoints and log away when it ends. A Job that ended is
kept as the record until `ttl_s` has passed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, NotFound
from tasks.core.ports import Store
from tasks.core.training import JobSpec, JobStatus
from tasks.providers._dialects.answers import readable
from tasks.providers._dialects.jobs import adopt_output, checkpoint_prefix, job_environment, job_prefix, pack_job
from tasks.providers._dialects.kubernetes import Cluster, Json, open_cluster
from tasks.providers.coreweave.pods import COURIER, LABEL, WORK_DIR, Pods, read_catalog
from tasks.providers.coreweave.states import CANCELLED, CONTAINER, ENDED_BY, Judgement, judge
from tasks.providers.coreweave.store import open_store

KUEUE = "kueue.x-k8s.io"
QUEUE_LABEL = f"{KUEUE}/queue-name"
_BUCKET = "lintas/bucket"
_PREFIX = "lintas/prefix"
_DIGEST = "lintas/digest"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_FAILURE_FILE = "/dev/termination-log"
_STAGING_S = 3600
_CARRY_S = 60
_ENDS_NOW_S = 1
_TAKEN_AWAY = {"type": "DisruptionTarget", "status": "True"}


def open_trainer(cloud: CloudConfig) -> CoreWeaveTrainer:
    """The trainer of a CoreWeave cloud.

    See `tasks.providers._dialects.kubernetes.open_cluster` for `endpoints.training`, `credentials.token` and
    `credentials.kubeconfig`. The object storage keys (`access_key_id`, `secret_access_key`) are kept in a Secret for
    the pods, with `mlflow_token` if there is one. Options: `image` (required: has Python and what the command needs),
    `bucket` (required: where code, output, checkpoints and logs go), `prefix` (of all keys there), `queue` (Kueue's
    LocalQueue), `spot_node_label` (`KEY=VALUE` of your spot Node Pool), `objects_in_cluster` (where pods find object
    storage; `http://cwlota.com`), `grace_s` (between asking a job to end and killing it, 30), `stockout_after_s` (how
    long a pod may wait for a node, 600), `ttl_s` (how long a Job that ended is kept, 604800), `image_pull_secret`.
    """
    return CoreWeaveTrainer(Pods(cloud, read_catalog()), open_cluster(cloud, "training"))


class CoreWeaveTrainer:
    """The `Trainer` port by Kubernetes Jobs. Safe to use from several threads.

    Args:
        pods: How pods are made.
        cluster: Where they run.
    """

    def __init__(self, pods: Pods, cluster: Cluster) -> None:
        self._pods, self._cluster = pods, cluster
        self._cloud = pods.cloud
        self._image = self._cloud.option("image")
        self._bucket = self._cloud.option("bucket")
        self._grace_s = pods.number("grace_s", 30)
        self._ttl_s = pods.number("ttl_s", 604800)
        self._stockout_after_s = pods.number("stockout_after_s", 600)

    def submit(self, job: JobSpec) -> str:
        """See `Trainer.submit`. A Job of this name that exists is returned, whatever its state.

        Raises:
            Stockout: A resource quota of the namespace is used up.
            Invalid: The dataset is not there, the code changed, or the instance type is unknown.
        """
        if self._cluster.read("Job", job.job_name) is not None:
            return job.job_name
        parcel = pack_job(job, self._cloud.name, grace_s=self._grace_s)
        courier = self._pods.courier()
        manifest = self._manifest(job, courier["metadata"]["name"])
        self._require_data(job)
        store = open_store(self._cloud, self._bucket)
        store.create_bucket()
        prefix = job_prefix(self._pods.option("prefix"), job.job_name)
        for name, content in parcel.items():
            store.put(f"{prefix}code/{name}", [content], size_bytes=len(content))
        self._cluster.create(courier)
        self._cluster.put(self._pods.keys())
        self._cluster.create(manifest)
        return job.job_name

    def poll(self, job_id: str) -> JobStatus:
        """See `Trainer.poll`. A job that has waited too long for a node is given up, so that it never starts late."""
        job = self._job(job_id)
        judgement = self._judge(job)
        if judgement.give_up:
            self._end(job, judgement.give_up)
        return judgement.status

    def logs(self, job_id: str, *, after_line: int = 0) -> Iterator[str]:
        """See `Trainer.logs`. When the pod is gone, what it carried away is read."""
        job = self._job(job_id)
        pods = self._pods_of(job_id)
        text = next((log for pod in pods if (log := self._pod_log(pod)) is not None), None)
        ended = self._judge(job).status.state.ended
        if text is None:
            text = self._kept_log(job) if ended else ""
        lines = text.split("\n")
        last = lines.pop()
        if last and ended:
            lines.append(last)
        yield from (line.rstrip("\r") for line in lines[after_line:])

    def cancel(self, job_id: str) -> None:
        """See `Trainer.cancel`. The Job stays as the record; its pod gets its notice and carries away what it has."""
        try:
            job = self._job(job_id)
        except NotFound:
            return
        if not self._judge(job).status.state.ended and ENDED_BY not in (job["metadata"].get("annotations") or {}):
            self._end(job, CANCELLED)

    def fetch_output(self, job_id: str, into: Path) -> None:
        """See `Trainer.fetch_output`.

        Raises:
            IntegrityError: What is in object storage is not what the job wrote, or it is not complete.
        """
        store, prefix = self._place(self._job(job_id))
        with tempfile.TemporaryDirectory() as folder:
            arrived = Path(folder)
            for info in store.list(f"{prefix}output/"):
                place = arrived / info.key.removeprefix(f"{prefix}output/")
                if not place.resolve().is_relative_to(arrived.resolve()):
                    raise Invalid(f"the key '{info.key}' leads outside of the output", "remove that object")
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    for piece in store.get(info.key, version=info.version):
                        file.write(piece)
            adopt_output(arrived, into, job_id)

    def _manifest(self, job: JobSpec, courier_name: str) -> Json:
        pods = self._pods
        prefix = job_prefix(pods.option("prefix"), job.job_name)
        checkpoints = checkpoint_prefix(pods.option("prefix"), job.family)
        bucket = self._bucket
        data = f"{job.data.prefix.strip('/')}/" if job.data.prefix.strip("/") else ""
        places = [
            *(bucket, f"{prefix}code/", f"{WORK_DIR}/job"),
            *(job.data.bucket, data, f"{WORK_DIR}/data"),
            *(bucket, checkpoints, f"{WORK_DIR}/checkpoints"),
        ]
        run = [
            *("python3", COURIER, "run", "--output", bucket, f"{prefix}output/", f"{WORK_DIR}/output"),
            *("--checkpoints", bucket, checkpoints, f"{WORK_DIR}/checkpoints"),
            *("--log", bucket, f"{prefix}log.txt", "--failure", _FAILURE_FILE, "--"),
            *("python3", f"{WORK_DIR}/job/lintas_launch.py", "--data", f"{WORK_DIR}/data"),
            *("--output", f"{WORK_DIR}/output", "--checkpoints", f"{WORK_DIR}/checkpoints"),
            *("--failure", _FAILURE_FILE),
        ]
        keys = pods.with_keys()
        contract = [{"name": name, "value": value} for name, value in sorted(job_environment(job).items())]
        fetch = pods.container("fetch", self._image, ["python3", COURIER, "fetch", *places], **keys)
        train = pods.container(
            CONTAINER,
            self._image,
            run,
            envFrom=keys["envFrom"],
            env=[*keys["env"], *contract],
            resources=pods.resources(job.sku),
            terminationMessagePath=_FAILURE_FILE,
        )
        spec = pods.spec(
            [train],
            courier_name,
            initContainers=[fetch],
            restartPolicy="Never",
            # The launcher keeps the timeout to the second; this is for the case that it hangs.
            activeDeadlineSeconds=int(job.timeout_s + self._grace_s) + _STAGING_S,
            terminationGracePeriodSeconds=int(self._grace_s) + _CARRY_S,
            **pods.placing(job.sku, spot=job.spot),
        )
        queue = pods.option("queue")
        labels = {LABEL: "lintas", **({QUEUE_LABEL: queue} if queue else {})}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": job.job_name,
                "labels": labels,
                "annotations": {_DIGEST: job.digest, _BUCKET: bucket, _PREFIX: prefix},
            },
            "spec": {
                # Every try is a job of its own, so that Lintas can also make the next one elsewhere.
                "backoffLimit": 0,
                "podFailurePolicy": {
                    "rules": [
                        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
                    ]
                },
                "ttlSecondsAfterFinished": int(self._ttl_s),
                **({"suspend": True} if queue else {}),
                "template": {"metadata": {"labels": {LABEL: "lintas"}}, "spec": spec},
            },
        }

    def _require_data(self, job: JobSpec) -> None:
        store = open_store(self._cloud, job.data.bucket)
        prefix = f"{job.data.prefix.strip('/')}/" if job.data.prefix.strip("/") else ""
        found: Any = None
        with suppress(NotFound):
            found = next(iter(store.list(prefix)), None)
        if found is None:
            raise Invalid(f"there is no dataset at {job.data}", "move it there first")

    def _job(self, job_id: str) -> Json:
        job = self._cluster.read("Job", job_id) if _NAME.fullmatch(job_id) else None
        if job is None:
            raise NotFound(f"there is no job '{job_id}' on '{self._cloud.name}'", "list the runs and use one's job id")
        return job

    def _pods_of(self, job_id: str) -> list[Json]:
        return self._cluster.list("Pod", labels=f"batch.kubernetes.io/job-name={job_id}")

    def _judge(self, job: Json) -> Judgement:
        name = job["metadata"]["name"]
        pods = self._pods_of(name)
        about = f"involvedObject.kind=Job,involvedObject.name={name}"
        events = [] if pods or job["spec"].get("suspend") else self._cluster.list("Event", fields=about)
        workload = self._workload(job) if job["spec"].get("suspend") else None
        with readable(self._cloud.name):
            return judge(
                job,
                pods,
                events,
                now=datetime.now(UTC),
                stockout_after_s=self._stockout_after_s,
                workload=workload,
            )

    def _workload(self, job: Json) -> Json | None:
        """What Kueue says of a Job that it has not admitted; None where it says nothing."""
        labels = f"{KUEUE}/job-uid={job['metadata']['uid']}"
        return next(iter(self._cluster.list_custom(KUEUE, "v1beta1", "workloads", labels=labels)), None)

    def _end(self, job: Json, why: str) -> None:
        """Give the Job a deadline that is over: Kubernetes ends it, and it stays as it is afterwards."""
        change: Json = {
            "metadata": {"annotations": {ENDED_BY: why}},
            "spec": {"activeDeadlineSeconds": _ENDS_NOW_S},
        }
        if job["spec"].get("suspend"):
            # Out of its queue, so that it is never admitted late; of one that was admitted Kueue keeps the label.
            change["metadata"]["labels"] = {QUEUE_LABEL: None}
        with suppress(NotFound):
            self._cluster.patch("Job", str(job["metadata"]["name"]), change)

    def _pod_log(self, pod: Json) -> str | None:
        with readable(self._cloud.name):
            name = str(pod["metadata"]["name"])
        return self._cluster.pod_log(name, CONTAINER)

    def _kept_log(self, job: Json) -> str:
        store, prefix = self._place(job)
        try:
            return b"".join(store.get(f"{prefix}log.txt")).decode(errors="replace")
        except NotFound:
            return ""

    def _place(self, job: Json) -> tuple[Store, str]:
        notes = job["metadata"].get("annotations") or {}
        if _BUCKET not in notes or _PREFIX not in notes:
            name = job["metadata"]["name"]
            raise NotFound(f"the Job '{name}' on '{self._cloud.name}' is not one of Lintas'", "use one's job id")
        return open_store(self._cloud, notes[_BUCKET]), notes[_PREFIX]
