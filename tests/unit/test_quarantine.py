"""Quarantine: what a policy holds back stays, the rest goes, and only a person's reasoned release changes that."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.cli.main import main
from tasks import registry
from tasks.core.detectors.coverage import Mode
from tasks.core.detectors.scan import scan
from tasks.core.findings import ScanReport

SECRET = "canary4711@example.org"
RULE = {"name": "mail waits", "entities": ["EMAIL_ADDRESS"], "action": "quarantine"}
POLICY: dict[str, Any] = {
    "version": 1,
    "name": "p",
    "residency": {"allowed": ["EU"]},
    "defaults": {"finding": "allow", "unreadable": "quarantine"},
    "rules": [RULE],
}
CLEAN, DIRTY = "id,note\n1,fine\n2,good\n", f"id,note\n1,{SECRET}\n2,good\n"


class Desk:
    """The command in this process, over two clouds that are directories."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self.patch, self.capfd = root, monkeypatch, capfd
        gate = {"signing_key": "env:KEY", "pseudonym_key": "env:KEY"}
        config: dict[str, Any] = {
            "clouds": {
                name: {"provider": "onprem", "jurisdiction": "EU", "options": {"root": str(root / name)}}
                for name in ("near", "far", "other")
            },
            "gate": gate,
            "state_dir": str(root / "state"),
            "policies_dir": str(root),
        }
        (root / "lintas.yaml").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("LINTAS_CONFIG", str(root / "lintas.yaml"))
        monkeypatch.setenv("KEY", "k" * 32)
        for cloud in ("near", "far", "other"):
            (root / cloud / "b").mkdir(parents=True)
        self.policy()
        self.put(**{"a.csv": CLEAN, "b.csv": DIRTY, "c.csv": CLEAN})

    def policy(self, **changes: Any) -> None:
        (self.root / "p.yaml").write_text(yaml.safe_dump(POLICY | changes))

    def put(self, **files: str) -> None:
        (self.root / "near" / "b" / "d").mkdir(exist_ok=True)
        for name, text in files.items():
            (self.root / "near" / "b" / "d" / name).write_text(text)

    def far(self, cloud: str = "far") -> set[str]:
        folder = self.root / cloud / "b" / "d"
        return {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()

    def lintas(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and the JSON on standard output."""
        registry.installation.cache_clear()
        self.patch.setattr(sys, "argv", ["lintas", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self.capfd.readouterr()
        assert "Traceback" not in said.err
        assert SECRET not in said.out + said.err
        return int(ended.value.code or 0), json.loads(said.out)

    def move(self, to: str = "far", *more: str) -> tuple[int, dict[str, Any]]:
        return self.lintas("move", "near://b/d", f"{to}://b/d", "--policy", "p", *more)

    def held(self) -> dict[str, list[str]]:
        """The rules by which each object is held, by its path."""
        _, found = self.lintas("quarantine", "list")
        return {item["path"]: [reason["rule"] for reason in item["reasons"]] for item in found["objects"]}

    def release(self, *more: str, reason: str = "the customer agreed") -> tuple[int, dict[str, Any]]:
        asked = ("--reason", reason, "--by", "Ana", *more)
        return self.lintas("quarantine", "release", "near://b/d", "far://b/d", *asked)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    yield Desk(tmp_path, monkeypatch, capfd)
    registry.installation.cache_clear()


def test_an_object_with_a_quarantined_finding_stays_and_the_rest_goes(desk: Desk) -> None:
    code, moved = desk.move()
    assert (code, moved["objects"], moved["objects_held"], moved["treated"]) == (0, 2, 1, False)
    assert desk.far() == {"a.csv", "c.csv"}
    _, listed = desk.lintas("quarantine", "list", "--dataset", "near://b/d", "--to", "far://b/d")
    (item,) = listed["objects"]
    assert (item["path"], item["state"], item["policy_name"]) == ("b.csv", "held", "p")
    (reason,) = item["reasons"]
    assert (reason["entity"], reason["column"], reason["count"], reason["rule"]) == (
        "EMAIL_ADDRESS", "note", 1, "mail waits",
    )  # fmt: skip


def test_a_release_makes_the_next_move_carry_it_and_the_audit_log_says_who_and_why(desk: Desk) -> None:
    desk.move()
    code, released = desk.release()
    assert (code, [item["path"] for item in released["released"]]) == (0, ["b.csv"])
    code, moved = desk.move()
    assert (code, moved["objects_held"], moved["digest"] == moved["source_digest"]) == (0, 0, True)
    assert desk.far() == {"a.csv", "b.csv", "c.csv"}
    assert desk.held() == {}
    _, log = desk.lintas("audit", "--kind", "quarantine")
    held, let_go = (record["facts"] for record in log["records"])
    assert (held["decision"], held["count"]) == ("held", 1)
    assert (let_go["decision"], let_go["by"], let_go["reason"]) == ("released", "Ana", "the customer agreed")
    assert let_go["objects"] == held["objects"]
    _, verdicts = desk.lintas("audit", "--kind", "verdict")
    assert [record["facts"]["releases"] for record in verdicts["records"]] == [[], [held["objects"][0]["entry"]]]


def test_a_release_is_for_one_destination_and_a_recalled_clearance_knows_of_it(desk: Desk) -> None:
    desk.move("other")
    desk.move()
    desk.release()
    desk.move()
    assert desk.move("other")[1]["objects_held"] == 1
    assert (desk.far("other"), desk.far()) == ({"a.csv", "c.csv"}, {"a.csv", "b.csv", "c.csv"})
    assert desk.move("other")[1]["bytes_sent"] == 0


def test_another_object_or_policy_needs_another_release_and_what_was_mended_leaves_the_list(desk: Desk) -> None:
    desk.move()
    desk.release()
    desk.put(**{"b.csv": DIRTY + "3,another\n"})
    assert desk.move()[1]["objects_held"] == 1
    assert desk.held() == {"b.csv": ["mail waits"]}
    desk.put(**{"b.csv": DIRTY})
    desk.policy(rules=[RULE | {"name": "mail still waits"}])
    assert desk.move()[1]["objects_held"] == 1
    assert desk.held() == {"b.csv": ["mail still waits"]}
    desk.put(**{"b.csv": CLEAN})
    assert desk.move()[1]["objects_held"] == 0
    assert desk.held() == {}


def test_a_release_lifts_no_other_rule(desk: Desk) -> None:
    rules = [RULE, {"name": "mail is masked", "entities": ["EMAIL_ADDRESS"], "action": "mask"}]
    desk.policy(rules=rules)
    desk.move()
    desk.release()
    assert desk.move()[0] == 0
    assert SECRET not in (desk.root / "far" / "b" / "d" / "b.csv").read_text()
    desk.policy(rules=[RULE], residency={"allowed": ["EU"], "by_group": {"contact": ["US"]}})
    desk.move()
    desk.release()
    assert desk.move()[0] == 3


def test_a_layer_that_quarantines_is_stricter_than_one_that_drops_and_milder_than_one_that_refuses(desk: Desk) -> None:
    for action, code, far in (("drop", 0, {"a.csv", "c.csv"}), ("refuse", 3, set[str]())):
        base = POLICY | {"name": "company", "rules": [RULE | {"action": action}]}
        (desk.root / "company.yaml").write_text(yaml.safe_dump(base))
        desk.policy(extends=["company"])
        assert desk.move("far" if action == "drop" else "other")[0] == code
        assert desk.far("far" if action == "drop" else "other") == far


def test_what_cannot_be_read_may_wait_too(desk: Desk) -> None:
    desk.put(**{"b.csv": CLEAN, "broken.parquet": "PAR1 and nothing more"})
    assert desk.move()[1]["objects_held"] == 1
    assert desk.held() == {"broken.parquet": ["defaults.unreadable"]}


def test_a_name_that_is_a_value_is_held_and_listed_without_it(desk: Desk) -> None:
    desk.put(**{"b.csv": CLEAN, f"{SECRET}.csv": CLEAN})
    assert desk.move()[1]["objects_held"] == 1
    assert list(desk.held()) == ["*"]
    assert desk.far() == {"a.csv", "b.csv", "c.csv"}


def test_a_column_that_only_its_name_gives_away_is_held_in_every_object_that_has_it(desk: Desk) -> None:
    desk.policy(rules=[{"name": "no names", "entities": ["PERSON"], "action": "quarantine"}])
    desk.put(**{"a.csv": "last_name\nMiller\nSmith\n", "b.csv": "last_name\nJones\nBrown\n", "c.csv": CLEAN})
    assert desk.move()[1]["objects_held"] == 2
    assert set(desk.held()) == {"a.csv", "b.csv"}


def test_when_everything_is_held_nothing_leaves_and_nothing_is_removed(desk: Desk) -> None:
    desk.put(**{"b.csv": CLEAN})
    desk.move()
    desk.put(**dict.fromkeys(("a.csv", "b.csv", "c.csv"), DIRTY))
    code, said = desk.move("far", "--delete", "--delete-limit", "100%")
    assert (code, desk.far()) == (3, {"a.csv", "b.csv", "c.csv"})
    assert "all 3 objects stay in quarantine" in said["error"]["message"]


def test_a_release_without_a_reason_or_with_a_value_in_it_releases_nothing(desk: Desk) -> None:
    desk.move()
    asked: list[tuple[str, tuple[str, ...], str]] = [
        (" ", (), "the reason is empty"),
        (f"{SECRET} agreed", (), "the reason holds what looks like an e-mail address"),
        ("fine", ("--path", "x*"), "nothing like that"),
        ("fine", ("--by", " "), "nobody is named"),
    ]
    for reason, more, said in asked:
        code, answer = desk.release(*more, reason=reason)
        assert code == (6 if more == ("--path", "x*") else 2)
        assert said in answer["error"]["message"]
    assert list(desk.held()) == ["b.csv"]


def test_no_value_stands_in_anything_that_is_kept(desk: Desk) -> None:
    desk.move()
    desk.release()
    desk.move()
    kept = [path for path in (desk.root / "state").rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("more", [(), ("--compress", "zstd")])
def test_what_is_left_is_looked_at_as_thoroughly_as_the_policy_asks_for(
    desk: Desk, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Mode] = []

    def noted(*args: Any, **kwargs: Any) -> ScanReport:
        report = scan(*args, **kwargs)
        asked.append(report.coverage.mode)
        return report

    for where in ("tasks.core.quarantine", "tasks.core.detectors.scan"):
        monkeypatch.setattr(f"{where}.scan", noted)
    desk.policy(detection={"mode": "schema"})
    desk.put(**{"b.csv": "id,email\n1,x\n"})
    code, moved = desk.move("far", *more)
    assert (code, moved["objects_held"], moved["objects"]) == (0, 1, 2)
    assert asked == [Mode.SCHEMA] * (3 if more else 2)
