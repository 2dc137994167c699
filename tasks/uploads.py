"""Uploads in parts that are under way, in the records file, so that a killed move sends no finished part again."""

from __future__ import annotations

import json
import threading
from contextlib import AbstractContextManager
from sqlite3 import Connection
from typing import Protocol

from blake3 import blake3

from tasks.core.attributes import Attributes
from tasks.core.dataset import RESERVED_PREFIX, DatasetURI
from tasks.core.errors import NotFound
from tasks.core.ports import OpenUpload, SentPart, Store, UploadJournal
from tasks.core.retries import with_retries

_TABLES = (
    """CREATE TABLE IF NOT EXISTS uploads (
    cloud TEXT NOT NULL, bucket TEXT NOT NULL, key TEXT NOT NULL, upload_id TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (cloud, bucket, key, upload_id)
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS upload_parts (
    cloud TEXT NOT NULL, bucket TEXT NOT NULL, key TEXT NOT NULL, upload_id TEXT NOT NULL, number INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, tag TEXT NOT NULL, proof TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (cloud, bucket, key, upload_id, number)
) WITHOUT ROWID""",
)
_ATTEMPTS = 4
_THIS = "cloud = ? AND bucket = ? AND key = ? AND upload_id = ?"


class Database(Protocol):
    """What is asked of the records file."""

    def reading(self) -> AbstractContextManager[Connection]: ...

    def writing(self, *, flushed: bool = True) -> AbstractContextManager[Connection]: ...


class SqliteUploads:
    """`UploadJournal` in two tables, which an older records file gets when it is next opened.

    A power cut may undo the last entries: parts that are forgotten are sent again, and an upload that is forgotten
    is for the bucket's own rule about unfinished uploads to remove.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.reading() as connection:
            there = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'upload_parts'").fetchone()[0]
        if not there:
            with database.writing() as connection:
                for statement in _TABLES:
                    connection.execute(statement)

    def begun(self, cloud: str, bucket: str, key: str, upload_id: str, content: str) -> None:
        """Enter an upload. It is on the disk before its first part leaves."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?)", (cloud, bucket, key, upload_id, content)
            )

    def part_sent(self, cloud: str, bucket: str, key: str, upload_id: str, part: SentPart) -> None:
        """Enter a part that the store has verified."""
        row = (cloud, bucket, key, upload_id, part.number, part.size_bytes, part.tag, part.proof, part.digest)
        with self._database.writing(flushed=False) as connection:
            connection.execute("INSERT OR REPLACE INTO upload_parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def ended(self, cloud: str, bucket: str, key: str, upload_id: str) -> None:
        """Forget the upload and its parts."""
        with self._database.writing(flushed=False) as connection:
            for table in ("uploads", "upload_parts"):
                connection.execute(f"DELETE FROM {table} WHERE {_THIS}", (cloud, bucket, key, upload_id))  # noqa: S608

    def open(self, cloud: str, bucket: str, prefix: str) -> list[OpenUpload]:
        """The uploads of keys that start with `prefix`, with their parts by number."""
        with self._database.reading() as connection:
            uploads = connection.execute(
                "SELECT key, upload_id, content FROM uploads"
                " WHERE cloud = ? AND bucket = ? AND substr(key, 1, length(?3)) = ?3",
                (cloud, bucket, prefix),
            ).fetchall()
            return [
                OpenUpload(
                    key,
                    upload_id,
                    content,
                    tuple(
                        SentPart(*row)
                        for row in connection.execute(
                            f"SELECT number, size_bytes, tag, proof, digest FROM upload_parts WHERE {_THIS}"  # noqa: S608
                            " ORDER BY number",
                            (cloud, bucket, key, upload_id),
                        )
                    ),
                )
                for key, upload_id, content in uploads
            ]


class NotedUploads:
    """Uploads that are noted beside the dataset too, so that another machine finds those of one that was lost.

    A note is a small object under `.lintas/begun/`, written before the first part leaves and removed with the upload.
    It says nothing of parts: who goes on with the upload of another machine sends all of them again.

    Args:
        uploads: Those of this machine, with their parts.
        store, uri: The destination.
    """

    def __init__(self, uploads: UploadJournal, store: Store, uri: DatasetURI) -> None:
        self._uploads, self._store = uploads, store
        self._folder = uri.key(RESERVED_PREFIX + "begun/")
        self.part_sent = uploads.part_sent

    def begun(self, cloud: str, bucket: str, key: str, upload_id: str, content: str) -> None:
        """Enter an upload here and beside the dataset."""
        self._uploads.begun(cloud, bucket, key, upload_id, content)
        note = json.dumps({"key": key, "upload_id": upload_id, "content": content}).encode()
        with_retries(
            lambda: self._store.put(
                self._note(key, upload_id),
                [note],
                size_bytes=len(note),
                attributes=Attributes(content_type="application/json"),
            ),
            _ATTEMPTS,
            threading.Event(),
        )

    def ended(self, cloud: str, bucket: str, key: str, upload_id: str) -> None:
        """Forget the upload, here and there."""
        with_retries(lambda: self._store.delete(self._note(key, upload_id)), _ATTEMPTS, threading.Event())
        self._uploads.ended(cloud, bucket, key, upload_id)

    def open(self, cloud: str, bucket: str, prefix: str) -> list[OpenUpload]:
        """The uploads of this machine with their parts, and those of others that have not ended."""
        found = {(each.key, each.upload_id): each for each in self._uploads.open(cloud, bucket, prefix)}
        for info in self._store.list(self._folder):
            try:
                note = json.loads(b"".join(self._store.get(info.key)))
            except NotFound:
                continue  # it ended just now
            place = note["key"], note["upload_id"]
            found.setdefault(place, OpenUpload(*place, note["content"], ()))
        return list(found.values())

    def _note(self, key: str, upload_id: str) -> str:
        return self._folder + blake3(f"{key}\n{upload_id}".encode()).hexdigest(length=16)
