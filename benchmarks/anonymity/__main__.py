"""`python -m benchmarks.anonymity`: k, l and t against pycanon; writes build/bench-anonymity.json.

Both sides are given the same files, in turn, in a new process each time, and are timed by the same stopwatch in seconds
of processor time, without their start and without reading the file: the first call, and the median of later ones.
Figures that differ end the benchmark. The files are an invented table and, with --adult, those of a directory that
holds pycanon's anonymised Adult files.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
RIVAL = ROOT / ".venv" / "bench" / "bin" / "python"
ADULT = ("age", "education", "occupation", "relationship", "sex", "native-country")
FIGURES = ("k", "l", "entropy_l", "t")


@dataclass(frozen=True)
class Work:
    """A file, its quasi-identifiers and one sensitive column."""

    name: str
    path: Path
    quasi_identifiers: tuple[str, ...]
    sensitive: str


def invented(directory: Path, rows: int) -> list[Work]:
    """A table with a sensitive category and a sensitive number."""
    dice = random.Random(20_251)  # noqa: S311 - the same table every time, not a secret
    path = directory / "people.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("age", "sex", "region", "illness", "salary"))
        for _ in range(rows):
            age, sex, region = dice.randrange(20, 90, 5), dice.choice("FM"), f"region {dice.randrange(12)}"
            lines.writerow((age, sex, region, f"illness {dice.randrange(20)}", dice.randrange(20, 70)))
    return [Work(f"{rows:,} rows, {what}", path, ("age", "sex", "region"), what) for what in ("illness", "salary")]


def measured(interpreter: Path, module: str, work: Work) -> dict[str, Any]:
    """What one side says of a file."""
    asked = json.dumps((str(work.path), work.quasi_identifiers, work.sensitive))
    command = [interpreter, "-m", f"benchmarks.anonymity.{module}"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{module} did not run:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def compared(work: Work, rounds: int) -> dict[str, Any]:
    """Medians of both sides, which have to agree."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(measured(Path(sys.executable), "ours", work)["figures"])
        answer = measured(RIVAL, "rival", work)
        theirs.append(answer["figures"])
    lines: dict[str, Any] = {}
    for name in FIGURES:
        mine, other = ours[0][name][0], theirs[0][name][0]
        # pycanon rounds the effective number of values down, and with it what is a whole number but for rounding.
        same = (
            other <= mine + 1e-9 < other + 1 + 1e-6 if name == "entropy_l" else math.isclose(mine, other, abs_tol=1e-9)
        )
        if not same:
            raise SystemExit(f"{work.name}: {name} is {mine} here and {other} with pycanon")
        lines[name] = {"figure": mine}
        for at, which in enumerate(("first", "later"), 1):
            seconds, rival = (statistics.median(each[name][at] for each in side) for side in (ours, theirs))
            lines[name][which] = {"lintas_s": seconds, "pycanon_s": rival, "times": rival / seconds}
    return {"table": work.name, "pycanon": answer["version"], "figures": lines}


def markdown(results: list[dict[str, Any]], rounds: int) -> str:
    """The table for docs/benchmarks.md."""
    lines = [
        f"Medians of {rounds}, pycanon {results[0]['pycanon']}, load {os.getloadavg()[0]:.1f}.",
        "",
        "| table | figure | value of both | first call, CPU-ms (pycanon) | times "
        "| later calls, CPU-ms (pycanon) | times |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        for name, each in result["figures"].items():
            cells = [
                f"{of['lintas_s'] * 1e3:,.1f} ({of['pycanon_s'] * 1e3:,.0f}) | {of['times']:,.0f}"
                for of in (each["first"], each["later"])
            ]
            lines.append(f"| {result['table']} | {name} | {each['figure']:.6g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anonymity")
    parser.add_argument("--adult", type=Path, help="a directory with adult_anon_3.csv, _10 and _20")
    parser.add_argument("--rows", type=int, default=20_000, help="of the invented table")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        works = invented(Path(directory), options.rows)
        if options.adult:
            names = [f"adult_anon_{k}" for k in (3, 10, 20)]
            works += [Work(name, options.adult.resolve() / f"{name}.csv", ADULT, "salary-class") for name in names]
        results = [compared(work, options.rounds) for work in works]
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-anonymity.json").write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results, options.rounds))


if __name__ == "__main__":
    main()
