"""The durable state of one installation: one SQLite file behind the journals, `ReleaseBook` and `AuditLog`.

The file may be used by several processes and threads at once (WAL, a busy timeout, short transactions). What the
journal learns survives the death of a process at once and a power cut by a few seconds' worth, which costs
re-reading only; releases and the audit log are flushed to the disk before a call returns.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.audit import AuditRecord, ChainHead, next_record
from tasks.core.errors import Invalid, LintasError, NotFound, PreconditionFailed, Retryable, Terminal
from tasks.core.release import Endpoint, Release, ReleaseState
from tasks.quarantine_list import SqliteQuarantine
from tasks.uploads import SqliteUploads

_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 30.0
_LITTLE_BYTES = 1024 * 1024
_PAGE_ROWS = 10_000
_SCHEMA = """
CREATE TABLE journal (
    cloud TEXT NOT NULL, bucket TEXT NOT NULL, key TEXT NOT NULL,
    version TEXT NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (cloud, bucket, key)
) WITHOUT ROWID;
CREATE TABLE releases (
    release_id TEXT PRIMARY KEY, model TEXT NOT NULL, generation INTEGER NOT NULL,
    state TEXT NOT NULL, body TEXT NOT NULL CHECK (json_valid(body))
) WITHOUT ROWID;
CREATE INDEX releases_of_model ON releases (model, release_id);
CREATE TABLE release_events (
    release_id TEXT NOT NULL, generation INTEGER NOT NULL, time TEXT NOT NULL,
    state TEXT NOT NULL, body TEXT NOT NULL CHECK (json_valid(body)),
    PRIMARY KEY (release_id, generation)
) WITHOUT ROWID;
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    facts TEXT NOT NULL CHECK (json_valid(facts)), previous_digest TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""


def _now() -> datetime:
    return datetime.now(UTC)


def _moment(time: datetime) -> str:
    """The time as text that sorts as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


class Records:
    """Opens (and on first use creates) the file; `journal`, `uploads`, `releases`, `quarantine` and `audit` are views
    of it.

    Args:
        path: The SQLite file; its directory is created.
        now: The clock of audit records and release events.

    Raises:
        Terminal: The file cannot be opened, is damaged, or was written by a newer Lintas.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = _now) -> None:
        self._database = _Database(path)
        self.path = path
        self.journal = SqliteJournal(self._database)
        self.uploads = SqliteUploads(self._database)
        self.releases = SqliteReleaseBook(self._database, now)
        self.quarantine = SqliteQuarantine(self._database, now)
        self.audit = SqliteAuditLog(self._database, now)

    def close(self) -> None:
        """Close every connection that is not in use; the views open new ones when they are called again."""
        self._database.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SqliteJournal:
    """`Journal`: the last known version of every key, with its digest."""

    def __init__(self, database: _Database) -> None:
        self._database = database

    def known(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int) -> str | None:
        """The digest of exactly this version and size, or None."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT digest FROM journal"
                " WHERE cloud = ? AND bucket = ? AND key = ? AND version = ? AND size_bytes = ?",
                (cloud, bucket, key, version, size_bytes),
            ).fetchone()
        return None if row is None else str(row[0])

    def between(self, cloud: str, bucket: str, first: str, last: str) -> Iterator[tuple[str, str, int, str]]:
        """Key, version, size and digest of the keys from `first` to `last`."""
        page: list[tuple[str, str, int, str]] = []
        while not page or len(page) == _PAGE_ROWS:
            with self._database.reading() as connection:
                page = connection.execute(
                    "SELECT key, version, size_bytes, digest FROM journal WHERE cloud = ? AND bucket = ?"
                    " AND key >= ? AND key <= ? AND key > ? ORDER BY key LIMIT ?",
                    (cloud, bucket, first, last, page[-1][0] if page else "", _PAGE_ROWS),
                ).fetchall()
            if not page:
                return
            yield from page
            first = page[-1][0]

    def record(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int, digest: str) -> None:
        """Remember the digest in place of what was known of this key."""
        self.record_all([(cloud, bucket, key, version, size_bytes, digest)])

    def record_all(self, rows: Sequence[tuple[str, str, str, str, int, str]]) -> None:
        """`record` for each of the rows, in one transaction."""
        with self._database.writing(flushed=False) as connection:
            connection.executemany(
                "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET version = excluded.version, size_bytes = excluded.size_bytes,"
                " digest = excluded.digest",
                rows,
            )


class SqliteReleaseBook:
    """`ReleaseBook`: the current form of every release, and one event row for each form it had."""

    def __init__(self, database: _Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def read(self, release_id: str) -> Release:
        """The release. Raises `NotFound` when there is none of this id."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT body FROM releases WHERE release_id = ?", (release_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no release '{release_id}'", "list the releases with 'lintas releases'")
        return self._release(row[0])

    def latest(self, model: str) -> Release | None:
        """The newest release of the model, in whatever state."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT body FROM releases WHERE model = ? ORDER BY release_id DESC LIMIT 1", (model,)
            ).fetchone()
        return None if row is None else self._release(row[0])

    def list(self, model: str | None = None) -> list[Release]:
        """All releases, of one model if it is named, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT body FROM releases WHERE ?1 IS NULL OR model = ?1 ORDER BY release_id DESC", (model,)
            )
            return [self._release(row[0]) for row in rows]

    def history(self, release_id: str) -> list[Release]:
        """Every form the release had, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT body FROM release_events WHERE release_id = ? ORDER BY generation", (release_id,)
            )
            return [self._release(row[0]) for row in rows]

    def write(self, release: Release, *, read_generation: int) -> Release:
        """Store the release as generation `read_generation + 1`; 0 means that it is new.

        Raises:
            PreconditionFailed: Another writer came first (or the id is taken); read it again and decide anew.
        """
        written = replace(release, generation=read_generation + 1)
        body = json.dumps(asdict(written), default=datetime.isoformat)
        key, generation, state = written.release_id, written.generation, str(written.state)
        with self._database.writing() as connection:
            if read_generation == 0:
                changed = connection.execute(
                    "INSERT INTO releases VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (key, written.model, generation, state, body),
                ).rowcount
            else:
                changed = connection.execute(
                    "UPDATE releases SET generation = ?, state = ?, body = ? WHERE release_id = ? AND generation = ?",
                    (generation, state, body, key, read_generation),
                ).rowcount
            if changed != 1:
                raise PreconditionFailed(
                    f"release '{key}' is no longer at generation {read_generation}", "read it again and decide anew"
                )
            connection.execute(
                "INSERT INTO release_events VALUES (?, ?, ?, ?, ?)",
                (key, generation, self._now().isoformat(), state, body),
            )
        return written

    def _release(self, body: str) -> Release:
        try:
            facts = json.loads(body)
            live_since = facts["live_since"]
            return Release(
                **facts
                | {
                    "state": ReleaseState(facts["state"]),
                    "created": datetime.fromisoformat(facts["created"]),
                    "live_since": live_since and datetime.fromisoformat(live_since),
                    "weights": tuple((cloud, weight) for cloud, weight in facts["weights"]),
                    "endpoints": tuple(Endpoint(**endpoint) for endpoint in facts["endpoints"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._database.damaged("holds a release that cannot be read") from error


class SqliteAuditLog:
    """`AuditLog`: append-only by a trigger, and by the chain that `tasks.core.audit.verify_chain` checks."""

    def __init__(self, database: _Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def append(self, kind: str, subject: str, facts: Mapping[str, Any]) -> AuditRecord:
        """Add a record at the end. Raises `Invalid` when the kind is unknown or the facts are not JSON-simple."""
        with self._database.writing() as connection:
            last = connection.execute("SELECT sequence, digest FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
            head = ChainHead() if last is None else ChainHead(*last)
            record = next_record(head, kind=kind, subject=subject, facts=facts, time=self._now())
            connection.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    record.sequence,
                    _moment(record.time),
                    record.kind,
                    record.subject,
                    json.dumps(record.facts),
                    record.previous_digest,
                    record.digest,
                ),
            )
        return record

    def records(self, *, kind: str | None = None, since: datetime | None = None) -> Iterator[AuditRecord]:
        """The records in order, those of one kind or from one moment on if told. `since` must have a zone."""
        if since is not None and since.tzinfo is None:
            raise Invalid("the time to list audit records from has no zone", "pass a timezone-aware time")
        return self._pages(kind, since and _moment(since))

    def head(self) -> ChainHead:
        """The end of the log now, to be noted elsewhere."""
        with self._database.reading() as connection:
            last = connection.execute("SELECT sequence, digest FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
        return ChainHead() if last is None else ChainHead(*last)

    def _pages(self, kind: str | None, since: str | None) -> Iterator[AuditRecord]:
        after = 0
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    "SELECT * FROM audit WHERE sequence > ?1 AND (?2 IS NULL OR kind = ?2)"
                    " AND (?3 IS NULL OR time >= ?3) ORDER BY sequence LIMIT 1000",
                    (after, kind, since),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                yield self._record(row)
            after = rows[-1][0]

    def _record(self, row: tuple[Any, ...]) -> AuditRecord:
        sequence, time, kind, subject, facts, previous_digest, digest = row
        try:
            return AuditRecord(
                sequence, datetime.fromisoformat(time), kind, subject, json.loads(facts), previous_digest, digest
            )
        except (TypeError, ValueError) as error:
            raise self._database.damaged(f"holds an audit record (number {sequence}) that cannot be read") from error


class _Database:
    """Connections to the file, each used by one thread at a time and none across a fork.

    Writers of this process queue on a lock; SQLite's own busy handler sleeps, and is left for other processes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = threading.Lock()
        self._idle: deque[sqlite3.Connection] = deque()
        self._pid = os.getpid()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(f"cannot be created ({error.strerror})") from error
        with self._connection() as connection:
            self._prepare(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for one query."""
        with self._connection() as connection:
            yield connection

    @contextmanager
    def writing(self, *, flushed: bool = True) -> Iterator[sqlite3.Connection]:
        """A connection inside a write transaction, committed at the end and undone by any exception.

        Args:
            flushed: Whether the commit waits for the disk. Without, a power cut may undo the last commits.
        """
        with self._connection() as connection, self._writer:
            connection.execute(f"PRAGMA synchronous = {'FULL' if flushed else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def damaged(self, how: str) -> Terminal:
        """The error for content that Lintas did not write."""
        return Terminal(f"{self._path} {how}", "restore it from a backup, or move it away to begin anew")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            # A child of fork must neither use nor close its parent's connections (sqlite.org/howtocorrupt.html).
            self._inherited, self._idle, self._pid = self._idle, deque(), os.getpid()
            self._writer = threading.Lock()
        connection = None
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open()
            yield connection
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._translated(error) from error
            raise
        self._idle.append(connection)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have created the tables while this one waited.
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            connection.execute("COMMIT")
            version = _SCHEMA_VERSION
        if version != _SCHEMA_VERSION:
            raise Terminal(f"{self._path} was written by another version of Lintas", "use that version, or upgrade")

    def _translated(self, error: sqlite3.Error) -> LintasError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Retryable(f"{self._path} was locked for {_BUSY_TIMEOUT_S:.0f} s", "see which process holds it")
        # What SQLite shares between processes has no room either, which it calls an input error.
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._room_bytes() < _LITTLE_BYTES):
            return self._unusable("cannot grow: the disk is full", "free some space and run again")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return self._unusable("cannot be opened for writing")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self.damaged("is damaged or not a database")
        return self._unusable(f"cannot be used ({error})")

    def _room_bytes(self) -> int:
        facts = os.statvfs(self._path.parent)
        return facts.f_bavail * facts.f_frsize

    def _unusable(
        self, how: str, mend: str = "check its directory, permissions and disk, or set another state directory"
    ) -> Terminal:
        return Terminal(f"{self._path} {how}", mend)
