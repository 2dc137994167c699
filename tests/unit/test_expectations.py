"""Great Expectations on counts: what fails, what it says, and what its pages hold."""

from __future__ import annotations

import html
import logging
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tasks.core.dataset import DatasetURI
from tasks.core.detectors.scan import scan
from tasks.core.errors import Invalid
from tasks.core.findings import ColumnProfile, Finding, ScanReport
from tasks.core.listing import read_manifest
from tasks.core.policy import EXPECTATIONS, Place, Policy
from tasks.core.policy_loading import load_policy
from tasks.core.privacy import Refused, actions_for
from tasks.core.quality import CountTable, Expectation, answer, failure
from tasks.data_docs import validated, write_waiting
from tasks.expectations import check_expectations, count_tables, require_known
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


def check(of: Policy, *findings: Finding) -> tuple[str, ...]:
    return check_expectations(of, report_of(*findings), place=Place(URI.cloud, "US")).failed


def report_of(*findings: Finding) -> ScanReport:
    return ScanReport(URI, "ab" * 32, 100, 1, 10, findings, PROFILE)


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


@pytest.mark.parametrize(
    ("kwargs", "word"), [({"max_value": 5, "least": 1}, "least"), ({"min_value": "many"}, "min_value")]
)
def test_arguments_that_mean_nothing_are_named(kwargs: dict[str, Any], word: str) -> None:
    of = policy(quality("expect_column_max_to_be_between", "rows", **kwargs))
    for ask in (require_known, check):
        with pytest.raises(Invalid, match=f"'expect_column_max_to_be_between'.*kwargs: {word}: .*correct them"):
            ask(of)


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
    assert validated(count_tables(of, report_of(EMAIL), Place(URI.cloud, "US")), tmp_path / "docs")
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
    of = policy(quality("expect_column_min_to_be_between", "rows", min_value=1))
    assert validated(count_tables(of, report_of(), Place(URI.cloud, "US"))) == []


CANARIES = {
    "contact_email": "canary.{n}@example.org",
    "payment_card": "4111111111111111",
    "iban": "DE89370400440532013000",
    "client_ip": "203.0.113.{n}",
    "ssn": "219-09-99{n}",
    "phone": "+1 212 555 01{n}",
    "customer_name": "Siti Canaryname",
    "api_key": "ghp_canary7890123456789012345678901234567{n}",
    "note": "call canary.{n}@example.org now",
}
"""A column for a kind of finding, with what no page may show."""


def test_data_docs_show_what_lintas_expects_and_no_value_whatever_was_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    rows = "".join(",".join(text.format(n=n) for text in CANARIES.values()) + f",{n}\n" for n in range(10, 50))
    objects = {"t.csv": f"{','.join(CANARIES)},n\n{rows}", "canary.9@example.org.txt": "canary.x@example.org"}
    for path, text in objects.items():
        store.put(URI.key(path), [text.encode()], size_bytes=len(text))
    rules = [{"name": f"about {group}", "entities": [group], "action": "refuse"} for group in ("financial", "secret")]
    of = policy(
        quality("expect_column_max_to_be_between", "distinct", max_value=0),
        rules=[*rules, {"name": "tokens", "entities": ["contact"], "action": "tokenise"}],
    )
    with caplog.at_level("DEBUG"):
        report = scan(store, URI, read_manifest(store, URI))
        refused = actions_for(of, report, destination=URI, place=Place("aws", "US"))
        outcome = check_expectations(of, report, place=Place(URI.cloud, "US"), docs=tmp_path / "docs")
        assert write_waiting(tmp_path) == []
    assert (tmp_path / "data-docs.log").read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "data-docs.log", "docs"]
    entities = {"EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "PERSON", "GITHUB_TOKEN"}
    assert entities <= {finding.entity for finding in report.findings}
    assert isinstance(refused, Refused)
    files = {file: file.read_text(encoding="utf-8") for file in (tmp_path / "docs").rglob("*") if file.is_file()}
    shown = "".join(files.values())
    for rule in of.rule_names:
        assert f"every finding that '{rule}' decides is allowed as it stands" in html.unescape(shown)
    assert "max to be between: distinct of all columns (max_value 0)" in shown
    assert {"tokenise", "refuse"} <= set(re.findall(r"\w+", shown))
    planted = [text.split("{n}")[0] for name, text in CANARIES.items() if name != "note"]
    for said in [repr(report), repr(refused), repr(outcome), str(refused.violation()), caplog.text, *files.values()]:
        for value in [*planted, "canary"]:
            assert value not in said
        assert re.findall(r"https?://(?!www\.w3\.org/)[^\s\"'<>]+", said) == []
        assert not re.search(r"<script|@import|<iframe|src=\"//|url\([^)]*//", said, re.IGNORECASE)


NUMBERS = (3, 1.5, None, -2, 3)
WORDS = ("text", "number", None, "text", "text")
TABLE = CountTable("t", ("number", "word", "none"), tuple(zip(NUMBERS, WORDS, [None] * 5, strict=True)), ())
BOUNDS: list[dict[str, Any]] = [
    {"min_value": -2}, {"max_value": 3}, {"min_value": -2, "strict_min": True}, {"max_value": 3, "strict_max": True},
    {"min_value": 1, "max_value": 5.5}, {"min_value": 5.5, "max_value": 5.5}, {"min_value": 1.375, "max_value": 1.375},
    {"min_value": 4, "max_value": 2}, {},
]  # fmt: skip
SETS: list[dict[str, Any]] = [
    {"column": "word", "value_set": ["text", "number", "flag"]}, {"column": "word", "value_set": ["text"]},
    {"column": "word", "value_set": ["flag"]}, {"column": "word", "value_set": ["text"], "mostly": 0.75},
    {"column": "word", "value_set": ["text"], "mostly": 0.76}, {"column": "word", "value_set": []},
    {"column": "number", "value_set": [3, 1.5, -2]}, {"column": "number", "value_set": [3]},
    {"column": "none", "value_set": ["x"]}, {"column": "number", "value_set": ["3"]},
]  # fmt: skip


def questions() -> list[Expectation]:
    """What policies may expect, in forms that are met and that are not."""
    asked: list[tuple[str, dict[str, Any]]] = []
    for kind in sorted(EXPECTATIONS):
        if "row_count_to_equal" in kind:
            asked += [(kind, {"value": 5}), (kind, {"value": 6})]
        elif "row_count" in kind:
            asked += [(kind, {"min_value": 5}), (kind, {"max_value": 4}), (kind, {"min_value": 5, "strict_min": True})]
        elif kind.endswith("null"):
            columns = ("number", "none")
            asked += [(kind, {"column": name, "mostly": share}) for name in columns for share in (1.0, 0.8, 0.2, 0.19)]
        elif "set" in kind:
            asked += [(kind, each) for each in SETS if "mostly" not in each or "values" in kind.split("distinct")[0]]
        else:
            asked += [(kind, {"column": name, **each}) for each in BOUNDS for name in ("number", "none")]
            asked += [(kind, {"column": "word", "min_value": 1}), (kind, {"column": "number", "min_value": 3, "x": 1})]
    asked += [("expect_column_values_to_be_between", {"column": "number", **BOUNDS[4], "mostly": 0.75})]
    return [Expectation(kind, kwargs, f"{at} {kind} {kwargs}") for at, (kind, kwargs) in enumerate(asked)]


def test_arithmetic_answers_as_great_expectations_does() -> None:
    asked = questions()
    answers = {each.words: answer(each, TABLE) for each in asked}
    answered = [each for each in asked if answers[each.words] is not None]
    unknown = {kind for kind in EXPECTATIONS if "distinct" in kind or "to_equal" in kind}
    assert {each.kind for each in answered} == EXPECTATIONS - unknown
    assert len({found.success for found in answers.values() if found}) == 2
    failed = validated([CountTable(TABLE.name, TABLE.columns, TABLE.lines, tuple(answered))])
    ours = [
        failure(each, found.unexpected) for each in answered if (found := answers[each.words]) and not found.success
    ]
    assert sorted(failed) == sorted(ours)


def test_what_arithmetic_does_not_know_is_asked_of_great_expectations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[CountTable] = []
    monkeypatch.setattr("tasks.data_docs.validated", lambda tables: asked.extend(tables) or ["it says no"])
    plain = quality("expect_column_max_to_be_between", "rows", max_value=1000)
    odd = quality("expect_column_max_to_be_between", "rows", max_value=1000, some_later_argument=1)
    assert check(policy(plain)) == ()
    assert asked == []
    assert check(policy(plain, odd)) == ("it says no",)
    assert [[each.kwargs for each in table.expectations] for table in asked] == [[odd["kwargs"]]]


def test_a_verdict_loads_no_great_expectations() -> None:
    code = """if True:
        import sys
        from tasks.core.dataset import DatasetURI
        from tasks.core.findings import ColumnProfile, ScanReport
        from tasks.core.policy import Place
        from tasks.expectations import check_expectations
        from pathlib import Path
        from tasks.policies import read_policy
        profile = (
            ColumnProfile("t.csv", "dep_delay", "number", 9, 0, 5, 1.0, 9.0),
            ColumnProfile("t.csv", "carrier", "text", 9, 0, 5),
        )
        report = ScanReport(DatasetURI("aws", "b", "p"), "ab" * 32, 9, 1, 10, (), profile)
        of = read_policy(Path("examples/policies/flights.yaml"))
        assert check_expectations(of, report, place=Place("aws", "US")).success
        print([name for name in ("great_expectations", "pandas") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_nothing_is_logged_on_the_way(caplog: pytest.LogCaptureFixture) -> None:
    validated([])  # Imported or not before, by whatever test: the levels are as an import leaves them.
    logging.getLogger("great_expectations").setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO):
        of = policy(quality("expect_column_min_to_be_between", "rows", min_value=1))
        assert validated(count_tables(of, report_of(), Place(URI.cloud, "US"))) == []
    assert caplog.records == []
    assert logging.getLogger("great_expectations").level == logging.NOTSET
