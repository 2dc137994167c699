"""A store in memory for laws about moving: it can be cut at any call, and it counts what was sent."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from tasks.core.attributes import PLAIN, Attributes
from tasks.core.errors import IntegrityError, NotFound, PreconditionFailed
from tasks.core.ports import ObjectInfo

_PIECE_BYTES = 64 * 1024


class MemoryStore:
    """The `Store` port over a dictionary. `before` is called with the name of every call and may raise."""

    def __init__(
        self, cloud: str = "memory", bucket: str = "b", before: Callable[[str, str], None] | None = None
    ) -> None:
        self._name = (cloud, bucket)
        self.objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self.sent: list[str] = []
        self.before = before or (lambda _call, _key: None)
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def cloud(self) -> str:
        return self._name[0]

    @property
    def bucket(self) -> str:
        return self._name[1]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.before("list", prefix)
        for key in list(self.objects):
            if key.startswith(prefix):
                yield self.objects[key][1]

    def head(self, key: str) -> ObjectInfo:
        self.before("head", key)
        if key not in self.objects:
            raise NotFound(f"no object '{key}'", "write it")
        return self.objects[key][1]

    def get(
        self, key: str, *, version: str | None = None, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        info = self.head(key)
        if version is not None and info.version != version:
            raise PreconditionFailed(f"'{key}' changed", "plan again")
        content = self.objects[key][0]
        content = content[start:] if length is None else content[start : start + length]
        for at in range(0, len(content), _PIECE_BYTES):
            self.before("read", key)
            yield content[at : at + _PIECE_BYTES]

    def put(
        self,
        key: str,
        body: Iterable[bytes],
        *,
        size_bytes: int,
        metadata: Mapping[str, str] | None = None,
        attributes: Attributes = PLAIN,
        if_version: str | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        self.before("put", key)
        content = b"".join(body)
        if len(content) != size_bytes:
            raise IntegrityError(f"'{key}' has another size", "run again")
        with self._lock:
            there = self.objects.get(key)
            if (if_absent and there is not None) or (
                if_version is not None and (there is None or there[1].version != if_version)
            ):
                raise PreconditionFailed(f"'{key}' changed", "plan again")
            info = ObjectInfo(
                key, size_bytes, f"v{next(self._versions)}", datetime.now(UTC), dict(metadata or {}), attributes
            )
            self.objects[key] = (content, info)
            self.sent.append(key)
        self.before("written", key)
        return info

    def delete(self, key: str) -> None:
        self.before("delete", key)
        self.objects.pop(key, None)

    def create_bucket(self) -> None:
        self.before("create_bucket", "")

    def write(self, key: str, content: bytes) -> None:
        """Put an object there as somebody else would."""
        self.put(key, [content], size_bytes=len(content))
        self.sent.clear()

    def contents(self) -> dict[str, bytes]:
        """Every object but Lintas' own."""
        return {key: content for key, (content, _) in self.objects.items() if ".lintas/" not in key}


class MemoryJournal:
    """The `Journal` port over a dictionary."""

    def __init__(self) -> None:
        self.digests: dict[tuple[str, str, str, str, int], str] = {}

    def known(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int) -> str | None:
        return self.digests.get((cloud, bucket, key, version, size_bytes))

    def between(self, cloud: str, bucket: str, first: str, last: str) -> Iterator[tuple[str, str, int, str]]:
        latest = {
            key: (key, version, size_bytes, digest)
            for (a_cloud, a_bucket, key, version, size_bytes), digest in self.digests.items()
            if (a_cloud, a_bucket) == (cloud, bucket) and first <= key <= last
        }
        yield from latest.values()

    def record(self, cloud: str, bucket: str, key: str, version: str, size_bytes: int, digest: str) -> None:
        self.digests.pop((cloud, bucket, key, version, size_bytes), None)
        self.digests[(cloud, bucket, key, version, size_bytes)] = digest

    def record_all(self, rows: Sequence[tuple[str, str, str, str, int, str]]) -> None:
        for row in rows:
            self.record(*row)
