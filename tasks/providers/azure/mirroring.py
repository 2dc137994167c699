"""Copies of an online endpoint's requests for a version that serves nobody yet: Azure ML's mirrored traffic.

https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, NotFound, Retryable
from tasks.core.release import Endpoint, EndpointSpec
from tasks.providers.azure.arm import Workspace
from tasks.providers.azure.quirks import quirks
from tasks.providers.azure.server import BUSY, AzureServer, shares
from tasks.providers.azure.store import open_store


def open_mirror(config: CloudConfig) -> MirroringAzureServer:
    """The server of a cloud, able to mirror; see `tasks.providers.azure.server.open_server`."""
    return MirroringAzureServer(config, Workspace(config, "serving"), open_store(config, config.option("bucket")))


class MirroringAzureServer(AzureServer):
    """`MirroringServer` by a second deployment that gets copies and no traffic."""

    def mirror(self, spec: EndpointSpec, percent: int) -> Endpoint:
        """See `MirroringServer.mirror`. A version that did not come up is told once and then tried again.

        https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints

        Raises:
            NotFound: There is no endpoint that serves.
            Invalid: The service mirrors no such percentage.
            Terminal: The version does not start; its log in the workspace says why.
        """
        if percent > quirks()["mirror_limit_percent"]:
            raise Invalid(
                f"'{self._cloud}' mirrors {quirks()['mirror_limit_percent']} percent of the requests at most",
                "ask less",
            )
        endpoint = self._workspace.find(f"onlineEndpoints/{self._resource(spec.name)}")
        told: Mapping[str, Any] = endpoint["properties"] if endpoint else {}
        if endpoint is None or told["provisioningState"] == "Deleting" or not any((told.get("traffic") or {}).values()):
            raise NotFound(f"'{self._cloud}': no endpoint '{spec.name}' serves", "promote a version there first")
        if percent:
            return self._roll_out(spec, lambda *what: self._mirroring_step(*what, percent=percent))
        with self._roll_outs.exclusively(spec.name):
            self._roll_outs.stop(spec.name)
            # What was seen before counts, so that the call which ends a deployment is the last one.
            seen = self._seen(spec.name)
            self._end_mirroring(endpoint, spec.name)
        return seen

    def _mirroring_step(self, spec: EndpointSpec, wanted: str, body: Mapping[str, Any], *, percent: int) -> bool:
        """Make the step that is due until the wanted deployment gets copies; whatever serves goes on as it is."""
        endpoint = self._workspace.get(f"onlineEndpoints/{self._resource(spec.name)}")
        if endpoint["properties"]["provisioningState"] in BUSY:
            return False
        resource = str(endpoint["name"])
        deployments = self._deployments(resource)
        if not self._stands(resource, spec, wanted, deployments, body):
            return False
        traffic, mirrored = shares(endpoint)
        if mirrored != {wanted: percent}:
            self._put_endpoint(spec.name, traffic, {wanted: percent})
            return False
        self._troubles.pop(spec.name, None)
        self._remove_others(resource, {wanted, *traffic}, deployments)
        return True

    def _end_mirroring(self, endpoint: Mapping[str, Any], name: str) -> None:
        """Copy no requests any more, and let go of what only got copies."""
        traffic, mirrored = shares(endpoint)
        resource = str(endpoint["name"])
        if mirrored:
            if endpoint["properties"]["provisioningState"] in BUSY:
                raise Retryable(f"'{self._cloud}' is still changing the endpoint '{name}'", "try again")
            self._put_endpoint(name, traffic)
        else:
            self._remove_others(resource, set(traffic), self._deployments(resource))
