"""Treated copies in the staging area: gone when the move has ended, there while anybody needs them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows.moving import Moved, move_to_all, options_of
from tasks.core.conversion import Conversion
from tasks.core.errors import LintasError, PolicyViolation, Retryable
from tasks.registry import installation

EMAILS = [f"person{at}@example.org" for at in range(40)]
SOURCE, FAR, FARTHER = "near://bench/people", "far://lake/people", "far://lake/others"
LEAVE = {"name": "e-mail", "entities": ["EMAIL_ADDRESS"], "action": "tokenise"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two clouds that are directories, a dataset on one of them, and a policy that has it treated."""
    cloud: dict[str, Any] = {"provider": "onprem", "jurisdiction": "EU"}
    config = {
        "clouds": {name: cloud | {"options": {"root": str(tmp_path / name)}} for name in ("near", "far")},
        "gate": {"signing_key": "env:STAGING_KEY", "pseudonym_key": "env:STAGING_KEY"},
        "state_dir": str(tmp_path / "state"),
        "policies_dir": str(tmp_path),
    }
    (tmp_path / "lintas.yaml").write_text(yaml.safe_dump(config))
    policy = {"version": 1, "name": "t", "residency": {"allowed": ["EU"]}, "defaults": {"finding": "allow"}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(policy | {"rules": [LEAVE]}))
    (tmp_path / "far").mkdir()
    objects = tmp_path / "near" / "bench" / "people"
    objects.mkdir(parents=True)
    for part in range(2):
        rows = {"contact_email": EMAILS[part * 20 :][:20], "n": list(range(20))}
        pq.write_table(pa.table(rows), objects / f"part-{part}.parquet")
    monkeypatch.setenv("LINTAS_CONFIG", str(tmp_path / "lintas.yaml"))
    monkeypatch.setenv("STAGING_KEY", "k" * 32)
    installation.cache_clear()
    yield tmp_path
    installation.cache_clear()


def moved(*destinations: str) -> list[Moved | LintasError]:
    options = options_of(False, "10%", [], [], "digest")
    return move_to_all(SOURCE, destinations or (FAR,), "t", options, Conversion())


def one(*destinations: str) -> Moved:
    (found,) = moved(*destinations)
    assert isinstance(found, Moved), found
    return found


def staged(folder: Path) -> list[Path]:
    return [path for path in (folder / "state" / "staging").rglob("*.parquet") if ".lintas" not in str(path)]


def locks(folder: Path) -> list[Path]:
    return list((folder / "state" / "staging-locks").iterdir())


def arrived(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "far" / "lake" / "people").glob("*.parquet")}


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("flows.moving.copy_cleared", raising)


def test_a_copy_is_gone_when_its_move_has_ended_and_the_next_one_looks_at_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = one()
    tokens = pq.read_table(folder / "far" / "lake" / "people" / "part-0.parquet")["contact_email"].to_pylist()
    assert all(token.startswith("tok_") for token in tokens)
    assert (staged(folder), locks(folder)) == ([], [])
    with monkeypatch.context() as patched:
        patched.setattr("tasks.core.detectors.scan.scan", lambda *_, **__: pytest.fail("it was scanned again"))
        again = one()
    assert (again.receipt.digest, len(again.receipt.copied)) == (first.receipt.digest, 0)


def test_what_was_cleared_before_leaves_by_a_process_that_loads_nothing_which_reads_tables() -> None:
    one()
    again = f"""
import sys
from flows.moving import move_to_all, options_of
from tasks.core.conversion import Conversion
(moved,) = move_to_all("{SOURCE}", ["{FAR}"], "t", options_of(False, "10%", [], [], "digest"), Conversion())
assert not moved.receipt.copied
print(*sys.modules, file=sys.__stdout__)
"""
    done = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"tasks.privacy", "tasks.core.transfer"} <= loaded
    assert loaded.isdisjoint({"prefect", "polars", "cryptography", "pyarrow.parquet", "tasks.core.detectors.scan"})


def test_what_is_missing_at_the_destination_is_treated_anew_and_is_the_same(folder: Path) -> None:
    first = one()
    before = arrived(folder)
    (folder / "far" / "lake" / "people" / "part-1.parquet").unlink()
    again = one()
    assert (again.receipt.digest, len(again.receipt.copied)) == (first.receipt.digest, 1)
    assert arrived(folder) == before
    assert staged(folder) == []


def test_a_move_that_failed_leaves_its_copy_and_the_next_one_sends_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        fail(patched, Retryable("the store is away", "try again"))
        (failed,) = moved()
    assert isinstance(failed, Retryable)
    left = {path.name: path.read_bytes() for path in staged(folder)}
    assert len(left) == 2
    with monkeypatch.context() as patched:
        patched.setattr("tasks.core.detectors.scan.scan", lambda *_, **__: pytest.fail("it was scanned again"))
        one()
    assert arrived(folder) == left
    assert (staged(folder), locks(folder)) == ([], [])


def test_a_copy_that_was_refused_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, PolicyViolation("no", "ask"))
    (refused,) = moved()
    assert isinstance(refused, PolicyViolation)
    assert staged(folder) == []


def test_two_destinations_of_a_cloud_leave_nothing_behind(folder: Path) -> None:
    first, second = moved(FAR, FARTHER)
    assert isinstance(first, Moved)
    assert isinstance(second, Moved)
    assert first.receipt.digest == second.receipt.digest
    assert staged(folder) == []


USER = """if True:
    import sys
    from tasks.core.dataset import DatasetURI
    from tasks.staging import staged_copies, use
    with staged_copies() as staged:
        use(DatasetURI.parse(sys.argv[1]))
        print("in use", flush=True)
        sys.stdin.read()
"""


def test_a_copy_that_another_process_uses_stays_until_that_one_ends(folder: Path) -> None:
    uri = str(one().receipt.source)
    user = subprocess.Popen(
        [sys.executable, "-c", USER, uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ.copy()
    )
    with user:
        assert user.stdin is not None
        assert user.stdout is not None
        assert user.stdout.readline() == b"in use\n"
        assert str(one(FARTHER).receipt.source) == uri
        assert len(staged(folder)) == 2
        user.stdin.close()
        assert user.wait(60) == 0
    assert (staged(folder), locks(folder)) == ([], [])


def test_what_a_killed_process_left_is_removed_a_day_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        fail(patched, Retryable("away", "try again"))
        moved()
    (uri,) = {path.parent for path in staged(folder)}
    old = folder / "state" / "staging" / "far" / "another" / "one"
    old.mkdir(parents=True)
    (old / "x.parquet").write_bytes(b"of a version without locks")
    user = subprocess.Popen(
        [sys.executable, "-c", USER, f"staging://far/{uri.parent.name}/{uri.name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ.copy(),
    )
    with user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"in use\n"
        day_ago = time.time() - 25 * 3600
        for path in (*locks(folder), old):
            os.utime(path, (day_ago, day_ago))
        (folder / "near" / "bench" / "people" / "part-1.parquet").unlink()
        one(
            FARTHER
        )  # Another dataset by now: it leaves the first one's copy alone, which is in use, and not the old one.
        assert {path.parent for path in staged(folder)} == {uri}
        user.kill()
    one(FARTHER)
    assert (staged(folder), locks(folder)) == ([], [])
