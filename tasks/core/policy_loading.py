"""Loading a policy: every key is known and every word means something, or the policy does not load.

A refusal names the file, the key, what is wrong and the mend, with the nearest known word where there is one.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, cast

from tasks.core.detectors.coverage import Mode, Thoroughness
from tasks.core.detectors.detection import OWN_CHECKS, PHONE_REGIONS, OwnEntity
from tasks.core.detectors.entities import ENTITIES, UNREADABLE, Group
from tasks.core.errors import Invalid
from tasks.core.jurisdictions import JURISDICTIONS
from tasks.core.policy import (
    EXPECTATIONS,
    PLACE_PREFIXES,
    PROFILE_COLUMNS,
    PURPOSES,
    Action,
    ActionOptions,
    AnonymityRule,
    Hierarchy,
    Policy,
    Purpose,
    Quality,
    Rule,
)

_OWN_NAME = re.compile("[A-Z][A-Z0-9_]{1,63}")
_POLICY_KEYS = (
    "version", "name", "extends", "classes", "residency", "detection", "entities", "defaults", "rules", "quality",
    "anonymity",
)  # fmt: skip
_RULE_KEYS = (
    "name", "entities", "action", "columns", "except_columns", "paths", "destinations", "except_destinations",
    "datasets", "classes", "min_share", "min_confidence", "options",
)  # fmt: skip
_OPTIONS = {
    Action.MASK: ("keep_last",),
    Action.REPLACE: ("replacement",),
    Action.GENERALISE: ("date_to", "number_step"),
    Action.SHIFT_DATES: ("by", "max_days", "also", "domain"),
    Action.FORMAT_PRESERVE: ("domain",),
    Action.ENCRYPT: ("domain",),
    Action.TOKENISE: ("domain",),
    Action.HASH: ("domain",),
}
_SEEKING = ("generalise", "suppress_up_to")
_HIERARCHIES = ("steps", "keep", "dates")
_DATES = ("month", "year", "decade")
_MAX_COMBINATIONS = 4096
_ANONYMITY_LIMITS = ("k", "l", "entropy_l", "t")
_FOR_UNREAD = (Action.REFUSE, Action.QUARANTINE, Action.ALLOW)
_CANNOT_TREAT = "what cannot be read cannot be treated: use refuse, quarantine or allow"


def load_policy(
    data: Mapping[str, Any],
    origin: str = "policy",
    *,
    lines: Mapping[str, int] | None = None,
    bases: Sequence[Policy] = (),
) -> Policy:
    """Check and load a policy.

    Args:
        data: What the YAML file holds.
        origin: The file, for messages.
        lines: The line of every key, as `rules[0].action`, for explanations.
        bases: The policies that its `extends` names, loaded.

    Raises:
        Invalid: A key is unknown, missing or wrong; the text names the key, what is wrong and the mend.
    """
    return _Loader(origin, lines or {}).policy(data, tuple(bases))


class _Loader:
    """Reads a policy's mapping; every refusal names the file and the key."""

    def __init__(self, origin: str, lines: Mapping[str, int]) -> None:
        self.origin = origin
        self.lines = lines
        self.classes: dict[str, tuple[str, ...]] = {}
        self.own: dict[str, OwnEntity] = {}

    def at(self, key: str) -> str:
        """Where a key stands: the file, and the line if it is known."""
        return f"{self.origin}:{self.lines[key]}" if key in self.lines else self.origin

    def policy(self, data: Mapping[str, Any], bases: tuple[Policy, ...]) -> Policy:
        self.only(data, "", _POLICY_KEYS)
        if data.get("version") != 1 or isinstance(data.get("version"), bool):
            self.wrong("version", "is not 1", "write 'version: 1'")
        self.own = self.own_entities(data, bases)
        detection = self.mapping(data, "detection")
        self.only(detection, "detection", ("phone_regions", "names_in_text", "mode", "parts", "seed"))
        residency = self.mapping(data, "residency", required=True)
        self.only(residency, "residency", ("allowed", "by_group", "by_purpose"))
        by_purpose = self.mapping(residency, "by_purpose", "residency")
        classes = self.mapping(data, "classes")
        self.classes = {name: self.texts(globs, f"classes.{name}") for name, globs in classes.items()}
        defaults = self.mapping(data, "defaults")
        self.only(defaults, "defaults", ("finding", "unreadable", "min_confidence", "labels"))
        by_group = self.mapping(residency, "by_group", "residency")
        unreadable = self.action(defaults.get("unreadable", "refuse"), "defaults.unreadable")
        if unreadable not in _FOR_UNREAD:
            self.wrong("defaults.unreadable", f"is '{unreadable}'", _CANNOT_TREAT)
        labels = self.text(defaults.get("labels", "drop"), "defaults.labels")
        if labels not in ("drop", "keep"):
            self.wrong("defaults.labels", f"is '{labels}'", "write drop or keep")
        default_action = self.action(defaults.get("finding", "refuse"), "defaults.finding")
        if default_action is Action.SHIFT_DATES:
            self.wrong("defaults.finding", "is 'shift_dates', which needs options", "write a rule for it")
        allowed = self.jurisdictions(residency.get("allowed"), "residency.allowed")
        rules = tuple(self.rule(item, f"rules[{at}]") for at, item in enumerate(self.listing(data, "rules")))
        quality = [self.quality(item, f"quality[{at}]") for at, item in enumerate(self.listing(data, "quality"))]
        anonymity = [self.anonymity(item, at, data) for at, item in enumerate(self.listing(data, "anonymity"))]
        names = [rule.name for rule in rules]
        for name in names:
            if names.count(name) > 1:
                self.wrong("rules", f"has the name '{name}' twice", "give every rule its own name")
        return Policy(
            name=self.text(data.get("name"), "name"),
            allowed=allowed,
            allowed_by_group=tuple(
                (self.group(key, "residency.by_group"), self.jurisdictions(value, f"residency.by_group.{key}"))
                for key, value in by_group.items()
            ),
            default_action=default_action,
            default_min_confidence=self.share(defaults.get("min_confidence", 0.5), "defaults.min_confidence"),
            unreadable=unreadable,
            allowed_by_purpose=tuple(
                (self.purpose(key), self.jurisdictions(value, f"residency.by_purpose.{key}"))
                for key, value in by_purpose.items()
            ),
            rules=rules,
            quality=(*quality, *(each for base in bases for each in base.quality)),
            anonymity=(*anonymity, *(each for base in bases for each in base.anonymity)),
            digest=_digest(data, bases),
            keeps_labels=labels == "keep",
            own=tuple(self.own.values()),
            phone_regions=self.phone_regions(detection),
            names_in_text=self.flag(detection, "names_in_text", "detection"),
            scanning=self.thoroughness(detection),
            bases=bases,
            origin=self.origin,
            origins={key: self.at(key) for key in self.lines if key.startswith(("defaults", "residency"))},
        )

    def own_entities(self, data: Mapping[str, Any], bases: tuple[Policy, ...]) -> dict[str, OwnEntity]:
        """The entities that the policy and those it extends bring along, by name."""
        known: dict[str, OwnEntity] = {}
        listed = [self.own_entity(item, f"entities[{at}]") for at, item in enumerate(self.listing(data, "entities"))]
        for own in (*(own for base in bases for own in base.own), *listed):
            if known.setdefault(own.name, own) != own:
                self.wrong("entities", f"has '{own.name}' in two ways", "define it once, or give it another name")
        if len({own.name for own in listed}) < len(listed):
            self.wrong("entities", "has a name twice", "give every entity its own name")
        return known

    def own_entity(self, item: object, key: str) -> OwnEntity:
        from tasks.core.detectors.own import pattern_problem

        data = self.as_mapping(item, key)
        self.only(data, key, ("name", "pattern", "check", "words", "group"))
        name = self.text(data.get("name"), f"{key}.name")
        if not _OWN_NAME.fullmatch(name) or name in ENTITIES:
            what = "an entity that everybody has" if name in ENTITIES else "not a name in capitals such as BOOKING_CODE"
            self.wrong(f"{key}.name", f"is '{name}', {what}", "give it a name of its own")
        pattern = self.text(data.get("pattern"), f"{key}.pattern")
        problem = pattern_problem(pattern)
        if problem:
            self.wrong(f"{key}.pattern", problem, "write it in RE2's syntax, for what is there at least once")
        check = data.get("check", "")
        if check:
            self.one_of(self.text(check, f"{key}.check"), OWN_CHECKS, f"{key}.check", "a check")
        words = self.texts(data.get("words", []), f"{key}.words")
        return OwnEntity(
            name=name,
            pattern=pattern,
            check=str(check),
            words=tuple(word.casefold() for word in words),
            group=self.group(data.get("group", "own"), f"{key}.group"),
        )

    def thoroughness(self, detection: Mapping[str, Any]) -> Thoroughness:
        mode = self.text(detection.get("mode", "full"), "detection.mode")
        self.one_of(mode, list(Mode), "detection.mode", "full, sample or schema")
        for name in ("parts", "seed"):
            if name in detection and mode != Mode.SAMPLE:
                self.wrong(f"detection.{name}", "does not go with the mode", "leave it out, or write 'mode: sample'")
        parts = self.at_least(detection, "parts", "detection", 1, whole=True) if "parts" in detection else 300
        seed = self.at_least(detection, "seed", "detection", 0, whole=True) if "seed" in detection else 0
        return Thoroughness(Mode(mode), int(parts), int(seed))

    def phone_regions(self, detection: Mapping[str, Any]) -> tuple[str, ...]:
        if "phone_regions" not in detection:
            return PHONE_REGIONS
        from tasks.core.detectors.phones import known_regions

        key = "detection.phone_regions"
        words = self.texts(detection["phone_regions"], key)
        for word in words:
            self.one_of(word, known_regions(), key, "a country with a numbering plan")
        return words

    def rule(self, item: object, key: str) -> Rule:
        data = self.as_mapping(item, key)
        self.only(data, key, _RULE_KEYS)
        entities = self.entities(data.get("entities"), f"{key}.entities")
        action = self.action(data.get("action"), f"{key}.action")
        if UNREADABLE in entities and action not in _FOR_UNREAD:
            self.wrong(f"{key}.action", f"is '{action}' for {UNREADABLE}", _CANNOT_TREAT)
        return Rule(
            name=self.text(data.get("name"), f"{key}.name"),
            entities=entities,
            action=action,
            columns=self.texts(data.get("columns", []), f"{key}.columns"),
            except_columns=self.texts(data.get("except_columns", []), f"{key}.except_columns"),
            paths=self.texts(data.get("paths", []), f"{key}.paths"),
            destinations=self.destinations(data.get("destinations", []), f"{key}.destinations"),
            except_destinations=self.destinations(data.get("except_destinations", []), f"{key}.except_destinations"),
            datasets=self.datasets(data, key),
            min_share=self.share(data.get("min_share", 0.0), f"{key}.min_share"),
            min_confidence=self.share(data.get("min_confidence", 0.5), f"{key}.min_confidence"),
            options=self.options(data, action, key),
            origin=self.at(key),
        )

    def datasets(self, rule: Mapping[str, Any], key: str) -> tuple[str, ...]:
        """Globs of the datasets that a rule holds for, its classes spelt out."""
        globs = list(self.texts(rule.get("datasets", []), f"{key}.datasets"))
        for name in self.texts(rule.get("classes", []), f"{key}.classes"):
            self.one_of(name, self.classes, f"{key}.classes", "a class of datasets under 'classes'")
            globs += self.classes[name]
        return tuple(dict.fromkeys(globs))

    def options(self, rule: Mapping[str, Any], action: Action, key: str) -> ActionOptions:
        data = self.mapping(rule, "options", key)
        self.only(data, f"{key}.options", _OPTIONS.get(action, ()))
        keep_last = data.get("keep_last", 4)
        if not isinstance(keep_last, int) or isinstance(keep_last, bool) or not 0 <= keep_last <= 4:
            self.wrong(f"{key}.options.keep_last", "is not a whole number from 0 to 4", "write how many may stay")
        date_to = data.get("date_to", "month")
        if date_to not in ("month", "year"):
            self.wrong(f"{key}.options.date_to", "is neither month nor year", "write month or year")
        step = data.get("number_step", 10.0)
        if not isinstance(step, (int, float)) or isinstance(step, bool) or not step > 0:
            self.wrong(f"{key}.options.number_step", "is not a number above 0", "write the step to round down to")
        max_days = data.get("max_days", 365)
        if not isinstance(max_days, int) or isinstance(max_days, bool) or not 1 <= max_days <= 36_500:
            self.wrong(f"{key}.options.max_days", "is not a whole number from 1 to 36500", "write the most days")
        if action is Action.SHIFT_DATES and "by" not in data:
            self.wrong(f"{key}.options.by", "is missing", "name the column of the subject whose dates move together")
        return ActionOptions(
            by=self.text(data["by"], f"{key}.options.by") if "by" in data else "",
            max_days=max_days,
            also=self.texts(data.get("also", []), f"{key}.options.also"),
            keep_last=keep_last,
            replacement=self.text(data["replacement"], f"{key}.options.replacement") if "replacement" in data else "",
            date_to=str(date_to),
            number_step=float(step),
            domain=self.text(data["domain"], f"{key}.options.domain") if "domain" in data else "",
        )

    def quality(self, item: object, key: str) -> Quality:
        data = self.as_mapping(item, key)
        self.only(data, key, ("expectation", "kwargs", "where"))
        name = self.text(data.get("expectation"), f"{key}.expectation")
        self.one_of(name, EXPECTATIONS, f"{key}.expectation", "an expectation on the profile table")
        kwargs = self.mapping(data, "kwargs", key)
        column = kwargs.get("column")
        if name.startswith("expect_column_"):
            name_key = f"{key}.kwargs.column"
            self.one_of(self.text(column, name_key), PROFILE_COLUMNS, name_key, "a profile column")
        where = self.mapping(data, "where", key)
        self.only(where, f"{key}.where", ("path", "column"))
        return Quality(
            name,
            dict(kwargs),
            path=self.text(where.get("path", "*"), f"{key}.where.path"),
            column=self.text(where.get("column", "*"), f"{key}.where.column"),
        )

    def anonymity(self, item: object, at: int, policy: Mapping[str, Any]) -> AnonymityRule:
        key = f"anonymity[{at}]"
        data = self.as_mapping(item, key)
        self.only(data, key, ("paths", "quasi_identifiers", "sensitive", *_SEEKING, *_ANONYMITY_LIMITS))
        quasi = self.columns(data.get("quasi_identifiers"), f"{key}.quasi_identifiers")
        sensitive = self.columns(data["sensitive"], f"{key}.sensitive") if "sensitive" in data else ()
        both = [name for name in sensitive if name in quasi]
        if both:
            self.wrong(f"{key}.sensitive", f"names '{both[0]}', a quasi-identifier", "name it in one of the two")
        limits = [name for name in _ANONYMITY_LIMITS if name in data]
        if not limits:
            self.wrong(key, "asks for nothing", f"add one of {', '.join(_ANONYMITY_LIMITS)}")
        if bool(sensitive) != (limits != ["k"]):
            self.wrong(
                f"{key}.sensitive", "does not go with the limits", "l, entropy_l and t need it, k alone does not"
            )
        return AnonymityRule(
            name=f"{self.text(policy.get('name'), 'name')}: {key}",
            quasi_identifiers=quasi,
            paths=self.columns(data.get("paths", ["*"]), f"{key}.paths"),
            sensitive=sensitive,
            k=int(self.at_least(data, "k", key, 2, whole=True)),
            distinct_l=int(self.at_least(data, "l", key, 2, whole=True)),
            entropy_l=self.at_least(data, "entropy_l", key, 1),
            t=self.share(data.get("t", 1.0), f"{key}.t"),
            hierarchies=self.hierarchies(data, quasi, key),
            suppress_up_to=self.share(data.get("suppress_up_to", 0.0), f"{key}.suppress_up_to"),
        )

    def hierarchies(self, rule: Mapping[str, Any], quasi: Sequence[str], inside: str) -> dict[str, Hierarchy]:
        """How quasi-identifiers may be made coarser."""
        found: dict[str, Hierarchy] = {}
        combinations = 1
        for name, value in self.mapping(rule, "generalise", inside).items():
            key = f"{inside}.generalise.{name}"
            self.one_of(name, quasi, f"{inside}.generalise", "one of the quasi_identifiers")
            data = self.as_mapping(value, key)
            self.only(data, key, _HIERARCHIES)
            if len(data) != 1:
                self.wrong(key, "is not one hierarchy", f"write one of {', '.join(_HIERARCHIES)}")
            found[name] = self.hierarchy(*next(iter(data.items())), key)
            combinations *= found[name].height + 1
        if combinations > _MAX_COMBINATIONS:
            self.wrong(f"{inside}.generalise", f"has more than {_MAX_COMBINATIONS} combinations", "give fewer levels")
        return found

    def hierarchy(self, kind: str, value: object, inside: str) -> Hierarchy:
        """One column's levels, each coarser than the one before."""
        key = f"{inside}.{kind}"
        if not isinstance(value, list) or not value:
            self.wrong(key, "is not a list", "give the levels, the finest first")
        levels = cast("list[object]", value)
        if kind == "dates":
            words = self.texts(levels, key)
            for word in words:
                self.one_of(word, _DATES, key, f"one of {', '.join(_DATES)}")
            if [_DATES.index(word) for word in words] != sorted({_DATES.index(word) for word in words}):
                self.wrong(key, "does not grow coarser", f"keep the order {', '.join(_DATES)}")
            return Hierarchy(dates=words)
        numbers = [each for each in levels if isinstance(each, (int, float)) and not isinstance(each, bool)]
        if len(numbers) < len(levels):
            self.wrong(key, "is not a list of numbers", "give the levels, the finest first")
        if kind == "keep":
            whole = [int(each) for each in numbers]
            if whole != numbers or whole != sorted(set(whole), reverse=True) or whole[-1] < 0:
                self.wrong(key, "does not keep less and less", "give whole numbers, the greatest first")
            return Hierarchy(keep=tuple(whole))
        coarser = all(more > less and more % less == 0 for less, more in itertools.pairwise(numbers))
        if numbers[0] <= 0 or not coarser:
            self.wrong(key, "does not grow in multiples", "give numbers above 0, each a multiple of the one before")
        return Hierarchy(steps=tuple(float(each) for each in numbers))

    def columns(self, value: object, key: str) -> tuple[str, ...]:
        """Texts of which there is at least one, and none twice."""
        words = self.texts(value, key)
        if not words or len(set(words)) < len(words):
            self.wrong(key, "names one twice" if words else "is empty", "name each once, and at least one")
        return words

    def at_least(self, data: Mapping[str, Any], name: str, inside: str, least: int, *, whole: bool = False) -> float:
        """A number that is not less than another; 1, which asks for nothing, when it is not given."""
        value = data.get(name, 1)
        kinds = (int,) if whole else (int, float)
        number = isinstance(value, kinds) and not isinstance(value, bool)
        if name in data and not (number and least <= value < float("inf")):
            what = "whole number" if whole else "number"
            self.wrong(f"{inside}.{name}", f"is not a {what} from {least}", "write how many are wanted")
        return value

    def entities(self, value: object, key: str) -> tuple[str, ...]:
        names: list[str] = []
        for word in self.texts(value, key):
            if word == "*":
                names += [name for name in (*ENTITIES, *self.own) if name != UNREADABLE]
            elif word in list(Group):
                names += [each.name for each in (*ENTITIES.values(), *self.own.values()) if each.group == word]
            else:
                self.one_of(word, [*ENTITIES, *self.own, *Group], key, "an entity or a group of entities")
                names.append(word)
        if not names:
            self.wrong(key, "is empty", "name entities, groups, or '*' for all")
        return tuple(dict.fromkeys(names))

    def action(self, value: object, key: str) -> Action:
        word = self.text(value, key)
        self.one_of(word, list(Action), key, "an action")
        return Action(word)

    def group(self, value: object, key: str) -> Group:
        word = self.text(value, key)
        self.one_of(word, list(Group), key, "a group of entities")
        return Group(word)

    def purpose(self, word: str) -> Purpose:
        key = "residency.by_purpose"
        self.one_of(word, PURPOSES, key, "a purpose")
        return cast("Purpose", word)

    def destinations(self, value: object, key: str) -> tuple[str, ...]:
        words = self.texts(value, key)
        for word in words:
            prefix, colon, rest = word.partition(":")
            if colon:
                self.one_of(prefix, PLACE_PREFIXES, key, f"a kind of place ({', '.join(PLACE_PREFIXES)})")
                if prefix == "purpose":
                    self.one_of(rest, PURPOSES, key, "a purpose")
            elif word.isupper():  # Clouds are named in lower case, as schemes of URIs are.
                self.one_of(word, JURISDICTIONS, key, "a jurisdiction")
        return words

    def jurisdictions(self, value: object, key: str) -> tuple[str, ...]:
        words = self.texts(value, key)
        if not words:
            self.wrong(key, "is empty", "name the jurisdictions that data may be in, such as [US, EU]")
        for word in words:
            self.one_of(word, JURISDICTIONS, key, "a jurisdiction (ISO 3166 country or EU)")
        return words

    def flag(self, data: Mapping[str, Any], name: str, inside: str) -> bool:
        """A yes or no, which is no when it is left out."""
        value = data.get(name, False)
        if not isinstance(value, bool):
            self.wrong(f"{inside}.{name}", "is neither true nor false", "write true or false, without quotes")
        return value

    def share(self, value: object, key: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
            self.wrong(key, "is not a number from 0 to 1", "write a share such as 0.01")
        return float(value)

    def text(self, value: object, key: str) -> str:
        if value is None:
            self.wrong(key, "is missing", "add it")
        if not isinstance(value, str) or not value.strip():
            hint = " (YAML reads a bare NO as false)" if value is False else ""
            self.wrong(key, f"is not a text{hint}", "write a text, in quotes if need be")
        return value

    def texts(self, value: object, key: str) -> tuple[str, ...]:
        if value is None:
            self.wrong(key, "is missing", "add it")
        if not isinstance(value, list):
            self.wrong(key, "is not a list", "write it in square brackets")
        return tuple(self.text(item, f"{key}[{at}]") for at, item in enumerate(cast("list[object]", value)))

    def listing(self, data: Mapping[str, Any], name: str) -> list[object]:
        value = data.get(name, [])
        if not isinstance(value, list):
            self.wrong(name, "is not a list", "start each item with a dash")
        return cast("list[object]", value)

    def mapping(
        self, data: Mapping[str, Any], name: str, inside: str = "", *, required: bool = False
    ) -> Mapping[str, Any]:
        key = f"{inside}.{name}" if inside else name
        if name not in data:
            if required:
                self.wrong(key, "is missing", "add it")
            return {}
        return self.as_mapping(data[name], key)

    def as_mapping(self, value: object, key: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.wrong(key, "is not a mapping", "write 'key: value' lines under it")
        return cast("Mapping[str, Any]", value)

    def only(self, data: Mapping[str, Any], key: str, known: Sequence[str]) -> None:
        for name in data:
            if name not in known:
                whole = f"{key}.{name}" if key else str(name)
                mend = f"remove it or correct its name{_close(str(name), known)}"
                self.wrong(whole, "is not a key that policies have here", mend)

    def one_of(self, word: str, known: Collection[str], key: str, what: str) -> None:
        if word not in known:
            mend = f"correct it{_close(word, known)} (docs/policy.md lists them)"
            self.wrong(key, f"names '{word}', which is not {what}", mend)

    def wrong(self, key: str, what: str, mend: str) -> NoReturn:
        raise Invalid(f"{self.origin}: '{key}' {what}", mend)


def _close(word: str, known: Collection[str]) -> str:
    exact = [name for name in known if name.casefold() == word.casefold()]
    near = exact or difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _digest(data: Mapping[str, Any], bases: Sequence[Policy]) -> str:
    whole: Any = [data, sorted(base.digest for base in bases)] if bases else data
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
