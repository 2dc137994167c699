"""`python -m benchmarks.privacy`: the privacy gate against Presidio and against decoding alone; build/bench-gate.json.

The table has twenty columns of invented data and knows what is in each cell. Presidio is given the first rows of it,
with every entity switched on that both know, and its rate is taken for the whole; Lintas searches all rows for all
that it knows. Rates are rows per second of processor time, so that neither gains from threads. The two take turns, and
the ratio is the median of those of the turns, for cores are faster and slower from minute to minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.privacy import ours, rival
from benchmarks.privacy.scores import Score, scores
from benchmarks.privacy.table import ENTITY_COLUMNS, LOOK_ALIKES, make_table
from tasks.core.detectors import native
from tasks.core.detectors.entities import ENTITIES

BUILD = Path(__file__).parents[2] / "build"
LOOK_ALIKE_COLUMNS = ("order_number", "sku")
TURNS = 5


@dataclass(frozen=True)
class Turns:
    """What each turn took.

    Args:
        columns: Lintas' processor seconds by column, of all rows.
        theirs: Presidio's answers on its part of the rows.
    """

    columns: list[dict[str, float]]
    theirs: list[rival.RivalRun]

    @property
    def seconds(self) -> dict[str, float]:
        """Lintas' processor seconds by column; medians."""
        return {name: statistics.median(turn[name] for turn in self.columns) for name in self.columns[0]}

    def rates(self, rows: int) -> list[tuple[float, float]]:
        """Rows a second of processor time in each turn, Lintas' and Presidio's."""
        return [
            (rows / sum(ours.values()), theirs.rows / theirs.cpu_s)
            for ours, theirs in zip(self.columns, self.theirs, strict=True)
        ]


def by_turns(table: Any, names: list[str], rival_rows: int) -> Turns:
    """Search the table and have Presidio analyze a part of its first rows, in turn."""
    turns = Turns([], [])
    cuts = [rival_rows * turn // TURNS for turn in range(TURNS + 1)]
    for start, end in pairwise(cuts):
        turns.columns.append(ours.column_seconds(table))
        part = {name: table[name][start:end].to_pylist() for name in names}
        turns.theirs.append(rival.run(part, list(ENTITIES)))
    return turns


def measure(rows: int, rival_rows: int, seed: int) -> dict[str, Any]:
    """All figures."""
    made = make_table(rows, seed)
    table, labels = made.table, made.labels
    text_mb = {name: table[name].nbytes / 1e6 for name in labels}
    turns = by_turns(table, list(labels), rival_rows)
    seconds, theirs = turns.seconds, rival.joined(turns.theirs)
    store, manifest, packed_bytes = ours.stored(table, 4)
    arrow, alone, both, report = ours.decode_and_scan(store, manifest)
    found = ours.cells_found(table, list(labels))
    entities = sorted({entity for cells in labels.values() for cell in cells for entity in cell})
    first = {name: cells[:rival_rows] for name, cells in labels.items()}
    by_turn = turns.rates(rows)
    rates = dict(zip(("lintas", "presidio"), map(statistics.median, zip(*by_turn, strict=True)), strict=True))
    return {
        "rows": rows,
        "columns": table.num_columns,
        "text_mb": sum(text_mb.values()),
        "parquet_mb": packed_bytes / 1e6,
        "load": os.getloadavg()[0],
        "presidio": {"version": theirs.version, "rows": rival_rows, "entities": theirs.entities},
        "rows_per_cpu_s": rates,
        "times_presidio": statistics.median(mine / other for mine, other in by_turn),
        "times_presidio_by_turn": [mine / other for mine, other in by_turn],
        "search": "native kernel" if native.kernel() else "Python packages alone",
        "arrow_s": arrow.wall_s,
        "arrow_cpu_s": arrow.cpu_s,
        "arrow_ratio": both.wall_s / arrow.wall_s,
        "arrow_cpu_ratio": both.cpu_s / arrow.cpu_s,
        "decode_s": alone.wall_s,
        "decode_and_scan_s": both.wall_s,
        "decode_ratio": both.wall_s / alone.wall_s,
        "decode_cpu_s": alone.cpu_s,
        "decode_and_scan_cpu_s": both.cpu_s,
        "decode_cpu_ratio": both.cpu_s / alone.cpu_s,
        "column_mb_per_cpu_s": {name: text_mb[name] / seconds[name] for name in labels},
        "flagged_share": {name: sum(map(bool, found[name])) / rows for name in LOOK_ALIKES},
        "columns_found": {
            name: sorted({each.entity for each in report.findings if each.column == name and each.confidence >= 0.5})
            for name in table.column_names
        },
        "scores": {
            "lintas": _dicts(scores(found, labels, entities)),
            "lintas_same_rows": _dicts(scores({n: c[:rival_rows] for n, c in found.items()}, first, entities)),
            "presidio": _dicts(scores(theirs.above(0.0), first, entities)),
            "presidio_above_half": _dicts(scores(theirs.above(0.5), first, entities)),
        },
    }  # fmt: skip


def _dicts(of: dict[str, Score]) -> dict[str, dict[str, object]]:
    return {entity: score.as_dict() for entity, score in of.items()}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def markdown(figures: dict[str, Any]) -> str:
    """The figures as tables for docs/benchmarks.md."""
    rates = figures["rows_per_cpu_s"]
    dense = {name: rate for name, rate in figures["column_mb_per_cpu_s"].items() if name in ENTITY_COLUMNS}
    lines = [
        f"{figures['rows']:,} rows x {figures['columns']} columns, {figures['text_mb']:.0f} MB of text, load "
        f"{figures['load']:.1f}, {figures['search']}; "
        f"Presidio {figures['presidio']['version']} on {figures['presidio']['rows']:,} rows.",
        "",
        "| what | measured |",
        "| --- | --- |",
        f"| Lintas, rows a CPU-second | {rates['lintas']:,.0f} |",
        f"| Presidio without NLP, rows a CPU-second | {rates['presidio']:,.0f} |",
        f"| times Presidio (least to most of {TURNS} turns) | {figures['times_presidio']:,.0f} "
        f"({min(figures['times_presidio_by_turn']):,.0f} to {max(figures['times_presidio_by_turn']):,.0f}) |",
        f"| decoding Parquet by Arrow's reader alone by two threads, s (CPU-s) | {figures['arrow_s']:.2f} "
        f"({figures['arrow_cpu_s']:.2f}) |",
        f"| decoding it within bounds by two threads, s (CPU-s) | {figures['decode_s']:.2f} "
        f"({figures['decode_cpu_s']:.2f}) |",
        f"| decoding and scanning by two threads, s (CPU-s) | {figures['decode_and_scan_s']:.2f} "
        f"({figures['decode_and_scan_cpu_s']:.2f}) |",
        f"| the last, times the first (CPU-s) | {figures['arrow_ratio']:.1f} ({figures['arrow_cpu_ratio']:.1f}) |",
        f"| the last, times the second (CPU-s) | {figures['decode_ratio']:.1f} ({figures['decode_cpu_ratio']:.1f}) |",
        f"| dense columns, MB of text a CPU-second, least to most | {min(dense.values()):.0f} to "
        f"{max(dense.values()):.0f} |",
        *(f"| cells of `{name}` flagged | {figures['flagged_share'][name]:.2%} |" for name in LOOK_ALIKE_COLUMNS),
        "",
        "| entity | Lintas recall / precision | Presidio recall / precision | Presidio, scores from 0.5 |",
        "| --- | --- | --- | --- |",
    ]
    for entity, mine in figures["scores"]["lintas"].items():
        cells = [mine, figures["scores"]["presidio"][entity], figures["scores"]["presidio_above_half"][entity]]
        known = entity in figures["presidio"]["entities"]
        shown = [f"{_share(cell['recall'])} / {_share(cell['precision'])}" for cell in cells]
        lines.append(f"| {entity} | {shown[0]} | {shown[1] if known else 'not known'} | {shown[2] if known else ''} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--presidio-rows", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=20_251)
    asked = parser.parse_args()
    figures = measure(asked.rows, asked.presidio_rows, asked.seed)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-gate.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(markdown(figures))


if __name__ == "__main__":
    main()
