"""What all training services are given alike, and how what they give back is read.

A job travels as three files below `PREFIX/lintas-jobs/JOB_NAME/code/`: the launcher (lintas_launch.py), the job
(lintas_job.json) and the user's code (code.tar.gz). Its output comes back with a list of its files, which the launcher
writes last and `adopt_output` checks. Checkpoints are kept by family: `PREFIX/lintas-checkpoints/FAMILY/`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import IntegrityError, Invalid, Terminal
from tasks.core.training import JobSpec, RunState, code_digest
from tasks.providers._dialects import lintas_launch
from tasks.providers._dialects.lintas_launch import CODE_ARCHIVE, JOB_FILE, OUTPUT_LIST, TIMED_OUT, file_sha256

LAUNCHER = "lintas_launch.py"
MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI",)
"""What of our own environment a job on another machine may see."""


def job_prefix(prefix: str, job_name: str) -> str:
    """The keys of a job's own objects begin with this; `prefix` is the cloud's option, without slashes at its ends.

    >>> job_prefix("", "probe-1"), job_prefix("team/a", "probe-1")
    ('lintas-jobs/probe-1/', 'team/a/lintas-jobs/probe-1/')
    """
    return f"{_folder(prefix)}lintas-jobs/{job_name}/"


def checkpoint_prefix(prefix: str, family: str) -> str:
    """The keys of the checkpoints that all attempts of one job share begin with this."""
    return f"{_folder(prefix)}lintas-checkpoints/{family}/"


def _folder(prefix: str) -> str:
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def job_environment(job: JobSpec) -> dict[str, str]:
    """The variables of the contract that do not depend on the machine, with those of the spec."""
    inherited = {name: os.environ[name] for name in MLFLOW_VARIABLES if name in os.environ}
    return {**inherited, **job.environment, "LINTAS_RUN_ID": job.run_id, "MLFLOW_RUN_ID": job.run_id}


def pack_job(job: JobSpec, cloud: str, *, grace_s: float) -> Mapping[str, bytes]:
    """The files that a job travels as, by name. The same job packs into the same bytes.

    Args:
        job: The job.
        cloud: The cloud that is to run it.
        grace_s: Seconds between asking the command to end and killing it; less than the service itself waits.

    Raises:
        Invalid: The dataset is on another cloud, or the code is not what the spec says.
    """
    if job.data.cloud != cloud:
        raise Invalid(f"the dataset {job.data} is not on '{cloud}'", "move it there first")
    archive = _pack_code(Path(job.code_dir))
    with tempfile.TemporaryDirectory() as check:
        # What was packed is what counts: the directory may change meanwhile.
        _unpack(archive, Path(check))
        if code_digest(Path(check)) != job.code_digest:
            raise Invalid(f"the code in '{job.code_dir}' changed since the job was planned", "plan the job again")
    facts = {
        "digest": job.digest,
        "command": list(job.command),
        "environment": job_environment(job),
        "timeout_s": job.timeout_s,
        "grace_s": grace_s,
        "code_sha256": hashlib.sha256(archive).hexdigest(),
    }
    return {
        LAUNCHER: Path(lintas_launch.__file__).read_bytes(),
        JOB_FILE: json.dumps(facts, sort_keys=True, indent=1).encode(),
        CODE_ARCHIVE: archive,
    }


def _pack_code(directory: Path) -> bytes:
    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = member.name.rpartition("/")[2]
        if name == "__pycache__" or (name.startswith(".") and name != "."):
            return None
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    try:
        with io.BytesIO() as whole:
            with (
                gzip.GzipFile(fileobj=whole, mode="wb", mtime=0) as squeezed,
                tarfile.open(fileobj=squeezed, mode="w", dereference=True) as tar,
            ):
                tar.add(directory, arcname=".", filter=kept)
            return whole.getvalue()
    except OSError as error:
        raise Invalid(f"the code in '{directory}' cannot be read ({error.strerror})", "correct code_dir") from error


def _unpack(archive: bytes, into: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(into, filter="data")


def verdict(exit_code: int | None, why: str) -> tuple[RunState, int | None, str]:
    """State, exit code (negative after a signal) and detail of a job whose launcher left with this code.

    Args:
        exit_code: The container's; None when the service does not tell.
        why: The launcher's sentence, from the failure file or `output_told`; empty when there is none.

    >>> verdict(134, "the command was killed by SIGABRT")
    (<RunState.FAILED: 'failed'>, -6, 'the command was killed by SIGABRT')
    >>> verdict(0, "")
    (<RunState.SUCCEEDED: 'succeeded'>, 0, '')
    """
    if exit_code == 0:
        return RunState.SUCCEEDED, 0, ""
    if exit_code == TIMED_OUT and why.startswith("stopped after its timeout"):
        return RunState.STOPPED, exit_code, why
    if exit_code is None:
        return RunState.FAILED, None, why or "the job failed and the service does not say how; see its log"
    told = -(exit_code - 128) if exit_code - 128 in {int(number) for number in signal.Signals} else exit_code
    return RunState.FAILED, told, why or f"the job ended with code {told}; see its log"


def output_told(directory: Path) -> Mapping[str, Any] | None:
    """What the launcher wrote about the output in this directory; None when it did not get so far."""
    try:
        told = json.loads((directory / OUTPUT_LIST).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def adopt_output(arrived: Path, into: Path, job_id: str) -> None:
    """Check an output that has come home against its list and put it into its place.

    Args:
        arrived: A directory of our own with everything that was in the job's output directory; emptied.
        into: Where it goes; made if need be.
        job_id: For messages.

    Raises:
        IntegrityError: The list is missing or says otherwise than the files; nothing was put into place.
        Terminal: The disk takes no more.
    """
    told = output_told(arrived)
    if told is None:
        raise IntegrityError(
            f"the output of job '{job_id}' has no list of its files, so it ended before it was complete",
            "submit the next attempt",
        )
    listed: Mapping[str, Any] = told["files"]
    (arrived / OUTPUT_LIST).unlink()
    found = {path.relative_to(arrived).as_posix(): path for path in arrived.rglob("*") if path.is_file()}
    differing = sorted(listed.keys() ^ found.keys()) + sorted(
        name for name, path in found.items() if name in listed and file_sha256(path) != listed[name]["sha256"]
    )
    if differing:
        raise IntegrityError(
            f"the output of job '{job_id}' is not what the job wrote: {len(differing)} files differ, "
            f"among them '{differing[0]}'",
            "fetch it again; if it stays so, run the next attempt",
        )
    try:
        shutil.copytree(arrived, into, dirs_exist_ok=True)
    except OSError as error:
        raise Terminal(f"the output of job '{job_id}' cannot be written to {into}", "free some space there") from error


def unpack_output(archive: Path, into: Path, job_id: str) -> None:
    """Unpack a tar of an output directory, as services that send one do.

    Raises:
        IntegrityError: It cannot be read, or would write outside of `into`.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise IntegrityError(f"the output archive of job '{job_id}' cannot be read", "fetch it again") from error
