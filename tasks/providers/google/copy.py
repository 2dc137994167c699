"""Cloud Storage copies inside itself; see `tasks.core.ports.ServerSideCopy`.

A rewrite is pinned to the source's generation, knows conditions on the new object and may take several calls, each of
which carries the token of the one before. https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import NotFound
from tasks.core.ports import ObjectInfo, Write
from tasks.providers.google.describing import Describing, stated_checksums
from tasks.providers.google.errors import translated

if TYPE_CHECKING:
    from google.cloud import storage

    from tasks.core.ports import Store
    from tasks.providers._dialects.objects import Place


class GoogleCopy:
    """Copies into one bucket.

    Args:
        client: The client library's.
        bucket: Its handle of the bucket.
        place: The bucket.
        describing: How its objects are described.
        is_ours: Whether another store is of the same service.
        call: Retries and timeouts of a call.
    """

    def __init__(
        self,
        client: storage.Client,
        bucket: Any,
        place: Place,
        describing: Describing,
        is_ours: Callable[[Store], bool],
        call: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._place = place
        self._describing = describing
        self._is_ours = is_ours
        self._call = dict(call)

    def way(self, source: Store) -> Literal["server-side", "pull"] | None:
        """See `ServerSideCopy.way`: anywhere in the service, as far as its credentials reach."""
        return "server-side" if self._is_ours(source) else None

    def copy(self, source: Store, key: str, version: str, write: Write) -> ObjectInfo:
        """See `ServerSideCopy.copy`."""
        if not version.isdigit() or not (write.if_version or "0").isdigit():
            raise self._place.changed(write.key)
        made: Any = self._client.bucket(source.bucket).blob(key, generation=int(version))
        target: Any = self._bucket.blob(write.key, kms_key_name=self._describing.kms_key)
        self._describing.describe(target, write.metadata, write.attributes)
        condition = 0 if write.if_absent else int(write.if_version) if write.if_version else None
        pinned = {"if_generation_match": condition, "if_source_generation_match": int(version), **self._call}
        try:
            with translated(self._place, write.key):
                token, _, _ = target.rewrite(made, **pinned)
                while token is not None:
                    token, _, _ = target.rewrite(made, token=token, **pinned)
        except NotFound as error:
            # A generation that is no longer there is a source that changed.
            if error.what == self._place.no_object(write.key).what:
                raise replace(self._place, bucket=source.bucket).changed(key) from error
            raise
        size_bytes, modified = target.size or 0, target.updated or datetime.now(UTC)
        return ObjectInfo(
            write.key,
            size_bytes,
            str(target.generation),
            modified,
            write.metadata,
            write.attributes,
            checksums=stated_checksums(target),
        )
