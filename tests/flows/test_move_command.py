"""`lintas move` with all its choices, between directories: no server, processes of their own, read back as files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.command import lintas

POLICY = {"version": 1, "name": "open", "residency": {"allowed": ["EU"]}} | {
    "rules": [{"name": "unread", "entities": ["UNREADABLE"], "action": "allow"}]
}


class Site:
    """Three clouds that are directories, with a dataset in the first one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        clouds = {name: self._cloud(name) for name in ("near", "far", "other")}
        config = {
            "clouds": clouds,
            "gate": {"signing_key": "env:SIGNING", "pseudonym_key": "env:PSEUDONYM"},
            "state_dir": str(root / "state"),
            "policies_dir": str(root),
        }
        (root / "lintas.yaml").write_text(yaml.safe_dump(config))
        (root / "open.yaml").write_text(yaml.safe_dump(POLICY))
        for name in ("one.csv", "x/two.csv", "x/three.log"):
            self.write("near", f"raw/data/{name}", "1,2\n")

    def _cloud(self, name: str) -> dict[str, object]:
        (self.root / name).mkdir()
        return {"provider": "onprem", "jurisdiction": "EU", "options": {"root": str(self.root / name)}}

    def write(self, cloud: str, key: str, text: str) -> None:
        path = self.root / cloud / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def holds(self, cloud: str) -> set[str]:
        top = self.root / cloud / "lake/data"
        found = {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}
        return {path for path in found if not path.startswith(".lintas/")}

    def lintas(self, *arguments: str) -> tuple[int, dict[str, object], str]:
        environment = os.environ | {
            "LINTAS_CONFIG": str(self.root / "lintas.yaml"), "SIGNING": "s" * 32, "PSEUDONYM": "p" * 32
        }  # fmt: skip
        done = lintas(*arguments, "--json", env=environment)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_filtered_dataset_moves_and_removals_stay_within_their_limit(site: Site) -> None:
    move = ("move", "near://raw/data", "far://lake/data", "--policy", "open", "--include", "*.csv")
    receipt = site.root / "receipt.jsonl"
    code, moved, said = site.lintas(*move, "--receipt", str(receipt))
    assert (code, moved["objects"]) == (0, 2), said
    assert site.holds("far") == {"one.csv", "x/two.csv"}
    head, *lines = (json.loads(line) for line in receipt.read_text().splitlines())
    assert head["digest"] == moved["digest"]
    assert [line["path"] for line in lines] == ["one.csv", "x/two.csv"]
    assert all(len(line["digest"]) == 64 and line["verified_by"] for line in lines)

    site.write("far", "lake/data/old1", "x")
    site.write("far", "lake/data/old2", "x")
    code, answer, said = site.lintas(*move, "--delete")
    assert (code, "--delete-limit 2" in said) == (2, True), said
    assert "old1" in site.holds("far")
    code, answer, said = site.lintas(*move, "--delete", "--delete-limit", "2")
    assert (code, answer["objects_removed"]) == (0, 2), said
    assert site.holds("far") == {"one.csv", "x/two.csv"}

    site.write("far", "lake/data/one.csv", "9,9\n")
    code, _, said = site.lintas("manifest", "far://lake/data", "--verify")
    assert (code, "1 with other content (first: 'one.csv')" in said) == (4, True), said


def test_several_destinations_have_a_verdict_and_a_receipt_each_and_fail_alone(site: Site) -> None:
    code, answer, said = site.lintas(
        "move", "near://raw/data", "far://lake/data", "nowhere://lake/x", "--policy", "open"
    )
    first, second = answer["moves"]  # type: ignore[misc]
    assert (first["objects_sent"], second["destination"]) == (3, "nowhere://lake/x"), said
    assert "error" in second
    assert (code, "'nowhere' is not a cloud" in said) == (2, True), said
    assert site.holds("far") == {"one.csv", "x/two.csv", "x/three.log"}


def test_a_plan_tells_what_it_would_take_and_moves_nothing(site: Site) -> None:
    code, plan, said = site.lintas("plan", "near://raw/data", "far://lake/data", "--policy", "open")
    assert code == 0, said
    assert (plan["add"], plan["shards"], plan["seconds"], plan["requests_usd"]) == (3, 1, None, 0.0)
    assert not (site.root / "far/lake").exists()
    code, _, said = site.lintas("plan", "near://raw/data", "far://lake/data", "--compare", "name", "--policy", "open")
    assert (code, "'name' is no way to compare" in said) == (2, True), said


def test_a_table_leaves_when_its_rows_hide_in_each_other_and_not_before(site: Site) -> None:
    limits = [{"paths": ["*.csv"], "quasi_identifiers": ["age", "ward"], "k": 2}]
    (site.root / "crowd.yaml").write_text(yaml.safe_dump(POLICY | {"name": "crowd", "anonymity": limits}))
    move = ("move", "near://raw/data", "far://lake/data", "--policy", "crowd", "--include", "*/two.csv")

    site.write("near", "raw/data/x/two.csv", "age,ward\n31,canary-east\n31,canary-east\n,canary-east\n")
    code, _, said = site.lintas(*move)
    assert (code, "canary" in said, site.holds("far")) == (3, False, set()), said
    assert "x/two.csv: k is 1 over age, ward, and at least 2 is wanted (crowd: anonymity[0])" in " ".join(said.split())

    site.write("near", "raw/data/x/two.csv", "age,ward\n31,canary-east\n31,canary-east\n")
    code, _, said = site.lintas(*move)
    assert (code, site.holds("far")) == (0, {"x/two.csv"}), said


@pytest.mark.parametrize("verb", [("scan", "near://raw/data/one.csv"), ("plan", "near://raw/dat", "far://lake/data")])
def test_nothing_is_cleared_by_a_mistyped_prefix(site: Site, verb: tuple[str, ...]) -> None:
    code, answer, said = site.lintas(*verb, "--policy", "open")
    assert (code, f"{verb[1]} holds no objects" in said) == (2, True), said
    assert "cleared" not in said + json.dumps(answer)


def test_a_scan_looks_at_the_objects_that_match(site: Site) -> None:
    code, answer, said = site.lintas("scan", "near://raw/data", "--policy", "open", "--include", "one.csv")
    assert (code, answer["objects"]) == (0, 1), said


@pytest.mark.parametrize("verb", [("scan", "near://raw/data"), ("move", "near://raw/data", "far://lake/data")])
def test_a_policy_must_be_named_by_the_command_or_the_configuration(site: Site, verb: tuple[str, ...]) -> None:
    code, _, said = site.lintas(*verb)
    assert (code, "gate.policy" in said) == (2, True), said
    code, _, said = site.lintas(*verb, "--policy", "opne")
    assert (code, "there is no policy 'opne'" in said, "use one of lintas, open" in said) == (6, True, True), said

    config = yaml.safe_load((site.root / "lintas.yaml").read_text())
    config["gate"]["policy"] = "open"
    (site.root / "lintas.yaml").write_text(yaml.safe_dump(config))
    code, answer, said = site.lintas(*verb)
    assert code == 0, said
    if verb[0] == "move":
        assert answer["policy"] == "open"
