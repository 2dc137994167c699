"""Processor time and memory of other processes, as the benchmarks tell it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.memory import children
from benchmarks.processor import cpu_s

_BUSY = """
import sys, threading, time
def work():
    while time.thread_time() < 0.1: pass
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(time.process_time(), flush=True)
sys.stdin.read()
"""


def test_processor_time_counts_all_threads_of_a_process_the_ended_ones_too() -> None:
    with subprocess.Popen([sys.executable, "-c", _BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said_s = float(process.stdout.readline())

        assert said_s >= 0.2
        assert cpu_s([process.pid]) == pytest.approx(said_s, abs=0.05)
        assert cpu_s([process.pid, os.getpid()]) == pytest.approx(said_s + time.process_time(), abs=0.05)


def test_a_process_that_is_gone_is_told() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    with pytest.raises(FileNotFoundError):
        cpu_s([process.pid])


def test_processes_that_were_once_found_to_be_no_children_are_not_looked_at_again() -> None:
    strangers: set[int] = set()
    assert os.getppid() not in children(os.getpid(), strangers)
    assert os.getppid() in strangers

    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        assert process.pid in children(os.getpid(), strangers)
        assert process.pid in children(os.getpid(), strangers)
        assert process.pid not in children(os.getpid(), {process.pid})
