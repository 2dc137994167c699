"""A head that is cut anywhere is refused, and a whole one is read as ever."""

from __future__ import annotations

import http.client
import io
from typing import Any

import pytest

from tasks.providers._dialects.heads import WholeHead

HEAD = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 2\r\nx-amz-meta-team: blue\r\n\r\n'


class Connection:
    """As much of a socket as an answer needs: it ends after these bytes."""

    def __init__(self, heard: bytes) -> None:
        self._heard = heard

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._heard)


def answer(heard: bytes, method: str) -> http.client.HTTPResponse:
    connection: Any = Connection(heard)
    response = WholeHead(connection, method=method)
    response.begin()
    return response


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_only_a_whole_head_is_an_answer(method: str, before: bytes) -> None:
    for size_bytes in range(len(HEAD)):
        with pytest.raises((http.client.HTTPException, ConnectionResetError)):
            answer(before + HEAD[:size_bytes], method)
    whole = answer(before + HEAD + b"ok", method)
    assert whole.getheader("x-amz-meta-team") == "blue"
    assert whole.read() == (b"" if method == "HEAD" else b"ok")
