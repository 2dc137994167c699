"""The `lintas` command for tests: a process for each call, forked from one that has done the slow imports already.

What most verbs import takes a process three to five seconds, and almost nothing when it is in memory at the fork. All
else is as in a shell: own environment, directory, standard streams, exit code. That the installed program starts is
tested with `cold`, as is whatever kills it.

The fork server is `python -m tests.command FD`; FD is a Unix socket, on which it takes one call after the other.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parents[1]
_PR_SET_PDEATHSIG = 1
_IMPORTED = (
    "azure.storage.blob",
    "boto3",
    "deployments.cli",
    "deployments.cli.watching",
    "flows.moving",
    "google.cloud.storage",
    "prefect",
    "prefect.artifacts",
    "prefect.client.orchestration",
    "prefect.task_runners",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "tasks.policies",
    "tasks.registry",
    "tasks.steps",
)
"""Nothing that imports polars: it starts threads at once, and threads do not survive a fork."""


def lintas(
    *arguments: str, env: Mapping[str, str], cwd: Path | str | None = None, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end.

    Args:
        arguments: The verb and what follows it.
        env: The whole environment.
        cwd: Where it runs; None: here.
        timeout_s: Seconds after which it is killed and `TimeoutExpired` raised.
    """
    try:
        code, said = _server().call(arguments, env, str(cwd or Path.cwd()), timeout_s)
    except BaseException:
        # Nobody knows what it would answer to the next call.
        _server().close()
        _server.cache_clear()
        raise
    if code is None:
        raise subprocess.TimeoutExpired(["lintas", *arguments], timeout_s, *said)
    return subprocess.CompletedProcess(["lintas", *arguments], code, *said)


def cold(*arguments: str) -> list[str]:
    """The command line of the installed program."""
    from deployments.local.object_stores import console_script

    return [console_script("lintas"), *arguments]


class _Server:
    """The fork server as its client sees it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.command", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        atexit.register(self.close)

    def close(self) -> None:
        """End it, and with it whatever still runs."""
        self._process.kill()
        self._process.wait()

    def call(
        self, arguments: tuple[str, ...], env: Mapping[str, str], cwd: str, timeout_s: float
    ) -> tuple[int | None, tuple[str, str]]:
        """The exit code, or None when it was killed because it took too long; and what it wrote to both streams."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            order = json.dumps({"arguments": arguments, "env": dict(env), "cwd": cwd}).encode()
            streams = array.array("i", [out.fileno(), err.fileno()])
            header = len(order).to_bytes(4, "big")
            self._socket.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
            self._socket.sendall(order)
            pid = _number(self._socket)
            in_time = bool(select.select([self._socket], [], [], timeout_s)[0])
            if not in_time:
                os.kill(pid, signal.SIGKILL)
            code = _number(self._socket)
            return code if in_time else None, (_text(out), _text(err))


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


@cache
def _server() -> _Server:
    return _Server()


def _serve(orders: socket.socket) -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    while True:
        header, ancillary, _, _ = orders.recvmsg(4, socket.CMSG_LEN(2 * array.array("i").itemsize))
        if not header:
            return
        streams = array.array("i")
        for _, _, data in ancillary:
            streams.frombytes(data)
        order = json.loads(_exactly(orders, int.from_bytes(header, "big")))
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            orders.close()
            _be_lintas(server, streams, **order)
        for stream in streams:
            os.close(stream)
        _tell(orders, pid)
        _tell(orders, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _be_lintas(server: int, streams: array.array[int], arguments: list[str], env: dict[str, str], cwd: str) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # It died before the call.
        os._exit(1)
    for stream, number in zip(streams, (1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["lintas", *arguments]
    from deployments.cli import main

    main()
    sys.exit(0)


def _exactly(stream: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = stream.recv(count - len(received))
        if not piece:
            raise EOFError("the other end is gone in the middle of a call; its words stand above")
        received += piece
    return bytes(received)


def _tell(stream: socket.socket, number: int) -> None:
    stream.sendall(number.to_bytes(4, "big", signed=True))


def _number(stream: socket.socket) -> int:
    return int.from_bytes(_exactly(stream, 4), "big", signed=True)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
