"""Lintas on one CSV file, as a process of its own like the other side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import polars as pl

from benchmarks.anonymity.clock import timed
from tasks.core.anonymity import distinct_l_diversity, entropy_l_diversity, k_anonymity, t_closeness


def figures(path: str, quasi_identifiers: list[str], sensitive: str) -> dict[str, Any]:
    """Each figure with the seconds of processor time that `timed` tells; reading the file is not counted."""
    table = pl.read_csv(path)
    calls: dict[str, Callable[[], float]] = {
        "k": lambda: k_anonymity(table, quasi_identifiers),
        "l": lambda: distinct_l_diversity(table, quasi_identifiers, sensitive),
        "entropy_l": lambda: entropy_l_diversity(table, quasi_identifiers, sensitive),
        "t": lambda: t_closeness(table, quasi_identifiers, sensitive),
    }
    return {"figures": {name: timed(call) for name, call in calls.items()}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(figures(*json.load(sys.stdin))))
