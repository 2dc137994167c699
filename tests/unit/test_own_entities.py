"""Entities that a policy brings along: found in linear time, checked, and refused at load when they mean nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.columns import ColumnState, judge
from tasks.core.detectors.detection import Detection, OwnEntity
from tasks.core.detectors.own import own_hits
from tasks.core.detectors.scan import scan
from tasks.core.errors import Invalid
from tasks.core.findings import Finding
from tasks.core.listing import read_manifest
from tasks.core.policy import Action, Place
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Refused, Treatment, VerdictKey, actions_for, decide
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.transform import apply_treatment
from tests.memory_store import MemoryStore

BOOKING = {"name": "BOOKING_CODE", "pattern": r"\bBK-[0-9]{6}\b"}
URI = DatasetURI("memory", "raw", "set")
HERE = Place("google", "US")
TARGET = DatasetURI("google", "lake", "set")


def policy(entities: list[dict[str, Any]], *rules: dict[str, Any], **more: Any) -> Any:
    return {
        "version": 1, "name": "own", "residency": {"allowed": ["US"]}, "entities": entities,
        "rules": [{"name": f"rule {at}", **rule} for at, rule in enumerate(rules)], **more,
    }  # fmt: skip


def texts(own: OwnEntity, *cells: str) -> list[tuple[int, str, bool]]:
    hits = list(own_hits(pl.Series(list(cells)), own))
    return [
        (int(each.found.rows[at]), each.found.text[int(at)], bool(valid))
        for each in hits
        for at, valid in zip(each.which, each.valid, strict=True)
    ]


def test_every_place_where_it_stands_is_a_hit() -> None:
    own = OwnEntity(**BOOKING)
    cells = ["from BK-123456 to BK-654321", "nothing", "über BK-000001"]
    assert texts(own, *cells) == [(0, "BK-123456", True), (0, "BK-654321", True), (2, "BK-000001", True)]


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [("luhn", "K-79927398713", "K-79927398710"), ("verhoeff", "K-2363", "K-2364"), ("mod97", "K-79444", "K-79445")],
)
def test_a_check_is_held_against_each(check: str, right: str, wrong: str) -> None:
    own = OwnEntity("KEY", r"K-[0-9]+" if check != "mod97" else r"[0-9]+", check)
    assert [valid for _, _, valid in texts(own, wrong, right)] == [False, True]


def test_a_cell_full_of_them_is_a_hit_as_a_whole_and_takes_no_longer_than_its_length() -> None:
    found = texts(OwnEntity("A", "a"), "a" * 500_000)
    assert len(found) == 65
    assert len(found[-1][1]) == 500_000


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)*c", "(?:[a-b]{1,30}){1,30}c", ".*.*.*=.*", r"([a-z]+)*\d"])
def test_patterns_that_stop_other_searches_do_not_stop_this_one(pattern: str) -> None:
    assert len(texts(OwnEntity("BOMB", pattern), "a" * 200_000 + "!")) <= 65


@pytest.mark.parametrize(
    ("entity", "key", "why"),
    [
        ({"pattern": "(?=x)"}, "pattern", "not a regular expression of RE2"),
        ({"pattern": r"(a)\1"}, "pattern", "not a regular expression of RE2"),
        ({"pattern": "((a{100}){100}){100}"}, "pattern", "not a regular expression of RE2"),
        ({"pattern": "(a"}, "pattern", "not a regular expression of RE2"),
        ({"pattern": "x*"}, "pattern", "matches an empty text"),
        ({"pattern": "a" * 1001}, "pattern", "longer than 1000"),
        ({"check": "lun"}, "check", "did you mean 'luhn'"),
        ({"name": "IBAN_CODE"}, "name", "an entity that everybody has"),
        ({"name": "booking"}, "name", "not a name in capitals"),
        ({"group": "contcat"}, "group", "did you mean 'contact'"),
        ({"colour": "red"}, "colour", "not a key"),
    ],
)
def test_what_means_nothing_does_not_load(entity: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        load_policy(policy([BOOKING | entity]))
    assert f"entities[0].{key}" in str(refused.value)
    assert why in str(refused.value)


def test_a_policy_without_a_rule_for_its_entity_refuses_it_and_the_digest_tells_patterns_apart() -> None:
    one, other = load_policy(policy([BOOKING])), load_policy(policy([BOOKING | {"pattern": "BK-[0-9]+"}]))
    finding = Finding("BOOKING_CODE", "t.csv", "note", 3, 1.0, 0.9, "asked")
    assert one.decide(finding, HERE).action is Action.REFUSE
    assert one.digest != other.digest


def test_groups_and_the_star_speak_of_own_entities() -> None:
    rules = [{"entities": ["contact"], "action": "mask"}, {"entities": ["*"], "action": "allow"}]
    loaded = load_policy(policy([BOOKING | {"group": "contact"}], *rules))
    assert loaded.decide(Finding("BOOKING_CODE", "t", "c", 1, 1.0, 1.0, ""), HERE).action is Action.MASK


def test_layers_judge_what_they_know_and_may_not_differ_about_a_name() -> None:
    company = load_policy(policy([BOOKING], {"entities": ["BOOKING_CODE"], "action": "hash"}))
    team = load_policy(
        policy([{"name": "TEAM_KEY", "pattern": "tk[0-9]{9}"}], {"entities": ["*"], "action": "allow"}), bases=[company]
    )
    assert [own.name for own in team.detection.own] == ["BOOKING_CODE", "TEAM_KEY"]
    assert team.decide(Finding("TEAM_KEY", "t", "c", 1, 1.0, 1.0, ""), HERE).action is Action.ALLOW
    assert team.decide(Finding("BOOKING_CODE", "t", "c", 1, 1.0, 1.0, ""), HERE).action is Action.HASH
    with pytest.raises(Invalid, match="in two ways"):
        load_policy(policy([BOOKING | {"pattern": "x"}]), bases=[company])


def judged(own: OwnEntity, name: str, values: list[object]) -> dict[str, float]:
    state = ColumnState(name, Detection(own=(own,)))
    state.add(pl.Series(name, values))
    return {each.entity: each.confidence for each in judge(state, "t.csv", len(values)) if each.confidence >= 0.5}


def test_numbers_and_plain_cells_are_searched_for_own_entities_too() -> None:
    own = OwnEntity("STAFF", "^4[0-9]{5}$")
    assert "STAFF" in judged(own, "x", [400_001, 400_002])
    assert "STAFF" in judged(own, "x", ["400001", "400002"])
    assert "STAFF" in judged(own, "x", [400_001.0, None])


def test_an_entity_with_words_needs_one_in_the_column_s_name_or_beside_it() -> None:
    own = OwnEntity("STAFF", r"\b4[0-9]{5}\b", words=("staff no",))
    assert judged(own, "code", ["400001", "400002"]) == {}
    assert "STAFF" in judged(own, "staff_no", ["400001", "400002"])
    assert "STAFF" in judged(own, "note", ["staff no 400001 called"])


def test_own_entities_are_treated_in_text_and_are_gone_afterwards() -> None:
    loaded = load_policy(policy([BOOKING], {"entities": ["BOOKING_CODE"], "action": "tokenise"}))
    store = MemoryStore()
    content = b"note\nplease move BK-123456 to the next day\n"
    store.put(URI.key("t.csv"), [content], size_bytes=len(content))
    manifest = read_manifest(store, URI)
    report = scan(store, URI, manifest, detection=loaded.detection)
    treatment = actions_for(loaded, report, destination=TARGET, place=HERE)
    assert isinstance(treatment, Treatment)
    staged = DatasetURI("memory", "staged", "x")
    made = apply_treatment(store, URI, manifest, treatment, PseudonymKey("k", bytes(16)), store, staged)
    written = b"".join(store.get(staged.key("t.csv")))
    assert b"BK-123456" not in written
    assert b"please move tok_" in written
    assert scan(store, staged, made, detection=loaded.detection).findings == ()


def test_a_scan_that_did_not_look_for_the_policy_s_entities_clears_nothing() -> None:
    loaded = load_policy(policy([BOOKING], defaults={"finding": "allow"}))
    store = MemoryStore()
    store.put(URI.key("t.csv"), [b"note\nhello\n"], size_bytes=11)
    manifest = read_manifest(store, URI)

    def verdict(detection: Detection) -> object:
        report = scan(store, URI, manifest, detection=detection)
        return decide(
            loaded, report, manifest_digest=manifest.digest, source_digest=manifest.digest, destination=TARGET,
            place=HERE, key=VerdictKey("k", bytes(16)), now=datetime.now(UTC),
        )  # fmt: skip

    assert isinstance(verdict(Detection()), Refused)
    assert not isinstance(verdict(loaded.detection), Refused)
