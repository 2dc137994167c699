"""The quarantine list: what the gate held back, and what people released, in the records file."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Any

from tasks.core.dataset import DatasetURI
from tasks.core.held import Held, Listed
from tasks.core.selection import Selection
from tasks.uploads import Database

_TABLE = """CREATE TABLE IF NOT EXISTS quarantine (
    entry TEXT PRIMARY KEY, dataset TEXT NOT NULL, policy TEXT NOT NULL, destination TEXT NOT NULL,
    body TEXT NOT NULL CHECK (json_valid(body)), since TEXT NOT NULL, released TEXT, reason TEXT, by TEXT
) WITHOUT ROWID"""


class SqliteQuarantine:
    """One table, which an older records file gets when it is next opened. A release stays for good."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        with database.reading() as connection:
            there = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'quarantine'").fetchone()[0]
        if not there:
            with database.writing() as connection:
                connection.execute(_TABLE)

    def renew(
        self, dataset: DatasetURI, destination: DatasetURI, held: Collection[Held], looked_at: Selection
    ) -> list[Held]:
        """Make the list say what stays of a dataset now. Answers what was not listed before.

        Args:
            dataset, destination: The dataset, and where it would go.
            held: What stays, all of it.
            looked_at: Which objects were looked at: those of them that do not stay any more leave the list.
        """
        now = self._now().isoformat()
        staying = {item.entry for item in held}
        there = {item.held.entry: item for item in self.entries(str(dataset), str(destination))}
        gone = [
            (entry,)
            for entry, item in there.items()
            if not item.released and entry not in staying and (not looked_at or looked_at.takes(item.held.path))
        ]
        with self._database.writing() as connection:
            connection.executemany("DELETE FROM quarantine WHERE entry = ? AND released IS NULL", gone)
            connection.executemany(
                "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, NULL) ON CONFLICT DO NOTHING",
                [(i.entry, i.dataset, i.policy, i.destination, json.dumps(i.as_dict()), now) for i in held],
            )
        return [item for item in held if item.entry not in there]

    def entries(self, dataset: str | None = None, destination: str | None = None) -> list[Listed]:
        """What is listed, of a dataset and for a destination if told, in order of datasets and paths."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT body, since, released, reason, by FROM quarantine"
                " WHERE (?1 IS NULL OR dataset = ?1) AND (?2 IS NULL OR destination = ?2)",
                (dataset, destination),
            ).fetchall()
        return sorted(_listed(rows), key=lambda item: (item.held.dataset, item.held.destination, item.held.path))

    def released(self, dataset: str, policy: str, destination: str) -> frozenset[str]:
        """The entries that people released, for a dataset under a policy on its way to a destination."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT entry FROM quarantine"
                " WHERE dataset = ? AND policy = ? AND destination = ? AND released IS NOT NULL",
                (dataset, policy, destination),
            ).fetchall()
        return frozenset(row[0] for row in rows)

    def release(self, entries: Collection[str], *, reason: str, by: str) -> None:
        """Note that a person released these entries. What is released already stays as it is noted."""
        now = self._now().isoformat()
        with self._database.writing() as connection:
            connection.executemany(
                "UPDATE quarantine SET released = ?, reason = ?, by = ? WHERE entry = ? AND released IS NULL",
                [(now, reason, by, entry) for entry in entries],
            )


def _listed(rows: Collection[tuple[Any, ...]]) -> Iterator[Listed]:
    for body, since, released, reason, by in rows:
        moment = datetime.fromisoformat(released) if released else None
        held = Held.from_dict(json.loads(body))
        yield Listed(held, datetime.fromisoformat(since), moment, reason or "", by or "")
