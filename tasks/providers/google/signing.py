"""Cloud Storage, authorised without its SDK, so that a process of few megabytes can; see `tasks.core.ports.Signing`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from urllib.parse import quote, urlencode

from awscrt import checksums

from tasks.core.attributes import Description
from tasks.core.ports import Answer, SignedRequest, Write
from tasks.providers._dialects.objects import Pass, Place, RunningChecksum, range_header
from tasks.providers.google.describing import Describing


class GoogleSigning:
    """Implements `tasks.core.ports.Signing`, where the methods are described.

    Args:
        origin, base: Where the service is: scheme and host, and what paths begin with.
        place: The bucket.
        describing: How its objects are described.
        authorize: What lets the next request through.
    """

    def __init__(
        self, origin: str, base: str, place: Place, describing: Describing, authorize: Callable[[], Pass]
    ) -> None:
        self._origin = origin
        self._base = base
        self._place = place
        self._describing = describing
        self._authorize = authorize
        self._asking = {"x-goog-user-project": describing.user_project} if describing.user_project else {}

    def get(self, key: str, *, version: str, start: int, length: int | None) -> SignedRequest:
        # Asking for gzip keeps an object that is stored compressed as it is stored. The XML API, unlike the JSON API,
        # answers with everything that is kept with the object.
        headers = {"Accept-Encoding": "gzip"}
        if version:
            headers["x-goog-if-generation-match"] = version
        span = range_header(start, length)
        if span is not None:
            headers["Range"] = span
        return self._authorized("GET", self._path(key), headers)

    def described(self, key: str, answer: Answer) -> Description | None:
        return self._describing.read_headers(answer.headers)

    def proof(self) -> RunningChecksum:
        return RunningChecksum(checksums.crc32c, crc32c_text)

    def put(self, write: Write, proof: str) -> SignedRequest:
        headers = {
            **self._describing.headers(write.metadata, write.attributes),
            "x-goog-hash": f"crc32c={proof}",
        }
        generation = self._condition(write)
        if generation is not None:
            headers["x-goog-if-generation-match"] = str(generation)
        return self._authorized("PUT", self._path(write.key), headers, proof)

    def written(self, write: Write, request: SignedRequest, answer: Answer) -> str:
        self._confirm(write.key, request, answer)
        if "x-goog-generation" not in answer.headers:
            raise self._place.not_understood("no generation")
        return answer.headers["x-goog-generation"]

    def part(self, write: Write, upload_id: str, number: int, proof: str) -> SignedRequest:
        name, _, upload = upload_id.partition("#")
        query = urlencode({"partNumber": number, "uploadId": upload})
        return self._authorized("PUT", f"{self._path(name)}?{query}", {"x-goog-hash": f"crc32c={proof}"}, proof)

    def part_tag(self, request: SignedRequest, answer: Answer) -> str:
        self._confirm("a part", request, answer)
        if "etag" not in answer.headers:
            raise self._place.not_understood("no ETag")
        return answer.headers["etag"]

    def _condition(self, write: Write) -> int | None:
        if write.if_absent:
            return 0
        if write.if_version is None:
            return None
        if not write.if_version.isdigit():
            raise self._place.changed(write.key)
        return int(write.if_version)

    def _path(self, key: str) -> str:
        return f"{self._base}/{quote(self._place.bucket, safe='')}/{quote(key, safe='/~')}"

    def _authorized(self, method: str, target: str, headers: dict[str, str], proof: str = "") -> SignedRequest:
        headers |= {**self._asking, **self._authorize().headers}
        return SignedRequest(method, self._origin, target, headers, proof)

    def _confirm(self, key: str, request: SignedRequest, answer: Answer) -> None:
        for stated in answer.headers.get("x-goog-hash", "").split(","):
            name, _, value = stated.strip().partition("=")
            if name == "crc32c" and value != request.proof:
                raise self._place.damaged(key)


def crc32c_text(value: int) -> str:
    """A CRC32C as requests carry it."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()
