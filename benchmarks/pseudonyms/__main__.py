"""`python -m benchmarks.pseudonyms`: what pseudonyms cost; writes build/bench-pseudonyms.json.

A move whose policy makes tokens, masks and replacements of what is found, against a move of the same objects under a
policy that allows it all; and tokens of Lintas against hashes of presidio-anonymizer for the same values. The two
sides take turns, each round in new places; figures are medians. Moves are timed by the clock, since both use all cores;
tokens by processor time. Of the treated move it is told how much of both its stages take.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pyarrow.parquet as pq
import yaml

from benchmarks.privacy.table import make_table
from tasks.core.policy import Action, ActionOptions
from tasks.core.privacy import ColumnTreatment
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.treatments import treat_column

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
RIVAL = ROOT / ".venv" / "bench" / "bin" / "python"
OBJECTS = 8
TREATED: tuple[dict[str, Any], ...] = (
    {"name": "tokens", "entities": ["contact", "government_id", "financial", "network"], "action": "tokenise"},
    {"name": "names", "entities": ["person", "location"], "action": "replace", "min_confidence": 0.5},
    {"name": "secrets", "entities": ["secret"], "action": "drop"},
)


def configured(folder: Path) -> None:
    """Two clouds that are directories, and the two policies."""
    cloud = {"provider": "onprem", "jurisdiction": "EU"}
    config: dict[str, Any] = {
        "clouds": {name: cloud | {"options": {"root": str(folder / name)}} for name in ("near", "far")},
        "gate": {"signing_key": "env:BENCH_KEY", "pseudonym_key": "env:BENCH_KEY", "data_docs": False},
        "state_dir": str(folder / "state"),
        "policies_dir": str(folder),
    }
    (folder / "far").mkdir()
    (folder / "lintas.yaml").write_text(yaml.safe_dump(config))
    base = {"version": 1, "residency": {"allowed": ["EU"]}, "defaults": {"finding": "allow"}}
    (folder / "plain.yaml").write_text(yaml.safe_dump(base | {"name": "plain"}))
    (folder / "treated.yaml").write_text(yaml.safe_dump(base | {"name": "treated", "rules": list(TREATED)}))
    os.environ |= {"LINTAS_CONFIG": str(folder / "lintas.yaml"), "BENCH_KEY": "k" * 32}


Spent = tuple[float, float]
"""Seconds by the clock and of the processor."""


@contextmanager
def stages() -> Iterator[dict[str, Spent]]:
    """What the stages of the moves inside take."""
    from tasks.core import transform
    from tasks.core.detectors import scan

    spent: dict[str, Spent] = {}

    def timed(work: Callable[..., Any], name: Callable[[Any], str]) -> Callable[..., Any]:
        def call(store: Any, uri: Any, *others: Any, **more: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            made = work(store, uri, *others, **more)
            spent[name(uri)] = time.perf_counter() - wall, time.process_time() - cpu
            return made

        return call

    with ExitStack() as patches:
        scanned = timed(scan.scan, lambda uri: "scan_copy" if uri.cloud == "staging" else "scan")
        patches.enter_context(mock.patch.object(scan, "scan", scanned))
        treated = timed(transform.apply_treatment, lambda _: "treat")
        patches.enter_context(mock.patch.object(transform, "apply_treatment", treated))
        yield spent


def moves(folder: Path, rows: int, rounds: int) -> Iterator[tuple[str, Spent, dict[str, Spent]]]:
    """Which policy, and what it took as a whole and by stage, of each move."""
    from flows.moving import move_to_all, options_of
    from tasks.core.conversion import Conversion

    table = make_table(rows, 7).table
    per_object = -(-rows // OBJECTS)
    for number in range(-1, rounds):
        # Each round is another dataset, so that nothing is remembered of the round before; the first one warms up.
        for policy in ("plain", "treated") if number % 2 else ("treated", "plain"):
            name = f"{policy}{number}"
            directory = folder / "near" / "bench" / name
            directory.mkdir(parents=True)
            for at in range(OBJECTS):
                pq.write_table(table.slice(at * per_object, per_object), directory / f"part-{at}.parquet")
            with stages() as by_stage:
                wall, cpu = time.perf_counter(), time.process_time()
                (moved,) = move_to_all(
                    f"near://bench/{name}", [f"far://bench/{name}"], policy,
                    options_of(False, "10%", [], [], "digest"), Conversion(),
                )  # fmt: skip
                spent = time.perf_counter() - wall, time.process_time() - cpu
            if isinstance(moved, Exception):
                raise moved
            if number >= 0:
                rest = tuple(whole - sum(parts) for whole, *parts in zip(spent, *by_stage.values(), strict=True))
                yield policy, spent, by_stage | {"rest": (rest[0], rest[1])}


def tokens(values: list[str]) -> float:
    """Processor seconds that tokens of a column take."""
    treatment = ColumnTreatment("*", "c", Action.TOKENISE, ("EMAIL_ADDRESS",), "r", ActionOptions(), "EMAIL_ADDRESS")
    column = pl.Series(values)
    started = time.process_time()
    made = treat_column(column, treatment, PseudonymKey("k", b"k" * 32), "far")
    spent = time.process_time() - started
    if made.n_unique() != len(set(values)):
        raise SystemExit("tokens are not one to one")
    return spent


def rival(values: list[str]) -> dict[str, Any]:
    """What presidio-anonymizer takes for the same."""
    done = subprocess.run(
        [RIVAL, "-m", "benchmarks.pseudonyms.rival"], input=json.dumps(values), capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"presidio-anonymizer did not run:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def medians(spent: list[Spent]) -> Spent:
    """The medians of both clocks."""
    return statistics.median(wall for wall, _ in spent), statistics.median(cpu for _, cpu in spent)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pseudonyms")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rival-rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-rival", action="store_true", help="leave presidio-anonymizer out")
    options = parser.parse_args()
    values = [f"person.number{at}@example{at % 97}.org" for at in range(options.rows)]
    ours: list[float] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        ours.append(tokens(values) / len(values))
        if not options.no_rival:
            theirs.append(rival(values[: options.rival_rows]))
    token = statistics.median(ours)
    with tempfile.TemporaryDirectory() as directory:
        configured(Path(directory))
        seen = list(moves(Path(directory), options.rows, options.rounds))
    facts: dict[str, Any] = {
        "rows": options.rows,
        "rounds": options.rounds,
        "load": os.getloadavg()[0],
        "token_us": token * 1e6,
    }
    for name in ("plain", "treated"):
        facts[f"{name}_s"], facts[f"{name}_cpu_s"] = medians([spent for policy, spent, _ in seen if policy == name])
    facts["speed_of_plain"] = facts["plain_s"] / facts["treated_s"]
    by_stage = [stages for policy, _, stages in seen if policy == "treated"]
    facts["stages_of_treated"] = {
        name: dict(zip(("s", "cpu_s"), medians([each[name] for each in by_stage]), strict=True)) for name in by_stage[0]
    }
    if theirs:
        hashed = statistics.median(each["cpu_s"] / options.rival_rows for each in theirs)
        facts["presidio"], facts["presidio_us"] = theirs[0]["version"], hashed * 1e6
        facts["times_presidio"] = hashed / token
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-pseudonyms.json").write_text(json.dumps(facts, indent=2) + "\n")
    json.dump(facts, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
