"""Models and environments: named versions that deployments and jobs refer to, and the workspace's fixed resources."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from deployments.local.azure_ml.refusals import Refused, not_found
from deployments.local.azure_ml.resources import properties_of, resource
from deployments.local.azure_ml.storage import Storage

_REQUIRED = {"models": ("modelUri",), "environments": ()}


class Assets:
    """The versions of models and environments of a workspace.

    Args:
        workspace: Its id.
        storage: Where the models' files are.
    """

    def __init__(self, workspace: str, storage: Storage) -> None:
        self._workspace, self._storage = workspace, storage
        self._versions: dict[str, dict[str, Any]] = {}

    def put(self, kind: str, name: str, version: str, body: Any) -> Response:
        """Create a version. What it refers to cannot be changed afterwards."""
        properties = properties_of(body, kind, *_REQUIRED[kind])
        if kind == "models":
            self._storage.locate(properties["modelUri"])
        elif not (properties.get("image") or properties.get("build")):
            raise Refused(400, "ValidationError", "An environment needs an image or a build context.")
        path = f"{self._workspace}/{kind}/{name}/versions/{version}"
        before = self._versions.get(path)
        for fixed in ("modelUri", "image"):
            if before is not None and before["properties"].get(fixed) != properties.get(fixed):
                raise Refused(409, "UserError", f"The {fixed} of version {version} of '{name}' cannot be changed.")
        # The official client reads these, and the service always tells them.
        told = {"flavors": {}, "stage": None} if kind == "models" else {}
        facts = resource(path, f"{kind}/versions", {**told, **properties, "provisioningState": "Succeeded"})
        self._versions[path] = facts
        return JSONResponse(facts, 200 if before else 201)

    def get(self, kind: str, name: str, version: str) -> Response:
        """A version."""
        return JSONResponse(self.named(f"{self._workspace}/{kind}/{name}/versions/{version}"))

    def list(self, kind: str, name: str) -> Response:
        """All versions of a name."""
        prefix = f"{self._workspace}/{kind}/{name}/versions/"
        return JSONResponse({"value": [facts for path, facts in self._versions.items() if path.startswith(prefix)]})

    def named(self, path: str) -> dict[str, Any]:
        """The version of this id. Raises `Refused` when there is none."""
        if path not in self._versions:
            raise not_found("asset", path.rpartition("/workspaces/")[2].partition("/")[2])
        return self._versions[path]
