"""A TCP connection that does harm on purpose: it is slow, falls silent, cuts answers short or changes bytes."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

Replacement = tuple[bytes, bytes]

_PIECE_BYTES = 64 * 1024
_REST_S = 0.5


class Wire:
    """Forwards connections to a server until it is left, and counts what passes.

    Args:
        url: The server's.
        bytes_per_s: How much may pass in a second, over all connections and both ways; None for no limit.
        cut_after_bytes: Close every connection after this many bytes of answers.
        cut_once_after_sent_bytes: Close the first connection that has sent this many bytes; later ones live.
        stall_after_bytes: A connection that has passed so many bytes of answers neither takes nor gives any more.
        stall_after_sent_bytes: The same for what is sent.
        most_stalls: How many connections fall silent; later ones live.
        cut_once_before: Close the first connection whose answers hold these bytes, before them. In lower case, whatever
            theirs is.
        damage_sent: Replace these bytes by as many others on their way to the server.
        damage_received: The same on their way back.
    """

    def __init__(
        self,
        url: str,
        *,
        bytes_per_s: int | None = None,
        cut_after_bytes: int | None = None,
        cut_once_after_sent_bytes: int | None = None,
        stall_after_bytes: int | None = None,
        stall_after_sent_bytes: int | None = None,
        most_stalls: int = 1,
        cut_once_before: bytes | None = None,
        damage_sent: Replacement | None = None,
        damage_received: Replacement | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._bytes_per_s = bytes_per_s
        self._free_at = time.monotonic()
        self._cut_after_bytes = cut_after_bytes
        self._cut_once_after_sent_bytes = cut_once_after_sent_bytes
        self._stall_after_bytes = stall_after_bytes
        self._stall_after_sent_bytes = stall_after_sent_bytes
        self._most_stalls = most_stalls
        self._cut_once_before = cut_once_before
        self._damage_sent = damage_sent
        self._damage_received = damage_received
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._left = threading.Event()
        self.port = int(self._listener.getsockname()[1])
        self.damaged = False
        self.cuts = 0
        self.stalls = 0
        self.sent_bytes = 0
        self.received_bytes = 0

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
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
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            silent = threading.Event()
            sending = (client, server, silent, self._sent, self._damage_sent, self._cut_sent_at)
            receiving = (server, client, silent, self._received, self._damage_received, self._cut_at)
            for arguments in (sending, receiving):
                threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(
        self,
        source: socket.socket,
        sink: socket.socket,
        silent: threading.Event,
        note: Callable[[int, int, threading.Event], None],
        damage: Replacement | None,
        cut_at: Callable[[bytes, int], int | None],
    ) -> None:
        passed = 0
        try:
            while data := source.recv(_PIECE_BYTES):
                if damage is not None:
                    # A sentence may be split between two reads: wait for the rest of a line that begins it.
                    while any(data.endswith(damage[0][:n]) for n in range(1, len(damage[0]))):
                        # What ends with such a beginning by chance has no rest.
                        if not select.select([source], [], [], _REST_S)[0] or not (more := source.recv(_PIECE_BYTES)):
                            break
                        data += more
                    self.damaged |= damage[0] in data
                    data = data.replace(*damage)
                note(len(data), passed, silent)
                if silent.is_set():
                    self._left.wait()
                    return
                limit = cut_at(data, passed)
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

    def _cut_sent_at(self, _data: bytes, _passed: int) -> int | None:
        return self._cut_once_after_sent_bytes

    def _cut_at(self, data: bytes, passed: int) -> int | None:
        """After how many bytes of answers the connection is closed, given those that follow the ones that passed."""
        if self._cut_once_before is not None and self._cut_once_before in data.lower():
            at = passed + data.lower().index(self._cut_once_before)
            self._cut_once_before = None
            return at
        return self._cut_after_bytes

    def _sent(self, size_bytes: int, before: int, silent: threading.Event) -> None:
        with self._lock:
            self.sent_bytes += size_bytes
            wait_s = self._wait_s(size_bytes)
            self._fall_silent(before + size_bytes, self._stall_after_sent_bytes, silent)
        time.sleep(wait_s)

    def _received(self, size_bytes: int, before: int, silent: threading.Event) -> None:
        with self._lock:
            self.received_bytes += size_bytes
            wait_s = self._wait_s(size_bytes)
            self._fall_silent(before + size_bytes, self._stall_after_bytes, silent)
        time.sleep(wait_s)

    def _wait_s(self, size_bytes: int) -> float:
        if self._bytes_per_s is None:
            return 0.0
        now = time.monotonic()
        self._free_at = max(now, self._free_at) + size_bytes / self._bytes_per_s
        return self._free_at - now

    def _fall_silent(self, passed: int, after_bytes: int | None, silent: threading.Event) -> None:
        if after_bytes is not None and passed > after_bytes and self.stalls < self._most_stalls:
            self.stalls += not silent.is_set()
            silent.set()
