"""The nodes of the double, and which of them a pod may run on.

One node of each instance type in CoreWeave's catalogue, labelled as CoreWeave labels them, and a spot twin of the CPU
node. https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.local.kubernetes_api.objects import Json

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
SPOT_LABEL = "lintas/spot"
_UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "": 1}
_QUANTITY = re.compile(r"([\d.]+)(m|Ki|Mi|Gi|Ti|k|M|G)?")


def nodes_from_catalog(catalog: Mapping[str, Any]) -> list[Json]:
    """The nodes' manifests."""
    found = [_node(f"node-{offer['sku']}", offer, spot=False) for offer in catalog["offers"]]
    cheapest = next(offer for offer in catalog["offers"] if not offer.get("count"))
    return [*found, _node(f"spot-{cheapest['sku']}", cheapest, spot=True)]


def _node(name: str, offer: Mapping[str, Any], *, spot: bool) -> Json:
    sizes = {"cpu": str(offer["vcpus"]), "memory": f"{offer['memory_gib']}Gi", "pods": "110"}
    if offer.get("count"):
        sizes["nvidia.com/gpu"] = str(offer["count"])
    gpu = bool(offer.get("count"))
    taint = {"key": "is_gpu", "value": "true", "effect": "PreferNoSchedule"}
    labels = {INSTANCE_TYPE: str(offer["sku"]), "node.coreweave.cloud/class": "gpu" if gpu else "cpu"}
    if spot:
        labels[SPOT_LABEL] = "true"
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint]} if gpu else {},
        "status": {
            "capacity": sizes,
            "allocatable": sizes,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def quantity(text: object) -> float:
    """A resource quantity as a number.

    >>> quantity("500m"), quantity("2Gi")
    (0.5, 2147483648.0)
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"'{text}' is no quantity")
    return float(match[1]) * _UNITS[match[2] or ""]


def asked(spec: Json) -> Counter[str]:
    """What a pod asks for: the sum of its containers, or its largest initial container."""
    total: Counter[str] = Counter()
    for container in spec.get("containers") or []:
        total.update(_wanted(container))
    for container in spec.get("initContainers") or []:
        for resource, amount in _wanted(container).items():
            total[resource] = max(total[resource], amount)
    return total


def _wanted(container: Json) -> Counter[str]:
    resources = container.get("resources") or {}
    amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return Counter({name: quantity(amount) for name, amount in amounts.items()})  # type: ignore[arg-type]


def choose_node(spec: Json, nodes: Sequence[Json], pods: Sequence[Json]) -> tuple[str, str]:
    """The name of a node that takes a pod, or why none does, in the scheduler's words.

    Args:
        spec: The pod's spec.
        nodes: All nodes.
        pods: All pods, for what they use.
    """
    reasons: Counter[str] = Counter()
    demanded = asked(spec)
    for node in sorted(nodes, key=lambda each: len(each["spec"].get("taints") or [])):
        reason = _why_not(spec, demanded, node, pods)
        if not reason:
            return node["metadata"]["name"], ""
        reasons[reason] += 1
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return "", f"0/{len(nodes)} nodes are available: {told}. preemption: 0/{len(nodes)} nodes are available."


def _why_not(spec: Json, demanded: Counter[str], node: Json, pods: Sequence[Json]) -> str:
    labels = node["metadata"].get("labels") or {}
    if not _selected(spec, labels):
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(taint, spec.get("tolerations") or []):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    used: Counter[str] = Counter()
    for pod in pods:
        on_it = pod["spec"].get("nodeName") == node["metadata"]["name"]
        if on_it and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            used.update(asked(pod["spec"]))
    for resource, amount in demanded.items():
        if quantity(node["status"]["allocatable"].get(resource, 0)) - used[resource] < amount:
            return f"Insufficient {resource}"
    return ""


def _selected(spec: Json, labels: Mapping[str, str]) -> bool:
    if any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not affinity:
        return True
    return any(
        all(_expression_holds(each, labels) for each in term.get("matchExpressions") or [])
        for term in affinity["nodeSelectorTerms"]
    )


def _expression_holds(expression: Json, labels: Mapping[str, str]) -> bool:
    value, among = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in among
        case "NotIn":
            return value not in among
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"the operator '{other}' is not imitated")


def _tolerated(taint: Json, tolerations: Sequence[Json]) -> bool:
    for each in tolerations:
        same_effect = each.get("effect") in (None, "", taint["effect"])
        same_key = each.get("key") in (None, "", taint["key"])
        same_value = each.get("operator") == "Exists" or each.get("value") == taint.get("value")
        if same_effect and same_key and same_value:
            return True
    return False
