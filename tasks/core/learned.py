"""What a model learned from, as far as residency asks: the dataset, the policy, and what was found in it.

A model may give away what it saw. So it may be served only where the data that it learned from may be for that purpose;
of a model of which nobody knows what it learned from, nothing may be served.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from tasks.core.errors import Invalid
from tasks.core.findings import Finding
from tasks.core.policy import Place, Policy


def entities_of(findings: Iterable[Finding]) -> dict[str, float]:
    """What was found, by name, with the greatest confidence of each."""
    return {each.entity: each.confidence for each in sorted(findings, key=lambda found: found.confidence)}


@dataclass(frozen=True, slots=True)
class Learned:
    """The training data of a model version.

    Args:
        dataset: Its URI.
        manifest: Its digest.
        policy: Name or file of the policy that it was trained under.
        policy_digest: Of that policy then.
        entities: What was found in the data, with the greatest confidence. Names, never values.
    """

    dataset: str
    manifest: str
    policy: str
    policy_digest: str
    entities: Mapping[str, float] = field(default_factory=dict[str, float])

    def as_json(self) -> str:
        """For a tag of the model version."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Learned:
        """The inverse of `as_json`. Raises `Invalid` for anything else."""
        try:
            found = cls(**json.loads(text))
            entities = {str(name): float(confidence) for name, confidence in found.entities.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise Invalid("what a model learned from cannot be read", "train it again") from error
        return cls(found.dataset, found.manifest, found.policy, found.policy_digest, entities)

    def refusals(self, policy: Policy, place: Place) -> tuple[str, ...]:
        """Why the model may not be served at a place; nothing when it may. `policy` is the one of now."""
        findings = [
            Finding(entity, "", "", 1, 1.0, confidence, "in the training data")
            for entity, confidence in self.entities.items()
        ]
        return policy.residency_refusals(findings, place)
