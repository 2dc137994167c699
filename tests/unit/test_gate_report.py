"""The gate's page: what was found and what becomes of it, in one file that fetches nothing and holds no value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import registry
from tasks.core.dataset import DatasetURI
from tasks.core.findings import Finding, ScanReport
from tasks.core.held import Held, Reason
from tasks.core.policy_loading import load_policy
from tasks.gate_report import charts_of, publish_gate_report

URI = DatasetURI("near", "raw", "people")
MAIL = Finding("EMAIL_ADDRESS", "*.parquet", "<script>alert(1)</script>", 40, 0.4, 0.99, "its written form")
CARD = Finding("CREDIT_CARD", "*.parquet", "card", 100, 1.0, 0.99, "check digits")
RARE = Finding("PHONE_NUMBER", "*.parquet", "card", 1, 0.00001, 0.6, "its written form")
POLICY = load_policy(
    {
        "version": 1,
        "name": "p",
        "residency": {"allowed": ["EU"]},
        "rules": [{"name": "cards leave as tokens", "entities": ["CREDIT_CARD"], "action": "tokenise"}],
    }
)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    cloud = "{provider: onprem, jurisdiction: EU, options: {root: /nowhere}}"
    gate = "{signing_key: env:KEY, pseudonym_key: env:KEY}"
    text = f"clouds: {{near: {cloud}, far: {cloud}}}\ngate: {gate}\nstate_dir: {tmp_path}/state\n"
    (tmp_path / "lintas.yaml").write_text(text)
    monkeypatch.setenv("LINTAS_CONFIG", str(tmp_path / "lintas.yaml"))
    registry.installation.cache_clear()
    why = (Reason("URL", "u", 2, "r", "w"),)
    held = Held("near://raw/people", "x.csv", "d" * 64, "p" * 64, "far://b/d", "p", 9, why)
    yield publish_gate_report(
        ScanReport(URI, "ab" * 32, 100, 3, 1000, (MAIL, CARD, RARE)),
        POLICY,
        DatasetURI("far", "b", "d"),
        decision="refused",
        reasons=["an e-mail address & more"],
        held=[held],
        anonymised=[{"path": "t", "levels": {"age": "steps of 10"}, "rows": 1000, "rows_suppressed": 3, "rule": "r"}],
    )
    registry.installation.cache_clear()


def test_the_page_tells_places_shares_actions_and_rules_and_escapes_what_others_wrote(page: Path) -> None:
    text = page.read_text()
    for words in (
        "EMAIL_ADDRESS",
        "40.0%",
        "100%",
        "&lt;0.1%",
        "tokenise",
        "cards leave as tokens",
        "steps of 10",
        "x.csv",
    ):
        assert words in text
    assert "an e-mail address &amp; more" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert re.search(r"<script|https?:|src=|<link|@import|url\(", text) is None
    assert "default-src 'none'" in text


def test_machines_read_the_same_beside_it(page: Path) -> None:
    facts = json.loads(page.with_suffix(".json").read_text())
    assert (facts["decision"], facts["rows"], facts["policy"]) == ("refused", 100, "p")
    assert {(each["entity"], each["action"], each["rule"]) for each in facts["findings"]} == {
        ("EMAIL_ADDRESS", "refuse", "defaults.finding"),
        ("CREDIT_CARD", "tokenise", "cards leave as tokens"),
        ("PHONE_NUMBER", "refuse", "defaults.finding"),
    }


def test_the_matrix_has_a_line_a_column_and_an_entry_an_entity() -> None:
    charts = charts_of([each.as_dict() for each in (MAIL, CARD, RARE)])
    assert charts["entities"] == ["CREDIT_CARD", "EMAIL_ADDRESS", "PHONE_NUMBER"]
    assert [[bool(cell) for cell in line["cells"]] for line in charts["matrix"]] == [
        [False, True, False], [True, False, True],
    ]  # fmt: skip
