"""The records file: durable, safe from several threads and processes, and plain about what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.core.audit import ChainHead, verify_chain
from tasks.core.errors import Invalid, NotFound, PreconditionFailed, Terminal
from tasks.core.release import Endpoint, Release, ReleaseState, new_release
from tasks.records import Records

NOW = datetime(2026, 11, 5, 10, 0, tzinfo=UTC)
DIGEST = "d" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "records.sqlite"


@pytest.fixture
def records(path: Path):
    with Records(path) as opened:
        yield opened


def in_threads(work, count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Journal


def test_the_journal_knows_exactly_the_version_and_size_it_was_told(records):
    records.journal.record("aws", "raw", "a", "v1", 10, DIGEST)
    assert records.journal.known("aws", "raw", "a", "v1", 10) == DIGEST
    assert records.journal.known("aws", "raw", "a", "v2", 10) is None
    assert records.journal.known("aws", "raw", "a", "v1", 11) is None
    assert records.journal.known("google", "raw", "a", "v1", 10) is None


def test_a_new_version_takes_the_place_of_the_old_one(records):
    records.journal.record("aws", "raw", "a", "v1", 10, DIGEST)
    records.journal.record("aws", "raw", "a", "v2", 12, "e" * 64)
    assert records.journal.known("aws", "raw", "a", "v1", 10) is None
    assert records.journal.known("aws", "raw", "a", "v2", 12) == "e" * 64


def test_the_journal_outlives_a_process_that_dies_without_closing(path):
    program = (
        "import os, sys; from pathlib import Path; from tasks.records import Records\n"
        "journal = Records(Path(sys.argv[1])).journal\n"
        "for n in range(100): journal.record('aws', 'raw', f'k{n}', 'v', n, 'd' * 64)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    with Records(path) as records:
        assert all(records.journal.known("aws", "raw", f"k{n}", "v", n) == DIGEST for n in range(100))


def test_threads_write_the_journal_at_the_same_time(records):
    def write(number: int) -> None:
        for n in range(200):
            records.journal.record("aws", "raw", f"{number}/{n}", "v", n, DIGEST)

    in_threads(write, 6)
    known = [records.journal.known("aws", "raw", f"{t}/{n}", "v", n) for t in range(6) for n in range(200)]
    assert known == [DIGEST] * 1200


# Releases


def release(version: str = "1", **more) -> Release:
    return new_release("flights", version, f"digest-{version}", [("aws", 60), ("onprem", 40)], now=NOW, **more)


def test_a_release_comes_back_as_it_was_written(records):
    endpoint = Endpoint("aws", "flights", "http://x", 60, "digest-1", "1", False, "starting")
    full = replace(release(), endpoints=(endpoint,), previous="p", restores="q", live_since=NOW, reason="because")
    written = records.releases.write(full, read_generation=0)
    assert written == replace(full, generation=1)
    assert records.releases.read(full.release_id) == written


def test_an_unknown_release_is_not_found(records):
    with pytest.raises(NotFound, match="no release 'nope'"):
        records.releases.read("nope")


def test_latest_and_list_go_by_time_and_model(records):
    first = records.releases.write(release("1"), read_generation=0)
    second = records.releases.write(release("2", after=first), read_generation=0)
    other = records.releases.write(new_release("weather", "1", "w", [("aws", 100)], now=NOW), read_generation=0)
    assert records.releases.latest("flights") == second
    assert records.releases.latest("unheard-of") is None
    assert records.releases.list("flights") == [second, first]
    assert set(records.releases.list()) == {first, second, other}


def test_a_writer_that_read_an_older_generation_is_refused_and_changes_nothing(records):
    first = records.releases.write(release(), read_generation=0)
    second = records.releases.write(replace(first, state=ReleaseState.ROLLING_OUT), read_generation=1)
    with pytest.raises(PreconditionFailed, match="no longer at generation 1"):
        records.releases.write(replace(first, state=ReleaseState.FAILED), read_generation=1)
    with pytest.raises(PreconditionFailed):
        records.releases.write(first, read_generation=0)
    assert records.releases.read(first.release_id) == second


def test_of_writers_that_race_one_wins_each_generation_and_every_form_is_kept(records):
    made = records.releases.write(release(), read_generation=0)
    won: list[int] = []

    def write(number: int) -> None:
        for _ in range(10):
            seen = records.releases.read(made.release_id)
            try:
                written = records.releases.write(replace(seen, reason=str(number)), read_generation=seen.generation)
            except PreconditionFailed:
                continue
            won.append(written.generation)

    in_threads(write, 6)
    assert sorted(won) == list(range(2, len(won) + 2))
    history = records.releases.history(made.release_id)
    assert [form.generation for form in history] == list(range(1, len(won) + 2))
    assert history[-1] == records.releases.read(made.release_id)


# Audit


def test_the_audit_log_is_a_sound_chain_that_outlives_the_process(path):
    with Records(path) as records:
        for n in range(3):
            records.audit.append("verdict", f"s{n}", {"n": n, "share": 0.25, "pair": (1, 2)})
    with Records(path) as records:
        records.audit.append("receipt", "s3", {})
        found = list(records.audit.records())
        assert [record.sequence for record in found] == [1, 2, 3, 4]
        assert found[0].facts == {"n": 0, "share": 0.25, "pair": [1, 2]}
        assert verify_chain(found, head=records.audit.head()).sound


def test_processes_and_threads_append_to_one_chain(records, path):
    program = (
        "import sys; from pathlib import Path; from tasks.records import Records\n"
        "audit = Records(Path(sys.argv[1])).audit\n"
        "for n in range(50): audit.append('run', 'p', {'n': n})\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(2)]

    def append(number: int) -> None:
        for n in range(50):
            records.audit.append("run", f"t{number}", {"n": n})

    in_threads(append, 3)
    assert [child.wait() for child in children] == [0, 0]
    report = verify_chain(records.audit.records())
    assert (report.sound, report.head.sequence) == (True, 250)


def test_audit_records_are_found_by_kind_and_time(path):
    times = iter(NOW + timedelta(minutes=n) for n in range(10))
    with Records(path, now=lambda: next(times)) as records:
        for kind in ("verdict", "run", "verdict"):
            records.audit.append(kind, "s", {})
        assert [r.sequence for r in records.audit.records(kind="verdict")] == [1, 3]
        assert [r.sequence for r in records.audit.records(since=NOW + timedelta(minutes=1))] == [2, 3]
        assert [r.sequence for r in records.audit.records(kind="run", since=NOW + timedelta(minutes=2))] == []
        with pytest.raises(Invalid, match="no zone"):
            records.audit.records(since=datetime(2026, 1, 1))


def test_a_refused_fact_leaves_no_trace_and_the_log_goes_on(records):
    with pytest.raises(Invalid):
        records.audit.append("run", "s", {"bad": object()})
    assert records.audit.append("run", "s", {}).sequence == 1


def test_the_file_itself_refuses_to_alter_or_remove_audit_records(records, path):
    records.audit.append("run", "s", {})
    connection = sqlite3.connect(path)
    for statement in ("UPDATE audit SET subject = 'x'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_a_record_altered_past_the_trigger_is_found(records, path):
    for n in range(3):
        records.audit.append("run", f"s{n}", {"n": n})
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER audit_no_update")
    connection.execute("""UPDATE audit SET facts = '{"n": 9}' WHERE sequence = 2""")
    connection.commit()
    connection.close()
    assert [fault.sequence for fault in verify_chain(records.audit.records()).faults] == [2]


def test_an_empty_log_has_a_head(records):
    assert records.audit.head() == ChainHead()


# What can be wrong with the file


def test_a_file_that_is_no_database_is_named_with_a_mend(tmp_path):
    path = tmp_path / "records.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(Terminal, match=r"records\.sqlite is damaged or not a database; restore it"):
        Records(path)


def test_a_damaged_file_is_named_when_it_is_read(path):
    with Records(path) as records:
        for n in range(2000):
            records.journal.record("aws", "raw", f"k{n}", "v", n, DIGEST)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with Records(path) as records, pytest.raises(Terminal, match=r"records\.sqlite is damaged"):
        [records.journal.known("aws", "raw", f"k{n}", "v", n) for n in range(2000)]


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "state").write_text("a file stands here")
    with pytest.raises(Terminal, match=r"state/records\.sqlite cannot be created"):
        Records(tmp_path / "state" / "records.sqlite")


def test_a_path_that_is_a_directory_is_named(tmp_path):
    (tmp_path / "records.sqlite").mkdir()
    with pytest.raises(Terminal, match=r"records\.sqlite cannot be opened for writing; check"):
        Records(tmp_path / "records.sqlite")


def test_a_full_disk_is_named_and_undoes_the_write(records):
    records.audit.append("run", "s", {})
    connection = records._database._idle[0]
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(Terminal, match="the disk is full; free some space"):
        records.audit.append("run", "s", {"long": "x" * 1_000_000})
    assert records.audit.append("run", "s", {}).sequence == 2


def test_a_file_of_a_newer_lintas_is_left_alone(path):
    Records(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Terminal, match="another version of Lintas"):
        Records(path)


def test_a_child_of_fork_uses_connections_of_its_own(records):
    records.journal.record("aws", "raw", "parent", "v", 1, DIGEST)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            records.journal.record("aws", "raw", "child", "v", 1, DIGEST)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert records.journal.known("aws", "raw", "child", "v", 1) == DIGEST
    assert records.journal.known("aws", "raw", "parent", "v", 1) == DIGEST
