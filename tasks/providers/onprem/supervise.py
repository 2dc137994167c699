"""The supervisor of one on-premises job: `python -m tasks.providers.onprem.supervise JOBDIR`.

It detaches from whoever submitted the job, runs the user's command in a process group of its own, stops it when
it takes too long or when `cancel` appears in the job's directory, and leaves a verdict. What it knows is in files:

| file | written by | holds |
| --- | --- | --- |
| `job.json` | submitter | command, environment, timeout (no secrets: the environment proper is inherited) |
| `supervisor.json` | supervisor | its identity, once it is responsible |
| `child.json` | supervisor | identity of the command's process (also its group), wall-clock start |
| `log.txt` | command | standard output and error |
| `cancel` | anyone | its existence asks for the end |
| `verdict.json` | supervisor | state, exit code, detail, seconds; its existence means that the job has ended |

Only the standard library is used, so that it starts fast and stays small beside the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.2
_VERDICT_BYTES = 4096
_LOW_DISK_BYTES = 1024 * 1024
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))\b")


def identity(pid: int) -> str | None:
    """What tells a process from a later one with the same id: boot id, pid and start time; None when it is gone.

    Start time is field 22 of /proc/PID/stat, in clock ticks since boot (proc(5)).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in ("Z", "X") else f"{boot}:{pid}:{fields[18]}"


def is_alive(process: str) -> bool:
    """Whether the process of this identity still runs."""
    return identity(int(process.split(":")[1])) == process


def stop_group(process: str, grace_s: float) -> None:
    """End the process group that this identity leads: TERM, then KILL after `grace_s` seconds; silent when it is gone.

    For a command whose supervisor is gone, so that its end shows in /proc alone.
    """
    if not is_alive(process):
        return
    leader = int(process.split(":")[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while is_alive(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(leader, signal.SIGKILL)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a file so that it is either absent or whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(data))
    draft.rename(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of such a file, or None while there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def write_verdict(job_dir: Path, state: str, exit_code: int | None, detail: str, running_s: float) -> None:
    """Say once how the job ended; a verdict that is there already stays.

    The draft's room was reserved when the job began, so that a full disk does not swallow the verdict.
    """
    final, draft = job_dir / "verdict.json", job_dir / ".verdict.draft"
    verdict = {
        "state": state,
        "exit_code": exit_code,
        "detail": detail,
        "running_s": running_s,
        "ended": time.time(),
    }
    text = json.dumps(verdict).encode()
    with draft.open("r+b" if draft.exists() else "wb") as file:
        file.write(text.ljust(_VERDICT_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(draft, final)


def supervise(job_dir: Path) -> None:
    """Run the job to its end. Returns when the verdict is written."""
    asked_to_stop = _watch_signals()
    job = json.loads((job_dir / "job.json").read_text())
    with (job_dir / ".verdict.draft").open("wb") as draft:
        os.posix_fallocate(draft.fileno(), 0, _VERDICT_BYTES)
    write_json(job_dir / "supervisor.json", {"process": identity(os.getpid())})
    if (job_dir / "cancel").exists():
        write_verdict(job_dir, "stopped", None, "cancelled before it began", 0.0)
        return
    began = time.monotonic()
    try:
        child = _start(job, job_dir)
    except OSError as error:
        exit_code, detail = _not_started(error, job["command"][0])
        write_verdict(job_dir, "failed", exit_code, detail, 0.0)
        return
    write_json(job_dir / "child.json", {"process": identity(child.pid), "began": time.time()})
    reason = _wait(child, job_dir, began + job["timeout_s"], asked_to_stop)
    with contextlib.suppress(ProcessLookupError):
        if reason is not None:
            os.killpg(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(job["grace_s"])
        os.killpg(child.pid, signal.SIGKILL)  # Also what the command left running in the background.
    exit_code = child.wait()
    running_s = time.monotonic() - began
    if reason is not None:
        detail = "cancelled" if reason == "cancel" else f"stopped after its timeout of {job['timeout_s']:g} s"
        write_verdict(job_dir, "stopped", exit_code, detail, running_s)
    elif exit_code == 0:
        shutil.rmtree(job["checkpoint_dir"], ignore_errors=True)
        write_verdict(job_dir, "succeeded", 0, "", running_s)
    else:
        write_verdict(job_dir, "failed", exit_code, _why(exit_code, job_dir), running_s)


def _start(job: dict[str, Any], job_dir: Path) -> subprocess.Popen[bytes]:
    supervisor = os.getpid()
    libc = ctypes.CDLL(None)

    def die_with_supervisor() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # It died between fork and prctl.
            os._exit(1)

    environment = {**os.environ, **job["environment"]}
    program, *arguments = job["command"]
    if program == "python":
        program = job["python"]
    with (job_dir / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [program, *arguments],
            cwd=job_dir / "code",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_supervisor,
        )


def _wait(child: subprocess.Popen[bytes], job_dir: Path, deadline: float, asked_to_stop: list[int]) -> str | None:
    """Wait until the command ends (None) or must be ended (why)."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)
            return None
        if asked_to_stop or (job_dir / "cancel").exists():
            return "cancel"
        if time.monotonic() > deadline:
            return "timeout"


def _watch_signals() -> list[int]:
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.append(number))
    return received


def _not_started(error: OSError, program: str) -> tuple[int, str]:
    """Exit code in the shell's convention (127: not found, 126: cannot be run) and words."""
    if isinstance(error, FileNotFoundError):
        return 127, f"the program '{program}' was not found; correct the command or install it"
    if error.errno == errno.ENOSPC:
        return 126, "the disk is full; free some space and submit the next attempt"
    return 126, f"the program '{program}' cannot be run ({os.strerror(error.errno or 0)}); correct the command"


def _why(exit_code: int, job_dir: Path) -> str:
    """The end in words, without the log's own: what a script prints may be personal. The exception's name is not."""
    if exit_code < 0:
        return f"the command was killed by {signal.Signals(-exit_code).name}"
    if shutil.disk_usage(job_dir).free < _LOW_DISK_BYTES:
        return f"the command ended with code {exit_code}: the disk is full; free some space and submit the next attempt"
    last = _last_line(job_dir / "log.txt")
    if os.strerror(errno.ENOSPC) in last:
        return f"the command ended with code {exit_code}: no space was left where it writes; free some and try again"
    exception = _EXCEPTION.match(last)
    named = f" ({exception.group(1)})" if exception else ""
    return f"the command ended with code {exit_code}{named}; see the job's log"


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def main() -> None:
    """Detach and supervise. The caller returns as soon as the supervisor is on its own."""
    job_dir = Path(sys.argv[1])
    if os.fork():
        os._exit(0)
    os.setsid()
    errors = os.open(job_dir / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (null, 1), (errors, 2)):
        os.dup2(source, target)
    supervise(job_dir)


if __name__ == "__main__":
    main()
