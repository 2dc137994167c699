"""Expectations over counts: one a rule on the findings, and the policy's own on the profile.

What can be answered by arithmetic is (`tasks.core.quality`); the rest is asked of Great Expectations, which also writes
Data Docs of all of it, in a process of its own (`tasks.data_docs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tasks.core.findings import ColumnProfile, ScanReport
from tasks.core.policy import PROFILE_COLUMNS, Place, Policy, Quality
from tasks.core.privacy import NO_EXEMPTIONS, Exemptions, ExpectationOutcome
from tasks.core.quality import FINDINGS_ALLOWED, CountTable, Expectation, answer, failure

_FINDING_COLUMNS = ("entity", "path", "column", "count", "share", "confidence", "rule", "action")


def check_expectations(
    policy: Policy,
    report: ScanReport,
    *,
    place: Place,
    docs: Path | None = None,
    exemptions: Exemptions = NO_EXEMPTIONS,
) -> ExpectationOutcome:
    """Check the policy's expectations on the counts of a scan.

    Args:
        policy: Its rules and its `quality`.
        report: The scan of what would leave.
        place: Where it would go; rules depend on it.
        docs: A directory for Data Docs, which another process makes new after this has returned; None for none.
        exemptions: What is not judged by what the scan saw of it.

    Returns:
        How many expectations were checked and, in words, those that failed. `decide` refuses on any of them.
    """
    tables = count_tables(policy, report, place, exemptions)
    failed: list[str] = []
    for table in tables:
        left: list[Expectation] = []
        for expectation in table.expectations:
            answered = answer(expectation, table)
            if answered is None:
                left.append(expectation)
            elif not answered.success:
                failed.append(failure(expectation, answered.unexpected))
        if left:
            from tasks.data_docs import validated

            failed += validated([CountTable(table.name, table.columns, table.lines, tuple(left))])
    if docs is not None:
        from tasks.data_docs import ask_for

        ask_for(docs, tables, failed)
    missing = [f"quality: no column matches {_selection(q)}" for q in policy.quality if not _selected(q, report)]
    checked = sum(len(table.expectations) for table in tables) + len(missing)
    return ExpectationOutcome(checked, (*missing, *failed))


def count_tables(
    policy: Policy, report: ScanReport, place: Place, exemptions: Exemptions = NO_EXEMPTIONS
) -> list[CountTable]:
    """The tables of a scan's counts, each with what the policy expects of it."""
    return [_findings_table(policy, report, place, exemptions), *_quality_tables(policy, report)]


def _findings_table(policy: Policy, report: ScanReport, place: Place, exemptions: Exemptions) -> CountTable:
    decisions = [exemptions.decide(policy, finding, place) for finding in exemptions.of_values(report.findings)]
    lines = tuple(
        (f.entity, f.path, f.column, f.count, f.share, f.confidence, decision.rule, decision.action.value)
        for decision in decisions
        for f in [decision.finding]
    )
    expectations = tuple(
        Expectation(FINDINGS_ALLOWED, {}, f"every finding that '{rule}' decides is allowed as it stands", rule)
        for rule in policy.rule_names
    )
    return CountTable("findings", _FINDING_COLUMNS, lines, expectations)


def _quality_tables(policy: Policy, report: ScanReport) -> Iterator[CountTable]:
    by_selection: dict[str, list[Quality]] = {}
    for quality in policy.quality:
        by_selection.setdefault(_selection(quality), []).append(quality)
    for selection, group in by_selection.items():
        rows = [column.as_dict() for column in _selected(group[0], report)]
        if rows:
            lines = tuple(tuple(row[name] for name in PROFILE_COLUMNS) for row in rows)
            expectations = tuple(_quality_expectation(quality) for quality in group)
            yield CountTable(f"quality of {selection}", PROFILE_COLUMNS, lines, expectations)


def _quality_expectation(quality: Quality) -> Expectation:
    limits = ", ".join(f"{key} {value}" for key, value in quality.kwargs.items() if key != "column")
    subject = quality.kwargs.get("column", "the table")
    what = quality.expectation.removeprefix("expect_").replace("_", " ")
    return Expectation(quality.expectation, quality.kwargs, f"{what}: {subject} of {_selection(quality)} ({limits})")


def _selection(quality: Quality) -> str:
    path = "" if quality.path == "*" else f" in '{quality.path}'"
    return f"columns '{quality.column}'{path}" if quality.column != "*" else f"all columns{path}"


def _selected(quality: Quality, report: ScanReport) -> list[ColumnProfile]:
    return [
        column
        for column in report.profile
        if fnmatchcase(column.column, quality.column) and fnmatchcase(column.path, quality.path)
    ]


def require_known(policy: Policy) -> None:
    """Have Great Expectations look at the arguments of a policy's expectations, which a verdict may not ask it for.

    Raises:
        Invalid: It does not take those of one of them.
    """
    from tasks.data_docs import built

    for quality in policy.quality:
        built(_quality_expectation(quality))
