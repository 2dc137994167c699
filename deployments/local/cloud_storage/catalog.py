"""What the double knows: buckets, objects with their generations, uploads that are not finished.

Facts are in SQLite, contents are files beside it, so a restart finds everything again. All methods are quick and are
called from the server's event loop only; a check and the write that depends on it are therefore one step.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.local.cloud_storage.bodies import Bodies, Body, Claims
from deployments.local.cloud_storage.conditions import Conditions
from deployments.local.cloud_storage.faults import Refused, no_bucket, no_object
from deployments.local.cloud_storage.notifications import SCHEMA as _NOTIFICATIONS
from deployments.local.cloud_storage.notifications import Notifications

Resource = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, resource TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT, name TEXT, generation INTEGER, live INTEGER NOT NULL, resource TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (bucket, name, generation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, bucket TEXT NOT NULL, name TEXT NOT NULL, body TEXT, state TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT, number INTEGER, etag TEXT NOT NULL, size_bytes INTEGER NOT NULL, body TEXT NOT NULL, updated TEXT,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One generation of an object.

    Args:
        resource: Its resource in the JSON API's words.
        path: Where its content lies.
    """

    resource: Resource
    path: Path

    @property
    def generation(self) -> int:
        """Its generation."""
        return int(self.resource["generation"])

    @property
    def metageneration(self) -> int:
        """How often its metadata was written."""
        return int(self.resource["metageneration"])

    @property
    def size_bytes(self) -> int:
        """Size of the content."""
        return int(self.resource["size"])

    @property
    def body(self) -> Body:
        """Its content with the checksums on record."""
        return Body(self.path, self.size_bytes, self.resource["crc32c"], self.resource.get("md5Hash"))


def now() -> str:
    """The time, as Cloud Storage writes it (RFC 3339, milliseconds)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Catalog:
    """Everything the double remembers.

    Args:
        directory: Where it keeps it; created when it is not there.
        notify: Topic (`projects/P/topics/T`) that every new bucket is configured for; '' for none.
    """

    def __init__(self, directory: Path, notify: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.bodies = Bodies(directory / "bodies")
        self.database = sqlite3.connect(directory / "catalog.db", isolation_level=None)
        # The twin outlives its own restart, not a power cut: no need to wait for the disk.
        self.database.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {_SCHEMA} {_NOTIFICATIONS}")
        self.notifications = Notifications(self.database, notify)
        self._last_generation = self.database.execute("SELECT coalesce(max(generation), 0) FROM objects").fetchone()[0]
        self._remove_orphans()

    def _remove_orphans(self) -> None:
        """Remove contents that a stopped server had received for nobody."""
        owned = "SELECT body FROM objects UNION SELECT body FROM uploads UNION SELECT body FROM parts"
        known = {row[0] for row in self.database.execute(owned)}
        for path in self.bodies.directory.iterdir():
            if path.name not in known:
                path.unlink()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside take effect, or none."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def bucket(self, name: str) -> Resource:
        """The bucket's resource. Raises `Refused` (404) when there is none."""
        row = self.database.execute("SELECT resource FROM buckets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise no_bucket()
        return json.loads(row[0])

    def buckets(self) -> list[Resource]:
        """All buckets by name."""
        return [json.loads(row[0]) for row in self.database.execute("SELECT resource FROM buckets ORDER BY name")]

    def create_bucket(self, name: str, resource: Mapping[str, Any]) -> Resource:
        """A new bucket. Raises `Refused` (409) when there is one of this name."""
        created = now()
        whole = {
            "kind": "storage#bucket",
            "location": "US",
            "locationType": "multi-region",
            "storageClass": "STANDARD",
            **resource,
            "id": name,
            "name": name,
            "metageneration": "1",
            "etag": "CAE=",
            "timeCreated": created,
            "updated": created,
        }
        try:
            with self.transaction():
                self.database.execute("INSERT INTO buckets VALUES (?, ?)", (name, json.dumps(whole)))
                self.notifications.bucket_created(name)
        except sqlite3.IntegrityError as error:
            message = "Your previous request to create the named bucket succeeded and you already own it."
            raise Refused(409, "conflict", message) from error
        return whole

    def update_bucket(self, name: str, changes: Mapping[str, Any]) -> Resource:
        """The bucket with other settings; a setting of None is removed."""
        resource = self.bucket(name)
        merged = {key: value for key, value in {**resource, **changes}.items() if value is not None}
        merged |= {"metageneration": str(int(resource["metageneration"]) + 1), "updated": now()}
        self.database.execute("UPDATE buckets SET resource = ? WHERE name = ?", (json.dumps(merged), name))
        return merged

    def delete_bucket(self, name: str) -> None:
        """Remove an empty bucket. Raises `Refused` (404, 409)."""
        self.bucket(name)
        if self.database.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (name,)).fetchone():
            raise Refused(409, "bucketNotEmpty", "The bucket you tried to delete is not empty.")
        self.database.execute("DELETE FROM notifications WHERE bucket = ?", (name,))
        self.database.execute("DELETE FROM buckets WHERE name = ?", (name,))

    def keeps_versions(self, bucket: str) -> bool:
        """Whether replaced and deleted generations are kept."""
        return bool(self.bucket(bucket).get("versioning", {}).get("enabled"))

    def live(self, bucket: str, name: str) -> StoredObject | None:
        """The live generation, if there is one."""
        row = self.database.execute(
            "SELECT resource, body FROM objects WHERE bucket = ? AND name = ? AND live", (bucket, name)
        ).fetchone()
        return self._stored(row) if row else None

    def find(self, bucket: str, name: str, generation: int | None = None) -> StoredObject:
        """The live generation, or the one that is named. Raises `Refused` (404) when there is none."""
        self.bucket(bucket)
        if generation is None:
            found = self.live(bucket, name)
        else:
            row = self.database.execute(
                "SELECT resource, body FROM objects WHERE bucket = ? AND name = ? AND generation = ?",
                (bucket, name, generation),
            ).fetchone()
            found = self._stored(row) if row else None
        if found is None:
            raise no_object(bucket, name)
        return found

    def check(self, bucket: str, name: str, conditions: Conditions) -> StoredObject | None:
        """The live generation, if there is one. Raises `Refused`: no such bucket, or a precondition does not hold."""
        self.bucket(bucket)
        found = self.live(bucket, name)
        conditions.require(found.generation if found else 0, found.metageneration if found else None)
        return found

    def commit(
        self,
        bucket: str,
        name: str,
        body: Body,
        resource: Mapping[str, Any],
        conditions: Conditions,
        claims: Claims,
    ) -> StoredObject:
        """Make content the object's live generation, when its checksums and the preconditions allow it.

        The content belongs to the catalog from now on: it is removed when the commit is refused.
        """
        try:
            claims.require(body)
            before = self.check(bucket, name, conditions)
        except Refused:
            body.path.unlink()
            raise
        generation = self._next_generation()
        created = now()
        whole = {
            "kind": "storage#object",
            "storageClass": "STANDARD",
            **resource,
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(body.size_bytes),
            "crc32c": body.crc32c,
            "timeCreated": created,
            "updated": created,
            "timeStorageClassUpdated": created,
        }
        if body.md5 is not None:
            whole["md5Hash"] = body.md5
        overwrote = {} if before is None else {"overwroteGeneration": str(before.generation)}
        with self.transaction():
            freed = None if before is None else self._retire(before, overwrittenByGeneration=str(generation))
            self.database.execute(
                "INSERT INTO objects VALUES (?, ?, ?, 1, ?, ?)",
                (bucket, name, generation, json.dumps(whole), body.path.name),
            )
            self.notifications.changed("OBJECT_FINALIZE", whole, **overwrote)
        _free(freed)
        return StoredObject(whole, body.path)

    def update(self, stored: StoredObject, changed: Mapping[str, Any]) -> StoredObject:
        """The same generation with another metadata resource."""
        resource = {**changed, "metageneration": str(stored.metageneration + 1), "updated": now()}
        with self.transaction():
            self._rewrite(resource, live=True)
            self.notifications.changed("OBJECT_METADATA_UPDATE", resource)
        return StoredObject(resource, stored.path)

    def delete(self, bucket: str, name: str, generation: int | None, conditions: Conditions) -> None:
        """Remove the live generation, or for good the one that is named. Raises `Refused` (404, 412)."""
        stored = self.find(bucket, name, generation)
        conditions.require(stored.generation, stored.metageneration)
        with self.transaction():
            freed = self._retire(stored) if generation is None else self._remove(stored)
        _free(freed)

    def rows(
        self, bucket: str, *, above: str | None, start: str, end: str | None, versions: bool
    ) -> Iterator[StoredObject]:
        """Objects in the order of their names' bytes, generations from old to new.

        Args:
            bucket: Where.
            above: Only names after this one.
            start: Only names from this one on.
            end: Only names before this one.
            versions: Whether generations that are not live belong to it.
        """
        query = "SELECT resource, body FROM objects WHERE bucket = ? AND name >= ?"
        values: list[Any] = [bucket, start]
        if above is not None:
            query += " AND name > ?"
            values.append(above)
        if end is not None:
            query += " AND name < ?"
            values.append(end)
        if not versions:
            query += " AND live"
        for row in self.database.execute(f"{query} ORDER BY name, generation", values):
            yield self._stored(row)

    def _retire(self, stored: StoredObject, **told: str) -> Path | None:
        """End a generation's life: keep it as a noncurrent one where the bucket keeps versions, else remove it."""
        if not self.keeps_versions(stored.resource["bucket"]):
            return self._remove(stored, **told)
        archived = {**stored.resource, "timeDeleted": now()}
        self._rewrite(archived, live=False)
        self.notifications.changed("OBJECT_ARCHIVE", archived, **told)
        return None

    def _remove(self, stored: StoredObject, **told: str) -> Path:
        """Forget a generation; gives the content that is nobody's from then on."""
        self.notifications.changed("OBJECT_DELETE", stored.resource, **told)
        self.database.execute(
            "DELETE FROM objects WHERE bucket = ? AND name = ? AND generation = ?",
            (stored.resource["bucket"], stored.resource["name"], stored.generation),
        )
        return stored.path

    def _rewrite(self, resource: Resource, *, live: bool) -> None:
        self.database.execute(
            "UPDATE objects SET resource = ?, live = ? WHERE bucket = ? AND name = ? AND generation = ?",
            (json.dumps(resource), live, resource["bucket"], resource["name"], int(resource["generation"])),
        )

    def _stored(self, row: tuple[str, str]) -> StoredObject:
        return StoredObject(json.loads(row[0]), self.bodies.directory / row[1])

    def _next_generation(self) -> int:
        """Microseconds since 1970, as the service's look, and always more than the one before."""
        self._last_generation = max(self._last_generation + 1, time.time_ns() // 1000)
        return self._last_generation


def _free(path: Path | None) -> None:
    """Remove a content; a download that has begun holds the file open and ends with its bytes."""
    if path is not None:
        path.unlink()
