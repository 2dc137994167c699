"""Great Expectations on tables of counts, and its Data Docs, which a process of its own writes.

Great Expectations takes seconds to load and a verdict does not wait for its pages: `ask_for` leaves the tables beside
the pages and starts `python -m tasks.data_docs DIRECTORY`, which writes whatever was left there, one process at a time
and each site as it was asked for last. What a process that was stopped did not write is written by the next one.

Great Expectations puts offending cells into its results and its pages, so it never sees a dataset: its tables are the
findings (entity, place, count) and the column profile (rows, nulls, ranges), which hold no values of text. Data Docs
are rewritten after they are made: nothing in them is fetched from another host, and no script is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.core.errors import Invalid
from tasks.core.quality import CountTable, Expectation, failure

_ONE_AT_A_TIME = threading.Lock()
"""Great Expectations keeps its project in module state."""

_WAITING = ".waiting.json"
_TAKEN = ".taken.json"
_LOG = "data-docs.log"
_started: list[subprocess.Popen[bytes]] = []


def ask_for(docs: Path, tables: Sequence[CountTable], failed: Sequence[str]) -> None:
    """Have Data Docs of the tables written by a process of its own; nobody waits for it.

    Args:
        docs: The site's directory, made new.
        tables: What is checked.
        failed: What was answered for it; the process says in `data-docs.log` beside the site when it finds otherwise.
    """
    docs.parent.mkdir(parents=True, exist_ok=True)
    asked = {"tables": [asdict(table) for table in tables], "failed": list(failed)}
    partial = docs.with_name(f"{docs.name}.{os.getpid()}.{threading.get_ident()}.partial")
    partial.write_text(json.dumps(asked, default=str), encoding="utf-8")
    partial.replace(docs.with_name(docs.name + _WAITING))
    _started[:] = [process for process in _started if process.poll() is None]
    with (docs.parent / _LOG).open("ab") as log:
        _started.append(
            subprocess.Popen(
                # -P: a directory of that name where somebody works is not this package.
                [sys.executable, "-P", "-m", "tasks.data_docs", str(docs.parent.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )


def write_waiting(directory: Path) -> list[str]:
    """Write every site that was asked for and is not written, after any other process that is at it.

    Returns:
        The sites of which Great Expectations says otherwise than the verdict did.
    """
    differing: list[str] = []
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in directory.glob(f"*{_TAKEN}"):
            _write_site(left, differing)
        while waiting := sorted(directory.glob(f"*{_WAITING}")):
            for asked in waiting:
                # What is asked for from here on is another file of the old name, and written after this one.
                _write_site(asked.replace(asked.with_name(asked.name.removesuffix(_WAITING) + _TAKEN)), differing)
    return differing


def _write_site(taken: Path, differing: list[str]) -> None:
    asked = json.loads(taken.read_text(encoding="utf-8"))
    docs = taken.with_name(taken.name.removesuffix(_TAKEN))
    made, old = docs.with_name(f".{docs.name}.new"), docs.with_name(f".{docs.name}.old")
    failed = validated([_table(each) for each in asked["tables"]], made)
    if sorted(failed) != sorted(asked["failed"]):
        differing.append(docs.name)
    shutil.rmtree(old, ignore_errors=True)
    if docs.exists():
        docs.rename(old)
    made.rename(docs)
    shutil.rmtree(old, ignore_errors=True)
    taken.unlink()


def _table(kept: dict[str, Any]) -> CountTable:
    expectations = tuple(Expectation(**each) for each in kept["expectations"])
    lines = tuple(tuple(line) for line in kept["lines"])
    return CountTable(kept["name"], tuple(kept["columns"]), lines, expectations)


def validated(tables: Sequence[CountTable], docs: Path | None = None) -> list[str]:
    """Ask Great Expectations. Answers the failed expectations in words.

    Args:
        tables: What is checked; tables of which nothing is expected are left out.
        docs: A directory for Data Docs, made new; None for none.
    """
    # Read at import: nothing is told to anybody about who checks what.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _ONE_AT_A_TIME, _quiet():
        return _run([table for table in tables if table.expectations], docs)


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


def _run(tables: Sequence[CountTable], docs: Path | None) -> list[str]:
    import great_expectations as gx
    import pandas as pd
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
    for table in tables:
        batch = source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe("all")
        made = context.suites.add(gx.ExpectationSuite(name=table.name))
        for expectation in table.expectations:
            made.add_expectation(built(expectation))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=table.name, data=batch, suite=made)
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(name=table.name, validation_definitions=[definition], actions=actions)
        )
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            answer: Any = checkpoint.run(
                batch_parameters={"dataframe": pd.DataFrame(table.lines, columns=list(table.columns))}
            )
        results = next(iter(answer.run_results.values())).results
        failed += [_in_words(result, table) for result in results if not result.success]
    if docs is not None:
        make_self_contained(docs)
    return failed


def built(expectation: Expectation) -> Any:
    """The expectation as Great Expectations has it.

    Raises:
        Invalid: It does not take these arguments.
    """
    import great_expectations.expectations as types
    from great_expectations.compatibility.pydantic import ValidationError

    from tasks.findings_expectation import ExpectFindingsToBeAllowed

    said = {"meta": {"words": expectation.words}, "description": expectation.words}
    if expectation.rule is not None:
        return ExpectFindingsToBeAllowed.for_rule(expectation.rule, **said)
    name = "".join(part.capitalize() for part in expectation.kind.split("_"))
    try:
        return getattr(types, name)(**expectation.kwargs, **said)
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(
            f"'{expectation.kind}' in the policy's quality does not take its kwargs: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            "correct them; Great Expectations' gallery of expectations names those that it takes",
        ) from None


def _in_words(result: Any, table: CountTable) -> str:
    words = result.expectation_config.meta["words"]
    if (result.exception_info or {}).get("raised_exception"):
        return f"expectation could not be evaluated: {words}"
    (expectation,) = {each.words: each for each in table.expectations if each.words == words}.values()
    return failure(expectation, (result.result or {}).get("unexpected_count") or 0)


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


def main() -> None:
    """`python -m tasks.data_docs DIRECTORY`: write the sites that were asked for and are not written."""
    os.nice(10)
    differing = write_waiting(Path(sys.argv[1]))
    if differing:
        raise SystemExit(f"Great Expectations says otherwise than the verdict did, for {', '.join(differing)}")


if __name__ == "__main__":
    main()
