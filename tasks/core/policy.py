"""The privacy policy: which findings may go where, and after which treatment.

A policy is one YAML file (docs/policy.md). It fails closed: what no rule speaks of is refused, what could not be read
is refused, a place that is not named is refused, and a policy that names anything unknown does not load.

Of all rules that speak of a finding the strictest decides, whatever their order. The strictness of actions is the
order of `Action`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tasks.core.detectors.entities import ENTITIES, UNREADABLE, Group
from tasks.core.findings import Finding
from tasks.core.jurisdictions import lies_within


class Action(enum.StrEnum):
    """What happens to a finding, from the mildest to the strictest."""

    ALLOW = "allow"
    GENERALISE = "generalise"
    HASH = "hash"
    TOKENISE = "tokenise"
    MASK = "mask"
    REPLACE = "replace"
    DROP = "drop"
    REFUSE = "refuse"

    @property
    def strictness(self) -> int:
        """0 for the mildest."""
        return list(Action).index(self)


EXPECTATIONS = frozenset({
    "expect_column_distinct_values_to_be_in_set",
    "expect_column_distinct_values_to_contain_set",
    "expect_column_max_to_be_between",
    "expect_column_mean_to_be_between",
    "expect_column_min_to_be_between",
    "expect_column_sum_to_be_between",
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_null",
    "expect_column_values_to_not_be_in_set",
    "expect_column_values_to_not_be_null",
    "expect_table_row_count_to_be_between",
    "expect_table_row_count_to_equal",
})  # fmt: skip
"""The Great Expectations expectations that a policy's `quality` may name; they run on the profile table."""

PROFILE_COLUMNS = ("path", "column", "kind", "rows", "nulls", "null_share", "distinct", "minimum", "maximum")
"""The columns of the profile table."""


@dataclass(frozen=True, slots=True)
class ActionOptions:
    """How an action is done.

    Args:
        keep_last: Characters that masking leaves at the end.
        replacement: What `replace` writes; empty for the entity's name in angle brackets.
        date_to: Precision that `generalise` leaves of a date: `month` or `year`.
        number_step: Step that `generalise` rounds numbers down to.
        domain: Names whose tokens must be equal across datasets; the entity's name unless given.
    """

    keep_last: int = 4
    replacement: str = ""
    date_to: str = "month"
    number_step: float = 10.0
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Args:
        name: For reasons and reports.
        entities: Entity names it speaks of; groups are spelt out.
        action: What happens to them.
        columns: Globs of column names; every column when empty.
        except_columns: Globs of column names that it does not speak of.
        paths: Globs of paths; every path when empty.
        destinations: Clouds or jurisdictions it holds for; all when empty.
        except_destinations: Clouds or jurisdictions it does not hold for.
        min_share, min_confidence: A finding below either is noted and passes this rule.
        options: How the action is done.
    """

    name: str
    entities: tuple[str, ...]
    action: Action
    columns: tuple[str, ...] = ()
    except_columns: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    except_destinations: tuple[str, ...] = ()
    min_share: float = 0.0
    min_confidence: float = 0.0
    options: ActionOptions = field(default_factory=ActionOptions)

    def speaks_of(self, finding: Finding, place: Place) -> bool:
        """Whether the rule is about this entity, column and destination, whatever the thresholds."""
        return (
            finding.entity in self.entities
            and (not self.columns or _any_glob(finding.column, self.columns))
            and not _any_glob(finding.column, self.except_columns)
            and (not self.paths or _any_glob(finding.path, self.paths))
            and (not self.destinations or place.is_any_of(self.destinations))
            and not place.is_any_of(self.except_destinations)
        )

    def decide(self, finding: Finding) -> Action:
        """The action for a finding that the rule speaks of."""
        reached = finding.share >= self.min_share and finding.confidence >= self.min_confidence
        return self.action if reached else Action.ALLOW


@dataclass(frozen=True, slots=True)
class Place:
    """Where data would go: a cloud by its name in `lintas.yaml`, and the jurisdiction it lies in."""

    cloud: str
    jurisdiction: str

    def is_any_of(self, names: Collection[str]) -> bool:
        """Whether one of the names is this cloud or a jurisdiction that this place lies in."""
        return any(name == self.cloud or lies_within(self.jurisdiction, name) for name in names)


@dataclass(frozen=True, slots=True)
class Quality:
    """One expectation on the profile table (`PROFILE_COLUMNS`), on the lines that `where` selects by globs."""

    expectation: str
    kwargs: Mapping[str, Any]
    path: str = "*"
    column: str = "*"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says about one finding, and which rule said so."""

    finding: Finding
    action: Action
    rule: str
    options: ActionOptions = field(default_factory=ActionOptions)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it was loaded; make one with `tasks.core.policy_loading.load_policy`.

    Args:
        name: Its name.
        allowed: Jurisdictions that data may be in.
        allowed_by_group: For findings of a group, the only jurisdictions they may be in.
        default_action: For findings that no rule speaks of.
        default_min_confidence: Such findings below it are noted and pass.
        unreadable: For what could not be read.
        rules, quality: See there.
        digest: Identity of the policy's content: SHA-256 over its canonical JSON, 64 hexadecimal characters.
    """

    name: str
    allowed: tuple[str, ...]
    allowed_by_group: tuple[tuple[Group, tuple[str, ...]], ...]
    default_action: Action
    default_min_confidence: float
    unreadable: Action
    rules: tuple[Rule, ...]
    quality: tuple[Quality, ...]
    digest: str

    def decide(self, finding: Finding, place: Place) -> Decision:
        """The strictest of what the rules say about a finding at a destination; the defaults when none speaks."""
        speaking = [rule for rule in self.rules if rule.speaks_of(finding, place)]
        if speaking:
            strictest = max(speaking, key=lambda rule: (rule.decide(finding).strictness, rule.name))
            return Decision(finding, strictest.decide(finding), strictest.name, strictest.options)
        if finding.entity == UNREADABLE:
            return Decision(finding, self.unreadable, "defaults.unreadable")
        reached = finding.confidence >= self.default_min_confidence
        return Decision(finding, self.default_action if reached else Action.ALLOW, "defaults.finding")

    def residency_refusals(self, findings: Sequence[Finding], place: Place) -> tuple[str, ...]:
        """Why data with these findings may not be at this place; nothing when it may."""
        where = f"{place.cloud} is in {place.jurisdiction or 'no stated jurisdiction'}"
        if not any(lies_within(place.jurisdiction, name) for name in self.allowed):
            return (f"{where}, and residency.allowed is {', '.join(self.allowed)}",)
        reasons: list[str] = []
        for group, allowed in self.allowed_by_group:
            found = sorted({f.entity for f in findings if ENTITIES[f.entity].group is group and self._counts(f)})
            if found and not any(lies_within(place.jurisdiction, name) for name in allowed):
                limit = f"only in {', '.join(allowed)} (residency.by_group.{group})"
                reasons.append(f"{', '.join(found)} may be {limit}, and {where}")
        return tuple(reasons)

    def _counts(self, finding: Finding) -> bool:
        return finding.confidence >= self.default_min_confidence


def _any_glob(text: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text.casefold(), glob.casefold()) for glob in globs)
