"""Events of a store that sends none: found by listing it again and again, and kept until they are acknowledged.

What was seen, and what was found and not yet acknowledged, are two tables of one SQLite file, written in one
transaction a batch: after a crash nothing is lost, and nothing is told under another id. Memory does not grow with the
bucket: a listing is compared batch by batch.

What listing cannot see: an object that is gone or written again before the next look (only its last form is told),
who wrote, and, where versions are checksums, a write of the same bytes within the clock's resolution. An object may
have been there for as long as a look takes, and the pause between two, before it is told.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tasks.core.cloud import CloudConfig
from tasks.core.errors import Invalid, LintasError, NotFound, Terminal
from tasks.core.events import object_created
from tasks.core.ports import CloudEvent, ObjectInfo

_log = logging.getLogger(__name__)

_AT_ONCE = 10
_BATCH = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (bucket TEXT, prefix TEXT, PRIMARY KEY (bucket, prefix)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT, key TEXT, write TEXT NOT NULL, since REAL NOT NULL, told INTEGER NOT NULL, PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL, key TEXT NOT NULL, write TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, version TEXT NOT NULL, time TEXT NOT NULL
);
CREATE TEMP TABLE listed (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A part of a bucket that is watched: the keys that begin with `prefix`."""

    bucket: str
    prefix: str = ""


Listing = Callable[[str, str], Iterator[ObjectInfo]]
"""The objects of a bucket whose keys start with a prefix. NotFound: there is no such bucket."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often is looked, and how long is waited.

    Args:
        poll_s: Seconds between the end of a look and the next one.
        settle_s: Seconds for which an object must stay as it is before it is told; 0 where objects appear whole.
        redeliver_s: Seconds after which an event that was not acknowledged is delivered again.
    """

    poll_s: float
    settle_s: float = 0.0
    redeliver_s: float = 60.0

    def configured(self, config: CloudConfig) -> Rhythm:
        """The same with what the cloud's options say. Raises `Invalid` for what is not a number from 0 on."""

        def option(name: str, otherwise: float) -> float:
            return seconds(config, name, otherwise)

        return Rhythm(
            option("poll_s", self.poll_s),
            option("settle_s", self.settle_s),
            option("redeliver_s", self.redeliver_s),
        )


def seconds(config: CloudConfig, name: str, otherwise: float) -> float:
    """An option in seconds. Raises `Invalid` for what is not a number from 0 on."""
    try:
        found = float(config.options.get(name, otherwise))
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise Invalid(
            f"clouds.{config.name}.options.{name} is not a number of seconds", "write it as a number from 0 on"
        )
    return found


def watched_places(config: CloudConfig) -> tuple[Watched, ...]:
    """What `options.watch` names: `bucket` or `bucket/prefix`, several with commas or spaces between them.

    Raises:
        Invalid: It is missing, or names nothing.

    >>> watched_places(CloudConfig("site", "onprem", options={"watch": "raw, lake/flights/"}))
    (Watched(bucket='raw', prefix=''), Watched(bucket='lake', prefix='flights/'))
    """
    names = config.option("watch").replace(",", " ").split()
    if not names or any(name.startswith("/") for name in names):
        raise Invalid(f"clouds.{config.name}.options.watch names no bucket", "write it as BUCKET or BUCKET/PREFIX")
    return tuple(Watched(bucket, prefix) for bucket, _, prefix in (name.partition("/") for name in names))


class PollingSource:
    """Watched parts of buckets; implements `tasks.core.ports.EventSource`.

    What is there when a part is looked at for the first time is no event; a bucket that does not exist yet counts as
    empty. That first look is over when the source is made.

    Args:
        cloud: The cloud's name, for the events.
        places: What is watched.
        listing: How a bucket is listed.
        memory: Directory for the file that outlives this process; created when it is not there.
        rhythm: How often.
        now: Seconds since 1970; how long an object has been as it is.

    Raises:
        LintasError: What listing raises; nothing was learnt, try again.
        Terminal: The memory cannot be opened.
    """

    def __init__(
        self,
        cloud: str,
        places: Sequence[Watched],
        listing: Listing,
        memory: Path,
        rhythm: Rhythm,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cloud, self._places, self._listing, self._rhythm, self._now = cloud, places, listing, rhythm, now
        self._path = memory / "seen.sqlite"
        self._lock = threading.RLock()
        self._leases: dict[int, float] = {}
        self._look: Iterator[None] | None = None
        self._next_look = 0.0
        self._shrunk: set[Watched] = set()
        memory.mkdir(parents=True, exist_ok=True)
        with self._sound():
            self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30)
            self._database.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_SCHEMA}")
            for place in places:
                if not self._is_known(place):
                    for _ in self._look_at(place, first=True):
                        pass

    def receive(self, *, wait_s: float) -> list[tuple[CloudEvent, str]]:
        """See `EventSource.receive`."""
        deadline = time.monotonic() + wait_s
        with self._lock, self._sound():
            while True:
                found = self._deliverable()
                if found:
                    return found
                pause_s = self._go_on()
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return self._deliverable()
                time.sleep(min(pause_s, left_s))

    def acknowledge(self, receipt: str) -> None:
        """See `EventSource.acknowledge`."""
        with self._lock, self._sound():
            self._leases.pop(int(receipt), None)
            self._database.execute("DELETE FROM waiting WHERE number = ?", (int(receipt),))

    def known(self) -> int:
        """How many objects are remembered."""
        with self._lock, self._sound():
            return int(self._database.execute("SELECT count(*) FROM objects").fetchone()[0])

    def close(self) -> None:
        """Close the memory's file."""
        self._database.close()

    def _deliverable(self) -> list[tuple[CloudEvent, str]]:
        now = time.monotonic()
        self._leases = {number: until for number, until in self._leases.items() if until > now}
        rows = self._database.execute(
            "SELECT number, bucket, key, write, size_bytes, version, time FROM waiting ORDER BY number LIMIT ?",
            (_AT_ONCE + len(self._leases),),
        ).fetchall()
        due = [row for row in rows if row[0] not in self._leases][:_AT_ONCE]
        found: list[tuple[CloudEvent, str]] = []
        for number, bucket, key, write, size_bytes, version, moment in due:
            self._leases[number] = now + self._rhythm.redeliver_s
            time_of_it = datetime.fromisoformat(moment)
            event = object_created(
                self._cloud, bucket, key, write=write, time=time_of_it, size_bytes=size_bytes, version=version
            )
            found.append((event, str(number)))
        return found

    def _go_on(self) -> float:
        """Compare one more batch, if a look is due; how many seconds there is nothing to do from now on."""
        if self._look is None:
            due_s = self._next_look - time.monotonic()
            if due_s > 0:
                return due_s
            self._look = itertools.chain.from_iterable(self._look_at(place) for place in self._places)
        try:
            next(self._look)
        except StopIteration:
            self._rest()
        except LintasError:
            self._rest()
            raise
        return 0.0

    def _rest(self) -> None:
        self._look = None
        self._next_look = time.monotonic() + self._rhythm.poll_s

    def _look_at(self, place: Watched, *, first: bool = False) -> Iterator[None]:
        """Compare a part of a bucket with what is known of it; pauses after each batch."""
        listed, tidy = 0, place in self._shrunk
        self._database.execute("DELETE FROM listed")
        try:
            objects = self._listing(place.bucket, place.prefix)
            while batch := list(itertools.islice(objects, _BATCH)):
                with self._transaction():
                    self._compare(place.bucket, batch, first=first)
                    if tidy:
                        keys = ((info.key,) for info in batch)
                        self._database.executemany("INSERT OR IGNORE INTO listed VALUES (?)", keys)
                listed += len(batch)
                yield
        except NotFound as error:
            if first:
                _log.info("%s: %s; it is watched for", self._cloud, error.what)
        else:
            self._tidy(place, listed, tidy=tidy)
        if first:
            self._database.execute("INSERT OR IGNORE INTO places VALUES (?, ?)", (place.bucket, place.prefix))

    def _compare(self, bucket: str, batch: Sequence[ObjectInfo], *, first: bool) -> None:
        now = self._now()
        for info in batch:
            write = f"{info.version}@{info.modified.isoformat()}"
            known, since, was_told = self._database.execute(
                "SELECT write, since, told FROM objects WHERE bucket = ? AND key = ?", (bucket, info.key)
            ).fetchone() or ("", now, False)
            is_same = known == write
            if is_same and was_told:
                continue
            since = since if is_same else now
            # A clock that was put back must not keep a finished object waiting.
            told = not first and not 0 <= now - since < self._rhythm.settle_s
            if told:
                self._database.execute(
                    "INSERT INTO waiting (bucket, key, write, size_bytes, version, time) VALUES (?, ?, ?, ?, ?, ?)",
                    (bucket, info.key, write, info.size_bytes, info.version, info.modified.isoformat()),
                )
            if not is_same or told:
                self._database.execute(
                    "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
                    (bucket, info.key, write, since, told or first),
                )

    def _tidy(self, place: Watched, listed: int, *, tidy: bool) -> None:
        """Forget objects that are gone, by a second look after one that listed fewer than are known.

        An empty listing forgets nothing: a disk that is not mounted looks like that.
        """
        mine = "bucket = ?1 AND substr(key, 1, length(?2)) = ?2"
        self._shrunk.discard(place)
        if tidy and listed:
            gone = f"DELETE FROM objects WHERE {mine} AND key NOT IN (SELECT key FROM listed)"  # noqa: S608
            self._database.execute(gone, (place.bucket, place.prefix))
        elif listed:
            known = f"SELECT count(*) FROM objects WHERE {mine}"  # noqa: S608
            if self._database.execute(known, (place.bucket, place.prefix)).fetchone()[0] > listed:
                self._shrunk.add(place)

    def _is_known(self, place: Watched) -> bool:
        query = "SELECT 1 FROM places WHERE bucket = ? AND prefix = ?"
        return self._database.execute(query, (place.bucket, place.prefix)).fetchone() is not None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _sound(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Terminal(
                f"what was seen of '{self._cloud}' cannot be kept in {self._path} ({type(error).__name__})",
                "free space or mend its rights; if it is damaged remove it, and the watching begins anew",
            ) from error
