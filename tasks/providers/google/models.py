"""Models in Vertex AI's registry: a version of a release is a version of the model of the endpoint's name.

Its files lie in the cloud's bucket below `lintas-models/NAME/DIGEST/`; its description says which version and digest it
is, and an alias made from both finds it again.
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.models
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.cloud import CloudConfig
from tasks.core.dataset import CHUNK_BYTES
from tasks.core.errors import NotFound
from tasks.core.release import EndpointSpec
from tasks.providers._dialects.scoring import EXAMPLE
from tasks.providers.google.quirks import quirks
from tasks.providers.google.store import GoogleStore, open_store
from tasks.providers.google.vertex import Vertex

_COMPLETE = "_lintas_complete"
_PORT = 8080


@dataclass(frozen=True, slots=True)
class Served:
    """A model version by its own word."""

    version: str
    digest: str
    artifact: str


class ModelRegistry:
    """The models of one project and region, and their files. Safe to use from several threads.

    Args:
        config: The cloud.
        vertex: Its API.
    """

    def __init__(self, config: CloudConfig, vertex: Vertex) -> None:
        self._config, self._vertex = config, vertex
        self._bucket = config.option("bucket")
        self._prefix = config.options.get("prefix", "").strip("/")
        self._store = open_store(config, self._bucket)
        self._served: dict[str, Served] = {}
        self._examples: dict[str, bytes] = {}

    def registered(self, spec: EndpointSpec, directory: Path) -> str:
        """Name of the model version in the registry, with its files in the bucket; both made if need be."""
        alias = f"lintas-{identity(spec)[:40]}"
        model, what = f"{self._vertex.parent}/models/{spec.name}", f"model '{spec.name}' {spec.version}"
        known = self._vertex.find(f"{model}@{alias}", what)
        if known is None:
            artifact = self._uploaded(spec, directory)
            described: dict[str, Any] = {
                "displayName": spec.name,
                "versionAliases": [alias],
                "versionDescription": json.dumps({"version": spec.version, "digest": spec.digest}),
                "artifactUri": artifact,
                "containerSpec": {
                    "imageUri": self._config.option("serving_image"),
                    "predictRoute": "/invocations",
                    "healthRoute": "/ping",
                    "ports": [{"containerPort": _PORT}],
                },
            }
            body: dict[str, Any] = {"model": described}
            if self._vertex.find(model, what) is None:
                body["modelId"] = spec.name
            else:
                body["parentModel"] = model
            operation = self._vertex.post(f"{self._vertex.parent}/models:upload", body, what)
            self._vertex.wait(operation, what, quirks()["create_endpoint_timeout_s"])
        return f"{model}@{alias}"

    def served(self, deployed: Mapping[str, Any]) -> Served:
        """What a deployed model is, by the registry's entry of just that version."""
        name = f"{str(deployed['model']).partition('@')[0]}@{deployed['modelVersionId']}"
        key = f"{name} {deployed['id']}"
        if key not in self._served:
            model = self._vertex.find(name, "model version") or {}
            try:
                told = json.loads(model.get("versionDescription", ""))
                served = Served(str(told["version"]), str(told["digest"]), str(model["artifactUri"]))
            except (ValueError, KeyError, TypeError):
                # Somebody else's model: it has no digest, so that it is no release's.
                served = Served("", "", str(model.get("artifactUri", "")))
            self._served[key] = served
        return self._served[key]

    def example(self, artifact: str) -> bytes:
        """The model's own example request, from its files."""
        if artifact not in self._examples:
            bucket, _, folder = artifact.removeprefix("gs://").partition("/")
            store: GoogleStore = self._store if bucket == self._bucket else open_store(self._config, bucket)
            try:
                self._examples[artifact] = b"".join(store.get(f"{folder.rstrip('/')}/{EXAMPLE}"))
            except NotFound:
                self._examples[artifact] = b""
        return self._examples[artifact]

    def forget_files(self, name: str) -> None:
        """Delete the files of all versions of a model; silent when there are none."""
        try:
            for info in self._store.list(self._folder(name)):
                self._store.delete(info.key)
        except NotFound:
            return

    def _folder(self, name: str) -> str:
        return f"{self._prefix}/lintas-models/{name}/".lstrip("/")

    def _uploaded(self, spec: EndpointSpec, directory: Path) -> str:
        """URI of the model's files in the bucket. An object that is written last says that all are there."""
        folder = f"{self._folder(spec.name)}{spec.digest}/"
        marker = f"{self._folder(spec.name)}{spec.digest}{_COMPLETE}"
        try:
            self._store.head(marker)
        except NotFound:
            self._store.create_bucket()
            for path in sorted(path for path in directory.rglob("*") if path.is_file()):
                with path.open("rb") as file:
                    self._store.put(
                        f"{folder}{path.relative_to(directory).as_posix()}",
                        iter(lambda file=file: file.read(CHUNK_BYTES), b""),
                        size_bytes=path.stat().st_size,
                    )
            self._store.put(marker, [b"."], size_bytes=1)
        return f"gs://{self._bucket}/{folder}"


def identity(spec: EndpointSpec) -> str:
    """What tells a model version from all others: 64 hexadecimal characters."""
    return hashlib.sha256(json.dumps([spec.model, spec.version, spec.digest]).encode()).hexdigest()


def deployment_id(spec: EndpointSpec) -> str:
    """Ten digits, as the service wants them, the same for the same model version."""
    return str(10**9 + int(identity(spec), 16) % (9 * 10**9))
