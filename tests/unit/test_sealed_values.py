"""The action `encrypt`: equal values stay equal, the key's holder reads them again, and nobody else does."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.scan import scan
from tasks.core.errors import Denied, IntegrityError, Invalid
from tasks.core.listing import read_manifest
from tasks.core.policy import Action, Place
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Cleared, Treatment, VerdictKey, actions_for, decide
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.sealed_values import Seal
from tasks.core.transform import apply_treatment
from tasks.core.treatments import token
from tests.memory_store import MemoryStore

KEYS = PseudonymKey("p1", bytes(range(32)))
ROTATED = PseudonymKey("p1", bytes(range(1, 33)))
SEAL = Seal(KEYS, "EMAIL_ADDRESS", "google")
CANARY = "canary-4f1d@example.org"
SOURCE, STAGED = DatasetURI("memory", "b", "raw"), DatasetURI("memory", "b", "treated")
TARGET, GOOGLE = DatasetURI("google", "lake", "people"), Place("google", "US")


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text())
def test_a_sealed_value_opens_again_and_equal_values_alone_are_equal(one: str, other: str) -> None:
    sealed = SEAL.seal(one)
    assert re.fullmatch(r"enc_[a-z2-7]{8}_[a-z2-7]+", sealed)
    assert SEAL.open(sealed) == one
    assert (sealed == SEAL.seal(other)) == (one == other)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.data())
def test_what_was_altered_does_not_open(value: str, data: st.DataObject) -> None:
    sealed = SEAL.seal(value)
    at = data.draw(st.integers(len("enc_12345678_"), len(sealed) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda new: new != sealed[at]))
    with pytest.raises(IntegrityError):
        SEAL.open(sealed[:at] + letter + sealed[at + 1 :])


@pytest.mark.parametrize("seal", [Seal(KEYS, "EMAIL_ADDRESS", "azure"), Seal(KEYS, "PERSON", "google")])
def test_another_domain_or_destination_has_other_ciphertexts_and_opens_none(seal: Seal) -> None:
    assert seal.seal(CANARY) != SEAL.seal(CANARY)
    with pytest.raises(IntegrityError, match="--domain and --to") as refused:
        seal.open(SEAL.seal(CANARY), "line 7")
    assert "line 7" in str(refused.value)


def test_after_a_rotation_the_key_that_was_in_use_is_asked_for() -> None:
    rotated = Seal(ROTATED, "EMAIL_ADDRESS", "google")
    with pytest.raises(Denied, match=SEAL.seal(CANARY)[4:12]):
        rotated.open(SEAL.seal(CANARY))
    assert rotated.open(rotated.seal(CANARY)) == CANARY


@pytest.mark.parametrize("one_way", [token(bytes(32), CANARY), "0" * 64])
def test_tokens_and_hashes_are_one_way(one_way: str) -> None:
    with pytest.raises(Invalid, match="one-way"):
        SEAL.open(one_way)


@pytest.mark.parametrize(
    "text", ["", CANARY, "enc_", "enc_abcdefgh_", SEAL.seal(CANARY) + "\n", SEAL.seal("x").upper()]
)
def test_what_is_no_ciphertext_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(Invalid, match="line 1 is nothing") as refused:
        SEAL.open(text, "line 1")
    assert "canary" not in str(refused.value)


def test_a_treated_copy_is_cleared_and_only_the_key_brings_its_values_back() -> None:
    rows = [[f"person{at % 700}@example.org", f"mail to canary{at}@example.org or not", "x"] for at in range(2000)]
    store = MemoryStore("memory", "b")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["contact_email", "notes", "flag"], *rows])
    store.write(SOURCE.key("t.csv"), text.getvalue().encode())
    rule: dict[str, Any] = {"name": "sealed", "entities": ["EMAIL_ADDRESS"], "action": "encrypt"}
    policy = load_policy(
        {"version": 1, "name": "p", "residency": {"allowed": ["US"]}}
        | {"rules": [rule | {"options": {"domain": "customer"}}]}
    )
    manifest = read_manifest(store, SOURCE)
    treatment = actions_for(policy, scan(store, SOURCE, manifest), destination=TARGET, place=GOOGLE)
    assert isinstance(treatment, Treatment)
    assert {column.action for column in treatment.columns} == {Action.ENCRYPT}
    made = apply_treatment(store, SOURCE, manifest, treatment, KEYS, into=store, into_uri=STAGED)
    report = scan(store, STAGED, made)
    verdict = decide(
        policy, report, manifest_digest=made.digest, source_digest=manifest.digest, destination=TARGET, place=GOOGLE,
        key=VerdictKey("k1", bytes(range(32))), now=datetime(2026, 11, 2, tzinfo=UTC),
    )  # fmt: skip
    assert isinstance(verdict, Cleared), verdict
    assert not report.findings

    left = store.contents()[STAGED.key("t.csv")].decode()
    assert "example.org" not in left
    seal = Seal(KEYS, "customer", "google")
    header, *treated = csv.reader(io.StringIO(left))
    assert header == ["contact_email", "notes", "flag"]
    assert [seal.open(row[0]) for row in treated] == [row[0] for row in rows]
    within = [re.sub(r"enc_[a-z2-7_]+", lambda found: seal.open(found[0]), row[1]) for row in treated]
    assert within == [row[1] for row in rows]
