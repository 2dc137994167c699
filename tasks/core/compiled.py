"""Programs of C that are compiled once, where a compiler is.

A library lies in a directory that only the user may write to, under a name that holds the digest of its source, so that
a new version never meets an old library. Where there is no compiler, or the environment variable LINTAS_NATIVE is 0,
there is none, and the callers do the same in Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC", "-fno-strict-aliasing", "-pthread")
_COMPILING_S = 120


def compiled(name: str, program: str) -> Path | None:
    """The library of a program; None when it cannot be had or is not wanted.

    Args:
        name: What it is called.
        program: The whole source.
    """
    if os.environ.get("LINTAS_NATIVE") == "0":
        return None
    try:
        return _library(name, program)
    except (OSError, subprocess.SubprocessError):
        return None


def _library(name: str, program: str) -> Path | None:
    machine = f"{platform.system()}-{platform.machine()}"
    digest = hashlib.sha256("\n".join((program, *_FLAGS, machine)).encode()).hexdigest()[:24]
    path = _cache() / f"{name}-{digest}.so"
    if path.exists():
        return path
    compiler = next((found for each in _COMPILERS if (found := shutil.which(each))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        text, made = Path(scratch, f"{name}.c"), Path(scratch, f"{name}.so")
        text.write_text(program)
        done = subprocess.run(
            [compiler, *_FLAGS, "-o", made, text], capture_output=True, check=False, timeout=_COMPILING_S
        )
        if done.returncode:
            return None
        made.replace(path)
    return path


def _cache() -> Path:
    """Where libraries are kept. Raises OSError when it is not the user's alone."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base) / "lintas"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = directory.stat()
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o022):
        raise PermissionError(f"others may write to {directory}")
    return directory
