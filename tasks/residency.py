"""Residency of models: what a version learned from is noted when it is registered, and asked before it is served."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.core.dataset import DatasetURI
from tasks.core.errors import Invalid, LintasError, PolicyViolation
from tasks.core.learned import Learned, entities_of
from tasks.core.manifest import Manifest
from tasks.privacy import scan_dataset
from tasks.registry import installation
from tasks.tracking import ModelVersion

LEARNED_TAG = "lintas.learned_from"


def learned_from(uri: DatasetURI, manifest: Manifest, policy: str) -> Learned:
    """What a model that learns from a dataset learns from: what the gate found when it cleared it, or finds now.

    Args:
        uri, manifest: The training data, where the job reads it.
        policy: Name or file of the policy that it is trained under.
    """
    here = installation()
    rules = here.policy(policy)
    entities: dict[str, float] | None = None
    for record in here.records.audit.records(kind="verdict"):
        facts = record.facts
        if facts.get("manifest") == manifest.digest and facts.get("decision") == "cleared" and "entities" in facts:
            entities = dict(facts["entities"])
    if entities is None:
        entities = entities_of(scan_dataset(uri, manifest, rules).findings)
    return Learned(str(uri), manifest.digest, policy, rules.digest, entities)


def require_residency(version: ModelVersion, clouds: Sequence[str]) -> None:
    """Insist that a model version may be served on these clouds, by the policy it was trained under, as it is now.

    Raises:
        PolicyViolation: It may not, or nobody knows what it learned from.
    """
    here = installation()
    name = f"version {version.version} of '{version.model}'"
    try:
        learned = Learned.from_json(version.tags.get(LEARNED_TAG, ""))
        policy = here.policy(learned.policy)
    except Invalid as error:
        raise PolicyViolation(
            f"nobody knows what {name} learned from, so it may be served nowhere",
            "train it with 'lintas train', which notes that with the version",
        ) from error
    except LintasError as error:
        raise PolicyViolation(
            f"the policy that {name} was trained under cannot be read, so it may be served nowhere",
            "put it back under policies_dir, or train again under another one",
        ) from error
    reasons = [
        f"on '{cloud}': {reason}"
        for cloud in clouds
        for reason in learned.refusals(policy, here.place(cloud, "serving", learned.dataset))
    ]
    if reasons:
        raise PolicyViolation(
            f"{name} may not be served where it is wanted: {reasons[0]}",
            "serve it elsewhere, train it on data without that, or have the policy's owner change its residency",
            reasons=tuple(reasons),
        )
