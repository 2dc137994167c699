"""The model registry: models with versions and aliases, and the files that an artifact URI names.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.models.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPIError

from deployments.local.object_access import CloudStorageAccess, download_tree
from deployments.local.vertex_ai.errors import Refused, invalid, missing_fields, not_found
from deployments.local.vertex_ai.jobs import check_labels, matching
from deployments.local.vertex_ai.resources import Registry, Resource, new_id, now
from deployments.local.vertex_ai.schema import normalised

MODEL_ID = re.compile(r"[a-z0-9_-]{1,63}")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")


class Models:
    """The models of one location. A version is kept beside its model under `MODEL@VERSION`.

    Args:
        registry: Where their resources are.
        objects: The project's object store.
        root: Directory for copies of the artifacts.
    """

    def __init__(self, registry: Registry, objects: CloudStorageAccess, root: Path) -> None:
        self._registry, self._objects, self._root = registry, objects, root
        shutil.rmtree(root, ignore_errors=True)

    def upload(self, body: object) -> Resource:
        """`projects.locations.models.upload`: a new model, or another version of `parentModel`."""
        request = normalised("UploadModelRequest", body)
        model = request.get("model")
        if model is None or not model.get("displayName"):
            raise missing_fields("model.display_name")
        if not model.get("containerSpec", {}).get("imageUri"):
            raise missing_fields("model.container_spec.image_uri")
        check_labels(model.get("labels", {}))
        for alias in model.get("versionAliases", []):
            if not _ALIAS.fullmatch(alias):
                raise invalid(f"Version alias {alias} is not valid.")
        name = self._name_of(request)

        async def work() -> dict[str, Any]:
            await self._require_artifact(model.get("artifactUri", ""))
            version = str(1 + sum(1 for each in self._registry.resources if each.startswith(f"{name}@")))
            moment = now()
            kept = {
                **model,
                "name": name,
                "versionId": version,
                "versionCreateTime": moment,
                "versionUpdateTime": moment,
                "createTime": self._registry.resources.get(name, {}).get("createTime", moment),
                "updateTime": moment,
            }
            aliases = set(kept.get("versionAliases", []))
            for older in self.versions(name):
                # An alias leads to one version: the newest that was given it.
                older["versionAliases"] = [each for each in older.get("versionAliases", []) if each not in aliases]
            kept["versionAliases"] = [*kept.get("versionAliases", []), *([] if version != "1" else ["default"])]
            self._registry.resources[f"{name}@{version}"] = kept
            self._registry.resources.setdefault(name, kept)
            return {"model": name, "modelVersionId": version}

        return self._registry.begin(name, "UploadModel", work, "UploadModelResponse")

    def get(self, name: str) -> Resource:
        """`projects.locations.models.get`: the default version, or `MODEL@VERSION`, or `MODEL@ALIAS`."""
        base, _, which = name.partition("@")
        versions = self.versions(base)
        for version in versions:
            if which in (version["versionId"], *version["versionAliases"]) or not which:
                return version
        raise not_found(name)

    def versions(self, name: str) -> list[Resource]:
        """All versions of a model, oldest first."""
        return [each for key, each in self._registry.resources.items() if key.startswith(f"{name}@")]

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`projects.locations.models.list`."""
        keep = matching(query.get("filter", ""))
        names = {id(each) for key, each in self._registry.resources.items() if "@" not in key}
        seen: set[int] = set()

        def first(resource: Resource) -> bool:
            # A model's first version stands under both names.
            if id(resource) not in names or id(resource) in seen:
                return False
            seen.add(id(resource))
            return bool(keep(resource))

        return self._registry.page("models", "models", query, first)

    def list_versions(self, name: str) -> dict[str, Any]:
        """`projects.locations.models.listVersions`, as one page."""
        self.get(name)
        return {"models": self.versions(name)}

    def delete(self, name: str, deployed: set[str]) -> Resource:
        """`projects.locations.models.delete`: all versions; refused while one of them is deployed."""
        self.get(name)
        if name in deployed:
            raise Refused("FAILED_PRECONDITION", f"The Model {name} is deployed or being deployed at an Endpoint.")

        async def remove() -> dict[str, Any]:
            for key in [key for key in self._registry.resources if key == name or key.startswith(f"{name}@")]:
                self._registry.resources.pop(key, None)
            return {}

        return self._registry.begin(self._registry.parent, "Delete", remove)

    async def bring(self, model: Resource) -> Path:
        """A directory with the files of a version, as the container finds them behind `AIP_STORAGE_URI`."""
        model_id = str(model["name"]).rpartition("/")[2]
        place = self._root / f"{model_id}@{model['versionId']}"
        bucket, _, prefix = str(model.get("artifactUri", "")).removeprefix("gs://").partition("/")
        shutil.rmtree(place, ignore_errors=True)
        try:
            count = await asyncio.to_thread(download_tree, self._objects, bucket, prefix.strip("/"), place)
        except (GoogleAPIError, OSError) as error:
            raise Refused("INTERNAL", f"Cloud Storage could not be used ({type(error).__name__}).") from error
        if not count:
            raise Refused("FAILED_PRECONDITION", f"The model's artifacts at {model.get('artifactUri')} are not there.")
        return place

    def _name_of(self, request: Mapping[str, Any]) -> str:
        if "parentModel" in request:
            name = str(request["parentModel"])
            self.get(name)
            return name
        model_id = request.get("modelId") or new_id()
        if not MODEL_ID.fullmatch(model_id):
            raise invalid(f"Model ID {model_id} is not valid.")
        name = f"{self._registry.parent}/models/{model_id}"
        if name in self._registry.resources:
            raise Refused("ALREADY_EXISTS", f"Resource {name} already exists.")
        return name

    async def _require_artifact(self, uri: str) -> None:
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        if not uri.startswith("gs://") or not bucket:
            raise invalid("model.artifact_uri must be a Cloud Storage directory.")
        try:
            present = await asyncio.to_thread(lambda: any(True for _ in self._objects.keys(bucket, prefix)))
        except GoogleAPIError as error:
            raise Refused("FAILED_PRECONDITION", f"The bucket of {uri} cannot be read.") from error
        if not present:
            raise Refused("FAILED_PRECONDITION", f"There are no files at {uri}.")
