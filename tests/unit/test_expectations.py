"""Great Expectations on counts: what fails, what it says, and what its pages hold."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.scan import scan
from tasks.core.findings import ColumnProfile, Finding, ScanReport
from tasks.core.listing import read_manifest
from tasks.core.policy import EXPECTATIONS, Place, Policy
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Refused, actions_for
from tasks.expectations import check_expectations
from tests.memory_store import MemoryStore

URI = DatasetURI("aws", "raw", "flights")
EMAIL = Finding("EMAIL_ADDRESS", "*.parquet", "contact_email", 40, 0.4, 0.99, "its written form")
PROFILE = (
    ColumnProfile("*.parquet", "contact_email", "text", 100, 60, 40),
    ColumnProfile("*.parquet", "dep_delay", "number", 100, 2, 55, -30.0, 900.0),
)


def policy(*quality: dict[str, Any], rules: list[dict[str, Any]] | None = None) -> Policy:
    return load_policy(
        {"version": 1, "name": "t", "residency": {"allowed": ["US"]}, "rules": rules or [], "quality": list(quality)},
        "t.yaml",
    )


def quality(expectation: str, column: str, where: str = "*", **limits: Any) -> dict[str, Any]:
    return {"expectation": expectation, "kwargs": {"column": column, **limits}, "where": {"column": where}}


def check(of: Policy, *findings: Finding, docs: Path | None = None) -> tuple[str, ...]:
    report = ScanReport(URI, "ab" * 32, 100, 1, 10, findings, PROFILE)
    return check_expectations(of, report, place=Place(URI.cloud, "US"), docs=docs).failed


def test_counts_within_the_limits_pass() -> None:
    of = policy(
        quality("expect_column_min_to_be_between", "rows", min_value=1),
        quality("expect_column_values_to_be_between", "null_share", "dep_delay", max_value=0.05),
        quality("expect_column_max_to_be_between", "maximum", "dep_delay", max_value=1500),
    )
    assert check(of) == ()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (quality("expect_column_min_to_be_between", "rows", min_value=101), "rows of all columns (min_value 101)"),
        (
            quality("expect_column_values_to_be_between", "null_share", "contact_*", max_value=0.1),
            "columns 'contact_*'",
        ),
        (quality("expect_column_max_to_be_between", "maximum", "dep_delay", max_value=100), "maximum of columns"),
        (quality("expect_column_values_to_be_in_set", "kind", "dep_delay", value_set=["text"]), "kind of columns"),
        (quality("expect_column_max_to_be_between", "rows", "no_such_column", min_value=1), "no column matches"),
    ],
)
def test_a_limit_that_is_missed_is_told_in_words(wanted: dict[str, Any], words: str) -> None:
    (failed,) = check(policy(wanted))
    assert words in failed


def test_every_rule_is_an_expectation_on_the_findings() -> None:
    rule = {"name": "tokens", "entities": ["EMAIL_ADDRESS"], "action": "tokenise"}
    (failed,) = check(policy(rules=[rule]), EMAIL)
    assert "'tokens'" in failed
    assert check(policy(rules=[rule | {"action": "allow"}]), EMAIL) == ()
    (by_default,) = check(policy(), EMAIL)
    assert "'defaults.finding'" in by_default


def test_every_expectation_that_a_policy_may_name_exists() -> None:
    import great_expectations.expectations as types

    for name in EXPECTATIONS:
        assert hasattr(types, "".join(part.capitalize() for part in name.split("_")))


def test_data_docs_hold_no_script_and_nothing_remote(tmp_path: Path) -> None:
    of = policy(quality("expect_column_values_to_be_between", "null_share", max_value=0.1))
    assert check(of, EMAIL, docs=tmp_path / "docs")
    pages = list((tmp_path / "docs").rglob("*.html"))
    assert (tmp_path / "docs" / "index.html") in pages
    assert len(pages) >= 5
    for file in (tmp_path / "docs").rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            assert re.findall(r"https?://(?!www\.w3\.org/)[^\s\"'<>]+", text) == []
            assert "<script" not in text.lower()
    index = (tmp_path / "docs" / "index.html").read_text()
    for link in re.findall(r'href="([^"]+)"', index):
        assert (tmp_path / "docs" / unquote(link)).is_file()
    assert len(re.findall("<li>", index)) == len(pages) - 1
    validations = [page.read_text() for page in pages if "validations" in page.parts]
    assert any("null_share" in text or "null share" in text for text in validations)


def test_checking_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert check(policy(quality("expect_column_min_to_be_between", "rows", min_value=1))) == ()


def test_planted_values_are_in_no_result_page_error_or_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    rows = "".join(f"canary.{n}@example.org,4111111111111111,call canary.{n}@example.org now,{n}\n" for n in range(40))
    objects = {
        "t.csv": f"contact_email,payment_card,note,n\n{rows}",
        "canary.9@example.org.txt": "canary.x@example.org",
    }
    for path, text in objects.items():
        store.put(URI.key(path), [text.encode()], size_bytes=len(text))
    of = policy(quality("expect_column_max_to_be_between", "distinct", max_value=0))
    with caplog.at_level("DEBUG"):
        report = scan(store, URI, read_manifest(store, URI))
        refused = actions_for(of, report, destination=URI, place=Place("aws", "US"))
        outcome = check_expectations(of, report, place=Place(URI.cloud, "US"), docs=tmp_path / "docs")
    assert isinstance(refused, Refused)
    pages = [file.read_text(encoding="utf-8") for file in (tmp_path / "docs").rglob("*") if file.is_file()]
    for shown in [repr(report), repr(refused), repr(outcome), str(refused.violation()), caplog.text, *pages]:
        assert "canary" not in shown
        assert "4111111111111111" not in shown


def test_nothing_is_logged_on_the_way(caplog: pytest.LogCaptureFixture) -> None:
    check(policy())  # Imported or not before, by whatever test: the levels are as an import leaves them.
    logging.getLogger("great_expectations").setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO):
        assert check(policy(quality("expect_column_min_to_be_between", "rows", min_value=1))) == ()
    assert caplog.records == []
    assert logging.getLogger("great_expectations").level == logging.NOTSET
