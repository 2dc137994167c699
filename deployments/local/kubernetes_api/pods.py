"""The kubelet of the double: makes pods run as processes of this machine and tells what became of them.

A container is a process in a directory of its own, with the environment that its manifest gives it and with mount paths
rewritten to where the volumes are here. `python3 -m mlflow models serve --model-uri DIR` is served by a fork of a
process that has imported MLflow already. https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.local.compute import JobRunner, ModelRunner, RunningJob, log_lines
from deployments.local.faults import Fault, FaultTable
from deployments.local.kubernetes_api.nodes import choose_node
from deployments.local.kubernetes_api.objects import Json, Key, Objects, now
from tasks.providers.onprem.scoring.fork_server import ScoringProcess

_LOOK_S = 0.2
_PROBE_TIMEOUT_S = 60.0
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 15.0
_MESSAGE_BYTES = 4096
_START_ERROR = 128
_DEFAULT_GRACE_S = 30
_UNKNOWN_REGISTRY = re.compile(r"^[\w.-]+\.invalid(:\d+)?/")


class ConfigMissing(Exception):
    """A container names a Secret or ConfigMap that is not there."""


@dataclass(eq=False)
class RunningPod:
    """What runs for one pod."""

    directory: Path
    task: asyncio.Task[None] | None = None
    job: RunningJob | None = None
    model: ScoringProcess | None = None
    stopping: bool = False
    timers: list[asyncio.Task[None]] = field(default_factory=list["asyncio.Task[None]"])


class Kubelet:
    """Runs the pods of all nodes.

    Args:
        objects: The cluster's objects.
        root: Directory for volumes and logs, one a pod.
        faults: What shall go wrong.
    """

    def __init__(self, objects: Objects, root: Path, faults: FaultTable) -> None:
        shutil.rmtree(root, ignore_errors=True)
        self._objects, self._root, self._faults = objects, root, faults
        self._jobs, self._models = JobRunner(), ModelRunner(root)
        self._running: dict[Key, RunningPod] = {}
        self._ending: dict[Key, asyncio.Task[None]] = {}

    def start(self, key: Key) -> None:
        """Begin with a pod that was just created."""
        running = RunningPod(self._root / key[2])
        self._running[key] = running
        running.task = asyncio.create_task(self._run(key, running))

    def delete(self, key: Key) -> None:
        """Take a pod out of its services at once, end it with its notice, then forget it."""
        pod = self._objects.find(key)
        if pod is None or key in self._ending:
            return
        pod["metadata"]["deletionTimestamp"] = now()
        self._objects.save(key)
        self._ending[key] = asyncio.create_task(self._end(key, pod))

    def directory(self, key: Key) -> Path:
        """Where the pod's volumes and logs are."""
        return self._root / key[2]

    def log(self, key: Key, container: str) -> str | None:
        """What a container has written; None when it has not begun."""
        file = self._root / key[2] / f"{container}.log"
        if not file.exists():
            return None
        ended = "terminated" in _status_of(self._objects.get(key), container).get("state", {})
        whole = "\n".join(log_lines(file, ended=True))
        return whole if ended and not file.read_bytes().endswith(b"\n") else f"{whole}\n" if whole else ""

    def scoring_process(self, key: Key) -> ScoringProcess | None:
        """The process of a pod that serves a model."""
        running = self._running.get(key)
        return None if running is None else running.model

    @property
    def models(self) -> ModelRunner:
        """Asks scoring processes."""
        return self._models

    async def close(self) -> None:
        """End everything."""
        for running in self._running.values():
            running.stopping = True
            for task in (running.task, *running.timers):
                if task is not None:
                    task.cancel()
        await self._jobs.close()
        await self._models.close()

    async def _end(self, key: Key, pod: Json) -> None:
        running = self._running.get(key)
        try:
            if running is not None:
                running.stopping = True
                await self._stop_processes(pod, running)
                if running.task is not None:
                    # It notes how the containers ended.
                    await asyncio.wait({running.task}, timeout=1.0)
                    running.task.cancel()
        finally:
            self._running.pop(key, None)
            self._ending.pop(key, None)
            self._objects.remove(key)

    async def _stop_processes(self, pod: Json, running: RunningPod) -> None:
        sleep_s = max(
            (each.get("lifecycle") or {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            for each in pod["spec"]["containers"]
        )
        if running.job is not None or running.model is not None:
            await asyncio.sleep(sleep_s)
        if running.job is not None:
            await running.job.stop(pod["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S))
        if running.model is not None:
            await self._models.retire(running.model)

    async def _run(self, key: Key, running: RunningPod) -> None:
        pod = self._objects.get(key)
        owner = next((each["name"] for each in pod["metadata"].get("ownerReferences", [])), key[2])
        await self._place(key, pod, owner)
        slow = self._faults.take("slow_start", target=owner)
        if slow is not None:
            await asyncio.sleep(slow.delay_s)
        await self._pull(key, pod)
        running.directory.mkdir(parents=True, exist_ok=True)
        again = pod["spec"].get("restartPolicy", "Always")
        restarts = 0
        while not running.stopping:
            code = 0
            for container in pod["spec"].get("initContainers") or []:
                code = await self._run_container(key, pod, container, running, restarts, "initContainerStatuses")
                if code:
                    break
            if not code:
                code = await self._run_main(key, pod, running, restarts, owner)
            if running.stopping or again == "Never" or (again == "OnFailure" and not code):
                self._phase(key, pod, "Failed" if code else "Succeeded")
                return
            restarts += 1
            await self._back_off(key, pod, restarts)

    async def _place(self, key: Key, pod: Json, owner: str) -> None:
        """Wait for a node."""
        told = ""
        faulty = self._faults.take("stockout", target=owner)
        while True:
            nodes = [found for _, found in self._objects.all("nodes")]
            others = [found for other, found in self._objects.all("pods") if other != key]
            node, why = choose_node(pod["spec"], nodes, others)
            if faulty is not None and self._faults.holds(faulty):
                node, why = "", f"0/{len(nodes)} nodes are available: {len(nodes)} Insufficient nvidia.com/gpu."
            if node:
                break
            if why != told:
                told = why
                condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
                self._condition(pod, condition)
                self._objects.save(key)
                self._objects.event(pod, "Warning", "FailedScheduling", why)
            await asyncio.sleep(_LOOK_S)
        pod["spec"]["nodeName"] = node
        pod["status"]["startTime"] = now()
        self._condition(pod, {"type": "PodScheduled", "status": "True"})
        self._objects.save(key)
        self._objects.event(pod, "Normal", "Scheduled", f"Successfully assigned {key[1]}/{key[2]} to {node}")

    async def _pull(self, key: Key, pod: Json) -> None:
        """Images are not needed here; but one of a registry that cannot exist (RFC 6761) is not had, as elsewhere."""
        spec = pod["spec"]
        missing = next(
            (
                (each, section)
                for section, containers in (
                    ("initContainerStatuses", spec.get("initContainers") or []),
                    ("containerStatuses", spec["containers"]),
                )
                for each in containers
                if _UNKNOWN_REGISTRY.match(each["image"])
            ),
            None,
        )
        if missing is None:
            return
        container, section = missing
        for reason in ("ErrImagePull", "ImagePullBackOff"):
            self._tell(key, pod, container, section, {"waiting": {"reason": reason, "message": "no such host"}})
            self._objects.event(pod, "Warning", "Failed", f'Failed to pull image "{container["image"]}": no such host')
            await asyncio.sleep(_LOOK_S)
        await asyncio.Event().wait()

    async def _run_container(
        self, key: Key, pod: Json, container: Json, running: RunningPod, restarts: int, section: str
    ) -> int:
        """Run a container to its end; returns its exit code."""
        environment = await self._environment_when_there(key, pod, container, section)
        mounts = self._mounts(pod, container, running.directory)
        words = running.directory / f"{container['name']}.message"
        words.unlink(missing_ok=True)
        mounts[container.get("terminationMessagePath") or "/dev/termination-log"] = words
        began = now()
        arguments = [*(container.get("command") or []), *(container.get("args") or [])]
        try:
            running.job = await self._jobs.start(
                [_expanded(each, environment) for each in arguments],
                environment=environment,
                directory=running.directory / f"{container['name']}.home",
                log=running.directory / f"{container['name']}.log",
                mounts=mounts,
            )
        except OSError as error:
            message = f"exec: {error.strerror}"
            self._ended(key, pod, container, section, _START_ERROR, began, restarts, "StartError", message)
            return _START_ERROR
        self._tell(key, pod, container, section, {"running": {"startedAt": began}}, ready=True, restarts=restarts)
        code = await running.job.wait()
        running.job = None
        message = words.read_text(errors="replace")[:_MESSAGE_BYTES] if words.exists() else ""
        self._ended(key, pod, container, section, code, began, restarts, "", message)
        return code

    async def _run_main(self, key: Key, pod: Json, running: RunningPod, restarts: int, owner: str) -> int:
        container = pod["spec"]["containers"][0]
        self._phase(key, pod, "Running")
        for kind in ("preempt", "crash"):
            fault = self._faults.take(kind, target=owner)
            if fault is not None:
                running.timers.append(asyncio.create_task(self._befall(fault, key, pod, running)))
        model_uri = _model_of(container)
        if model_uri is None:
            code = self._run_container(key, pod, container, running, restarts, "containerStatuses")
            limit_s = pod["spec"].get("activeDeadlineSeconds")
            try:
                return await asyncio.wait_for(code, limit_s)
            except TimeoutError:
                pod["status"].update(reason="DeadlineExceeded", message="Pod was active longer than specified deadline")
                await self._stop_processes(pod, running)
                return 137
        directory = Path(_in(model_uri, self._mounts(pod, container, running.directory)))
        return await self._serve(key, pod, container, running, directory, restarts, owner)

    async def _serve(
        self,
        key: Key,
        pod: Json,
        container: Json,
        running: RunningPod,
        directory: Path,
        restarts: int,
        owner: str,
    ) -> int:
        began, section = now(), "containerStatuses"
        process = await self._models.start(directory, running.directory / f"{container['name']}.log")
        running.model = process
        self._tell(key, pod, container, section, {"running": {"startedAt": began}}, restarts=restarts)
        unhealthy = self._faults.take("unhealthy", target=owner)
        trouble = await self._models.ping(process, _PROBE_TIMEOUT_S)
        while unhealthy is not None and self._faults.holds(unhealthy) and not process.ended.is_set():
            await asyncio.sleep(_LOOK_S)
        if trouble is None and not process.ended.is_set():
            state = {"running": {"startedAt": began}}
            self._tell(key, pod, container, section, state, ready=True, restarts=restarts)
            self._condition(pod, {"type": "Ready", "status": "True"})
            self._objects.save(key)
        await process.ended.wait()
        running.model = None
        self._condition(pod, {"type": "Ready", "status": "False", "reason": "ContainersNotReady"})
        self._ended(key, pod, container, section, 0 if running.stopping else 1, began, restarts, "", process.reason)
        return 0 if running.stopping else 1

    async def _back_off(self, key: Key, pod: Json, restarts: int) -> None:
        for section in ("initContainerStatuses", "containerStatuses"):
            for status in pod["status"].get(section) or []:
                terminated = status["state"].get("terminated")
                if terminated and terminated["exitCode"]:
                    status["lastState"] = {"terminated": terminated}
                    status["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}
                    status["restartCount"] = restarts
        self._objects.save(key)
        self._objects.event(pod, "Warning", "BackOff", "Back-off restarting failed container")
        # Kubernetes waits twenty times as long.
        await asyncio.sleep(min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (restarts - 1)))

    async def _befall(self, fault: Fault, key: Key, pod: Json, running: RunningPod) -> None:
        if fault.after_line:
            while running.job is None:
                await asyncio.sleep(_LOOK_S)
            await running.job.due(fault)
        else:
            await asyncio.sleep(fault.delay_s)
        if fault.kind == "crash":
            if running.job is not None:
                await running.job.kill()
            return
        running.stopping = True
        reason = {"reason": "PreemptionByScheduler", "message": "preempting to accommodate a higher priority pod"}
        self._condition(pod, {"type": "DisruptionTarget", "status": "True", **reason})
        self._objects.save(key)
        self._objects.event(pod, "Warning", "Preempted", reason["message"])
        await self._stop_processes(pod, running)

    async def _environment_when_there(self, key: Key, pod: Json, container: Json, section: str) -> dict[str, str]:
        while True:
            try:
                return self._environment(pod, container)
            except ConfigMissing as error:
                waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}}
                self._tell(key, pod, container, section, waiting)
                await asyncio.sleep(_LOOK_S)

    def _environment(self, pod: Json, container: Json) -> dict[str, str]:
        namespace = pod["metadata"]["namespace"]
        found: dict[str, str] = {"HOSTNAME": pod["metadata"]["name"]}
        for source in container.get("envFrom") or []:
            if "secretRef" in source:
                found.update(self._values("secrets", namespace, source["secretRef"]["name"]))
            if "configMapRef" in source:
                found.update(self._values("configmaps", namespace, source["configMapRef"]["name"]))
        for variable in container.get("env") or []:
            origin = variable.get("valueFrom") or {}
            if "secretKeyRef" in origin:
                reference = origin["secretKeyRef"]
                values = self._values("secrets", namespace, reference["name"])
                if reference["key"] not in values:
                    raise ConfigMissing(f"couldn't find key {reference['key']} in Secret {reference['name']}")
                found[variable["name"]] = values[reference["key"]]
            elif "fieldRef" in origin:
                path = origin["fieldRef"]["fieldPath"]
                known = {"metadata.name": pod["metadata"]["name"], "metadata.namespace": namespace}
                found[variable["name"]] = known.get(path, "")
            else:
                found[variable["name"]] = _expanded(variable.get("value", ""), found)
        return found

    def _values(self, plural: str, namespace: str, name: str) -> dict[str, str]:
        found = self._objects.find((plural, namespace, name))
        if found is None:
            raise ConfigMissing(f'{plural.removesuffix("s")} "{name}" not found')
        data: dict[str, str] = found.get("data") or {}
        if plural == "secrets":
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        return dict(data)

    def _mounts(self, pod: Json, container: Json, directory: Path) -> dict[str, Path]:
        """Where a container's volumes are here, by mount path; they are made when first asked for."""
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
        found: dict[str, Path] = {}
        for mount in container.get("volumeMounts") or []:
            volume, place = volumes[mount["name"]], directory / "volumes" / mount["name"]
            if not place.exists():
                place.mkdir(parents=True)
                files: dict[str, str] = {}
                if "configMap" in volume:
                    files = self._values("configmaps", pod["metadata"]["namespace"], volume["configMap"]["name"])
                elif "secret" in volume:
                    files = self._values("secrets", pod["metadata"]["namespace"], volume["secret"]["secretName"])
                for name, content in files.items():
                    (place / name).write_text(content)
            found[mount["mountPath"]] = place
        return found

    def _ended(
        self,
        key: Key,
        pod: Json,
        container: Json,
        section: str,
        code: int,
        began: str,
        restarts: int,
        reason: str,
        message: str,
    ) -> None:
        told = {"exitCode": code, "startedAt": began, "finishedAt": now()}
        told["reason"] = reason or ("Error" if code else "Completed")
        if message:
            told["message"] = message
        self._tell(key, pod, container, section, {"terminated": told}, restarts=restarts)

    def _tell(
        self,
        key: Key,
        pod: Json,
        container: Json,
        section: str,
        state: Json,
        *,
        ready: bool = False,
        restarts: int = 0,
    ) -> None:
        entries: list[Json] = pod["status"].setdefault(section, [])
        before = next((each for each in entries if each["name"] == container["name"]), None)
        entry: Json = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": restarts,
            "state": state,
            "lastState": before["lastState"] if before else {},
        }
        if before is None:
            entries.append(entry)
        else:
            before.update(entry)
        self._objects.save(key)

    def _phase(self, key: Key, pod: Json, phase: str) -> None:
        pod["status"]["phase"] = phase
        self._objects.save(key)

    def _condition(self, pod: Json, condition: Json) -> None:
        kept = [each for each in pod["status"].get("conditions", []) if each["type"] != condition["type"]]
        pod["status"]["conditions"] = [*kept, {**condition, "lastTransitionTime": now()}]


def _status_of(pod: Json, container: str) -> Json:
    entries: list[Any] = pod["status"].get("containerStatuses", []) + pod["status"].get("initContainerStatuses", [])
    return next((each for each in entries if each["name"] == container), {})


def _expanded(text: str, environment: dict[str, str]) -> str:
    """`$(NAME)` as the kubelet expands it."""
    return re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), text)


def _model_of(container: Json) -> str | None:
    """The directory of the model that a container serves by MLflow's scoring server; None for any other command."""
    command = [*(container.get("command") or []), *(container.get("args") or [])]
    if command[1:5] != ["-m", "mlflow", "models", "serve"]:
        return None
    with contextlib.suppress(ValueError):
        return command[command.index("--model-uri") + 1]
    return None


def _in(path: str, mounts: dict[str, Path]) -> str:
    inside = next((each for each in mounts if path == each or path.startswith(f"{each}/")), None)
    return path if inside is None else str(mounts[inside]) + path.removeprefix(inside)
