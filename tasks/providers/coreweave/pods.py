"""What Lintas' pods on CoreWeave are made of: where they run, what they fetch, and with which keys.

Nodes are chosen by `node.kubernetes.io/instance-type`
(https://docs.coreweave.com/products/cks/clusters/scheduling/workload-scheduling); the resources and tolerations of an
instance type stand in catalog.yaml. A spot node has no label of CoreWeave's own: it is one of a Node Pool made with
`computeClass: spot`, so its pool must carry a label that `options.spot_node_label` names
(https://docs.coreweave.com/platform/capacity-plans/spot-node-pools).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid
from tasks.providers._dialects import lintas_courier
from tasks.providers._dialects.kubernetes import Json

LABEL = "lintas/made-by"
WORK_DIR = "/lintas"
_COURIER_DIR = "/lintas-courier"
COURIER = f"{_COURIER_DIR}/lintas_courier.py"
_INSTANCE_TYPE = "node.kubernetes.io/instance-type"
_LOTA = "http://cwlota.com"


@dataclass(frozen=True, slots=True)
class Pods:
    """How pods are made on one cloud.

    Args:
        cloud: The cloud's configuration.
        catalog: The provider's catalogue: sizes of instance types, and the section `kubernetes`.
    """

    cloud: CloudConfig
    catalog: Mapping[str, Any] = field(repr=False)

    def option(self, name: str, default: str = "") -> str:
        """An option of the cloud."""
        return self.cloud.options.get(name, default)

    def number(self, name: str, default: float) -> float:
        """An option that is a number. Raises `Invalid` when it is none."""
        try:
            return float(self.cloud.options.get(name, default))
        except ValueError as error:
            raise Invalid(f"clouds.{self.cloud.name}.options.{name} is not a number", "correct lintas.yaml") from error

    def courier(self) -> Json:
        """The ConfigMap with the courier; its name tells its content, so that jobs under way keep theirs."""
        script = Path(lintas_courier.__file__).read_text()
        name = f"lintas-courier-{hashlib.sha256(script.encode()).hexdigest()[:12]}"
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {LABEL: "lintas"}},
            "immutable": True,
            "data": {"lintas_courier.py": script},
        }

    def keys(self) -> Json:
        """The Secret with which pods reach object storage, and MLflow where it asks for a token."""
        known = self.cloud.credentials
        names = {
            "access_key_id": "LINTAS_S3_ACCESS_KEY_ID",
            "secret_access_key": "LINTAS_S3_SECRET_ACCESS_KEY",
            "session_token": "LINTAS_S3_SESSION_TOKEN",
            "mlflow_token": "MLFLOW_TRACKING_TOKEN",
        }
        for name in ("access_key_id", "secret_access_key"):
            if name not in known:
                raise Invalid(f"clouds.{self.cloud.name}.credentials.{name} is missing", "set it in lintas.yaml")
        data = {
            variable: base64.b64encode(known[name].reveal().encode()).decode()
            for name, variable in names.items()
            if name in known
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"lintas-keys-{self.cloud.name}", "labels": {LABEL: "lintas"}},
            "type": "Opaque",
            "data": data,
        }

    def container(self, name: str, image: str, command: list[str], **more: Any) -> Json:
        """A container that may use the courier and the pod's work directory."""
        return {
            "name": name,
            "image": image,
            "command": command,
            "volumeMounts": [
                {"name": "work", "mountPath": WORK_DIR},
                {"name": "courier", "mountPath": _COURIER_DIR, "readOnly": True},
            ],
            "securityContext": {"allowPrivilegeEscalation": False},
            **more,
        }

    def with_keys(self) -> Json:
        """What gives a container the keys and the place of object storage."""
        return {
            "envFrom": [{"secretRef": {"name": f"lintas-keys-{self.cloud.name}"}}],
            "env": [
                {"name": "LINTAS_S3_ENDPOINT", "value": self._store_endpoint()},
                {"name": "LINTAS_S3_ADDRESSING", "value": self.option("addressing", "virtual")},
                {"name": "LINTAS_S3_REGION", "value": self.cloud.region},
            ],
        }

    def spec(self, containers: list[Json], courier_name: str, **more: Any) -> Json:
        """A pod with these containers. It gets no token of the cluster's API."""
        secrets = [{"name": self.option("image_pull_secret")}] if self.option("image_pull_secret") else []
        return {
            "containers": containers,
            "volumes": [
                {"name": "work", "emptyDir": {}},
                {"name": "courier", "configMap": {"name": courier_name}},
            ],
            "automountServiceAccountToken": False,
            **({"imagePullSecrets": secrets} if secrets else {}),
            **more,
        }

    def resources(self, sku: str) -> Json:
        """Requests and limits of a pod that has a whole machine of this instance type, or of a small one without.

        Raises:
            Invalid: The catalogue does not know the instance type.
        """
        if not sku:
            return {"requests": {"cpu": "1", "memory": "1Gi"}}
        known: Mapping[str, Any] = next((offer for offer in self.catalog["offers"] if offer["sku"] == sku), {})
        if not known:
            raise Invalid(f"'{sku}' is no instance type of '{self.cloud.name}'", "choose one of 'lintas offers'")
        rules = self.catalog["kubernetes"]
        # The system's own pods have their share of every node.
        share = float(rules["allocatable_share"])
        found: Json = {
            "requests": {"cpu": str(int(known["vcpus"] * share)), "memory": f"{int(known['memory_gib'] * share)}Gi"}
        }
        if known.get("count"):
            found["limits"] = {rules["accelerator_resource"]: str(known["count"])}
        return found

    def placing(self, sku: str, *, spot: bool) -> Json:
        """The part of a pod's spec that chooses its node.

        Raises:
            Invalid: A spot machine is wanted and nothing tells which nodes are spot.
        """
        found: Json = {"tolerations": [dict(each) for each in self.catalog["kubernetes"]["tolerations"]]}
        wanted = [{"key": _INSTANCE_TYPE, "operator": "In", "values": [sku]}] if sku else []
        label, _, value = self.option("spot_node_label").partition("=")
        if spot and not label:
            raise Invalid(
                f"clouds.{self.cloud.name}.options.spot_node_label is missing",
                "give your spot Node Pool a label and name it there as KEY=VALUE, or train without spot",
            )
        if label:
            wanted.append({"key": label, "operator": "In" if spot else "NotIn", "values": [value]})
        if wanted:
            terms = {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
            found["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        return found

    def _store_endpoint(self) -> str:
        """Where pods find object storage: CoreWeave's cache beside the GPUs, unless the configuration says more."""
        return self.option("objects_in_cluster") or self.cloud.endpoints.get("objects") or _LOTA


def read_catalog() -> Mapping[str, Any]:
    """The provider's catalogue."""
    return yaml.safe_load(Path(__file__).with_name("catalog.yaml").read_text())
