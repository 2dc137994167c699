"""What a Kubernetes API server keeps: objects by name, their versions, their history, and who owns whom.

https://kubernetes.io/docs/reference/using-api/api-concepts/ (versions, watches), .../overview/working-with-objects/
(selectors, owners).
"""

from __future__ import annotations

import asyncio
import copy
import json
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Key = tuple[str, str, str]
"""Resource (plural), namespace, name."""

_HISTORY = 5000


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that the double knows."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As it stands in manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """As it stands in messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


RESOURCES = {
    (each.group, each.version, each.plural): each
    for each in (
        Resource("", "v1", "pods", "Pod"),
        Resource("", "v1", "services", "Service"),
        Resource("", "v1", "secrets", "Secret"),
        Resource("", "v1", "configmaps", "ConfigMap"),
        Resource("", "v1", "events", "Event"),
        Resource("", "v1", "resourcequotas", "ResourceQuota"),
        Resource("", "v1", "nodes", "Node", namespaced=False),
        Resource("", "v1", "namespaces", "Namespace", namespaced=False),
        Resource("batch", "v1", "jobs", "Job"),
        Resource("apps", "v1", "deployments", "Deployment"),
        Resource("kueue.x-k8s.io", "v1beta1", "workloads", "Workload"),
        Resource("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue"),
        Resource("kueue.x-k8s.io", "v1beta1", "clusterqueues", "ClusterQueue", namespaced=False),
    )
}
BY_PLURAL = {each.plural: each for each in RESOURCES.values()}


class Refused(Exception):
    """A request that the API server refuses, in the terms of its `Status` object."""

    def __init__(self, code: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.headers = code, reason, message, dict(headers or {})

    def status(self, details: Json | None = None) -> Json:
        """The `Status` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details or {},
            "code": self.code,
        }


def now() -> str:
    """This moment as Kubernetes writes it: whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """A moment as Kubernetes writes it."""
    return datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object: `ADDED`, `MODIFIED` or `DELETED`."""

    version: int
    kind: str
    key: Key
    object: Json


class Objects:
    """All objects of the cluster, in memory; what must survive a restart is kept in a file.

    Args:
        file: Where it is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._objects: dict[Key, Json] = {}
        self._version = 1000
        self._history: list[Change] = []
        self._watchers: set[asyncio.Queue[Change]] = set()
        self.on_delete: Callable[[Key, Json], None] = lambda key, found: None

    @property
    def version(self) -> int:
        """The version of the newest change."""
        return self._version

    def find(self, key: Key) -> Json | None:
        """The object itself, or None."""
        return self._objects.get(key)

    def get(self, key: Key) -> Json:
        """The object itself. Raises `Refused` with 404."""
        found = self._objects.get(key)
        if found is None:
            raise Refused(404, "NotFound", f'{BY_PLURAL[key[0]].full_name} "{key[2]}" not found')
        return found

    def all(self, plural: str, namespace: str = "") -> list[tuple[Key, Json]]:
        """The objects of a resource, of one namespace or of all, by name."""
        return [
            (key, found)
            for key, found in sorted(self._objects.items())
            if key[0] == plural and namespace in ("", key[1])
        ]

    def owned(self, owner: Json, plural: str = "pods") -> list[tuple[Key, Json]]:
        """The objects that this one owns."""
        uid = owner["metadata"]["uid"]
        return [
            (key, found)
            for key, found in self.all(plural)
            if any(each["uid"] == uid for each in found["metadata"].get("ownerReferences", []))
        ]

    def create(self, plural: str, namespace: str, manifest: Json) -> tuple[Key, Json]:
        """Keep a new object. Raises `Refused` with 409 when there is one of its name."""
        resource, found = BY_PLURAL[plural], copy.deepcopy(manifest)
        meta = found.setdefault("metadata", {})
        if "name" not in meta:
            meta["name"] = f"{meta['generateName']}{secrets.token_hex(3)[:5]}"
        key = (plural, namespace if resource.namespaced else "", meta["name"])
        if key in self._objects:
            raise Refused(409, "AlreadyExists", f'{resource.full_name} "{meta["name"]}" already exists')
        found.update(apiVersion=resource.api_version, kind=resource.kind)
        meta.update(uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
        if resource.namespaced:
            meta["namespace"] = namespace
        self._objects[key] = found
        self._changed("ADDED", key)
        return key, found

    def save(self, key: Key) -> None:
        """Tell everybody that the object was changed in place; silent when it is gone."""
        if key in self._objects:
            self._changed("MODIFIED", key)

    def update(self, key: Key, wanted: Json) -> Json:
        """Put a new content into an object. Raises `Refused` with 409 when it names another version than the last."""
        found = self.get(key)
        named = wanted["metadata"].get("resourceVersion")
        if named and named != found["metadata"]["resourceVersion"]:
            text = f'Operation cannot be fulfilled on {BY_PLURAL[key[0]].full_name} "{key[2]}": the object has been '
            text += "modified; please apply your changes to the latest version and try again"
            raise Refused(409, "Conflict", text)
        fresh = copy.deepcopy(wanted)
        for field in ("uid", "creationTimestamp", "generation", "namespace", "ownerReferences", "deletionTimestamp"):
            if field in found["metadata"]:
                fresh["metadata"][field] = found["metadata"][field]
        if fresh.get("spec") != found.get("spec"):
            fresh["metadata"]["generation"] += 1
        if "status" in found:
            fresh["status"] = found["status"]
        fresh.update(apiVersion=found["apiVersion"], kind=found["kind"])
        found.clear()
        found.update(fresh)
        self._changed("MODIFIED", key)
        return found

    def remove(self, key: Key) -> None:
        """Forget an object and remove what it owns."""
        found = self._objects.pop(key, None)
        if found is None:
            return
        self._tell("DELETED", key, found)
        for plural in ("pods", "events"):
            for owned, _ in self.owned(found, plural):
                self.on_delete(owned, self._objects[owned])
        self._keep()

    def event(self, about: Json, kind: str, reason: str, message: str) -> None:
        """Note an event (`Normal` or `Warning`) about an object."""
        meta = about["metadata"]
        involved = {"kind": about["kind"], "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
        moment_told = now()
        self.create(
            "events",
            meta["namespace"],
            {
                "metadata": {"name": f"{meta['name'][:200]}.{secrets.token_hex(8)}"},
                "involvedObject": involved,
                "type": kind,
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": moment_told,
                "lastTimestamp": moment_told,
                "source": {"component": "lintas-twin"},
            },
        )

    def since(self, version: int) -> list[Change]:
        """The changes after a version. Raises `Refused` with 410 when they are forgotten."""
        if self._history and version + 1 < self._history[0].version and len(self._history) >= _HISTORY:
            raise Refused(410, "Expired", f"too old resource version: {version} ({self._history[0].version})")
        return [change for change in self._history if change.version > version]

    def watching(self) -> asyncio.Queue[Change]:
        """A queue that takes all changes from now on; give it back to `unwatch`."""
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self._watchers.add(queue)
        return queue

    def unwatch(self, queue: asyncio.Queue[Change]) -> None:
        """No more changes into this queue."""
        self._watchers.discard(queue)

    def restore(self) -> None:
        """Take up what an earlier double kept. Pods did not survive it: their nodes took them along."""
        if not self._file.exists():
            return
        kept = json.loads(self._file.read_text())
        self._version = kept["version"]
        for each in kept["objects"]:
            self._objects[(each["key"][0], each["key"][1], each["key"][2])] = each["object"]

    def _changed(self, kind: str, key: Key) -> None:
        self._tell(kind, key, self._objects[key])
        self._keep()

    def _tell(self, kind: str, key: Key, found: Json) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        change = Change(self._version, kind, key, copy.deepcopy(found))
        self._history.append(change)
        del self._history[:-_HISTORY]
        for queue in self._watchers:
            queue.put_nowait(change)

    def _keep(self) -> None:
        lasting = ("services", "secrets", "configmaps", "jobs", "deployments", "resourcequotas")
        kept = [{"key": key, "object": found} for key, found in self._objects.items() if key[0] in lasting]
        draft = self._file.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps({"version": self._version, "objects": kept}))
        draft.replace(self._file)


def labels_match(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether labels match a selector with `=`, `==`, `!=` and bare names.

    >>> labels_match("app=x,tier!=db,made", {"app": "x", "made": ""})
    True
    """
    return all(_label_matches(part.strip(), labels) for part in selector.split(",") if part.strip())


def _label_matches(part: str, labels: Mapping[str, str]) -> bool:
    if "!=" in part:
        name, _, value = part.partition("!=")
        return labels.get(name.strip()) != value.strip()
    if "=" in part:
        name, _, value = part.replace("==", "=").partition("=")
        return labels.get(name.strip()) == value.strip()
    return part.removeprefix("!") not in labels if part.startswith("!") else part in labels


def fields_match(selector: str, found: Json) -> bool:
    """Whether an object matches a field selector such as `metadata.name=x`."""
    for part in selector.split(","):
        if not part:
            continue
        different = "!=" in part
        path, _, value = part.replace("!=", "=").replace("==", "=").partition("=")
        if (str(_at(found, path) or "") == value) == different:
            return False
    return True


def _at(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def merged(found: Any, change: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    result: Json = dict(found) if isinstance(found, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def strategically_merged(found: Any, change: Any) -> Any:
    """A strategic merge of the lists that Kubernetes merges by `name`; every other list is replaced."""
    if isinstance(change, dict):
        result: Json = dict(found) if isinstance(found, dict) else {}
        for name, value in change.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = strategically_merged(result.get(name), value)
        return result
    named = isinstance(change, list) and change and all(isinstance(each, dict) and "name" in each for each in change)
    if not named or not isinstance(found, list):
        return copy.deepcopy(change)
    by_name = {each["name"]: each for each in found}
    for each in change:
        by_name[each["name"]] = strategically_merged(by_name.get(each["name"]), each)
    return list(by_name.values())


def names(found: Json) -> Iterator[Json]:
    """The containers of a pod's spec, initial ones first."""
    yield from found.get("initContainers") or []
    yield from found.get("containers") or []
