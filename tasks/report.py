"""The report of a lifecycle: one JSON file for machines, one self-contained page for people, and a link in Prefect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.artifacts import show_link, show_markdown
from tasks.registry import installation
from tasks.steps import flow_run_id, say, step


@step(name="report")
def publish_report(name: str, facts: Mapping[str, Any]) -> Path:
    """Write `<state_dir>/reports/NAME.json` and `.html`; returns the page.

    Args:
        name: The release that the report is about.
        facts: What the lifecycle did, JSON-compatible; counts and places, never values.
    """
    folder = installation().settings.state_dir / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{name}.html"
    whole = {"name": name, "flow_run_id": flow_run_id(), **facts}
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    page.write_text(render(whole), encoding="utf-8")
    show_link("report", page.resolve().as_uri(), f"Report of release {name}")
    show_markdown("lifecycle", _summary(whole))
    say(f"report: {page}")
    return page


def render(facts: Mapping[str, Any]) -> str:
    """The page of a lifecycle."""
    return page_of("report.html.jinja", facts)


def page_of(template: str, facts: Mapping[str, Any]) -> str:
    """A page from a template beside this file: no script, no remote asset, every text escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["size"] = _size
    return environment.get_template(template).render(**facts)


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def _summary(facts: Mapping[str, Any]) -> str:
    lines = ["| what | |", "| --- | --- |"]
    lines += [
        f"| {leg['source']} → {leg['destination']} | {leg['objects_sent']} of {leg['objects']} objects sent, "
        f"digest `{leg['digest'][:16]}` |"
        for leg in facts["moved"]
    ]
    trained, chosen = facts["trained"], facts["placement"]["chosen"]
    lines.append(f"| trained on | {chosen['provider']} {chosen['sku']}, {chosen['total_usd']:.4f} USD in all |")
    lines.append(f"| model | {trained['model']} version {trained['version']} |")
    lines += [f"| {name} | {value:.4f} |" for name, value in trained["metrics"].items()]
    lines += [
        f"| endpoint on {endpoint['provider']} | {endpoint['url']} ({endpoint['weight']}%) |"
        for endpoint in facts["release"]["endpoints"]
    ]
    return "\n".join(lines)
