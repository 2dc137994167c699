"""Presidio's own tests of its recognizers, and what the detectors find in their texts.

The tests are tables: a text, how many hits there are to be and where, and often between which scores. They are read
from a checkout of Presidio's repository (https://github.com/microsoft/presidio) as syntax; none of its code is imported
or run, and none of it is kept here. A case is one cell by itself. It is found when every place that its table names is,
and false when something of its entity is found where its table says that there is nothing, or beside the places named.
A case that is not to score 0.5 is what Presidio itself takes for a guess, and is counted apart.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks.privacy import ours, rival
from benchmarks.privacy.scores import wilson
from tasks.core.detectors.detection import Detection
from tasks.core.detectors.entities import ENTITIES
from tasks.core.detectors.search import hits_in
from tasks.core.detectors.spans import spans

OTHER_NAMES = {
    **dict.fromkeys((f"{country}_PASSPORT" for country in ("US", "UK", "DE", "ES", "IT", "IN", "KR")), ("PASSPORT",)),
    **dict.fromkeys(("US_DRIVER_LICENSE", "UK_DRIVING_LICENCE", "IT_DRIVER_LICENSE"), ("DRIVER_LICENSE",)),
    "ES_NIE": ("ES_NIF",),
    "FI_PERSONAL_IDENTITY_CODE": ("FI_HETU",),
    "DK_CPR_NUMBER": ("DK_CPR",),
    "API_KEY": (
        "API_TOKEN", "CREDENTIAL", "AWS_ACCESS_KEY", "GITHUB_TOKEN", "GOOGLE_API_KEY", "SLACK_TOKEN", "JWT",
    ),
}  # fmt: skip
"""What Lintas calls entities that Presidio calls otherwise."""

_COUNTS, _PLACES = ("expected_len",), ("expected_positions", "expected_position", "expected_res")
_SCORES = ("expected_score_ranges", "expected_scores", "expected_score", "score")
_BY_HEADER = {"PASSPORT", "DRIVER_LICENSE"}
_MOST_REPEATED = 1_000
_SURE = 0.5

Place = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A text of a table, and what Presidio is to find in it.

    Args:
        entity: Presidio's name.
        text: The text.
        count: How many hits there are to be.
        places: Where, if the table says so: start and end in characters.
        score: The highest score that the table allows; 0 where it cannot be read.
    """

    entity: str
    text: str
    count: int
    places: tuple[Place, ...]
    score: float

    @property
    def names(self) -> tuple[str, ...]:
        """What Lintas calls the entity."""
        return OTHER_NAMES.get(self.entity, (self.entity,))

    @property
    def group(self) -> str:
        """Under what it is counted."""
        return self.entity if not self.count or self.score >= _SURE else f"{self.entity}, below {_SURE}"


@dataclass(frozen=True)
class Answer:
    """What one way of searching made of a case: whether all was found, and whether something was that is not there."""

    found: bool
    false: bool


def read(checkout: Path) -> tuple[list[Case], int]:
    """The cases of entities that Lintas knows, in order, and how many rows of their tables could not be read."""
    files = sorted((checkout / "presidio-analyzer" / "tests").glob("test_*_recognizer.py"))
    rows = [row for file in files for row in _rows(ast.parse(file.read_text()))]
    if not rows:
        raise SystemExit(
            f"{checkout} has no tests of recognizers; --presidio names a checkout of Presidio's repository"
        )
    return [row for row in rows if row], rows.count(None)


def _rows(tree: ast.Module) -> Iterator[Case | None]:
    known, entity = _constants(tree), _entity(tree)
    for function, columns, rows in _tables(tree):
        for row in rows:
            try:
                made = literal(row, known)
                cells = dict(zip(columns, made if len(columns) > 1 else (made,), strict=True))
                named = cells.get("entities", (entity,))[0]
                if named in OTHER_NAMES or named in ENTITIES:
                    yield _case(named, cells, function, known)
            except ValueError:
                yield None


def _tables(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, list[str], list[ast.expr]]]:
    """The tests that have tables, the names of their columns, and their rows."""
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for mark in function.decorator_list:
            match mark:
                case ast.Call(ast.Attribute(attr="parametrize"), [ast.Constant(str() as names), ast.List(rows)]):
                    yield function, [name.strip() for name in names.split(",")], rows
                case _:
                    pass


def _case(entity: str, cells: Mapping[str, Any], function: ast.FunctionDef, known: Mapping[str, Any]) -> Case:
    text, places = next(iter(cells.values())), _first(cells, _PLACES) or ()
    if any(name in cells for name in (*_COUNTS, *_PLACES)):
        count = _first(cells, _COUNTS)
        count = len(places) if count is None else count
    elif _finds_nothing(function):
        count = 0
    else:
        raise ValueError("the table does not say what is to be found")
    if places and isinstance(places[0], int):
        places = (places,)
    stated = _numbers(_first(cells, _SCORES))
    score = max(stated) if stated else _score_of(function, known)
    return Case(entity, text, count, places if count else (), score)


def literal(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """The value of a literal, of texts put together of literals, of a constant of the module, or of its length.

    Raises:
        ValueError: It is something else.
    """
    match node:
        case ast.Name(name) if name in known:
            return known[name]
        case ast.Tuple(parts) | ast.List(parts):
            return tuple(literal(part, known) for part in parts)
        case ast.BinOp(left, ast.Add(), right):
            return literal(left, known) + literal(right, known)
        case ast.BinOp(left, ast.Mult(), ast.Constant(int() as times)) if times <= _MOST_REPEATED:
            return literal(left, known) * times
        case ast.Call(ast.Name("len"), [part]):
            return len(literal(part, known))
        case ast.JoinedStr(parts):
            return "".join(str(literal(part, known)) for part in parts)
        case ast.FormattedValue(part, -1, None):
            return literal(part, known)
        case _:
            return ast.literal_eval(node)


def _constants(tree: ast.Module) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], value):
                try:
                    known[name] = literal(value, known)
                except ValueError:
                    continue
            case _:
                pass
    return known


def _entity(tree: ast.Module) -> str:
    """What the fixture `entities` answers."""
    for node in tree.body:
        match node:
            case ast.FunctionDef("entities", body=[*_, ast.Return(ast.List([ast.Constant(str() as name)]))]):
                return name
            case _:
                pass
    return ""


def _finds_nothing(function: ast.FunctionDef) -> bool:
    """Whether the test says of every text that there is nothing in it."""
    tested = [ast.unparse(node.test) for node in ast.walk(function) if isinstance(node, ast.Assert)]
    return len(tested) == 1 and (tested[0].endswith("== []") or tested[0] == "len(results) == 0")


def _score_of(function: ast.FunctionDef, known: Mapping[str, Any]) -> float:
    for node in ast.walk(function):
        match node:
            case ast.Call(ast.Name("assert_result"), [*_, ast.Name(name)]):
                return 1.0 if name == "max_score" else float(known.get(name, 0.0))
            case _:
                pass
    return 0.0


def _first(cells: Mapping[str, Any], columns: tuple[str, ...]) -> Any:
    return next((cells[name] for name in columns if name in cells), None)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, (int, float)):
        return [float(value)]
    if value == "max":
        return [1.0]
    return [number for part in value for number in _numbers(part)] if isinstance(value, tuple) else []


def by_hits(cases: list[Case], detection: Detection) -> list[Answer]:
    """What passes its checks."""
    return [_answer(case, [(at, at + len(piece)) for piece in _valid(case, detection) for at in _starts(case, piece)])
            for case in cases]  # fmt: skip


def _valid(case: Case, detection: Detection) -> set[str]:
    pieces: set[str] = set()
    for each in hits_in(pl.Series([case.text]), detection):
        if each.entity in case.names:
            pieces.update(each.found.text.gather(each.which[each.valid]).to_list())
    return pieces


def _starts(case: Case, piece: str) -> Iterator[int]:
    at = case.text.find(piece)
    yield at
    while at >= 0 and (at := case.text.find(piece, at + 1)) >= 0:
        yield at


def by_spans(cases: list[Case]) -> list[Answer]:
    """What `lintas scan --spans` tells of: each case is the only cell of a column whose name says nothing."""
    table = pa.table({f"c{number}": [case.text] for number, case in enumerate(cases)})
    store, manifest, _ = ours.stored(table, 1)
    told: dict[int, list[Place]] = {}
    for span in spans(store, ours.URI, manifest):
        number = int(span["column"][1:])
        if span["entity"] in cases[number].names:
            told.setdefault(number, []).append((span["start"], span["end"]))
    return [_answer(case, told.get(number, [])) for number, case in enumerate(cases)]


def _answer(case: Case, hits: list[Place]) -> Answer:
    """What hits of the case's entity mean: one is of a place when it stands in it, or it in the hit."""

    def touching(place: Place, others: Iterable[Place]) -> bool:
        start, end = place
        return any((a <= start and end <= b) or (start <= a and b <= end) for a, b in others)

    if case.places:
        found = all(touching(place, hits) for place in case.places)
        return Answer(found, any(not touching(hit, case.places) for hit in hits))
    return Answer(bool(hits) and case.count > 0, bool(hits) and not case.count)


def by_presidio(cases: list[Case]) -> tuple[str, list[Answer | None]]:
    """What Presidio's analyzer for English finds with a score of 0.5, and its version; None of what it does not know.

    Its answer is the entities of a cell, without places.
    """
    told = rival.run({"cases": [case.text for case in cases]}, sorted({case.entity for case in cases}))
    seen = told.above(_SURE)["cases"]
    return told.version, [
        Answer(case.entity in cell and case.count > 0, case.entity in cell and not case.count)
        if case.entity in told.entities
        else None
        for case, cell in zip(cases, seen, strict=True)
    ]


def _reason(case: Case, detection: Detection) -> str:
    if _BY_HEADER & set(case.names):
        return "known by its column's name alone"
    seen = any(each.entity in case.names for each in hits_in(pl.Series([case.text]), detection))
    return "check fails" if seen else "written form not known"


def report(checkout: Path, detection: Detection) -> tuple[list[str], list[dict[str, object]]]:
    """Lines of a table, and the same with every miss for JSON."""
    cases, unread = read(checkout)
    version, theirs = by_presidio(cases) if rival.PYTHON.exists() else ("not installed", [None] * len(cases))
    answers = {"a valid hit": by_hits(cases, detection), "scan --spans": by_spans(cases), "Presidio": theirs}
    ways = " | ".join(answers)
    lines = [
        f"Presidio's tests of its recognizers: {len(cases)} cases; {unread} rows of its tables say no place or are no "
        f"literals. Presidio {version} as it is for English, from 0.5 on, without places; - for what it does not know.",
        "",
        f"| Presidio's entity | cases | {ways} | cases with none | {ways} | misses |",
        f"| --- | --- | {'--- | ' * 3}--- | {'--- | ' * 3}--- |",
    ]
    rows: list[dict[str, object]] = []
    for group in sorted({case.group for case in cases}):
        mine = [number for number, case in enumerate(cases) if case.group == group]
        right, wrong = ([n for n in mine if bool(cases[n].count) == there] for there in (True, False))
        found = {way: _count(each, right, "found") for way, each in answers.items()}
        false = {way: _count(each, mine, "false") for way, each in answers.items()}
        missed = [cases[n] for n in right if not answers["a valid hit"][n].found]
        extra = [cases[n] for n in mine if answers["a valid hit"][n].false]
        why = {case.text: _reason(case, detection) for case in missed}
        shown = ", ".join(f"{count} {reason}" for reason, count in Counter(why.values()).items())
        low, high = wilson(found["a valid hit"] or 0, len(right))
        cells = [_shown(found[way], len(right)) for way in answers]
        cells[0] += f" ({low:.2f} to {high:.2f})" if right else ""
        lines.append(
            f"| {group} | {len(right)} | {' | '.join(cells)} | {len(wrong)} | "
            f"{' | '.join(_shown(false[way], len(mine)) for way in answers)} | {shown} |"
        )
        rows.append({
            "corpus": "presidio", "entity": group, "right": len(right), "found": found, "recall_95": [low, high],
            "wrong": len(wrong), "false": false, "missed": why, "taken": [case.text for case in extra],
        })  # fmt: skip
    return lines, rows


def _count(answers: list[Answer] | list[Answer | None], which: list[int], what: str) -> int | None:
    given = [answer for number in which if (answer := answers[number])]
    return sum(getattr(answer, what) for answer in given) if given or not which else None


def _shown(count: int | None, of: int) -> str:
    return "-" if count is None or not of else str(count)
