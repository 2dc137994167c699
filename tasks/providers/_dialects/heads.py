"""Answers whose head was cut between two lines are no answers.

Python's `http.client` takes the end of a connection for the end of a head. The answer to a HEAD has no body whose
length would tell, so that an object would lose what stands in the lines that did not come: metadata, labels. But a
whole head ends with an empty line, and an answer without it is incomplete (RFC 9112, 2.1 and 8).
"""

from __future__ import annotations

import http.client
from typing import Any

import urllib3.connection


class _Lines:
    """A stream that remembers whether it met its end."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.ended = False

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self.stream.readline(size)
        self.ended = not line
        return line

    def close(self) -> None:
        self.stream.close()


class WholeHead(http.client.HTTPResponse):
    """An answer that is refused when its connection ended before its head did."""

    fp: Any

    def begin(self) -> None:
        """See `http.client.HTTPResponse`. Raises `ConnectionResetError` when the head is not whole."""
        if self.headers is not None:
            return
        lines = _Lines(self.fp)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = lines.stream
        if lines.ended:
            self.close()
            raise ConnectionResetError("the connection ended in the middle of an answer's head")


def insist_on_whole_heads() -> None:
    """Have the official SDKs of this process, which all send by urllib3, take a cut head for a cut connection.

    They know what to do then: they try again, and raise what a provider translates to `Retryable`.
    """
    urllib3.connection.HTTPConnection.response_class = WholeHead
