"""`lintas reidentify`: what was encrypted comes back to the holder of the key, and its canaries stand nowhere else."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from deployments.cli.main import main
from tasks import registry
from tasks.core.policy import Action, ActionOptions
from tasks.core.privacy import ColumnTreatment
from tasks.core.pseudonym_key import PseudonymKey
from tasks.core.sealed_values import Seal
from tasks.core.treatments import treat_column

CANARIES = [f"canary{at}@example.org" for at in range(5)]
SEALED = [Seal(PseudonymKey("k", b"p" * 32), "customer", "far").seal(value) for value in CANARIES]
ASK = ("--domain", "customer", "--to", "far", "--reason", "fraud case 17")


class Desk:
    """The command in this process, over two clouds that are directories."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self.patch, self.capfd = root, monkeypatch, capfd
        cloud = {"provider": "onprem", "jurisdiction": "EU", "options": {"root": str(root)}}
        gate = {"signing_key": "env:SIGNING", "pseudonym_key": "env:PSEUDONYM"}
        config = {"clouds": {"far": cloud, "other": cloud}, "gate": gate, "state_dir": str(root / "state")}
        (root / "lintas.yaml").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("LINTAS_CONFIG", str(root / "lintas.yaml"))
        monkeypatch.setenv("PSEUDONYM", "p" * 32)

    def asks(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Exit code, standard output and standard error of `lintas reidentify`."""
        registry.installation.cache_clear()
        self.patch.setattr(sys, "argv", ["lintas", "reidentify", *arguments])
        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stdout.flush()
        said = self.capfd.readouterr()
        assert "Traceback" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    def audited(self) -> list[dict[str, Any]]:
        """What the audit log says of all attempts, after a look for canaries and ciphertexts in all that was kept."""
        facts = [dict(record.facts) for record in registry.installation().records.audit.records()]
        kept = [path for path in (self.root / "state").rglob("*") if path.is_file()]
        assert kept
        assert not [path for path in kept if b"canary" in path.read_bytes() or b"enc_" in path.read_bytes()]
        return facts


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    yield Desk(tmp_path, monkeypatch, capfd)
    registry.installation.cache_clear()


def test_the_holder_of_the_key_gets_the_values_and_the_audit_log_the_reason(desk: Desk) -> None:
    column = "".join(f'"{text}"\n' for text in SEALED)
    assert desk.asks(*ASK, given=f"{column}\n{SEALED[0]}\n") == (0, "\n".join([*CANARIES, "", CANARIES[0], ""]), "")
    file = desk.root / "asked.txt"
    file.write_text("\n".join(SEALED[:2]))
    code, out, _ = desk.asks(str(file), *ASK, "--json")
    assert (code, json.loads(out)) == (0, {"count": 2, "values": CANARIES[:2]})
    records = desk.audited()
    assert [record["count"] for record in records] == [6, 2]
    assert {(record["decision"], record["domain"], record["reason"]) for record in records} == {
        ("opened", "customer", "fraud case 17")
    }


@pytest.mark.parametrize(
    ("change", "key", "code", "kind", "said"),
    [
        (("--domain", "EMAIL_ADDRESS"), "p" * 32, 4, "IntegrityError", "line 1 was altered"),
        (("--to", "other"), "p" * 32, 4, "IntegrityError", "line 1 was altered"),
        ((), "q" * 32, 6, "Denied", "retired_pseudonym_keys"),
        ((), "", 6, "Denied", "PSEUDONYM is not set"),
        ((), "short", 2, "Invalid", "fewer than 16 bytes"),
        (("--reason", f"ask {CANARIES[0]}"), "p" * 32, 2, "Invalid", "holds one of the values"),
    ],
)
def test_whoever_lacks_something_gets_nothing(
    desk: Desk, change: tuple[str, ...], key: str, code: int, kind: str, said: str
) -> None:
    desk.patch.setenv("PSEUDONYM", key)
    ended, out, error = desk.asks(*ASK, *change, given="\n".join(SEALED))
    assert (ended, out) == (code, "")
    assert said in error
    assert "canary" not in error
    (record,) = desk.audited()
    assert (record["decision"], record["why"], record["count"]) == ("refused", kind, 5)
    assert not {"domain", "reason"} & set(record)


def test_one_bad_line_keeps_all_values_back(desk: Desk) -> None:
    ended, out, error = desk.asks(*ASK, given="\n".join([*SEALED, "tok_a4veepf4xwabu5pesdqs7l63ee"]))
    assert (ended, out) == (2, "")
    assert "line 6 is a token or a hash, which is one-way" in error


def test_a_retired_key_opens_what_it_encrypted(desk: Desk) -> None:
    desk.patch.setenv("OLD", "p" * 32)
    desk.patch.setenv("PSEUDONYM", "q" * 32)
    desk.patch.setenv("LINTAS_GATE__RETIRED_PSEUDONYM_KEYS", '["env:OLD"]')
    after = Seal(PseudonymKey("k", b"q" * 32), "customer", "far").seal(CANARIES[1])
    assert desk.asks(*ASK, given=f"{SEALED[0]}\n{after}")[:2] == (0, f"{CANARIES[0]}\n{CANARIES[1]}\n")


@pytest.mark.parametrize("given", [CANARIES[0], "0" * 64, "\n", "", "\x00"])
def test_what_is_no_ciphertext_is_refused_and_not_repeated(desk: Desk, given: str) -> None:
    ended, out, error = desk.asks(*ASK, given=given)
    assert (ended, out) == (2, "")
    assert "canary" not in error
    assert "0" * 64 not in error


def test_arguments_are_no_place_for_what_is_asked(desk: Desk) -> None:
    ended, out, error = desk.asks(SEALED[0], *ASK)
    assert (ended, out) == (2, "")
    assert "standard input" in error
    assert SEALED[0] not in error


def test_a_file_that_is_not_there_and_bytes_that_are_no_text_are_said(desk: Desk) -> None:
    assert desk.asks(str(desk.root / "none.txt"), *ASK)[0] == 6
    (desk.root / "bytes").write_bytes(b"\xff\xfe\x00")
    assert desk.asks(str(desk.root / "bytes"), *ASK)[0] == 2


@pytest.mark.parametrize("more", [(), ("--reason", " ")])
def test_a_reason_is_needed(desk: Desk, more: tuple[str, ...]) -> None:
    assert desk.asks("--domain", "customer", "--to", "far", *more, given=SEALED[0])[:2] == (2, "")


def test_moved_dates_come_back_to_who_holds_the_key_and_knows_the_subjects(desk: Desk) -> None:
    dates, subjects = ["1980-02-29", "20211231", "1999/12/31 10:05", ""], ['Doe, "J"', "canary7", "canary7", "canary8"]
    how = ColumnTreatment(
        "*", "born", Action.SHIFT_DATES, ("DATE_OF_BIRTH",), "r", ActionOptions(by="who", max_days=90), "birth"
    )
    keys = PseudonymKey("k", b"p" * 32)
    moved = treat_column(pl.Series([date or None for date in dates]), how, keys, "far", pl.Series(subjects)).to_list()
    assert not set(moved) & set(dates)
    lines = io.StringIO()
    csv.writer(lines).writerows(zip(subjects, (date or "" for date in moved), strict=True))
    ask = ("--domain", "birth", "--to", "far", "--reason", "recall 4", "--moved-within-days", "90")
    assert desk.asks(*ask, given=lines.getvalue()) == (0, "\n".join([*dates, ""]), "")
    for change in (("--domain", "other"), ("--to", "other"), ("--moved-within-days", "91")):
        code, out, _ = desk.asks(*ask, *change, given=lines.getvalue())
        assert (code, out.splitlines() == dates) == (0, False)
    for wrong in ("canary7", "canary7,2020-01-01,x", ",2020-01-01", "canary7,soon"):
        code, out, error = desk.asks(*ask, given=wrong)
        assert (code, out) == (2, "")
        assert "canary" not in error
    assert desk.asks(*ask, "--preserved", given=lines.getvalue())[0] == 2
    records = desk.audited()
    assert [record["decision"] for record in records] == ["opened"] * 4 + ["refused"] * 4
    assert {record["made_by"] for record in records} == {"shift_dates"}
