"""The table provider x promise, written by the conformance run itself: `build/conformance.json` and Markdown.

With `LINTAS_CONFORMANCE_TABLE=PATH` the Markdown goes to PATH as well: `make conformance` keeps docs/conformance.md so.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from pathlib import Path

import pytest

PROVIDERS = ("aws", "google", "azure", "coreweave", "onprem")
_PORTS = {
    "test_store": "Store",
    "test_store_trouble": "Store",
    "test_store_attributes": "Store",
    "test_store_moves": "Store",
    "test_store_copies": "Server-side copy",
    "test_trainer": "Trainer",
    "test_server": "Server",
    "test_mirroring": "Mirroring",
    "test_events": "EventSource",
}
_BUILD = Path("build")


class ConformanceTable:
    """Collects outcomes of tests under `tests/conformance` that are parametrised by provider."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        match = re.match(r"tests/conformance/(\w+)\.py::test_(\w+)\[(.*)\]$", report.nodeid, re.DOTALL)
        if match is None or match.group(1) not in _PORTS or (report.when != "call" and report.passed):
            return
        providers = [name for name in PROVIDERS if name in match.group(3).split("-")]
        if not providers:
            return
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        promise = (_PORTS[match.group(1)], match.group(2).replace("_", " "))
        self.outcomes[promise][providers[0]].append(outcome)

    def pytest_sessionfinish(self) -> None:
        if not self.outcomes:
            return
        _BUILD.mkdir(exist_ok=True)
        rows = [
            {"port": port, "promise": promise, "providers": {name: sorted(set(seen)) for name, seen in by.items()}}
            for (port, promise), by in sorted(self.outcomes.items())
        ]
        (_BUILD / "conformance.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        text = self.markdown()
        (_BUILD / "conformance.md").write_text(text, encoding="utf-8")
        if os.environ.get("LINTAS_CONFORMANCE_TABLE"):
            Path(os.environ["LINTAS_CONFORMANCE_TABLE"]).write_text(text, encoding="utf-8")

    def markdown(self) -> str:
        lines = [
            "# Conformance",
            "",
            "Written by `make conformance`: one suite a port, every provider, against the local twin. A named xfail is",
            "a promise that the server behind the provider does not let a test see; its reason stands in the suite.",
        ]
        for port in dict.fromkeys(_PORTS.values()):
            promises = {promise: by for (of, promise), by in sorted(self.outcomes.items()) if of == port}
            if not promises:
                continue
            lines += [
                "",
                f"## {port}",
                "",
                f"| promise | {' | '.join(PROVIDERS)} |",
                "| --- |" + " --- |" * len(PROVIDERS),
            ]
            lines += [
                f"| {promise} | {' | '.join(_cell(by.get(name, [])) for name in PROVIDERS)} |"
                for promise, by in promises.items()
            ]
            held = [sum(_cell(by.get(name, [])) == "yes" for by in promises.values()) for name in PROVIDERS]
            lines.append(f"| **kept, of {len(promises)}** | {' | '.join(str(number) for number in held)} |")
        return "\n".join(lines) + "\n"


def _cell(outcomes: list[str]) -> str:
    if not outcomes:
        return ""
    if "failed" in outcomes:
        return "NO"
    if "xfailed" in outcomes:
        return "xfail"
    return "yes" if "passed" in outcomes else "skipped"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ConformanceTable(), "conformance-table")
