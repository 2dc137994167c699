"""The doctor says whether native code runs here; what is slower is not wrong."""

from __future__ import annotations

import pytest

from deployments.doctor import native_code
from tasks.core.detectors import native
from tasks.core.plane import exchanges


@pytest.mark.parametrize(
    ("turned_off", "kernel", "program", "seen", "words"),
    [
        ("1", object(), object(), True, "are compiled"),
        ("1", None, object(), False, "Python does the work of the gate's kernel, slower: install a C compiler"),
        ("1", None, None, False, "the gate's kernel and the mover's exchanges, slower"),
        ("0", None, None, False, "LINTAS_NATIVE=0"),
    ],
)
def test_it_says_whether_native_code_runs_here(
    monkeypatch: pytest.MonkeyPatch, turned_off: str, kernel: object, program: object, seen: bool, words: str
) -> None:
    monkeypatch.setenv("LINTAS_NATIVE", turned_off)
    monkeypatch.setattr(native, "kernel", lambda: kernel)
    monkeypatch.setattr(exchanges, "loaded", lambda: program)
    check = native_code()
    assert (check.ok, check.seen) == (True, seen)
    assert words in check.detail
