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
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
_PR_SET_PDEATHSIG = 1
_IMPORTED = (
    "azure.storage.blob",
    "boto3",
    "deployments.cli",
    "deployments.cli.watching",
    "google.cloud.storage",
    "prefect",
    "prefect.artifacts",
    "prefect.client.orchestration",
    "prefect.task_runners",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
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
    return _server().call(arguments, env, str(cwd or Path.cwd()), timeout_s)


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
        self._answers = self._socket.makefile()
        atexit.register(self.close)

    def close(self) -> None:
        """End it, and with it whatever still runs."""
        self._process.kill()
        self._process.wait()

    def call(
        self, arguments: tuple[str, ...], env: Mapping[str, str], cwd: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            order = json.dumps({"arguments": arguments, "env": dict(env), "cwd": cwd}).encode()
            streams = array.array("i", [out.fileno(), err.fileno()])
            header = len(order).to_bytes(4, "big")
            self._socket.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
            self._socket.sendall(order)
            pid = self._answer()["pid"]
            # Nothing but the answer comes, so the buffer above the socket is empty.
            in_time = bool(select.select([self._socket], [], [], timeout_s)[0])
            if not in_time:
                os.kill(pid, signal.SIGKILL)
            code = self._answer()["code"]
            if not in_time:
                raise subprocess.TimeoutExpired(["lintas", *arguments], timeout_s)
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess(["lintas", *arguments], code, *said)

    def _answer(self) -> dict[str, Any]:
        return json.loads(self._answers.readline())


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
        _tell(orders, pid=pid)
        _tell(orders, code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


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
            raise EOFError("the tests are gone in the middle of a call")
        received += piece
    return bytes(received)


def _tell(stream: socket.socket, **facts: int) -> None:
    stream.sendall(json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
