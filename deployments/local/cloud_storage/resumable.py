"""Resumable uploads of the JSON API: a session takes content in chunks, says how far it is, and may be continued.

Source: Cloud Storage documentation, "Perform resumable uploads". Content is kept in multiples of 256 KiB until its
end; what a cut connection brought beyond that is dropped, and the next 308 says so.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from deployments.local.cloud_storage.bodies import Claims
from deployments.local.cloud_storage.catalog import Catalog, Resource
from deployments.local.cloud_storage.conditions import Conditions
from deployments.local.cloud_storage.faults import Refused, invalid

QUANTUM_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Announced:
    """A `Content-Range` of an upload: `bytes FIRST-LAST/TOTAL`; None stands for `*`."""

    first: int | None
    last: int | None
    total: int | None

    @classmethod
    def of(cls, header: str | None) -> Announced | None:
        """Read the header; None when there is none. Raises `Refused` (400) when it makes no sense."""
        if header is None:
            return None
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", header.strip())
        if match is None:
            raise invalid("Failed to parse Content-Range header.")
        numbers = [None if text in (None, "*") else int(text) for text in match.groups()]
        first, last, total = numbers
        if first is not None and last is not None and (last < first or (total is not None and last >= total)):
            raise invalid("Invalid Content-Range header.")
        return cls(first, last, total)


@dataclass(slots=True)
class Session:
    """A resumable upload.

    Args:
        id: Its secret name: whoever knows it may continue the upload without other credentials.
        bucket: Where the object goes.
        name: The object's name.
        path: Where the content is gathered.
        resource: What the first request said of the object.
        conditions: Preconditions, which hold at the beginning and at the end.
        claims: Checksums that were claimed at the beginning.
        total_bytes: Size that was announced at the beginning.
        finished: The object's resource once the upload is complete.
    """

    id: str
    bucket: str
    name: str
    path: Path
    resource: Resource
    conditions: Conditions
    claims: Claims
    total_bytes: int | None = None
    finished: Resource | None = None

    def size_bytes(self) -> int:
        """How much has been kept so far."""
        return self.path.stat().st_size


class ResumableUploads:
    """The sessions, kept across a restart of the server."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def begin(
        self,
        bucket: str,
        name: str,
        resource: Resource,
        conditions: Conditions,
        claims: Claims,
        total_bytes: int | None,
    ) -> Session:
        """A new session. Raises `Refused`: no such bucket, or a precondition does not hold already."""
        self._catalog.check(bucket, name, conditions)
        path = self._catalog.bodies.new()
        path.touch()
        session = Session(uuid.uuid4().hex, bucket, name, path, resource, conditions, claims, total_bytes)
        self._catalog.database.execute(
            "INSERT INTO uploads VALUES (?, 'resumable', ?, ?, ?, ?)",
            (session.id, bucket, name, path.name, _state(session)),
        )
        return session

    def find(self, upload_id: str) -> Session:
        """The session. Raises `Refused` (404): the client begins anew."""
        query = "SELECT bucket, name, body, state FROM uploads WHERE id = ? AND kind = 'resumable'"
        row = self._catalog.database.execute(query, (upload_id,)).fetchone()
        if row is None:
            raise Refused(404, "uploadNotFound", "Upload session not found.")
        state: dict[str, Any] = json.loads(row[3])
        return Session(
            upload_id,
            row[0],
            row[1],
            self._catalog.bodies.directory / (row[2] or "finished"),
            state["resource"],
            Conditions(**state["conditions"]),
            Claims(**state["claims"]),
            state["total_bytes"],
            state["finished"],
        )

    def cancel(self, session: Session) -> None:
        """Forget the session and its content."""
        self._catalog.database.execute("DELETE FROM uploads WHERE id = ?", (session.id,))
        if session.finished is None:
            session.path.unlink()

    async def take(
        self, session: Session, announced: Announced | None, pieces: AsyncIterable[bytes], headers: Mapping[str, str]
    ) -> Resource | None:
        """Take a chunk, or only say how far the upload is.

        Returns:
            The object's resource when the upload is complete, None when more is to come.

        Raises:
            Refused: The chunk does not fit what was kept, a checksum is wrong, or a precondition fails at the end.
        """
        if session.finished is not None:
            return session.finished
        total = announced.total if announced and announced.total is not None else session.total_bytes
        if announced is None or announced.first is not None:
            total = await self._append(session, announced, pieces, total)
        kept = session.size_bytes()
        if total is None or kept < total:
            return None
        if kept > total:
            raise invalid(f"The upload has {kept} bytes, more than the {total} announced.")
        return await self._finish(session, headers)

    async def _append(
        self, session: Session, announced: Announced | None, pieces: AsyncIterable[bytes], total: int | None
    ) -> int | None:
        """Keep what the request brings; gives the total when the request makes it known."""
        kept = session.size_bytes()
        first = announced.first if announced and announced.first is not None else 0
        if first > kept:
            raise invalid(
                "Invalid request.  According to the Content-Range header, the upload offset is "
                f"{first} byte(s), which exceeds already uploaded size of {kept} byte(s)."
            )
        received = await self._catalog.bodies.append(session.path, pieces, skip_bytes=kept - first)
        now_kept = max(kept, first + received)
        if announced is None:
            expected = session.total_bytes if session.total_bytes is not None else received
            total = expected
        else:
            expected = (announced.last or 0) - first + 1
        if received > expected:
            _truncate(session.path, kept)
            raise invalid(
                f"Invalid request.  There were {received} byte(s) in the request body.  There should have been "
                f"{expected} byte(s) (starting at offset {first} and ending at offset {first + expected - 1}) "
                "according to the Content-Range header."
            )
        if received < expected or now_kept != total:
            _truncate(session.path, max(kept, now_kept - now_kept % QUANTUM_BYTES))
        return total

    async def _finish(self, session: Session, headers: Mapping[str, str]) -> Resource:
        """Make the content an object; a refusal ends the session, as nothing could be mended in it."""
        body = await anyio.to_thread.run_sync(self._catalog.bodies.describe, session.path)
        claims = session.claims.merged(Claims.of(headers))
        try:
            stored = self._catalog.commit(
                session.bucket, session.name, body, session.resource, session.conditions, claims
            )
        except Refused:
            self._catalog.database.execute("DELETE FROM uploads WHERE id = ?", (session.id,))
            raise
        session.finished = stored.resource
        self._catalog.database.execute(
            "UPDATE uploads SET state = ?, body = NULL WHERE id = ?", (_state(session), session.id)
        )
        return stored.resource


def _state(session: Session) -> str:
    return json.dumps(
        {
            "resource": session.resource,
            "conditions": asdict(session.conditions),
            "claims": asdict(session.claims),
            "total_bytes": session.total_bytes,
            "finished": session.finished,
        }
    )


def _truncate(path: Path, size_bytes: int) -> None:
    with path.open("ab") as file:
        file.truncate(size_bytes)
