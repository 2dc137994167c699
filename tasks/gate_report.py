"""The gate's report: one self-contained page with charts, the same as JSON for machines, and a link in Prefect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.artifacts import show_link
from tasks.core.dataset import DatasetURI
from tasks.core.findings import ScanReport
from tasks.core.held import Held
from tasks.core.policy import Action, Place, Policy
from tasks.registry import installation
from tasks.report import page_of


def publish_gate_report(
    report: ScanReport,
    policy: Policy,
    destination: DatasetURI,
    *,
    decision: str,
    reasons: Sequence[str] = (),
    held: Sequence[Held] = (),
    anonymised: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write `<state_dir>/reports/gate-....html` and `.json`; the same question again is the same page.

    Args:
        report: The scan of the dataset as it is at the source.
        policy, destination: What it was judged by, and for where.
        decision: `cleared` or `refused`.
        reasons: Why it is refused.
        held: What stays in quarantine.
        anonymised: How coarse tables became; see `tasks.core.hierarchies.Coarsening.as_dict`.

    Returns:
        The page.
    """
    here = installation()
    place = here.place(destination.cloud, source=report.uri)
    facts = facts_of(report, policy, place) | {
        "destination": str(destination),
        "decision": decision,
        "reasons": list(reasons),
        "held": [{"path": item.path, "digest": item.digest, "why": "; ".join(map(str, item.reasons))} for item in held],
        "anonymised": [dict(each) for each in anonymised],
    }
    folder = here.settings.state_dir / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"gate-{report.manifest_digest[:12]}-{policy.digest[:8]}-{destination.cloud}.html"
    page.with_suffix(".json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    page.write_text(page_of("gate_report.html.jinja", facts | charts_of(facts["findings"])), encoding="utf-8")
    show_link(f"gate-{destination.cloud}", page.resolve().as_uri(), f"What the gate found in {report.uri}")
    return page


def facts_of(report: ScanReport, policy: Policy, place: Place) -> dict[str, Any]:
    """What was found and what the policy says to each finding, JSON-compatible; places and counts, never values."""
    decisions = [policy.decide(finding, place) for finding in report.findings]
    found = [each.finding.as_dict() | {"action": each.action.value, "rule": each.rule} for each in decisions]
    leave_alone = (Action.ALLOW.value, Action.REFUSE.value, Action.QUARANTINE.value)
    return {
        "dataset": str(report.uri),
        "manifest": report.manifest_digest,
        "policy": policy.name,
        "policy_digest": policy.digest,
        "jurisdiction": place.jurisdiction,
        "rows": report.rows,
        "objects": report.objects,
        "columns": len(report.profile),
        "treatments": len({(each["path"], each["column"]) for each in found if each["action"] not in leave_alone}),
        "findings": found,
    }


def charts_of(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The matrix of columns by entities and the rows by entity, as the page draws them."""
    totals: dict[str, int] = {}
    for finding in findings:
        totals[finding["entity"]] = totals.get(finding["entity"], 0) + finding["count"]
    entities = sorted(totals, key=lambda name: (-totals[name], name))
    by_place: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for finding in findings:
        cell = dict(finding) | {"shown": _share(finding["share"])}
        by_place.setdefault((finding["path"], finding["column"]), {})[finding["entity"]] = cell
    return {
        "entities": entities,
        "matrix": [
            {"path": path, "column": column, "cells": [cells.get(entity) for entity in entities]}
            for (path, column), cells in sorted(by_place.items())
        ],
        "totals": [{"entity": entity, "count": totals[entity]} for entity in entities],
    }


def _share(share: float) -> str:
    """A share that is not 0 never looks like it, nor one that is not whole."""
    if 0 < share < 0.001:
        return "<0.1%"
    return "100%" if share == 1 else f"{min(100 * share, 99.9):.1f}%"
