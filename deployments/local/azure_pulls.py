"""Put Block From URL from any source, in front of Azurite: `python -m deployments.local.azure_pulls --port N ...`.

Azurite takes blocks from its own blobs only. Everything else passes through untouched. A block that names a source is
first shown to Azurite, which checks who asks and whether there is such a container, and then says that it cannot reach
the source; then the bytes are fetched here, checked, and staged in Azurite as a block. https://learn.microsoft.com/rest/api/storageservices/put-block-from-url

What it does not imitate it refuses with 501: conditions on the source, tokens for the source, sources in file shares,
customer-provided keys. Put Blob From URL stays Azurite's. Sources may be of this machine and without TLS; a real
account reaches public addresses only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import httpx
from awscrt import checksums
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import BlobServiceClient
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.local.passing import Behind, passed_headers
from deployments.local.serve import serve

_SOURCE = "x-ms-copy-source"
_ELSEWHERE = "CannotVerifyCopySource"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_LARGEST_BLOCK_BYTES = 4000 * 1024 * 1024
_NOT_IMITATED = (
    "x-ms-source-if-match",
    "x-ms-source-if-none-match",
    "x-ms-source-if-modified-since",
    "x-ms-source-if-unmodified-since",
    "x-ms-copy-source-authorization",
    "x-ms-encryption-key",
    "x-ms-file-request-intent",
)


class Refused(Exception):
    """An answer of the service other than success."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code

    def answer(self) -> Response:
        """It in the service's words."""
        error = f"<Error><Code>{self.code}</Code><Message>{self.code}</Message></Error>"
        body = f'<?xml version="1.0" encoding="utf-8"?>{error}'
        return Response(body, self.status, {"x-ms-error-code": self.code}, "application/xml")


class Pulls:
    """The double.

    Args:
        azurite: URL of Azurite's Blob service, without the account.
        account, key: The only account, and its key in base64.
    """

    def __init__(self, azurite: str, account: str, key: str) -> None:
        self._azurite = Behind(azurite, silence_s=120)
        self._sources = httpx.AsyncClient(timeout=120, follow_redirects=False, trust_env=False)
        credential = AzureNamedKeyCredential(account, key)
        self._staging = BlobServiceClient(f"{azurite}/{account}", credential=credential)
        self._account = account

    async def handle(self, request: Request) -> Response:
        """Answer any request."""
        if request.method == "PUT" and request.query_params.get("comp") == "block" and _SOURCE in request.headers:
            try:
                return await self._block_from_url(request)
            except Refused as refused:
                return refused.answer()
        return await self._azurite.answer(request)

    async def _block_from_url(self, request: Request) -> Response:
        headers = request.headers
        if headers.get("content-length") != "0":
            raise Refused(400, "InvalidHeaderValue")
        for name in _NOT_IMITATED:
            if name in headers:
                raise Refused(501, "NotImplemented")
        known = await self._azurite.asked(request)
        await known.aread()
        code = known.headers.get("x-ms-error-code", "")
        if known.status_code < 400:
            return Response(status_code=known.status_code, headers=passed_headers(known))
        if (known.status_code, code) != (404, _ELSEWHERE):
            # It did not get as far as the source: it does not know who asks, say, or there is no such container.
            raise Refused(known.status_code, code or "NotImplemented")
        block = await self._fetched(headers)
        crc64 = base64.b64encode(checksums.crc64nvme(block).to_bytes(8, "little")).decode()
        md5 = base64.b64encode(hashlib.md5(block, usedforsecurity=False).digest()).decode()
        if headers.get("x-ms-source-content-crc64", crc64) != crc64:
            raise Refused(400, "Crc64Mismatch")
        if headers.get("x-ms-source-content-md5", md5) != md5:
            raise Refused(400, "Md5Mismatch")
        await run_in_threadpool(self._stage, request, block)
        stated = {"content-md5": md5} if "x-ms-source-content-md5" in headers else {"x-ms-content-crc64": crc64}
        return Response(status_code=201, headers={**stated, "x-ms-request-server-encrypted": "true"})

    async def _fetched(self, headers: Mapping[str, str]) -> bytes:
        span = _RANGE.fullmatch(headers.get("x-ms-source-range", ""))
        if "x-ms-source-range" in headers and span is None:
            raise Refused(400, "InvalidHeaderValue")
        asked = {"Range": span.group()} if span else {}
        try:
            answer = await self._sources.get(headers[_SOURCE], headers={"Accept-Encoding": "identity", **asked})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refused(400, _ELSEWHERE) from error
        if answer.status_code not in (200, 206):
            raise Refused(answer.status_code if answer.status_code >= 400 else 400, _ELSEWHERE)
        wanted = int(span.group(2)) - int(span.group(1)) + 1 if span else len(answer.content)
        if len(answer.content) != wanted or (span is not None and answer.status_code != 206):
            raise Refused(400, "InvalidSourceRange" if span else _ELSEWHERE)
        if wanted > _LARGEST_BLOCK_BYTES:
            raise Refused(413, "RequestBodyTooLarge")
        return answer.content

    def _stage(self, request: Request, block: bytes) -> None:
        _, container, name = request.url.path.lstrip("/").split("/", 2)
        block_id = base64.b64decode(request.query_params["blockid"]).decode()
        self._staging.get_blob_client(container, name).stage_block(block_id, block)


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="azure_pulls", description="Put Block From URL in front of Azurite.")
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1")
    parser.add_argument("--azurite", required=True, help="URL of Azurite's Blob service, without the account")
    parser.add_argument("--account", required=True, help="the account")
    parser.add_argument("--key-file", type=Path, required=True, help="file with the account's key")
    chosen = parser.parse_args()
    pulls = Pulls(chosen.azurite, chosen.account, chosen.key_file.read_text().strip())
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"]
    application = Starlette(routes=[Route("/{path:path}", pulls.handle, methods=methods)])
    serve(application, chosen.port, lifespan="off", server_header=False, date_header=False)


if __name__ == "__main__":
    main()
