"""A server in trouble: it answers a share of all requests with 503 before it has done anything."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from types import TracebackType
from urllib.parse import urlsplit

_END_OF_HEAD = b"\r\n\r\n"
_BODY = b"<?xml version='1.0'?><Error><Code>ServerBusy</Code><Message>Slow down.</Message></Error>"
_REFUSAL = (
    b"HTTP/1.1 503 Slow Down\r\nRetry-After: 0\r\nx-ms-error-code: ServerBusy\r\nContent-Type: application/xml\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_BODY), _BODY)
)


class Storm:
    """Stands before a server until it is left. Each connection carries one request.

    Args:
        url: The server's.
        share: Of the requests that are refused, from 0 to 1.
        seed: Of the draws.
    """

    def __init__(self, url: str, *, share: float, seed: int) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._share = share
        self._draws = random.Random(seed)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.refused = 0

    def __enter__(self) -> Storm:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake a thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            data = b""
            while _END_OF_HEAD not in data:
                more = client.recv(65536)
                if not more:
                    return
                data += more
            head, _, begun = data.partition(_END_OF_HEAD)
            with self._lock:
                refuses = self._draws.random() < self._share
                self.refused += refuses
            if refuses:
                client.sendall(_REFUSAL)
                return
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            with socket.create_connection(self._server) as server:
                server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + _END_OF_HEAD + begun)
                sending = threading.Thread(target=self._pump, args=(client, server), daemon=True)
                sending.start()
                while piece := server.recv(65536):
                    client.sendall(piece)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                server.sendall(piece)
