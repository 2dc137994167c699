"""The privacy policy: which findings may go where, and after which treatment.

A policy is one YAML file (docs/policy.md). It fails closed: what no rule speaks of is refused, what could not be read
is refused, a place that is not named is refused, and a policy that names anything unknown does not load.

Of all rules that speak of a finding the strictest decides, whatever their order. The strictness of actions is the
order of `Action`. Policies compose: one that extends others clears only what each of them clears by itself, and does
the strictest of what they want done.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from tasks.core.detectors.coverage import Thoroughness
from tasks.core.detectors.detection import PHONE_REGIONS, Detection, OwnEntity
from tasks.core.detectors.entities import ENTITIES, UNREADABLE, Group
from tasks.core.findings import Finding
from tasks.core.jurisdictions import lies_within


class Action(enum.StrEnum):
    """What happens to a finding, from the mildest to the strictest."""

    ALLOW = "allow"
    GENERALISE = "generalise"
    SHIFT_DATES = "shift_dates"
    FORMAT_PRESERVE = "format_preserve"
    ENCRYPT = "encrypt"
    HASH = "hash"
    TOKENISE = "tokenise"
    MASK = "mask"
    REPLACE = "replace"
    DROP = "drop"
    QUARANTINE = "quarantine"
    REFUSE = "refuse"

    @property
    def strictness(self) -> int:
        """0 for the mildest."""
        return list(Action).index(self)

    @property
    def leaves_the_value(self) -> bool:
        """Whether the entity still is in the data afterwards, so that residency asks about it."""
        return self in (Action.ALLOW, Action.GENERALISE)


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
        domain: Names whose pseudonyms must be equal across datasets; the entity's name unless given.
        by: Column that names the subject whose dates `shift_dates` moves together.
        max_days: The most days that it moves them, either way.
        also: Other columns of dates that move along.
    """

    keep_last: int = 4
    replacement: str = ""
    date_to: str = "month"
    number_step: float = 10.0
    domain: str = ""
    by: str = ""
    max_days: int = 365
    also: tuple[str, ...] = ()

    @property
    def severity(self) -> tuple[float, ...]:
        """Of two ways to do the same action the greater leaves less of the value."""
        return -self.keep_last, self.date_to == "year", self.number_step, self.max_days


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
        destinations: Places it holds for, in the words of `Place.is_any_of`; all when empty.
        except_destinations: Places it does not hold for.
        datasets: Globs of the URIs of datasets it holds for; all when empty. Classes of datasets are spelt out.
        min_share, min_confidence: A finding below either is noted and passes this rule.
        options: How the action is done.
        origin: File and line where it stands.
    """

    name: str
    entities: tuple[str, ...]
    action: Action
    columns: tuple[str, ...] = ()
    except_columns: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    except_destinations: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    min_share: float = 0.0
    min_confidence: float = 0.0
    options: ActionOptions = field(default_factory=ActionOptions)
    origin: str = ""

    def speaks_of(self, finding: Finding, place: Place) -> bool:
        """Whether the rule is about this entity, column and destination, whatever the thresholds."""
        return (
            finding.entity in self.entities
            and (not self.columns or _any_glob(finding.column, self.columns))
            and not _any_glob(finding.column, self.except_columns)
            and (not self.paths or _any_glob(finding.path, self.paths))
            and (not self.destinations or place.is_any_of(self.destinations))
            and not place.is_any_of(self.except_destinations)
            and (not self.datasets or _any_glob(place.source, self.datasets))
        )

    def decide(self, finding: Finding) -> Decision:
        """The decision about a finding that the rule speaks of."""
        reached = finding.share >= self.min_share and finding.confidence >= self.min_confidence
        return Decision(finding, self.action if reached else Action.ALLOW, self.name, self.options, self.origin)


Purpose = Literal["storage", "training", "serving"]
"""What data is somewhere for: a copy, a training that reads it, or the serving of a model that learned from it."""

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

PLACE_PREFIXES = ("provider", "region", "purpose")
"""What a destination may be named by, besides clouds and jurisdictions: `provider:aws`, `region:eu-*`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where data would go, from where, and what for.

    Args:
        cloud: Its name in `lintas.yaml`.
        jurisdiction: Where that is by law; empty when nobody says, which is nowhere.
        provider, region: Of the cloud.
        purpose: What for.
        source: URI of the dataset, by which rules for some datasets know it; rules about a treated copy go by the
            dataset that it was made from.
    """

    cloud: str
    jurisdiction: str
    provider: str = ""
    region: str = ""
    purpose: Purpose = "storage"
    source: str = ""

    def is_any_of(self, names: Collection[str]) -> bool:
        """Whether one of the names is this place: its cloud, a jurisdiction that it lies in, or `PREFIX:GLOB`."""
        return any(self._is(name) for name in names)

    def _is(self, name: str) -> bool:
        prefix, colon, rest = name.partition(":")
        if colon:
            value = {"provider": self.provider, "region": self.region, "purpose": self.purpose}.get(prefix, "")
            return bool(value) and fnmatchcase(value.casefold(), rest.casefold())
        return name == self.cloud or lies_within(self.jurisdiction, name)


@dataclass(frozen=True, slots=True)
class Quality:
    """One expectation on the profile table (`PROFILE_COLUMNS`), on the lines that `where` selects by globs."""

    expectation: str
    kwargs: Mapping[str, Any]
    path: str = "*"
    column: str = "*"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Coarser and coarser forms of a column: one of the three, the finest first.

    Args:
        steps: Numbers are rounded down to multiples of these.
        keep: So many characters stay at the beginning of a text; 0 leaves a star.
        dates: `month`, `year` or `decade`.
    """

    steps: tuple[float, ...] = ()
    keep: tuple[int, ...] = ()
    dates: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """How many levels there are above the values as they are."""
        return len(self.steps or self.keep or self.dates)

    def words(self, level: int) -> str:
        """A level in words."""
        if not level:
            return "as it is"
        if self.steps:
            return f"steps of {self.steps[level - 1]:g}"
        return f"{self.keep[level - 1]} characters" if self.keep else self.dates[level - 1]


@dataclass(frozen=True, slots=True)
class AnonymityRule:
    """How well the rows of tables must hide in each other; see `tasks.core.anonymity` for the figures.

    Args:
        name: The policy and the place in it, for reasons.
        quasi_identifiers: Columns by which a row could be recognised.
        paths: Globs of the objects it holds for; every one of them must be a table with these columns.
        sensitive: Columns whose values must not follow from the class.
        k: The least number of rows in a class; 1 asks for nothing.
        distinct_l, entropy_l: The least diversity of each sensitive column in a class; 1 asks for nothing.
        t: The greatest distance of a sensitive column in a class from the whole table; 1 asks for nothing.
        hierarchies: By which quasi-identifiers may be made coarser until the limits hold.
        suppress_up_to: The share of a table's rows that may be left out for it.
    """

    name: str
    quasi_identifiers: tuple[str, ...]
    paths: tuple[str, ...] = ("*",)
    sensitive: tuple[str, ...] = ()
    k: int = 1
    distinct_l: int = 1
    entropy_l: float = 1.0
    t: float = 1.0
    hierarchies: Mapping[str, Hierarchy] = field(default_factory=dict[str, Hierarchy], hash=False)
    suppress_up_to: float = 0.0

    @property
    def is_sought(self) -> bool:
        """Whether the table may be changed so that the limits hold."""
        return bool(self.hierarchies) or self.suppress_up_to > 0

    def holds_for(self, path: str) -> bool:
        """Whether it is about an object."""
        return _any_glob(path, self.paths)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says about one finding, which rule said so, and where that stands."""

    finding: Finding
    action: Action
    rule: str
    options: ActionOptions = field(default_factory=ActionOptions)
    origin: str = ""

    @property
    def strictness(self) -> tuple[int, tuple[float, ...], str]:
        """The strictest of several decisions about a finding is the greatest of these."""
        return self.action.strictness, self.options.severity, self.rule


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it was loaded; make one with `tasks.core.policy_loading.load_policy`.

    Args:
        name: Its name.
        allowed: Jurisdictions that data may be in.
        allowed_by_group: For findings of a group, the only jurisdictions they may be in.
        allowed_by_purpose: For a purpose, the only jurisdictions that data may be in for it.
        default_action: For findings that no rule speaks of.
        default_min_confidence: Such findings below it are noted and pass.
        unreadable: For what could not be read.
        keeps_labels: Whether user metadata, tags and names in dispositions, which nothing reads, may leave.
        rules, quality, anonymity: See there; the latter two have those of the policies it extends too.
        own: Entities that it and those it extends bring along.
        names_in_text: Whether it by itself wants names looked for inside sentences.
        scanning: How thorough a scan this policy by itself asks for.
        phone_regions: Countries whose telephone numbers are known without a country's code.
        digest: Identity of the policy's content, that of the policies it extends included: SHA-256 over its canonical
            JSON, 64 hexadecimal characters.
        bases: The policies it extends. It clears nothing that one of them refuses.
        origin: The file it was read from.
        origins: File and line of `defaults` and `residency` keys.
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
    allowed_by_purpose: tuple[tuple[Purpose, tuple[str, ...]], ...] = ()
    anonymity: tuple[AnonymityRule, ...] = ()
    bases: tuple[Policy, ...] = ()
    origin: str = ""
    origins: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    keeps_labels: bool = False
    own: tuple[OwnEntity, ...] = ()
    phone_regions: tuple[str, ...] = PHONE_REGIONS
    names_in_text: bool = False
    scanning: Thoroughness = field(default_factory=Thoroughness)

    @property
    def thoroughness(self) -> Thoroughness:
        """How thorough a scan must be for this policy and every one that it extends: the most thorough of them."""
        return max((layer.scanning for layer in self.layers), key=lambda each: each.strictness)

    @property
    def detection(self) -> Detection:
        """What a scan must look for so that this policy and every one that it extends can judge."""
        regions = (region for layer in self.layers for region in layer.phone_regions)
        return Detection(
            phone_regions=tuple(dict.fromkeys(regions)),
            own=self.own,
            names_in_text=any(layer.names_in_text for layer in self.layers),
        )

    def knows(self, entity: str) -> bool:
        """Whether this policy by itself would have looked for an entity."""
        return entity in ENTITIES or entity in {own.name for own in self.own}

    @property
    def layers(self) -> tuple[Policy, ...]:
        """This policy and every one that it extends, directly or not, each once."""
        found = {self.digest: self}
        for base in self.bases:
            found |= {layer.digest: layer for layer in base.layers}
        return tuple(found.values())

    @property
    def keeps_labels_everywhere(self) -> bool:
        """Whether this policy and every one that it extends lets labels leave."""
        return all(layer.keeps_labels for layer in self.layers)

    @property
    def rule_names(self) -> tuple[str, ...]:
        """Everything that may decide, as `Decision.rule` names it."""
        return tuple(
            self._named(layer, rule)
            for layer in self.layers
            for rule in (*(rule.name for rule in layer.rules), "defaults.finding", "defaults.unreadable")
        )

    def decide(self, finding: Finding, place: Place, *, released: bool = False) -> Decision:
        """The strictest of what this policy and those it extends say about a finding at a place.

        Args:
            finding, place: What would be where.
            released: Whether a person released every object that holds it. Then `quarantine` asks for nothing more,
                and the strictest of what else is said decides; nothing else said, it is allowed.
        """
        said = self.explain(finding, place)
        if not released:
            return said[0]
        others = [decision for decision in said if decision.action is not Action.QUARANTINE]
        return others[0] if others else replace(said[0], action=Action.ALLOW)

    def explain(self, finding: Finding, place: Place) -> tuple[Decision, ...]:
        """Everything that speaks of a finding at a place, the strictest first: that one decides."""
        said = [
            replace(decision, rule=self._named(layer, decision.rule))
            for layer in [layer for layer in self.layers if layer.knows(finding.entity)] or [self]
            for decision in layer.decisions_alone(finding, place)
        ]
        return tuple(sorted(said, key=lambda decision: decision.strictness, reverse=True))

    def decisions_alone(self, finding: Finding, place: Place) -> list[Decision]:
        """What the rules of this policy say, without those it extends; its defaults when none speaks."""
        speaking = [rule.decide(finding) for rule in self.rules if rule.speaks_of(finding, place)]
        if speaking:
            return speaking
        if finding.entity == UNREADABLE:
            return [self._default(finding, self.unreadable, "unreadable")]
        reached = finding.confidence >= self.default_min_confidence
        return [self._default(finding, self.default_action if reached else Action.ALLOW, "finding")]

    def _default(self, finding: Finding, action: Action, key: str) -> Decision:
        origin = self.origins.get(f"defaults.{key}", self.origins.get("defaults", self.origin))
        return Decision(finding, action, f"defaults.{key}", origin=origin)

    def _named(self, layer: Policy, rule: str) -> str:
        return rule if layer is self else f"{layer.name}: {rule}"

    def residency_refusals(self, findings: Sequence[Finding], place: Place) -> tuple[str, ...]:
        """Why data with these findings may not be at this place for this purpose; nothing when it may.

        Copies, training and serving all ask here.
        """
        reasons = [reason for layer in self.layers for reason in layer.residency_alone(findings, place)]
        return tuple(dict.fromkeys(reasons))

    def residency_alone(self, findings: Sequence[Finding], place: Place) -> list[str]:
        """`residency_refusals` of this policy, without those it extends."""
        where = f"{place.cloud} is in {place.jurisdiction or 'no stated jurisdiction'}"

        def lies_in(allowed: tuple[str, ...]) -> bool:
            return any(lies_within(place.jurisdiction, name) for name in allowed)

        if not lies_in(self.allowed):
            return [f"{where}, and residency.allowed is {', '.join(self.allowed)}"]
        reasons: list[str] = []
        for purpose, allowed in self.allowed_by_purpose:
            if purpose == place.purpose and not lies_in(allowed):
                reasons.append(f"{where}, and residency.by_purpose.{purpose} is {', '.join(allowed)}")
        for group, allowed in self.allowed_by_group:
            found = sorted({f.entity for f in findings if self._group(f.entity) is group and self._counts(f)})
            if found and not lies_in(allowed):
                limit = f"only in {', '.join(allowed)} (residency.by_group.{group})"
                reasons.append(f"{', '.join(found)} may be {limit}, and {where}")
        return reasons

    def _group(self, entity: str) -> Group | None:
        """An entity's class; None of an entity that this policy does not know."""
        return {own.name: own.group for own in self.own}.get(entity) or (
            ENTITIES[entity].group if entity in ENTITIES else None
        )

    def _counts(self, finding: Finding) -> bool:
        return finding.confidence >= self.default_min_confidence


def _any_glob(text: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text.casefold(), glob.casefold()) for glob in globs)
