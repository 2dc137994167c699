"""The privacy gate's verdicts: what a policy makes of findings, and what a signature is good for."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.coverage import Coverage, Mode
from tasks.core.errors import Invalid, PolicyViolation
from tasks.core.findings import Finding, ScanReport
from tasks.core.policy import Place
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import (
    Action,
    Cleared,
    ExpectationOutcome,
    Policy,
    Refused,
    Treatment,
    VerdictKey,
    actions_for,
    decide,
)

SOURCE = DatasetURI("aws", "raw", "flights")
DESTINATION = DatasetURI("google", "lake", "flights")
KEY = VerdictKey("k1", bytes(range(32)))
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
DIGEST = "ab" * 32

EMAIL = Finding("EMAIL_ADDRESS", "*.parquet", "contact_email", 40, 0.4, 0.99, "the shape of an address")
CARD = Finding("CREDIT_CARD", "*.parquet", "payment_card", 100, 1.0, 0.99, "Luhn")
UNREAD = Finding("UNREADABLE", "x.bin", "", 1, 1.0, 1.0, "an unknown binary format")


def policy(**changes: Any) -> Policy:
    base: dict[str, Any] = {"version": 1, "name": "test", "residency": {"allowed": ["US", "EU", "ID"]}}
    return load_policy(base | changes, "test.yaml")


def rule(action: str, *entities: str, name: str = "r", **more: Any) -> dict[str, Any]:
    return {"name": name, "entities": list(entities), "action": action, **more}


def report(*findings: Finding) -> ScanReport:
    return ScanReport(SOURCE, DIGEST, 100, 3, 1000, findings)


def judge(of: Policy, *findings: Finding, jurisdiction: str = "US", **more: Any) -> Cleared | Refused:
    arguments: dict[str, Any] = {
        "manifest_digest": DIGEST,
        "source_digest": DIGEST,
        "destination": DESTINATION,
        "place": Place("google", jurisdiction),
        "key": KEY,
        "now": NOW,
    }
    return decide(of, report(*findings), **(arguments | more))


def treat(of: Policy, *findings: Finding, jurisdiction: str = "US") -> Treatment | Refused:
    return actions_for(of, report(*findings), destination=DESTINATION, place=Place("google", jurisdiction))


# What a policy decides


def test_a_dataset_without_findings_is_cleared_and_the_clearance_verifies() -> None:
    verdict = judge(policy())
    assert isinstance(verdict, Cleared)
    KEY.require(verdict, manifest_digest=DIGEST, destination=DESTINATION)


def test_a_finding_that_no_rule_speaks_of_is_refused() -> None:
    verdict = judge(policy(), EMAIL)
    assert isinstance(verdict, Refused)
    assert "an e-mail address in column 'contact_email'" in verdict.reasons[0]
    assert "defaults.finding" in verdict.reasons[0]


def test_a_rule_for_one_column_says_nothing_about_another() -> None:
    of = policy(rules=[rule("allow", "EMAIL_ADDRESS", columns=["contact_*"])])
    assert isinstance(judge(of, EMAIL), Cleared)
    assert isinstance(judge(of, replace(EMAIL, column="notes")), Refused)


def test_the_strictest_rule_wins_whatever_the_order() -> None:
    rules = [rule("allow", "EMAIL_ADDRESS", name="a"), rule("refuse", "contact", name="b")]
    for ordered in (rules, rules[::-1]):
        assert isinstance(judge(policy(rules=ordered), EMAIL), Refused)


def test_a_rule_can_leave_columns_out() -> None:
    rules = [
        rule("refuse", "EMAIL_ADDRESS", name="all", except_columns=["support_email"]),
        rule("allow", "EMAIL_ADDRESS", name="support", columns=["support_email"]),
    ]
    assert isinstance(judge(policy(rules=rules), replace(EMAIL, column="support_email")), Cleared)
    assert isinstance(judge(policy(rules=rules), EMAIL), Refused)


@pytest.mark.parametrize(("share", "confidence", "cleared"), [(0.4, 0.99, False), (0.05, 0.99, True), (0.4, 0.2, True)])
def test_a_finding_below_a_rule_s_thresholds_is_noted_and_passes(
    share: float, confidence: float, cleared: bool
) -> None:
    of = policy(rules=[rule("refuse", "EMAIL_ADDRESS", min_share=0.1, min_confidence=0.5)])
    verdict = judge(of, replace(EMAIL, share=share, confidence=confidence))
    assert isinstance(verdict, Cleared) is cleared
    assert len(verdict.findings) == 1


def test_what_could_not_be_read_is_refused_unless_the_policy_says_otherwise() -> None:
    verdict = judge(policy(rules=[rule("allow", "*")]), UNREAD)
    assert isinstance(verdict, Refused)
    assert "could not be read" in verdict.reasons[0]
    assert isinstance(judge(policy(defaults={"unreadable": "allow"}), UNREAD), Cleared)


@pytest.mark.parametrize(
    ("mine", "company_s", "kept"), [("keep", "keep", True), ("keep", "drop", False), ("drop", "keep", False)]
)
def test_labels_leave_only_when_every_policy_lets_them(mine: str, company_s: str, kept: bool) -> None:
    company = policy(defaults={"labels": company_s})
    verdict = judge(replace(policy(defaults={"labels": mine}), bases=(company,)))
    assert isinstance(verdict, Cleared)
    assert verdict.keeps_labels is kept
    assert not judge(policy()).keeps_labels


@pytest.mark.parametrize(
    ("jurisdiction", "cleared"), [("US", True), ("EU", True), ("DE", True), ("CH", False), ("", False), ("CN", False)]
)
def test_data_stays_in_the_jurisdictions_that_are_allowed(jurisdiction: str, cleared: bool) -> None:
    assert isinstance(judge(policy(), jurisdiction=jurisdiction), Cleared) is cleared


def test_a_member_state_that_is_allowed_does_not_allow_the_whole_union() -> None:
    assert isinstance(judge(policy(residency={"allowed": ["DE"]}), jurisdiction="EU"), Refused)


def test_residency_may_be_narrower_for_a_group_of_entities() -> None:
    of = policy(
        residency={"allowed": ["US", "ID"], "by_group": {"contact": ["ID"]}}, rules=[rule("allow", "EMAIL_ADDRESS")]
    )
    assert isinstance(judge(of, EMAIL, jurisdiction="ID"), Cleared)
    verdict = judge(of, EMAIL, jurisdiction="US")
    assert isinstance(verdict, Refused)
    assert "residency.by_group.contact" in verdict.reasons[0]


def test_rules_hold_for_the_destinations_they_name() -> None:
    of = policy(
        rules=[
            rule("allow", "EMAIL_ADDRESS", name="home", destinations=["US"]),
            rule("tokenise", "EMAIL_ADDRESS", name="abroad", except_destinations=["US"]),
        ]
    )
    assert isinstance(judge(of, EMAIL, jurisdiction="US"), Cleared)
    abroad = treat(of, EMAIL, jurisdiction="DE")
    assert isinstance(abroad, Treatment)
    assert [column.action for column in abroad.columns] == [Action.TOKENISE]


def test_a_treatment_takes_the_strictest_action_of_a_column() -> None:
    of = policy(rules=[rule("tokenise", "EMAIL_ADDRESS", name="e"), rule("drop", "CREDIT_CARD", name="c")])
    both = treat(of, EMAIL, replace(CARD, column="contact_email"))
    assert isinstance(both, Treatment)
    assert [(column.column, column.action) for column in both.columns] == [("contact_email", Action.DROP)]


def test_a_finding_that_still_needs_treatment_is_not_cleared() -> None:
    verdict = judge(policy(rules=[rule("tokenise", "EMAIL_ADDRESS")]), EMAIL)
    assert isinstance(verdict, Refused)
    assert "needs 'tokenise'" in verdict.reasons[0]


def test_residency_does_not_ask_about_what_a_treatment_takes_away() -> None:
    of = policy(
        residency={"allowed": ["US", "ID"], "by_group": {"contact": ["ID"]}}, rules=[rule("drop", "EMAIL_ADDRESS")]
    )
    assert isinstance(treat(of, EMAIL, jurisdiction="US"), Treatment)


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_digest": "cd" * 32},
        {"objects": 4},
        {"place": Place("aws", "US")},
        {"expectations": ExpectationOutcome(2, ("rows of '*' are 0",))},
    ],
)
def test_a_scan_of_something_else_or_a_failed_expectation_is_refused(change: dict[str, Any]) -> None:
    assert isinstance(judge(policy(), **change), Refused)


def test_quality_expectations_that_were_not_checked_are_refused() -> None:
    of = policy(
        quality=[{"expectation": "expect_column_min_to_be_between", "kwargs": {"column": "rows", "min_value": 1}}]
    )
    assert isinstance(judge(of), Refused)
    assert isinstance(judge(of, expectations=ExpectationOutcome(1)), Cleared)


# What a policy refuses to load


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rules": [rule("allow", "EMAIL")]}, ["rules[0].entities", "'EMAIL'", "EMAIL_ADDRESS"]),
        ({"rules": [rule("tokenize", "EMAIL_ADDRESS")]}, ["rules[0].action", "did you mean 'tokenise'"]),
        ({"rules": [rule("quarantin", "EMAIL_ADDRESS")]}, ["rules[0].action", "did you mean 'quarantine'"]),
        ({"rules": [rule("allow", "EMAIL_ADDRESS", column=["a"])]}, ["rules[0].column", "did you mean 'columns'"]),
        ({"rules": [rule("allow", "EMAIL_ADDRESS", columns="a")]}, ["rules[0].columns", "not a list"]),
        ({"rules": [rule("allow")]}, ["rules[0].entities", "empty"]),
        ({"rules": [rule("mask", "UNREADABLE")]}, ["rules[0].action", "cannot be treated"]),
        ({"rules": [rule("drop", "EMAIL_ADDRESS", options={"keep_last": 2})]}, ["options.keep_last"]),
        ({"rules": [rule("mask", "EMAIL_ADDRESS", options={"keep_last": 12})]}, ["options.keep_last", "0 to 4"]),
        ({"rules": [rule("allow", "URL"), rule("allow", "CRYPTO")]}, ["rules", "twice"]),
        ({"rules": [rule("allow", "URL", min_share=2)]}, ["rules[0].min_share", "0 to 1"]),
        ({"rules": [rule("allow", "URL", destinations=["UK"])]}, ["rules[0].destinations", "'UK'"]),
        ({"residency": {"allowed": []}}, ["residency.allowed", "empty"]),
        ({"residency": {"allowed": ["us"]}}, ["residency.allowed", "did you mean 'US'"]),
        ({"residency": {"allowed": [False]}}, ["residency.allowed[0]", "bare NO"]),
        ({"residency": {"allowed": ["US"], "by_group": {"contacts": ["US"]}}}, ["did you mean 'contact'"]),
        ({"defaults": {"finding": "maybe"}}, ["defaults.finding"]),
        ({"defaults": {"unreadable": "drop"}}, ["defaults.unreadable"]),
        ({"defaults": {"labels": "scan"}}, ["defaults.labels"]),
        ({"rule": []}, ["'rule'", "did you mean 'rules'"]),
        ({"version": 2}, ["version"]),
        ({"name": ""}, ["name"]),
        ({"quality": [{"expectation": "expect_nothing"}]}, ["quality[0].expectation"]),
        (
            {"quality": [{"expectation": "expect_column_max_to_be_between", "kwargs": {"column": "row"}}]},
            ["quality[0].kwargs.column", "did you mean 'rows'"],
        ),
    ],
)
def test_a_policy_that_names_what_does_not_exist_is_refused_by_key(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        policy(**data)
    for word in ["test.yaml", *words]:
        assert word in str(caught.value)


def test_a_policy_without_residency_does_not_load() -> None:
    with pytest.raises(Invalid, match="residency"):
        load_policy({"version": 1, "name": "x"}, "x.yaml")


def test_the_digest_of_a_policy_is_that_of_its_content() -> None:
    assert policy().digest == policy().digest
    assert policy(defaults={"finding": "allow"}).digest != policy().digest


# What a verdict is good for


@pytest.fixture
def cleared() -> Cleared:
    verdict = judge(policy(rules=[rule("allow", "EMAIL_ADDRESS")]), EMAIL)
    assert isinstance(verdict, Cleared)
    return verdict


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_digest": "cd" * 32},
        {"source_digest": "cd" * 32},
        {"policy_digest": "cd" * 32},
        {"destination": DatasetURI("google", "lake", "other")},
        {"jurisdiction": "EU"},
        {"findings": ()},
        {"findings": (replace(EMAIL, count=39),)},
        {"rows": 99},
        {"objects": 2},
        {"issued": NOW.replace(minute=1)},
        {"keeps_labels": True},
        {"releases": ("0" * 24,)},
        {"coverage": Coverage(Mode.SAMPLE, 1, 9)},
        {"key_id": "k2"},
        {"signature": ""},
        {"signature": "0" * 64},
    ],
)
def test_a_verdict_altered_in_one_field_is_refused(cleared: Cleared, change: dict[str, Any]) -> None:
    altered = replace(cleared, **change)
    with pytest.raises(PolicyViolation):
        KEY.require(altered, manifest_digest=altered.manifest_digest, destination=altered.destination)


def test_every_field_of_a_verdict_is_among_those_that_were_altered() -> None:
    tested = {"manifest_digest", "source_digest", "policy_digest", "destination", "jurisdiction", "findings", "rows"}
    assert {item.name for item in fields(Cleared)} == tested | {
        "objects",
        "issued",
        "keeps_labels",
        "releases",
        "coverage",
        "key_id",
        "signature",
    }


def test_a_verdict_counts_for_no_other_dataset_destination_or_key(cleared: Cleared) -> None:
    with pytest.raises(PolicyViolation, match="another dataset"):
        KEY.require(cleared, manifest_digest="cd" * 32, destination=DESTINATION)
    with pytest.raises(PolicyViolation, match="another destination"):
        KEY.require(cleared, manifest_digest=DIGEST, destination=DESTINATION / "deeper")
    with pytest.raises(PolicyViolation, match="does not verify"):
        VerdictKey("k1", bytes(32)).require(cleared, manifest_digest=DIGEST, destination=DESTINATION)


def test_neither_a_refusal_nor_an_unsigned_clearance_opens_the_gate(cleared: Cleared) -> None:
    refused = judge(policy(), EMAIL)
    unsigned: Any = replace(cleared, key_id="k1", signature="")
    for verdict in (refused, unsigned, None):
        with pytest.raises(PolicyViolation):
            KEY.require(verdict, manifest_digest=DIGEST, destination=DESTINATION)  # type: ignore[arg-type]


def test_a_verdict_survives_being_stored(cleared: Cleared) -> None:
    again = Cleared.from_dict(json.loads(json.dumps(cleared.as_dict())))
    assert again == cleared
    KEY.require(again, manifest_digest=DIGEST, destination=DESTINATION)
    assert pickle.loads(pickle.dumps(cleared)) == cleared


def test_a_stored_refusal_is_no_clearance() -> None:
    refused = judge(policy(), EMAIL)
    with pytest.raises(Invalid):
        Cleared.from_dict(refused.as_dict())


def test_a_signing_key_shows_itself_nowhere_and_must_be_long_enough() -> None:
    assert "00010203" not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)
    with pytest.raises(Invalid) as caught:
        VerdictKey("k1", b"canary-secret")
    assert "canary" not in str(caught.value)


def test_a_refusal_raises_with_all_its_reasons() -> None:
    refused = judge(policy(), EMAIL, CARD)
    assert isinstance(refused, Refused)
    error = refused.violation()
    assert error.exit_code == 3
    assert len(error.reasons) == 2
    assert "1 more reasons" in str(error)
