"""Great Expectations over counts: one expectation a rule on the findings, and the policy's own on the profile.

Great Expectations puts offending cells into its results and its pages, so it never sees a dataset: its tables are the
findings (entity, place, count) and the column profile (rows, nulls, ranges), which hold no values of text. Data Docs
are rewritten after they are made: nothing in them is fetched from another host, and no script is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tasks.core.findings import ScanReport
from tasks.core.policy import PROFILE_COLUMNS, Place, Policy, Quality
from tasks.core.privacy import NO_EXEMPTIONS, Exemptions, ExpectationOutcome

if TYPE_CHECKING:
    import pandas as pd

_ONE_AT_A_TIME = threading.Lock()
"""Great Expectations keeps its project in module state."""

_FINDING_COLUMNS = ("entity", "path", "column", "count", "share", "confidence", "rule", "action")


@dataclass(frozen=True, slots=True)
class _Expectation:
    """One expectation: its type and arguments, what it says in words, and the rule whose findings it is about."""

    kind: str
    kwargs: Mapping[str, Any]
    words: str
    rule: str | None = None


@dataclass(frozen=True)
class _Suite:
    """Expectations about one table of counts."""

    name: str
    table: pd.DataFrame
    expectations: tuple[_Expectation, ...]


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
        docs: A directory for Data Docs, made new; None for none.
        exemptions: What is not judged by what the scan saw of it.

    Returns:
        How many expectations were checked and, in words, those that failed. `decide` refuses on any of them.
    """
    suites = [_findings_suite(policy, report, place, exemptions), *_quality_suites(policy, report)]
    missing = [f"quality: no column matches {_selection(q)}" for q in policy.quality if not _selected(q, report)]
    # Read at import: nothing is told to anybody about who checks what.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _ONE_AT_A_TIME, _quiet():
        failed = _run([suite for suite in suites if suite.expectations], docs)
    checked = sum(len(suite.expectations) for suite in suites) + len(missing)
    return ExpectationOutcome(checked, (*missing, *failed))


def _findings_suite(policy: Policy, report: ScanReport, place: Place, exemptions: Exemptions) -> _Suite:
    import pandas as pd

    decisions = [exemptions.decide(policy, finding, place) for finding in exemptions.of_values(report.findings)]
    lines = [
        (f.entity, f.path, f.column, f.count, f.share, f.confidence, decision.rule, decision.action.value)
        for decision in decisions
        for f in [decision.finding]
    ]
    expectations = tuple(
        _Expectation(
            "expect_findings_to_be_allowed",
            {},
            f"every finding that '{rule}' decides is allowed as it stands",
            rule,
        )
        for rule in policy.rule_names
    )
    return _Suite("findings", pd.DataFrame(lines, columns=list(_FINDING_COLUMNS)), expectations)


def _quality_suites(policy: Policy, report: ScanReport) -> Iterator[_Suite]:
    import pandas as pd

    by_selection: dict[str, list[Quality]] = {}
    for quality in policy.quality:
        by_selection.setdefault(_selection(quality), []).append(quality)
    for selection, group in by_selection.items():
        lines = _selected(group[0], report)
        if lines:
            expectations = tuple(_quality_expectation(quality) for quality in group)
            table = pd.DataFrame(lines, columns=list(PROFILE_COLUMNS))
            yield _Suite(f"quality of {selection}", table, expectations)


def _quality_expectation(quality: Quality) -> _Expectation:
    limits = ", ".join(f"{key} {value}" for key, value in quality.kwargs.items() if key != "column")
    subject = quality.kwargs.get("column", "the table")
    what = quality.expectation.removeprefix("expect_").replace("_", " ")
    return _Expectation(quality.expectation, quality.kwargs, f"{what}: {subject} of {_selection(quality)} ({limits})")


def _selection(quality: Quality) -> str:
    path = "" if quality.path == "*" else f" in '{quality.path}'"
    return f"columns '{quality.column}'{path}" if quality.column != "*" else f"all columns{path}"


def _selected(quality: Quality, report: ScanReport) -> list[dict[str, Any]]:
    return [
        column.as_dict()
        for column in report.profile
        if fnmatchcase(column.column, quality.column) and fnmatchcase(column.path, quality.path)
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations tells of its temporary directories on the way; nobody who moves data wants to know.

    One of its modules sets its own level as it is imported, so the import comes first and that level is held too.
    """
    import great_expectations.data_context.types.base as talkative

    loggers = [logging.getLogger(name) for name in ("great_expectations", talkative.__name__)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run(suites: Sequence[_Suite], docs: Path | None) -> list[str]:
    """Run every suite. Answers the failed expectations in words."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source: Any = context.data_sources.add_pandas("counts")
    actions: list[Any] = []
    if docs is not None:
        shutil.rmtree(docs, ignore_errors=True)
        docs.mkdir(parents=True)
        context.add_data_docs_site("local", _site(docs))
        actions.append(gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["local"]))
    failed: list[str] = []
    for suite in suites:
        batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all")
        made = context.suites.add(gx.ExpectationSuite(name=suite.name))
        for expectation in suite.expectations:
            made.add_expectation(_built(expectation))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=suite.name, data=batch, suite=made)
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(name=suite.name, validation_definitions=[definition], actions=actions)
        )
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            answer: Any = checkpoint.run(batch_parameters={"dataframe": suite.table})
        results = next(iter(answer.run_results.values())).results
        failed += [_in_words(result) for result in results if not result.success]
    if docs is not None:
        make_self_contained(docs)
    return failed


def _built(expectation: _Expectation) -> Any:
    import great_expectations.expectations as types

    from tasks.findings_expectation import ExpectFindingsToBeAllowed

    said = {"meta": {"words": expectation.words}, "description": expectation.words}
    if expectation.rule is not None:
        return ExpectFindingsToBeAllowed.for_rule(expectation.rule, **said)
    name = "".join(part.capitalize() for part in expectation.kind.split("_"))
    return getattr(types, name)(**expectation.kwargs, **said)


def _in_words(result: Any) -> str:
    words = result.expectation_config.meta["words"]
    if (result.exception_info or {}).get("raised_exception"):
        return f"expectation could not be evaluated: {words}"
    count = (result.result or {}).get("unexpected_count")
    return f"expectation failed: {words}" + (f", but not {count} of them" if count else "")


def _site(directory: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(directory.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


_SCRIPTS = re.compile(r"<script\b.*?</script\s*>", re.DOTALL | re.IGNORECASE)
_REMOTE_TAGS = re.compile(r"<(?:link|img|iframe|source)\b[^>]*https?://[^>]*>", re.IGNORECASE)
_REMOTE_LINKS = re.compile(r"""(href|src|action)\s*=\s*(["'])https?://.*?\2""", re.IGNORECASE)
_REMOTE = re.compile(r"""https?://(?!www\.w3\.org/)[^\s"'<>)]*""")
_FOR_SCRIPTS = re.compile(
    r"<footer\b.*?</footer>|<button\b.*?</button>|<a\b[^>]*data-toggle=[^>]*>\s*Show more info.*?</a>"
    r"|<strong>Actions</strong>|<label\b[^>]*>\s*<input type=\"radio\".*?</label>|Validation Filter:",
    re.DOTALL | re.IGNORECASE,
)
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)

_STYLE = """<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'">
<style>
body{font:16px/1.5 system-ui,sans-serif;color:#1d2430;background:#fff;margin:0 auto;max-width:72rem;padding:1rem}
a{color:#14508c}.row{display:block}.collapse,.show{display:block}.dropdown-menu,.modal,.tab-pane.fade{display:block}
table{border-collapse:collapse;width:100%;margin:.5rem 0}td,th{border:1px solid #d6dbe3;padding:.4rem .6rem;
text-align:left;vertical-align:top;word-break:break-word}.badge{border:1px solid #d6dbe3;border-radius:.3rem;
padding:0 .3rem}.fa-check-circle::before{content:"passed"}.fa-times::before{content:"failed"}
.text-success{color:#146c2e}.text-danger{color:#b3261e}nav,ol.breadcrumb{display:block}img{max-width:12rem}
</style>"""


def make_self_contained(docs: Path) -> None:
    """Take scripts, what only they serve, and everything remote out of the pages, and give them a style of their own.

    The index, which Great Expectations fills in by script, is written anew as plain links.
    """
    shutil.rmtree(docs / "static", ignore_errors=True)
    for page in docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for pattern, instead in ((_SCRIPTS, ""), (_REMOTE_TAGS, ""), (_REMOTE_LINKS, r'\1="#"'), (_REMOTE, "")):
            text = pattern.sub(instead, text)
        text = _FOR_SCRIPTS.sub("", text)
        text = re.sub(r"""<link\b[^>]*static/[^>]*>|<img\b[^>]*static/[^>]*>""", "", text, flags=re.IGNORECASE)
        page.write_text(_HEAD.sub(lambda head: head.group(0) + _STYLE, text, count=1), encoding="utf-8")
    _write_index(docs)


def _write_index(docs: Path) -> None:
    sections: list[str] = []
    for title, directory in (("Validations", "validations"), ("Expectations", "expectations")):
        pages = sorted(page.relative_to(docs) for page in (docs / directory).rglob("*.html"))
        links = "".join(
            f'<li><a href="{quote(page.as_posix())}">{escape(page.parts[1].removesuffix(".html"))}</a></li>'
            for page in pages
        )
        sections.append(f"<h2>{title}</h2><ul>{links}</ul>")
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>{_STYLE}</head>'
    page = f"{head}<body><h1>Data Docs</h1>{''.join(sections)}</body></html>"
    (docs / "index.html").write_text(page, encoding="utf-8")
