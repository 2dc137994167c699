"""A TCP connection that does harm on purpose: it cuts answers short or changes bytes on their way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

Replacement = tuple[bytes, bytes]


class Wire:
    """Forwards connections to a server until it is left.

    Args:
        url: The server's.
        cut_after_bytes: Close every connection after this many bytes of answers.
        cut_once_after_sent_bytes: Close the first connection that has sent this many bytes; later ones live.
        damage_sent: Replace these bytes by as many others on their way to the server.
        damage_received: The same on their way back.
    """

    def __init__(
        self,
        url: str,
        *,
        cut_after_bytes: int | None = None,
        cut_once_after_sent_bytes: int | None = None,
        damage_sent: Replacement | None = None,
        damage_received: Replacement | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._cut_after_bytes = cut_after_bytes
        self._cut_once_after_sent_bytes = cut_once_after_sent_bytes
        self._damage_sent = damage_sent
        self._damage_received = damage_received
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.damaged = False
        self.cuts = 0

    def __enter__(self) -> Wire:
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
            sending = (client, server, self._damage_sent, lambda: self._cut_once_after_sent_bytes)
            receiving = (server, client, self._damage_received, lambda: self._cut_after_bytes)
            for arguments in (sending, receiving):
                threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(
        self,
        source: socket.socket,
        sink: socket.socket,
        damage: Replacement | None,
        limit_bytes: Callable[[], int | None],
    ) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                if damage is not None:
                    # A sentence may be split between two reads: wait for the rest of a line that begins it.
                    while any(data.endswith(damage[0][:n]) for n in range(1, len(damage[0]))):
                        more = source.recv(65536)
                        if not more:
                            break
                        data += more
                    self.damaged |= damage[0] in data
                    data = data.replace(*damage)
                limit = limit_bytes()
                sink.sendall(data[: None if limit is None else max(0, limit - passed)])
                passed += len(data)
                if limit is not None and passed >= limit:
                    self.cuts += 1
                    self._cut_once_after_sent_bytes = None
                    break
        except OSError:
            return  # One end went away; the other follows.
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
