"""What the API server refuses: wrong names, missing fields, values that do not go together, changes that may not be.

Not the whole schema: the client's own models, generated from it, check that on the other side. Here stand the rules
that no schema tells.
"""

from __future__ import annotations

import re
from typing import Any

from deployments.local.kubernetes_api.objects import Json, Refused, names

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_IMMUTABLE: dict[str, tuple[str, ...]] = {
    "Job": ("template", "selector", "completions", "podFailurePolicy"),
    "Deployment": ("selector",),
}
_ANNOTATIONS_BYTES = 256 * 1024


def check(kind: str, manifest: Json, before: Json | None = None) -> None:
    """Check an object before it is kept.

    Args:
        kind: Its kind.
        manifest: It.
        before: What it replaces.

    Raises:
        Refused: With 422 and the field.
    """
    name = str(manifest.get("metadata", {}).get("name", ""))

    def refuse(field: str, why: str) -> None:
        raise Refused(422, "Invalid", f'{kind} "{name}" is invalid: {field}: {why}')

    _check_metadata(kind, manifest.get("metadata", {}), refuse)
    spec: Any = manifest.get("spec")
    if kind in ("Job", "Deployment", "Pod", "Service") and not isinstance(spec, dict):
        refuse("spec", "Required value")
    if kind == "Job":
        _check_job(spec, refuse)
    elif kind == "Deployment":
        _check_deployment(spec, refuse)
    elif kind == "Pod":
        _check_pod(spec, "spec", refuse)
    elif kind == "Service" and not spec.get("ports"):
        refuse("spec.ports", "Required value")
    if before is None:
        return
    for field in _IMMUTABLE.get(kind, ()):
        if spec.get(field) != before["spec"].get(field):
            refuse(f"spec.{field}", "Invalid value: field is immutable")
    if before.get("immutable") and manifest.get("data") != before.get("data"):
        refuse("data", "Forbidden: field is immutable when `immutable` is set")


def _check_metadata(kind: str, meta: Json, refuse: Any) -> None:
    name = meta.get("name")
    if not name and not meta.get("generateName"):
        refuse("metadata.name", "Required value: name or generateName is required")
    pattern = _SERVICE_NAME if kind == "Service" else _SUBDOMAIN
    longest = 63 if kind in ("Service", "Job", "Deployment") else 253
    if name and (not pattern.fullmatch(name) or len(name) > longest):
        refuse("metadata.name", f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of ...')
    for label, value in (meta.get("labels") or {}).items():
        if not _LABEL_NAME.fullmatch(label) or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            refuse("metadata.labels", f'Invalid value: "{label}"')
    notes = meta.get("annotations") or {}
    if any(not _LABEL_NAME.fullmatch(note) or not isinstance(value, str) for note, value in notes.items()):
        refuse("metadata.annotations", "Invalid value")
    if sum(len(note) + len(value) for note, value in notes.items()) > _ANNOTATIONS_BYTES:
        refuse("metadata.annotations", "Too long: may not be more than 262144 bytes")


def _check_job(spec: Json, refuse: Any) -> None:
    template = (spec.get("template") or {}).get("spec")
    if not isinstance(template, dict):
        refuse("spec.template.spec", "Required value")
        return
    if template.get("restartPolicy") not in ("Never", "OnFailure"):
        refuse("spec.template.spec.restartPolicy", 'Required value: valid values: "OnFailure", "Never"')
    if spec.get("podFailurePolicy") and template["restartPolicy"] != "Never":
        refuse("spec.template.spec.restartPolicy", 'Invalid value: only "Never" is supported when podFailurePolicy is')
    for field in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        value = spec.get(field, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            refuse(f"spec.{field}", "Invalid value: must be greater than or equal to 0")
    _check_pod(template, "spec.template.spec", refuse)


def _check_deployment(spec: Json, refuse: Any) -> None:
    wanted = (spec.get("selector") or {}).get("matchLabels")
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not wanted:
        refuse("spec.selector", "Required value")
        return
    if any(labels.get(label) != value for label, value in wanted.items()):
        refuse("spec.template.metadata.labels", "Invalid value: `selector` does not match template `labels`")
    if (template.get("spec") or {}).get("restartPolicy", "Always") != "Always":
        refuse("spec.template.spec.restartPolicy", 'Unsupported value: supported values: "Always"')
    _check_pod(template.get("spec") or {}, "spec.template.spec", refuse)


def _check_pod(spec: Json, where: str, refuse: Any) -> None:
    if not spec.get("containers"):
        refuse(f"{where}.containers", "Required value")
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    seen: set[str] = set()
    for container in names(spec):
        for field in ("name", "image"):
            if not container.get(field):
                refuse(f"{where}.containers[*].{field}", "Required value")
        if container["name"] in seen:
            refuse(f"{where}.containers[*].name", f'Duplicate value: "{container["name"]}"')
        seen.add(container["name"])
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                refuse(f"{where}.containers[*].volumeMounts[*].name", f'Not found: "{mount["name"]}"')
        limits = (container.get("resources") or {}).get("limits") or {}
        requests = (container.get("resources") or {}).get("requests") or {}
        for resource, amount in requests.items():
            if "/" in resource and limits.get(resource) != amount:
                refuse(f"{where}.containers[*].resources.requests", f"Invalid value: must be equal to {resource} limit")
