"""pycanon on one CSV file; as a module, run by the interpreter of the benchmarks' own environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from benchmarks.anonymity.clock import timed


def figures(path: str, quasi_identifiers: list[str], sensitive: str) -> dict[str, Any]:
    """Each figure with the seconds of processor time that `timed` tells; reading the file is not counted."""
    import pandas as pd
    from pycanon import anonymity

    table = pd.read_csv(path, keep_default_na=False)
    calls: dict[str, Callable[[], float]] = {
        "k": lambda: anonymity.k_anonymity(table, quasi_identifiers),
        "l": lambda: anonymity.l_diversity(table, quasi_identifiers, [sensitive]),
        "entropy_l": lambda: anonymity.entropy_l_diversity(table, quasi_identifiers, [sensitive]),
        "t": lambda: anonymity.t_closeness(table, quasi_identifiers, [sensitive]),
    }
    return {"version": version("pycanon"), "figures": {name: timed(call) for name, call in calls.items()}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(figures(*json.load(sys.stdin))))
