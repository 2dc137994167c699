"""Several machines for one move: a Dask scheduler and workers, each with a configuration and records of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deployments.local.ports import free_ports
from deployments.local.processes import HOST
from tasks.core.cloud import CloudConfig

ROOT = Path(__file__).parents[1]
POLICY = {"version": 1, "name": "open", "residency": {"allowed": ["EU"]}} | {
    "rules": [{"name": "unread", "entities": ["UNREADABLE"], "action": "allow"}]
}


@dataclass
class Machines:
    """The configuration of one installation, written anew for each machine."""

    root: Path
    clouds: tuple[CloudConfig, ...]
    shards: dict[str, Any]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, machine: str) -> dict[str, str]:
        """What a process of a machine starts with: its own file, and the secrets that the file refers to."""
        secrets = {"SIGNING": "s" * 32, "PSEUDONYM": "p" * 32} | {
            _variable(cloud, name): secret.reveal()
            for cloud in self.clouds
            for name, secret in cloud.credentials.items()
        }
        home = self.root / machine
        home.mkdir(exist_ok=True)
        config = {
            "clouds": {cloud.name: _facts(cloud) for cloud in self.clouds},
            "mover": {"shards": self.shards},
            "gate": {"signing_key": "env:SIGNING", "pseudonym_key": "env:PSEUDONYM"},
            "state_dir": str(home / "state"),
            "policies_dir": str(self.root),
        }
        (home / "lintas.yaml").write_text(yaml.safe_dump(config))
        (self.root / "open.yaml").write_text(yaml.safe_dump(POLICY))
        return os.environ | secrets | {"LINTAS_CONFIG": str(home / "lintas.yaml"), "PYTHONPATH": str(ROOT)}

    def records(self, machine: str) -> Path:
        """Where a machine keeps its journal."""
        return self.root / machine / "state/records.sqlite"


@contextmanager
def dask_machines(root: Path, clouds: tuple[CloudConfig, ...], shards: Mapping[str, Any]) -> Iterator[Machines]:
    """Machines `one` and `two`, reached by a scheduler that runs; `home` is the machine that moves."""
    (port,) = free_ports(1)
    scheduler = f"tcp://{HOST}:{port}"
    machines = Machines(root, clouds, {"runner": "dask", "scheduler": scheduler, **shards})
    with ExitStack() as running:

        def start(machine: str, *arguments: str) -> subprocess.Popen[bytes]:
            environment = machines.environment(machine)
            log = running.enter_context((root / f"{machine}.log").open("wb"))
            command = [sys.executable, "-m", *arguments, "--host", HOST, "--no-dashboard"]
            process = subprocess.Popen(command, env=environment, cwd=root / machine, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        start("scheduler", "distributed.cli.dask_scheduler", "--port", str(port))
        for machine in ("one", "two"):
            alone = ("--nthreads", "1", "--no-nanny", "--name", machine)
            machines.workers[machine] = start(machine, "distributed.cli.dask_worker", scheduler, *alone)
        yield machines


def awaited(condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
    """Wait until something is so, or fail naming it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def _variable(cloud: CloudConfig, name: str) -> str:
    return f"TEST_{cloud.name}_{name}".upper()


def _facts(cloud: CloudConfig) -> dict[str, Any]:
    return {
        "provider": cloud.provider,
        "region": cloud.region,
        "jurisdiction": "EU",
        "endpoints": dict(cloud.endpoints),
        "credentials": {name: f"env:{_variable(cloud, name)}" for name in cloud.credentials},
        "options": dict(cloud.options),
    }
