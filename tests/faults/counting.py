"""A connection that counts what passes to the server and lets no more through than a given rate."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from urllib.parse import urlsplit

_PIECE_BYTES = 64 * 1024


class CountingWire:
    """Forwards connections to a server until it is left.

    Args:
        url: The server's.
        bytes_per_s: How much may pass to it in a second, over all connections; None for no limit.
    """

    def __init__(self, url: str, *, bytes_per_s: int | None = None) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._bytes_per_s = bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._free_at = time.monotonic()
        self.port = int(self._listener.getsockname()[1])
        self.sent_bytes = 0

    def __enter__(self) -> CountingWire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake a thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += [client, server]
            for source, sink, counted in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._forward, args=(source, sink, counted), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(_PIECE_BYTES):
                if counted:
                    self._pass(len(data))
                sink.sendall(data)
        except OSError:
            return  # One end went away; the other follows.
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _pass(self, size_bytes: int) -> None:
        with self._lock:
            self.sent_bytes += size_bytes
            if self._bytes_per_s is None:
                return
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + size_bytes / self._bytes_per_s
            wait_s = self._free_at - now
        time.sleep(wait_s)
