"""Policies that extend others, rules for some places and datasets, and what explanations say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.errors import Invalid, NotFound
from tasks.core.findings import Finding
from tasks.core.policy import Action, Place
from tasks.policies import read_policy

EMAIL = Finding("EMAIL_ADDRESS", "t.csv", "email", 10, 1.0, 1.0, "its form")
AWS = Place("lake", "US", provider="aws", region="us-east-1")

COMPANY = """
version: 1
name: company
residency: {allowed: [US, EU]}
defaults: {finding: allow}
rules:
  - name: e-mail is masked
    entities: [EMAIL_ADDRESS]
    action: mask
    options: {keep_last: 2}
"""
TEAM = """
version: 1
name: team
extends: [company]
residency: {allowed: [US]}
rules:
  - {name: e-mail is fine here, entities: [EMAIL_ADDRESS], action: allow}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_the_stricter_of_two_layers_decides_and_says_its_line(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, company=COMPANY, team=TEAM) / "team.yaml")
    decided, milder = policy.explain(EMAIL, AWS)
    assert (decided.action, decided.rule) == (Action.MASK, "company: e-mail is masked")
    assert decided.origin == f"{tmp_path / 'company.yaml'}:7"
    assert (milder.action, milder.rule, milder.origin) == (
        Action.ALLOW,
        "e-mail is fine here",
        f"{tmp_path / 'team.yaml'}:7",
    )


def test_a_layer_s_defaults_hold_for_what_it_does_not_speak_of(tmp_path: Path) -> None:
    silent = COMPANY.replace("finding: allow", "finding: refuse").replace("EMAIL_ADDRESS", "PHONE_NUMBER")
    policy = read_policy(write(tmp_path, company=silent, team=TEAM) / "team.yaml")
    assert policy.decide(EMAIL, AWS).action is Action.REFUSE
    assert policy.decide(EMAIL, AWS).origin.endswith("company.yaml:5")


def test_data_may_be_only_where_every_layer_allows(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, company=COMPANY, team=TEAM) / "team.yaml")
    assert policy.residency_refusals((), AWS) == ()
    assert policy.residency_refusals((), Place("g", "DE")) != ()


def test_the_digest_covers_every_layer(tmp_path: Path) -> None:
    folder = write(tmp_path, company=COMPANY, team=TEAM)
    before = read_policy(folder / "team.yaml").digest
    write(folder, company=COMPANY.replace("keep_last: 2", "keep_last: 1"))
    assert read_policy(folder / "team.yaml").digest != before


def test_a_policy_that_extends_itself_does_not_load(tmp_path: Path) -> None:
    write(tmp_path, company=COMPANY + "extends: [team]\n", team=TEAM)
    with pytest.raises(Invalid, match="leads back to itself"):
        read_policy(tmp_path / "team.yaml")


def test_a_policy_that_extends_nothing_that_is_there_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_policy(write(tmp_path, team=TEAM) / "team.yaml")


@pytest.mark.parametrize(
    ("destination", "speaks"),
    [
        ("provider:aws", True),
        ("provider:google", False),
        ("region:us-*", True),
        ("region:eu-*", False),
        ("purpose:storage", True),
        ("purpose:training", False),
        ("lake", True),
        ("US", True),
    ],
)
def test_a_rule_holds_for_the_places_it_names(tmp_path: Path, destination: str, speaks: bool) -> None:
    text = COMPANY.replace("action: mask", f"action: mask\n    destinations: ['{destination}']")
    policy = read_policy(write(tmp_path, company=text) / "company.yaml")
    assert (policy.decide(EMAIL, AWS).action is Action.MASK) is speaks


@pytest.mark.parametrize("wrong", ["zone:a", "purpose:fun", "XX"])
def test_a_place_that_means_nothing_does_not_load(tmp_path: Path, wrong: str) -> None:
    text = COMPANY.replace("action: mask", f"action: mask\n    destinations: ['{wrong}']")
    with pytest.raises(Invalid, match="destinations"):
        read_policy(write(tmp_path, company=text) / "company.yaml")


def test_a_rule_holds_for_a_class_of_datasets(tmp_path: Path) -> None:
    text = COMPANY.replace("action: mask", "action: mask\n    classes: [people]").replace(
        "rules:", "classes: {people: ['aws://hr-*']}\nrules:"
    )
    policy = read_policy(write(tmp_path, company=text) / "company.yaml")
    staff = Place("lake", "US", source="aws://hr-lake/staff")
    assert policy.decide(EMAIL, staff).action is Action.MASK
    assert policy.decide(EMAIL, Place("lake", "US", source="aws://shop/orders")).action is Action.ALLOW


def test_what_data_is_for_counts_for_where_it_may_be(tmp_path: Path) -> None:
    text = COMPANY.replace("allowed: [US, EU]", "allowed: [US, EU], by_purpose: {training: [US]}")
    policy = read_policy(write(tmp_path, company=text) / "company.yaml")
    assert policy.residency_refusals((), Place("g", "DE")) == ()
    assert "by_purpose.training" in policy.residency_refusals((), Place("g", "DE", purpose="training"))[0]
