"""The launcher: what every cloud's training service starts, and what starts the user's command under Lintas' contract.

    python lintas_launch.py --data PLACE --output PLACE --checkpoints PLACE [--failure FILE]

It is shipped beside `lintas_job.json` and `code.tar.gz` and needs nothing but Python's standard library (3.8 or newer),
so that the user's image need not know Lintas. A PLACE is a directory as the service mounts it, a `gs://` URI that is
mounted below /gcs, or `env:NAME` for a variable of the service that holds one of these.

The command runs in a copy of the user's code, in a process group of its own. It gets the service's environment and the
`LINTAS_*` variables (tasks/core/training.py); its output passes through. The group ends with the command, after
`timeout_s` seconds, or when the service asks by SIGTERM.

Left behind: `lintas_output.json` in the output directory (size and SHA-256 of every file, how the command ended), in
FILE one sentence about a failure, and the exit code: the command's own, 128 + N after signal N, 127 and 126 when it
could not be started, 124 after the timeout (the conventions of sh(1) and timeout(1)).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

OUTPUT_LIST = "lintas_output.json"
JOB_FILE = "lintas_job.json"
CODE_ARCHIVE = "code.tar.gz"
TIMED_OUT = 124

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.1
_DRAIN_S = 2.0
_KEPT_BYTES = 4096
_PIECE_BYTES = 1024 * 1024
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))\b")


def place(text: str) -> Path:
    """The directory that a PLACE means. Raises `SystemExit` when the service has not set the variable."""
    if text.startswith("env:"):
        name = text[len("env:") :]
        if not os.environ.get(name):
            raise SystemExit(f"the training service did not set {name}")
        text = os.environ[name]
    if text.startswith("gs://"):
        text = "/gcs/" + text[len("gs://") :]
    return Path(text)


def unpack(archive: Path, sha256: str) -> Path:
    """A new directory with the user's code. Raises `SystemExit` when the archive is not the one that was sent."""
    if file_sha256(archive) != sha256:
        raise SystemExit("the code that arrived is not the code that was sent")
    directory = Path(tempfile.mkdtemp(prefix="lintas-")) / "code"
    directory.mkdir()
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(directory, filter="data")
        else:
            tar.extractall(directory)  # noqa: S202 - the digest has just said that it is our own archive
    return directory


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def output_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below the output directory, by its relative path."""
    return {
        path.relative_to(directory).as_posix(): {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != OUTPUT_LIST
    }


class Command:
    """The user's command while it runs.

    Args:
        arguments: Program and arguments; `python` means the interpreter that runs the launcher.
        directory: Its working directory.
        environment: All of its variables.
    """

    def __init__(self, arguments: list[str], directory: Path, environment: dict[str, str]) -> None:
        program, *rest = arguments
        launcher = os.getpid()
        # It must end with its launcher, also when that one is killed; only Linux can promise it.
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None

        def die_with_launcher() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != launcher:
                    os._exit(1)

        self._process = subprocess.Popen(
            [sys.executable if program == "python" else program, *rest],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_launcher,
        )
        self._last = b""
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def wait(self, deadline: float, asked_to_stop: list[int], grace_s: float) -> tuple[int, str]:
        """Wait for its end, or bring it about. Returns the exit code (negative: a signal) and `stopped`, `timeout` or
        the empty text.
        """
        why = ""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LOOK_S)
                break
            if asked_to_stop or time.monotonic() > deadline:
                why = "stopped" if asked_to_stop else "timeout"
                self._signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(grace_s)
                break
        self._signal(signal.SIGKILL)  # Also what the command left running in the background.
        code = self._process.wait()
        self._reader.join(_DRAIN_S)
        return code, why

    def last_line(self) -> str:
        """The last line that it wrote."""
        lines = self._last.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _pass_on(self) -> None:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        while piece := os.read(source, 65536):
            self._last = (self._last + piece)[-_KEPT_BYTES:]
            with contextlib.suppress(OSError):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()


def why_failed(code: int, last_line: str) -> str:
    """The end in words, without the log's own: what a script prints may be personal. The exception's name is not."""
    if code < 0:
        return f"the command was killed by {signal.Signals(-code).name}"
    if os.strerror(errno.ENOSPC) in last_line:
        return f"the command ended with code {code}: no space was left where it writes; free some and try again"
    exception = _EXCEPTION.match(last_line)
    named = f" ({exception.group(1)})" if exception else ""
    return f"the command ended with code {code}{named}; see the job's log"


def not_started(error: OSError, program: str) -> tuple[int, str]:
    """Exit code (127: not found, 126: cannot be run) and words."""
    if isinstance(error, FileNotFoundError):
        return 127, f"the program '{program}' was not found; correct the command or install it"
    return 126, f"the program '{program}' cannot be run ({os.strerror(error.errno or 0)}); correct the command"


def run(job: dict[str, Any], code: Path, contract: dict[str, str], asked_to_stop: list[int]) -> tuple[int, str]:
    """Run the command. Returns the exit code to leave with, and why it is not 0."""
    environment = {**os.environ, **job["environment"], **contract}
    deadline = time.monotonic() + job["timeout_s"]
    if asked_to_stop:
        return 128 + signal.SIGTERM, "stopped before it began"
    try:
        command = Command(job["command"], code, environment)
    except OSError as error:
        return not_started(error, job["command"][0])
    ended, why = command.wait(deadline, asked_to_stop, job["grace_s"])
    if why == "timeout":
        return TIMED_OUT, f"stopped after its timeout of {job['timeout_s']:g} s"
    if why == "stopped":
        return 128 + signal.SIGTERM, "stopped"
    if ended == 0:
        return 0, ""
    return (128 - ended if ended < 0 else ended), why_failed(ended, command.last_line())


def main() -> int:
    """Run the job that lies beside this file."""
    parser = argparse.ArgumentParser(description="Start a training command under Lintas' contract.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--checkpoints", required=True)
    parser.add_argument("--failure", type=Path)
    chosen = parser.parse_args()
    asked_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: asked_to_stop.append(number))

    here = Path(__file__).resolve().parent
    job = json.loads((here / JOB_FILE).read_text())
    data, output, checkpoints = place(chosen.data), place(chosen.output), place(chosen.checkpoints)
    for directory in (output, checkpoints):
        directory.mkdir(parents=True, exist_ok=True)
    contract = {
        "LINTAS_DATA_DIR": str(data),
        "LINTAS_OUTPUT_DIR": str(output),
        "LINTAS_CHECKPOINT_DIR": str(checkpoints),
        "PYTHONUNBUFFERED": "1",
    }
    code, why = run(job, unpack(here / CODE_ARCHIVE, job["code_sha256"]), contract, asked_to_stop)
    told = {"job_digest": job["digest"], "exit_code": code, "why": why, "files": output_files(output)}
    (output / OUTPUT_LIST).write_text(json.dumps(told, indent=1))
    if why and chosen.failure is not None:
        chosen.failure.parent.mkdir(parents=True, exist_ok=True)
        chosen.failure.write_text(why)
    return code


if __name__ == "__main__":
    sys.exit(main())
