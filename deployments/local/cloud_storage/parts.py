"""Multipart uploads of the XML API: parts in any order, joined at the end.

Source: Cloud Storage documentation, "XML API multipart uploads".
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass

import anyio.to_thread

from deployments.local.cloud_storage.bodies import Body, Claims
from deployments.local.cloud_storage.catalog import Catalog, Resource, StoredObject, now
from deployments.local.cloud_storage.conditions import Conditions
from deployments.local.cloud_storage.faults import Refused, invalid

SMALLEST_PART_BYTES = 5 * 1024 * 1024
MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """One part that was received."""

    number: int
    etag: str
    size_bytes: int
    body: str
    updated: str


class MultipartUploads:
    """The uploads that are neither completed nor aborted, kept across a restart of the server."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def begin(self, bucket: str, name: str, resource: Resource) -> str:
        """A new upload; gives its id. Raises `Refused`: no such bucket."""
        self._catalog.bucket(bucket)
        upload_id = uuid.uuid4().hex
        self._catalog.database.execute(
            "INSERT INTO uploads VALUES (?, 'multipart', ?, ?, NULL, ?)",
            (upload_id, bucket, name, json.dumps(resource)),
        )
        return upload_id

    def uploads(self, bucket: str) -> list[tuple[str, str]]:
        """Name and id of the uploads of a bucket."""
        query = "SELECT name, id FROM uploads WHERE kind = 'multipart' AND bucket = ? ORDER BY name, id"
        return list(self._catalog.database.execute(query, (bucket,)))

    async def put(
        self,
        bucket: str,
        name: str,
        upload_id: str,
        number: int,
        pieces: AsyncIterable[bytes],
        claims: Claims,
        size_bytes: int | None,
    ) -> tuple[Part, Body]:
        """Take a part; one of the same number is replaced. Raises `Refused`: wrong checksum, no such upload."""
        self._resource(bucket, name, upload_id)
        if not 1 <= number <= MOST_PARTS:
            raise invalid(f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive.")
        body = await self._catalog.bodies.receive(pieces, size_bytes)
        try:
            claims.require(body)
            self._resource(bucket, name, upload_id)
        except Refused:
            body.path.unlink()
            raise
        etag = base64.b64decode(body.md5 or "").hex()
        part = Part(number, etag, body.size_bytes, body.path.name, now())
        for replaced in self.parts(bucket, name, upload_id):
            if replaced.number == number:
                (self._catalog.bodies.directory / replaced.body).unlink()
        self._catalog.database.execute(
            "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)",
            (upload_id, number, part.etag, part.size_bytes, part.body, part.updated),
        )
        return part, body

    def parts(self, bucket: str, name: str, upload_id: str) -> list[Part]:
        """The parts so far, by number. Raises `Refused` (404): no such upload."""
        self._resource(bucket, name, upload_id)
        query = "SELECT number, etag, size_bytes, body, updated FROM parts WHERE upload = ? ORDER BY number"
        return [Part(*row) for row in self._catalog.database.execute(query, (upload_id,))]

    async def complete(
        self,
        bucket: str,
        name: str,
        upload_id: str,
        wanted: Sequence[tuple[int, str]],
        conditions: Conditions,
        claims: Claims,
    ) -> StoredObject:
        """Join the parts that are named by number and ETag.

        Raises:
            Refused: The numbers do not ascend, a part is missing or has another ETag, one before the last is too
                small, a precondition or a checksum does not hold. The upload stays.
        """
        resource = self._resource(bucket, name, upload_id)
        numbers = [number for number, _ in wanted]
        if not wanted:
            raise Refused(400, "malformedXml", "A completion names at least one part.")
        if numbers != sorted(set(numbers)):
            raise Refused(400, "invalidPartOrder", "The list of parts was not in ascending order.")
        present = {part.number: part for part in self.parts(bucket, name, upload_id)}
        for number, etag in wanted:
            if number not in present or present[number].etag != etag.strip('"'):
                raise Refused(400, "invalidPart", "One or more of the specified parts could not be found.")
        if any(present[number].size_bytes < SMALLEST_PART_BYTES for number in numbers[:-1]):
            raise Refused(400, "entityTooSmall", "Your proposed upload is smaller than the minimum object size.")
        self._catalog.check(bucket, name, conditions)
        files = [self._catalog.bodies.directory / present[number].body for number in numbers]
        body = await anyio.to_thread.run_sync(self._catalog.bodies.join, files)
        # Another request may have completed or aborted the upload while its parts were joined.
        try:
            self._resource(bucket, name, upload_id)
        except Refused:
            body.path.unlink()
            raise
        resource = {**resource, "componentCount": len(wanted)}
        stored = self._catalog.commit(bucket, name, body, resource, conditions, claims)
        self.abort(bucket, name, upload_id)
        return stored

    def abort(self, bucket: str, name: str, upload_id: str) -> None:
        """Forget the upload and its parts. Raises `Refused` (404): no such upload."""
        for part in self.parts(bucket, name, upload_id):
            (self._catalog.bodies.directory / part.body).unlink()
        self._catalog.database.execute("DELETE FROM parts WHERE upload = ?", (upload_id,))
        self._catalog.database.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))

    def _resource(self, bucket: str, name: str, upload_id: str) -> Resource:
        query = "SELECT state FROM uploads WHERE id = ? AND kind = 'multipart' AND bucket = ? AND name = ?"
        row = self._catalog.database.execute(query, (upload_id, bucket, name)).fetchone()
        if row is None:
            raise Refused(404, "uploadNotFound", "The requested upload was not found.")
        return json.loads(row[0])
