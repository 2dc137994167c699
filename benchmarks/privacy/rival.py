"""Presidio's batch analyzer on the same cells, without a language model.

As a module it is run by the interpreter of Presidio's own environment, with cells and answers as JSON.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "bench" / "bin" / "python"


@dataclass(frozen=True)
class RivalRun:
    """What Presidio took and found.

    Args:
        version: Presidio's.
        entities: Those that both know, all switched on.
        rows: How many rows it was given.
        cpu_s: The processor time it needed.
        found: By column, for each row the entities with their best score.
    """

    version: str
    entities: list[str]
    rows: int
    cpu_s: float
    found: dict[str, list[dict[str, float]]]

    def above(self, threshold: float) -> dict[str, list[set[str]]]:
        """The entities whose score is at least so high."""
        return {
            column: [{entity for entity, score in cell.items() if score >= threshold} for cell in cells]
            for column, cells in self.found.items()
        }


def run(columns: dict[str, list[Any]], entities: list[str]) -> RivalRun:
    """Analyze columns of text in Presidio's environment, with those of the entities switched on that it knows."""
    work = json.dumps({"columns": columns, "entities": entities})
    done = subprocess.run(
        [PYTHON, "-m", "benchmarks.privacy.rival"], input=work, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"Presidio did not run:\n{done.stderr[-2000:]}")
    return RivalRun(**json.loads(done.stdout))


def joined(parts: list[RivalRun]) -> RivalRun:
    """Answers on one part of the rows after the other, as one."""
    return replace(
        parts[0],
        rows=sum(part.rows for part in parts),
        cpu_s=sum(part.cpu_s for part in parts),
        found={name: [cell for part in parts for cell in part.found[name]] for name in parts[0].found},
    )


def analyzer(wanted: list[str]) -> tuple[Any, list[str]]:
    """Presidio with all its recognizers that need no model, and those of the entities that it knows."""
    from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NoOpNlpEngine

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    engine = NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}])
    engine.load()
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
    whole = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
    return BatchAnalyzerEngine(whole), sorted(set(whole.get_supported_entities("en")) & set(wanted))


def analyze(columns: dict[str, list[Any]], wanted: list[str]) -> RivalRun:
    """What Presidio finds, and the processor time without its start."""
    batch, entities = analyzer(wanted)
    list(batch.analyze_dict({name: cells[:2] for name, cells in columns.items()}, language="en", entities=entities))
    found: dict[str, list[dict[str, float]]] = {}
    started = time.process_time()
    for result in batch.analyze_dict(columns, language="en", entities=entities):
        cells: list[dict[str, float]] = []
        for hits in result.recognizer_results:
            best: dict[str, float] = {}
            for hit in hits:
                best[hit.entity_type] = max(hit.score, best.get(hit.entity_type, 0.0))
            cells.append(best)
        found[result.key] = cells
    spent = time.process_time() - started
    return RivalRun(version("presidio-analyzer"), entities, len(next(iter(columns.values()))), spent, found)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    sys.stdout.write(json.dumps(asdict(analyze(asked["columns"], asked["entities"]))))
