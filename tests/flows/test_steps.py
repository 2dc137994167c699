"""A step is a Prefect task inside a flow and just a function outside, and only what may succeed later runs again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tasks.core.errors import Retryable, Terminal
from tasks.steps import in_flow, step
from tests.whole_stack import WholeStack

SCRIPT = """
from prefect import flow
from tasks.core.errors import Retryable, Terminal
from tasks.steps import step
import tasks.steps
tried = []

@step(name="flaky", retries=2)
def flaky(error):
    tried.append(type(error).__name__)
    if len(tried) < 2:
        raise error
    return "ok"

@flow
def whole(kind: str) -> None:
    try:
        print("GOT", flaky({"r": Retryable("busy", "wait"), "t": Terminal("gone", "stop")}[kind]))
    except Terminal as error:
        print("RAISED", error)

whole(__import__("sys").argv[1])
print("TRIED", len(tried))
"""


def test_outside_a_flow_a_step_is_just_the_function() -> None:
    @step(name="plain", retries=3)
    def plain(value: int) -> int:
        assert not in_flow()
        if value < 0:
            raise Retryable("busy", "wait")
        return value + 1

    assert plain(1) == 2
    with pytest.raises(Retryable):
        plain(-1)


@pytest.mark.parametrize(("kind", "expected"), [("r", ("GOT ok", "TRIED 2")), ("t", ("RAISED gone", "TRIED 1"))])
def test_inside_a_flow_only_retryable_errors_run_again(
    whole_stack: WholeStack, kind: str, expected: tuple[str, str]
) -> None:
    environment = os.environ | {"PREFECT_API_URL": whole_stack.prefect_api_url, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert all(words in done.stdout for words in expected), done.stdout + done.stderr[-2000:]


def test_errors_survive_a_process_boundary() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(Retryable("busy", "wait", retry_after_s=3.0)))
    assert (str(error), error.retry_after_s) == ("busy; wait.", 3.0)
    assert str(pickle.loads(pickle.dumps(Terminal("gone")))) == "gone."
