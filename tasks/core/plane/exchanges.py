"""Small exchanges on a thread that needs no interpreter; `exchange.c` is what runs there.

Of the time that a small object takes, most was the interpreter's: waiting for sockets, cutting heads into lines. Here
it is asked once for every batch of exchanges that begin, and once for every batch that has ended. Where the program
cannot be had (see `tasks.core.compiled`), `tasks.core.plane.wire` does the same in Python, with the same answers.
"""

from __future__ import annotations

import ctypes
import functools
import ssl
import struct
import threading
from pathlib import Path
from typing import Any, NamedTuple

from tasks.core.compiled import compiled
from tasks.core.plane.loop import Loop, Task, parked

SILENT = 2
"""The error of an exchange that fell silent, as `exchange.c` numbers it."""

_USABLE, _BEGUN = 1, 2
_MOST_CONNECTIONS = 4096
_BATCH = 256
_FIELDS_BYTES = 512 * 1024
"""Room for the heads of a batch; more than the longest of one."""

_ASK = struct.Struct("=6q")
_ENDED = struct.Struct("=7q")
_OPENSSL = ("SSL_read", "SSL_write", "SSL_get_error", "ERR_clear_error")
_LOADING = threading.Lock()


class Ended(NamedTuple):
    """How an exchange ended.

    Args:
        error: Why it failed; 0 when it did not.
        usable: Whether the connection is good for another one.
        begun: Whether anything came back.
        status, headers: The answer's, with names in lower case.
        body: Its content, where that was not asked for.
        size_bytes: How much content came.
    """

    error: int
    usable: bool
    begun: bool
    status: int
    headers: dict[str, str]
    body: bytes
    size_bytes: int


class Exchanges:
    """The connections of a pump that small exchanges take.

    Args:
        loop: What their callers wait in.
        library: The loaded program.
        engine: Its thread.
    """

    def __init__(self, loop: Loop, library: _Library, engine: int) -> None:
        self._library, self._engine = library, engine
        self._tasks: dict[int, Task] = {}
        # Whoever waits may be gone before the thread is: until then this is what keeps the memory.
        self._memory: dict[int, tuple[memoryview | None, memoryview | None]] = {}
        self._asks: list[bytes] = []
        self._heads: list[bytes] = []
        self._ended = ctypes.create_string_buffer(_BATCH * _ENDED.size)
        self._fields = ctypes.create_string_buffer(_FIELDS_BYTES)
        loop.attach(library.done_bell(self._engine), self._answer, self._ask)
        self._loop = loop

    @classmethod
    def begun(cls, loop: Loop, silence_s: float) -> Exchanges | None:
        """With a thread of its own; None where the program or a thread cannot be had.

        Args:
            loop: What their callers wait in.
            silence_s: How long a connection may neither take nor give a byte, in seconds.
        """
        library = loaded()
        engine = library and library.open(int(silence_s * 1000), _MOST_CONNECTIONS, library.openssl)
        return cls(loop, library, engine) if library and engine else None

    def join(self, number: int, tls: ssl.SSLSocket | None) -> int | None:
        """Take a connection; the slot to name it by, or None when it cannot be taken.

        Args:
            number: Its descriptor, which does not block.
            tls: What speaks TLS over it, if that is spoken; it has shaken hands.
        """
        pointer = None
        if tls is not None:
            pointer = _openssl_of(tls) if self._library.openssl.read else None
            if pointer is None:
                return None
        slot: int = self._library.join(self._engine, number, pointer)
        return slot if slot >= 0 else None

    def leave(self, slot: int) -> None:
        """Give a connection back, on which nothing is under way."""
        if self._engine:
            self._library.leave(self._engine, slot)

    async def exchange(self, slot: int, head: bytes, body: memoryview | None, room: memoryview | None) -> Ended:
        """Send a request and take its answer.

        Args:
            slot: The connection.
            head: The request's head.
            body: Its body, which is left alone meanwhile.
            room: Where the content of a successful answer goes, which must have room for it.
        """
        (at, size_bytes), (to, room_bytes) = _place(body), _place(room)
        self._memory[slot] = body, room
        self._asks.append(_ASK.pack(slot, len(head), at, size_bytes, to, room_bytes))
        self._heads.append(head)

        def wait(task: Task) -> None:
            self._tasks[slot] = task

        return await parked(wait)

    def close(self) -> None:
        """End what is under way: no memory of others is written to afterwards."""
        self._library.close(self._engine)
        self._engine = 0
        self._memory.clear()

    def _ask(self) -> None:
        if not self._asks:
            return
        count = len(self._asks)
        if self._library.ask(self._engine, b"".join(self._asks), count, b"".join(self._heads)):
            raise MemoryError
        self._asks.clear()
        self._heads.clear()

    def _answer(self) -> None:
        count = self._library.answers(self._engine, self._ended, _BATCH, self._fields, _FIELDS_BYTES)
        ended = memoryview(self._ended)[: count * _ENDED.size]
        entries = list(_ENDED.iter_unpack(ended))
        fields, at = memoryview(self._fields), 0
        for slot, status, error, flags, size_bytes, spilled, fields_bytes in entries:
            parts = str(fields[at : at + fields_bytes], "latin-1").split("\n")
            at += fields_bytes
            headers = dict(zip(parts[:-1:2], parts[1::2], strict=True))
            body = ctypes.string_at(spilled, size_bytes) if spilled else b""
            done = Ended(error, bool(flags & _USABLE), bool(flags & _BEGUN), status, headers, body, size_bytes)
            del self._memory[slot]
            self._loop.resume(self._tasks.pop(slot), done)


class _Functions(ctypes.Structure):
    """The program's struct Secure."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("read", "write", "error", "clear"))


class _Library:
    """The loaded program. What takes microseconds keeps the interpreter's lock; handing it over costs more."""

    def __init__(self, path: Path) -> None:
        quick, slow = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self.open = _function(quick.lintas_open, pointer, number, number, ctypes.POINTER(_Functions))
        self.done_bell = _function(quick.lintas_done_bell, ctypes.c_int, pointer)
        self.join = _function(quick.lintas_join, number, pointer, ctypes.c_int, pointer)
        self.leave = _function(quick.lintas_leave, None, pointer, number)
        self.ask = _function(quick.lintas_ask, number, pointer, ctypes.c_char_p, number, ctypes.c_char_p)
        self.answers = _function(quick.lintas_answers, number, pointer, pointer, number, pointer, number)
        self.close = _function(slow.lintas_close, None, pointer)
        self.openssl = _openssl()


def loaded() -> _Library | None:
    """The program of this machine; None when it cannot be had or is not wanted."""
    with _LOADING:
        return _loaded()


@functools.cache
def _loaded() -> _Library | None:
    path = compiled("exchange", Path(__file__).with_name("exchange.c").read_text())
    try:
        return _Library(path) if path else None
    except OSError:
        return None


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, list(arguments)
    return function


def _place(view: memoryview | None) -> tuple[int, int]:
    if view is None or not len(view):
        return 0, 0
    return ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view)


def _openssl() -> _Functions:
    """The functions of the OpenSSL that Python's `ssl` speaks with; nothing where they have no names."""
    import _ssl

    try:
        library = ctypes.CDLL(_ssl.__file__)
        return _Functions(*(ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _OPENSSL))
    except (AttributeError, OSError):
        return _Functions()


def _openssl_of(tls: ssl.SSLSocket) -> int | None:
    """OpenSSL's own pointer behind a connection that Python has opened and trusts; None where it is not to be found.

    It lies in CPython's `PySSLSocket` (Modules/_ssl.c) between the socket and the context. That the context is where
    it should be tells that the rest is too.
    """
    held: object = getattr(tls, "_sslobj", None)
    word, begin = ctypes.sizeof(ctypes.c_void_p), object.__basicsize__
    if type(held).__basicsize__ < begin + 3 * word:
        return None
    _, pointer, context = (ctypes.c_void_p * 3).from_address(id(held) + begin)
    return pointer if context == id(tls.context) else None
