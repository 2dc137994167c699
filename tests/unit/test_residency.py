"""Models are served only where the data that they learned from may be, and what is unknown fails closed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks import registry, serving
from tasks.core.errors import PolicyViolation
from tasks.core.learned import Learned
from tasks.core.policy import Place
from tasks.core.policy_loading import load_policy
from tasks.core.release import ReleaseState, even_weights, request_release
from tasks.registry import Installation
from tasks.residency import LEARNED_TAG, learned_from, require_residency
from tasks.storage import manifest_of
from tasks.tracking import ModelVersion

RESIDENCY = {"allowed": ["EU", "US", "ID"], "by_group": {"contact": ["EU"]}, "by_purpose": {"serving": ["EU", "US"]}}
POLICY: dict[str, Any] = {"version": 1, "name": "p", "residency": RESIDENCY, "defaults": {"finding": "allow"}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    places = {"eu": "EU", "us": "US", "id": "ID", "nowhere": ""}
    config: dict[str, Any] = {
        "clouds": {
            name: {"provider": "onprem", "jurisdiction": where, "options": {"root": str(tmp_path / name)}}
            for name, where in places.items()
        },
        "gate": {"signing_key": "env:KEY", "pseudonym_key": "env:KEY"},
        "state_dir": str(tmp_path / "state"),
        "policies_dir": str(tmp_path),
    }
    (tmp_path / "lintas.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(POLICY))
    (tmp_path / "eu" / "b" / "d").mkdir(parents=True)
    (tmp_path / "eu" / "b" / "d" / "a.csv").write_text("contact_email\ncanary1@example.org\ncanary2@example.org\n")
    monkeypatch.setenv("LINTAS_CONFIG", str(tmp_path / "lintas.yaml"))
    monkeypatch.setenv("KEY", "k" * 32)
    registry.installation.cache_clear()
    yield registry.installation()
    registry.installation.cache_clear()


def version(**tags: str) -> ModelVersion:
    return ModelVersion("flights", "3", "d" * 64, "run", tags)


def test_what_a_model_learned_from_is_asked_for_every_cloud(here: Installation) -> None:
    data = here.parse("eu://b/d")
    learned = learned_from(data, manifest_of(data), "p")
    assert set(learned.entities) == {"EMAIL_ADDRESS"}
    assert "canary" not in learned.as_json()
    trained = version(**{LEARNED_TAG: learned.as_json()})
    require_residency(trained, ["eu"])
    for clouds, why in ((["eu", "us"], "EMAIL_ADDRESS"), (["id"], "by_purpose.serving"), (["nowhere"], "no stated")):
        with pytest.raises(PolicyViolation, match="may not be served where it is wanted") as refused:
            require_residency(trained, clouds)
        assert why in " ".join(refused.value.reasons)


def test_the_policy_of_now_decides(here: Installation) -> None:
    clean = Learned("eu://b/d", "m" * 64, "p", "0" * 64)
    trained = version(**{LEARNED_TAG: clean.as_json()})
    require_residency(trained, ["eu", "us"])
    stricter = POLICY | {"residency": RESIDENCY | {"by_purpose": {"serving": ["EU"]}}}
    (here.settings.policies_dir / "p.yaml").write_text(yaml.safe_dump(stricter))
    with pytest.raises(PolicyViolation):
        require_residency(trained, ["eu", "us"])


@pytest.mark.parametrize("tag", [None, "", "{}", "[]", "{", '{"dataset": "x", "entities": {"URL": "much"}}'])
def test_of_a_model_of_which_nothing_is_known_nothing_is_served(here: Installation, tag: str | None) -> None:
    with pytest.raises(PolicyViolation, match="nobody knows what version 3 of 'flights' learned from") as refused:
        require_residency(version() if tag is None else version(**{LEARNED_TAG: tag}), ["eu"])
    assert "lintas train" in str(refused.value)


def test_what_was_live_may_not_come_back_where_the_policy_of_now_forbids_it(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, now = here.records.releases, datetime(2026, 11, 1, tzinfo=UTC)
    for number in (1, 2):
        wanted = request_release(book, "flights", str(number), f"{number}" * 64, even_weights(["eu", "us"]), now=now)
        book.write(replace(wanted, state=ReleaseState.LIVE, live_since=now), read_generation=wanted.generation)
    tag = Learned("eu://b/d", "m" * 64, "p", "0" * 64).as_json()
    monkeypatch.setattr(serving, "model_version", lambda model, number: version(**{LEARNED_TAG: tag}))
    policy = here.settings.policies_dir / "p.yaml"
    policy.write_text(yaml.safe_dump(POLICY | {"residency": RESIDENCY | {"by_purpose": {"serving": ["EU"]}}}))
    with pytest.raises(PolicyViolation, match="may not be served where it is wanted"):
        serving.ask_roll_back("flights")
    assert {release.version for release in book.list() if release.restores} == set()

    policy.write_text(yaml.safe_dump(POLICY))
    assert serving.ask_roll_back("flights").version == "1"


def test_a_policy_that_is_gone_serves_nothing(here: Installation) -> None:
    with pytest.raises(PolicyViolation, match="cannot be read"):
        require_residency(version(**{LEARNED_TAG: Learned("d", "m", "gone", "0").as_json()}), ["eu"])


entities = st.dictionaries(st.sampled_from(["EMAIL_ADDRESS", "CREDIT_CARD", "URL"]), st.floats(0, 1), max_size=3)


@given(found=entities, more=entities, where=st.sampled_from(["EU", "US", "ID", ""]))
def test_a_model_that_learned_from_more_is_never_served_in_more_places(
    found: dict[str, float], more: dict[str, float], where: str
) -> None:
    policy, place = load_policy(POLICY), Place("c", where, purpose="serving")
    both = found | {name: max(confidence, found.get(name, 0.0)) for name, confidence in more.items()}
    less, greater = (Learned("d", "m", "p", "0", each) for each in (found, both))
    assert Learned.from_json(less.as_json()) == less
    if not greater.refusals(policy, place):
        assert not less.refusals(policy, place)
