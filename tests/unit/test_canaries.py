"""Canaries: values planted in everything that can go wrong in a dataset, looked for in everything that Lintas says.

The traceback of every error that ends a command counts too, with the errors behind it: a flow's log shows those.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import sqlite3
import traceback
import zipfile
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import registry
from tasks.core.errors import LintasError
from tests.unit.test_quarantine import Desk

MAIL, NAME, CARD, KEY = "zebedee.canary@example.org", "Zebedee Canarybird", "4532015112830366", "AKIAZEBEDEECANARY7Q1"
command = import_module("deployments.cli.main")

CANARIES = [b"zebedee", b"Zebedee", b"canary", b"Canary", CARD.encode(), b"CANARY7Q1"]
ROW = f'1,{MAIL},"{NAME}",{CARD},1980-02-30,{KEY}\n'
HEADER = "id,contact_email,full_name,card,birth_date,note\n"
TROUBLE = {
    "ragged.csv": HEADER + ROW + f"2,{MAIL},{CARD}\n" + f'3,"{MAIL}\n',
    "no-header.csv": ROW * 3,
    "mixed.csv": HEADER + "1,1,1,1,1980-02-01,x\n" * 700 + f"1,1,1,1,{MAIL},x\n",
    "broken.jsonl": json.dumps({"contact_email": MAIL}) + f'\n{{"contact_email": "{MAIL}\n{{"{MAIL}": {CARD}}}\n',
    "twice.json": f'{{"{MAIL}": 1, "{MAIL}": 2}}',
    "deep.json": "[" * 3000 + f'"{MAIL}"' + "]" * 3000,
    "log.txt": f"user {MAIL} ({NAME}) paid with {CARD}, key {KEY}\n" * 3,
    f"of-{MAIL}.csv": HEADER + ROW,
}  # fmt: skip


def table() -> pa.Table:
    return pa.table({MAIL: [1, 2], "contact_email": [MAIL, None], "born": [NAME, CARD]})


def binaries() -> dict[str, bytes]:
    whole = io.BytesIO()
    pq.write_table(table(), whole, compression="none")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr(f"{MAIL}.csv", HEADER + ROW)
        members.writestr("x.csv", f"{MAIL}\x00\xff{CARD}")
    damaged = bytearray(whole.getvalue())
    damaged[40:60] = b"\xff" * 20
    return {
        "whole.parquet": whole.getvalue(),
        "cut.parquet": whole.getvalue()[:-20],
        "damaged.parquet": bytes(damaged),
        "latin.csv": (HEADER + ROW).encode() + NAME.encode() + b"\xe9\xff,x\n",
        "model.pkl": pickle.dumps({"users": [MAIL, NAME, CARD]}),
        "members.zip": archive.getvalue(),
        "cut.avro": b"Obj\x01" + MAIL.encode() + b"\x00" * 9,
        "t.csv.gz": b"\x1f\x8b\x08\x00" + MAIL.encode(),
    }


class Watched(Desk):
    """A desk that keeps every log record and the tracebacks behind every error."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        super().__init__(root, monkeypatch, capfd)
        self.tracebacks: list[str] = []
        told = command.report_error
        monkeypatch.setenv("HOME", str(root / "home"))
        monkeypatch.setenv("PREFECT_HOME", str(root / "home" / "prefect"))

        def report(error: LintasError) -> int:
            self.tracebacks += traceback.format_exception(error)
            return told(error)

        monkeypatch.setattr(command, "report_error", report)
        folder = root / "near" / "b" / "d"
        for path in folder.iterdir():
            path.unlink()
        for name, content in {**{name: text.encode() for name, text in TROUBLE.items()}, **binaries()}.items():
            (folder / name).write_bytes(content)

    def asks(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and all that the command said."""
        registry.installation.cache_clear()
        self.patch.setattr("sys.argv", ["lintas", *arguments])
        with pytest.raises(SystemExit) as ended:
            command.main()
        said = self.capfd.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Everything that a command left beside the data, by its place.

        Staged copies are data. The journal's keys are the objects' addresses, and it is nothing that anybody is shown.
        """
        state = self.root / "state"
        for path in [*state.rglob("*"), *(self.root / "home").rglob("*")]:
            if path.is_file() and not path.is_relative_to(state / "staging") and "sqlite" not in path.name:
                yield str(path.relative_to(self.root)), path.read_bytes()
        with closing(sqlite3.connect(state / "records.sqlite")) as records:
            for (name,) in records.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'journal'"):
                yield f"records: {name}", str(records.execute(f"SELECT * FROM {name}").fetchall()).encode()


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[Watched]:
    caplog.set_level(logging.DEBUG)
    yield Watched(tmp_path, monkeypatch, capfd)
    registry.installation.cache_clear()


def rule(action: str, *entities: str, **more: Any) -> dict[str, Any]:
    return {"name": f"{action} {entities[0]}", "entities": list(entities), "action": action, **more}


MOVE = ("move", "near://b/d", "far://b/d", "--policy", "p")
TABLES = (*MOVE, "--include", "*.csv")
WITH_HEADER = (*TABLES, "--exclude", "no-header.csv")
TREAT = [rule("tokenise", "EMAIL_ADDRESS"), rule("mask", "CREDIT_CARD"), rule("replace", "PERSON")]
ATTEMPTS: dict[str, tuple[int, dict[str, Any], tuple[str, ...]]] = {
    "scanned": (0, {"rules": []}, ("scan", "near://b/d", "--policy", "p")),
    "scanned for JSON": (0, {"rules": []}, ("scan", "near://b/d", "--policy", "p", "--json")),
    "scanned in part": (0, {"detection": {"mode": "sample", "parts": 3}}, ("scan", "near://b/d", "--policy", "p")),
    "refused": (3, {"defaults": {"finding": "refuse"}, "rules": []}, MOVE),
    "treated but for what cannot be": (3, {"defaults": {"unreadable": "refuse"}, "rules": TREAT}, MOVE),
    "shifted": (3, {"rules": [rule("shift_dates", "DATE_OF_BIRTH", options={"by": "id"})]}, TABLES),
    "kept in form": (3, {"rules": [rule("format_preserve", "*")]}, TABLES),
    "held": (3, {"rules": [rule("quarantine", "*")]}, MOVE),
    "held in part": (0, {"rules": [rule("quarantine", "EMAIL_ADDRESS", columns=["contact_email"])]}, WITH_HEADER),
    "asked to be many": (
        3, {"anonymity": [{"paths": ["*.csv"], "quasi_identifiers": ["contact_email", "birth_date"], "k": 3}]}, MOVE,
    ),
    "made coarser": (
        3, {"anonymity": [{
            "paths": ["*.csv"], "quasi_identifiers": ["birth_date", "full_name"], "k": 2, "suppress_up_to": 0.5,
            "generalise": {"birth_date": {"dates": ["month", "year"]}, "full_name": {"keep": [2, 0]}},
        }]}, MOVE,
    ),
    "expected to be otherwise": (
        3, {"quality": [{"expectation": "expect_column_values_to_be_between",
                      "kwargs": {"column": "distinct", "min_value": 500}}]}, MOVE,
    ),
    "converted": (2, {}, (*TABLES, "--format", "parquet")),
    "compressed": (0, {}, (*MOVE, "--compress", "zstd")),
    "searched for names": (
        0, {"detection": {"names_in_text": True}, "rules": [rule("replace", "PERSON")]},
        WITH_HEADER,
    ),
}  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_planted_value_stands_in_nothing_that_is_said_or_kept(
    desk: Watched, caplog: pytest.LogCaptureFixture, attempt: str
) -> None:
    expected, changes, arguments = ATTEMPTS[attempt]
    desk.policy(**{"rules": []} | changes)
    code, said = desk.asks(*arguments)
    assert code == expected, said
    everything = {"the command": said.encode(), "the logs": caplog.text.encode()}
    everything |= {"the errors": "".join(desk.tracebacks).encode()}
    everything |= dict(desk.kept())
    assert {place: canary for place, content in everything.items() for canary in CANARIES if canary in content} == {}
