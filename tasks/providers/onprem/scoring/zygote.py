"""The fork server: imports once what every model needs, then forks a scoring process for each order.

It speaks lines of JSON over the socket that it inherits:

| from the host | meaning |
| --- | --- |
| `{"id", "spawn": {"definition", "directory", "log"}}` | fork a scoring process |
| `{"stop": pid, "signal": number}` | send a signal to a scoring process, if it still is one |

| to the host | meaning |
| --- | --- |
| `{"ready": seconds}` | everything is imported |
| `{"id", "pid", "port"}` | it was forked; connections to the port wait until it serves |
| `{"exited": pid, "code", "reason"}` | it has ended |

It ends, and every scoring process with it, when the socket is closed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tasks.core.errors import LintasError
from tasks.providers.onprem.scoring.process import Definition, serve

_PR_SET_PDEATHSIG = 1
_LOG_LIMIT_BYTES = 5 * 1024 * 1024
_REASON_LIMIT_BYTES = 400
_BACKLOG = 256
_IMPORTED = (
    # First: for each function that it trusts it looks into every module that is loaded already.
    "skops.io",
    "mlflow.pyfunc.scoring_server",
    "mlflow.sklearn",
    "pandas",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "uvicorn",
    "uvicorn.protocols.http.auto",
)
_NOT_IMPORTED = ("polars", "dask", "pytest")
"""What the above import when it is installed, and need not: polars starts threads when it is imported, and threads do
not survive a fork; the other two, of which skops.io makes scikit-learn look at every part, take seconds."""


def main() -> None:
    """Run until the host goes away."""
    parser = argparse.ArgumentParser(description="Fork server of the scoring host; started by it alone.")
    parser.add_argument("--control", type=int, required=True, help="inherited socket to the host")
    parser.add_argument("--parent", type=int, required=True, help="process id of the host")
    arguments = parser.parse_args()
    _die_with(arguments.parent)
    Zygote(socket.socket(fileno=arguments.control)).run()


def import_everything() -> None:
    """Import what models need, so that a fork finds it in memory."""
    # A model that needs one of these imports it in its own process.
    hidden = {name: sys.modules.get(name) for name in _NOT_IMPORTED}
    sys.modules.update(dict.fromkeys(hidden))  # pyright: ignore[reportArgumentType, reportCallIssue]
    try:
        for name in _IMPORTED:
            importlib.import_module(name)
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    gc.collect()
    # What is frozen is not written to by the collector, so that the pages stay shared between the processes.
    gc.freeze()


@dataclass
class Zygote:
    """The loop: orders from the host in, news of children out. One thread, no event loop."""

    control: socket.socket
    _children: dict[int, int] = field(default_factory=dict[int, int])
    _pending: bytearray = field(default_factory=bytearray)

    def run(self) -> None:
        """Serve orders until the host closes its end."""
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        began = time.monotonic()
        import_everything()
        self._tell({"ready": round(time.monotonic() - began, 3)})
        with selectors.DefaultSelector() as selector:
            selector.register(self.control, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == woken:
                        os.read(woken, 4096)
                        self._reap()
                    elif not self._receive():
                        return

    def _receive(self) -> bool:
        data = self.control.recv(65536)
        self._pending += data
        while b"\n" in self._pending:
            line, _, self._pending = self._pending.partition(b"\n")
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, order: dict[str, Any]) -> None:
        if "spawn" in order:
            pid, port = self._spawn(**order["spawn"])
            self._tell({"id": order["id"], "pid": pid, "port": port})
        elif order["stop"] in self._children:
            os.kill(order["stop"], order["signal"])

    def _spawn(self, definition: dict[str, str], directory: str, log: str) -> tuple[int, int]:
        # asyncio switches Nagle's delay (40 ms an answer) off only where the protocol is named.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        reason, last_words = os.pipe()
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_scoring_process(zygote, listener, last_words, Definition(**definition), Path(directory), Path(log))
        os.close(last_words)
        os.set_blocking(reason, False)
        self._children[pid] = reason
        with listener:
            return pid, int(listener.getsockname()[1])

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                self._tell({"exited": pid, "code": code, "reason": _reason(self._children.pop(pid), code)})

    def _tell(self, news: dict[str, Any]) -> None:
        self.control.sendall(json.dumps(news).encode() + b"\n")


def _reason(words: int, code: int) -> str:
    try:
        said = os.read(words, _REASON_LIMIT_BYTES).decode(errors="replace")
    except BlockingIOError:
        said = ""
    os.close(words)
    if said:
        return said
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _be_scoring_process(
    zygote: int, listener: socket.socket, last_words: int, definition: Definition, directory: Path, log: Path
) -> NoReturn:
    """In the child: forget the zygote's files and signals, and serve."""
    code = 1
    try:
        _die_with(zygote)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _log_to(log)
        _close_others({0, 1, 2, listener.fileno(), last_words})
        serve(definition, directory, listener)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the process ends here, and its last words say why
        words = f"{type(error).__name__}: {error}"
        if isinstance(error, LintasError):
            words, code = error.what, error.exit_code
        os.write(last_words, " ".join(words.split())[:_REASON_LIMIT_BYTES].encode())
    finally:
        os._exit(code)


def _log_to(log: Path) -> None:
    full = log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES
    file = os.open(log, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if full else os.O_APPEND), 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _close_others(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                # The directory's own descriptor, already closed.
                continue


def _die_with(parent: int) -> None:
    """Be killed when the parent dies (prctl(2), PR_SET_PDEATHSIG, Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the call.
        os._exit(1)


if __name__ == "__main__":
    main()
