"""The twin's supervisor is killed: the end of the twin that all tests of this folder have used."""

from __future__ import annotations

import os
import signal
import time

import pytest

from deployments.local.proc import descendants, is_same_process, start_ticks
from deployments.local.stack import status
from tests.whole_stack import WholeStack

pytestmark = pytest.mark.last


def test_nothing_of_the_whole_twin_outlives_its_supervisor(whole_stack: WholeStack) -> None:
    told = status(whole_stack.state)
    assert {service.name for service in told.services if not service.ready} == set()
    assert told.supervisor_pid is not None
    family = {pid: start_ticks(pid) for pid in descendants(told.supervisor_pid)}
    assert len(family) > len(told.services)
    os.kill(told.supervisor_pid, signal.SIGKILL)
    # The worker asks its flow runs to end before it ends itself.
    deadline = time.monotonic() + 30
    while left := [pid for pid, ticks in family.items() if is_same_process(pid, ticks)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert status(whole_stack.state).state == "down"
